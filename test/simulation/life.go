package simulation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
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

// now is the time of the bubble.
func now() time.Time { return time.Now() }

func newWorld(seed uint64, record bool) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), queries: rand.New(rand.NewPCG(seed, 2)), seed: seed,
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
	w.state = emptyState()
	w.good = w.state.clone()
	if record {
		w.describe()
	}
	return w
}

func (w *world) makePlan() {
	w.plan = &sequencer.Plan{File: "manager.json"}
	count := []int{1, 2, 2, 2, 2, 3, 3, 3, 4, 5}[w.rng.IntN(10)]
	migrations := w.rng.IntN(3) > 0
	start := uint64(0)
	for i := range count {
		v := w.newVersion(start, i > 0 && migrations && w.rng.IntN(2) == 0)
		if i < count-1 && v.Stop == 0 {
			v.Stop = max(start, 1) + uint64(w.rng.IntN(30))
		}
		start = v.Stop + 1
		w.plan.Versions = append(w.plan.Versions, v)
	}
}

// release is what never changes about the node and the migration of a release, but for its patch.
type release struct {
	startup time.Duration
	resync  uint64 // blocks per second
	hangs   bool   // queries hang during start-up; otherwise the connection is refused
	noHTTP  bool
	asked   asked
	tongue  tongue
	patch   int

	// shell: a script without exec starts its node. closes: it closes what it inherits, and so the locks. clearsDeath: it is
	// set-user-id, and its node gets nothing at the death of the entrypoint.
	shell, closes, clearsDeath bool

	migration  time.Duration
	idempotent bool
	// bad: it cannot read the format of the version before, and destroys the state by opening it, until somebody fixes it.
	bad bool
	// broken: its patch does not start, until somebody fixes it.
	broken bool
}

// newVersion makes a release, and the version of the plan that runs it from start on.
func (w *world) newVersion(start uint64, migrates bool) sequencer.Version {
	r := len(w.releases)
	v := sequencer.Version{
		Name: fmt.Sprintf("v%d", r), Binary: fmt.Sprintf("/v%d/node", r), Config: fmt.Sprintf("/v%d/config.toml", r),
		OnInterrupted: sequencer.Rerun, Start: start,
	}
	length := 1 + w.rng.IntN(30)
	if w.rng.IntN(4) == 0 {
		length = 1 + w.rng.IntN(3)
	}
	if w.rng.IntN(3) > 0 {
		v.Stop = max(start, 1) + uint64(length) - 1
	}
	if migrates {
		v.Migration = fmt.Sprintf("/v%d/migration", r)
		if w.rng.IntN(3) == 0 {
			v.OnInterrupted = sequencer.Halt
		}
	}
	made := &release{
		startup: w.between(5*time.Millisecond, 2*time.Second), resync: uint64(1 + w.rng.IntN(30)),
		hangs: w.rng.IntN(2) == 0, noHTTP: w.rng.IntN(25) == 0, tongue: w.makeTongue(),
		migration: w.between(time.Millisecond, time.Minute), idempotent: v.OnInterrupted == sequencer.Rerun && w.rng.IntN(4) > 0,
	}
	if w.rng.IntN(2) == 0 {
		made.resync = uint64(100 + w.rng.IntN(5000))
	}
	made.shell, made.closes, made.clearsDeath = w.trait(behindShell, .1), w.rng.IntN(10) == 0, w.rng.IntN(10) == 0
	if w.trait(unusualNode, .1) {
		made.asked = asked(w.rng.IntN(4))
		v.NeverAsk = made.asked == answers
	}
	made.bad = start > 0 && !migrates && w.fault(badRelease, .05)
	if start > 0 && w.trait(withHook, .2) {
		v.Before = []string{fmt.Sprintf("/v%d/hook", r), "now"}
	}
	if made.tongue.logOff {
		v.Env = []string{"RUST_LOG=off"}
	}
	w.releases = append(w.releases, made)
	return v
}

func (w *world) makeChain() {
	w.chain = chain{genesis: w.began, block: w.between(5*time.Millisecond, 300*time.Millisecond), finality: uint64(w.rng.IntN(6)), emptyEvery: uint64(w.rng.IntN(6))}
	if w.trait(lateResync, .3) {
		w.chain.genesis = w.began.Add(-w.between(time.Second, time.Hour))
	}
}

