package simulation

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// The invariants, all of them, and nothing else decides whether a life is a good one. docs/guarantees.md has them in
// words.
//
// What nobody could notice is left out, and this is all of it:
//   - The operator's own height slack has let a version end below its stop height, and neither its node nor the next one
//     can be asked. The state is excused from then on (state.excused).
//   - Another program continued from the checkpoint and left the stamp as it was, and then the checkpoint is lost, too; or a
//     state of another version, without a stamp, is put beside a checkpoint that never followed a stamp. The world does
//     nothing more to a volume of which one of the two files is all that is left (volume.foreign).
//   - No config says where the state is, and the state, or the checkpoint, is replaced alone. The world replaces both.
//   - A process closes what it inherits, and so the locks, and is no child of an entrypoint or the record of that is lost with
//     the lock file; or no config says where the state is, and the lock file is removed. Nothing keeps an entrypoint away
//     from what a dead one has left running then, and the world starts none (waitsForNothing).
//   - A node of a new version serves for less than two looks at its port, 20 ms apart, makes blocks in that time, and fails,
//     and then gives no answer when it is asked; or one that ignores its start height does so while it is only asked, and
//     the entrypoint is killed or stopped before it has looked. The undo point is put back then (lostUnseen).
//   - A person says something false: a plan that gives a version's name and start height to a release that is nowhere else
//     in it, or whose binary was never seen; a 'checkpoint set' that is not true; a migration that is taken out of the
//     plan before it ran. Nobody here does.
const (
	// oneProcess: never are two processes alive on one state.
	oneProcess = iota + 1
	// ownState: nothing of a version is ever started on a state of another version, to run, to be asked or to migrate it,
	// and the stamp is never wrong about the state.
	ownState
	// exactHeight: a version, or its migration, works on the state only when the version before is durable at its stop
	// height, and no block is ever made by a version outside its range.
	exactHeight
	// migrationOnce: a migration that is recorded as completed is never run again, one that was interrupted is run again
	// or halts, as configured, and none is skipped.
	migrationOnce
	// nothingAfterStop: after a stop was requested nothing is started, and what runs gets the signal.
	nothingAfterStop
	// wholeFiles: stamp and checkpoint are the old or the new one, whole; the version of the stamp never goes backwards,
	// and the checkpoint is never ahead of it.
	wholeFiles
	// documentedEnd: each end of a run has the code, the cause and the words of the documentation, and leaves no process.
	documentedEnd
	// liveness: when the world is calm the sequence comes to its end, with no repair by hand but the documented ones.
	liveness
	// noDamage: a node is killed by us only a while after it was asked to stop, as the operator has set, and what is left
	// of one that has ended by itself only a while after that. All other damage is done by the world.
	noDamage
	// noLostBlock: an undo point is made before anything of the next version, or of another binary, touches the state, is a
	// whole copy of it, and is put back only if no block is lost.
	noLostBlock
	// holds: nothing is started under a hold.
	holds
	// hookOnce: a hook runs when the version before is complete, once for each completion.
	hookOnce
)

// violation is the first broken invariant of a life.
type violation struct {
	invariant int
	text      string
}

func (v *violation) String() string { return fmt.Sprintf("invariant %d: %s", v.invariant, v.text) }

func (w *world) violate(invariant int, format string, args ...any) {
	if w.violation != nil {
		return
	}
	w.violation = &violation{invariant, fmt.Sprintf(format, args...)}
	w.logf("VIOLATION of %s", w.violation)
	if w.e != nil {
		w.after(0, func() { w.kill("enough seen") })
	}
}

// check looks after every event.
func (w *world) check() {
	if w.undo.works && len(w.processes) > 0 {
		w.violate(oneProcess, "process %d lives while the state is copied or exchanged", w.processes[0].pid)
	}
	if len(w.processes) > 1 {
		w.violate(oneProcess, "processes %d and %d are alive on one state", w.processes[0].pid, w.processes[1].pid)
	}
}

