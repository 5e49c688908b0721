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

// enterVersion passes the state on to version i: the version before is durable at its stop height, and nothing of it is
// left. It is the only place where the version changes, and without a migration one durable write.
func (s *sequence) enterVersion(i int) error {
	v := s.Plan.Versions[i]
	s.Log.Info("version completed", slog.Int("version", i-1), slog.Uint64("height", s.Plan.Versions[i-1].Stop), slog.String("proof", string(s.proof())))
	if problems := s.Files.Check(s.Plan, i); len(problems) > 0 {
		return s.cannotEnter(i, problems)
	}
	if problems := s.verify(i); len(problems) > 0 {
		return s.cannotEnter(i, problems)
	}
	digest, err := s.sameBinary(i)
	if err != nil {
		return err
	}
	if err := s.sameStorage(i); err != nil {
		return err
	}
	if s.stopRequested() {
		return errStopped
	}
	s.again, s.left = false, s.exitedAt
	done := s.record.completed(s.Plan, s.proof())
	s.bySlack = false
	if s.durable.Knowledge == CannotBeAsked { // that was the node of the version before; this one has its own
		s.durable, s.state.CannotBeAsked = Durable{}, false
	}
	if v.Migration == "" {
		return s.commit(done.entered(s.Plan, i, digest), fmt.Sprintf("%s is complete and nothing of %s was started", s.Plan.Label(i-1), s.Plan.Label(i)))
	}
	s.at = &i
	return s.beginMigration(i, done.migrationBegun(s.Plan, i, digest))
}

// beginMigration records that the migration of version i is begun, and runs it. One that was not executed gives the former
// record back.
func (s *sequence) beginMigration(i int, begun record) error {
	former := s.record
	if err := s.commit(begun, "the migration was not started"); err != nil {
		_ = s.commit(former, "") // the stamp may say "begun" all the same; the failure is that of the first write
		return err
	}
	notBegun := func() error {
		return s.commit(former, "the migration was not started, although the record says that it was begun")
	}
	err := errStopped
	if !s.stopRequested() { // otherwise it came with the write
		err = s.migrate(i)
	}
	start := (*StartError)(nil)
	if errors.Is(err, errStopped) || errors.As(err, &start) {
		if failed := notBegun(); failed != nil {
			return failed
		}
	}
	return err
}

// migrateAgain runs the migration of version i, which was begun before.
func (s *sequence) migrateAgain(i int) error {
	if err := s.sameStorage(i); err != nil {
		return err
	}
	s.Log.Warn("interrupted migration is run again", slog.Int("version", i), slog.String("migration", s.Plan.Versions[i].Migration))
	if err := s.commit(s.record.migrationRuns(s.Plan, i), "the migration was not started again"); err != nil {
		return err
	}
	if s.stopRequested() {
		return errStopped
	}
	return s.migrate(i)
}

// migrationNote is how often a migration that runs is logged: without it a long one looks as if it hung.
const migrationNote = 30 * time.Second

// recordTries is how often, a second apart, the end of a migration is tried to be recorded: what is not recorded would
// be run again.
const recordTries = 10

// migrate runs the migration of version i, which is recorded as begun, and records its end.
func (s *sequence) migrate(i int) error {
	exit, stderr, err := s.runMigration(i)
	if err != nil {
		return err
	}
	s.durable = Durable{}
	if exit.Status() != 0 {
		if err := s.sweep(); err != nil {
			return err
		}
		return s.migrationFailure(i, exit, stderr.lastLines(stderrLines))
	}
	// The record comes before the sweep: a kill in between must not have the migration run twice.
	recorded := s.stillThere(i)
	if recorded == nil {
		recorded = s.recordMigration(i)
	}
	swept := s.sweep()
	if recorded != nil {
		return recorded
	}
	return swept
}

// stillThere looks after the migration of version i whether the state is where it was: a migration that builds a new
// directory and has a name lead to it would otherwise have the old one stamped as migrated.
func (s *sequence) stillThere(i int) error {
	var f *Failure
	err := s.sameStorage(i)
	if errors.As(err, &f) {
		f.Safe = "the migration has run, its completion is not recorded, and no node was started"
		f.Remedies = []Remedy{{When: "the state that is there now is the migrated one", Version: i, Migrated: true, Force: true}}
	}
	return err
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
		return Exit{}, nil, s.startFailure(i, "migration", err)
	}
	s.began(ProcessState{Pid: process.Pid(), Version: i, Migration: true}, PhaseMigrating)
	s.Log.Info("migration started", slog.Int("version", i), slog.String("migration", v.Migration), slog.Int("pid", process.Pid()))
	s.awaitMigration(i, process)
	s.exited(process.Exit())
	s.Log.Info("migration finished", slog.Int("version", i), slog.String("exit", process.Exit().String()), slog.Int("exit_code", process.Exit().Status()),
		slog.Float64("seconds", time.Since(began).Seconds()))
	return process.Exit(), stderr, nil
}

func (s *sequence) awaitMigration(i int, process Process) {
	var kill killTimer
	began, note := time.Now(), time.NewTicker(migrationNote)
	defer note.Stop()
	for {
		select {
		case <-process.Done():
			return
		case <-note.C:
			s.Log.Info("migration still runs", slog.Int("version", i), slog.Int("pid", process.Pid()), slog.Float64("seconds", time.Since(began).Seconds()))
		case sig := <-s.Signals.Signals():
			again := s.stopping
			s.note(sig)
			switch {
			case IsStop(sig) && again:
				if s.StopTimeout > 0 {
					kill.after(s.StopTimeout)
				}
				s.forward(process, i, sig)
			case IsStop(sig):
				s.Log.Warn("the migration is not interrupted", slog.Int("version", i), slog.String("detail", "it runs to its end and nothing follows; a second stop signal is passed on to it"))
			}
		case <-kill.C:
			kill.C = nil
			s.forward(process, i, syscall.SIGKILL)
		}
	}
}

// recordMigration makes durable what the migration has written, and then that it is complete. It tries hard: the state is
// migrated now, whatever the record says.
func (s *sequence) recordMigration(i int) error {
	// Once: the kernel reports that it could not write something to the first who asks, and not to the next (fsync(2)).
	if err := s.Store.SyncState(); err != nil {
		return s.notWritable(err, fmt.Sprintf("the migration of %s exited 0, but what it wrote may not be on disk, and no node was started", s.Plan.Label(i))).
			next("repair the volume, and restore the state from before the migration, as a whole directory")
	}
	safe := fmt.Sprintf("the migration of %s completed, but the record still says that it was interrupted", s.Plan.Label(i))
	var err error
	for range recordTries {
		if err = s.commit(s.record.migrationDone(s.Plan), safe); err == nil {
			return nil
		}
		s.Log.Warn("record not written", slog.Int("version", i), slog.String("error", err.Error()))
		time.Sleep(time.Second)
	}
	var f *Failure
	if errors.As(err, &f) {
		f.Next = "make the volume writable, and do this BEFORE anything is started again"
		f.Remedies = []Remedy{{Version: i, Migrated: true, Force: true, When: "the volume was only full or read-only"}}
	}
	return err
}
