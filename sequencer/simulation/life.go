package simulation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"

	"rollup-entrypoint/sequencer"
)

// life is the outcome of one.
type life struct {
	seed      uint64
	counts    [faultCount]int
	runs      int
	steps     int
	took      time.Duration
	violation *violation
	log       []string
}

// live lives the life of a seed. It must be called in a synctest bubble of its own. record keeps the event log.
func live(seed uint64, record bool) life {
	w := newWorld(seed, record)
	w.live()
	// Goroutines that read ahead end.
	time.Sleep(time.Minute)
	w.mu.Lock()
	defer w.mu.Unlock()
	return life{seed: seed, counts: w.counts, runs: w.runs, steps: w.steps, took: time.Since(w.began), violation: w.violation, log: w.log}
}

func newWorld(seed uint64, record bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), queries: rand.New(rand.NewPCG(seed, 2)),
		began: time.Now(), record: record,
	}
	switch r := w.rng.IntN(10); {
	case r == 0: // undisturbed
	case r < 6:
		w.budget, w.heat = 1+w.rng.IntN(4), 1
	default:
		w.budget, w.heat = 2+w.rng.IntN(12), 2.5
	}
	w.makePlan()
	w.makeChain()
	w.makeOptions()
	w.state = emptyState(len(w.plan.Versions))
	w.good = w.state.clone()
	w.volume = newVolume(len(w.plan.Versions))
	if record {
		w.describe()
	}
	return w
}

func (w *world) makePlan() {
	w.plan = &sequencer.Plan{File: "manager.json"}
	count := []int{1, 2, 2, 2, 2, 3, 3, 3, 4, 5}[w.rng.IntN(10)]
	migrations := w.rng.IntN(3) > 0
	stop := uint64(0)
	for i := range count {
		v := sequencer.Version{
			Name: fmt.Sprintf("v%d", i), Binary: fmt.Sprintf("/v%d/node", i), Config: fmt.Sprintf("/v%d/config.toml", i),
			OnInterrupted: sequencer.Rerun,
		}
		if i > 0 {
			v.Start = stop + 1
		}
		length := 1 + w.rng.IntN(30)
		if w.rng.IntN(4) == 0 {
			length = 1 + w.rng.IntN(3)
		}
		stop += uint64(length)
		v.Stop = stop
		if i == count-1 && w.rng.IntN(3) == 0 {
			v.Stop = 0
		}
		if i > 0 && migrations && w.rng.IntN(2) == 0 {
			v.Migration = fmt.Sprintf("/v%d/migration", i)
			if w.rng.IntN(3) == 0 {
				v.OnInterrupted = sequencer.Halt
			}
		}
		w.plan.Versions = append(w.plan.Versions, v)
		w.habits = append(w.habits, habits{
			startup: w.between(5*time.Millisecond, 2*time.Second), resync: uint64(1 + w.rng.IntN(30)),
			hangs: w.rng.IntN(2) == 0, noHTTP: w.rng.IntN(25) == 0, stopLast: w.rng.IntN(2) == 0,
			migration: w.between(time.Millisecond, time.Minute), idempotent: v.OnInterrupted == sequencer.Rerun && w.rng.IntN(4) > 0,
		})
		if w.rng.IntN(2) == 0 {
			w.habits[i].resync = uint64(100 + w.rng.IntN(5000))
		}
	}
}

func (w *world) makeChain() {
	w.chain = chain{genesis: w.began, block: w.between(5*time.Millisecond, 300*time.Millisecond), finality: uint64(w.rng.IntN(6)), emptyEvery: uint64(w.rng.IntN(6))}
	if w.trait(lateResync, .3) {
		w.chain.genesis = w.began.Add(-w.between(time.Second, time.Hour))
	}
}

func (w *world) makeOptions() {
	hasMigration := false
	for _, v := range w.plan.Versions {
		hasMigration = hasMigration || v.Migration != ""
	}
	if hasMigration {
		w.count(withMigration)
	}
	if w.trait(withSlack, .08) {
		n := uint64(w.rng.IntN(12))
		w.options.slack = &n
	}
	if !hasMigration && w.trait(withoutCheckpoint, .2) {
		w.options.withoutCheckpoint = true
	}
	if w.rng.IntN(3) == 0 {
		w.options.stopTimeout = w.between(100*time.Millisecond, 30*time.Second)
	}
	w.options.waitWhenFinished = w.rng.IntN(6) == 0
}

