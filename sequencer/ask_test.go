package sequencer

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// onStdout writes the refusal on standard output and exits with the code.
func onStdout(code int, height uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		fmt.Fprintf(p.command.Stdout, "ERROR rollup: exiting error=Failed to initialize Caused by: %s\n backtrace=0: core\n", p.refusal(height))
		p.exits(code)
	}
}

// answered1 is a world at version 1 whose binary has answered before.
func answered1(t *testing.T, acts ...act) *world {
	t.Helper()
	w := worldAt(t, stamped(1), acts...)
	w.store.checkpoint.Answers = []string{"sha of /v1"}
	return w
}

func TestSentenceWithTheNonceIsTheAnswer(t *testing.T) {
	for name, does := range map[string]func(*fakeProcess){
		"a panic":           answers(30),
		"on stdout, exit 1": onStdout(1, 30),
		"exit 0":            onStdout(0, 30),
		"exit 2":            onStdout(2, 30),
		"killed":            func(p *fakeProcess) { p.says(p.refusal(30)); p.ends(Exit{Signal: syscall.SIGKILL}) },
		"sov-rollup-manager's mock": func(p *fakeProcess) {
			p.says("start_at_height (" + p.nonce + ") != current_height + 1 (31)")
			p.exits(1)
		},
		"a megabyte of backtrace after it": func(p *fakeProcess) {
			p.says(p.refusal(30) + "\n" + strings.Repeat("   0: core::panicking::panic_fmt\n", 1<<15))
			p.exits(101)
		},
		"a hyperlink in it": func(p *fakeProcess) {
			p.says("The requested start_at_rollup_height: \x1b]8;;https://example.org\x1b\\" + p.nonce + "\x1b]8;;\x1b\\, is different than expected height \"31\"")
			p.exits(101)
		},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), act{askV1, does}, act{v1Later, stoppedAt(31)})
				require.NoError(t, w.run())
				assert.Equal(t, 1, w.count("height confirmed"))
				assert.Equal(t, new(uint64(30)), w.store.checkpoint.Height)
				assert.Equal(t, []string{"sha of /v1"}, w.store.checkpoint.Answers, "it is remembered that this binary answers")
			})
		})
	}
}

func TestHeightThatWasAskedDecides(t *testing.T) {
	for _, test := range []struct {
		height   uint64
		cause    Cause
		followed []act
	}{
		{19, StateBelow, nil},
		{20, "", []act{{v1First, stoppedAt(21)}}},
		{21, "", []act{{v1Later, stoppedAt(22)}}},
		{39, "", []act{{v1Later, stoppedAt(40)}}},
		{40, "", []act{{v2First, stoppedAt(41)}}},
		{41, Overrun, nil},
	} {
		t.Run(fmt.Sprint(test.height), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), append([]act{{askV1, answers(test.height)}}, test.followed...)...)
				if test.cause != "" {
					w.failsBecause(test.cause)
					assert.Empty(t, w.store.wrote(), "nothing is written after the start")
					return
				}
				require.NoError(t, w.run())
			})
		})
	}
}

// The blocks above the stop height were made by the wrong version, so no command is offered that would accept them.
func TestPlanThatWasDeployedTooLateIsRefusedForGood(t *testing.T) {
	for _, stop := range []uint64{0, 50} { // what the node was last started with
		lives(t, func(t *testing.T) {
			w := worldAt(t, changed(stamped(1), func(s *checkpoint.Stamp) { s.StopHeight = stop }), act{askV1, answers(45)})
			f := w.failsBecause(TooLate)
			assert.EqualValues(t, 45, *f.Height)
			w = w.again(act{askV1, answers(45)})
			w.failsBecause(TooLate)
			assert.Equal(t, stop, w.store.stamp.StopHeight, "it is not forgotten what it was started with")
			w = w.again(act{askV1, exits(101)})
			assert.Empty(t, w.fails(101).Remedies, "whatever the node says the second time")
		})
	}
}

func TestOverrunIsRefusedForGood(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0), act{askV0, answers(25)})
		w.failsBecause(Overrun)
		w = w.again(act{askV0, answers(25)})
		w.failsBecause(Overrun)
		w = w.again(act{askV0, func(p *fakeProcess) {
			p.says("The requested stop_height 20 must be greater than the current_height 20")
			p.exits(101)
		}})
		assert.Empty(t, w.fails(101).Remedies)
		assert.Empty(t, w.store.wrote())
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
	})
}

