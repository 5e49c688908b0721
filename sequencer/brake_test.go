package sequencer

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// stoppedPlan is v0 to 10, by an emergency stop, and the versions that the plan has after it.
func stoppedPlan() *Plan { return threeVersions().StoppedAt(10) }

const (
	v0To10    = "/v0 --rollup-config-path c0 --stop-at-rollup-height 10"
	askV0To10 = "/v0 --rollup-config-path c0 --start-at-rollup-height {N} --stop-at-rollup-height 10"
)

func TestNothingFollowsTheEmergencyStop(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0To10, reaches(1, 10)}, act{askV0To10, answers(10)}).withPlan(stoppedPlan())
		w.files.problems = map[int]Problems{1: {"rollup_binary: no such file"}} // it is not needed
		require.NoError(t, w.run())
		assert.Equal(t, checkpoint.PhaseFinished, w.store.checkpoint.Phase)
		assert.Contains(t, w.log.String(), "stopped at --stop-height 10: nothing follows until")

		again := w.again(act{askV0To10, answers(10)})
		again.options.WaitWhenFinished = true
		go func() {
			time.Sleep(time.Hour)
			again.signals <- syscall.SIGTERM
		}()
		require.NoError(t, again.run())
		assert.Equal(t, 1, again.count("waiting for a stop signal"))
		assert.Empty(t, again.store.wrote())
	})
}

// The late image has the version after the stop: the flag is left as it is.
func TestSequenceContinuesFromTheEmergencyStopWithThePlanThatEndsThere(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0To10, reaches(10)}, act{askV0To10, answers(10)}).withPlan(stoppedPlan())
		require.NoError(t, w.run())
		late := threeVersions()
		late.Versions[0].Stop, late.Versions[1].Start, late.Versions[1].Migration = 10, 11, ""
		again := w.again(act{askV0To10, answers(10)}, act{"/v1 --rollup-config-path c1 --start-at-rollup-height 11 --stop-at-rollup-height 40", stoppedAt(11)}).withPlan(late.StoppedAt(10))
		require.NoError(t, again.run())
		assert.Equal(t, 1, again.store.stamp.VersionIndex)
		assert.Equal(t, uint64(10), again.store.checkpoint.History[0].StopHeight)
	})
}

func TestVersionContinuesWithoutTheEmergencyStop(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0To10, reaches(10)}, act{askV0To10, answers(10)}).withPlan(stoppedPlan())
		require.NoError(t, w.run())
		again := w.again(act{askV0, answers(10)}, act{v0, stoppedAt(12)}).withPlan(threeVersions())
		require.NoError(t, again.run())
		assert.Equal(t, uint64(20), again.store.stamp.StopHeight)
		assert.Equal(t, checkpoint.PhaseRunning, again.store.checkpoint.Phase)
		assert.Zero(t, again.store.checkpoint.History[0].CompletedAt, "it is not complete any more")
	})
}

func TestStateAboveTheEmergencyStopIsRefused(t *testing.T) {
	const wayOut = "remove --stop-height, or set it to "
	t.Run("of its version", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			f := worldAt(t, stamped(0), act{askV0To10, answers(15)}).withPlan(stoppedPlan()).failsBecause(TooLate)
			assert.Contains(t, f.Error(), "the state of version 0 is at height 15, above --stop-height 10; nothing else was started; "+wayOut+"15 or more")
		})
	})
	t.Run("that it was given", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			stamp := stamped(0)
			stamp.StopHeight = 10
			f := worldAt(t, stamp, act{askV0To10, answers(12)}).withPlan(stoppedPlan()).failsBecause(Overrun)
			assert.Contains(t, f.Error(), "version 0 was started with the stop height 10 and ran past it: its state is at height 12, above --stop-height 10; nothing else was started; "+wayOut+"12 or more")
		})
	})
	for name, change := range map[string]func(w *world){
		"of a later version":         func(*world) {},
		"of a version being entered": func(w *world) { w.store.stamp.Migration = begun },
		"of a finished version":      func(w *world) { w.store.checkpoint.Phase = checkpoint.PhaseFinished },
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1)).withPlan(stoppedPlan())
				change(w)
				f := w.failsBecause(TooLate)
				assert.Contains(t, f.Error(), "the state belongs to version 1, which starts at height 21, above --stop-height 10; nothing else was started; "+wayOut+"21 or more, and not below the height of the state: ")
				assert.Zero(t, w.store.stamps)
				assert.Zero(t, w.store.checkpoints)
			})
		})
	}
	t.Run("of an earlier version that came too late", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			stamp := stamped(0)
			stamp.StopHeight = 0
			f := worldAt(t, stamp, act{askV0, answers(35)}).withPlan(threeVersions().StoppedAt(30)).failsBecause(TooLate)
			assert.Contains(t, f.Error(), "too late: ")
		})
	})
}