// checkRetired looks whether a program is of a version that the plan still has.
func (w *world) checkRetired(c sequencer.Command) {
	if i := w.index(releaseOf(c.Path)); i >= 0 && w.plan.Versions[i].Retired {
		w.violate(ownState, "%s is started, and version %d is retired", c.Path, i)
	}
}

// mostStarts is how many processes one run may start. A version takes two or three, and two more for each fault.
const mostStarts = 80

// checkStart looks at the moment at which a process is about to be executed.
func (w *world) checkStart(e *entrypoint, c sequencer.Command) {
	for _, p := range w.processes {
		w.violate(oneProcess, "%s is started while process %d lives", c.Path, p.pid)
	}
	if w.undo.works {
		w.violate(oneProcess, "%s is started while the state is copied or exchanged", c.Path)
	}
	w.checkRetired(c)
	for _, v := range w.plan.Versions[w.plan.End()+1:] {
		if c.Path == v.Binary || c.Path == v.Migration {
			w.violate(exactHeight, "%s is started, above the emergency stop at height %d", c.Path, w.plan.Brake)
		}
	}
	w.checkHold(e, c)
	if e.lockLost && e.lockLostAt.Before(time.Now()) {
		w.violate(oneProcess, "%s is started %s after the lock file was removed", c.Path, time.Since(e.lockLostAt))
	}
	if len(e.started) > mostStarts {
		w.violate(liveness, "%s is started, and %d processes were before, in one run", c.Path, len(e.started))
	}
	// A stop that arrives at the very instant of a start, after the last look for signals, is too late.
	if e.stopWasVisible || e.stopArrived && e.stopAt.Before(time.Now()) {
		w.violate(nothingAfterStop, "%s is started %s after a stop signal", c.Path, time.Since(e.stopAt))
	}
}

// notOf gives the reason why a node of a release must not open the state, and destroys it if it does; empty for none.
func (w *world) notOf(release int, s *state) string {
	i := w.index(release)
	switch {
	case !s.exists && i != 0:
		return fmt.Sprintf("the state is empty, and version %d is not the first", i)
	case s.half >= 0:
		return fmt.Sprintf("the state is half migrated to release %d", s.half)
	case !s.exists, s.format == release:
		return ""
	case w.follows(i, s) && w.plan.Versions[i].Migration == "" && w.stampedAs(w.stamp()) == i: // the hand-over
		return ""
	}
	return fmt.Sprintf("the state has the format of release %d", s.format)
}

// follows: the state is that of the version before i, at its stop height.
func (w *world) follows(i int, s *state) bool {
	return i > 0 && s.exists && s.half < 0 && s.format == meant(w.plan.Versions[i-1]) && (s.height == w.plan.Versions[i-1].Stop || s.excused)
}

// checkOwner looks whether the state is that of a process which has just been executed, and whether that is on disk.
func (w *world) checkOwner(p *process) {
	w.sync()
	s, i := &w.state, w.index(p.release)
	durable := s.stamp.durable
	if w.options.nameless {
		durable = w.disk.durable
	}
	stamp := w.stamp()
	recorded := w.options.nameless && w.options.withoutCheckpoint || stamp != nil && string(durable) == string(w.visibleStamp())
	w.volume.stamped = stamp != nil
	switch why := w.notOf(p.release, s); {
	case p.hook:
		w.checkHook(i)
	case p.e.gone:
		w.violate(ownState, "release %d is started where there is no state, but was one", p.release)
	case !recorded:
		w.violate(ownState, "release %d is started, and no stamp is durable", p.release)
	case stamp != nil && w.stampedAs(stamp) != i:
		w.violate(ownState, "release %d is started, and the stamp names %q", p.release, stamp.Name)
	case w.state.described || w.undo.aside != nil && w.undo.takeBack != nil:
		w.violate(ownState, "release %d is started on a state that was not put back completely", p.release)
	case p.migrates:
		w.checkMigration(i, stamp)
	case stamp != nil && stamp.Migration == checkpoint.MigrationBegun:
		w.violate(migrationOnce, "version %d is started while its migration is recorded as begun", i)
	case why != "":
		w.violate(ownState, "version %d is started, but %s", i, why)
	}
}