func (w *world) makeOptions() {
	o := &w.options
	for _, v := range w.plan.Versions {
		if v.Migration != "" {
			w.count(withMigration)
			break
		}
	}
	if w.trait(withSlack, .08) {
		n := uint64(w.rng.IntN(12))
		o.slack = &n
	}
	switch w.rng.IntN(12) {
	case 0:
		w.count(withoutCheckpoint)
		o.withoutCheckpoint = true
	case 1:
		w.count(nameless)
		o.nameless = true
	}
	if o.undo = w.trait(withUndo, .7); o.undo {
		o.copies = w.rng.IntN(3) == 0
	}
	o.restarts = 5
	if w.rng.IntN(4) == 0 {
		o.restarts = w.rng.IntN(3)
	}
	if w.rng.IntN(3) == 0 {
		o.stopTimeout = w.between(100*time.Millisecond, 30*time.Second)
	}
	if w.rng.IntN(3) == 0 {
		o.preflightBefore = w.between(time.Second, time.Hour)
	}
	if w.rng.IntN(4) > 0 {
		o.leftoverTimeout = w.between(time.Second, 10*time.Minute)
	}
	o.process1 = !w.trait(notProcess1, .5)
	o.attacked = w.trait(attackedLife, .3)
	o.waitWhenFinished = w.rng.IntN(6) == 0
}

func (w *world) describe() {
	for i, v := range w.plan.Versions {
		h := w.releases[binaryOf(v)]
		w.logf("plan: version %d, %s, heights %d to %d, migration %q (%s, idempotent %t), never asked %t, asked %d, start-up %s, resync %d/s, %+v",
			i, v.Binary, v.Start, v.Stop, v.Migration, v.OnInterrupted, h.idempotent, v.NeverAsk, h.asked, h.startup.Round(time.Millisecond), h.resync, h.tongue)
	}
	slack := "none"
	if w.options.slack != nil {
		slack = fmt.Sprint(*w.options.slack)
	}
	o := w.options
	o.slack = nil
	w.logf("chain: a block each %s, finality %d, every %d-th empty, genesis %s ago; slack %s, %+v; faults %d",
		w.chain.block.Round(time.Microsecond), w.chain.finality, w.chain.emptyEvery, w.began.Sub(w.chain.genesis).Round(time.Second), slack, o, w.budget)
}

// live is the orchestrator: it starts the entrypoint, and again after each end, with a back-off.
func (w *world) live() {
	calmRuns, calmRepairs := 0, 0
	backoff := 100 * time.Millisecond
	for {
		w.awaitLock()
		w.mu.Lock()
		w.runs++
		calm := w.budget == 0
		w.checkDisk()
		w.disturbVolume()
		w.volume.version = max(0, w.stampedAs(w.stamp()))
		e := w.newEntrypoint()
		w.disturbRun(e)
		w.disturbHold(e)
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

// afterRun looks at the end of a run, and has the operator repair what needs that. It reports whether it did.
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
		e.die(false)
	}
	w.sync()
	if e.finished && e.returned && e.err == nil && !w.continueFromStop() && !w.grow() {
		w.goal = true
		w.count(finished)
	}
	if w.goal && w.violation == nil {
		w.goal = e.finished || w.plan.Versions[w.plan.Last()].Stop == 0
		w.checkEnd()
	}
	var f *sequencer.Failure
	if w.goal || w.violation != nil || !errors.As(e.err, &f) {
		return false
	}
	return w.repair(e, f)
}

// grow adds a version to a plan that is complete.
func (w *world) grow() bool {
	if w.former != nil || len(w.releases) >= mostReleases || !w.fault(planGrown, .1) {
		return false
	}
	w.changePlan("grown", func(p *sequencer.Plan) {
		p.Versions = append(p.Versions, w.newVersion(p.Versions[p.Last()].Stop+1, w.rng.IntN(2) == 0))
	})
	return true
}

