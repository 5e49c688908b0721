package sequencer

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// A config that is updated while a run lasts, or a symbolic link, may lead to another state. Its stamp was never looked
// at.
func TestProgramWhoseConfigLeadsToAnotherStateIsNotStarted(t *testing.T) {
	leads := func(w *world, config string) {
		w.files.storage = func(name string) (string, error) {
			if name == config {
				return "/data/other", nil
			}
			return "/data/state", nil
		}
	}
	t.Run("at the start", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1))
			leads(w, "c1")
			w.failsBecause(OtherState)
		})
	})
	t.Run("when the node would be asked", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, answers(25)}, act{v1Later, func(p *fakeProcess) {
				leads(p.w, "c1")
				p.exits(0)
			}})
			w.failsBecause(OtherState)
			assert.True(t, sameButTime(*stamped(1), *w.store.stamp))
		})
	})
	t.Run("before a migration", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(0), act{askV0, answers(20)})
			leads(w, "c1")
			w.failsBecause(OtherState)
			assert.True(t, sameButTime(*stamped(0), *w.store.stamp), "nothing was begun")
		})
	})
	t.Run("before the next version", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, answers(40)})
			leads(w, "c2")
			w.failsBecause(OtherState)
			assert.True(t, sameButTime(*stamped(1), *w.store.stamp))
		})
	})
}

// A migration may build a new directory and have a name lead to it. The old one must not be stamped as migrated.
func TestMigrationThatMovesTheStateIsNotRecordedInTheOldOne(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, func(p *fakeProcess) {
			p.w.files.storage = func(string) (string, error) { return "/data/new", nil }
			p.exits(0)
		}})
		f := w.failsBecause(OtherState, Remedy{Version: 1, Migrated: true, Force: true})
		assert.Contains(t, f.Safe, "is not recorded")
		assert.Equal(t, begun, w.store.stamp.Migration)
		assert.NotContains(t, w.store.wrote(), "sync")
	})
}

// A state may be put in place while nothing runs on the one before. Its own stamp says what it is.
func TestStampOfAnotherStateIsNotReplaced(t *testing.T) {
	other := *stamped(1)
	other.StopHeight = 7
	t.Run("put there during a migration", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := migrates(t, act{m1, func(p *fakeProcess) {
				p.w.store.stamp = &other
				p.exits(0)
			}})
			f := w.failsBecause(OtherState, Remedy{Version: 1, Migrated: true, Force: true})
			assert.Contains(t, f.What, "is not the one that this run wrote")
			assert.Equal(t, &other, w.store.stamp)
		})
	})
	t.Run("put there while the next version is inspected", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, answers(40)})
			w.files.storage = func(config string) (string, error) {
				if config == "c2" {
					w.store.stamp = &other
				}
				return "/data/state", nil
			}
			w.failsBecause(OtherState)
			assert.Equal(t, &other, w.store.stamp)
		})
	})
}

// A node that only failed when it was asked first is asked again after it has run, before anything counts without an
// answer.
func TestNodeThatCouldNotBeAskedOnceIsAskedAgain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(
			t, stamped(0),
			act{askV0, func(p *fakeProcess) { p.says("unknown number " + p.nonce); p.exits(101) }},
			act{v0, reaches(13)}, act{askV0, answers(13)},
			act{v0, stoppedAt(14)},
		)
		w.options.Slack = new(uint64(10))
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("node cannot be asked"))
		assert.Zero(t, w.count("complete by the height slack"))
		assert.False(t, w.store.stamp.Complete)
	})
}

// The state may be replaced while a node runs that cannot be asked, too.
func TestStateThatIsReplacedUnderANodeThatCannotBeAskedIsLeftAlone(t *testing.T) {
	lives(t, func(t *testing.T) {
		another := changed(stamped(0), func(s *checkpoint.Stamp) { s.StopHeight = 7 })
		w := worldAt(t, stamped(0), act{v0, func(p *fakeProcess) {
			p.at(20)
			p.w.store.stamp = another
			p.exits(0)
		}})
		w.plan.Versions[0].NeverAsk, w.options.Slack = true, new(uint64(10))
		w.failsBecause(OtherState)
		assert.True(t, sameButTime(*another, *w.store.stamp))
	})
}

