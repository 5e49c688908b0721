package sequencer

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/sovereign"
)

// migrationNote is how often a migration that runs is told of: without it a long one looks as if it hung.
const migrationNote = 30 * time.Second

// recordTries is how often, a second apart, the end of a migration is tried to be recorded: what is not recorded would
// be run again.
const recordTries = 10

// migrate runs the migration of the version of the record.
func (s *sequence) migrate() error {
	i := s.record.VersionIndex
	if s.next == NextMigrateAgain {
		s.Log.Warn("interrupted migration is run again", slog.Int("version", i), slog.String("migration", s.Plan.Versions[i].Migration))
	} else if err := s.beginMigration(i); err != nil {
		return err
	}
	s.at = &i // to prove the height it may have been the version before
	exit, stderr, err := s.runMigration(i)
	if err != nil {
		return err
	}
	if exit.Status() != 0 {
		if err := s.sweep(); err != nil {
			return err
		}
		return s.migrationFailure(i, exit, stderr)
	}
	s.record.Phase, s.record.Started, s.record.MigrationCompleted = PhaseRunning, false, true
	s.next, s.arrived = NextRun, i
	// The record comes before the sweep: a kill in between must not have the migration run twice.
	recorded, swept := s.recordMigration(i), s.sweep()
	if recorded != nil {
		return recorded
	}
	return swept
}

// beginMigration proves that the previous version is complete, and records that the migration begins.
func (s *sequence) beginMigration(i int) error {
	if err := s.provePrevious(i); err != nil {
		return err
	}
	if s.stopRequested() {
		return errStopped
	}
	s.record.Phase, s.record.Started = PhaseMigrating, true
	if err := s.save("the migration was not started"); err != nil {
		return err
	}
	if !s.stopRequested() {
		return nil
	}
	// The stop came with the write. Nothing was begun, and nobody shall think so.
	if err := s.notBegun(); err != nil {
		return err
	}
	return errStopped
}

func (s *sequence) notBegun() error {
	s.record.Started = false
	return s.save("the migration was not started, although the checkpoint says that it was begun")
}

// provePrevious makes sure that the state is at exactly the stop height of version i-1, because a migration does not
// look. A hand-over has proven it already; a checkpoint that was set by hand, or a stop height that was changed since,
// has not: then the node of version i-1 is started, and either refuses its stop height or runs on to it.
func (s *sequence) provePrevious(i int) error {
	if provenBefore(s.Plan, &s.record, i) {
		return nil
	}
	s.Log.Info("proving the stop height before the migration", slog.Int("version", i-1), slog.Uint64("stop_height", s.Plan.Versions[i-1].Stop))
	return s.completePrevious(i, i > 1)
}

// provenBefore reports whether the record has a proof, good enough for a migration, that version i-1 is complete.
func provenBefore(plan *Plan, c *Checkpoint, i int) bool {
	done, known := c.completed(i - 1)
	return known && done.StopHeight == plan.Versions[i-1].Stop && done.Proof != ProofHeight
}

// runMigration runs the migration to its end. The first stop signal does not interrupt it: a state that is half
// rewritten is worse than a late stop. The second one is passed on. Anything else waits for the node.
func (s *sequence) runMigration(i int) (Exit, *tail, error) {
	v := s.Plan.Versions[i]
	stderr := &tail{}
	began := time.Now()
	process, err := s.Processes.Start(Command{
		Path: v.Migration, Args: sovereign.MigrationArgs(v.Config), Env: v.Env, Stderr: io.MultiWriter(stderr, s.Stderr),
	})
	if err != nil {
		if s.next == NextMigrate {
			if saveErr := s.notBegun(); saveErr != nil {
				return Exit{}, nil, saveErr
			}
		}
		return Exit{}, nil, s.startFailure(i, "migration", err)
	}
	s.began(ProcessState{Pid: process.Pid(), Version: i, Migration: true}, PhaseMigrating)
	s.Log.Info("migration started", slog.Int("version", i), slog.String("migration", v.Migration), slog.Int("pid", process.Pid()))
	s.awaitMigration(process)
	s.exited(process.Exit())
	s.Log.Info("migration finished", slog.Int("version", i), slog.String("exit", process.Exit().String()), slog.Int("exit_code", process.Exit().Status()),
		slog.Float64("seconds", time.Since(began).Seconds()))
	return process.Exit(), stderr, nil
}

func (s *sequence) awaitMigration(process Process) {
	n := &nodeRun{s: s, index: s.record.VersionIndex, process: process}
	began, note := time.Now(), time.NewTicker(migrationNote)
	defer note.Stop()
	for {
		select {
		case <-process.Done():
			return
		case <-note.C:
			s.Log.Info("migration still runs", slog.Int("version", n.index), slog.Int("pid", process.Pid()), slog.Float64("seconds", time.Since(began).Seconds()))
		case sig := <-s.Signals.Signals():
			if IsStop(sig) && s.stopping {
				n.signal(sig)
				continue
			}
			s.note(sig)
			if IsStop(sig) {
				s.Log.Warn("the migration is not interrupted", slog.Int("version", n.index), slog.String("detail", "it runs to its end and nothing follows; a second stop signal is passed on to it"))
			}
		case <-n.kill:
			n.kill = nil
			n.forward(syscall.SIGKILL)
		}
	}
}

// recordMigration makes the end of the migration durable, trying hard: the state is migrated now, whatever the
// checkpoint says.
func (s *sequence) recordMigration(i int) error {
	var err error
	for range recordTries {
		if err = s.save(fmt.Sprintf("the migration of %s completed, but the checkpoint still says that it was interrupted", s.Plan.label(i))); err == nil {
			return nil
		}
		s.Log.Warn("checkpoint not written", slog.Int("version", i), slog.String("error", err.Error()))
		time.Sleep(time.Second)
	}
	var f *Failure
	if errors.As(err, &f) {
		f.next("make the volume writable and, BEFORE anything is started again, say 'entrypoint checkpoint set --version %d --migrated'", i)
	}
	return err
}

// migrationFailure words the end of a migration that did not complete.
func (s *sequence) migrationFailure(i int, exit Exit, stderr *tail) error {
	f := failf(exit.Status(), "the migration of %s %s", s.Plan.label(i), exit).
		safe("no node was started on the state, which may be half migrated")
	f.Stderr = stderr.lastLines(stderrLines)
	look := "read what it wrote on stderr"
	if exit.OutOfMemory {
		look = moreMemory
	}
	if s.Plan.Versions[i].OnInterrupted == Halt {
		return f.next("%s; the next start halts, as on_interrupted_migration says: restore the state from before and say 'entrypoint checkpoint set --version %d'", look, i)
	}
	return f.next("%s; the next start runs it again: if it does not survive that, or if you restore the state from before, keep the entrypoint from being started and say 'entrypoint checkpoint set --version %d' first", look, i)
}
