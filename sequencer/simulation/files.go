package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rollup-entrypoint/sequencer"
)

// Check implements sequencer.Files.
func (e *entrypoint) Check(plan *sequencer.Plan, i int) sequencer.Problems {
	e.enter("check of the files")
	defer e.leave()
	if e.isMissing(i, byCheck) {
		return sequencer.Problems{fmt.Sprintf("version %d: rollup_binary: %s: no such file", i, plan.Versions[i].Binary)}
	}
	return nil
}

// isMissing: the files of version i are not there now, or not the right ones, and a look of that kind shows it.
func (e *entrypoint) isMissing(i int, by notices) bool {
	return i == e.missing && by == e.missingFor && (!e.missingLate || len(e.started) > 0)
}

// Digest implements sequencer.Files. It is also called beside the run, to read the next version ahead: that is no step.
func (e *entrypoint) Digest(binary string) (string, error) {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if ahead := w.options.verifies || e.current != nil && e.current.alive; !ahead {
		e.step("digest")
		if w.rng.IntN(10) == 0 {
			e.takes(w.between(time.Millisecond, 2*time.Second))
		}
	}
	r := releaseOf(binary)
	e.digests[r] = w.digest(r)
	return e.digests[r], nil
}

// Storage implements sequencer.Files.
func (e *entrypoint) Storage(string) (string, error) {
	e.enter("look where the state is")
	defer e.leave()
	switch {
	case e.w.options.nameless || e.forgotten:
		return "", nil
	case e.elsewhere:
		return storageName + "-of-another", nil
	}
	return storageName, nil
}

// preflight is Options.Preflight. Before the first start it is the run that calls it.
func (e *entrypoint) preflight(i int) []sequencer.Finding {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(e.started) == 0 {
		e.step("preflight")
		return e.findings(i, byPreflight)
	}
	e.passes(e.ownPause(i))
	e.waitForRun()
	return e.findings(i, byPreflight)
}

// verify is Options.Verify. It is always called beside the run.
func (e *entrypoint) verify(ctx context.Context, i int, idly bool) []sequencer.Finding {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !sleepUnlocked(w, ctx, e.ownPause(i)) {
		return nil
	}
	if idly {
		e.waitForRun()
	}
	return e.findings(i, byVerify)
}

// ownPause gives a pause of its own to whatever runs beside the run. It is the same in each replay, since nothing else
// begins at this instant for version i.
func (e *entrypoint) ownPause(i int) time.Duration {
	at := uint64(time.Since(e.w.began))
	return ownInstant(rand.New(rand.NewPCG(e.w.seed^at, uint64(i+10))), 100*time.Millisecond)
}

// waitForRun waits until the run is in a select again: what comes before would make two things ready for it.
func (e *entrypoint) waitForRun() {
	for e.busy && !e.dead {
		e.passes(time.Millisecond + time.Duration(1+e.w.rng.Int64N(9973)))
	}
}

// findings are what a close look at version i, or at what all versions share, finds.
func (e *entrypoint) findings(i int, by notices) []sequencer.Finding {
	var found []sequencer.Finding
	if e.warned && (i == sequencer.WholePlan || by == byVerify) {
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityWarning, What: "the volume has 3 MiB free", Next: "make it larger"})
	}
	if e.isMissing(i, by) {
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityError, What: "the binary is not as the manifest has it", Next: "build the image again"})
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
type reader struct{ e *entrypoint }

// Answered implements sequencer.HeightReader.
func (r *reader) Answered() bool {
	e := r.e
	e.w.mu.Lock()
	p := e.current
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
		return 0, errRefused // at once
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
	// An answer that comes while the run is busy with a write waits, or there would be two things ready for its select.
	for e.busy && !e.dead {
		if !sleepUnlocked(w, ctx, time.Duration(1_000_000+rng.Int64N(9973))) {
			return 0, errCancelled
		}
	}
	return p.answerTo(answer, early, height)
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

// SameDirectory implements sequencer.Files.
func (e *entrypoint) SameDirectory(a, b string) bool { return a == b }
