package sequencer

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// resumePlan has a version of every kind: v1 with a migration, v2 without, v3 the last one with a stop height.
func resumePlan(change ...func(*Plan)) *Plan {
	plan := &Plan{File: "chain.json", Versions: []Version{
		{Name: "v0", Binary: "/v0", Stop: 100, OnInterrupted: Rerun},
		{Name: "osaka", Binary: "/v1", Migration: "/migrate1", Start: 101, Stop: 200, OnInterrupted: Rerun},
		{Name: "v2", Binary: "/v2", Start: 201, Stop: 300, OnInterrupted: Rerun},
		{Name: "v3", Binary: "/v3", Start: 301, Stop: 400, OnInterrupted: Rerun},
	}}
	for _, f := range change {
		f(plan)
	}
	return plan
}

func TestResumeGoesOnWhereTheCheckpointSays(t *testing.T) {
	halting := func(p *Plan) { p.Versions[1].OnInterrupted = Halt }
	shorter := func(p *Plan) { p.Versions = p.Versions[:3] }
	at := func(i int, phase Phase, started bool) Checkpoint {
		return Checkpoint{VersionIndex: i, BinaryPath: "/b", Phase: phase, Started: started}
	}
	migrated := func(c Checkpoint) Checkpoint { c.MigrationCompleted = true; return c }
	with := func(c Checkpoint, h ...Completed) Checkpoint { c.History = h; return c }
	done := func(i int, height uint64) Completed { return Completed{VersionIndex: i, StopHeight: height} }

	for _, test := range []struct {
		name string
		plan *Plan
		from *Checkpoint
		want Position
	}{
		{"no checkpoint is the first version", resumePlan(), nil, Position{Next: NextRun, Record: Checkpoint{BinaryPath: "/v0", Phase: PhaseRunning}}},
		{
			"the reference's file, no migration", resumePlan(), new(at(2, "", false)),
			Position{Next: NextRun, Record: at(2, PhaseRunning, false)},
		},
		{
			"the reference's file, started is not its key", resumePlan(), new(at(2, "", true)),
			Position{Next: NextRun, Record: at(2, PhaseRunning, false)},
		},
		{
			"the reference's file with its migration completed", resumePlan(), new(migrated(at(1, "", false))),
			Position{Next: NextRun, Record: migrated(at(1, PhaseRunning, false))},
		},
		{
			"the reference's file at the first version", resumePlan(), new(at(0, "", false)),
			Position{Next: NextRun, Record: at(0, PhaseRunning, false)},
		},
		{"running, never seen at a height", resumePlan(), new(at(2, PhaseRunning, false)), Position{Next: NextRun, Record: at(2, PhaseRunning, false)}},
		{"running, seen at a height", resumePlan(), new(at(2, PhaseRunning, true)), Position{Next: NextRun, Record: at(2, PhaseRunning, true)}},
		{
			"running after its migration", resumePlan(), new(migrated(at(1, PhaseRunning, true))),
			Position{Next: NextRun, Record: migrated(at(1, PhaseRunning, true))},
		},
		{
			"the version before is not complete", resumePlan(), new(at(2, PhaseFinishingPrevious, false)),
			Position{Next: NextFinishPrevious, Record: at(2, PhaseFinishingPrevious, false)},
		},
		{
			"the version before is not complete, and a migration is new in the plan", resumePlan(), new(at(1, PhaseFinishingPrevious, false)),
			Position{Next: NextMigrate, Record: at(1, PhaseFinishingPrevious, false)},
		},
		{"migration due", resumePlan(), new(at(1, PhaseMigrating, false)), Position{Next: NextMigrate, Record: at(1, PhaseMigrating, false)}},
		{"migration due, with halt", resumePlan(halting), new(at(1, PhaseMigrating, false)), Position{Next: NextMigrate, Record: at(1, PhaseMigrating, false)}},
		{"migration interrupted", resumePlan(), new(at(1, PhaseMigrating, true)), Position{Next: NextMigrateAgain, Record: at(1, PhaseMigrating, true)}},
		{
			"a migration that was due is not in the plan any more", resumePlan(), new(at(2, PhaseMigrating, false)),
			Position{Next: NextRun, Record: at(2, PhaseRunning, false)},
		},
		{
			"the halt is of no concern once it completed", resumePlan(halting), new(migrated(at(1, PhaseRunning, false))),
			Position{Next: NextRun, Record: migrated(at(1, PhaseRunning, false))},
		},
		{
			"finished", resumePlan(), new(with(at(3, PhaseFinished, true), done(3, 400))),
			Position{Next: NextFinished, Record: with(at(3, PhaseFinished, true), done(3, 400))},
		},
		{
			"finished, with a version more", resumePlan(), new(with(at(2, PhaseFinished, false), done(2, 300))),
			Position{Next: NextRun, Record: with(at(2, PhaseRunning, true), done(2, 300))},
		},
		{
			"finished, with a higher stop height", resumePlan(), new(with(at(3, PhaseFinished, true), done(3, 399))),
			Position{Next: NextRun, Record: with(at(3, PhaseRunning, true), done(3, 399))},
		},
		{
			"finished, and now without end", resumePlan(shorter, func(p *Plan) { p.Versions[2].Stop = 0 }), new(with(at(2, PhaseFinished, true), done(2, 300))),
			Position{Next: NextRun, Record: with(at(2, PhaseRunning, true), done(2, 300))},
		},
		{
			"now without end, and finished at no height", resumePlan(shorter, func(p *Plan) { p.Versions[2].Stop = 0 }), new(with(at(2, PhaseFinished, true), done(2, 0))),
			Position{Next: NextRun, Record: with(at(2, PhaseRunning, true), done(2, 0))},
		},
		{
			"finished, but nobody knows at which height", resumePlan(), new(at(3, PhaseFinished, true)),
			Position{Next: NextRun, Record: at(3, PhaseRunning, true)},
		},
		{
			"a stop height was changed behind us", resumePlan(), new(with(at(2, PhaseRunning, true), done(0, 90), done(1, 200))),
			Position{
				Next: NextRun, Record: with(at(2, PhaseRunning, true), done(0, 90), done(1, 200)),
				Warnings: []string{"version 0 was complete at height 90, but chain.json now stops it at 100"},
			},
		},
		{
			"stop heights were changed behind a finished one", resumePlan(), new(with(at(3, PhaseFinished, true), done(1, 199), done(2, 301), done(3, 400))),
			Position{
				Next: NextFinished, Record: with(at(3, PhaseFinished, true), done(1, 199), done(2, 301), done(3, 400)),
				Warnings: []string{
					`version 1 ("osaka") was complete at height 199, but chain.json now stops it at 200`,
					"version 2 was complete at height 301, but chain.json now stops it at 300",
				},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var before Checkpoint
			if test.from != nil {
				before = test.from.clone()
			}
			got, err := Resume(test.plan, test.from)
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
			if test.from != nil {
				got.Record.History = append(got.Record.History, Completed{})
				assert.Equal(t, before, *test.from, "it is a pure function")
			}
		})
	}
}