// gone: the record speaks of a state, and there is none.
func (w *world) gone() bool {
	c, stamp := w.checkpoint(), w.stamp()
	if w.state.exists || w.options.nameless || w.disk.visible != nil && c == nil {
		return false
	}
	first := w.options.withoutCheckpoint || c == nil || c.VersionIndex == 0 && c.Height == nil
	if stamp != nil {
		return !first || w.stampedAs(stamp) != 0
	}
	return !first || !w.options.withoutCheckpoint && c != nil && c.Stamped
}

func (w *world) visibleStamp() []byte {
	if w.options.nameless {
		return w.disk.visible
	}
	return w.state.stamp.visible
}

// unaskable: the height of the state is not known from the node of a process.
func (w *world) unaskable(p *process) bool {
	return p.e.cannotAsk[p.release] || w.releases[p.release].asked != answers || w.plan.Versions[w.index(p.release)].NeverAsk
}

// checkHeights looks at the heights that a node gets: the stop height of its version, which the stamp has, too, and the
// start height only for its first block.
func (w *world) checkHeights(p *process) {
	i := w.index(p.release)
	v := w.plan.Versions[i]
	want, start := v.Stop, uint64(0)
	if i > 0 && w.state.height+1 == v.Start {
		start = v.Start
	}
	if p.start < firstNonce && p.start != start && !w.unaskable(p) {
		w.violate(exactHeight, "release %d is started with the start height %d, want %d", p.release, p.start, start)
	}
	if p.stop != want {
		w.violate(exactHeight, "release %d is started with the stop height %d, want %d", p.release, p.stop, want)
	}
	if s := w.stamp(); s != nil && p.start < firstNonce && s.StopHeight != want {
		w.violate(wholeFiles, "release %d is started with the stop height %d, and the stamp has %d", p.release, p.stop, s.StopHeight)
	}
}

// checkKnown looks whether the height was asked since something has worked on the state.
func (w *world) checkKnown(p *process) {
	if !p.question && !p.migrates && !p.e.known && w.state.exists && !w.unaskable(p) {
		w.violate(exactHeight, "release %d is started, and nobody has asked for the height", p.release)
	}
	if !p.question {
		p.e.known = false
	}
}

// checkAlarm looks some time after a node has reported a height above its stop height.
func (w *world) checkAlarm(p *process) {
	if !p.asked && !p.e.dead {
		w.violate(liveness, "process %d has reported a height above its stop height 20 s ago, and was not stopped", p.pid)
	}
}

// checkBinary looks whether a node is the file that was started first in this run.
func (w *world) checkBinary(p *process) {
	e, r := p.e, p.release
	if e.first[r] == "" {
		e.first[r] = e.digests[r]
	}
	if e.first[r] != e.digests[r] {
		w.violate(documentedEnd, "the binary of release %d was another one at its first start", r)
	}
}

// checkRestarts looks whether a node is started again in place more often than the operator allows.
func (w *world) checkRestarts(p *process) {
	e := p.e
	before := &e.zeroRun
	if p.question {
		before = &e.zeroAsked
	}
	again := *before != nil && (*before).release == p.release
	*before = nil
	if !again {
		return
	}
	e.restarts = slices.DeleteFunc(append(e.restarts, time.Now()), func(at time.Time) bool { return time.Since(at) > 10*time.Minute })
	if len(e.restarts) > w.options.restarts {
		w.violate(documentedEnd, "release %d is started again in place %d times, and %d are allowed", p.release, len(e.restarts), w.options.restarts)
	}
}

