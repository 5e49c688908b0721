package sequencer

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// onSweep has the n-th process leave something behind.
func onSweep(n int, does func(s *fakeSweep)) func(int) func(*fakeSweep) {
	return func(at int) func(*fakeSweep) {
		if at == n {
			return does
		}
		return nil
	}
}

func TestWhatANodeLeavesBehindIsNotKilledWithoutALimit(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(25)})
		var shown []State
		w.options.Observe = func(s State) {
			if len(s.Left) > 0 {
				shown = append(shown, s)
			}
		}
		w.leaves = onSweep(1, func(s *fakeSweep) {
			time.Sleep(3*time.Hour + time.Millisecond)
			assert.Empty(t, s.signals)
		})
		require.NoError(t, w.run())
		assert.Equal(t, 180, w.count("leftover processes still run"), "once a minute")
		assert.Contains(t, w.log.String(), `processes="7 (worker) for 2h59m1s"`)
		require.NotEmpty(t, shown)
		assert.Equal(t, PhaseHandingOver, shown[0].Phase)
		assert.Equal(t, []Leftover{{7, "worker", shown[0].Left[0].Since}}, shown[0].Left)
	})
}

func TestLeftoverTimeoutEndsWhatAVersionLeftThatExitedByItself(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(25)})
		w.options.LeftoverTimeout = 5 * time.Minute
		w.leaves = onSweep(1, func(s *fakeSweep) {
			began := time.Now()
			s.gets(syscall.SIGKILL)
			assert.Equal(t, 5*time.Minute, time.Since(began))
		})
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("killing leftover processes"))
	})
}

// A shell without exec dies of the signal, and the node behind it is in the midst of its shutdown.
func TestWhatIsLeftAfterAStopGetsTheStopTimeoutAndNoOther(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Hour} {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, stoppedAt(5)})
			w.options.StopTimeout, w.options.LeftoverTimeout = limit, time.Second
			w.leaves = onSweep(1, func(s *fakeSweep) {
				began := time.Now()
				if limit > 0 {
					s.gets(syscall.SIGKILL)
					assert.InDelta(t, limit.Seconds(), time.Since(began).Seconds(), 5, "since the stop")
					return
				}
				time.Sleep(3 * time.Hour)
				assert.Empty(t, s.signals)
			})
			require.NoError(t, w.run())
		})
	}
}

func TestStopWhileLeftoversAreAwaitedBeginsTheStopTimeout(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)})
		w.options.StopTimeout, w.options.LeftoverTimeout = time.Minute, time.Hour
		w.leaves = onSweep(1, func(s *fakeSweep) {
			w.signals <- syscall.SIGHUP
			w.signals <- syscall.SIGTERM // what is left was asked to end already
			began := time.Now()
			time.Sleep(time.Second)
			w.signals <- syscall.SIGTERM
			time.Sleep(stopAgainAfter)
			assert.Empty(t, s.signals)
			w.signals <- syscall.SIGINT
			s.gets(syscall.SIGINT)
			s.gets(syscall.SIGKILL)
			assert.Equal(t, time.Minute, time.Since(began))
		})
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("signal dropped while no node runs"))
	})
}

func TestMigrationIsCompleteWhenAllThatItStartedHasEnded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(25)})
		w.options.LeftoverTimeout = time.Hour
		w.leaves = onSweep(2, func(s *fakeSweep) {
			time.Sleep(time.Hour - time.Second)
			assert.Equal(t, begun, w.store.onDisk().Migration, "it still works")
			assert.Empty(t, s.signals, "nobody asks it to end")
		})
		require.NoError(t, w.run())
		assert.Equal(t, completed, w.store.stamp.Migration)
	})
}

func TestMigrationWhoseWorkerDoesNotEndStaysBegun(t *testing.T) {
	for _, code := range []int{0, 17} {
		lives(t, func(t *testing.T) {
			w := migrates(t, act{m1, exits(code)})
			w.options.LeftoverTimeout, w.outlive = 5*time.Minute, 1
			over := make(chan struct{})
			w.leaves = onSweep(2, func(s *fakeSweep) { <-over; assert.Empty(t, s.signals) })
			f := w.failsBecause(WorkersLeft)
			assert.Contains(t, f.What, "7 (worker) for 5m0s")
			assert.Equal(t, begun, w.store.stamp.Migration)
			close(over)
		})
	}
}

