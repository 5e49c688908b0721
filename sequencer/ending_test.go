package sequencer

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// A supervisor that signals a whole control group kills a node that starts up before we have seen the signal ourselves.
func TestStopThatComesWithTheDeathOfTheNodeIsNoFailure(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, func(p *fakeProcess) {
			p.w.late <- syscall.SIGTERM
			p.ends(Exit{Signal: syscall.SIGTERM})
		}})
		require.NoError(t, w.run())
	})
}

func TestNodeThatExitsWithACodeWhileItIsStoppedHasFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, func(p *fakeProcess) {
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.exits(101)
		}})
		w.fails(101)
	})
}

func TestNodeThatContradictsItselfHasGivenNoAnswer(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
			p.says(p.refusal(30))
			p.says(p.refusal(31))
			p.exits(2)
		}})
		assert.Empty(t, w.fails(2).Cause)
		assert.Zero(t, w.count("node cannot be asked"), "it was heard, so it is not run without a start height")
	})
}

func TestNodeThatRanPastItsStopHeightIsNotCompleteByTheHeightSlack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := neverAsked(t, stamped(1), act{v1Later, func(p *fakeProcess) {
			p.at(41)
			p.gets(syscall.SIGTERM)
			p.exits(0)
		}})
		w.options.Slack = new(uint64(5))
		w.failsBecause(NotAnswered, Remedy{Version: 1, Migrated: true, Complete: true})
		assert.Equal(t, 1, w.store.stamp.VersionIndex)
		assert.False(t, w.store.stamp.Complete)
	})
}

// What a checkpoint itself says is less than the stamp that is kept in it.
func TestStampKeptInACheckpointCountsWithAllThatItSays(t *testing.T) {
	kept := changed(stamped(1), func(s *checkpoint.Stamp) { s.Complete = true })
	c := following(kept)
	c.Stamped, c.Stamp, c.BinaryPath = false, kept, "/moved"
	plan := threeVersions()
	got, err := reconcile(plan, checkpoint.Found{Checkpoint: c, Storage: "/data/state", State: checkpoint.StatePresent}, digestsOf(plan))
	require.NoError(t, err)
	assert.Equal(t, *kept, got.record.stamp)
}

// An image in which one binary was copied over that of another version has no trace of the one that ran last.
func TestBinaryThatIsThatOfAnotherVersionTooIsNotStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.files.digest = func(binary string) (string, error) {
			return map[string]string{"/v0": "sha of /v0", "/v1": "sha of /v2", "/v2": "sha of /v2"}[binary], nil
		}
		w.failsBecause(BinaryMisplaced, Remedy{Version: 1, Migrated: true})
		assert.Empty(t, w.store.wrote())
	})
}

func TestPatchReleaseOfABinaryThatTwoVersionsShareIsRun(t *testing.T) {
	lives(t, func(t *testing.T) {
		plan := twoVersions()
		plan.Versions[1].Binary = "/v0"
		w := worldAt(t, stamped(0), act{askV0, answers(7)}, act{v0, stoppedAt(8)}).withPlan(plan)
		w.files.digest = func(string) (string, error) { return "sha of a patch release", nil }
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("binary changed"))
	})
}

func TestNodeThatIsKilledWhenItIsAskedHasOnlyFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
			p.says("start height " + p.nonce + " is not ours")
			p.ends(Exit{Signal: syscall.SIGKILL})
		}})
		assert.Empty(t, w.fails(137).Cause)
		assert.Zero(t, w.count("node cannot be asked"))
	})
}

// The next version's node cannot be asked, and what the one before reported is near its stop height by the height
// slack.
func TestLastHeightOfAVersionSaysNothingOfTheNext(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(
			t, stamped(0),
			act{askV0, answers(7)}, act{v0, reaches(20)}, act{askV0, answers(20)},
			act{m1, exits(0)}, act{v1Later, stoppedAt(30)},
		)
		w.plan.Versions[1].NeverAsk, w.options.Slack = true, new(uint64(25))
		require.NoError(t, w.run())
		assert.False(t, w.store.stamp.Complete)
	})
}

// A new chain and an interrupted migration are not asked about first.
func TestProgramThatIsStartedUnaskedLooksWhereItsConfigLeads(t *testing.T) {
	for name, w := range map[string]func(t *testing.T) *world{
		"a new chain":              func(t *testing.T) *world { t.Helper(); return newWorld(t) },
		"an interrupted migration": func(t *testing.T) *world { t.Helper(); return worldAt(t, stamped(1, begun)) },
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := w(t)
				w.files.storage = func(string) (string, error) { return "/data/other", nil }
				w.failsBecause(OtherState)
			})
		})
	}
}

func TestWhatAMigrationThatMovedTheStateLeftBehindIsEnded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, func(p *fakeProcess) {
			p.w.files.storage = func(string) (string, error) { return "/data/new", nil }
			p.exits(0)
		}})
		assert.Equal(t, OtherState, w.fails(CodeMismatch).Cause)
		assert.Equal(t, []bool{true, false}, w.sweeps, "what the question has left is asked to end, what the migration has left is not")
	})
}

func TestWordForANewChainForgetsTheHeightOfTheOldOne(t *testing.T) {
	old := following(stamped(0))
	old.Height = new(uint64(7))
	got, err := Adopt(threeVersions(), checkpoint.Found{Checkpoint: old, Stamp: stamped(0), Storage: "/data/state", State: checkpoint.StateNone}, Word{Force: true}, "")
	require.NoError(t, err)
	assert.Nil(t, got.Checkpoint.Height)
	next := checkpoint.Found{Checkpoint: &got.Checkpoint, Stamp: &got.Stamp, Storage: "/data/state", State: checkpoint.StateNone}
	_, err = reconcile(threeVersions(), next, digestsOf(threeVersions()))
	require.NoError(t, err, "a state that had no height cannot be gone")
}

func TestStampByAnOlderCheckpointHasWhatIsKnown(t *testing.T) {
	plan := threeVersions()
	plan.Versions[2].Stop = 60
	got, err := reconcile(plan, checkpoint.Found{Checkpoint: older(2, checkpoint.PhaseRunning, true), Storage: "/data/state", State: checkpoint.StatePresent}, digestsOf(plan))
	require.NoError(t, err)
	assert.Equal(t, "sha of /v2", got.record.stamp.BinarySHA256)
	assert.Zero(t, got.record.stamp.StopHeight, "what its node was started with is not known")
}
