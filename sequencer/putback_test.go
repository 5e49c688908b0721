package sequencer

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStopRequestBeforeTheCopyMakesNone(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)})
		u := w.withUndo(nil)
		u.takes = 10 * time.Hour
		w.files.verify = func(ctx context.Context, i int, idly bool) []Finding {
			if i == 2 && !idly {
				w.signals <- syscall.SIGTERM
				<-ctx.Done()
			}
			return nil
		}
		began := time.Now()
		require.NoError(t, w.run())
		assert.Less(t, time.Since(began), time.Minute)
		assert.Zero(t, u.made)
	})
}

func TestStateThatWasPutInPlaceDuringAMigrationIsNotExchanged(t *testing.T) {
	lives(t, func(t *testing.T) {
		other := *stamped(0)
		other.StopHeight = 7
		w := migrates(t, act{m1, func(p *fakeProcess) { p.w.store.put(&other); p.exits(3) }})
		w.store.noCheckpoint = true
		u := w.withUndo(nil)
		require.Error(t, w.run())
		assert.Zero(t, u.putBack, "a state that somebody has put there was exchanged away")
	})
}

func TestNothingIsPutBackWithoutTheLocks(t *testing.T) {
	lives(t, func(t *testing.T) {
		var lost atomic.Bool
		w := migrates(t, act{m1, func(p *fakeProcess) { lost.Store(true); p.exits(3) }})
		w.store.held = func(int) error {
			if lost.Load() {
				return errors.New("lock lost")
			}
			return nil
		}
		u := w.withUndo(nil)
		require.Error(t, w.run())
		assert.Zero(t, u.putBack, "put back without the locks")
	})
}

func TestStateThatWasPutInPlaceOfAFailedOneIsNotAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		other := *stamped(0)
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, func(p *fakeProcess) { p.w.store.put(&other); p.exits(101) }})
		w.store.noCheckpoint = true
		u := w.withUndo(nil)
		require.Error(t, w.run())
		assert.Zero(t, u.putBack)
		assert.Len(t, w.started, 2, "a node was asked on a state whose stamp names another version")
	})
}

func TestVersionWhoseLeftoverCameUpIsNotUndone(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)}, act{v1Later, exits(101)})
		w.plan.Versions[1].NeverAsk = true
		u := w.withUndo(nil)
		w.leaves = func(n int) func(s *fakeSweep) {
			if n != 3 {
				return nil
			}
			return func(s *fakeSweep) {
				w.mu.Lock()
				w.listens = true
				w.mu.Unlock()
				time.Sleep(time.Minute)
				w.mu.Lock()
				w.listens = false
				w.mu.Unlock()
			}
		}
		require.Error(t, w.run())
		assert.Zero(t, u.putBack, "what the node left behind was up for a minute, and its blocks are lost")
	})
}

func TestNodeThatIsNotToBeAskedIsNotAskedForBlocks(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, exits(101)})
		w.plan.Versions[2].NeverAsk = true
		w.withUndo(nil)
		require.Error(t, w.run())
		assert.Len(t, w.started, 2, "a node with ask:false was asked")
	})
}

func TestNodeThatExitsZeroWhenAskedForBlocksIsNotUndone(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, exits(101)}, act{askV2, exits(0)})
		w.store.checkpoint.Answers = nil
		u := w.withUndo(nil)
		require.Error(t, w.run())
		assert.Zero(t, u.putBack)
	})
}

func TestNodeBehindAStrangerIsNotUndone(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, exits(101)})
		w.store.stamp.UndoPoint, w.store.stamp.Entered = "first", true
		w.stranger = true
		u := w.withUndo(undoPointBefore(w.plan, 2))
		require.Error(t, w.run())
		assert.Zero(t, u.putBack)
	})
}

// the question of the version before exits 0 once: then in-memory spent keeps the failed migration from being undone
func TestExitZeroOfTheVersionBeforeDoesNotSpendTheUndoPoint(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.acts = []act{{askV0, answers(20)}, {"/hook", exits(0)}, {askV0, exits(0)}, {askV0, answers(20)}, {m1, exits(3)}}
		w.plan.Versions[1].Before = []string{"/hook"}
		u := w.withUndo(nil)
		require.Error(t, w.run())
		assert.Equal(t, 1, u.putBack)
	})
}

// The entrypoint was killed while a node of the new version was up: the checkpoint had noted that.
func TestVersionThatWasSeenUpInAnEarlierRunIsNotUndone(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, answers(40)}, act{v2First, exits(1)})
		w.store.stamp.UndoPoint, w.store.stamp.Entered, w.store.stamp.Started = "first", true, true
		w.store.checkpoint.NodeUp = true
		u := w.withUndo(undoPointBefore(w.plan, 2))
		w.fails(1)
		assert.Zero(t, u.putBack)
		assert.False(t, w.store.stamp.Entered)
	})
}

func TestNodeThatIsSeenUpIsNotedWhileItRuns(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, func(p *fakeProcess) {
			p.at(41)
			p.w.store.mu.Lock()
			assert.True(t, p.w.store.checkpoint.NodeUp)
			p.w.store.mu.Unlock()
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.exits(0)
		}})
		w.withUndo(nil)
		require.NoError(t, w.run())
	})
}

// None of these is proof that no block was made.
func TestRunOfANodeThatProvesNothingIsNotUndone(t *testing.T) {
	for name, node := range map[string]func(p *fakeProcess){
		"it was killed": func(p *fakeProcess) { p.ends(Exit{Signal: syscall.SIGKILL}) },
		"it ran for long": func(p *fakeProcess) {
			time.Sleep(2 * briefly)
			p.exits(101)
		},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, node})
				u := w.withUndo(nil)
				var f *Failure
				require.ErrorAs(t, w.run(), &f)
				assert.Zero(t, u.putBack)
				assert.Contains(t, f.Next, "'entrypoint undo' puts back the state from before version 2")
			})
		})
	}
}

func TestNodeThatNobodyLookedAtForLongIsNotNeverUp(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := &watch{looked: time.Now()}
		time.Sleep(blindness)
		w.note(time.Now())
		assert.False(t, w.wasBlind())
		time.Sleep(2 * blindness)
		assert.True(t, w.wasBlind())
	})
}

func TestNothingIsPutBackForARetiredVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, exits(101)})
		w.plan.Versions[0] = Version{Name: "v0", Stop: 20, Retired: true}
		w.store.stamp.UndoPoint, w.store.stamp.Entered = "first", true
		u := w.withUndo(undoPointBefore(threeVersions(), 1))
		w.fails(101)
		assert.Zero(t, u.putBack)
	})
}

// A stop request comes while the node that has failed is asked whether it made blocks: the next start asks again.
func TestStopWhileAFailedNodeIsAskedLeavesThePutBackToTheNextStart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, exits(101)}, act{askV2, func(p *fakeProcess) {
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.ends(Exit{Signal: syscall.SIGTERM})
		}})
		u := w.withUndo(nil)
		assert.Contains(t, w.fails(101).Next, "the next start puts the undo point back first")
		assert.Zero(t, u.putBack)
		again := w.again(act{askV2, exits(101)})
		after := again.withUndo(u.point)
		assert.Equal(t, Undone, again.fails(101).Cause)
		assert.Equal(t, 1, after.putBack)
	})
}
