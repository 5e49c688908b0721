package sequencer

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// memoryUndo keeps the undo point of a memoryStore.
type memoryUndo struct {
	w     *world
	point *checkpoint.UndoPoint
	// made counts the copies. makeError, findError and putBackError, if set, are what a call gives; takes is how long a copy takes.
	made                               int
	makeError, findError, putBackError error
	takes                              time.Duration
	putBack                            int
}

// withUndo gives the world an undo point, or the place for one.
func (w *world) withUndo(point *checkpoint.UndoPoint) *memoryUndo {
	u := &memoryUndo{w: w, point: point}
	w.options.Undo = u
	return u
}

// of is the undo point that was made before version i of threeVersions, and its stamp.
func undoPointBefore(plan *Plan, i int) *checkpoint.UndoPoint {
	height := plan.Versions[i-1].Stop
	v := plan.Versions[i]
	return &checkpoint.UndoPoint{
		ID: "first", Stamp: *stamped(i - 1), Method: checkpoint.UndoReflink, Height: &height, Path: "/data/state.before-" + v.Name,
		To: checkpoint.UndoTarget{VersionIndex: i, Name: v.Name, StartHeight: v.Start, BinarySHA256: "sha of " + v.Binary},
	}
}

func (u *memoryUndo) nobodyLives() { assert.Zero(u.w.t, u.w.alive, "no process has the state open") }

func (u *memoryUndo) Find() (*checkpoint.UndoPoint, error) {
	u.nobodyLives()
	return u.point, u.findError
}

func (u *memoryUndo) Make(ctx context.Context, p checkpoint.UndoPoint, progress func(UndoProgress)) (checkpoint.UndoPoint, error) {
	u.nobodyLives()
	assert.True(u.w.t, sameButTime(p.Stamp, *u.w.store.stamp), "the copy has the stamp that is on disk")
	u.point = nil
	if u.makeError != nil {
		return p, u.makeError
	}
	began := time.Now()
	for range 10 {
		progress(UndoProgress{Method: checkpoint.UndoCopy, Done: 1, Total: 10, Since: began})
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(u.takes / 10):
		}
	}
	u.made++
	p.ID, p.Method, p.Path = "made", checkpoint.UndoCopy, "/data/state.before-"+p.To.Name
	u.point = &p
	return p, nil
}

func (u *memoryUndo) PutBack(p checkpoint.UndoPoint) (string, error) {
	u.nobodyLives()
	if u.putBackError != nil {
		return "", u.putBackError
	}
	require.Equal(u.w.t, u.point.ID, p.ID)
	u.putBack++
	u.w.store.mu.Lock()
	u.w.store.stamp, u.point = new(u.point.Stamp), nil
	u.w.store.mu.Unlock()
	return "/data/state.failed-" + p.To.Name, nil
}

func TestUndoPointIsMadeBeforeTheMigrationAndNamedInTheStamp(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		u := w.withUndo(nil)
		w.acts = append(w.acts, act{m1, func(p *fakeProcess) {
			assert.Equal(t, 1, u.made)
			assert.Equal(t, "made", w.store.stamp.UndoPoint)
			assert.True(t, w.store.stamp.Entered)
			assert.Equal(t, new(uint64(20)), u.point.Height)
			c, err := checkpoint.Parse([]byte(u.point.Checkpoint))
			assert.NoError(t, err)
			assert.EqualValues(t, 20, c.History[0].StopHeight, "the checkpoint in it says that version 0 is complete")
			p.exits(0)
		}}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		require.NoError(t, w.run())
		assert.Equal(t, "made", w.store.stamp.UndoPoint)
		assert.False(t, w.store.stamp.Entered, "its node was seen up")
		assert.Equal(t, 1, w.count("undo point made"))
	})
}

func TestFailedMigrationIsUndoneAndEnteredAnew(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(3)})
		u := w.withUndo(nil)
		f := w.fails(3)
		assert.Equal(t, Undone, f.Cause)
		assert.Contains(t, f.Safe, "the state of version 0 at height 20 was put back from the undo point, and no block was lost; the failed state is kept as /data/state.failed-v1")
		assert.Equal(t, 1, u.putBack)
		assert.Equal(t, "v0", w.store.stamp.Name)
		assert.Equal(t, 0, w.store.checkpoint.VersionIndex)
		assert.Nil(t, w.store.checkpoint.History[0].Migration)
		again := w.again(act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		again.withUndo(nil)
		require.NoError(t, again.run())
		assert.Equal(t, 1, again.store.checkpoint.History[1].Migration.Runs, "nothing is left of the failed run")
	})
}

