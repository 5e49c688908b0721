package sequencer

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/plan"
)

// memoryHold is a hold that a test places and lifts.
type memoryHold struct {
	mu     sync.Mutex
	held   bool
	before string
	err    error
}

func (h *memoryHold) Held() (bool, string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held, h.before, h.err
}

func (h *memoryHold) File() string { return "/data/hold" }

func (h *memoryHold) lift() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = false
}

// withHold places a hold. whileHeld is called when the sequence has been held for a minute.
func (w *world) withHold(before string, whileHeld func(h *memoryHold)) *memoryHold {
	h := &memoryHold{held: true, before: before}
	w.options.Hold = h
	var once sync.Once
	w.options.Observe = func(s State) {
		if s.Phase != PhaseHeld {
			assert.Empty(w.t, s.HoldFile)
			return
		}
		assert.Equal(w.t, "/data/hold", s.HoldFile)
		once.Do(func() {
			go func() {
				time.Sleep(time.Minute)
				assert.Zero(w.t, w.alive)
				whileHeld(h)
			}()
		})
	}
	return h
}

func TestHoldKeepsTheNextVersionFromBeingEntered(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		w.withHold("v2", func(h *memoryHold) {
			w.store.mu.Lock()
			defer w.store.mu.Unlock()
			assert.Equal(t, "v1", w.store.stamp.Name)
			assert.EqualValues(t, 40, w.store.checkpoint.History[0].StopHeight, "that it is complete is recorded")
			h.lift()
		})
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("held"))
		assert.Equal(t, 1, w.count("hold ended"))
		assert.Equal(t, 1, w.count("version completed"))
	})
}

func TestHoldBeforeAnotherVersionDoesNotMatter(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		w.withHold("v2", func(*memoryHold) {})
		require.NoError(t, w.run())
		assert.Zero(t, w.count("held"))
	})
}

func TestStartUnderAHoldStartsNothing(t *testing.T) {
	for _, test := range []struct {
		name, before string
		err          error
	}{{"before everything", "", nil}, {"before an unknown version", "v7", nil}, {"unreadable", "", errors.New("not JSON")}} {
		t.Run(test.name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1))
				h := w.withHold(test.before, func(*memoryHold) { w.signals <- syscall.SIGTERM })
				h.err = test.err
				observe := w.options.Observe
				w.options.Observe = func(s State) {
					observe(s)
					if s.Phase == PhaseHeld {
						assert.Equal(t, "v1", s.Stamp.Name)
						assert.Equal(t, 1, s.Record.VersionIndex)
					}
				}
				require.NoError(t, w.run())
				assert.Empty(t, w.store.story, "nothing was written either")
				assert.Equal(t, test.err != nil || test.before != "", w.count("hold unreadable") == 1)
			})
		})
	}
}

func TestStartUnderAHoldBeforeTheNextVersionDoesNotEvenAsk(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.store.checkpoint.History = []checkpoint.Entry{{VersionIndex: 1, StopHeight: 40, CompletedAt: time.Now()}}
		w.withHold("v2", func(*memoryHold) { w.signals <- syscall.SIGTERM })
		require.NoError(t, w.run())
	})
}

// An empty volume waits under a hold for the state that a person puts there.
func TestStateThatIsPutInPlaceUnderAHoldIsFound(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		w.withHold("", func(h *memoryHold) {
			w.store.mu.Lock()
			w.store.state, w.store.stamp = checkpoint.StatePresent, stamped(1)
			w.store.mu.Unlock()
			h.lift()
		})
		require.NoError(t, w.run())
	})
}

func TestStateThatIsRestoredUnderAHoldIsFound(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		w.withHold("v2", func(h *memoryHold) {
			w.store.mu.Lock()
			w.store.stamp = new(*stamped(1))
			w.store.stamp.StopHeight = 0
			w.store.mu.Unlock()
			h.lift()
		})
		require.NoError(t, w.run())
	})
}

func TestStateOfAnotherVersionThatIsRestoredUnderAHoldKeepsItsStamp(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{askV0, exits(101)})
		w.withHold("v2", func(h *memoryHold) {
			w.store.mu.Lock()
			w.store.stamp = stamped(0)
			w.store.mu.Unlock()
			h.lift()
		})
		w.fails(101)
		assert.Equal(t, "v0", w.store.stamp.Name)
	})
}

