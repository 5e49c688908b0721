package simulation

import (
	"errors"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// repair is the operator, who does what the failure says, and no more than that. It reports whether it was more than to
// start again.
func (w *world) repair(e *entrypoint, f *sequencer.Failure) bool {
	if f.Cause == sequencer.Undone && w.takesPatchBack(e.last.release) {
		return true
	}
	w.fixImage(e)
	switch {
	case f.Cause == sequencer.Undone:
		return w.repairSilence(e)
	case f.Code == sequencer.CodeCheckpointUnreadable:
		return !e.undoUnread && w.repairUnreadable(f)
	case f.Code == sequencer.CodeCheckpointNotWritable:
		w.full = time.Time{}
		for _, r := range f.Remedies {
			w.set(r)
		}
		return len(f.Remedies) > 0
	case e.last != nil && e.last.hook && f.Code == e.last.exit.Status():
		return false // the next start runs it again
	case e.last != nil && e.last.migrates && e.last.exit.Status() != 0 && f.Code == e.last.exit.Status():
		return w.repairMigration(e.last.release)
	// What a node writes on stdout while it runs is only in the log of the container, where the operator reads it.
	case w.state.damaged && (f.Cause == sequencer.StateDamaged || e.last != nil && !e.last.migrates && w.unaskable(e.last)):
		if w.undo.point != nil && w.undo.point.ID == w.stampedUndo() && w.rng.IntN(2) == 0 {
			w.undoByHand()
			return true
		}
		w.restore()
		return true
	case f.Code != sequencer.CodeMismatch:
		return w.repairSilence(e)
	}
	return w.repairMismatch(e, f)
}

// takesPatchBack is for a release whose undo point was put back. A patch is taken back, and what was wrong with the release
// before it shows at the next start.
func (w *world) takesPatchBack(r int) bool {
	if stamp := w.stamp(); stamp != nil && meantBy(stamp) == r && stamp.BinarySHA256 != w.digest(r) {
		w.releases[r].patch--
		w.releases[r].broken = false
		w.count(patchTakenBack)
		w.logf("operator: the patch of release %d is taken back", r)
		return true
	}
	return false
}

// repairSilence takes a node out of asking that does not look at its start height, which the operator sees at what it wrote.
func (w *world) repairSilence(e *entrypoint) bool {
	if e.last == nil || !e.last.question || w.releases[e.last.release].asked != ignored {
		return false
	}
	return w.neverAsk(e.last.release)
}

func (w *world) neverAsk(release int) bool {
	i := w.index(release)
	if w.plan.Versions[i].NeverAsk {
		return false
	}
	w.changePlan("a node is not asked", func(p *sequencer.Plan) { p.Versions[i].NeverAsk = true })
	if w.former != nil {
		for j := range w.former.Versions {
			if binaryOf(w.former.Versions[j]) == release {
				w.former.Versions[j].NeverAsk = true
			}
		}
	}
	w.count(repairNeverAsk)
	return true
}

func (w *world) repairUnreadable(f *sequencer.Failure) bool {
	if _, err := w.found(!w.options.nameless, true); err == nil {
		return false // it was readable after all: the next start shows it
	}
	if len(f.Remedies) == 0 && w.stamp() != nil { // the stamp can be read, and counts
		w.disk.put(nil)
		return true
	}
	return w.setOrRestore(f)
}

// setOrRestore runs that command of the failure which fits the state. No command fits a state that nobody can continue with:
// it is restored first.
func (w *world) setOrRestore(f *sequencer.Failure) bool {
	if broken := w.former != nil; !w.sound(&w.state) {
		w.restore()
		if broken {
			return true // the commands were for the other plan
		}
	}
	for _, r := range f.Remedies {
		if w.fits(r) {
			w.set(r)
			return true
		}
	}
	if _, err := w.found(!w.options.nameless, true); err == nil && (!w.state.exists || w.inOrder()) {
		return true // it came with its stamp
	}
	if w.former != nil && f.Cause == sequencer.OwnerUnknown { // the binary of the checkpoint is that of another place now
		w.putPlanBack()
		return true
	}
	if w.begun() { // then it says that only a restore helps
		w.restore()
		return true
	}
	w.violate(documentedEnd, "the state is: %s, but the failure says: %s", &w.state, f)
	return false
}

// begun: one of the two files says that a migration was begun and has not ended.
func (w *world) begun() bool {
	c, stamp := w.checkpoint(), w.stamp()
	return c != nil && c.Phase == checkpoint.PhaseMigrating || stamp != nil && stamp.Migration == checkpoint.MigrationBegun
}

// repairMismatch is for a failure 78, by its cause.
func (w *world) repairMismatch(e *entrypoint, f *sequencer.Failure) bool {
	switch f.Cause {
	case sequencer.WorkersLeft:
		return false // the next start waits for them, and on_interrupted_migration decides
	case "", sequencer.FilesInvalid:
		w.count(repairFiles)
		return true
	case sequencer.StorageUnknown:
		return true // the configs are as they were, for the next run
	case sequencer.CameUp:
		return w.neverAsk(e.last.release)
	case sequencer.NotAnswered:
		w.repairNotAnswered(f)
		return true
	case sequencer.VersionUnknown, sequencer.BinaryMisplaced, sequencer.MigrationVanished, sequencer.MigrationSkipped:
		return w.repairPlan(f)
	case sequencer.Retired:
		w.unretire()
		return true
	case sequencer.TooLate, sequencer.Overrun:
		w.backBelow()
		return true
	case sequencer.StateBelow:
		w.options.slack = nil // it was the operator's word that was wrong
		w.restore()
		return true
	case sequencer.StateGone:
		if w.rng.IntN(2) == 0 && w.sound(&w.good) {
			w.restore()
			return true
		}
		return w.setOrRestore(f)
	case sequencer.MigrationInterrupted:
		w.count(halted)
		if len(f.Remedies) > 0 && w.fits(f.Remedies[0]) {
			w.set(f.Remedies[0])
		} else {
			w.restore() // also where it was never executed, or where the undo point is gone
		}
		return true
	case sequencer.OwnerUnknown, sequencer.OtherState, sequencer.OtherProgram:
		if f.Cause == sequencer.OtherState && (e.swapped || e.elsewhere) {
			return false
		}
		return w.setOrRestore(f)
	default: // the others have other codes
		w.violate(liveness, "nobody can know what to do: %s", f)
		return false
	}
}

// repairNotAnswered is for a node that cannot be asked: the operator reads in its log what the sequence cannot.
func (w *world) repairNotAnswered(f *sequencer.Failure) {
	switch {
	case w.fits(f.Remedies[0]):
		w.set(f.Remedies[0])
	case w.state.damaged:
		w.restore()
	case w.tooFar():
		w.backBelow()
	}
}

// repairPlan is for a plan that does not have what the state needs.
func (w *world) repairPlan(f *sequencer.Failure) bool {
	for _, r := range f.Remedies {
		if f.Cause == sequencer.MigrationSkipped && w.rng.IntN(2) == 0 && w.fits(r) {
			w.set(r)
			return true
		}
	}
	if w.former != nil {
		w.putPlanBack()
		return true
	}
	w.violate(liveness, "the plan was never broken: %s", f)
	return false
}

// tooFar: the version of the state has passed its stop height.
func (w *world) tooFar() bool {
	i := w.index(w.state.format)
	return w.state.exists && i >= 0 && w.plan.Versions[i].Stop > 0 && w.state.height > w.plan.Versions[i].Stop
}

// backBelow is for a version that has passed its stop height: an emergency stop is removed; otherwise the state is restored from below it, or, if the network as a
// whole forks later, the plan follows.
func (w *world) backBelow() {
	if w.plan.Brake > 0 {
		w.putPlanBack()
		return
	}
	i := w.index(w.state.format)
	if w.sound(&w.good) && w.rng.IntN(2) == 0 || w.e.last != nil && w.e.last.overruns {
		w.restore()
		return
	}
	w.count(repairLater)
	w.deployStop(i, w.state.height+w.rng.Uint64N(5), "the fork comes later")
	if w.tooFar() {
		w.restore()
	}
}

// fits reports whether what a command says is true of the state.
func (w *world) fits(r sequencer.Remedy) bool {
	s, v := &w.state, w.plan.Versions[r.Version]
	switch {
	case !s.exists:
		return r.Version == 0 && !r.Complete && w.former == nil
	case s.damaged || s.half >= 0 || s.format != w.release(r.Version) || r.Migrated != (v.Migration != ""):
		return false
	}
	return (!r.Complete || s.height == v.Stop) && (!r.Migrated || s.migrated[s.format] > 0)
}

// repairMigration is for a migration that fails again and again.
func (w *world) repairMigration(release int) bool {
	s, v := &w.state, w.plan.Versions[w.index(release)]
	if v.OnInterrupted == sequencer.Halt || s.half < 0 && s.format != release || w.releases[release].idempotent {
		return false // the next start runs it again, or halts and says more
	}
	if s.half >= 0 {
		w.restore()
		return true
	}
	w.set(sequencer.Remedy{Version: w.index(release), Migrated: true, Force: true})
	return true
}

// sound reports whether a state can be gone on with.
func (w *world) sound(s *state) bool {
	i := w.index(s.format)
	if !s.exists || s.damaged || s.half >= 0 || i < 0 || w.wrongBlocks(s) != "" {
		return false
	}
	v := w.plan.Versions[i]
	return s.excused || s.height+1 >= v.Start && (v.Stop == 0 || s.height <= v.Stop)
}

// keepGood keeps a snapshot of a state that is in order, as operators do.
func (w *world) keepGood() {
	if !w.volume.foreign && w.former == nil && w.inOrder() && !w.state.excused {
		w.good = w.state.clone()
	}
}

// set is 'entrypoint checkpoint set'.
func (w *world) set(r sequencer.Remedy) {
	if w.plan.Versions[r.Version].Retired {
		w.unretire()
	}
	found, err := w.found(!w.options.nameless, true)
	if err != nil { // the one that can be read counts
		found, _ = w.found(false, true)
		if !w.options.nameless {
			found.Storage, found.State = storageName, checkpoint.StatePresent
			if found.Stamp, _ = w.state.stamp.load(checkpoint.ParseStamp); !w.state.exists {
				found.State = checkpoint.StateNone
			}
		}
	}
	word := sequencer.Word{Version: r.Version, Migrated: r.Migrated, Complete: r.Complete, Force: r.Force}
	adopted, err := sequencer.Adopt(w.plan, found, word, w.digest(w.release(r.Version)))
	if err != nil && !word.Force { // it says that the stamp contradicts, and the operator knows better
		word.Force = true
		adopted, err = sequencer.Adopt(w.plan, found, word, w.digest(w.release(r.Version)))
	}
	if err != nil {
		w.violate(liveness, "the checkpoint cannot be set: %s", err)
		return
	}
	stamp, stampErr := checkpoint.EncodeStamp(adopted.Stamp)
	text, err := checkpoint.Encode(adopted.Checkpoint)
	if err := errors.Join(stampErr, err); err != nil {
		w.violate(wholeFiles, "the checkpoint cannot be set: %s", err)
		return
	}
	if !w.options.nameless {
		w.state.stamp.put(stamp)
	}
	if !w.options.withoutCheckpoint {
		w.disk.put(text)
	}
	w.count(repairSet)
	w.volume.foreign, w.state.unsynced = false, nil
	for release := range w.state.begun {
		if release != w.state.format {
			w.state.begun[release] = 0 // it has written nothing
		}
	}
	w.logf("operator: checkpoint set, %+v", word)
}

// restore brings the operator's newest good snapshot of the storage directory back. Without one the chain is synced again
// from genesis.
func (w *world) restore() {
	if w.former != nil {
		w.putPlanBack()
	}
	if !w.sound(&w.good) || w.options.nameless {
		w.startAnew()
		return
	}
	w.count(repairRestore)
	w.state = w.good.clone()
	c := w.checkpoint()
	w.volume.foreign = w.disk.visible != nil && (c == nil || !c.Stamped)
	w.logf("operator: state restored: %s", &w.state)
}

// startAnew removes state and checkpoint together.
func (w *world) startAnew() {
	w.count(repairAnew)
	w.disk.put(nil)
	w.state = emptyState()
	w.volume = volume{}
	w.logf("operator: state and checkpoint deleted")
}