func TestInterruptedMigrationIsUndoneWhateverThePolicy(t *testing.T) {
	for _, policy := range []struct{ halt bool }{{false}, {true}} {
		lives(t, func(t *testing.T) {
			w := interrupted(t, act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
			if policy.halt {
				w.plan.Versions[1].OnInterrupted = Halt
			}
			w.store.stamp.UndoPoint, w.store.stamp.Entered = "first", true
			u := w.withUndo(undoPointBefore(w.plan, 1))
			require.NoError(t, w.run())
			assert.Equal(t, 1, u.putBack)
			assert.Equal(t, 1, u.made, "the version is entered anew, with an undo point of its own")
		})
	}
}

func TestUndoPointOfAnotherUpgradeIsNotPutBack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := interrupted(t)
		w.store.stamp.UndoPoint, w.store.stamp.Entered = "another", true
		u := w.withUndo(undoPointBefore(w.plan, 1))
		f := w.fails(CodeMismatch)
		assert.Equal(t, MigrationInterrupted, f.Cause)
		assert.Contains(t, f.Next, "--undo-dir")
		assert.Zero(t, u.putBack)
	})
}

func TestVersionThatEndsBeforeItIsUpIsUndone(t *testing.T) {
	for _, test := range []struct {
		name string
		acts []act
		code int
	}{
		{"its node fails", []act{{m1, exits(0)}, {askV1, answers(20)}, {v1First, exits(101)}, {askV1, exits(101)}}, 101},
		{"its node fails, and answers the same height", []act{{m1, exits(0)}, {askV1, answers(20)}, {v1First, exits(1)}, {askV1, answers(20)}}, 1},
		{"its node is killed", []act{{m1, exits(0)}, {askV1, answers(20)}, {v1First, func(p *fakeProcess) { p.ends(Exit{Signal: syscall.SIGSEGV}) }}, {askV1, exits(101)}}, 139},
		{"its node gives no answer", []act{{m1, exits(0)}, {askV1, exits(101)}}, 101},
	} {
		t.Run(test.name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := migrates(t, test.acts...)
				u := w.withUndo(nil)
				assert.Equal(t, Undone, w.fails(test.code).Cause)
				assert.Equal(t, 1, u.putBack)
				assert.Equal(t, "v0", w.store.stamp.Name)
			})
		})
	}
}

// A node that says that its state is damaged: it was, and the state that was put back is not.
func TestDamageThatWasUndoneIsNotRecorded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, func(p *fakeProcess) {
			p.says("Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required.")
			p.exits(101)
		}}, act{askV2, exits(101)})
		u := w.withUndo(nil)
		assert.Equal(t, Undone, w.fails(101).Cause)
		assert.Equal(t, 1, u.putBack)
		assert.False(t, w.store.checkpoint.DamageReported)
	})
}

func TestVersionThatMayHaveMadeABlockIsNotUndone(t *testing.T) {
	for _, test := range []struct {
		name string
		node func(p *fakeProcess)
		more []act
	}{
		{"it reported a height", reachesAndExits(101, 20), nil},
		{"it accepted a connection", func(p *fakeProcess) { p.listens(); p.exits(101) }, nil},
		{"nobody saw it, but its state is higher", exits(101), []act{{askV2, answers(41)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), append([]act{{askV1, answers(40)}, {v2First, test.node}}, test.more...)...)
				u := w.withUndo(nil)
				w.fails(101)
				assert.Zero(t, u.putBack)
				assert.Equal(t, "v2", w.store.stamp.Name)
				assert.Equal(t, "made", w.store.stamp.UndoPoint)
				assert.False(t, w.store.stamp.Entered)
				again := w.again(act{askV2, exits(101)})
				again.withUndo(u.point)
				again.fails(101)
				assert.Equal(t, "v2", w.store.stamp.Name, "nor at a later start")
			})
		})
	}
}

// The node of the new version ended before it was up, and a stop request came first; or it was never started to run.
func TestVersionThatWasNeverSeenUpIsUndoneAtALaterStart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, exits(101)})
		w.store.stamp.UndoPoint, w.store.stamp.Entered = "first", true
		u := w.withUndo(undoPointBefore(w.plan, 2))
		assert.Equal(t, Undone, w.fails(101).Cause)
		assert.Equal(t, 1, u.putBack)
	})
}