// checkMigration looks before the migration of version i is executed.
func (w *world) checkMigration(i int, stamp *checkpoint.Stamp) {
	s, v := &w.state, w.plan.Versions[i]
	r := w.release(i)
	switch {
	case stamp == nil || stamp.Migration != checkpoint.MigrationBegun:
		w.violate(migrationOnce, "the migration of version %d is run, and not recorded as begun", i)
	case v.OnInterrupted == sequencer.Halt && s.begun[r] > 0:
		w.violate(migrationOnce, "the migration of version %d was interrupted and is run again, although it must not be", i)
	case s.half >= 0 && w.undo.point != nil && w.undo.point.ID == stamp.UndoPoint:
		w.violate(migrationOnce, "the migration of version %d is run on a half migrated state, and there is an undo point", i)
	case s.format == r && s.height >= v.Start:
		w.violate(migrationOnce, "the migration of version %d is run on a state at height %d, on which its version has made blocks", i, s.height)
	case s.damaged || s.half == r || s.format == r || w.follows(i, s):
	case s.half < 0 && s.format == meant(w.plan.Versions[i-1]):
		w.violate(exactHeight, "the migration of version %d starts at height %d, want %d", i, s.height, w.plan.Versions[i-1].Stop)
	default:
		w.violate(ownState, "the migration of version %d starts on a state that is: %s", i, s)
	}
	if wrong := w.wrongBlocks(s); wrong != "" {
		w.violate(exactHeight, "the migration of version %d starts, but %s", i, wrong)
	}
}

// stopAgainAfter is how long after the first stop signal another one is passed on to a migration.
const stopAgainAfter = 10 * time.Second

// checkSignal looks at a signal that the entrypoint sends.
func (w *world) checkSignal(p *process, sig syscall.Signal) {
	e := p.e
	switch {
	case sig == syscall.SIGKILL:
		w.checkKill(p)
	case p.migrates && (e.stopsTaken < 2 || time.Since(e.stopTakenAt) < stopAgainAfter):
		w.violate(documentedEnd, "the migration gets %s after %d stop signals, the first %s ago", sig, e.stopsTaken, time.Since(e.stopTakenAt))
	case !isStop(sig) && e.arrived[sig].Before(p.startedAt):
		w.violate(documentedEnd, "process %d gets %s, which came %s before it was started", p.pid, sig, p.startedAt.Sub(e.arrived[sig]))
	case sig == syscall.SIGTERM && e.stopsTaken == 0 && !e.alarmed && !e.cameUp && !p.over:
		w.violate(documentedEnd, "process %d is stopped, and nobody knows why", p.pid)
	}
}

// checkKill looks at a SIGKILL of ours: nothing but the two limits that the operator has set leads to it.
func (w *world) checkKill(p *process) {
	limit, since := w.options.stopTimeout, p.passedAt
	switch {
	case !since.IsZero():
	case p.migrates: // no stop signal was passed on
		limit = 0
	case p.e.stopsTaken > 0:
		since = p.e.stopTakenAt
	}
	if limit > 0 && !since.IsZero() && time.Since(since) >= limit {
		return
	}
	if limit = w.options.leftoverTimeout; p.over && !p.migrates && p.passedAt.IsZero() && limit > 0 && time.Since(p.overAt) >= limit {
		return
	}
	w.violate(noDamage, "process %d is killed, and no limit of the operator has passed: stop timeout %s, leftover timeout %s, asked at %v, ended at %v",
		p.pid, w.options.stopTimeout, w.options.leftoverTimeout, p.passedAt, p.overAt)
}

// checkStopArrives looks some time after a stop signal at the process that ran then: a node has got it, a migration the
// second one. A slow write may delay it.
func (w *world) checkStopArrives(p *process) {
	if p == nil || !p.alive || p.migrates && (p.e.stopsTaken == 0 || time.Since(p.e.stopTakenAt) < stopAgainAfter) {
		return
	}
	p.later(10*time.Second, func() {
		if !p.asked && !p.e.dead {
			w.violate(nothingAfterStop, "process %d has not got the stop signal that came 10 s ago", p.pid)
		}
	})
}

// checkStopTimeout looks some time after a stop signal at the node that ran then. A slow write may delay the signal.
func (w *world) checkStopTimeout(p *process) {
	if w.options.stopTimeout == 0 || p == nil || !p.alive || p.migrates {
		return
	}
	p.later(w.options.stopTimeout+10*time.Second, func() {
		if p.e.dead || p.foreign || p.e.returned {
			return
		}
		w.violate(liveness, "process %d lives %s after a stop signal, the stop timeout is %s", p.pid, time.Since(p.e.stopAt), w.options.stopTimeout)
	})
}