func TestNodeThatDoesNotKnowTheFlagCannotBeAsked(t *testing.T) {
	for name, test := range map[string]struct {
		does func(*fakeProcess)
		code int
	}{
		"exit 2":                     {exits(2), 2},
		"the nonce in unknown words": {func(p *fakeProcess) { p.says("start height " + p.nonce + " is not ours"); p.exits(1) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w, o := watched(worldAt(t, stamped(1), act{askV1, test.does}, act{v1Later, stoppedAt(31)}))
				require.NoError(t, w.run(), "it runs without a start height")
				assert.Equal(t, 1, w.count("node cannot be asked"))
				assert.True(t, o.last().CannotBeAsked)
				assert.Empty(t, w.store.checkpoint.Answers)
			})
			lives(t, func(t *testing.T) {
				w := answered1(t, act{askV1, test.does})
				f := w.fails(test.code)
				assert.Empty(t, f.Cause, "a binary that has answered before has only failed")
				assert.Equal(t, 1, w.store.checkpoints, "nothing is written after the start")
			})
		})
	}
}

func TestAnotherBinaryThanTheOneThatAnsweredMayBeUnaskable(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := answered1(t, act{askV1, exits(2)}, act{v1Later, stoppedAt(31)})
		w.store.checkpoint.Answers = []string{"sha of an older release"}
		require.NoError(t, w.run())
	})
}

func TestNextVersionThatAnswersIsNotTakenForOneThatCannotBeAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(worldAt(
			t, changed(stamped(0), func(s *checkpoint.Stamp) { s.Complete = true }),
			act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)},
		))
		w.plan.Versions[0].NeverAsk = true
		require.NoError(t, w.run())
		assert.False(t, o.last().CannotBeAsked)
	})
}

func TestNodeThatComesUpDespiteAnImpossibleStartHeightIsStopped(t *testing.T) {
	for name, ends := range map[string]Exit{"exit 0": {}, "exit 1": {Code: 1}, "exit 2": {Code: 2}, "killed by SIGTERM": {Signal: syscall.SIGTERM}} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
					p.says("starting at " + p.nonce)
					p.listens()
					p.gets(syscall.SIGTERM)
					time.Sleep(10 * time.Minute) // a slow shutdown is waited for
					assert.Empty(t, p.signals)
					p.ends(ends)
				}})
				f := w.failsBecause(CameUp)
				assert.Contains(t, f.Next, `"ask": false`)
				assert.Contains(t, f.Stderr, "starting at")
				assert.Empty(t, w.store.wrote())
			})
		})
	}
}

func TestStrangerOnThePortIsNotTakenForANodeThatCameUp(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
			time.Sleep(time.Minute)
			assert.Empty(t, p.signals)
			answers(30)(p)
		}}, act{v1Later, then(syscall.SIGTERM, func(p *fakeProcess) {
			p.gets(syscall.SIGTERM)
			p.exits(0)
		})})
		w.stranger = true
		require.NoError(t, w.run())
	})
}

func TestNodeThatExitsZeroWhenItIsAskedIsAskedAgain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, exits(0)}, act{askV1, exits(0)}, act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		w.options.Restarts = 2
		require.NoError(t, w.run())
		assert.Equal(t, 1, strings.Count(w.started[0], fmt.Sprint(uint64(firstNonce))))
		assert.Equal(t, 1, strings.Count(w.started[2], fmt.Sprint(uint64(firstNonce+2))), "each time with another number")
	})
	t.Run("but not for ever", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, exits(0)}, act{askV1, exits(0)}, act{askV1, exits(0)})
			w.options.Restarts = 2
			assert.Equal(t, EarlyExits, w.fails(CodeEarlyExit).Cause)
			assert.Empty(t, w.store.wrote())
		})
	})
	t.Run("also one that names the number in unknown words", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) { p.says("args: --start-at-rollup-height " + p.nonce); p.exits(0) }})
			w.options.Restarts = 0
			w.fails(CodeEarlyExit)
		})
	})
}

func TestNodeThatFailsWhenItIsAskedEndsTheRunWithItsOwnCode(t *testing.T) {
	for name, test := range map[string]struct {
		does func(*fakeProcess)
		code int
	}{
		"no DA":        {func(p *fakeProcess) { p.says("cannot reach the DA"); p.exits(101) }, 101},
		"exit 1":       {exits(1), 1},
		"killed":       {func(p *fakeProcess) { p.ends(Exit{Signal: syscall.SIGKILL}) }, 137},
		"segmentation": {func(p *fakeProcess) { p.ends(Exit{Signal: syscall.SIGSEGV}) }, 139},
		"two answers that contradict each other": {func(p *fakeProcess) {
			p.says(p.refusal(30))
			p.says(p.refusal(40))
			p.exits(101)
		}, 101},
		"the answer to an earlier question": {func(p *fakeProcess) {
			p.says(strings.Replace(p.refusal(40), p.nonce, fmt.Sprint(uint64(firstNonce-1)), 1))
			p.exits(101)
		}, 101},
		"a refusal of the start height of the plan": {func(p *fakeProcess) {
			p.says("The requested start_at_rollup_height: 21, is different than expected height 41")
			p.exits(101)
		}, 101},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), act{askV1, test.does})
				f := w.fails(test.code)
				assert.Empty(t, f.Cause)
				assert.Empty(t, w.store.wrote(), "nothing is written after the start")
				assert.Equal(t, 1, w.store.checkpoints, "after the start")
			})
		})
	}
}