func (w *world) describe() {
	for i, v := range w.plan.Versions {
		h := w.habits[i]
		w.logf("plan: version %d, heights %d to %d, migration %q (%s, idempotent %t), start-up %s, resync %d/s", i, v.Start, v.Stop, v.Migration, v.OnInterrupted, h.idempotent, h.startup.Round(time.Millisecond), h.resync)
	}
	slack := "none"
	if w.options.slack != nil {
		slack = fmt.Sprint(*w.options.slack)
	}
	w.logf("chain: a block each %s, finality %d, every %d-th empty, genesis %s ago; slack %s, stop timeout %s, without checkpoint %t, waits %t; faults %d",
		w.chain.block.Round(time.Microsecond), w.chain.finality, w.chain.emptyEvery, w.began.Sub(w.chain.genesis).Round(time.Second), slack,
		w.options.stopTimeout.Round(time.Millisecond), w.options.withoutCheckpoint, w.options.waitWhenFinished, w.budget)
}

// live is the orchestrator: it starts the entrypoint, and again after each end, with a back-off.
func (w *world) live() {
	calmRuns, calmRepairs := 0, 0
	backoff := 100 * time.Millisecond
	for {
		w.mu.Lock()
		w.runs++
		calm := w.budget == 0
		w.disturbVolume()
		w.checkDisk()
		e := w.newEntrypoint()
		w.disturbRun(e)
		w.expectHalt(e)
		w.logf("run %d begins", w.runs)
		w.mu.Unlock()
		go e.run()
		w.watchdog(e)
		<-e.ended

		w.mu.Lock()
		repaired := w.afterRun(e)
		if calm && w.budget == 0 {
			calmRuns++
			if repaired {
				calmRepairs++
			}
			w.checkProgress(calmRuns, calmRepairs)
		}
		over := w.violation != nil || w.goal
		if over {
			w.over = true
		}
		pause := backoff + time.Duration(w.rng.Int64N(int64(backoff)))
		w.mu.Unlock()
		if over {
			return
		}
		time.Sleep(pause)
		backoff = min(2*backoff, 5*time.Second)
	}
}

// afterRun looks at the end of a run, and has the operator repair what needs a hand. It reports whether it did.
func (w *world) afterRun(e *entrypoint) (repaired bool) {
	switch {
	case w.violation != nil:
	case e.returned:
		w.logf("run %d ends: %v", w.runs, e.err)
		w.checkReturn(e)
	default:
		w.logf("run %d was killed", w.runs)
	}
	if !e.dead {
		e.die() // as process 1 it takes everything along
	}
	w.sync()
	if w.complete() && (e.returned && e.err == nil) {
		w.goal = true
		w.count(finished)
	}
	if w.goal && w.violation == nil {
		w.goal = w.complete() || w.plan.Versions[w.plan.Last()].Stop == 0
		w.checkEnd()
	}
	var f *sequencer.Failure
	if w.goal || w.violation != nil || !errors.As(e.err, &f) {
		return false
	}
	return w.repair(e, f)
}