// checkAccepted looks when a node has passed its own checks and begins to work on the state.
func (w *world) checkAccepted(p *process) {
	s, i := &w.state, w.index(p.release)
	if v := w.plan.Versions[i]; s.height+1 < v.Start && (!s.excused || !w.unaskable(p)) {
		w.violate(exactHeight, "version %d works on a state at height %d, before the stop height %d of the version before", i, s.height, v.Start-1)
	}
	if wrong := w.wrongBlocks(s); wrong != "" {
		w.violate(exactHeight, "version %d works on a state where %s", i, wrong)
	}
}

// checkBlocks looks at what a node makes.
func (w *world) checkBlocks(p *process) {
	i := w.index(p.release)
	if v := w.plan.Versions[i]; v.Stop > 0 && w.state.height > v.Stop && !p.overruns {
		w.violate(exactHeight, "version %d makes block %d, its last one is %d", i, w.state.height, v.Stop)
	}
}

// checkStamp looks when a stamp becomes visible that the sequence wrote.
func (w *world) checkStamp(s *checkpoint.Stamp) {
	w.sync()
	i := w.stampedAs(s)
	if why := w.wrongStamp(s); why != "" {
		w.violate(ownState, "the stamp names version %d, migration %q, but %s", i, s.Migration, why)
	}
	if i < w.volume.version && !w.follows(w.volume.version, &w.state) {
		w.violate(wholeFiles, "the version goes back from %d to %d", w.volume.version, i)
	}
	if i > w.volume.version && w.e.isMissing(i, sequencer.Manifest) {
		w.violate(documentedEnd, "version %d is handed over to, whose files are missing", i)
	}
	if before := w.stamp(); before != nil && before.Name == s.Name && before.Migration == checkpoint.MigrationBegun && s.Migration == checkpoint.MigrationCompleted {
		w.checkComplete(i)
	}
	w.checkUndoStamp(s)
	w.checkHooked(i, s)
	w.volume.version, w.volume.foreign = i, false
}

// checkHooked looks at a stamp whether the hook before version i has run.
func (w *world) checkHooked(i int, s *checkpoint.Stamp) {
	before := w.stamp()
	if before != nil && i > 0 && w.stampedAs(before) == i-1 && len(w.plan.Versions[i].Before) > 0 && !w.state.hooked {
		w.violate(hookOnce, "version %d is entered, and the hook before it was not done", i)
	}
	w.state.hooked = s.Hook
}

// checkComplete looks when the migration of version i is recorded as completed: all that it has started must have ended
// by itself.
func (w *world) checkComplete(i int) {
	for _, p := range w.processes {
		w.violate(migrationOnce, "the migration of version %d is recorded as completed, and process %d of it is alive", i, p.pid)
	}
	if w.e.sweeping == nil || w.e.last == nil || !w.e.last.migrates || w.e.last.hook {
		w.violate(migrationOnce, "the migration of version %d is recorded as completed, and nobody has looked what is left of it", i)
		return
	}
	for _, p := range w.e.sweeping.seen {
		if p.asked || p.death.Signal == syscall.SIGKILL {
			w.violate(migrationOnce, "the migration of version %d is recorded as completed, and process %d of it was signalled", i, p.pid)
		}
	}
}

// wrongStamp compares a stamp with the state.
func (w *world) wrongStamp(stamp *checkpoint.Stamp) string {
	s, i := &w.state, w.stampedAs(stamp)
	if i < 0 {
		return "the plan does not have it"
	}
	v := w.plan.Versions[i]
	r, entered := meant(v), w.follows(i, s)
	good := s.damaged
	switch stamp.Migration {
	case checkpoint.MigrationBegun:
		good = good || s.half == r || s.format == r || entered
	case checkpoint.MigrationCompleted:
		good = good || s.half < 0 && s.format == r && s.migrated[r] > 0
	default:
		good = good || !s.exists && i == 0 || s.half < 0 && (s.format == r || entered && v.Migration == "")
	}
	good = good && (!stamp.Complete || !s.exists || s.height == stamp.StopHeight || s.excused)
	return unless(good, "the state is: "+s.String())
}