func TestPositionThatNobodySetStartsNothing(t *testing.T) {
	assert.NotContains(t, []Next{NextRun, NextMigrate, NextMigrateAgain, NextFinished}, Position{}.Next)
}

func TestResumeRefusesWhatDoesNotFitAndSaysWhatToDo(t *testing.T) {
	halting := func(p *Plan) { p.Versions[1].OnInterrupted = Halt }
	for _, test := range []struct {
		name             string
		plan             *Plan
		from             Checkpoint
		what, safe, next string
	}{
		{
			"beyond the plan", resumePlan(),
			Checkpoint{VersionIndex: 4},
			"the checkpoint is at version 4, but chain.json has only versions 0 to 3",
			"nothing was started",
			"start with the config that has version 4; the state cannot go back to an older version",
		},
		{
			"finished beyond the plan", resumePlan(),
			Checkpoint{VersionIndex: 7, Phase: PhaseFinished},
			"the checkpoint is at version 7, but chain.json has only versions 0 to 3",
			"nothing was started",
			"start with the config that has version 7; the state cannot go back to an older version",
		},
		{
			"an interrupted migration that was taken out", resumePlan(),
			Checkpoint{VersionIndex: 2, Phase: PhaseMigrating, Started: true},
			"the migration of version 2 was interrupted, but chain.json has none for it any more",
			"nothing was started, and the state may be half migrated",
			"put migration_path back, or, if the migration did complete, say so with 'entrypoint checkpoint set --version 2 --migrated'",
		},
		{
			"the reference's file at a version with a migration", resumePlan(),
			Checkpoint{VersionIndex: 1},
			`the checkpoint, as sov-rollup-manager writes it, does not say whether the migration of version 1 ("osaka") completed`,
			"nothing was started, and a second run could destroy the state",
			`if version 1 ("osaka") has already run, say 'entrypoint checkpoint set --version 1 --migrated'; if its migration has never been started, 'entrypoint checkpoint set --version 1'`,
		},
		{
			"a migration that was put in later", resumePlan(),
			Checkpoint{VersionIndex: 1, Phase: PhaseRunning, Started: true},
			`version 1 ("osaka") has a migration in chain.json, but it was started without one`,
			"nothing was started",
			"remove migration_path, or, if the state is migrated, say so with 'entrypoint checkpoint set --version 1 --migrated', or, to run it now, say 'entrypoint checkpoint set --version 1'",
		},
		{
			"a migration that was put in after the end", resumePlan(),
			Checkpoint{VersionIndex: 1, Phase: PhaseFinished, Started: true},
			`version 1 ("osaka") has a migration in chain.json, but it was started without one`,
			"nothing was started",
			"remove migration_path, or, if the state is migrated, say so with 'entrypoint checkpoint set --version 1 --migrated', or, to run it now, say 'entrypoint checkpoint set --version 1'",
		},
		{
			"an interrupted migration that must not be run again", resumePlan(halting),
			Checkpoint{VersionIndex: 1, Phase: PhaseMigrating, Started: true},
			`the migration of version 1 ("osaka") was begun and is not recorded as completed, and on_interrupted_migration is "halt"`,
			"nothing was started, and the state may be half migrated",
			"restore the state from before the migration and say 'entrypoint checkpoint set --version 1', or, if the migration did complete, the same with --migrated",
		},
		{
			"a finished version whose stop height was lowered", resumePlan(),
			Checkpoint{VersionIndex: 3, Phase: PhaseFinished, History: []Completed{{VersionIndex: 3, StopHeight: 401}}},
			"version 3 was complete at height 401, but its stop_height is now 400",
			"nothing was started",
			"set its stop_height to 401 or more in chain.json",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Resume(test.plan, &test.from)
			assert.Zero(t, got)
			var f *Failure
			require.ErrorAs(t, err, &f)
			assert.Equal(t, &Failure{Code: 78, What: test.what, Safe: test.safe, Next: test.next}, f)
		})
	}
}

