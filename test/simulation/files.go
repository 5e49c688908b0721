package simulation

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"rollup-entrypoint/sequencer"
)

// inspection is the sequencer.Inspection of an entrypoint.
type inspection struct{ *entrypoint }

// Version implements sequencer.Inspection.
func (n inspection) Version(ctx context.Context, i int, depth sequencer.Depth) []sequencer.Finding {
	return n.look(ctx, i, depth)
}

// Shared implements sequencer.Inspection.
func (n inspection) Shared(ctx context.Context, depth sequencer.Depth) []sequencer.Finding {
	return n.look(ctx, sequencer.WholePlan, depth)
}

// look inspects version i, or what all versions share. What is only compared with the manifest, and what is inspected while a
// node runs, is called beside the run; before the first start it is the run that calls it.
func (e *entrypoint) look(ctx context.Context, i int, depth sequencer.Depth) []sequencer.Finding {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case depth&(sequencer.Manifest|sequencer.Idly) == 0 && len(e.started) == 0:
		e.step("inspection")
	case !sleepUnlocked(w, ctx, e.ownPause(i)):
		return nil
	case depth != sequencer.Manifest:
		e.waitForRun()
	}
	return e.findings(i, depth)
}

// isMissing: the files of version i are not there now, or not the right ones, and a look of that depth shows it.
func (e *entrypoint) isMissing(i int, depth sequencer.Depth) bool {
	return i >= 0 && i == e.missing && e.missingFor&depth == e.missingFor && (!e.missingLate || len(e.started) > 0)
}

// Digest implements sequencer.Inspection. Once a node runs it is also called beside the run, to read the next version ahead:
// then it is no step.
func (n inspection) Digest(i int) (string, error) {
	e, w := n.entrypoint, n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(e.started) == 0 {
		e.step("digest")
		if w.rng.IntN(10) == 0 {
			e.takes(w.between(time.Millisecond, 2*time.Second))
		}
	}
	if w.plan.Versions[i].Retired {
		return "", errors.New("there is no binary")
	}
	r := releaseOf(w.plan.Versions[i].Binary)
	e.digests[r] = w.digest(r)
	return e.digests[r], nil
}

// Storage implements sequencer.Inspection.
func (n inspection) Storage(_ int, dir string) (now string, same bool, err error) {
	n.enter("look where the state is")
	defer n.leave()
	switch {
	case n.w.options.nameless || n.forgotten:
	case n.elsewhere:
		now = storageName + "-of-another"
	default:
		now = storageName
	}
	return now, now == dir, nil
}

// ownPause gives a pause of its own to whatever runs beside the run. It is the same in each replay, since nothing else
// begins at this instant for version i.
func (e *entrypoint) ownPause(i int) time.Duration {
	at := uint64(time.Since(e.w.began))
	return ownInstant(rand.New(rand.NewPCG(e.w.seed^at, uint64(i+10))), 100*time.Millisecond)
}

// waitForRun waits until the run is in a select again: what comes before would make two things ready for it.
func (e *entrypoint) waitForRun() {
	for (e.busy || e.writing) && !e.dead {
		e.passes(time.Millisecond + time.Duration(1+e.w.rng.Int64N(9973)))
	}
}

// findings are what a look at version i, or at what all versions share, finds.
func (e *entrypoint) findings(i int, depth sequencer.Depth) []sequencer.Finding {
	var found []sequencer.Finding
	if e.warned && (i == sequencer.WholePlan || depth&sequencer.Manifest != 0) {
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityWarning, What: "the volume has 3 MiB free", Next: "make it larger"})
	}
	if e.isMissing(i, depth) {
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityError, What: "the binary does not match the manifest", Next: "build the image again"})
	}
	return found
}

// heights gives the reader for the node of a version.
func (e *entrypoint) heights(v sequencer.Version) (sequencer.HeightReader, error) {
	e.enter("height reader")
	defer e.leave()
	if e.unreadable >= 0 && e.w.index(releaseOf(v.Binary)) == e.unreadable {
		return nil, errors.New("cannot read the node config: permission denied")
	}
	return &reader{e: e}, nil
}

// nonce is Options.Nonce.
func (e *entrypoint) nonce() uint64 {
	e.enter("draw a nonce")
	defer e.leave()
	return firstNonce + e.w.rng.Uint64N(1<<62)
}

// firstNonce is the lowest start height with which a node is only asked.
const firstNonce = 1 << 48

// reader asks the node that runs for its height.
type reader struct {
	e *entrypoint
	// looked: the run has looked for strangers. Later it is looked whether the node is up.
	looked bool
}

// Answered implements sequencer.HeightReader.
func (r *reader) Answered() bool {
	e := r.e
	e.w.mu.Lock()
	p, looked := e.current, r.looked
	r.looked = true
	if looked && !p.question { // no step: it is called beside the run
		defer e.w.mu.Unlock()
		return e.stranger || p.alive && p.isUp()
	}
	if p != nil && p.alive && p.question { // no step: see logHandler
		defer e.w.mu.Unlock()
		e.cameUp = e.cameUp || p.serves()
		return e.stranger || p.serves()
	}
	e.w.mu.Unlock()
	e.enter("look for strangers")
	defer e.leave()
	if e.w.rng.IntN(8) == 0 {
		e.takes(e.w.between(time.Millisecond, 100*time.Millisecond))
	}
	return e.stranger
}

var (
	errRefused   = errors.New("connection refused")
	errCancelled = errors.New("the query was cancelled")
)

// Height implements sequencer.HeightReader. It is called by a goroutine of its own.
func (r *reader) Height(ctx context.Context) (uint64, error) {
	e, w := r.e, r.e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	p := e.current
	if e.dead || p == nil {
		return 0, errRefused
	}
	rng := w.queries
	answer := p.query()
	if answer == answerRefused {
		if p.alive && p.isUp() { // not at the instant at which the run is told that it is up
			p.queries++
			defer p.queryEnds()
			if !sleepUnlocked(w, ctx, logEven(rng, 20*time.Microsecond, 5*time.Millisecond)+time.Duration(1+rng.Int64N(9973))) {
				return 0, errCancelled
			}
		}
		if !e.waitForSelect(ctx) {
			return 0, errCancelled
		}
		return 0, errRefused
	}
	d := logEven(rng, 20*time.Microsecond, 5*time.Millisecond)
	if rng.IntN(20) == 0 {
		d = logEven(rng, time.Millisecond, 900*time.Millisecond)
	}
	d += time.Duration(1 + rng.Int64N(9973))
	// The node answers at once and the answer is under way, or it answers late.
	early := rng.IntN(2) == 0
	var height uint64
	if early && answer == answerHeight {
		height = p.soft(time.Now())
	}
	p.queries++
	defer p.queryEnds()
	if answer == answerHangs {
		d = time.Second + time.Duration(rng.Int64N(9973))
	}
	if !sleepUnlocked(w, ctx, d) {
		return 0, errCancelled
	}
	if !e.waitForSelect(ctx) {
		return 0, errCancelled
	}
	return p.answerTo(answer, early, height)
}

// waitForSelect waits until the run is in a select that takes heights: an answer that comes while it is busy, or writes,
// waits, or there would be two things ready for it.
func (e *entrypoint) waitForSelect(ctx context.Context) bool {
	for (e.busy || e.writing) && !e.dead {
		if !sleepUnlocked(e.w, ctx, time.Duration(1_000_000+e.w.queries.Int64N(9973))) {
			return false
		}
	}
	return true
}

func sleepUnlocked(w *world, ctx context.Context, d time.Duration) bool {
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