// The entrypoint was killed while the node of the new version ran, perhaps for days.
func TestVersionWhoseNodeMayHaveBeenUpIsNotUndoneByItself(t *testing.T) {
	killed := func(t *testing.T, acts ...act) (*world, *memoryUndo) {
		t.Helper()
		w := worldAt(t, stamped(2), acts...)
		w.store.stamp.UndoPoint, w.store.stamp.Entered, w.store.stamp.Started = "first", true, true
		return w, w.withUndo(undoPointBefore(w.plan, 2))
	}
	lives(t, func(t *testing.T) {
		w, u := killed(t, act{askV2, exits(101)})
		assert.Contains(t, w.fails(101).Next, "'entrypoint undo' puts back the state from before version 2")
		assert.Zero(t, u.putBack)
		assert.True(t, w.store.stamp.Entered, "a patch of it keeps the undo point")
	})
	lives(t, func(t *testing.T) {
		w, u := killed(t, act{askV2, exits(2)}, act{v2Later, exits(1)})
		w.fails(1)
		assert.Zero(t, u.putBack, "a later node that ends before it is up proves nothing about the earlier one")
		assert.True(t, w.store.stamp.Started)
	})
	lives(t, func(t *testing.T) {
		w, u := killed(t, act{askV2, answers(40)}, act{v2First, exits(1)})
		w.fails(1)
		assert.Zero(t, u.putBack, "what it had served need not be durable yet")
	})
	lives(t, func(t *testing.T) {
		w, u := killed(t, act{askV2, answers(41)}, act{v2Later, exits(1)})
		w.fails(1)
		assert.Zero(t, u.putBack)
		assert.False(t, w.store.stamp.Entered)
	})
}

// While its node runs, the stamp says that how it ends is not known.
func TestStampSaysThatTheNodeOfAnEnteredVersionWasStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, func(p *fakeProcess) {
			assert.True(t, w0(p).Entered)
			assert.True(t, w0(p).Started)
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.ends(Exit{Signal: syscall.SIGTERM})
		}})
		w.withUndo(nil)
		require.NoError(t, w.run())
		assert.True(t, w.store.stamp.Entered, "it was never up")
		assert.False(t, w.store.stamp.Started)
	})
}

// It may have made all its blocks before anybody saw that it was up.
func TestVersionWhoseNodeExitedZeroIsNotUndone(t *testing.T) {
	for _, acts := range [][]act{
		{{v2First, exits(0)}, {askV2, exits(101)}},
		{{v2First, exits(0)}, {askV2, exits(2)}, {v2Later, exits(101)}},
	} {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), append([]act{{askV1, answers(40)}}, acts...)...)
			u := w.withUndo(nil)
			w.fails(101)
			assert.Zero(t, u.putBack)
			assert.False(t, w.store.stamp.Entered)
		})
	}
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)}, act{askV1, exits(0)}, act{askV1, exits(101)})
		u := w.withUndo(nil)
		w.fails(101)
		assert.Zero(t, u.putBack, "nor if it was only asked")
	})
}

func TestNothingIsPutBackIfItCannotBeRecordedHowTheNodeEnded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, func(p *fakeProcess) {
			p.w.store.failStamp = func(int) error { return errFull }
			p.exits(101)
		}})
		u := w.withUndo(nil)
		w.fails(101)
		assert.Zero(t, u.putBack)
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, func(p *fakeProcess) {
			p.w.store.failStamp = func(int) error { return errFull }
			p.exits(0)
		}})
		w.withUndo(nil)
		w.fails(CodeCheckpointNotWritable)
	})
}

// What is written after that would give the state the stamp of the version that could not read it.
func TestStampOfAStateThatWasPutBackStaysThatOfTheCopy(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, exits(101)}, act{askV2, func(p *fakeProcess) {
			p.w.store.failStamp = func(int) error { t.Error("a stamp is written"); return nil }
			p.says("Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required.")
			p.exits(101)
		}})
		u := w.withUndo(nil)
		w.fails(101)
		assert.Equal(t, 1, u.putBack)
		assert.Equal(t, "v1", w.store.stamp.Name)
	})
}

// Its node refuses to start because it is at its stop height, not because it is a patch.
func TestPatchOfAVersionThatCannotBeAskedMayBeComplete(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := neverAsked(t, stamped(1), act{v1Later, exits(1)})
		w.store.stamp.BinarySHA256 = "old"
		u := w.withUndo(nil)
		w.failsBecause(NotAnswered, Remedy{Version: 1, Migrated: true, Complete: true})
		assert.Zero(t, u.putBack)
	})
}

func TestAskPutsNothingBack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, exits(101)})
		w.store.stamp.UndoPoint, w.store.stamp.Entered = "first", true
		u := w.withUndo(undoPointBefore(w.plan, 2))
		_, err := Ask(w.prepared())
		w.over()
		require.Error(t, err)
		assert.Zero(t, u.putBack)
	})
}

