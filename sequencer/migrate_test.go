package sequencer

import (
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func nopLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func countEvents(w *world, text string) int { return strings.Count(w.events(), `msg="`+text+`"`) }

// due is the checkpoint after v0's proven end, with v1's migration not begun.
func due() *Checkpoint {
	c := record(1, PhaseMigrating, false)
	c.History = []Completed{{VersionIndex: 0, StopHeight: 20, Proof: ProofDurable}}
	return c
}

func TestFirstStopSignalLetsTheMigrationFinish(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.options.StopTimeout = time.Second
		w.acts = []act{{m1, func(p *fakeProcess) {
			w.signals <- syscall.SIGTERM
			time.Sleep(time.Hour)
			assert.Empty(t, p.signals)
			p.exits(0)
		}}}
		require.NoError(t, w.run())
		assert.True(t, w.store.have.MigrationCompleted)
		assert.Equal(t, PhaseRunning, w.store.have.Phase)

		again := newWorld(t)
		again.store = w.store
		again.acts = []act{{v1First, then(again, syscall.SIGTERM, runsUntilStopped(21))}}
		require.NoError(t, again.run(), "the completed migration is not run again")
	})
}

func TestMigrationThatTakesLongIsToldOfEachHalfMinute(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.acts = []act{
			{m1, func(p *fakeProcess) {
				time.Sleep(101 * time.Second)
				p.exits(0)
			}},
			{v1First, then(w, syscall.SIGTERM, runsUntilStopped(21))},
		}
		require.NoError(t, w.run())
		for _, line := range []string{`"migration still runs" version=1 pid=101 seconds=30`, "seconds=60", "seconds=90", `"migration finished" version=1 exit="exited 0" exit_code=0 seconds=101`} {
			assert.Equal(t, 1, strings.Count(w.events(), line), "%s in\n%s", line, w.events())
		}
		assert.Equal(t, 3, countEvents(w, "migration still runs"), "and not after its end")
	})
}

func TestSecondStopSignalIsPassedOnToTheMigration(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.options.StopTimeout = 10 * time.Second
		w.acts = []act{{m1, func(p *fakeProcess) {
			w.signals <- syscall.SIGTERM
			w.signals <- syscall.SIGINT
			p.gets(syscall.SIGINT)
			p.gets(syscall.SIGKILL)
			p.ends(Exit{Signal: syscall.SIGKILL})
		}}}
		f := w.fails(137)
		assert.Contains(t, f.What, "the migration of version 1 was killed by SIGKILL")
		assert.Equal(t, "v1 migrating started", w.store.story()[len(w.store.story())-1])
	})
}

func TestOtherSignalsWaitForTheNode(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.acts = []act{
			{m1, func(p *fakeProcess) {
				w.signals <- syscall.SIGHUP
				time.Sleep(time.Minute)
				assert.Empty(t, p.signals)
				p.exits(0)
			}},
			{v1First, func(p *fakeProcess) {
				p.gets(syscall.SIGHUP)
				p.ends(Exit{Signal: syscall.SIGHUP})
			}},
		}
		w.fails(129)
	})
}

func TestMigrationFailureStopsUpgrade(t *testing.T) {
	for policy, says := range map[OnInterrupted]string{Rerun: "the next start runs it again", Halt: "the next start halts"} {
		t.Run(string(policy), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.plan.Versions[1].OnInterrupted = policy
				w.store.have = due()
				w.acts = []act{{m1, func(p *fakeProcess) {
					p.says("rollup-db-migration failed: no space")
					p.exits(17)
				}}}
				f := w.fails(17)
				assert.Contains(t, f.What, "the migration of version 1 exited 17")
				assert.Contains(t, f.Stderr, "no space")
				assert.Contains(t, f.Next, says)
				assert.False(t, w.store.have.MigrationCompleted)
			})
		})
	}
}

func TestInterruptedMigrationIsRunAgainLoudly(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{m1, exits(0)}, act{v1First, exits(5)})
		w.store.have = due()
		w.store.have.Started = true
		w.fails(5)
		assert.Equal(t, 1, countEvents(w, "interrupted migration is run again"))
	})
}

func TestStopBeforeAnInterruptedMigrationIsRunAgainStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t) // in which no process is expected
		w.store.have = due()
		w.store.have.Started = true
		w.store.fail = func(int) error {
			w.signals <- syscall.SIGTERM
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v1 migrating started"}, w.store.story())
	})
}

