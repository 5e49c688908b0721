package simulation

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

// The invariants, all of them, and nothing else decides whether a life is a good one. docs/guarantees.md has them in
// words.
const (
	// oneProcess: never are two processes alive on one state.
	oneProcess = iota + 1
	// exactHeight: a version, or its migration, works on the state only when the version before is durable at its stop
	// height, and nobody makes another version's blocks.
	exactHeight
	// migrationOnce: a migration that is recorded as completed is never run again, one that was interrupted is run again
	// or halts, as configured, and none is skipped.
	migrationOnce
	// nothingAfterStop: after a stop was requested nothing is started, and what runs gets the signal.
	nothingAfterStop
	// wholeCheckpoint: the checkpoint is the old or the new one, whole, and the version never goes backwards.
	wholeCheckpoint
	// documentedEnd: each end of a run has the code and the words of the documentation, and leaves no process.
	documentedEnd
	// liveness: when the world is calm the sequence comes to its end, with no repair by hand but the documented ones.
	liveness
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
	if len(w.processes) > 1 {
		w.violate(oneProcess, "processes %d and %d are alive on one state", w.processes[0].pid, w.processes[1].pid)
	}
}

// mostStarts is how many processes one run may start. A version takes two or three, and one more for each fault.
const mostStarts = 50

// checkStart looks at the moment at which a process is about to be executed.
func (w *world) checkStart(e *entrypoint, c sequencer.Command) {
	i := w.versionOf(c.Path)
	for _, p := range w.processes {
		w.violate(oneProcess, "%s is started while process %d lives", c.Path, p.pid)
	}
	if len(e.started) > mostStarts {
		w.violate(liveness, "%s is started, and %d processes were before, in one run", c.Path, len(e.started))
	}
	switch {
	// A stop that arrives at the very instant of a start, after the last look for signals, is too late.
	case e.stopWasVisible, e.stopArrived && e.stopAt.Before(time.Now()):
		w.violate(nothingAfterStop, "%s is started %s after a stop signal", c.Path, time.Since(e.stopAt))
	case strings.HasSuffix(c.Path, "/migration"):
		w.checkMigration(i)
	}
}

// checkSignal looks at a signal that the entrypoint sends. A migration gets none for the first stop.
func (w *world) checkSignal(p *process, sig syscall.Signal) {
	switch {
	case !p.migrates && sig == syscall.SIGTERM && p.e.stopsTaken == 0: // it must not run on
		p.later(20*time.Second, func() {
			w.violate(liveness, "process %d, which must not run on, lives %s after SIGTERM", p.pid, 20*time.Second)
		})
	case p.migrates && p.e.stopsTaken < 2:
		w.violate(documentedEnd, "the migration gets %s after %d stop signals", sig, p.e.stopsTaken)
	case p.overruns || w.volume.tampered: // it was to end for another reason before
	case sig == syscall.SIGKILL && p.e.stopsTaken > 0 && w.options.stopTimeout > 0 && time.Since(p.e.stopAt) < min(w.options.stopTimeout, 15*time.Second):
		w.violate(documentedEnd, "process %d is killed %s after the stop signal", p.pid, time.Since(p.e.stopAt))
	}
}

