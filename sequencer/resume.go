package sequencer

// Next is the step with which a run begins.
type Next int

const (
	// NextRun starts the version's node.
	NextRun Next = iota + 1
	// NextFinishPrevious has the version before run on to its stop height, then starts the version's node.
	NextFinishPrevious
	// NextMigrate runs the version's migration, which was not begun before.
	NextMigrate
	// NextMigrateAgain runs the version's migration, which was begun and not completed.
	NextMigrateAgain
	// NextFinished: the last version is complete and nothing is left to run.
	NextFinished
)

// Position is where a run begins.
type Position struct {
	// Next is the first step, for version Record.VersionIndex.
	Next Next
	// Record is the checkpoint from which the run goes on.
	Record Checkpoint
	// Warnings are for the log.
	Warnings []string
}

// Resume is where plan and checkpoint meet: it says where the sequence goes on. It is a pure function. checkpoint is nil
// where there is none, and then the first version is started. The error is a *Failure with code 78.
func Resume(plan *Plan, checkpoint *Checkpoint) (Position, error) {
	if checkpoint == nil {
		return Position{Next: NextRun, Record: Checkpoint{BinaryPath: plan.Versions[0].Binary, Phase: PhaseRunning}}, nil
	}
	at := Position{Next: NextRun, Record: checkpoint.clone()}
	i := checkpoint.VersionIndex
	if i > plan.Last() {
		return Position{}, failf(CodeMismatch, "the checkpoint is at version %d, but %s has only versions 0 to %d", i, plan.File, plan.Last()).
			safe("nothing was started").
			next("start with the config that has version %d; the state cannot go back to an older version", i)
	}
	at.Warnings = changedHeights(plan, checkpoint)
	if at.Record.Phase == PhaseFinished {
		return at.afterFinish(plan)
	}
	return at.inVersion(plan, plan.Versions[i])
}

// inVersion goes on inside version v, which is not complete.
func (at Position) inVersion(plan *Plan, v Version) (Position, error) {
	record := &at.Record
	i := record.VersionIndex
	switch {
	case v.Migration == "" && record.Phase == PhaseMigrating && record.Started:
		return Position{}, failf(CodeMismatch, "the migration of %s was interrupted, but %s has none for it any more", plan.label(i), plan.File).
			safe("nothing was started, and the state may be half migrated").
			next("put migration_path back, or, if the migration did complete, say so with 'entrypoint checkpoint set --version %d --migrated'", i)
	case v.Migration == "" && record.Phase == PhaseFinishingPrevious:
		at.Next = NextFinishPrevious
		return at, nil
	case v.Migration == "" || record.MigrationCompleted:
		record.Started = record.Started && record.Phase == PhaseRunning
		record.Phase = PhaseRunning
		return at, nil
	case record.Phase == "":
		return Position{}, failf(CodeMismatch, "the checkpoint, as sov-rollup-manager writes it, does not say whether the migration of %s completed", plan.label(i)).
			safe("nothing was started, and a second run could destroy the state").
			next("if %s has already run, say 'entrypoint checkpoint set --version %d --migrated'; if its migration has never been started, 'entrypoint checkpoint set --version %d'", plan.label(i), i, i)
	case record.Phase == PhaseRunning:
		return Position{}, failf(CodeMismatch, "%s has a migration in %s, but it was started without one", plan.label(i), plan.File).
			safe("nothing was started").
			next("remove migration_path, or, if the state is migrated, say so with 'entrypoint checkpoint set --version %d --migrated', or, to run it now, say 'entrypoint checkpoint set --version %d'", i, i)
	case !record.Started:
		// In PhaseFinishingPrevious, too: a migration has the version before prove its stop height first.
		at.Next = NextMigrate
		return at, nil
	case v.OnInterrupted == Halt:
		return Position{}, failf(CodeMismatch, "the migration of %s was begun and is not recorded as completed, and on_interrupted_migration is %q", plan.label(i), Halt).
			safe("nothing was started, and the state may be half migrated").
			next("restore the state from before the migration and say 'entrypoint checkpoint set --version %d', or, if the migration did complete, the same with --migrated", i)
	}
	at.Next = NextMigrateAgain
	return at, nil
}

// afterFinish goes on after the last version of an older plan was complete. The new plan may have more versions, or let
// the same version run further.
func (at Position) afterFinish(plan *Plan) (Position, error) {
	i := at.Record.VersionIndex
	v := plan.Versions[i]
	done, known := at.Record.completed(i)
	switch {
	case known && v.Stop != 0 && v.Stop == done.StopHeight && i == plan.Last():
		at.Next = NextFinished
		return at, nil
	case known && v.Stop != 0 && v.Stop < done.StopHeight:
		return Position{}, failf(CodeMismatch, "%s was complete at height %d, but its stop_height is now %d", plan.label(i), done.StopHeight, v.Stop).
			safe("nothing was started").
			next("set its stop_height to %d or more in %s", done.StopHeight, plan.File)
	}
	// Its node is started with the stop height of today: it runs on, or proves that this height is reached.
	at.Record.Phase, at.Record.Started = PhaseRunning, true
	return at.inVersion(plan, v)
}

// changedHeights finds versions that were completed at another height than the plan now has.
func changedHeights(plan *Plan, c *Checkpoint) []string {
	var warnings []string
	for _, done := range c.History {
		if done.VersionIndex >= c.VersionIndex {
			continue
		}
		if stop := plan.Versions[done.VersionIndex].Stop; stop != done.StopHeight {
			warnings = append(warnings, failf(0, "%s was complete at height %d, but %s now stops it at %d",
				plan.label(done.VersionIndex), done.StopHeight, plan.File, stop).Error())
		}
	}
	return warnings
}

// MatchBinary compares the binary of the checkpoint with the plan's. digest gives the SHA-256 of version i's binary in
// hex, and is only asked where the paths differ. moved is true where the path differs and the digest does not: the
// binary was moved, and the record is to be brought up to date. The error is a *Failure with code 78.
func MatchBinary(plan *Plan, c Checkpoint, digest func(i int) (string, error)) (moved bool, err error) {
	i := c.VersionIndex
	if c.BinaryPath == plan.Versions[i].Binary {
		return false, nil
	}
	mismatch := failf(CodeMismatch, "the checkpoint is at %s with the binary %s, but %s has %s there",
		plan.label(i), c.BinaryPath, plan.File, plan.Versions[i].Binary).safe("nothing was started")
	for j, v := range plan.Versions {
		if v.Binary == c.BinaryPath {
			return false, mismatch.next("that binary is now version %d: if versions were inserted or removed, put them back as they were", j)
		}
	}
	if c.BinarySHA256 == "" {
		return false, mismatch.next("if it is the same binary in a new place, say 'entrypoint checkpoint set --version %d', with --migrated if that version's migration has completed", i)
	}
	sum, err := digest(i)
	if err != nil {
		return false, mismatch.because(err).next("make the binary readable, so that the two can be compared")
	}
	if sum == c.BinarySHA256 {
		return true, nil
	}
	for j := range plan.Versions {
		if sum, err := digest(j); err == nil && sum == c.BinarySHA256 {
			return false, mismatch.next("the same binary is now version %d: if versions were inserted or removed, put them back as they were", j)
		}
	}
	return false, mismatch.next("its content differs too: put the binary with sha256 %s back, or adopt the new one with 'entrypoint checkpoint set --version %d'", c.BinarySHA256, i)
}