func TestCommandsOfferedForAMigrationLeadOn(t *testing.T) {
	// What the failures above tell the operator to say must end them.
	plan := resumePlan(func(p *Plan) { p.Versions[1].OnInterrupted = Halt })
	for name, stuck := range map[string]Checkpoint{
		"of the reference":  {VersionIndex: 1, BinaryPath: "/v1"},
		"added later":       {VersionIndex: 1, BinaryPath: "/v1", Phase: PhaseRunning},
		"interrupted, halt": {VersionIndex: 1, BinaryPath: "/v1", Phase: PhaseMigrating, Started: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Resume(plan, &stuck)
			require.Error(t, err)
			for migrated, want := range map[bool]Next{false: NextMigrate, true: NextRun} {
				set, err := AdoptVersion(plan, &stuck, 1, migrated, "")
				require.NoError(t, err)
				at, err := Resume(plan, &set)
				require.NoError(t, err)
				assert.Equal(t, want, at.Next)
			}
		})
	}
}

func TestBinaryOfTheCheckpointIsComparedWithThePlan(t *testing.T) {
	sums := map[int]string{0: "sum-0", 1: "sum-1", 2: "sum-2"}
	unreadable := errors.New("cannot read the binary: permission denied")
	digest := func(i int) (string, error) {
		if sum, ok := sums[i]; ok {
			return sum, nil
		}
		return "", unreadable
	}
	const is2 = "the checkpoint is at version 2 with the binary /old, but chain.json has /v2 there"
	for _, test := range []struct {
		name             string
		c                Checkpoint
		moved            bool
		what, next       string // of the failure, if any
		cause            error
		digestsAreNeeded bool
	}{
		{name: "the same path", c: Checkpoint{VersionIndex: 1, BinaryPath: "/v1", BinarySHA256: "other"}},
		{name: "moved", c: Checkpoint{VersionIndex: 2, BinaryPath: "/old", BinarySHA256: "sum-2"}, moved: true, digestsAreNeeded: true},
		{
			name: "the path of an earlier version", c: Checkpoint{VersionIndex: 2, BinaryPath: "/v1", BinarySHA256: "sum-2"},
			what: "the checkpoint is at version 2 with the binary /v1, but chain.json has /v2 there",
			next: "that binary is now version 1: if versions were inserted or removed, put them back as they were",
		},
		{
			name: "the path of a later version", c: Checkpoint{VersionIndex: 1, BinaryPath: "/v3"},
			what: `the checkpoint is at version 1 ("osaka") with the binary /v3, but chain.json has /v1 there`,
			next: "that binary is now version 3: if versions were inserted or removed, put them back as they were",
		},
		{
			name: "another path and no digest", c: Checkpoint{VersionIndex: 2, BinaryPath: "/old"}, what: is2,
			next: "if it is the same binary in a new place, say 'entrypoint checkpoint set --version 2', with --migrated if that version's migration has completed",
		},
		{
			name: "another path and a binary that cannot be read", c: Checkpoint{VersionIndex: 3, BinaryPath: "/old", BinarySHA256: "sum-3"},
			what:  "the checkpoint is at version 3 with the binary /old, but chain.json has /v3 there",
			cause: unreadable, next: "make the binary readable, so that the two can be compared", digestsAreNeeded: true,
		},
		{
			name: "moved to another version", c: Checkpoint{VersionIndex: 2, BinaryPath: "/old", BinarySHA256: "sum-1"}, what: is2,
			next: "the same binary is now version 1: if versions were inserted or removed, put them back as they were", digestsAreNeeded: true,
		},
		{
			name: "another path and another binary", c: Checkpoint{VersionIndex: 2, BinaryPath: "/old", BinarySHA256: "sum-x"}, what: is2,
			next:             "its content differs too: put the binary with sha256 sum-x back, or adopt the new one with 'entrypoint checkpoint set --version 2'",
			digestsAreNeeded: true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			moved, err := MatchBinary(resumePlan(), test.c, func(i int) (string, error) {
				asked++
				return digest(i)
			})
			assert.Equal(t, test.moved, moved)
			assert.Equal(t, test.digestsAreNeeded, asked > 0, "a digest costs seconds and is only asked where it decides")
			if test.what == "" {
				require.NoError(t, err)
				return
			}
			var f *Failure
			require.ErrorAs(t, err, &f)
			assert.Equal(t, &Failure{Code: 78, What: test.what, Safe: "nothing was started", Next: test.next, Err: test.cause}, f)
		})
	}
}