func TestLastLinesOfANodeThatGaveNoAnswerAreShownAndNoOthers(t *testing.T) {
	lives(t, func(t *testing.T) {
		var stderr bytes.Buffer
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
			fmt.Fprintln(p.command.Stdout, "ERROR cannot reach the DA")
			p.says("thread 'main' panicked")
			p.exits(101)
		}})
		w.options.Stderr = &stderr
		f := w.fails(101)
		assert.Equal(t, "ERROR cannot reach the DA\nthread 'main' panicked", f.Stderr)
		assert.Empty(t, stderr.String(), "what a question writes is kept apart")
	})
	lives(t, func(t *testing.T) {
		var stderr bytes.Buffer
		w := worldAt(t, stamped(1), act{askV1, answers(25)}, act{v1Later, func(p *fakeProcess) { p.says("hello"); stoppedAt(26)(p) }})
		w.options.Stderr = &stderr
		require.NoError(t, w.run())
		assert.Equal(t, "hello\n", stderr.String(), "a panic at every start would set off alarms")
		assert.NotContains(t, w.log.String(), "is different than expected height")
	})
}

func TestStopWhileANodeIsAskedEndsTheRunWell(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		for name, ends := range map[string]func(*fakeProcess){
			"it refuses":                answers(30),
			"it fails":                  exits(1),
			"it exits 0":                exits(0),
			"it is killed by the stop":  func(p *fakeProcess) { p.ends(Exit{Signal: sig}) },
			"it does not know the flag": exits(2),
		} {
			t.Run(signalname.Of(sig)+", "+name, func(t *testing.T) {
				lives(t, func(t *testing.T) {
					w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
						p.w.signals <- sig
						p.gets(sig)
						ends(p)
					}})
					require.NoError(t, w.run())
					assert.Nil(t, w.store.checkpoint.Height)
					assert.Empty(t, w.store.wrote())
				})
			})
		}
	}
}

func TestStopThatComesWithTheAnswerCounts(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
			p.w.late <- syscall.SIGTERM
			answers(30)(p)
		}})
		require.NoError(t, w.run())
	})
}

func TestNodeThatSomethingElseKillsWhileItIsStoppedHasFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.ends(Exit{Signal: syscall.SIGSEGV})
		}})
		w.fails(139)
	})
}

func TestStopTimeoutHoldsForANodeThatIsAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.options.StopTimeout = 25 * time.Second
		w.acts = []act{{askV1, func(p *fakeProcess) {
			asked := time.Now()
			w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			time.Sleep(11 * time.Second)
			w.signals <- syscall.SIGTERM // does not buy more time
			p.gets(syscall.SIGTERM)
			p.gets(syscall.SIGKILL)
			assert.Equal(t, 25*time.Second, time.Since(asked))
			p.ends(Exit{Signal: syscall.SIGKILL})
		}}}
		w.fails(137)
	})
}

func TestQuestionThatTakesLongIsLoggedOnceAndWaitedFor(t *testing.T) {
	for took, want := range map[time.Duration]int{29 * time.Second: 0, 31 * time.Second: 1, time.Hour: 1} {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) {
				time.Sleep(took)
				answers(30)(p)
			}}, act{v1Later, stoppedAt(31)})
			require.NoError(t, w.run())
			assert.Equal(t, want, w.count("question takes long"), took)
		})
	}
}

func TestQuestionIsStartedAsARunIs(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2 + " --own --genesis-path g.json", func(p *fakeProcess) {
			assert.Equal(t, append([]string{"A=1", "RUST_LOG=off"}, sovereign.QuestionEnv()...), p.command.Env)
			answers(50)(p)
		}}, act{v2Later + " --own --genesis-path g.json", func(p *fakeProcess) {
			assert.Equal(t, []string{"A=1", "RUST_LOG=off"}, p.command.Env)
			stoppedAt(51)(p)
		}})
		w.plan.Versions[2].Args, w.plan.Versions[2].Env = []string{"--own"}, []string{"A=1", "RUST_LOG=off"}
		w.options.NodeArgs = []string{"--genesis-path", "g.json"}
		require.NoError(t, w.run())
	})
}

func TestNodeThatCannotBeStartedToBeAskedEndsWithTheShellsCode(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.startError = &StartError{Code: CodeNotExecutable, Err: errors.New("exec format error")}
		require.ErrorContains(t, w.fails(CodeNotExecutable), "exec format error")
	})
}