func TestInterruptedMigrationHaltsWhereItIsForbidden(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan.Versions[1].OnInterrupted = Halt
		w.store.have = due()
		w.store.have.Started = true
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Next, "entrypoint checkpoint set --version 1")
		assert.Zero(t, w.store.tries)
	})
}

func TestMigrationOfAHandSetCheckpointWaitsForAProof(t *testing.T) {
	tests := map[string]struct {
		history []Completed
		before  []act
	}{
		"refused at once":        {nil, []act{{v0, refusesStop(20, 20)}}},
		"runs on first":          {nil, []act{{v0, reaches(15, 20)}, {v0, refusesStop(20, 20)}}},
		"stop height was raised": {[]Completed{{StopHeight: 10, Proof: ProofDurable}}, []act{{v0, refusesStop(20, 20)}}},
		"read, not proven":       {[]Completed{{StopHeight: 20, Proof: ProofHeight}}, []act{{v0, refusesStop(20, 20)}}},
		"by the operator's word": {[]Completed{{StopHeight: 20, Proof: ProofSlack}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t, append(test.before, act{m1, exits(6)})...)
				w.store.have = record(1, PhaseMigrating, false)
				w.store.have.History = test.history
				w.fails(6)
			})
		})
	}
}

func TestMigrationWithoutAProofIsNotStarted(t *testing.T) {
	t.Run("state beyond", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, refusesStop(20, 33)})
			w.store.have = record(1, PhaseMigrating, false)
			f := w.fails(CodeMismatch)
			assert.Contains(t, f.Error(), "entrypoint checkpoint set --version 1 --migrated")
			assert.False(t, w.store.have.Started)
		})
	})
	t.Run("binary gone", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t)
			w.store.have = record(1, PhaseMigrating, false)
			w.files.problems = map[int]Problems{0: {"version 0: gone"}}
			assert.Contains(t, w.fails(CodeMismatch).Error(), "prove its stop height first: version 0: gone")
		})
	})
	t.Run("stop while proving", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t)
			w.store.have = record(1, PhaseMigrating, false)
			w.acts = []act{{v0, then(w, syscall.SIGTERM, refusesStop(20, 20))}}
			require.NoError(t, w.run())
			assert.False(t, w.store.have.Started)
		})
	})
}

func TestStopWithTheRecordOfABeginningTakesItBack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.store.fail = func(n int) error {
			if n == 1 {
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v1 migrating", "v1 migrating started", "v1 migrating"}, w.store.story())
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.store.fail = func(n int) error {
			if n == 1 {
				w.signals <- syscall.SIGTERM
			}
			if n == 2 {
				return errors.New("no space left on device")
			}
			return nil
		}
		assert.Contains(t, w.fails(CodeCheckpointNotWritable).Safe, "the checkpoint says that it was begun")
	})
}

func TestMigrationThatCannotBeStartedWasNotBegun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.startError = &StartError{Code: CodeNotExecutable, Err: errors.New("exec format error")}
		w.fails(CodeNotExecutable)
		assert.False(t, w.store.have.Started)
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = due()
		w.startError = &StartError{Code: CodeNotExecutable, Err: errors.New("exec format error")}
		w.store.fail = func(n int) error {
			if n == 2 {
				return errors.New("no space left on device")
			}
			return nil
		}
		w.fails(CodeCheckpointNotWritable)
	})
}

func TestEndOfAMigrationIsRecordedAsSoonAsTheVolumeTakesIt(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{m1, exits(0)}, act{v1First, exits(5)})
		w.store.have = due()
		w.store.fail = func(n int) error {
			if n >= 2 && n < 6 {
				return errors.New("no space left on device")
			}
			return nil
		}
		w.fails(5)
		assert.True(t, w.store.have.MigrationCompleted)
	})
}

func TestEndOfAMigrationThatCannotBeRecordedIsTold(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{m1, exits(0)})
		w.store.have = due()
		w.store.fail = func(n int) error {
			if n >= 2 {
				return errors.New("no space left on device")
			}
			return nil
		}
		f := w.fails(CodeCheckpointNotWritable)
		assert.Contains(t, f.Next, "entrypoint checkpoint set --version 1 --migrated")
		assert.Equal(t, 2+recordTries, w.store.tries)
	})
}

func TestLeftoversOfAMigrationThatCannotBeEndedStopTheUpgrade(t *testing.T) {
	for _, code := range []int{0, 17} {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{m1, exits(code)})
			w.store.have = due()
			w.sweepError = errors.New("operation not permitted")
			w.fails(CodeMismatch)
			assert.Equal(t, code == 0, w.store.have.MigrationCompleted, "what completed is recorded first")
		})
	}
}
