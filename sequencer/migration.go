package sequencer

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"rollup-entrypoint/sequencer/sovereign"
)

// beginMigration records that the migration of version i has begun, and runs it. If it was not executed, the former
// record is put back.
func (s *sequence) beginMigration(i int, begun record) error {
	former := s.record
	if err := s.commit(begun, "the migration was not started"); err != nil {
		_ = s.commit(former, "") // the stamp may say "begun" anyway; the failure is that of the first write
		return err
	}
	err := s.migrate(i)
	if errors.Is(err, errStopped) || errors.As(err, new(*StartError)) {
		if failed := s.commit(former, "the migration was not started, although the record says that it began"); failed != nil {
			return failed
		}
	}
	return err
}

// migrateAgain runs the migration of version i, which began in an earlier run.
func (s *sequence) migrateAgain(i int) error {
	if err := s.sameStorage(i); err != nil {
		return err
	}
	s.Log.Warn("interrupted migration is run again", slog.Int("version", i), slog.String("migration", s.Plan.Versions[i].Migration))
	if err := s.commit(s.record.migrationRuns(s.Plan, i), "the migration was not started again"); err != nil {
		return err
	}
	return s.migrate(i)
}

// recordTries is how often, a second apart, we try to record the end of a migration: unrecorded, it would run again.
const recordTries = 10

// migrate runs the migration of version i, which is recorded as begun, and records its end.
func (s *sequence) migrate(i int) error {
	m := &job{child: child{s: s, index: i}}
	err := m.run(s.migration(i))
	if errors.Is(err, errStopped) || errors.As(err, new(*StartError)) {
		return err
	}
	s.durable = Durable{}
	switch {
	case m.alive:
		return err
	case err != nil:
		return s.undone(i, m.process.Exit(), err)
	}
	if exit := m.process.Exit(); exit.Status() != 0 {
		return s.undone(i, exit, s.migrationFailed(i, exit, &m.stderr))
	}
	if err := s.stillThere(i); err != nil {
		return err
	}
	return s.recordMigration(i)
}

// migration is the command that migrates the state to version i.
func (s *sequence) migration(i int) Command {
	v := s.Plan.Versions[i]
	return Command{Path: v.Migration, Args: sovereign.MigrationArgs(v.Config, v.MigrationArgs...), Env: slices.Concat(v.Env, v.MigrationEnv)}
}

// stillThere makes sure after the migration of version i that the state is where it was. If a migration builds a new
// directory and has a name lead to it, the old one would otherwise be stamped as migrated; and if somebody puts another
// state in its place meanwhile, that one. A migration may have left the state without a stamp.
func (s *sequence) stillThere(i int) error {
	var f *Failure
	err := s.sameStorage(i)
	if err == nil {
		if found, failed := fromDisk(s, s.Store.LoadState); failed == nil && found.Stamp != nil && !found.Stamp.Same(s.record.stamp) {
			err = s.otherStamp(i, found.Stamp)
		}
	}
	if errors.As(err, &f) {
		f.Safe = "the migration has run, its completion is not recorded, and no node was started"
		f.Remedies = []Remedy{{When: "the state that is there now is the migrated one", Version: i, Migrated: true, Force: true}}
	}
	return err
}

// recordMigration makes durable what the migration wrote, and then that it is complete. It tries hard, because the
// state is migrated now, whatever the record says.
func (s *sequence) recordMigration(i int) error {
	// Once: the kernel reports that it could not write something to the first who asks, and not to the next (fsync(2)).
	if err := s.onDisk(s.Store.SyncState); err != nil {
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
		s.pause(time.Second)
	}
	var f *Failure
	if errors.As(err, &f) {
		f.Next = "make the volume writable, and do this BEFORE anything is started again"
		f.Remedies = []Remedy{{Version: i, Migrated: true, Force: true, When: "the volume was only full or read-only"}}
	}
	return err
}