// Where a migration was left half done no command that says it was completed, or never begun, is offered lightly.
func TestCommandsForAHalfMigratedStateAreFewAndSaySo(t *testing.T) {
	plan := threeVersions()
	renamed := changed(stamped(1, begun), func(s *checkpoint.Stamp) { s.Name = "former" })
	assert.Empty(t, unknownVersion(plan, *renamed).Remedies)
	c := &checkpoint.Checkpoint{VersionIndex: 1, BinaryPath: "/v1", Phase: checkpoint.PhaseMigrating, Stamped: true}
	only := []Remedy{{When: "the log shows that this migration did complete on this state", Version: 1, Migrated: true, Force: true}}
	assert.Equal(t, only, otherState(plan, c, "/data/state").Remedies)
	torn := &checkpoint.UnreadableError{Path: "/data/state/" + checkpoint.StampFile, Stamp: true, Err: assert.AnError}
	only[0].Config = plan.File
	assert.Equal(t, only, Unreadable(plan, "", torn, checkpoint.Found{Checkpoint: c}).Remedies)

	found := checkpoint.Found{Checkpoint: c, Storage: "/data/state", State: checkpoint.StatePresent}
	for _, w := range []Word{{Version: 0}, {Version: 1, Migrated: true}} {
		_, err := Adopt(plan, found, w, "")
		require.ErrorContains(t, err, "of version 1 began")
		w.Force = true
		_, err = Adopt(plan, found, w, "")
		require.NoError(t, err)
	}
}

// A checkpoint that is torn beside a sound stamp is not needed.
func TestTornCheckpointBesideAStampIsMovedAway(t *testing.T) {
	torn := &checkpoint.UnreadableError{Path: "/data/checkpoint.json", Err: assert.AnError}
	f := Unreadable(threeVersions(), "", torn, checkpoint.Found{Stamp: stamped(1)})
	assert.Empty(t, f.Remedies)
	assert.Contains(t, f.Next, "the stamp of the state, which names version 1, takes precedence")
}

// It would make more blocks that are not its own at each start.
func TestNodeThatCannotBeAskedAndRanPastItsStopHeightIsNotStartedAgain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0), act{v0, func(p *fakeProcess) {
			p.at(22)
			p.gets(syscall.SIGTERM)
			p.exits(0)
		}})
		w.plan.Versions[0].NeverAsk = true
		f := w.failsBecause(NotAnswered, Remedy{Version: 0, Complete: true})
		assert.Contains(t, f.What, "height 22")
	})
}

// Without the name of the checkpoint nobody can say whose the state is; it is no reason to fail a deployment.
func TestCheckWithoutACheckpointAsksForItsName(t *testing.T) {
	plan, dir := realPlan(t)
	touch(t, dir+"/state/CURRENT")
	_, found := CheckRecord(plan, "", dir+"/state", digestsOfFiles(plan))
	require.Len(t, found, 1)
	assert.Equal(t, SeverityWarning, found[0].Severity)
	assert.Contains(t, found[0].What, "no checkpoint was named")
}

// A node that does not look at its start height runs to the new stop height, and then the word is not true any more.
func TestWordForAnotherStopHeightIsDroppedBeforeTheNodeIsAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		word := changed(stamped(0), func(s *checkpoint.Stamp) { s.Complete, s.StopHeight = true, 10 })
		w := worldAt(t, word, act{askV0, func(p *fakeProcess) {
			assert.False(t, p.w.store.onDisk().Complete)
			assert.Equal(t, uint64(10), p.w.store.onDisk().StopHeight, "what it was last started with is known for a late plan")
			p.exits(7)
		}})
		w.fails(7)
	})
}
