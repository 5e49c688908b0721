package sequencer

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// stateWith is a state with a record.
func stateWith(c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) checkpoint.Found {
	return checkpoint.Found{Checkpoint: c, Stamp: stamp, Storage: "/data/state", State: checkpoint.StatePresent}
}

func TestWordOfAPersonGivesBothFiles(t *testing.T) {
	plan := threeVersions()
	got, err := Adopt(plan, stateWith(nil, nil), Word{Version: 1, Migrated: true}, "sha")
	require.NoError(t, err)
	assert.Equal(t, []any{1, "v1", uint64(21), uint64(0), "sha", completed, false}, []any{
		got.Stamp.VersionIndex, got.Stamp.Name, got.Stamp.StartHeight, got.Stamp.StopHeight, got.Stamp.BinarySHA256, got.Stamp.Migration, got.Stamp.Complete,
	}, "what its node was last started with is not known")
	assert.False(t, got.Stamp.UpdatedAt.IsZero())
	assert.Equal(t, []any{1, "/v1", true, true, checkpoint.PhaseRunning}, []any{
		got.Checkpoint.VersionIndex, got.Checkpoint.BinaryPath, got.Checkpoint.MigrationCompleted, got.Checkpoint.Stamped, got.Checkpoint.Phase,
	})
	assert.Nil(t, got.Checkpoint.Stamp)
	assert.Len(t, got.Changes, 1, "there was no stamp; of a checkpoint all is new")
}

func TestWordKeepsWhatIsKnownOfEarlierVersions(t *testing.T) {
	c := following(stamped(2))
	c.Height, c.Answers = new(uint64(55)), []string{"sha of /v0"}
	c.History = []checkpoint.Entry{{VersionIndex: 0, StopHeight: 20}, {VersionIndex: 1, Migration: &checkpoint.MigrationRecord{Runs: 2}}, {VersionIndex: 2}}
	before := c.Clone()
	got, err := Adopt(threeVersions(), stateWith(c, stamped(2)), Word{Version: 1, Migrated: true, Force: true}, "")
	require.NoError(t, err)
	assert.Equal(t, before, *c, "what was found is not changed")
	assert.Equal(t, []checkpoint.Entry{{VersionIndex: 0, StopHeight: 20}}, got.Checkpoint.History)
	assert.Equal(t, c.Answers, got.Checkpoint.Answers)
	assert.Nil(t, got.Checkpoint.Height)
	assert.Equal(t, []string{
		"stamp: version: was version 2, is version 1", "stamp: migration: was none, is completed",
		"checkpoint: version: was 2, is 1", "checkpoint: migration completed: was false, is true",
	}, got.Changes)
}

func TestWordThatAgreesWithTheStampKeepsItsStopHeight(t *testing.T) {
	s := changed(stamped(1), func(s *checkpoint.Stamp) { s.StopHeight = 33 })
	got, err := Adopt(threeVersions(), stateWith(following(s), s), Word{Version: 1, Migrated: true}, "")
	require.NoError(t, err)
	assert.EqualValues(t, 33, got.Stamp.StopHeight, "a plan that comes too late is still found out")
	assert.Empty(t, got.Changes)
}

func TestWordThatAVersionIsCompleteIsGivenForItsStopHeight(t *testing.T) {
	got, err := Adopt(threeVersions(), stateWith(following(stamped(1)), stamped(1)), Word{Version: 1, Migrated: true, Complete: true}, "")
	require.NoError(t, err)
	assert.True(t, got.Stamp.Complete)
	assert.EqualValues(t, 40, got.Stamp.StopHeight)
	assert.Equal(t, []string{"stamp: complete: was false, is true"}, got.Changes)
	assert.Equal(t, Step{Action: EnterVersion, Version: 2}, Next(threeVersions(), got.Stamp, Durable{Knowledge: CannotBeAsked}, false))
	assert.Equal(t, Step{Action: RunVersion, Version: 1}, Next(threeVersions(), got.Stamp, Durable{Asked, 30}, false), "a node that can be asked knows better")
}

func TestWordIsInTheCheckpointWhereNoConfigSaysWhereTheStateIs(t *testing.T) {
	got, err := Adopt(threeVersions(), checkpoint.Found{}, Word{Version: 2}, "sha")
	require.NoError(t, err)
	assert.False(t, got.Checkpoint.Stamped)
	require.NotNil(t, got.Checkpoint.Stamp)
	assert.Equal(t, got.Stamp, *got.Checkpoint.Stamp)

	found := checkpoint.Found{Checkpoint: &got.Checkpoint}
	_, err = Adopt(threeVersions(), found, Word{Version: 0}, "")
	checkFailure(t, threeVersions(), err)
	_, err = Adopt(threeVersions(), found, Word{Version: 0, Force: true}, "")
	require.NoError(t, err, "the stamp in the checkpoint is one, too")
}

