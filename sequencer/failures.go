package sequencer

import "syscall"

// stderrLines is how many of the last lines on stderr a failure quotes.
const stderrLines = 10

// moreMemory is what helps where the kernel killed for want of memory.
const moreMemory = "give the container a higher memory limit, or the machine more memory"

// stopped is the end of a node that was asked to stop: no failure, unless a signal killed it.
func (s *sequence) stopped(i int, run *nodeRun, d Decision) error {
	if d.Code == 0 {
		return errStopped
	}
	f := failf(d.Code, "%s was asked to stop, and %s", s.Plan.label(i), d.Reason).
		safe("nothing was started after that, and the checkpoint is right").
		next("start again when you want to; a node that is killed while it starts up has changed nothing")
	f.Stderr = run.stderr.lastLines(stderrLines)
	return f
}

// failure words the end of version i that Decide called a failure.
func (s *sequence) failure(i int, run *nodeRun, d Decision) error {
	if d.Cause == StateBeyond && s.record.Phase == PhaseFinishingPrevious && i < s.record.VersionIndex {
		return s.overrunUnseen(s.record.VersionIndex, run, d.Reason)
	}
	f := failf(d.Code, "%s: %s", s.Plan.label(i), d.Reason)
	f.Stderr = run.stderr.lastLines(stderrLines)
	switch {
	case d.Cause == ExitedEarly && s.Plan.Versions[i].Stop == 0:
		f.safe("the checkpoint is right").next("start again; if nobody asked the node to stop, look in its log for the reason")
	case d.Cause == ExitedEarly:
		f.safe("nothing of a later version was started and the checkpoint is right").
			next("start again: the node runs on, or proves that its stop height %d is reached", s.Plan.Versions[i].Stop)
	case d.Cause == StateBelow:
		f.safe("nothing else was started").
			next("the state is below start_height %d of %s: restore the state that belongs to the checkpoint, or, to sync again from genesis, delete both", run.version.Start, s.Plan.label(i))
	case d.Cause == StateBeyond:
		s.wordBeyond(f, d.Height)
	case d.Cause == Overran:
		f.safe("no later version was started").
			next("find out why the node did not stop there; the state above height %d was made by the wrong version and is to be restored from before", run.version.Stop)
	case run.evidence.Exit.OutOfMemory:
		f.safe("the checkpoint is right").next(moreMemory + "; then start again")
	case run.evidence.Exit.Signal == syscall.SIGKILL:
		f.safe("the checkpoint is right").
			next("start again; if nobody killed the node, look for the out-of-memory killer in the kernel log or the container's state")
	case run.stranger:
		f.safe("the checkpoint is right").
			next("end the other process that answers on the port of runner.http_config in %s, or give the node a port of its own", run.version.Config)
	default:
		f.safe("the checkpoint is right").
			next("read what the node wrote last on stderr; the next start goes on with %s", s.Plan.label(i))
	}
	return f
}

// overrunUnseen is the end for a state above the stop height of version i-1 which no node of version i has made. run
// found it; its node belongs to either of them.
func (s *sequence) overrunUnseen(i int, run *nodeRun, reason string) *Failure {
	f := failf(CodeMismatch, "%s: %s, beyond the stop height %d of version %d, and no node of %s has run yet",
		s.Plan.label(run.index), reason, s.Plan.Versions[i-1].Stop, i-1, s.Plan.label(i))
	f.Stderr = run.stderr.lastLines(stderrLines)
	return f.safe("nothing else was started").
		next("find out why version %d did not stop there; the state above height %d was made by the wrong version and is to be restored from before", i-1, s.Plan.Versions[i-1].Stop)
}

// unknownMigration is the end for a state which stood at the first version's stop height when we saw it first: nothing
// tells whether the migration that follows has run on it. A checkpoint of sov-rollup-manager does not: it begins anew at
// version 0 where its file was deleted.
func (s *sequence) unknownMigration(height uint64) error {
	f := failf(CodeMismatch, "the state already was at height %d, the stop height of %s, when it was first seen, and nothing tells whether the migration of %s has run on it",
		height, s.Plan.label(0), s.Plan.label(1)).safe("nothing was changed, and the migration was not run")
	if s.Store == nil {
		return f.next("use --checkpoint-file: with it the answer can be given, and is kept")
	}
	return f.next("if the migration has never been run, say 'entrypoint checkpoint set --version 1'; if it has completed, say 'entrypoint checkpoint set --version 1 --migrated'")
}

// wordBeyond tells of a state that a later version made.
func (s *sequence) wordBeyond(f *Failure, height uint64) {
	f.safe("the state was not changed and no later version was started")
	owner := s.Plan.VersionAt(height)
	switch {
	case owner < 0:
		f.What += "; no version in the plan makes that height"
		f.next("start with the config that has the version to which height %d belongs; if there is none, a node ran past its stop height, and the state is to be restored from before", height)
	case s.Store == nil:
		f.What += "; that height belongs to " + s.Plan.label(owner)
		f.next("use a checkpoint file: without one every start begins at version 0")
	default:
		f.What += "; that height belongs to " + s.Plan.label(owner) + ", but the checkpoint is at " + s.Plan.label(s.record.VersionIndex)
		f.next("if %s made this state, adopt it with 'entrypoint checkpoint set --version %d%s'; if not, restore the right state",
			s.Plan.label(owner), owner, migratedFlag(s.Plan.Versions[owner]))
	}
}

// migratedFlag is what 'checkpoint set' needs for a version that has run: its migration cannot be due any more.
func migratedFlag(v Version) string {
	if v.Migration == "" {
		return ""
	}
	return " --migrated"
}