func TestAdoptedVersionIsTakenAtTheOperatorsWord(t *testing.T) {
	history := []Completed{{VersionIndex: 0, StopHeight: 100}, {VersionIndex: 1, StopHeight: 200}, {VersionIndex: 2, StopHeight: 300}}
	old := &Checkpoint{VersionIndex: 2, BinaryPath: "/v2", Phase: PhaseFinished, Started: true, MigrationCompleted: true, BinarySHA256: "x", History: history}
	for _, test := range []struct {
		name     string
		old      *Checkpoint
		i        int
		migrated bool
		want     Checkpoint
	}{
		{"the first", nil, 0, false, Checkpoint{Started: true, BinaryPath: "/v0", BinarySHA256: "d", Phase: PhaseRunning}},
		{"one without a migration, as migrated", nil, 2, true, Checkpoint{VersionIndex: 2, BinaryPath: "/v2", BinarySHA256: "d", Phase: PhaseRunning}},
		{"one without a migration", nil, 2, false, Checkpoint{VersionIndex: 2, BinaryPath: "/v2", BinarySHA256: "d", Phase: PhaseRunning}},
		{"one whose migration is due", nil, 1, false, Checkpoint{VersionIndex: 1, BinaryPath: "/v1", BinarySHA256: "d", Phase: PhaseMigrating}},
		{"one whose migration has completed", nil, 1, true, Checkpoint{VersionIndex: 1, BinaryPath: "/v1", BinarySHA256: "d", Phase: PhaseRunning, MigrationCompleted: true}},
		{"the last", nil, 3, false, Checkpoint{VersionIndex: 3, BinaryPath: "/v3", BinarySHA256: "d", Phase: PhaseRunning}},
		{"a later one keeps the history", old, 3, false, Checkpoint{VersionIndex: 3, BinaryPath: "/v3", BinarySHA256: "d", Phase: PhaseRunning, History: history}},
		{"the same forgets its own end", old, 2, false, Checkpoint{VersionIndex: 2, BinaryPath: "/v2", BinarySHA256: "d", Phase: PhaseRunning, History: history[:2]}},
		{"an earlier one forgets what came after", old, 1, false, Checkpoint{VersionIndex: 1, BinaryPath: "/v1", BinarySHA256: "d", Phase: PhaseMigrating}}, // and the proof before a migration: the state may have been restored
		{"an earlier one whose migration has completed", old, 1, true, Checkpoint{VersionIndex: 1, BinaryPath: "/v1", BinarySHA256: "d", Phase: PhaseRunning, MigrationCompleted: true, History: history[:1]}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := AdoptVersion(resumePlan(), test.old, test.i, test.migrated, "d")
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
			text, err := EncodeCheckpoint(got)
			require.NoError(t, err)
			_, err = ParseCheckpoint(text)
			require.NoError(t, err, "what was adopted is a good checkpoint")
		})
	}
}

func TestVersionThatThePlanDoesNotHaveIsNotAdopted(t *testing.T) {
	for _, i := range []int{-1, 4, 1 << 40} {
		c, err := AdoptVersion(resumePlan(), nil, i, false, "")
		assert.Zero(t, c)
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, 78, f.Code)
		assert.True(t, strings.HasSuffix(f.What, ": chain.json has versions 0 to 3"), f.What)
		assert.Equal(t, "the checkpoint is unchanged", f.Safe)
		assert.Equal(t, "name one of these", f.Next)
	}
}