func TestWordThatCannotBeTrueIsRefused(t *testing.T) {
	gone := checkpoint.Found{Storage: "/data/state", State: checkpoint.StateNone}
	for _, test := range []struct {
		name  string
		found checkpoint.Found
		word  Word
	}{
		{"no such version", stateWith(nil, nil), Word{Version: 3}},
		{"a negative version", stateWith(nil, nil), Word{Version: -1}},
		{"no such version, with force", stateWith(nil, nil), Word{Version: 3, Force: true}},
		{"migrated without a migration", stateWith(nil, nil), Word{Version: 2, Migrated: true, Force: true}},
		{"not migrated", stateWith(nil, nil), Word{Version: 1, Force: true}},
		{"complete without a stop height", stateWith(nil, nil), Word{Version: 2, Complete: true, Force: true}},
		{"a later version without a state", gone, Word{Version: 2, Force: true}},
		{"complete without a state", gone, Word{Version: 0, Complete: true, Force: true}},
		{"another version than the stamp's", stateWith(nil, stamped(1)), Word{Version: 2}},
		{"its migration completed, where the stamp says begun", stateWith(nil, stamped(1, begun)), Word{Version: 1, Migrated: true}},
		{"a version that the plan does not have any more", stateWith(nil, changed(stamped(1), func(s *checkpoint.Stamp) { s.Name = "old" })), Word{Version: 1, Migrated: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Adopt(threeVersions(), test.found, test.word, "")
			checkFailure(t, threeVersions(), err)
			_, forced := Adopt(threeVersions(), test.found, Word{test.word.Version, test.word.Migrated, test.word.Complete, true}, "")
			assert.Equal(t, test.word.Force || test.word.Version == 3 || test.word.Version < 0, forced != nil, "force counts against a stamp, and nothing else")
		})
	}
}

// Where a word was taken, a run continues with the version that it names.
func TestRunFollowsTheWord(t *testing.T) {
	plan := threeVersions()
	for _, word := range []Word{{Version: 0}, {Version: 1, Migrated: true}, {Version: 2}} {
		t.Run(fmt.Sprint(word.Version), func(t *testing.T) {
			got, err := Adopt(plan, stateWith(older(2, checkpoint.PhaseRunning, false), nil), word, "")
			require.NoError(t, err)
			at, err := reconcile(plan, stateWith(&got.Checkpoint, &got.Stamp), digestsOf(plan))
			require.NoError(t, err)
			assert.Equal(t, got.Stamp, at.record.stamp)
			assert.Empty(t, at.notes)
			assert.Equal(t, Step{Action: AskVersion, Version: word.Version}, Next(plan, at.record.stamp, Durable{}, false))
		})
	}
	t.Run("on no state", func(t *testing.T) {
		none := checkpoint.Found{Storage: "/data/state", State: checkpoint.StateNone, Checkpoint: following(stamped(2))}
		got, err := Adopt(plan, none, Word{Version: 0, Force: true}, "")
		require.NoError(t, err)
		none.Checkpoint, none.Stamp = &got.Checkpoint, &got.Stamp
		at, err := reconcile(plan, none, digestsOf(plan))
		require.NoError(t, err, "the command that is offered where the state is gone can be followed")
		assert.Equal(t, Step{Action: RunVersion}, Next(plan, at.record.stamp, Durable{Knowledge: NoState}, false))
	})
}

func TestOutlookSaysWhatCountsAndWhatFollows(t *testing.T) {
	plan := threeVersions()
	for name, test := range map[string]struct {
		found   checkpoint.Found
		differs string
		action  Action
		refused string
	}{
		"alike":              {stateWith(following(stamped(1)), stamped(1)), "", AskVersion, ""},
		"no checkpoint":      {stateWith(nil, stamped(1)), "", AskVersion, ""},
		"a step behind":      {stateWith(following(stamped(0)), stamped(1)), "it now follows the stamp", AskVersion, ""},
		"restored":           {stateWith(following(stamped(2)), stamped(0)), "the stamp takes precedence", AskVersion, ""},
		"begun":              {stateWith(nil, changed(stamped(1), func(s *checkpoint.Stamp) { s.Migration = checkpoint.MigrationBegun })), "", MigrateAgain, ""},
		"nothing yet":        {checkpoint.Found{Storage: "/data/state", State: checkpoint.StateNone}, "", RunVersion, ""},
		"state gone":         {checkpoint.Found{Checkpoint: following(stamped(1)), Storage: "/data/state", State: checkpoint.StateNone}, "", Refuse, "there is no state in /data/state"},
		"nobody's":           {stateWith(nil, nil), "", Refuse, "-c manager.json -f c.json --version 0"},
		"no migration of it": {stateWith(nil, changed(stamped(1), func(s *checkpoint.Stamp) { s.Migration = "" })), "", Refuse, "-c manager.json -f c.json --version"},
	} {
		plan.File = "manager.json"
		o := LookAhead(plan, "c.json", test.found, digestsOf(plan))
		assert.Equal(t, test.action, o.Step.Action, name)
		if test.differs == "" {
			assert.Empty(t, o.Differences, name)
		} else {
			require.Len(t, o.Differences, 1, name)
			assert.Contains(t, o.Differences[0], test.differs, name)
		}
		if test.refused == "" {
			assert.NoError(t, o.Refusal, name)
		} else {
			assert.ErrorContains(t, o.Refusal, test.refused, name)
		}
	}
}

func TestWordThatTheStateIsOfARetiredVersionIsRefused(t *testing.T) {
	plan := threeVersions()
	plan.Versions[0] = Version{Name: "v0", Stop: 20, Retired: true}
	_, err := Adopt(plan, checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent}, Word{Version: 0, Force: true}, "")
	require.ErrorContains(t, err, "version 0 is retired")
}