// disturbRun draws what is to happen to a run. The counts are those of the deeds, see entrypoint.step.
func (w *world) disturbRun(e *entrypoint) {
	if w.drawn(killAtTime, .1) {
		w.after(w.between(time.Millisecond, 30*time.Second), func() { w.when(e, killAtTime, func() { w.kill("killed") }) })
	}
	if w.drawn(powerCutAtTime, .08) {
		w.after(w.between(time.Millisecond, 30*time.Second), func() { w.when(e, powerCutAtTime, w.powerCut) })
	}
	if w.drawn(killAtStep, .15) {
		e.killAt = w.anyStep()
	}
	if w.drawn(powerCutAtStep, .15) {
		e.cutAt = w.anyStep()
	}
	if w.drawn(signalAtStep, .1) {
		e.signalAt = w.anyStep()
	}
	for w.drawn(signalAtTime, .12) {
		sig := w.anySignal()
		w.after(w.between(time.Millisecond, 30*time.Second), func() {
			w.when(e, signalAtTime, func() { e.arrive(sig, "out of the blue") })
		})
	}
	if w.drawn(lockRemoved, .05) {
		w.after(w.between(time.Millisecond, 30*time.Second), func() {
			w.when(e, lockRemoved, func() { e.lockLost, e.lockLostAt = true, time.Now() })
		})
	}
	if w.drawn(binaryReplaced, .03) {
		w.after(w.between(time.Millisecond, 10*time.Second), func() { w.when(e, binaryReplaced, func() { w.replaceBinary(e) }) })
	}
	if w.fault(filesMissing, .03) {
		e.missing, e.missingLate, e.missingFor = w.rng.IntN(len(w.plan.Versions)), w.rng.IntN(2) == 0, []sequencer.Depth{sequencer.FilesOnly, sequencer.Programs, sequencer.Manifest}[w.rng.IntN(3)]
	}
	if w.fault(configUnreadable, .01) {
		e.unreadable = w.rng.IntN(len(w.plan.Versions))
	}
	if w.fault(stranger, .03) {
		e.stranger, e.strangerBind = true, w.rng.IntN(2) == 0
	}
	if c := w.checkpoint(); c != nil && c.Stamped && !w.options.nameless && !w.options.withoutCheckpoint && w.fault(storageForgotten, .01) {
		e.forgotten = true
	}
	if !w.options.nameless && w.drawn(storageElsewhere, .02) {
		w.after(w.between(time.Millisecond, 10*time.Second), func() { w.when(e, storageElsewhere, func() { e.elsewhere = true }) })
	}
	e.gone = w.gone()
	stamp, c := w.stamp(), w.checkpoint() // the checkpoint may have the stamp in it that counts
	e.begunBefore = stamp != nil && stamp.Migration == checkpoint.MigrationBegun || c != nil && c.Phase == checkpoint.PhaseMigrating
	e.warned = w.rng.IntN(10) == 0
	e.onlyAsks = w.fault(heightAsked, .02)
}

// drawn draws a fault that is counted when it happens.
func (w *world) drawn(f fault, chance float64) bool {
	if !w.fault(f, chance) {
		return false
	}
	w.counts[f]--
	return true
}

// replaceBinary has another file be the binary of the version whose state it is.
func (w *world) replaceBinary(e *entrypoint) {
	if w.state.exists && w.former == nil {
		w.releases[w.state.format].patch++
		e.replaced = true
		w.logf("the binary of release %d is replaced", w.state.format)
	}
}

// disturbSoon draws a kill, a power cut or a signal around a moment at which the sequence has much to do.
func (w *world) disturbSoon(e *entrypoint, within time.Duration) {
	d := w.between(time.Microsecond, within)
	switch {
	case w.drawn(killAtTime, .03):
		w.after(d, func() { w.when(e, killAtTime, func() { w.kill("killed") }) })
	case w.drawn(powerCutAtTime, .03):
		w.after(d, func() { w.when(e, powerCutAtTime, w.powerCut) })
	case w.drawn(signalAtTime, .03):
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
		return w.rng.IntN(50)
	}
	return w.rng.IntN(300)
}

// completeBySlack notes that a version counts as complete by the operator's height slack.
func (w *world) completeBySlack() {
	w.sync()
	i := w.index(w.state.format)
	if w.options.slack == nil || w.plan.Versions[i].Stop > w.state.height+*w.options.slack+w.chain.finality {
		w.violate(exactHeight, "version %d counts as complete at height %d", i, w.state.height)
	}
	w.state.excused = w.state.excused || w.state.height != w.plan.Versions[i].Stop
}
