package simulation

import (
	"fmt"
	"slices"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// disturbVolume is what befalls the volume and the plan between two runs: at most one thing each time.
func (w *world) disturbVolume() {
	w.volume.restored = false
	w.undo.takeBack = nil // it is durable by now
	if w.state.exists && w.rng.IntN(6) == 0 && w.former == nil && w.inOrder() {
		w.snapshot = &snapshot{w.state.clone(), w.disk.durable, w.volume}
	}
	if w.former != nil || w.volume.foreign || w.disturbUndo() || w.disturbPlan() {
		return
	}
	if w.options.nameless {
		w.disturbNameless()
		return
	}
	if !w.state.exists {
		return
	}
	if !w.disturbState() && !w.options.withoutCheckpoint {
		w.disturbCheckpoint()
	}
}

// inOrder: the state is sound, and its stamp is right.
func (w *world) inOrder() bool {
	stamp := w.stamp()
	return w.sound(&w.state) && stamp != nil && w.wrongStamp(stamp) == ""
}

// disturbNameless is for a volume whose state nobody knows the place of: what is replaced alone is not noticed.
func (w *world) disturbNameless() {
	switch {
	case w.snapshot != nil && w.fault(volumeRestored, .02):
		w.restoreVolume()
	case w.disk.visible != nil && w.fault(checkpointForeign, .02):
		w.disk.put([]byte("{}\n"))
		w.lostRecord("the checkpoint is overwritten")
	case w.stamp() != nil && w.state.exists && w.fault(storageNamed, .05):
		w.options.nameless, w.volume.stamped = false, false
		w.good, w.snapshot = emptyState(), nil // these have no stamp
		w.logf("the configs say where the state is, from now on")
	}
}

func (w *world) restoreVolume() {
	w.state, w.volume = w.snapshot.state.clone(), w.snapshot.volume
	w.disk.put(w.snapshot.disk)
	if !w.begun() {
		w.good = w.state.clone()
	}
	w.logf("the volume is restored from a snapshot")
}

// disturbState is what befalls the state and the stamp in it. It reports whether something did.
func (w *world) disturbState() bool {
	c := w.checkpoint()
	// The record that is left has to be one that has followed a stamp, or nobody could know that the state is another one.
	known := c != nil && c.Stamped || w.options.withoutCheckpoint
	alone := known && (w.options.withoutCheckpoint || w.stamp() != nil)
	switch {
	case w.snapshot != nil && w.fault(volumeRestored, .01):
		w.restoreVolume()
	case w.snapshot != nil && alone && w.fault(stateRestored, .02):
		w.state = w.snapshot.state.clone()
		w.volume.restored = true
		w.logf("the state is restored from a snapshot, and the checkpoint left as it is: %s", &w.state)
	case alone && w.fault(replicaCopied, .02):
		w.copyReplica()
	case known && w.inOrder() && w.fault(replicaWithoutStamp, .01):
		w.copyReplica()
		w.state.stamp.put(nil)
		w.lostRecord("the stamp of the copy is left out")
	case known && w.inOrder() && w.fault(stampLost, .01):
		w.state.stamp.put(nil)
		w.lostRecord("the stamp is deleted")
	case w.fault(stampForeign, .01):
		w.state.stamp.put([]byte("{\"version_index\": 0"))
		w.lostRecord("the stamp is torn")
	case w.fault(stateWiped, .01):
		stamp := w.state.stamp
		w.state = emptyState()
		w.volume.stamped = false
		w.logf("the state is wiped")
		if w.rng.IntN(3) == 0 {
			w.state.stamp = stamp
			w.logf("the stamp is left")
		}
	default:
		return false
	}
	return true
}

// lostRecord notes that only people know whose the state is.
func (w *world) lostRecord(what string) {
	w.volume.foreign, w.volume.restored, w.volume.stamped = true, false, false
	w.logf("%s", what)
}

// copyReplica puts the state of another replica in the place of ours: the same chain, another height, its own stamp.
func (w *world) copyReplica() {
	height := min(w.chain.final(now()), w.rng.Uint64N(40))
	if last := w.plan.Versions[w.plan.Last()]; last.Stop > 0 {
		height = min(height, last.Stop)
	}
	i := max(0, w.plan.VersionAt(max(height, 1)))
	w.state = w.stateAt(i, height)
	w.volume.restored = true
	w.logf("the state of another replica is copied: %s", &w.state)
}

// stateAt is a sound state of version i at height, with its stamp.
func (w *world) stateAt(i int, height uint64) state {
	s := emptyState()
	s.exists, s.height, s.format = true, height, w.release(i)
	for j := range i + 1 {
		v := w.plan.Versions[j]
		if r := w.release(j); v.Migration != "" {
			s.migrated[r], s.begun[r] = 1, 1
		}
		if end := min(height, orForever(v.Stop)); end >= max(v.Start, 1) {
			s.made = append(s.made, made{end, w.release(j)})
		}
	}
	v := w.plan.Versions[i]
	stamp := checkpoint.Stamp{VersionIndex: i, Name: v.Name, StartHeight: v.Start, StopHeight: v.Stop, BinarySHA256: w.digest(w.release(i))}
	if v.Migration != "" {
		stamp.Migration = checkpoint.MigrationCompleted
	}
	text, _ := checkpoint.EncodeStamp(stamp)
	s.stamp.put(text)
	return s
}

func orForever(stop uint64) uint64 {
	if stop == 0 {
		return 1 << 62
	}
	return stop
}

// disturbCheckpoint is what befalls the checkpoint alone.
func (w *world) disturbCheckpoint() {
	c := w.checkpoint()
	stamped := w.stamp() != nil
	switch {
	case w.snapshot != nil && stamped && isStamped(w.snapshot.disk) && w.fault(checkpointRestored, .02):
		w.disk.put(w.snapshot.disk)
		w.volume.restored = true
		w.logf("the checkpoint is restored from a snapshot, and the state left as it is")
	case c == nil:
	case w.fault(checkpointLost, .01):
		w.disk.put(nil)
		w.volume.restored = stamped
		w.volume.foreign = !stamped
		w.logf("the checkpoint is deleted")
	case w.fault(checkpointForeign, .02):
		w.disk.put([]byte("{}\n"))
		w.volume.foreign = true
		w.logf("the checkpoint is overwritten")
	case w.inOrder() && w.fault(checkpointReference, .02):
		w.runReference()
	}
}

func isStamped(text []byte) bool {
	c, err := checkpoint.Parse(text)
	return err == nil && c.Stamped
}

// runReference has sov-rollup-manager continue from here. It knows two keys of the checkpoint, and nothing of a stamp.
func (w *world) runReference() {
	s := &w.state
	i := w.index(s.format)
	if height := w.chain.final(now()); i < w.plan.Last() && height >= w.plan.Versions[i+1].Start && w.rng.IntN(2) == 0 {
		stamp, begun := s.stamp, s.begun
		*s = w.stateAt(i+1, min(height, orForever(w.plan.Versions[i+1].Stop), w.plan.Versions[i+1].Start+w.rng.Uint64N(5)))
		s.stamp, s.begun = stamp, begun
		i++
		w.count(referenceMoved)
		w.logf("the reference has run version %d: %s", i, s)
	} else if v := w.plan.Versions[i]; i < w.plan.Last() && s.height == v.Stop && w.rng.IntN(2) == 0 {
		i++ // killed before it started that version
	}
	w.volume.foreign = true
	w.disk.put(fmt.Appendf(nil, "{\"version_index\": %d, \"binary_path\": %q}\n", i, w.plan.Versions[i].Binary))
	w.logf("the checkpoint is rewritten by the reference")
	if w.rng.IntN(4) > 0 || w.stampedAs(w.stamp()) != i {
		return
	}
	s.stamp.put(nil) // a state of the life before us
	w.volume.stamped = false
	w.logf("the state has no stamp")
	switch {
	case w.rng.IntN(4) == 0:
		w.movePlan()
	case i > 0 && w.rng.IntN(3) == 0:
		w.insertInFront()
	}
}

// disturbPlan deploys another plan. It reports whether it did.
func (w *world) disturbPlan() bool {
	stamp := w.stamp()
	if !w.state.exists || stamp == nil || !w.inOrder() {
		return false
	}
	i := w.index(w.state.format)
	if w.stampedAs(stamp) != i || w.state.excused {
		return false
	}
	first := max(w.plan.Versions[i].Start, 1)
	switch {
	case w.state.height > first && w.fault(planLate, .02):
		w.deployStop(i, first+w.rng.Uint64N(w.state.height-first), "too late")
	case w.fault(planChanged, .02):
		w.deployStop(i, max(w.state.height, first)+w.rng.Uint64N(20), "in time")
	case w.plan.Last() > 0 && w.fault(planLostFirst, .01):
		w.breakPlan("first entry lost", func(p *sequencer.Plan) {
			p.Versions = p.Versions[1:]
			p.Versions[0].Start, p.Versions[0].Migration = 0, ""
		})
	case w.plan.Last() > 0 && w.fault(planLostLast, .01):
		w.breakPlan("last entry lost", func(p *sequencer.Plan) { p.Versions = p.Versions[:p.Last()] })
	case w.plan.Versions[i].Migration != "" && w.fault(planLostMigration, .05):
		w.breakPlan("migration lost", func(p *sequencer.Plan) { p.Versions[i].Migration = "" })
	case i > 0 && w.plan.Versions[i].Migration == "" && w.fault(planGotMigration, .02):
		w.breakPlan("migration added too late", func(p *sequencer.Plan) { p.Versions[i].Migration = fmt.Sprintf("/v%d/migration", w.release(i)) })
	case w.plan.Last() > 0 && !w.plan.Versions[(i+1)%len(w.plan.Versions)].Retired && !stamp.Complete && stamp.Migration != checkpoint.MigrationBegun && stamp.BinarySHA256 == w.digest(w.state.format) && w.fault(planMixedUp, .01):
		w.state.stamp.durable, w.disk.durable = w.state.stamp.visible, w.disk.visible // by now: the digest in it is known
		w.breakPlan("binaries mixed up", func(p *sequencer.Plan) {
			j := (i + 1) % len(p.Versions)
			p.Versions[i].Binary, p.Versions[j].Binary = p.Versions[j].Binary, p.Versions[i].Binary
		})
	case w.fault(emergencyStop, .04):
		w.stopAt(first)
	case i > 0 && w.fault(planRetired, .06):
		w.retire(i)
	case w.fault(planMoved, .01):
		w.movePlan()
	case i > 0 && w.fault(planGrownInFront, .01):
		w.insertInFront()
	case w.fault(patchRelease, .02):
		w.releases[w.state.format].patch++
		w.releases[w.state.format].broken = w.trait(brokenPatch, .3)
		w.logf("release %d gets a patch", w.state.format)
	default:
		return false
	}
	return true
}

// changePlan deploys a plan that is a copy of the present one but for a change.
func (w *world) changePlan(what string, change func(p *sequencer.Plan)) {
	p := &sequencer.Plan{File: w.plan.File, Versions: append([]sequencer.Version(nil), w.plan.Versions...), Brake: w.plan.Brake}
	change(p)
	w.plan = p
	w.snapshot = nil
	w.logf("another plan is deployed: %s", what)
	if w.record {
		w.describe()
	}
}

// breakPlan deploys one that the operator has to take back.
func (w *world) breakPlan(what string, change func(p *sequencer.Plan)) {
	former := w.plan
	w.changePlan(what, change)
	w.former = former
	w.state.trusted = w.state.height
}

// stopAt sets an emergency stop, now and then by mistake below the state. first is the first height of its version.
func (w *world) stopAt(first uint64) {
	height := max(w.state.height, first) + w.rng.Uint64N(20)
	if w.rng.IntN(4) == 0 {
		height = 1 + w.rng.Uint64N(max(w.state.height, 1))
	}
	w.breakPlan(fmt.Sprintf("--stop-height %d", height), func(p *sequencer.Plan) { *p = *p.StoppedAt(height) })
	if w.plan.Brake == 0 { // it changes nothing
		w.former = nil
	}
}

// continueFromStop is what people do at an emergency stop: the late image comes, or they change their minds. It reports
// whether the sequence had ended at one.
func (w *world) continueFromStop() bool {
	height, i := w.plan.Brake, w.plan.End()
	if height == 0 {
		return false
	}
	w.putPlanBack()
	if len(w.releases) < mostReleases && w.rng.IntN(2) == 0 {
		w.count(lateImage)
		w.deployStop(i, height, "the late image")
		w.plan = w.plan.StoppedAt(height) // the flag is still there
	}
	return true
}

// putPlanBack deploys the plan from before it was broken.
func (w *world) putPlanBack() {
	w.plan, w.former = w.former, nil
	w.count(repairPlan)
	w.logf("operator: the plan is as it was")
}

// deployStop gives version i another stop height, and a new version after it; later ones are left out.
func (w *world) deployStop(i int, stop uint64, what string) {
	if len(w.releases) >= mostReleases {
		return
	}
	w.changePlan(what, func(p *sequencer.Plan) {
		p.Versions = p.Versions[:i+1]
		p.Versions[i].Stop = stop
		p.Versions = append(p.Versions, w.newVersion(stop+1, w.rng.IntN(2) == 0))
	})
}

// movePlan has the binaries in another directory.
func (w *world) movePlan() {
	w.changePlan("moved", func(p *sequencer.Plan) {
		for j := range p.Versions {
			if p.Versions[j].Retired {
				continue
			}
			p.Versions[j].Binary = fmt.Sprintf("/v%d/moved/node", w.release(j))
		}
	})
}

// insertInFront gives the first blocks of version 0 to another release, as for a chain that has a longer past than was known.
func (w *world) insertInFront() {
	if len(w.releases) >= mostReleases || w.plan.Versions[0].Stop < 2 || w.plan.Versions[0].Retired {
		return
	}
	w.breakPlan("grown in front", func(p *sequencer.Plan) {
		cut := 1 + w.rng.Uint64N(p.Versions[0].Stop-1)
		first := w.newVersion(0, false)
		first.Stop, first.Migration = cut, ""
		p.Versions[0].Start = cut + 1
		p.Versions = append([]sequencer.Version{first}, p.Versions...)
	})
}

// disturbBetween replaces or removes the state between the end of a node and what comes next, as a person may who does not
// wait.
func (w *world) disturbBetween(p *process) {
	s := &w.state
	switch {
	case w.goal || p.e.dead || p.question || w.options.nameless || w.former != nil || w.volume.foreign || w.options.slack != nil:
		return
	case w.fault(stateWipedBetween, .01):
		*s = emptyState()
		w.volume.stamped = false
		w.logf("the state is wiped")
	case w.snapshot != nil && string(w.snapshot.state.stamp.visible) != string(s.stamp.visible) && w.fault(stateSwapped, .15):
		*s = w.snapshot.state.clone()
		w.logf("the state is replaced by a snapshot: %s", s)
	default:
		return
	}
	p.e.swapped, w.volume.restored = true, false
	stamp := w.stamp() // a snapshot may be from the moment between "begun" and the start of the migration
	p.e.begunBefore = p.e.begunBefore || stamp != nil && stamp.Migration == checkpoint.MigrationBegun
}

// disturbUndo is what people do with the undo point. It reports whether they did something.
func (w *world) disturbUndo() bool {
	switch {
	case w.undo.point == nil || w.options.nameless:
		return false
	case w.index(meantBy(&w.undo.point.Stamp)) >= 0 && w.state.exists && w.fault(undoneByHand, .03):
		w.counts[undoneByHand]--
		w.undoByHand()
	case w.fault(undoDropped, .03):
		w.undo.point, w.undo.durable, w.undo.failed = nil, nil, nil
		w.logf("the undo point is dropped")
	default:
		return false
	}
	return true
}

// undoByHand is 'entrypoint undo --yes', with the node stopped: the person has read what is lost.
func (w *world) undoByHand() {
	w.count(undoneByHand)
	point := w.undo.point
	w.exchange()
	w.counts[putBack]--
	w.undo.failed, w.undo.aside, w.undo.takeBack, w.state.described = w.undo.aside, nil, nil, false
	if !w.options.withoutCheckpoint && point.Checkpoint != "" && w.rng.IntN(2) == 0 {
		w.disk.put([]byte(point.Checkpoint))
	}
	w.volume.restored, w.volume.foreign = true, false
	w.logf("the undo point is put back by hand")
}

// stampedUndo is the ID of the undo point that the stamp names.
func (w *world) stampedUndo() string {
	if s := w.stamp(); s != nil {
		return s.UndoPoint
	}
	return ""
}

// canPutBack: the undo point that the stamp names is there, and with its version the sequence can continue.
func (w *world) canPutBack(stamp *checkpoint.Stamp) bool {
	point := w.undo.point
	if point == nil || point.ID != stamp.UndoPoint {
		return false
	}
	return slices.ContainsFunc(w.plan.Versions, func(v sequencer.Version) bool {
		return v.Name == point.Stamp.Name && v.Start == point.Stamp.StartHeight && !v.Retired
	})
}

// disturbHold places a hold before or during a run.
func (w *world) disturbHold(e *entrypoint) {
	switch {
	case w.drawn(holdPlaced, .04):
		w.count(holdPlaced)
		w.placeHold()
		e.beganAt = time.Now().Add(1)
	case w.drawn(holdPlaced, .1):
		w.after(w.between(time.Millisecond, 30*time.Second), func() { w.when(e, holdPlaced, w.placeHold) })
	}
}

// retire deploys an image without the versions before version i, or, by mistake, also without that one.
func (w *world) retire(i int) {
	last := i - 1
	if i < w.plan.Last() && w.rng.IntN(2) == 0 {
		last = i
	}
	w.changePlan("versions retired", func(p *sequencer.Plan) {
		for j := range last + 1 {
			if v := p.Versions[j]; !v.Retired {
				w.retired = append(w.retired, v)
				p.Versions[j] = sequencer.Version{Name: v.Name, Start: v.Start, Stop: v.Stop, Retired: true, OnInterrupted: v.OnInterrupted}
			}
		}
	})
}

// unretire runs the last image that had all versions.
func (w *world) unretire() {
	w.count(repairUnretire)
	w.changePlan("nothing is retired", func(p *sequencer.Plan) {
		for _, v := range w.retired {
			for j := range p.Versions {
				if p.Versions[j].Retired && p.Versions[j].Name == v.Name {
					start, stop := p.Versions[j].Start, p.Versions[j].Stop
					p.Versions[j] = v
					p.Versions[j].Start, p.Versions[j].Stop = start, stop
				}
			}
		}
	})
	w.retired = nil
}

// fixImage builds the image anew if the release that failed cannot read the format before it.
func (w *world) fixImage(e *entrypoint) {
	if e.last == nil || !w.releases[e.last.release].bad && !w.releases[e.last.release].broken {
		return
	}
	w.count(repairImage)
	w.releases[e.last.release].bad, w.releases[e.last.release].broken = false, false
	w.releases[e.last.release].patch++
	w.logf("operator: release %d is fixed", e.last.release)
}