// disturbRun draws what is to happen to a run.
func (w *world) disturbRun(e *entrypoint) {
	if w.fault(killAtTime, .1) {
		w.counts[killAtTime]--
		w.after(w.between(time.Millisecond, 30*time.Second), func() { w.when(e, killAtTime, func() { w.kill("killed") }) })
	}
	if w.fault(powerCutAtTime, .08) {
		w.counts[powerCutAtTime]--
		w.after(w.between(time.Millisecond, 30*time.Second), func() { w.when(e, powerCutAtTime, w.powerCut) })
	}
	// The counts are those of the deeds, see entrypoint.step.
	if w.fault(killAtStep, .15) {
		w.counts[killAtStep]--
		e.killAt = w.anyStep()
	}
	if w.fault(powerCutAtStep, .15) {
		w.counts[powerCutAtStep]--
		e.cutAt = w.anyStep()
	}
	if w.fault(signalAtStep, .1) {
		w.counts[signalAtStep]--
		e.signalAt = w.anyStep()
	}
	for w.fault(signalAtTime, .12) {
		w.counts[signalAtTime]--
		sig := w.anySignal()
		w.after(w.between(time.Millisecond, 30*time.Second), func() {
			w.when(e, signalAtTime, func() { e.arrive(sig, "out of the blue") })
		})
	}
	if w.fault(filesMissing, .02) {
		e.missing, e.missingLate = w.rng.IntN(len(w.plan.Versions)), w.rng.IntN(2) == 0
	}
	if w.fault(configUnreadable, .01) {
		e.unreadable = w.rng.IntN(len(w.plan.Versions))
	}
	if w.fault(stranger, .03) {
		e.stranger, e.strangerBind = true, w.rng.IntN(2) == 0
	}
}

// disturbSoon draws a kill, a power cut or a signal around a moment at which the sequence has much to do.
func (w *world) disturbSoon(e *entrypoint, within time.Duration) {
	d := w.between(time.Microsecond, within)
	switch {
	case w.fault(killAtTime, .03):
		w.counts[killAtTime]--
		w.after(d, func() { w.when(e, killAtTime, func() { w.kill("killed") }) })
	case w.fault(powerCutAtTime, .03):
		w.counts[powerCutAtTime]--
		w.after(d, func() { w.when(e, powerCutAtTime, w.powerCut) })
	case w.fault(signalAtTime, .03):
		w.counts[signalAtTime]--
		sig := w.anySignal()
		w.after(d, func() { w.when(e, signalAtTime, func() { e.arrive(sig, "out of the blue") }) })
	}
}

// when does something to a run that still runs.
func (w *world) when(e *entrypoint, f fault, do func()) {
	if w.e == e && !e.dead && !e.returned {
		w.count(f)
		do()
	}
}

func (w *world) anyStep() int {
	if w.rng.IntN(2) == 0 {
		return w.rng.IntN(40)
	}
	return w.rng.IntN(250)
}

// expectHalt notes whether this run has to halt on a migration that was begun.
func (w *world) expectHalt(e *entrypoint) {
	c := w.disk.read()
	if c == nil || c.VersionIndex > w.plan.Last() {
		return
	}
	v := w.plan.Versions[c.VersionIndex]
	e.haltExpected = v.OnInterrupted == sequencer.Halt && c.Phase == sequencer.PhaseMigrating && c.Started
}

// disturbVolume is what befalls a volume between two runs.
func (w *world) disturbVolume() {
	if w.rng.IntN(6) == 0 && w.state.exists && w.disk.durable != nil && !w.volume.tampered && w.sound(&w.state) {
		w.snapshot = &snapshot{w.state.clone(), w.disk.durable, w.volume.clone()}
	}
	if w.snapshot != nil && w.fault(volumeRestored, .01) {
		w.state, w.volume = w.snapshot.state.clone(), w.snapshot.volume.clone()
		w.good = w.state.clone()
		w.disk.put(w.snapshot.disk)
		w.logf("the volume is restored from a snapshot")
	}
	if !w.state.exists {
		return
	}
	c := w.disk.read()
	switch {
	case c == nil:
	case w.fault(stateWiped, .01):
		w.good = w.state.clone()
		if !w.sound(&w.good) {
			w.good = emptyState(len(w.plan.Versions))
		}
		w.state = emptyState(len(w.plan.Versions))
		w.volume.tampered = true
		if c.VersionIndex == 0 {
			w.volume = newVolume(len(w.plan.Versions))
			w.volume.tampered = true
		}
		w.logf("the state is wiped")
	// Not where a later migration is done and its version has made nothing yet: then nobody can know that it is done.
	case w.state.half < 0 && w.madeSomething() && w.fault(checkpointLost, .01):
		w.disk.put(nil)
		w.tamper()
		w.logf("the checkpoint is deleted")
	case w.fault(checkpointForeign, .01):
		w.disk.put([]byte("{}\n"))
		w.tamper()
		w.logf("the checkpoint is overwritten")
	// Not after an overrun: what the checkpoint knows of it would be lost, and nobody could tell whose blocks those are.
	case !w.volume.overran && w.fault(checkpointReference, .01):
		w.disk.put(fmt.Appendf(nil, "{\"version_index\": %d, \"binary_path\": %q}\n", c.VersionIndex, c.BinaryPath))
		w.tamper()
		w.logf("the checkpoint is rewritten by the reference")
	case w.beforeUpgrade(c) && w.fault(checkpointAhead, .015):
		w.volume.tampered = true
		w.setCheckpoint(c.VersionIndex+1, false)
	}
}