// The emergency stop must not make the plan of several versions one of a single version, whose state needs no record.
func TestStateThatNobodyStampedIsNotTakenForThatOfTheStoppedVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0)).withPlan(stoppedPlan())
		w.store.stamp, w.store.checkpoint = nil, nil
		w.failsBecause(OwnerUnknown, Remedy{Version: 0}, Remedy{Version: 1, Migrated: true}, Remedy{Version: 2})
	})
}

func TestNodeThatCannotBeAskedIsCompleteAtTheEmergencyStopByAWord(t *testing.T) {
	lives(t, func(t *testing.T) {
		plan := threeVersions()
		plan.Versions[0].NeverAsk = true
		plan = plan.StoppedAt(10)
		w := newWorld(t, act{v0To10, reaches(10)}).withPlan(plan)
		f := w.failsBecause(NotAnswered, Remedy{Version: 0, Complete: true})
		assert.Contains(t, f.Error(), "--version 0 --complete --stop-height 10'")

		adopted, err := Adopt(plan, checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent, Checkpoint: w.store.checkpoint, Stamp: w.store.stamp}, Word{Complete: true}, "sha of /v0")
		require.NoError(t, err)
		w.store.stamp, w.store.checkpoint = &adopted.Stamp, &adopted.Checkpoint
		require.NoError(t, w.again().run(), "it is complete")

		unstopped := threeVersions()
		unstopped.Versions[0].NeverAsk = true
		again := w.again(act{v0, stoppedAt(12)}).withPlan(unstopped)
		require.NoError(t, again.run(), "the word was for another stop height")
		assert.False(t, again.store.stamp.Complete)
	})
}

// It would be complete at the stop height of the plan, which nobody has said.
func TestWordThatAVersionAboveTheEmergencyStopIsCompleteIsRefused(t *testing.T) {
	plan := threeVersions().StoppedAt(10)
	plan.Versions[1].Migration = ""
	found := checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent}
	_, err := Adopt(plan, found, Word{Version: 1, Complete: true}, "")
	assert.EqualError(t, err, "version 1 starts at height 21, above --stop-height 10, so it cannot be complete there; nothing was changed; name version 0, which makes that height, or omit --stop-height")
	_, err = Adopt(plan, found, Word{Version: 1}, "")
	assert.NoError(t, err)
}

func TestHoldBeforeTheNextVersionMeansNothingAtTheEmergencyStop(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0To10, reaches(10)}, act{askV0To10, answers(10)}).withPlan(stoppedPlan())
		require.NoError(t, w.run())
		again := w.again(act{askV0To10, answers(10)})
		again.withHold("v1", func(*memoryHold) { assert.Fail(t, "nothing is held: nothing follows") })
		require.NoError(t, again.run())
	})
}

func TestEmergencyStopBelowARunningRollupIsFound(t *testing.T) {
	plan := threeVersions().StoppedAt(30)
	for _, test := range []struct {
		name          string
		start, height uint64
		want          string // empty for no finding
	}{
		{"v0", 0, 20, ""},
		{"v0", 0, 21, "too late: the running rollup is at height 21, above its stop height 20"},
		{"v1", 21, 30, ""},
		{"v1", 21, 31, "the running rollup is at height 31, above --stop-height 30"},
		{"v2", 41, 0, "the running rollup is at height 41, above --stop-height 30"},
	} {
		found := CheckTooLate(plan, test.name, test.start, test.height)
		if test.want == "" {
			assert.Empty(t, found, "%+v", test)
			continue
		}
		require.Len(t, found, 1, "%+v", test)
		assert.Contains(t, found[0].What, test.want)
		assert.Equal(t, SeverityError, found[0].Severity)
		assert.NotEmpty(t, found[0].Next)
	}
	late := CheckTooLate(threeVersions(), "v0", 0, 21)
	require.Len(t, late, 1)
	assert.Contains(t, late[0].Next, "--stop-height")
}
