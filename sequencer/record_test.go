package sequencer

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// recordOf is the record of a sequence at a stamp.
func recordOf(s *checkpoint.Stamp) record {
	return record{stamp: *s}.followed(threeVersions())
}

// wellFormed checks what holds after each transition: the checkpoint has followed the stamp, and both can be written.
func wellFormed(t *testing.T, r record) record {
	t.Helper()
	c, v := r.checkpoint, threeVersions().Versions[r.stamp.VersionIndex]
	assert.Equal(t, []any{v.Name, v.Start}, []any{r.stamp.Name, r.stamp.StartHeight})
	assert.Equal(t, r.stamp.VersionIndex, c.VersionIndex)
	assert.Equal(t, []string{v.Binary, r.stamp.BinarySHA256}, []string{c.BinaryPath, c.BinarySHA256})
	assert.Equal(t, r.stamp.Migration == completed, c.MigrationCompleted)
	assert.Equal(t, r.stamp.Migration == begun, c.Phase == checkpoint.PhaseMigrating)
	assert.Nil(t, c.Started)
	seen := map[int]bool{}
	for _, entry := range c.History {
		assert.False(t, seen[entry.VersionIndex], "version %d is in the history twice", entry.VersionIndex)
		seen[entry.VersionIndex] = true
	}
	_, err := checkpoint.EncodeStamp(r.stamp)
	require.NoError(t, err)
	_, err = checkpoint.Encode(c)
	require.NoError(t, err)
	return r
}

// unchanged wants that a transition has left the record alone that it was made from.
func unchanged(t *testing.T, r record, transition func(r record) record) record {
	t.Helper()
	stamp, c := r.stamp, r.checkpoint.Clone()
	after := wellFormed(t, transition(r))
	assert.Equal(t, stamp, r.stamp)
	assert.Equal(t, c, r.checkpoint)
	return after
}

func TestEachTransitionGivesItsStampAndItsCheckpoint(t *testing.T) {
	plan := threeVersions()
	synctest.Test(t, func(t *testing.T) {
		atV0 := record{stamp: stampOf(plan, 0, "")}.followed(plan)
		assert.Equal(t, checkpoint.Stamp{Name: "v0", StopHeight: 20}, atV0.stamp)
		assert.Equal(t, checkpoint.PhaseRunning, atV0.checkpoint.Phase)

		started := unchanged(t, atV0, func(r record) record { return r.running(plan, 20, "sha") })
		assert.Equal(t, checkpoint.Stamp{Name: "v0", StopHeight: 20, BinarySHA256: "sha"}, started.stamp)

		confirmed := unchanged(t, started, func(r record) record { return r.confirmed(plan, 20, "sha") })
		assert.Equal(t, started.stamp, confirmed.stamp, "an answer is no change of the state")
		assert.Equal(t, new(uint64(20)), confirmed.checkpoint.Height)
		assert.Equal(t, []string{"sha"}, confirmed.checkpoint.Answers)

		done := unchanged(t, confirmed, func(r record) record { return r.completed(plan, checkpoint.ProofDurable) })
		assert.Equal(t, []checkpoint.Entry{{Name: "v0", BinaryPath: "/v0", BinarySHA256: "sha", StopHeight: 20, Proof: checkpoint.ProofDurable, CompletedAt: recordTime()}}, done.checkpoint.History)
		assert.Equal(t, checkpoint.PhaseRunning, done.checkpoint.Phase, "version 0 is not the last one")

		migrating := unchanged(t, done, func(r record) record { return r.migrationBegun(plan, 1, "sha1", "") })
		assert.Equal(t, checkpoint.Stamp{VersionIndex: 1, Name: "v1", StartHeight: 21, StopHeight: 40, BinarySHA256: "sha1", Migration: begun}, migrating.stamp)
		assert.Nil(t, migrating.checkpoint.Height, "it was that of version 0")
		assert.Equal(t, checkpoint.PhaseMigrating, migrating.checkpoint.Phase)
		beganAt := recordTime()
		assert.Equal(t, &checkpoint.MigrationRecord{BegunAt: beganAt, Runs: 1}, migrating.checkpoint.History[1].Migration)

		time.Sleep(time.Minute)
		again := unchanged(t, migrating, func(r record) record { return r.migrationRuns(plan, 1) })
		assert.Equal(t, migrating.stamp, again.stamp)
		assert.Equal(t, &checkpoint.MigrationRecord{BegunAt: beganAt, Runs: 2}, again.checkpoint.History[1].Migration)

		migrated := unchanged(t, again, func(r record) record { return r.migrationDone(plan) })
		assert.Equal(t, completed, migrated.stamp.Migration)
		assert.Equal(t, &checkpoint.MigrationRecord{BegunAt: beganAt, CompletedAt: recordTime(), Runs: 2}, migrated.checkpoint.History[1].Migration)
		assert.Len(t, migrated.checkpoint.History, 2)

		entered := unchanged(t, migrated.completed(plan, checkpoint.ProofWord), func(r record) record { return r.entered(plan, 2, "sha2", "") })
		assert.Equal(t, checkpoint.Stamp{VersionIndex: 2, Name: "v2", StartHeight: 41, BinarySHA256: "sha2"}, entered.stamp)
		assert.Len(t, entered.checkpoint.History, 2, "version 1 is in it once, with its migration and its completion")
		assert.Equal(t, checkpoint.ProofWord, entered.checkpoint.History[1].Proof)
		assert.Equal(t, 2, entered.checkpoint.History[1].Migration.Runs)
	})
}