func TestWorkerThatWasInterruptedLeavesTheMigrationBegun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)})
		w.options.StopTimeout = time.Minute
		w.leaves = onSweep(2, func(s *fakeSweep) {
			w.signals <- syscall.SIGTERM
			time.Sleep(stopAgainAfter)
			assert.Empty(t, s.signals)
			w.signals <- syscall.SIGTERM
			s.gets(syscall.SIGTERM)
			s.gets(syscall.SIGKILL)
		})
		w.failsBecause(WorkersLeft)
		assert.Equal(t, begun, w.store.stamp.Migration)
	})
}

func TestWorkerThatEndsAfterOneStopSignalCompletesTheMigration(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)})
		w.leaves = onSweep(2, func(s *fakeSweep) {
			w.signals <- syscall.SIGTERM
			time.Sleep(time.Hour)
			assert.Empty(t, s.signals)
		})
		require.NoError(t, w.run())
		assert.Equal(t, completed, w.store.stamp.Migration)
	})
}

func TestAlarmAndAnUnwantedStartAreKilledByTheStopTimeoutAlone(t *testing.T) {
	for _, limit := range []time.Duration{0, 5 * time.Minute} {
		stubborn := func(t *testing.T, p *fakeProcess) {
			t.Helper()
			p.gets(syscall.SIGTERM)
			began := time.Now()
			if limit == 0 {
				time.Sleep(3 * time.Hour)
				assert.Empty(t, p.signals)
				p.exits(0)
				return
			}
			p.gets(syscall.SIGKILL)
			assert.InDelta(t, limit.Seconds(), time.Since(began).Seconds(), 5)
			p.ends(Exit{Signal: syscall.SIGKILL})
		}
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, func(p *fakeProcess) { p.at(22); stubborn(t, p) }})
			w.options.StopTimeout = limit
			if limit == 0 {
				w.acts = append(w.acts, act{askV0, answers(22)})
				w.failsBecause(Overrun)
				return
			}
			w.fails(137)
		})
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) { p.listens(); stubborn(t, p) }})
			w.options.StopTimeout = limit
			w.failsBecause(CameUp)
		})
	}
}

func TestDamagedStateIsSaidUntilTheNodeAnswersAgain(t *testing.T) {
	said := "Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required."
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) { p.says(said); p.exits(101) }})
		var last State
		w.options.Observe = func(s State) { last = s }
		f := w.fails(101)
		assert.Equal(t, StateDamaged, f.Cause)
		for _, words := range []string{"Manual intervention is required", "SIGKILL", "snapshot", "from genesis", "entrypoint reset"} {
			assert.Contains(t, f.Error(), words)
		}
		assert.True(t, last.DamageReported)
		assert.True(t, w.store.checkpoint.DamageReported)

		again := w.again(act{askV1, func(p *fakeProcess) { p.exits(1) }})
		var shown []bool
		again.options.Observe = func(s State) { shown = append(shown, s.DamageReported) }
		again.fails(1)
		assert.True(t, shown[len(shown)-1], "what did not start has not answered")

		repaired := w.again(act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		repaired.options.Observe = func(s State) { last = s }
		require.NoError(t, repaired.run())
		assert.False(t, last.DamageReported || w.store.checkpoint.DamageReported)
	})
}

func TestStartIsTriedAgainWhileThereAreNoProcesses(t *testing.T) {
	shortage := &StartError{Code: CodeEarlyExit, Passing: true, Err: syscall.EAGAIN}
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		began := time.Now()
		w.refuses = func() error {
			if time.Since(began) < startPatience-time.Second {
				return shortage
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("start is tried again"))
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.refuses = func() error { return shortage }
		f := w.fails(CodeEarlyExit)
		require.ErrorIs(t, f, syscall.EAGAIN)
		assert.Contains(t, f.Next, "limit")
	})
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.refuses = func() error {
			if len(w.acts) == 0 {
				return shortage
			}
			return nil
		}
		w.fails(CodeEarlyExit)
		assert.Empty(t, w.store.stamp.Migration, "it was not executed")
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.refuses = func() error { w.signals <- syscall.SIGTERM; return shortage }
		require.NoError(t, w.run(), "a stop ends the tries")
	})
}

