package sequencer

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// migrates is a world at version 0, which is at its stop height, so that version 1's migration is next.
func migrates(t *testing.T, acts ...act) *world {
	t.Helper()
	return worldAt(t, stamped(0), append([]act{{askV0, answers(20)}}, acts...)...)
}

// interrupted is a world whose state is in the middle of version 1's migration.
func interrupted(t *testing.T, acts ...act) *world {
	t.Helper()
	w := worldAt(t, stamped(1, begun), acts...)
	w.store.checkpoint.History = []checkpoint.Entry{{VersionIndex: 1, Migration: &checkpoint.MigrationRecord{Runs: 1, BegunAt: time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)}}}
	return w
}

func TestMigrationIsStampedBeforeItRunsAndSyncedBeforeItIsComplete(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.acts = append(w.acts, act{m1, func(p *fakeProcess) {
			assert.Equal(t, []string{"v1 stop 40 begun"}, w.store.wrote())
			p.exits(0)
		}}, act{askV1, func(p *fakeProcess) {
			assert.Equal(t, []string{"v1 stop 40 begun", "sync", "v1 stop 40 completed"}, w.store.wrote())
			answers(20)(p)
		}}, act{v1First, stoppedAt(21)})
		require.NoError(t, w.run())
		assert.Equal(t, "sha of /v1", w.store.stamp.BinarySHA256)
	})
}

func TestHandOverWithoutAMigrationIsOneWriteAndNoQuestionMore(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v2 stop 0"}, w.store.wrote())
	})
}

// A migration that leaves the state at another height has its node say so.
func TestMigratedStateIsAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)}, act{askV1, answers(12)})
		w.failsBecause(StateBelow)
	})
}

func TestFirstStopSignalLetsTheMigrationFinish(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.options.StopTimeout = time.Second
		w.acts = append(w.acts, act{m1, func(p *fakeProcess) {
			w.signals <- syscall.SIGTERM
			time.Sleep(time.Hour)
			assert.Empty(t, p.signals)
			p.exits(0)
		}})
		require.NoError(t, w.run())
		assert.Equal(t, completed, w.store.stamp.Migration)
		again := w.again(act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		require.NoError(t, again.run(), "the completed migration is not run again")
	})
}

func TestMigrationThatTakesLongIsLoggedEachHalfMinute(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, func(p *fakeProcess) {
			time.Sleep(101 * time.Second)
			p.exits(0)
		}}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		require.NoError(t, w.run())
		for _, line := range []string{`"migration still runs" version=1 pid=102 seconds=30`, "seconds=60", "seconds=90", `"migration finished" version=1 exit="exited 0" exit_code=0 seconds=101`} {
			assert.Equal(t, 1, strings.Count(w.log.String(), line), "%s in\n%s", line, &w.log)
		}
		assert.Equal(t, 3, w.count("migration still runs"), "and not after its end")
	})
}

func TestSecondStopSignalIsPassedOnToTheMigration(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.options.StopTimeout = 10 * time.Second
		w.acts = append(w.acts, act{m1, func(p *fakeProcess) {
			w.signals <- syscall.SIGTERM
			time.Sleep(11 * time.Second)
			w.signals <- syscall.SIGINT
			p.gets(syscall.SIGINT)
			p.gets(syscall.SIGKILL)
			p.ends(Exit{Signal: syscall.SIGKILL})
		}})
		w.fails(137)
		assert.Equal(t, begun, w.store.stamp.Migration)
	})
}

// Nomad, Compose and systemd with Podman send two for one stop.
func TestTwoStopSignalsWithinSecondsAreOneRequest(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.options.StopTimeout = time.Second
		w.acts = append(w.acts, act{m1, func(p *fakeProcess) {
			w.signals <- syscall.SIGTERM
			time.Sleep(stopAgainAfter - time.Millisecond)
			w.signals <- syscall.SIGTERM
			time.Sleep(time.Hour)
			assert.Empty(t, p.signals)
			p.exits(0)
		}})
		require.NoError(t, w.run())
		assert.Equal(t, completed, w.store.stamp.Migration)
	})
}