// checkStopArrives looks some time after a stop signal at the process that ran then: a node has got it, a migration the
// second one. A slow write may delay it.
func (w *world) checkStopArrives(p *process) {
	if p == nil || !p.alive || (p.migrates && p.e.stopsTaken == 0) {
		return
	}
	p.later(10*time.Second, func() {
		if !p.asked {
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
		w.violate(liveness, "process %d lives %s after a stop signal, the stop timeout is %s", p.pid, time.Since(p.e.stopAt), w.options.stopTimeout)
	})
}

// checkMigration looks before the migration of version i is executed.
func (w *world) checkMigration(i int) {
	w.sync()
	s, v := &w.state, w.plan.Versions[i]
	want := w.plan.Versions[i-1].Stop
	below := s.height < want && w.options.slack != nil // the operator took this upon himself
	switch {
	case w.volume.recorded[i]:
		w.violate(migrationOnce, "the migration of version %d is recorded as completed and run again", i)
	case v.OnInterrupted == sequencer.Halt && w.volume.begun[i]:
		w.violate(migrationOnce, "the migration of version %d was interrupted and is run again, although it must not be", i)
	case s.height != want && !below:
		w.violate(exactHeight, "the migration of version %d starts at height %d, want %d", i, s.height, want)
	case s.half >= 0 && s.half != i, s.half < 0 && s.schema != i && s.schema != schemaOf(w.plan, i-1):
		w.violate(migrationOnce, "the migration of version %d starts on a state that is: %s", i, s)
	}
	if wrong := s.wrongBlocks(w.plan); wrong != "" {
		w.violate(exactHeight, "the migration of version %d starts, but %s", i, wrong)
	}
}

// checkGenesis looks when a node commits the genesis.
func (w *world) checkGenesis(p *process) {
	if w.state.wrongGenesis {
		w.violate(exactHeight, "version %d is started on an empty state and commits the genesis", p.version)
	}
}

// checkOpensHalf and checkOpensOld: a node was started which refuses by luck, because its state has not been migrated.
func (w *world) checkOpensHalf(p *process) {
	w.violate(migrationOnce, "version %d is started on a half migrated state", p.version)
}

func (w *world) checkOpensOld(p *process) {
	w.violate(migrationOnce, "version %d is started on a state that is not migrated: %s", p.version, &w.state)
}

// checkAccepted looks when a node has passed its own checks and begins to work on the state.
func (w *world) checkAccepted(p *process) {
	s, v := &w.state, w.plan.Versions[p.version]
	if s.height+1 < v.Start {
		w.violate(exactHeight, "version %d works on a state at height %d, before the stop height %d of the version before", p.version, s.height, v.Start-1)
	}
	if s.schema > schemaOf(w.plan, p.version) {
		w.violate(exactHeight, "version %d works on a newer state and diverges in silence: %s", p.version, s)
	}
	if wrong := s.wrongBlocks(w.plan); wrong != "" {
		w.violate(exactHeight, "version %d works on a state where %s", p.version, wrong)
	}
}

// checkSave looks when a checkpoint becomes visible. One in four is parsed at once, the others when they are loaded:
// parsing takes a third of the time of a life.
func (w *world) checkSave(c sequencer.Checkpoint) {
	if w.steps%4 == 0 {
		if _, err := w.disk.load(); err != nil {
			w.violate(wholeCheckpoint, "a checkpoint is written that cannot be read: %s", err)
		}
	}
	if c.VersionIndex < w.volume.version {
		w.violate(wholeCheckpoint, "the version goes back from %d to %d", w.volume.version, c.VersionIndex)
	}
	if c.VersionIndex > w.volume.version && w.e.isMissing(c.VersionIndex) {
		w.violate(documentedEnd, "version %d is handed over to, whose files are missing", c.VersionIndex)
	}
}

// saved notes what is durable now.
func (w *world) saved(c sequencer.Checkpoint) {
	w.volume.version = c.VersionIndex
	if c.MigrationCompleted {
		w.volume.recorded[c.VersionIndex] = true
	}
}

// checkDisk looks after a power cut or a kill, before the next start: what is there must be enough to go on.
func (w *world) checkDisk() {
	switch c := w.disk.read(); {
	case w.volume.tampered || w.options.withoutCheckpoint:
	case w.disk.visible != nil && c == nil:
		w.violate(wholeCheckpoint, "the checkpoint cannot be read after a crash")
	case c == nil && w.volume.version > 0, c != nil && c.VersionIndex < w.volume.version:
		w.violate(wholeCheckpoint, "the checkpoint was at version %d and has gone back", w.volume.version)
	}
}

// checkReturn looks at how a run ended that was not killed.
func (w *world) checkReturn(e *entrypoint) {
	if len(w.processes) > 0 && !e.sweepFailed {
		w.violate(documentedEnd, "the run has returned, but process %d is alive", w.processes[0].pid)
	}
	if e.err == nil {
		if e.stopsTaken == 0 && !w.complete() {
			w.violate(documentedEnd, "the run ends well, but is neither finished nor asked to stop: %s", &w.state)
		}
		return
	}
	var f *sequencer.Failure
	if !errors.As(e.err, &f) {
		w.violate(documentedEnd, "the run ends with something else than a Failure: %v", e.err)
		return
	}
	if f.What == "" || f.Safe == "" || f.Next == "" {
		w.violate(documentedEnd, "the failure does not say what happened, what is safe and what to do: %q, %q, %q", f.What, f.Safe, f.Next)
	}
	if why := w.wrongCode(e, f); why != "" {
		w.violate(documentedEnd, "exit code %d, but %s: %s", f.Code, why, f)
	}
}

// wrongCode compares the exit code with the table of the documentation.
func (w *world) wrongCode(e *entrypoint, f *sequencer.Failure) string {
	var exit sequencer.Exit
	node := false
	if e.last != nil {
		exit, node = e.last.exit, !e.last.migrates
	}
	switch f.Code {
	case sequencer.CodeCheckpointUnreadable:
		return unless(e.loadFailed, "the checkpoint was readable")
	case sequencer.CodeCheckpointNotWritable:
		return unless(e.saveFailed, "every write was good")
	case sequencer.CodeEarlyExit:
		if node && status(exit) == 0 && e.lastAfterStop {
			return "the node was asked to stop and exited 0"
		}
		return unless(node && status(exit) == 0, "no node has exited 0")
	case sequencer.CodeNotExecutable, sequencer.CodeNotFound:
		return unless(e.startCode == f.Code, "every program could be executed")
	case sequencer.CodeMismatch:
		return unless(w.mismatch(e, f), "everything fits together")
	}
	return unless(e.last != nil && f.Code == status(exit), fmt.Sprintf("the last process %s", exit))
}

// status is the exit code that the documentation gives to the end of a process.
func status(e sequencer.Exit) int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

func unless(good bool, text string) string {
	if good {
		return ""
	}
	return text
}

// mismatch reports whether the world has a reason for this failure 78. Each is one of the documented ones.
func (w *world) mismatch(e *entrypoint, f *sequencer.Failure) bool {
	has := func(text string) bool { return strings.Contains(f.What, text) }
	disturbed := w.volume.tampered || w.volume.overran
	switch {
	case has("files of the plan are not in order"), has("cannot follow"), has("to prove its stop height first"):
		return e.missing >= 0
	case has("cannot be watched"):
		return e.unreadable >= 0
	case has("left behind cannot be ended"):
		return e.sweepFailed
	case has("but the state directory"):
		return !w.state.exists
	case has("ran past its stop height"):
		return w.volume.overran || (e.last != nil && e.last.overruns)
	case has("as sov-rollup-manager writes it"), has("but its node is at height"):
		return disturbed
	case has("and no node of"):
		return w.volume.overran
	case has("when it was first seen"):
		return disturbed
	case has("on_interrupted_migration"):
		return e.haltExpected
	case has("the node refused to start: the state is at height"):
		return disturbed || w.options.withoutCheckpoint || w.options.slack != nil
	}
	return false
}

// complete reports whether the sequence is at its end: nothing of the plan is left to do.
func (w *world) complete() bool {
	last := w.plan.Versions[w.plan.Last()]
	if last.Stop == 0 {
		return false
	}
	if w.state.height != last.Stop && !w.endsEarly() {
		return false
	}
	c := w.disk.read()
	if w.options.withoutCheckpoint {
		// A node that overruns unseen can stand at that height too, and nobody has said that it is the end.
		return w.e.finished
	}
	return c != nil && c.Phase == sequencer.PhaseFinished
}

// endsEarly: the last version counts as complete below its stop height, as the operator wants it.
func (w *world) endsEarly() bool {
	if w.state.height > w.plan.Versions[w.plan.Last()].Stop {
		return false
	}
	return w.options.slack != nil
}

// checkEnd looks at the state at the end of a life.
func (w *world) checkEnd() {
	s := &w.state
	if wrong := s.wrongBlocks(w.plan); wrong != "" {
		w.violate(exactHeight, "at the end, %s", wrong)
	}
	for i, v := range w.plan.Versions {
		runs := s.migrated[i]
		switch {
		case v.Migration == "":
		case runs == 0:
			w.violate(migrationOnce, "at the end, the migration of version %d was skipped", i)
		case runs > 1 && !w.habits[i].idempotent:
			w.violate(migrationOnce, "at the end, the migration of version %d has run %d times", i, runs)
		}
	}
}

// checkProgress bounds what may be needed in a calm world. runs and repairs count from the last fault on.
func (w *world) checkProgress(runs, repairs int) {
	if limit := 8 + 3*len(w.plan.Versions); runs > limit {
		w.violate(liveness, "not at the end after %d starts without a fault; last: %v", runs, w.e.err)
	}
	if repairs > 5 {
		w.violate(liveness, "%d repairs by hand without a fault; last: %v", repairs, w.e.err)
	}
}

// watchdog ends a run that neither ends nor goes on.
func (w *world) watchdog(e *entrypoint) {
	time.AfterFunc(6*time.Hour, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.over || w.e != e || e.dead || e.returned {
			return
		}
		w.violate(liveness, "a run neither ends nor goes on")
		w.kill("watchdog")
	})
}
