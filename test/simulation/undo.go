package simulation

import (
	"context"
	"fmt"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// undoDisk is what is beside the storage directory: the undo point, and what making it and putting it back leave.
type undoDisk struct {
	// point is the undo point that is visible, durable the one that a power cut leaves; nil for none.
	point, durable *undoPoint
	// incomplete: there is a copy that was not completed.
	incomplete bool
	// aside has the name of the undo point and no description: it was the state before the exchange. failed is the one
	// that is kept.
	aside, failed *state
	// takeBack brings back what was there before the exchange, as long as that is not durable; nil otherwise.
	takeBack func()
	// works: it is being made or put back.
	works bool
	ids   int
}

// undoPoint is a copy of the state with its description.
type undoPoint struct {
	checkpoint.UndoPoint
	state state
}

// undoStore is the sequencer.Undo of an entrypoint.
type undoStore struct{ *entrypoint }

// Find implements sequencer.Undo.
func (u undoStore) Find() (*checkpoint.UndoPoint, error) {
	e, w := u.entrypoint, u.w
	e.onDisk("look for the undo point")
	defer e.leave()
	defer w.worksOnUndo("finished")()
	if w.fault(undoUnreadable, .01) {
		e.loadFailed, e.undoUnread = true, true
		return nil, fmt.Errorf("cannot read the undo point: input/output error")
	}
	if w.state.described {
		w.count(putBackFinished)
		e.finishPutBack()
	}
	if w.undo.incomplete {
		w.count(undoForgotten)
		w.undo.incomplete = false
		e.step("undo point: incomplete copy deleted")
	}
	if w.undo.point == nil {
		return nil, nil
	}
	found := w.undo.point.UndoPoint
	return &found, nil
}

// Make implements sequencer.Undo. The sequence calls it beside its own loop.
func (u undoStore) Make(ctx context.Context, p checkpoint.UndoPoint, progress func(sequencer.UndoProgress)) (checkpoint.UndoPoint, error) {
	e, w := u.entrypoint, u.w
	e.onDisk("undo point: before the copy")
	defer e.leave()
	defer w.worksOnUndo("copied")()
	w.checkCopied(&p)
	if w.fault(undoNone, .05) {
		e.noUndo = true
		return p, &sequencer.NoUndoPointError{Why: "the file system has no reflinks"}
	}
	w.undo.incomplete = true
	p.Method = checkpoint.UndoReflink
	total := w.between(time.Millisecond, 50*time.Millisecond)
	if w.options.copies { // both may not fit
		p.Method = checkpoint.UndoCopy
		total = w.between(10*time.Millisecond, 2*time.Minute)
		w.undo.point, w.undo.durable = nil, nil
	}
	e.step("undo point: copy begun")
	began, parts := time.Now(), 1+w.rng.IntN(4)
	for i := range parts {
		progress(sequencer.UndoProgress{Method: p.Method, Done: int64(i), Total: int64(parts), Since: began})
		if !sleepUnlocked(w, ctx, total/time.Duration(parts)+time.Duration(1+w.rng.Int64N(999_983))) {
			e.passes(1777 * time.Nanosecond) // what the run does about the stop comes first
			e.endIfDead()
			w.count(copyCutShort)
			w.undo.incomplete = false
			return p, ctx.Err() //nolint:wrapcheck // as the real one does
		}
		e.step("undo point: a part is copied")
	}
	if w.fault(copyFails, .03) {
		w.undo.incomplete = w.rng.IntN(2) == 0
		return p, e.saveFails("no space left on device")
	}
	w.undo.ids++
	w.state.upFor, w.state.madeAsked = 0, false
	p.ID, p.CreatedAt, p.Path = fmt.Sprintf("undo point %d", w.undo.ids), time.Now().UTC(), storageName+".before-"+p.To.Name
	w.undo.point, w.undo.incomplete = &undoPoint{p, w.state.copied()}, false
	w.logf("undo point %d is made: %s", w.undo.ids, &w.state)
	e.step("undo point: renamed")
	w.undo.durable = w.undo.point
	e.step("undo point: synced")
	e.waits(0)
	return p, nil
}

// PutBack implements sequencer.Undo.
func (u undoStore) PutBack(p checkpoint.UndoPoint) (string, error) {
	e, w := u.entrypoint, u.w
	e.onDisk("undo point: before it is put back")
	defer e.leave()
	defer w.worksOnUndo("exchanged")()
	w.checkPutBack(e, p)
	if w.undo.point == nil || w.undo.point.ID != p.ID {
		return "", e.saveFails("another one is there, or none")
	}
	if w.fault(putBackFails, .05) {
		return "", e.saveFails("input/output error")
	}
	w.exchange()
	e.known, e.hasPutBack = false, true
	if stamp := w.stamp(); stamp == nil || *stamp != p.Stamp {
		w.violate(noLostBlock, "the undo point was put back, and the stamp is not that of the copied state: %+v, want %+v", stamp, p.Stamp)
	}
	switch {
	case w.drawn(powerCutAtStep, .1):
		e.cutAt = e.steps
	case w.drawn(killAtStep, .1):
		e.killAt = e.steps + w.rng.IntN(4)
	}
	e.step("undo point: exchanged")
	w.undo.takeBack = nil
	e.step("undo point: exchange synced")
	if w.fault(putBackFails, .03) {
		return "", e.saveFails("input/output error")
	}
	e.finishPutBack()
	e.waits(0)
	return storageName + ".failed", nil
}

// exchange makes the undo point the state, with its description in it.
func (w *world) exchange() {
	w.sync()
	was, point, volume := w.state, w.undo.point, w.volume
	w.undo.takeBack = func() {
		w.logf("the power cut takes the exchange back")
		w.count(powerCutLostExchange)
		w.state, w.undo.point, w.undo.durable, w.undo.aside, w.volume = was, point, point, nil, volume
	}
	w.state = point.state.copied()
	w.state.described, w.state.trusted = true, max(w.state.trusted, was.trusted)
	w.undo.point, w.undo.durable, w.undo.aside = nil, nil, &was
	w.volume.version, w.volume.stamped = max(0, w.stampedAs(w.stamp())), true
	w.count(putBack)
	w.logf("the undo point is the state: %s", &w.state)
}

// finishPutBack keeps what was the state, and removes the description from the state.
func (e *entrypoint) finishPutBack() {
	w := e.w
	w.undo.takeBack = nil
	if w.undo.aside != nil {
		w.undo.failed, w.undo.aside = w.undo.aside, nil
		e.step("undo point: failed state kept")
	}
	w.state.described = false
	e.step("undo point: description removed")
}

// worksOnUndo notes that the state is copied or exchanged. What it returns ends that, and is also called by a death.
func (w *world) worksOnUndo(what string) func() {
	w.undo.works = true
	for _, p := range w.processes {
		w.violate(oneProcess, "the state is %s while process %d lives", what, p.pid)
	}
	return func() { w.undo.works = false }
}

// copied is a copy of the state that is durable as a whole.
func (s *state) copied() state {
	c := s.clone()
	c.stamp.durable = c.stamp.visible
	c.described = false
	return c
}

// powerCut loses what was not synced, or does not.
func (u *undoDisk) powerCut(keep bool) {
	if u.takeBack != nil && !keep {
		u.takeBack()
	}
	u.takeBack = nil
	if keep {
		u.durable = u.point
	} else if u.point != u.durable {
		u.point = u.durable
	}
}

// checkCopied looks when a copy of the state begins.
func (w *world) checkCopied(p *checkpoint.UndoPoint) {
	w.sync()
	stamp := w.stamp()
	switch {
	case stamp == nil || *stamp != p.Stamp:
		w.violate(noLostBlock, "an undo point is made with another stamp than that of the state")
	case stamp.Migration == checkpoint.MigrationBegun || w.state.half >= 0:
		w.violate(noLostBlock, "an undo point is made of a state whose migration was begun")
	case p.Height != nil && *p.Height != w.state.height && !w.state.excused:
		w.violate(noLostBlock, "the undo point says height %d, and the state is at height %d", *p.Height, w.state.height)
	case w.armed() && p.To.Name == stamp.Name: // the version before must be at its stop height otherwise
		w.violate(noLostBlock, "an undo point is made over %q, which could still be put back", w.undo.point.ID)
	}
}

// armed: the undo point was made before the stamped version touched the state, and that has made no block since.
func (w *world) armed() bool {
	stamp, point := w.stamp(), w.undo.point
	return stamp != nil && point != nil && stamp.Entered && stamp.UndoPoint == point.ID && w.state.height <= point.state.height
}

// checkPutBack looks when the sequence puts an undo point back.
func (w *world) checkPutBack(e *entrypoint, p checkpoint.UndoPoint) {
	w.sync()
	stamp, point := w.stamp(), w.undo.point
	switch {
	case e.onlyAsks:
		w.violate(noLostBlock, "an undo point is put back, and only the height was asked for")
	case point == nil || point.ID != p.ID:
		w.violate(noLostBlock, "%q is put back, and is not there", p.ID)
	case stamp == nil || stamp.UndoPoint != p.ID:
		w.violate(noLostBlock, "%q is put back, and the stamp does not name it", p.ID)
	case w.state.height > point.state.height && (w.state.upFor < notSeen || w.state.madeAsked):
		w.count(lostUnseen)
	case w.state.height > point.state.height:
		w.violate(noLostBlock, "blocks %d to %d are lost: the undo point is put back, and a node was up for %s", point.state.height+1, w.state.height, w.state.upFor)
	}
}

// notSeen is for how long a node that runs can serve before that must have been seen.
const notSeen = 21 * time.Millisecond

// checkUndoStamp looks when a stamp becomes visible that the sequence wrote, at what it says of the undo point.
func (w *world) checkUndoStamp(s *checkpoint.Stamp) {
	e, before, point := w.e, w.stamp(), w.undo.point
	if before == nil || !w.options.undo || w.options.nameless || w.stampedAs(s) < w.stampedAs(before) { // the former one is given back
		return
	}
	enters := w.stampedAs(s) > w.stampedAs(before)
	patched := s.Name == before.Name && before.BinarySHA256 != "" && s.BinarySHA256 != before.BinarySHA256
	switch {
	case (enters || patched) && s.UndoPoint == "" && !e.noUndo:
		w.violate(noLostBlock, "%q is about to touch the state, and there is no undo point", s.Name)
	case s.UndoPoint == "" || !enters && s.UndoPoint == before.UndoPoint:
	case point == nil || point != w.undo.durable || point.ID != s.UndoPoint:
		w.violate(noLostBlock, "the stamp names %q, which is not there", s.UndoPoint)
	case point.state.height != w.state.height || point.state.format != w.state.format || point.state.damaged != w.state.damaged || w.state.half >= 0:
		w.violate(noLostBlock, "the stamp names %q, which is not a copy of the state: %s, want %s", s.UndoPoint, &point.state, &w.state)
	}
}