// The binary ran in this run, but not on this state.
func TestUndoPointIsMadeOfAStateThatIsRestoredUnderAHoldForAPatch(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		u := w.withUndo(nil)
		w.withHold("v2", func(h *memoryHold) {
			w.store.mu.Lock()
			w.store.stamp = stamped(1)
			w.store.stamp.BinarySHA256 = "old"
			w.store.mu.Unlock()
			h.lift()
		})
		require.NoError(t, w.run())
		assert.Equal(t, 1, u.made)
	})
}

func TestStopSignalEndsAHoldWell(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)})
		w.withHold("v2", func(*memoryHold) { w.signals <- syscall.SIGTERM })
		require.NoError(t, w.run())
		assert.Equal(t, "v1", w.store.stamp.Name)
	})
}

// hooked is a world at version 1, which is at its stop height, with a hook before version 2.
func hooked(t *testing.T, acts ...act) *world {
	t.Helper()
	w := worldAt(t, stamped(1), append([]act{{askV1, answers(40)}}, acts...)...)
	w.plan.Versions[2].Before = []string{"/hook", "now"}
	return w
}

func TestHookRunsOnceBeforeItsVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := hooked(t, act{"/hook now", func(p *fakeProcess) {
			assert.Equal(t, []string{
				"ENTRYPOINT_FROM_VERSION=v1", "ENTRYPOINT_TO_VERSION=v2", "ENTRYPOINT_HEIGHT=40", "ENTRYPOINT_STORAGE_PATH=/data/state", "ENTRYPOINT_CHECKPOINT=/data/checkpoint.json",
			}, p.command.Env)
			assert.True(t, p.command.Migration, "it is not stopped if we die")
			p.exits(0)
		}}, act{askV1, func(p *fakeProcess) {
			assert.True(t, w0(p).Hook, "that it is done is stamped")
			answers(40)(p)
		}}, act{v2First, stoppedAt(41)})
		w.options.Checkpoint = "/data/checkpoint.json"
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("hook finished"))
	})
}

func TestHookIsToldWhatThePlanSays(t *testing.T) {
	s := &sequence{Options: Options{Plan: twoVersions()}}
	var names []string
	for _, pair := range s.hookEnv(1) {
		name, _, _ := strings.Cut(pair, "=")
		names = append(names, name)
	}
	assert.Equal(t, plan.HookEnv, names)
}

func w0(p *fakeProcess) *checkpoint.Stamp { return p.w.store.stamp }

func TestHookThatFailsChangesNothingAndRunsAgain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := hooked(t, act{"/hook now", exits(7)})
		f := w.fails(7)
		assert.Contains(t, f.What, "the hook before version 2 exited 7")
		assert.Equal(t, "v1", w.store.stamp.Name)
		assert.False(t, w.store.stamp.Hook)
		entry, _ := w.store.checkpoint.Entry(1)
		assert.EqualValues(t, 40, entry.StopHeight, "that the version before is complete is recorded")
		again := w.again(act{askV1, answers(40)}, act{"/hook now", exits(0)}, act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, again.run())
	})
}

func TestHookThatIsDoneDoesNotRunAgain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := hooked(t, act{"/hook now", then(syscall.SIGTERM, exits(0))})
		require.NoError(t, w.run())
		assert.True(t, w.store.stamp.Hook)
		again := w.again(act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, again.run())
	})
}

// A hook that restores an older state: the version before runs again, and then the hook too.
func TestHookThatLowersTheHeightIsNotDone(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := hooked(t, act{"/hook now", exits(0)}, act{askV1, answers(30)}, act{v1Later, reaches(40)}, act{askV1, answers(40)},
			act{"/hook now", exits(0)}, act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, w.run())
	})
}

func TestUndoPointIsMadeOnceAroundAHook(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := hooked(t)
		u := w.withUndo(nil)
		w.acts = append(w.acts, act{"/hook now", func(p *fakeProcess) {
			assert.Equal(t, 1, u.made)
			p.exits(0)
		}}, act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, w.run())
		assert.Equal(t, 1, u.made)
	})
}

func TestSecondStopSignalIsPassedOnToAHook(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := hooked(t, act{"/hook now", func(p *fakeProcess) {
			w0(p)
			p.w.signals <- syscall.SIGTERM
			time.Sleep(2 * stopAgainAfter)
			assert.Empty(p.w.t, p.signals)
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.exits(143)
		}})
		w.fails(143)
		assert.Equal(t, 1, w.count("the hook is not interrupted"))
	})
}
