package simulation

import (
	"errors"
	"strings"
	"time"

	"rollup-entrypoint/sequencer"
)

// hold is the file that holds the sequence.
type hold struct {
	// before is the name of the version before which it holds; empty: everything.
	before  string
	garbage bool
	at      time.Time
}

// holdFile is the sequencer.Hold of an entrypoint.
type holdFile struct{ *entrypoint }

// File implements sequencer.Hold.
func (holdFile) File() string { return "/data/hold" }

// Held implements sequencer.Hold.
func (h holdFile) Held() (held bool, before string, err error) {
	h.onDisk("look for a hold")
	defer h.leave()
	switch found := h.w.hold; {
	case found == nil:
		return false, "", nil
	case found.garbage:
		return true, "", errors.New("the hold file is not JSON")
	default:
		return true, found.before, nil
	}
}

// placeHold is 'entrypoint hold', or somebody who touches the file. It is removed some time later.
func (w *world) placeHold() {
	if w.hold != nil {
		return
	}
	h := &hold{at: time.Now()}
	next := min(max(0, w.stampedAs(w.stamp()))+1, w.plan.Last())
	switch w.rng.IntN(8) {
	case 0:
		w.count(holdGarbage)
		h.garbage = true
	case 1:
		h.before = "v99"
	case 2:
		h.before = w.plan.Versions[w.rng.IntN(len(w.plan.Versions))].Name
	case 3, 4:
		h.before = w.plan.Versions[next].Name
	}
	w.hold = h
	w.logf("a hold is placed: %+v", *h)
	lasts := w.between(10*time.Millisecond, 3*time.Minute)
	if w.rng.IntN(3) == 0 {
		w.after(lasts/2, func() { w.restoreUnderHold(h) })
	}
	w.after(lasts, func() {
		w.hold = nil
		w.logf("the hold is removed")
		e := w.e
		w.after(time.Second+time.Millisecond, func() {
			if w.e == e && !e.dead && !e.returned && e.isHeld && w.hold == nil && e.stopsTaken == 0 {
				w.violate(liveness, "the hold was removed a second ago, and the sequence is held")
			}
		})
	})
}

// restoreUnderHold restores an older state while the sequence is held, as the documentation allows.
func (w *world) restoreUnderHold(h *hold) {
	c, e := w.checkpoint(), w.e
	alone := w.options.withoutCheckpoint || c != nil && c.Stamped && w.stamp() != nil
	if w.hold != h || e.dead || e.returned || !e.isHeld || !w.sound(&w.good) || !alone || w.former != nil || w.volume.foreign || w.options.nameless || w.options.slack != nil ||
		!w.fault(restoredUnderHold, .5) {
		return
	}
	w.state = w.good.clone()
	if w.snapshot != nil && w.rng.IntN(2) == 0 {
		w.state = w.snapshot.state.clone()
	}
	w.volume.restored, w.volume.version = true, max(0, w.stampedAs(w.stamp()))
	e.gone = w.gone()
	e.begunBefore = e.begunBefore || w.begun()
	w.logf("the state is restored under the hold: %s", &w.state)
}

// covers: the hold keeps version i from being entered.
func (h *hold) covers(p *sequencer.Plan, i int) bool {
	return h.everything(p) || h.before == p.Versions[i].Name
}

// everything: the hold keeps a starting entrypoint from starting anything.
func (h *hold) everything(p *sequencer.Plan) bool {
	for _, v := range p.Versions {
		if !h.garbage && v.Name == h.before {
			return false
		}
	}
	return true
}

// checkHold looks before a start whether an operator holds the sequence.
func (w *world) checkHold(e *entrypoint, c sequencer.Command) {
	h := w.hold
	if e.isHeld {
		w.violate(holds, "%s is started while the sequence is held", c.Path)
	}
	if h == nil {
		return
	}
	i := w.index(releaseOf(c.Path))
	if len(e.started) == 0 && h.everything(w.plan) && h.at.Before(e.beganAt) && !e.onlyAsks {
		w.violate(holds, "%s is started under a hold that is older than the run", c.Path)
	}
	if enters := strings.HasSuffix(c.Path, "/hook") || e.last != nil && e.last.release != w.release(i); !enters || e.last == nil || w.index(e.last.release) != i-1 {
		return
	}
	if h.covers(w.plan, i) && h.at.Before(e.last.overAt) {
		w.violate(holds, "%s is started under a hold that is older than the end of version %d", c.Path, i-1)
	}
}