// Two entrypoints with different checkpoints start on a state that does not exist yet: nobody has removed a lock.
func TestAnotherOneThatLockedANewStateFirstIsNamed(t *testing.T) {
	held := &checkpoint.LockHeldError{Path: "/data/state", Pid: 7, Command: "entrypoint"}
	const want = "the state cannot be used: /data/state is locked by the process with pid 7 (\"entrypoint\"); "
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0))
		w.store.held = func(int) error { return held }
		assert.Contains(t, w.fails(CodeCheckpointNotWritable).Error(), want)
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0))
		w.store.failStamp = func(int) error { return held }
		f := w.fails(CodeCheckpointNotWritable)
		assert.Contains(t, f.Error(), want)
		assert.Equal(t, StopOther, f.Next)
	})
}

func TestNothingIsStartedOnceALockIsLost(t *testing.T) {
	lost := &checkpoint.LockLostError{Path: "/data/checkpoint.json.lock", Err: os.ErrNotExist}
	for n := range 3 {
		lives(t, func(t *testing.T) {
			acts := []act{{askV0, answers(20)}, {m1, exits(0)}, {askV1, answers(20)}}
			w := worldAt(t, stamped(0), acts[:n]...)
			w.store.held = func(look int) error {
				if look >= n {
					return lost
				}
				return nil
			}
			f := w.fails(CodeCheckpointNotWritable)
			require.ErrorIs(t, f, lost)
			assert.Contains(t, f.Error(), "another entrypoint")
		})
	}
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0), act{askV0, answers(20)})
		w.store.failStamp = func(n int) error {
			if n > 0 {
				return lost
			}
			return nil
		}
		assert.Contains(t, w.fails(CodeCheckpointNotWritable).Error(), "another entrypoint", "and nothing is written")
	})
}

func TestStopIsSeenWhileTheDiskHangs(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0))
		w.store.slow = time.Hour
		began, seen := time.Now(), time.Duration(0)
		w.options.Observe = func(s State) {
			if s.Stopping && seen == 0 {
				seen = time.Since(began)
			}
		}
		go func() {
			time.Sleep(time.Second)
			w.signals <- syscall.SIGTERM
		}()
		require.NoError(t, w.run())
		assert.Equal(t, time.Second, seen)
		assert.Positive(t, w.count("disk is slow"))
	})
}

func TestSignalThatTheKernelRefusesToDeliverIsAnError(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.StopTimeout = time.Minute
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(5)
			p.refuses = syscall.EPERM
			w.signals <- syscall.SIGTERM
			time.Sleep(2 * time.Minute)
			p.exits(0)
		}}}
		var last State
		w.options.Observe = func(s State) { last = s }
		require.NoError(t, w.run())
		assert.Equal(t, map[syscall.Signal]uint64{syscall.SIGTERM: 1, syscall.SIGKILL: 1}, last.Undelivered)
		assert.Equal(t, 2, w.count("signal cannot be delivered"))
		assert.Equal(t, 2, w.count("signals were not delivered"), "and once more at the end")
	})
}

func TestStopThatComesAfterANodeHasFailedIsNotItsReason(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reachesAndExits(101, 5)})
		w.leaves = onSweep(1, func(*fakeSweep) {
			time.Sleep(time.Minute)
			w.signals <- syscall.SIGTERM
			time.Sleep(time.Minute)
		})
		assert.NotContains(t, w.fails(101).What, "asked to stop")
	})
}

// A run that ends has no use for the locks.
func TestStopComesBeforeALockThatIsLost(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(30)})
		w.store.stamp.StopHeight = 0
		w.store.failStamp = func(n int) error {
			if n > 0 { // the record that the node is about to be started
				w.store.held = func(int) error { return &checkpoint.LockLostError{Path: "/data/checkpoint.json.lock"} }
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
	})
}

func TestStopWhileTheLocksAreLookedAtStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(30)})
		w.store.held = func(n int) error {
			if n > 0 { // the first look is that before the question
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
	})
}