// checkReadable looks whether what is written can be read back. Where it is not looked at, what was written is taken
// for what will be read.
func (w *world) checkReadable(text []byte, parse func() (any, error)) {
	if _, err := parse(); err != nil {
		w.violate(wholeFiles, "a file is written that cannot be read: %s: %s", err, text)
	}
}

// checkCheckpoint looks when a checkpoint becomes visible that the sequence wrote.
func (w *world) checkCheckpoint(c *checkpoint.Checkpoint) {
	before := w.checkpoint()
	if w.options.nameless {
		w.checkStamp(c.Stamp)
		return
	}
	w.volume.foreign = false
	if w.e.swapped { // the next start corrects it
		return
	}
	stamp := w.stamp()
	i := w.stampedAs(stamp)
	givenBack := (c.Phase == checkpoint.PhaseMigrating || w.e.hasPutBack) && w.follows(c.VersionIndex, &w.state)
	switch {
	case stamp == nil, !c.Stamped:
		w.violate(wholeFiles, "a checkpoint is written, and there is no stamp, or it does not say that there is one")
	case c.VersionIndex > i && !givenBack:
		w.violate(wholeFiles, "the checkpoint is at version %d, ahead of the stamp, at version %d", c.VersionIndex, i)
	case c.VersionIndex == i && c.MigrationCompleted && stamp.Migration != checkpoint.MigrationCompleted:
		w.violate(wholeFiles, "the checkpoint says that the migration has completed, and the stamp does not")
	case before != nil && before.Phase == checkpoint.PhaseFinished: // a state may have been restored since
	case c.Phase == checkpoint.PhaseFinished && !w.state.excused && w.state.height != w.plan.Versions[w.plan.End()].Stop:
		w.violate(exactHeight, "the checkpoint says that the last version is complete at height %d", w.state.height)
	}
}

// checkDisk looks before each start at what is there: it must be enough to continue.
func (w *world) checkDisk() {
	if w.volume.foreign || w.former != nil {
		return
	}
	stamp := w.stamp()
	if stamp == nil {
		if w.volume.stamped {
			w.violate(wholeFiles, "a process was started on the state, and its stamp is gone")
		}
		return
	}
	if i := w.stampedAs(stamp); i >= 0 && w.state.exists {
		if why := w.wrongStamp(stamp); why != "" {
			w.violate(ownState, "after a crash the stamp names version %d, migration %q, but %s", i, stamp.Migration, why)
		}
	}
}

// checkFinished looks when the sequence says that it is complete.
func (w *world) checkFinished() {
	w.sync()
	s, last := &w.state, w.plan.Versions[w.plan.End()]
	if last.Stop == 0 || s.height != last.Stop && !s.excused {
		w.violate(exactHeight, "the sequence is finished at height %d, its last one is %d", s.height, last.Stop)
	}
}

// checkCannotBeAsked looks when it is said that the node of version i cannot be asked. It may have ended like one that
// does not know the flag.
func (w *world) checkCannotBeAsked(e *entrypoint, i int) {
	r := w.release(i)
	e.cannotAsk[r] = true
	switch h := w.releases[r]; {
	case w.plan.Versions[i].NeverAsk, h.asked == unknownFlag, h.asked == otherWords:
	case e.last == nil || !e.last.question || e.last.exit.Code != 2:
		w.violate(documentedEnd, "it is said that the node of version %d cannot be asked, and it can", i)
	}
}