// beforeUpgrade: the state is sound, and the version of the checkpoint still makes its blocks.
func (w *world) beforeUpgrade(c *sequencer.Checkpoint) bool {
	i := c.VersionIndex
	return i < w.plan.Last() && c.Phase == sequencer.PhaseRunning && w.sound(&w.state) &&
		w.state.schema == schemaOf(w.plan, i) && w.state.height <= w.plan.Versions[i].Stop
}

// madeSomething: the version that migrated the state last has made a block on it, or is the first that can: then version 0
// finds itself at its stop height. It does not where the operator's height slack had the migration run too early.
func (w *world) madeSomething() bool {
	s, versions := &w.state, w.plan.Versions
	return s.schema == 0 || s.height >= versions[s.schema].Start || s.schema == 1 && s.height >= versions[0].Stop
}

// tamper marks a volume whose checkpoint somebody changed: what it knew is gone.
func (w *world) tamper() {
	w.volume.tampered, w.volume.version = true, 0
	for i, runs := range w.state.migrated {
		w.volume.begun[i] = runs > 0
	}
}

func (v volume) clone() volume {
	n := newVolume(len(v.recorded))
	copy(n.recorded, v.recorded)
	copy(n.begun, v.begun)
	n.version, n.tampered, n.overran = v.version, v.tampered, v.overran
	return n
}

var setCommand = regexp.MustCompile(`checkpoint set --version (\d+)( --migrated)?`)

// repair is the operator, who does what the failure says, and no more than that.
func (w *world) repair(e *entrypoint, f *sequencer.Failure) bool {
	has := func(text string) bool { return strings.Contains(f.What+"; "+f.Next, text) }
	switch {
	case f.Code == sequencer.CodeCheckpointUnreadable:
		if w.disk.visible == nil || w.disk.read() != nil {
			return false // it was readable after all: the next start shows it
		}
		if !w.sound(&w.state) {
			w.restore()
		}
		w.setCheckpoint(w.where())
	case f.Code == sequencer.CodeCheckpointNotWritable:
		w.full = time.Time{}
		if m := setCommand.FindStringSubmatch(f.Next); m != nil {
			i, _ := strconv.Atoi(m[1])
			w.setCheckpoint(i, m[2] != "")
			return true
		}
		return false
	case e.last != nil && e.last.migrates && e.last.exit.Status() != 0 && f.Code == e.last.exit.Status():
		return w.repairMigration(e.last.version)
	case f.Code != sequencer.CodeMismatch:
		return false
	case e.missing >= 0 || e.unreadable >= 0 || e.sweepFailed:
		w.count(repairMend)
	case has("but the state directory"):
		if w.rng.IntN(2) == 0 {
			w.deleteCheckpoint()
			break
		}
		w.restore()
		w.setCheckpoint(w.where())
	case has("on_interrupted_migration"), has("as sov-rollup-manager writes it"):
		if has("on_interrupted_migration") {
			w.count(halted)
		}
		i := w.disk.read().VersionIndex
		if w.state.half >= 0 {
			w.restore()
		}
		w.setCheckpoint(i, w.state.migrated[i] > 0)
	case has("use a checkpoint file"):
		w.count(repairUseCheckpoint)
		w.options.withoutCheckpoint = false
		w.volume.tampered = true // there is none yet
		w.logf("operator: uses a checkpoint file from now on")
	case w.sound(&w.state) && setCommand.MatchString(f.Next):
		return w.setAsTold(f)
	case has("restore"), w.state.half >= 0:
		w.restore()
		w.setCheckpoint(w.where())
	default:
		w.violate(liveness, "nobody can know what to do: %s", f)
		return false
	}
	return true
}

