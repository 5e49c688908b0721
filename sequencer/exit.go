package sequencer

import (
	"fmt"
	"syscall"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer/sovereign"
)

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code, 0 to 255, of a process that ended by itself.
	Code int
	// Signal is the signal that killed the process, 0 for none.
	Signal syscall.Signal
	// OutOfMemory: Signal is SIGKILL, and while the process ran the kernel killed something in our container because it
	// ran out of memory.
	OutOfMemory bool
}

// Status is the code that a shell gives: Code, or 128 plus the signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// String is for messages.
func (e Exit) String() string {
	switch {
	case e.OutOfMemory:
		return "was killed by " + signalname.Of(e.Signal) + ", by the kernel's out-of-memory killer"
	case e.Signal != 0:
		return "was killed by " + signalname.Of(e.Signal)
	}
	return fmt.Sprintf("exited %d", e.Code)
}

// stderrLines is how many of the last lines of a process a failure quotes.
const stderrLines = 10

// moreMemory is what helps after the kernel killed because the container ran out of memory.
const moreMemory = "give the container a higher memory limit, or the machine more memory"

// nodeFailed is the end for a node of version i that exited with a code of its own, or was killed: what says how.
func (s *sequence) nodeFailed(i int, what string, exit Exit, stderr *tail) *Failure {
	f := failf(exit.Status(), "%s: %s", s.Plan.Label(i), what).wrote(stderr)
	if complaint, sentence := sovereign.FindComplaint(f.Stderr); complaint != 0 {
		return s.complains(f, complaint, sentence)
	}
	safe := "stamp and checkpoint are correct, and nothing of another version was started"
	if exit.Signal == syscall.SIGKILL {
		safe += "; whether the state survived the kill shows at the next start"
	}
	f.safe(safe)
	switch {
	case exit.OutOfMemory:
		f.next(moreMemory + "; then start again")
	case exit.Signal == syscall.SIGKILL:
		f.next("start again; if nobody killed the node, look for the out-of-memory killer in the kernel log or the container's state")
	case s.stranger:
		f.next("stop the other process that answers on the port of runner.http_config in %s, or give the node a port of its own", s.Plan.Versions[i].Config)
	default:
		f.next("read what the node wrote last; the next start continues with %s", s.Plan.Label(i))
	}
	return f
}

// complains words what a node said about its state. Text may choose words, never actions.
func (s *sequence) complains(f *Failure, complaint sovereign.Complaint, sentence string) *Failure {
	if complaint == sovereign.NotMigrated {
		f.Cause = NotMigrated
		f.What += fmt.Sprintf("; it says that its state was not migrated (%q)", sentence)
		return f.safe("nothing of another version was started").
			next("if this version needs a migration, add migration_path to it in %s; if it has one, the wrong program may be configured as the migration", s.Plan.File)
	}
	f.Cause = StateDamaged
	f.What += fmt.Sprintf("; it says that its state is damaged (%q)", sentence)
	ways := "restore a snapshot of the state, as a whole directory, or run 'entrypoint reset' and sync from genesis"
	if point := s.undo.point; point != nil {
		ways = fmt.Sprintf("'entrypoint undo' puts back the state from before %s, kept in %s; or %s", label(point.To.VersionIndex, point.To.Name), point.Path, ways)
	}
	return f.safe("nothing of another version was started, and starting again does no further harm").
		next("starting again does not help: %s. The cause is a SIGKILL during a commit, or another version that opened the state. Give the container at least 300 s to stop", ways)
}

func (s *sequence) lastReported() string {
	if s.height == nil {
		return " (it reported no height)"
	}
	return fmt.Sprintf(" (last height reported: %d)", *s.height)
}

// mayBeComplete is the end for a node that cannot be asked: only a person can say whether it is at its stop height.
func (s *sequence) mayBeComplete(j int, what string, stderr *tail) *Failure {
	v := s.Plan.Versions[j]
	return mismatch(NotAnswered, "%s %s, and its node cannot be asked for its height", s.Plan.Label(j), what).wrote(stderr).
		safe("nothing of a later version was started").
		next("read what the node wrote. If it failed for another reason, fix that and start again. With --height-slack, exit 0 near the stop height counts as complete").
		remedy(Remedy{When: fmt.Sprintf("its log shows that height %d is committed and nothing above it", v.Stop), Version: j, Migrated: v.Migration != "", Complete: true})
}

// stoppedProcess is the end of a run whose process ended after a stop was requested: no failure, unless the process
// failed or something other than the stop killed it. overdue: it was sent SIGKILL after --stop-timeout.
func (s *sequence) stoppedProcess(j int, exit Exit, overdue bool, stderr *tail) error {
	if exit.Signal == 0 && exit.Code == 0 || IsStop(exit.Signal) {
		return errStopped
	}
	how, safe, next := exit.String(), "nothing was started after that; stamp and checkpoint are correct", "start again when you want to"
	if exit.Signal == syscall.SIGKILL {
		safe += "; whether the state survived the kill shows at the next start"
		if overdue {
			how, next = how+" after --stop-timeout", "raise --stop-timeout to 300s or more, then start again"
		}
	}
	return failf(exit.Status(), "%s was asked to stop, and its node %s%s", s.Plan.Label(j), how, s.lastReported()).wrote(stderr).
		safe(safe).next("%s", next)
}

// migrationFailed is the end for a migration that did not complete.
func (s *sequence) migrationFailed(i int, exit Exit, stderr *tail) error {
	f := failf(exit.Status(), "the migration of %s %s", s.Plan.Label(i), exit).wrote(stderr).
		safe("no node was started on the state, which may be half migrated")
	look := "read what it wrote to stderr"
	if exit.OutOfMemory {
		look = moreMemory
	}
	if s.Plan.Versions[i].OnInterrupted == Halt {
		return f.next("%s; the next start halts, as on_interrupted_migration says, until the state from before the migration is restored", look)
	}
	return f.next("%s; the next start runs it again. If it must not run twice on one state, stop the container now and restore the state from before the migration", look)
}