// checkReturn looks at how a run ended that was not killed.
func (w *world) checkReturn(e *entrypoint) {
	var f *sequencer.Failure
	if left := errors.As(e.err, &f) && f.Cause == sequencer.WorkersLeft; len(w.processes) > 0 && !e.sweepFailed && !left {
		w.violate(documentedEnd, "the run has returned, but process %d is alive", w.processes[0].pid)
	}
	if e.err == nil {
		if e.onlyAsks {
			w.checkReport(e)
		} else if e.stopsTaken == 0 && !e.finished {
			w.violate(documentedEnd, "the run ends well, but is neither finished nor asked to stop: %s", &w.state)
		}
		return
	}
	if s := w.stamp(); s != nil && s.Migration == checkpoint.MigrationBegun && !e.begunBefore && !e.saveFailed && w.state.begun[meantBy(s)] == 0 {
		w.violate(migrationOnce, "the migration of %q is recorded as begun, and was never executed", s.Name)
	}
	if f == nil {
		w.violate(documentedEnd, "the run ends with something else than a Failure: %v", e.err)
		return
	}
	if f.What == "" || f.Safe == "" || f.ToDo() == "" {
		w.violate(documentedEnd, "the failure does not say what happened, what is safe and what to do: %q, %q, %q", f.What, f.Safe, f.ToDo())
	}
	if why := w.wrongEnd(e, f); why != "" {
		w.violate(documentedEnd, "exit code %d, cause %q, but %s: %s", f.Code, f.Cause, why, f)
	}
	for _, r := range f.Remedies {
		if r.When == "" && !w.fits(r) {
			w.violate(documentedEnd, "the state is: %s, but the failure says: %s", &w.state, f)
		}
	}
	if w.volume.restored && !e.elsewhere && w.aboutRecord(f.Cause) {
		w.violate(liveness, "the state or the checkpoint was restored alone, and that needs a repair: %s", f)
	}
}

// checkReport looks at what 'entrypoint height' has found.
func (w *world) checkReport(e *entrypoint) {
	d := e.report.Durable
	switch {
	case e.stopsTaken > 0:
	case d.Knowledge == sequencer.Asked && d.Height != w.state.height:
		w.violate(exactHeight, "the height is said to be %d, and is %d", d.Height, w.state.height)
	case d.Knowledge == sequencer.NoState && w.state.exists:
		w.violate(exactHeight, "it is said that there is no state")
	}
}

// aboutRecord: the run ended because it does not know whose the state is.
func (w *world) aboutRecord(cause sequencer.Cause) bool {
	return slices.Contains([]sequencer.Cause{
		sequencer.OwnerUnknown, sequencer.OtherState, sequencer.OtherProgram, sequencer.StateGone, sequencer.VersionUnknown, sequencer.BinaryMisplaced,
	}, cause)
}

// wrongEnd compares the exit code and the cause with the tables of the documentation.
func (w *world) wrongEnd(e *entrypoint, f *sequencer.Failure) string {
	var exit sequencer.Exit
	if e.last != nil {
		exit = e.last.exit
	}
	switch f.Code {
	case sequencer.CodeCheckpointUnreadable:
		return unless(e.loadFailed, "both files were readable")
	case sequencer.CodeCheckpointNotWritable:
		return unless(e.saveFailed, "every write was good")
	case sequencer.CodeEarlyExit:
		often := f.Cause == sequencer.EarlyExits && e.zeros > w.options.restarts && !e.cameUp
		return unless(often || f.Cause == "" && (e.replaced || e.startCode == f.Code), "no node has exited 0 that often, and there were processes")
	case sequencer.CodeNotExecutable, sequencer.CodeNotFound:
		return unless(e.startCode == f.Code, "every program could be executed")
	case sequencer.CodeMismatch:
		return unless(w.mismatch(e, f.Cause), "everything is consistent")
	}
	if e.last != nil && e.last.question && e.lastRun != nil && f.Code == e.lastRun.exit.Status() && e.lastRun.startedStamp.Entered { // it was asked why it had failed
		exit = e.lastRun.exit
	}
	if e.stopsTaken > 0 && isStop(exit.Signal) && !e.last.migrates {
		return "the node was asked to stop"
	}
	return unless(e.last != nil && f.Code > 0 && f.Code == exit.Status(), fmt.Sprintf("the last process %s", exit))
}

func unless(good bool, text string) string {
	if good {
		return ""
	}
	return text
}

