package sequencer

import "syscall"

// stderrLines is how many of the last lines on stderr a failure quotes.
const stderrLines = 10

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
	f := failf(d.Code, "%s: %s", s.Plan.label(i), d.Reason)
	f.Stderr = run.stderr.lastLines(stderrLines)
	switch {
	case d.Code == CodeEarlyExit && run.version.Stop == 0:
		f.safe("the checkpoint is right").next("start again; if nobody asked the node to stop, look in its log for the reason")
	case d.Code == CodeEarlyExit:
		f.safe("nothing of a later version was started and the checkpoint is right").
			next("start again: the node runs on, or proves that its stop height %d is reached", run.version.Stop)
	case d.Code == CodeMismatch && d.Height+1 < run.version.Start:
		f.safe("nothing else was started").
			next("the state is below start_height %d of %s: restore the state that belongs to the checkpoint, or, to sync again from genesis, delete both", run.version.Start, s.Plan.label(i))
	case d.Height > run.version.Stop && run.version.Stop > 0:
		s.wordBeyond(f, i, d.Height)
	case run.evidence.Exit.Signal == syscall.SIGKILL:
		f.safe("the checkpoint is right").
			next("start again; if nobody killed the node, look for the out-of-memory killer in the kernel log or the container's state")
	default:
		f.safe("the checkpoint is right").
			next("read what the node wrote last on stderr; the next start runs %s again", s.Plan.label(i))
	}
	return f
}

// wordBeyond tells of a state that a later version made.
func (s *sequence) wordBeyond(f *Failure, i int, height uint64) {
	f.safe("nothing was changed and no later version was started")
	owner := s.Plan.VersionAt(height)
	switch {
	case owner < 0:
		f.What += "; no version in the plan makes that height"
		f.next("start with the config that has the version to which height %d belongs", height)
	case s.Store == nil:
		f.What += "; that height belongs to " + s.Plan.label(owner)
		f.next("use a checkpoint file: without one every start begins at version 0")
	default:
		f.What += "; that height belongs to " + s.Plan.label(owner) + ", but the checkpoint is at " + s.Plan.label(i)
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