func TestStopRequestLeavesThePutBackToTheNextStart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, then(syscall.SIGTERM, exits(3))})
		u := w.withUndo(nil)
		f := w.fails(3)
		assert.Contains(t, f.Next, "the next start puts the undo point back")
		assert.Zero(t, u.putBack)
		again := w.again(act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		after := again.withUndo(u.point)
		require.NoError(t, again.run())
		assert.Equal(t, 1, after.putBack)
	})
}

func TestUpgradeGoesOnWithoutAnUndoPointOnlyIfNoneIsToBeHad(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		w.withUndo(undoPointBefore(w.plan, 1)).makeError = &NoUndoPointError{Why: "no reflinks"}
		require.NoError(t, w.run())
		assert.Empty(t, w.store.stamp.UndoPoint)
		assert.Equal(t, 1, w.count("no undo point"))
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)})
		w.withUndo(nil).makeError = errFull
		f := w.fails(CodeCheckpointNotWritable)
		require.ErrorIs(t, f, errFull)
		assert.Equal(t, "v1", w.store.stamp.Name)
	})
}

func TestStopRequestCutsTheCopyShort(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)})
		u := w.withUndo(nil)
		u.takes = time.Hour
		var copying bool
		w.options.Observe = func(s State) {
			if s.Copying != nil && !copying {
				copying = true
				assert.Equal(t, PhaseCopying, s.Phase)
				w.signals <- syscall.SIGTERM
			}
		}
		require.NoError(t, w.run())
		assert.True(t, copying)
		assert.Zero(t, u.made)
		assert.Equal(t, "v1", w.store.stamp.Name)
	})
}

func TestUndoPointThatCannotBePutBackIsKept(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(3)})
		u := w.withUndo(nil)
		u.putBackError = errors.New("input/output error")
		f := w.fails(3)
		assert.Contains(t, f.Error(), "the undo point /data/state.before-v1 could not be put back: input/output error")
		assert.Equal(t, begun, w.store.stamp.Migration)
		again := w.again()
		again.withUndo(u.point).putBackError = u.putBackError
		f = again.fails(CodeCheckpointNotWritable)
		assert.Contains(t, f.What, "cannot be put back")
	})
}

func TestUndoPointThatCannotBeReadKeepsARunFromStarting(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.withUndo(nil).findError = errors.New("torn")
		w.fails(CodeCheckpointUnreadable)
	})
}

func TestPatchReleaseIsUndoneIfItNeverComesUp(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, exits(101)})
		w.store.stamp.BinarySHA256 = "old"
		u := w.withUndo(nil)
		f := w.fails(101)
		assert.Equal(t, Undone, f.Cause)
		assert.Equal(t, 1, u.putBack)
		assert.Equal(t, "old", w.store.stamp.BinarySHA256)
		require.Equal(t, 1, w.count("binary changed"))
	})
}

// A node may have damaged the state at its first start, and then the image is mended: the copy from before it counts.
func TestPatchReleaseOfAVersionThatWasNeverUpKeepsTheUndoPoint(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, exits(101)})
		w.store.stamp.UndoPoint, w.store.stamp.Entered, w.store.stamp.BinarySHA256 = "first", true, "bad"
		u := w.withUndo(undoPointBefore(w.plan, 2))
		assert.Equal(t, Undone, w.fails(101).Cause)
		assert.Zero(t, u.made)
		assert.Equal(t, "v1", w.store.stamp.Name)
	})
}

func TestRetiredVersionIsRefusedBeforeAnythingIsStamped(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan.Versions[0] = Version{Name: "v0", Stop: 20, Retired: true, LastImage: "registry/rollup:7"}
		f := w.failsBecause(Retired)
		assert.Contains(t, f.Next, "registry/rollup:7")
		assert.Empty(t, w.store.story)
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0))
		w.plan.Versions[0] = Version{Name: "v0", Stop: 20, Retired: true}
		assert.Contains(t, w.failsBecause(Retired).What, "the state needs version 0, which is retired")
		assert.Empty(t, w.store.story)
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		w.plan.Versions[0] = Version{Name: "v0", Stop: 20, Retired: true}
		require.NoError(t, w.run(), "a state beyond it is continued")
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.state, w.store.checkpoint = checkpoint.StatePresent, &checkpoint.Checkpoint{BinaryPath: "/v0"}
		w.plan.Versions[0] = Version{Name: "v0", Stop: 20, Retired: true}
		w.failsBecause(Retired)
	})
	for i, r := range eachVersion(&Plan{Versions: []Version{{Retired: true}, {Name: "v1"}}}, "it was ", false) {
		assert.Equal(t, 1, r.Version, "remedy %d", i)
	}
}