func TestNodeThatCannotBeWatchedIsNotAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.options.Heights = func(Version) (HeightReader, error) { return nil, errors.New("no port") }
		w.failsBecause(FilesInvalid)
	})
}

func TestWhatAnAskedNodeLeavesBehindIsEnded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(30)})
		w.sweepError = errors.New("operation not permitted")
		require.ErrorContains(t, w.fails(CodeMismatch), "operation not permitted")
		assert.Len(t, w.sweeps, 1)
	})
}

func TestStateThatIsExchangedDuringARunIsNotTouched(t *testing.T) {
	for name, test := range map[string]struct {
		exchange func(m *memoryStore)
		code     int
		cause    Cause
	}{
		"by one of another version":  {func(m *memoryStore) { m.stamp = stamped(0) }, CodeMismatch, OtherState},
		"by one of the same version": {func(m *memoryStore) { m.stamp = stamped(1) }, CodeMismatch, OtherState},
		"by one without a stamp":     {func(m *memoryStore) { m.stamp = nil }, CodeMismatch, OtherState},
		"by a torn stamp":            {func(m *memoryStore) { m.loadError = errors.New("the file is torn") }, CodeCheckpointUnreadable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, changed(stamped(1), func(s *checkpoint.Stamp) { s.StopHeight = 0 }), act{askV1, answers(30)})
				w.acts = append(w.acts, act{v1Later, func(p *fakeProcess) {
					p.at(40)
					w.store.mu.Lock()
					test.exchange(w.store)
					w.store.mu.Unlock()
					p.exits(0)
				}})
				err := Run(w.prepared())
				var f *Failure
				require.ErrorAs(t, err, &f)
				assert.Equal(t, test.code, f.Code)
				assert.Equal(t, test.cause, f.Cause)
				assert.Empty(t, w.acts)
			})
		})
	}
}

func TestStateThatIsGoneAfterARunIsNoNewChain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(30)})
		w.acts = append(w.acts, act{v1Later, func(p *fakeProcess) {
			p.at(31)
			w.store.mu.Lock()
			w.store.state = checkpoint.StateNone
			w.store.mu.Unlock()
			p.noGenesis = true
			p.exits(0)
		}})
		w.failsBecause(StateGone, Remedy{Version: 0, Force: true})
	})
}

// A state that is gone is not taken for one that never was: a genesis that failed leaves our stamp, and nobody had
// given a height.
func TestFirstVersionsStateThatIsGoneDuringARunIsNoNewChain(t *testing.T) {
	loses := func(w *world, change func(m *memoryStore)) func(*fakeProcess) {
		return func(p *fakeProcess) {
			w.store.mu.Lock()
			change(w.store)
			w.store.mu.Unlock()
			p.noGenesis = true
			p.exits(0)
		}
	}
	t.Run("with its stamp", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t)
			w.acts = []act{{v0, loses(w, func(m *memoryStore) { m.stamp = nil })}}
			w.failsBecause(StateGone, Remedy{Version: 0, Force: true})
		})
	})
	t.Run("after it had a height", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(0), act{askV0, answers(7)})
			w.acts = append(w.acts, act{v0, loses(w, func(m *memoryStore) { m.state = checkpoint.StateNone })})
			w.failsBecause(StateGone, Remedy{Version: 0, Force: true})
		})
	})
	t.Run("but not one that never was", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t)
			w.acts = []act{{v0, loses(w, func(*memoryStore) {})}, {v0, stoppedAt(3)}}
			require.NoError(t, w.run(), "a replica that wins the leadership exits 0 before its genesis")
		})
	})
}

func TestNonceIsRandomAndNoHeight(t *testing.T) {
	var seen []uint64
	var ones, zeros uint64
	for range 1000 {
		n := randomNonce()
		require.GreaterOrEqual(t, n, uint64(1<<48))
		require.Less(t, n, uint64(1<<63))
		require.NotContains(t, seen, n)
		seen = append(seen, n)
		ones, zeros = ones|n, zeros|^n
	}
	random := ones & zeros
	bits := 0
	for ; random != 0; random &= random - 1 {
		bits++
	}
	assert.GreaterOrEqual(t, bits, 48, "bits that are sometimes set and sometimes not")
	assert.False(t, slices.IsSorted(seen))
}

func TestQuestionHasARandomNonceByDefault(t *testing.T) {
	s := newSequence(Options{Log: nopLog(), Store: &memoryStore{}})
	defer s.follower.finish()
	assert.NotEqual(t, s.Nonce(), s.Nonce())
}

// A node is not asked if the plan says so.
func TestVersionThatMustNotBeAskedIsNot(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{v1Later, stoppedAt(31)})
		w.plan.Versions[1].NeverAsk = true
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("node cannot be asked"))
		assert.Equal(t, uint64(firstNonce-1), w.nonce)
	})
}