func TestMigrationFailureStopsUpgrade(t *testing.T) {
	for _, halts := range []bool{false, true} {
		lives(t, func(t *testing.T) {
			w := migrates(t, act{m1, func(p *fakeProcess) {
				p.says("rollup-db-migration failed: no space")
				p.exits(17)
			}})
			if halts {
				w.plan.Versions[1].OnInterrupted = Halt
			}
			f := w.fails(17)
			assert.Contains(t, f.Stderr, "no space")
			assert.Equal(t, begun, w.store.stamp.Migration)
			assert.NotContains(t, w.store.wrote(), "sync")
			if halts {
				w.again().failsBecause(MigrationInterrupted, Remedy{Version: 1, Migrated: true, Force: true})
				return
			}
			again := w.again(act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
			require.NoError(t, again.run())
			assert.Equal(t, 1, again.count("interrupted migration is run again"))
		})
	}
}

func TestInterruptedMigrationIsRunAgainAndCounted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := interrupted(t, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, exits(5)})
		w.fails(5)
		assert.Equal(t, 1, w.count("interrupted migration is run again"))
		require.Len(t, w.store.checkpoint.History, 1)
		assert.Equal(t, 2, w.store.checkpoint.History[0].Migration.Runs)
		assert.Equal(t, []string{"sync", "v1 stop 40 completed"}, w.store.wrote())
	})
}

func TestStopBeforeAnInterruptedMigrationIsRunAgainStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := interrupted(t)
		w.store.failCheckpoint = func(int) error { w.signals <- syscall.SIGTERM; return nil }
		require.NoError(t, w.run())
		assert.Empty(t, w.store.wrote())
		assert.Equal(t, begun, w.store.stamp.Migration)
	})
}

// If no config says where the state is, the count of runs has to be durable before the migration runs again.
func TestMigrationIsNotRunAgainBeforeThatIsRecorded(t *testing.T) {
	inCheckpoint := func(t *testing.T) *world {
		t.Helper()
		w := interrupted(t)
		w.store.storage, w.store.checkpoint.Stamped, w.store.checkpoint.Stamp, w.store.stamp = "", false, w.store.stamp, nil
		return w
	}
	lives(t, func(t *testing.T) {
		w := inCheckpoint(t)
		w.store.failCheckpoint = failing(1)
		require.ErrorIs(t, w.fails(CodeCheckpointNotWritable), errFull)
	})
	lives(t, func(t *testing.T) {
		w := inCheckpoint(t)
		w.store.failCheckpoint = func(n int) error {
			if n == 1 {
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, begun, w.store.checkpoint.Stamp.Migration)
	})
}

func TestInterruptedMigrationThatCannotBeStartedAgainStaysBegun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := interrupted(t)
		w.startError = &StartError{Code: CodeNotFound, Err: errors.New("no such file")}
		w.fails(CodeNotFound)
		assert.Equal(t, begun, w.store.stamp.Migration, "another run had begun it")
	})
}

func TestStopWithTheRecordOfABeginningTakesItBack(t *testing.T) {
	stops := func(w *world, fails func(n int) error) {
		w.store.failStamp = func(n int) error {
			if n == 1 { // the beginning
				w.signals <- syscall.SIGTERM
			}
			return fails(n)
		}
	}
	lives(t, func(t *testing.T) {
		w := migrates(t)
		stops(w, func(int) error { return nil })
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v1 stop 40 begun", "v0 stop 20"}, w.store.wrote())
		assert.Equal(t, 0, w.store.checkpoint.VersionIndex)
	})
	lives(t, func(t *testing.T) {
		w := migrates(t)
		stops(w, failing(2))
		f := w.fails(CodeCheckpointNotWritable)
		assert.Contains(t, f.Safe, "the record says that it began")
	})
}