// mismatch reports whether the world has a reason for a failure 78 with this cause.
func (w *world) mismatch(e *entrypoint, cause sequencer.Cause) bool {
	s, stamp := &w.state, w.stamp()
	i := w.stampedAs(stamp)
	var v sequencer.Version
	if i >= 0 {
		v = w.plan.Versions[i]
	}
	begun := stamp != nil && stamp.Migration == checkpoint.MigrationBegun
	switch cause {
	case "":
		return e.sweepFailed
	case sequencer.FilesInvalid:
		return e.missing >= 0 || e.unreadable >= 0
	case sequencer.VersionUnknown:
		return i < 0
	case sequencer.Retired:
		return w.plan.Versions[max(i, 0)].Retired
	case sequencer.MigrationVanished:
		return begun && v.Migration == ""
	case sequencer.MigrationInterrupted:
		return begun && (v.OnInterrupted == sequencer.Halt || stamp.UndoPoint != "" && !w.canPutBack(stamp))
	case sequencer.MigrationSkipped:
		return stamp != nil && stamp.Migration == "" && v.Migration != ""
	case sequencer.StateGone:
		return !s.exists
	case sequencer.StateBelow:
		return s.height+1 < v.Start
	case sequencer.TooLate:
		return i > w.plan.End() || s.height > v.Stop && (stamp.StopHeight == 0 || stamp.StopHeight > v.Stop)
	case sequencer.Overrun:
		return s.height > v.Stop && stamp.StopHeight > 0 && stamp.StopHeight <= v.Stop
	default:
		return w.mismatchOf(e, cause, i)
	}
}

// mismatchOf is mismatch for what is not about the version at place i of the plan, which is the stamped one.
func (w *world) mismatchOf(e *entrypoint, cause sequencer.Cause, i int) bool {
	switch cause {
	case sequencer.OwnerUnknown:
		return w.stamp() == nil
	case sequencer.BinaryMisplaced:
		return w.former != nil
	case sequencer.OtherState:
		return w.stamp() == nil || e.swapped || e.elsewhere
	case sequencer.OtherProgram:
		return w.volume.foreign
	case sequencer.StorageUnknown:
		return e.forgotten
	case sequencer.CameUp:
		return e.cameUp
	case sequencer.WorkersLeft:
		return e.last != nil && e.last.migrates && e.sweeping != nil && len(e.sweeping.seen) > 0
	case sequencer.NotAnswered:
		return i >= 0 && e.cannotAsk[w.release(i)]
	default: // the others have other codes
		return false
	}
}

// checkEnd looks at the state at the end of a life.
func (w *world) checkEnd() {
	s := &w.state
	if wrong := w.wrongBlocks(s); wrong != "" {
		w.violate(exactHeight, "at the end, %s", wrong)
	}
	for i, v := range w.plan.Versions {
		r := w.release(i)
		switch runs := s.migrated[r]; {
		case v.Migration == "":
		case runs == 0:
			w.violate(migrationOnce, "at the end, the migration of version %d was skipped", i)
		case runs > 1 && !w.releases[r].idempotent:
			w.violate(migrationOnce, "at the end, the migration of version %d has run %d times", i, runs)
		}
	}
}

// checkProgress bounds what may be needed in a calm world. runs and repairs count from the last fault on.
func (w *world) checkProgress(runs, repairs int) {
	versions := len(w.plan.Versions)
	if limit := 10 + 5*versions; runs > limit {
		w.violate(liveness, "not at the end after %d starts without a fault; last: %v", runs, w.e.err)
	}
	if repairs > 5+2*versions {
		w.violate(liveness, "%d repairs by hand without a fault; last: %v", repairs, w.e.err)
	}
}

// watchdog ends a run that neither ends nor continues.
func (w *world) watchdog(e *entrypoint) {
	time.AfterFunc(6*time.Hour, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.over || w.e != e || e.dead || e.returned {
			return
		}
		w.violate(liveness, "a run neither ends nor continues")
		w.kill("watchdog")
	})
}