// setAsTold takes that command of the failure which fits the state.
func (w *world) setAsTold(f *sequencer.Failure) bool {
	for _, m := range setCommand.FindAllStringSubmatch(f.Next, -1) {
		i, _ := strconv.Atoi(m[1])
		if w.fits(i, m[2] != "") {
			w.setCheckpoint(i, m[2] != "")
			return true
		}
	}
	w.violate(documentedEnd, "the state is: %s, but the failure says: %s", &w.state, f)
	return false
}

// fits reports whether a checkpoint at version i is right for the state.
func (w *world) fits(i int, migrated bool) bool {
	s, v := &w.state, w.plan.Versions[i]
	if v.Migration != "" && !migrated { // the version before proves its stop height first, or runs on to it
		return s.schema == schemaOf(w.plan, i-1) && s.height < v.Start
	}
	if s.height+1 < v.Start || (v.Stop > 0 && s.height > v.Stop) {
		return false
	}
	if v.Migration == "" {
		return !migrated && s.schema == schemaOf(w.plan, i)
	}
	return migrated == (s.schema == i)
}

// repairMigration is for a migration that fails again and again.
func (w *world) repairMigration(i int) bool {
	v := w.plan.Versions[i]
	if w.habits[i].idempotent || v.OnInterrupted == sequencer.Halt || (w.state.half < 0 && w.state.schema != i) {
		return false // the next start runs it again, or halts and says more
	}
	if w.state.half >= 0 {
		w.restore()
	}
	w.setCheckpoint(i, w.state.migrated[i] > 0)
	return true
}

// sound reports whether a state can be gone on with.
func (w *world) sound(s *state) bool {
	if s.half >= 0 || s.wrongBlocks(w.plan) != "" {
		return false
	}
	return s.schema == 0 || s.height+1 >= w.plan.Versions[s.schema].Start
}

// where finds the version to which the state belongs, and whether its migration has run.
func (w *world) where() (version int, migrated bool) {
	s := &w.state
	i := max(0, w.plan.VersionAt(s.height))
	if i < w.plan.Last() && s.schema == i+1 {
		i++
	}
	return i, s.migrated[i] > 0
}

// setCheckpoint is 'entrypoint checkpoint set'.
func (w *world) setCheckpoint(i int, migrated bool) {
	if !w.state.exists && i == 0 {
		w.deleteCheckpoint()
		return
	}
	if w.options.withoutCheckpoint {
		w.putInOrder(0)
		return
	}
	w.count(repairSet)
	c, err := sequencer.AdoptVersion(w.plan, w.disk.read(), i, migrated, "sha of "+w.plan.Versions[i].Binary)
	if err != nil {
		w.violate(liveness, "the checkpoint cannot be set: %s", err)
		return
	}
	text, err := sequencer.EncodeCheckpoint(c)
	if err != nil {
		w.violate(wholeCheckpoint, "the checkpoint cannot be set: %s", err)
		return
	}
	w.disk.put(text)
	w.putInOrder(i)
	w.logf("operator: checkpoint set --version %d, migrated %t", i, migrated)
}

func (w *world) deleteCheckpoint() {
	w.count(repairDelete)
	w.disk.put(nil)
	w.state = emptyState(len(w.plan.Versions))
	w.putInOrder(0)
	w.logf("operator: state and checkpoint deleted")
}

// putInOrder begins a new record of what is known about the volume.
func (w *world) putInOrder(version int) {
	tampered := w.volume.tampered // a checkpoint that knows too little can show later
	w.volume = newVolume(len(w.plan.Versions))
	w.volume.version, w.volume.tampered = version, tampered
	for i, runs := range w.state.migrated {
		w.volume.recorded[i], w.volume.begun[i] = runs > 0, runs > 0
	}
}

// restore brings the operator's newest good snapshot of the state back.
func (w *world) restore() {
	w.count(repairRestore)
	w.state = w.good.clone()
	w.logf("operator: state restored")
}