func TestMigrationThatCannotBeStartedWasNotBegun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.acts[0].does = func(p *fakeProcess) {
			w.mu.Lock()
			w.startError = &StartError{Code: CodeNotExecutable, Err: errors.New("exec format error")}
			w.mu.Unlock()
			answers(20)(p)
		}
		w.fails(CodeNotExecutable)
		assert.Equal(t, []string{"v1 stop 40 begun", "v0 stop 20"}, w.store.wrote())
		again := w.again(act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)})
		require.NoError(t, again.run())
		assert.Zero(t, again.count("interrupted migration is run again"))
		assert.Equal(t, 1, again.store.checkpoint.History[1].Migration.Runs)
	})
	lives(t, func(t *testing.T) {
		w := migrates(t)
		w.acts[0].does = func(p *fakeProcess) {
			w.mu.Lock()
			w.startError = &StartError{Code: CodeNotExecutable, Err: errors.New("exec format error")}
			w.mu.Unlock()
			answers(20)(p)
		}
		w.store.failStamp = failing(2)
		w.fails(CodeCheckpointNotWritable)
	})
}

func TestEndOfAMigrationIsRecordedAsSoonAsTheVolumeTakesIt(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, exits(5)})
		w.store.failStamp = failing(2, 5)
		w.fails(5)
		assert.Equal(t, completed, w.store.stamp.Migration)
		assert.Equal(t, 4, w.count("record not written"))
	})
}

func TestEndOfAMigrationThatCannotBeRecordedLeavesItBegun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)})
		w.store.failStamp = failing(2, 1000)
		f := w.fails(CodeCheckpointNotWritable)
		require.ErrorIs(t, f, errFull)
		require.Len(t, f.Remedies, 1)
		r := f.Remedies[0]
		assert.Equal(t, []any{1, true, true}, []any{r.Version, r.Migrated, r.Force})
		assert.Equal(t, 10, w.count("record not written"))
		assert.Equal(t, begun, w.store.stamp.Migration)
	})
}

// The kernel reports an error of writing back once. A second sync would succeed without the data.
func TestMigrationWhoseWritesAreNotOnDiskIsNotCompleted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, exits(0)})
		syncs := 0
		w.store.failSync = func() error {
			if syncs++; syncs == 1 {
				return errFull
			}
			return nil
		}
		f := w.fails(CodeCheckpointNotWritable)
		require.ErrorIs(t, f, errFull)
		assert.Empty(t, f.Remedies, "nobody may say that it was migrated")
		assert.Equal(t, 1, syncs)
		assert.Equal(t, begun, w.store.stamp.Migration)
	})
}

func TestLeftoversOfAMigrationThatCannotBeEndedStopTheUpgrade(t *testing.T) {
	for _, code := range []int{0, 17} {
		lives(t, func(t *testing.T) {
			w := interrupted(t, act{m1, exits(code)})
			w.sweepError = errors.New("operation not permitted")
			require.ErrorContains(t, w.fails(CodeMismatch), "operation not permitted")
		})
	}
}

func TestNextVersionIsCheckedAgainBeforeTheHandOver(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t).withPlan(twoVersions())
		w.acts = []act{{v0, func(p *fakeProcess) {
			w.files.problems = map[int]Problems{1: {"gone"}}
			p.at(20)
			p.exits(0)
		}}, {askV0, answers(20)}}
		f := w.failsBecause(FilesInvalid)
		require.ErrorContains(t, f, "version 1: gone")
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
	})
}

func TestUnreadableNextVersionIsNotHandedOverTo(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}).withPlan(twoVersions())
		w.files.digest = func(binary string) (string, error) {
			if binary == "/v1" {
				return "", errors.New("input/output error")
			}
			return "ok", nil
		}
		w.failsBecause(FilesInvalid)
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
		assert.Equal(t, 1, w.count("next version unreadable"))
	})
}

func TestStopDuringAHandOverWriteStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(40)})
		w.store.failStamp = func(n int) error {
			if n == 1 {
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, 2, w.store.stamp.VersionIndex)
		again := w.again(act{askV2, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, again.run(), "the next start asserts the start height")
	})
}

func TestMigrationGetsTheConfigAndTheEnvironmentOfItsVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := migrates(t, act{m1, func(p *fakeProcess) {
			assert.Equal(t, []string{"A=1"}, p.command.Env)
			p.exits(4)
		}})
		w.plan.Versions[1].Env = []string{"A=1"}
		w.fails(4)
	})
}