func TestStartForgetsEveryWordThatTheVersionIsComplete(t *testing.T) {
	plan := twoVersions()
	r := record{stamp: stampOf(plan, 1, "sha")}.followed(plan)
	r.stamp.Hook = true
	word := r.completeByWord(plan)
	assert.True(t, word.stamp.Complete)
	assert.EqualValues(t, 40, word.stamp.StopHeight, "the word is given for this stop height")
	finished := word.completed(plan, checkpoint.ProofWord)
	assert.Equal(t, checkpoint.PhaseFinished, finished.checkpoint.Phase)

	plan.Versions[1].Stop = 60
	longer := finished.followed(plan)
	assert.Equal(t, checkpoint.PhaseRunning, longer.checkpoint.Phase, "a plan that has grown is not finished")
	running := longer.running(plan, 60, "other")
	assert.Equal(t, checkpoint.Stamp{VersionIndex: 1, Name: "v1", StartHeight: 21, StopHeight: 60, BinarySHA256: "other"}, running.stamp)
	assert.Zero(t, running.checkpoint.History[0].CompletedAt)
	assert.Empty(t, running.checkpoint.History[0].Proof)
	assert.False(t, finished.checkpoint.History[0].CompletedAt.IsZero(), "the former record is left alone")
}

func TestWordIsGivenForTheStopHeightOfThePlan(t *testing.T) {
	plan := twoVersions()
	r := record{stamp: stampOf(plan, 0, "")}.followed(plan)
	r.stamp.StopHeight = 0
	assert.EqualValues(t, 20, r.completeByWord(plan).stamp.StopHeight)
}

func TestCompletionIsRecordedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := twoVersions()
		first := record{stamp: stampOf(plan, 1, "sha")}.followed(plan).completed(plan, checkpoint.ProofDurable)
		at := recordTime()
		time.Sleep(time.Hour)
		again := first.completed(plan, checkpoint.ProofWord)
		assert.Equal(t, first, again, "each start of a finished sequence confirms it, and the record keeps when it was first")
		assert.Equal(t, at, again.checkpoint.History[0].CompletedAt)

		plan.Versions[1].Stop = 60
		longer := again.completed(plan, checkpoint.ProofWord)
		assert.Equal(t, recordTime(), longer.checkpoint.History[0].CompletedAt)
		assert.EqualValues(t, 60, longer.checkpoint.History[0].StopHeight)
	})
}

func TestBinaryThatAnswersIsRememberedOnce(t *testing.T) {
	plan := threeVersions()
	r := record{stamp: stampOf(plan, 0, "")}
	for _, digest := range []string{"a", "b", "a", ""} {
		r = unchanged(t, r.followed(plan), func(r record) record { return r.confirmed(plan, 3, digest) })
	}
	assert.Equal(t, []string{"a", "b"}, r.checkpoint.Answers)
}

func TestHistoryIsForgottenFromAVersionOn(t *testing.T) {
	plan := threeVersions()
	r := recordOf(stamped(2))
	for i := range 3 {
		r = r.with(checkpoint.Entry{VersionIndex: i})
	}
	for from, want := range []int{0, 1, 2, 3} {
		after := unchanged(t, r, func(r record) record { return r.forgotten(from) })
		assert.Len(t, after.checkpoint.History, want)
	}
	assert.Len(t, r.followed(plan).checkpoint.History, 3)
}

// A stamp that was written under another plan has another place in this one.
func TestFollowingTakesThePlaceOfThisPlan(t *testing.T) {
	s := stamped(2)
	s.VersionIndex = 7
	r := record{stamp: *s}.followed(threeVersions())
	assert.Equal(t, 2, r.stamp.VersionIndex)
	assert.Equal(t, 2, r.checkpoint.VersionIndex)
}

func TestMigrationOfWhichNoBeginningIsKnownIsCounted(t *testing.T) {
	r := unchanged(t, recordOf(stamped(1, begun)), func(r record) record { return r.migrationDone(threeVersions()) })
	assert.Equal(t, 1, r.checkpoint.History[0].Migration.Runs)
	assert.Zero(t, r.checkpoint.History[0].Migration.BegunAt)
}
