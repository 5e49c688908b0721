package sequencer

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer/checkpoint"
)

func TestStartHeightIsAssertedOnlyJustBelowTheFirstHeight(t *testing.T) {
	for height, command := range map[uint64]string{20: v1First, 21: v1Later, 30: v1Later} {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(1), act{askV1, answers(height)}, act{command, stoppedAt(height + 1)})
			require.NoError(t, w.run())
		})
	}
}

// What a node writes while it runs can be anybody's words: a memo in a transaction, for instance.
func TestQuotedRefusalIsNoEvidence(t *testing.T) {
	quote := func(text string, code int) func(*fakeProcess) {
		return func(p *fakeProcess) {
			p.at(25)
			p.says(text)
			p.exits(code)
		}
	}
	for _, code := range []int{1, 101} {
		for _, text := range []string{
			"The requested stop_height 40 must be greater than the current_height 40",
			"The requested start_at_rollup_height: 21, is different than expected height 5",
			fmt.Sprintf("The requested start_at_rollup_height: %d, is different than expected height 41", uint64(firstNonce)),
		} {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), act{askV1, answers(24)}, act{v1Later, quote(text, code)})
				f := w.fails(code)
				assert.Empty(t, f.Cause)
				assert.Empty(t, f.Remedies)
				assert.True(t, sameButTime(*stamped(1), *w.store.stamp), "its words change nothing")
				again := w.again(act{askV1, answers(25)}, act{v1Later, stoppedAt(26)})
				require.NoError(t, again.run(), "and the next start continues with the version")
			})
		}
	}
}

// A node that exits 0 at its stop height by a soft-confirmed height has not committed it. The next version's first
// start that exits 0 before its height check, as a replica that becomes leader does, keeps its assertion.
func TestSoftHeightCompletesNothingAndTheAssertionIsNotDropped(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(
			t,
			act{v0, reaches(19, 20)}, act{askV0, answers(17)},
			act{v0, reaches(20)}, act{askV0, answers(20)},
			act{v1First, exits(0)}, act{askV1, answers(20)},
			act{v1First, reaches(21, 40)}, act{askV1, answers(40)},
		).withPlan(twoVersions())
		require.NoError(t, w.run())
		assert.Equal(t, 2, w.count("restarting the node in place"))
		assert.Equal(t, checkpoint.ProofDurable, w.store.checkpoint.History[0].Proof)
	})
}

func TestExitZeroIsAskedWhateverHeightsWereReported(t *testing.T) {
	for name, does := range map[string]func(*fakeProcess){
		"none at all":                 exits(0),
		"one far below":               reaches(15),
		"one that went backwards":     reaches(19, 3),
		"the stop height":             reaches(20),
		"none since the node started": func(p *fakeProcess) { time.Sleep(time.Hour); p.exits(0) },
	} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := oneVersion(t, act{v0, does}, act{askV0, answers(20)})
				require.NoError(t, w.run())
				assert.Equal(t, checkpoint.PhaseFinished, w.store.checkpoint.Phase)
			})
		})
	}
}

// rounds are as many runs of version 2 that exit 0, each after a pause, and the question after each.
func rounds(count int, pause time.Duration) (acts []act) {
	for range count {
		acts = append(acts, act{v2Later, func(p *fakeProcess) { time.Sleep(pause); p.exits(0) }}, act{askV2, answers(50)})
	}
	return acts
}

func TestNodeThatExitsZeroBelowItsStopHeightIsStartedAgainInPlace(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), append([]act{{askV2, answers(50)}}, rounds(3, time.Minute)...)...)
		w.options.Restarts = 2
		f := w.fails(CodeEarlyExit)
		assert.Equal(t, EarlyExits, f.Cause)
		assert.Equal(t, 2, w.count("restarting the node in place"), "the first start is none")
		assert.True(t, sameButTime(*stamped(2), *w.store.stamp))
	})
	t.Run("at no time where that is not allowed", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(2), append([]act{{askV2, answers(50)}}, rounds(1, time.Minute)...)...)
			w.options.Restarts = 0
			w.fails(CodeEarlyExit)
		})
	})
	t.Run("for ever if it takes its time", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(2), append([]act{{askV2, answers(50)}}, append(rounds(20, 6*time.Minute), act{v2Later, stoppedAt(51)})...)...)
			w.options.Restarts = 2
			require.NoError(t, w.run())
			assert.Equal(t, 20, w.count("restarting the node in place"))
		})
	})
	t.Run("counted together with those that were asked", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(2), act{askV2, exits(0)}, act{askV2, answers(50)}, act{v2Later, exits(0)}, act{askV2, answers(50)})
			w.options.Restarts = 1
			w.fails(CodeEarlyExit)
		})
	})
}

func TestHandOverIsNoRestart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}, act{v1First, reaches(40)}, act{askV1, answers(40)}).withPlan(twoVersions())
		w.options.Restarts = 0
		require.NoError(t, w.run())
	})
}

func TestExitCodesOfTheNodePass(t *testing.T) {
	tests := map[string]struct {
		exit Exit
		code int
	}{
		"panic":          {Exit{Code: 101}, 101},
		"one":            {Exit{Code: 1}, 1},
		"killed":         {Exit{Signal: syscall.SIGKILL}, 137},
		"segmentation":   {Exit{Signal: syscall.SIGSEGV}, 139},
		"killed by TERM": {Exit{Signal: syscall.SIGTERM}, 143},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := oneVersion(t, act{v0, func(p *fakeProcess) {
					p.at(20) // at the stop height: the next start asks
					p.says("last words")
					p.ends(test.exit)
				}})
				f := w.fails(test.code)
				assert.Equal(t, "last words", f.Stderr)
				again := w.again(act{askV0, answers(20)})
				require.NoError(t, again.run())
			})
		})
	}
}

// After a stop the operator must know whether our limit was too short or somebody else killed the node.
func TestFailureAfterAStopSaysWhetherTheStopTimeoutKilled(t *testing.T) {
	for name, limit := range map[string]time.Duration{"by the stop timeout": time.Minute, "by somebody else": 0} {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := oneVersion(t, act{v0, func(p *fakeProcess) {
					p.at(7)
					p.w.signals <- syscall.SIGTERM
					p.gets(syscall.SIGTERM)
					if limit > 0 {
						p.gets(syscall.SIGKILL)
					}
					p.ends(Exit{Signal: syscall.SIGKILL})
				}})
				w.options.StopTimeout = limit
				f := w.fails(137)
				assert.Equal(t, limit > 0, strings.Contains(f.What, "--stop-timeout"), f.What)
				assert.Equal(t, limit > 0, strings.Contains(f.Next, "raise --stop-timeout"), f.Next)
				assert.Contains(t, f.Safe, "whether the state survived the kill shows at the next start")
			})
		})
	}
}

func TestStopIsForwardedAndExitsZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(signalname.Of(sig), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t, act{v0, func(p *fakeProcess) {
					p.at(20) // at the stop height: a stop is a stop
					p.w.signals <- sig
					p.gets(sig)
					time.Sleep(time.Minute)
					p.exits(0)
				}})
				require.NoError(t, w.run())
				assert.Equal(t, 0, w.store.stamp.VersionIndex)
				assert.Empty(t, w.store.checkpoint.History)
			})
		})
	}
}

func TestStopThatComesWithTheExitCounts(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, func(p *fakeProcess) {
			p.at(20)
			p.w.late <- syscall.SIGTERM
			p.exits(0)
		}})
		require.NoError(t, w.run())
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
	})
}

// A node installs its handler at the end of its start-up: until then a stop signal kills it.
func TestNodeThatTheStopSignalKillsAtItsStartIsStoppedAsAsked(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, func(p *fakeProcess) {
				p.w.signals <- sig
				p.gets(sig)
				p.ends(Exit{Signal: sig})
			}})
			require.NoError(t, w.run())
			assert.Equal(t, 1, w.count("stopped"))
		})
	}
}

func TestNodeThatFailsWhileItIsStoppedHasFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, func(p *fakeProcess) {
			p.w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.says("cannot flush")
			p.ends(Exit{Signal: syscall.SIGABRT})
		}})
		f := w.fails(134)
		assert.Equal(t, "cannot flush", f.Stderr)
	})
}

func TestStopTimeoutKillsTheGroup(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.StopTimeout = 25 * time.Second
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(5)
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
		assert.Len(t, w.sweeps, 1)
	})
}

func TestHeightAboveTheStopHeightIsAnAlarmAndTheNodeIsAsked(t *testing.T) {
	for name, ends := range map[string]Exit{"exit 0": {}, "killed by SIGTERM": {Signal: syscall.SIGTERM}} {
		for height, cause := range map[uint64]Cause{20: "", 22: Overrun} {
			t.Run(fmt.Sprintf("%s, %d", name, height), func(t *testing.T) {
				lives(t, func(t *testing.T) {
					w := oneVersion(t, act{v0, func(p *fakeProcess) {
						p.at(19)
						p.at(22)
						p.gets(syscall.SIGTERM)
						p.at(23)
						assert.Empty(t, p.signals, "one signal is enough")
						p.ends(ends)
					}}, act{askV0, answers(height)})
					if cause == "" {
						require.NoError(t, w.run(), "what a node reports is soft")
					} else {
						f := w.failsBecause(cause)
						assert.Equal(t, []uint64{0, 20, 22}, []uint64{f.Start, f.Stop, *f.Height})
					}
					assert.Equal(t, 1, w.count("stopping the node"))
				})
			})
		}
	}
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, func(p *fakeProcess) {
			p.at(22)
			p.gets(syscall.SIGTERM)
			p.exits(101)
		}})
		w.fails(101)
	})
}

func TestHeightBelowTheStartHeightIsNoAlarm(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, answers(40)}, act{v2First, func(p *fakeProcess) {
			p.at(3)
			stoppedAt(math.MaxUint64)(p)
		}})
		require.NoError(t, w.run())
		assert.Zero(t, w.count("stopping the node"))
	})
}

func TestStrangerOnThePortIsNotBelieved(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, reaches(25)}, act{askV0, answers(20)})
		w.stranger = true
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("height unknown"))
		assert.Zero(t, w.count("stopping the node"))
	})
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, exits(1)})
		w.stranger = true
		assert.Contains(t, w.fails(1).Next, "c0", "whose port it is")
	})
}

func TestSilenceIsWarnedOfOnce(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, func(p *fakeProcess) {
			time.Sleep(10 * silence)
			p.at(20)
			p.exits(0)
		}}, act{askV0, answers(20)})
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("height unknown"))
		assert.Equal(t, 1, w.count("height known again"))
	})
}

// neverAsked is version 1 of a world whose node must not be asked.
func neverAsked(t *testing.T, stamp *checkpoint.Stamp, acts ...act) *world {
	t.Helper()
	w := worldAt(t, stamp, acts...)
	w.plan.Versions[1].NeverAsk = true
	return w
}

func TestCompletionOfANodeThatCannotBeAskedIsAPersonsWord(t *testing.T) {
	word := Remedy{Version: 1, Migrated: true, Complete: true}
	lives(t, func(t *testing.T) {
		w := neverAsked(t, stamped(1), act{v1Later, reaches(30, 40)})
		w.failsBecause(NotAnswered, word)
		assert.Equal(t, 1, w.store.stamp.VersionIndex)
		assert.False(t, w.store.stamp.Complete)

		w = w.again(act{v1Later, func(p *fakeProcess) {
			p.says("The requested stop_height 40 must be greater than the current_height 40")
			p.exits(1)
		}})
		f := w.failsBecause(NotAnswered, word)
		assert.Contains(t, f.Stderr, "must be greater", "a start that fails may be the node's way to say so")

		adopted, err := Adopt(w.plan, checkpoint.Found{Stamp: w.store.stamp, Checkpoint: w.store.checkpoint, Storage: "/data/state", State: checkpoint.StatePresent},
			Word{Version: 1, Migrated: true, Complete: true}, "")
		require.NoError(t, err)
		w.store.stamp, w.store.checkpoint = &adopted.Stamp, &adopted.Checkpoint
		w = w.again(act{askV2, answers(40)}, act{v2First, stoppedAt(41)})
		require.NoError(t, w.run(), "the command that was offered is followed, and the next version's node is asked")
		assert.Equal(t, checkpoint.ProofWord, w.store.checkpoint.History[0].Proof)
	})
}

func TestWordForAnotherStopHeightDoesNotCount(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := neverAsked(t, changed(stamped(1), func(s *checkpoint.Stamp) { s.Complete, s.StopHeight = true, 30 }), act{v1Later, stoppedAt(31)})
		require.NoError(t, w.run())
		assert.False(t, w.store.stamp.Complete)
	})
}

func TestOtherEndsOfANodeThatCannotBeAsked(t *testing.T) {
	lives(t, func(t *testing.T) { // failed later
		w := neverAsked(t, stamped(1), act{v1Later, reachesAndExits(101, 30)})
		assert.Empty(t, w.fails(101).Cause)
	})
	lives(t, func(t *testing.T) { // exit 0 below the stop height
		w := neverAsked(t, stamped(1), act{v1Later, reaches(30)}, act{v1Later, exits(0)}, act{v1Later, stoppedAt(31)})
		require.NoError(t, w.run())
		assert.Equal(t, 2, w.count("restarting the node in place"))
	})
	lives(t, func(t *testing.T) { // a version without a stop height is never complete
		w := worldAt(t, stamped(2), act{v2Later, exits(101)})
		w.plan.Versions[2].NeverAsk = true
		assert.Empty(t, w.fails(101).Cause)
	})
}

func TestNodeWithoutTheFlagIsAskedAgainAfterEachRun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, exits(2)}, act{v1Later, reaches(30)}, act{askV1, answers(30)}, act{v1Later, stoppedAt(31)})
		require.NoError(t, w.run())
	})
}

func TestHeightSlackCountsForANodeThatCannotBeAsked(t *testing.T) {
	for height, complete := range map[uint64]bool{34: false, 35: true, 39: true, 40: true} {
		t.Run(fmt.Sprint(height), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := neverAsked(t, stamped(1), act{v1Later, reaches(height)})
				w.options.Slack = new(uint64(5))
				if complete {
					w.acts = append(w.acts, act{askV2, answers(40)}, act{v2First, stoppedAt(41)})
				} else {
					w.acts = append(w.acts, act{v1Later, stoppedAt(35)})
				}
				require.NoError(t, w.run())
				if !complete {
					assert.Equal(t, 1, w.store.stamp.VersionIndex)
					return
				}
				assert.Equal(t, []string{"v1 stop 40 completed complete", "v2 stop 0"}, w.store.wrote())
				assert.Equal(t, checkpoint.ProofSlack, w.store.checkpoint.History[0].Proof)
				assert.Equal(t, 1, w.count("complete by the height slack"))
			})
		})
	}
	t.Run("larger than the stop height", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := oneVersion(t, act{v0, reaches(1)})
			w.store.state, w.store.stamp, w.store.checkpoint = checkpoint.StatePresent, stamped(0), following(stamped(0))
			w.plan.Versions[0].NeverAsk, w.options.Slack = true, new(uint64(1000))
			require.NoError(t, w.run())
		})
	})
	t.Run("not written", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := neverAsked(t, stamped(1), act{v1Later, reaches(39)})
			w.options.Slack = new(uint64(5))
			w.store.failStamp = failing(1)
			w.fails(CodeCheckpointNotWritable)
		})
	})
}

func TestHeightSlackMeansNothingForANodeThatCanBeAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, reaches(19)}, act{askV0, answers(19)}, act{v0, reaches(20)}, act{askV0, answers(20)})
		w.options.Slack = new(uint64(5))
		require.NoError(t, w.run())
		assert.Equal(t, checkpoint.ProofDurable, w.store.checkpoint.History[0].Proof)
	})
}

func TestLackOfMemoryIsNamedAsTheReason(t *testing.T) {
	killed := Exit{Signal: syscall.SIGKILL, OutOfMemory: true}
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, func(p *fakeProcess) { p.ends(killed) }})
		f := w.fails(137)
		assert.Contains(t, f.What, killed.String())
		assert.Contains(t, f.Next, moreMemory)
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, func(p *fakeProcess) { p.ends(killed) }})
		assert.Contains(t, w.fails(137).Next, moreMemory)
	})
	for _, halts := range []bool{true, false} {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(0), act{askV0, answers(20)}, act{m1, func(p *fakeProcess) { p.ends(killed) }})
			if halts {
				w.plan.Versions[1].OnInterrupted = Halt
			}
			assert.Contains(t, w.fails(137).Next, moreMemory)
		})
	}
}

// Text may choose words, never actions.
func TestWhatANodeSaysOfItsStateIsPutIntoWords(t *testing.T) {
	const damaged, format = "Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required.", "the state_version on disk is 3"
	for name, test := range map[string]struct {
		says  string
		cause Cause
	}{
		"damaged":      {damaged, StateDamaged},
		"not migrated": {format, NotMigrated},
		"neither":      {"cannot reach the DA", ""},
	} {
		for _, asked := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, asked %t", name, asked), func(t *testing.T) {
				lives(t, func(t *testing.T) {
					fails := func(p *fakeProcess) { p.says(test.says); p.exits(101) }
					w := worldAt(t, stamped(1), act{askV1, fails})
					if !asked {
						w.acts = []act{{askV1, answers(30)}, {v1Later, fails}}
					}
					f := w.fails(101)
					assert.Equal(t, test.cause, f.Cause)
					assert.Equal(t, test.cause != "", strings.Contains(f.What, test.says), "%s", f.What)
					assert.Empty(t, f.Remedies)
					assert.True(t, sameButTime(*stamped(1), *w.store.stamp))
				})
			})
		}
	}
}

func TestNodeArgumentsAndEnvironmentBelongToTheVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t)
		w.plan.Versions[0].Args, w.plan.Versions[0].Env = []string{"--own"}, []string{"A=1"}
		w.options.NodeArgs = []string{"--genesis-path", "g.json"}
		w.acts = []act{{v0 + " --own --genesis-path g.json", func(p *fakeProcess) {
			assert.Equal(t, []string{"A=1"}, p.command.Env)
			p.exits(2)
		}}}
		w.fails(2)
	})
}

func TestProgramThatCannotBeStartedEndsWithTheShellsCode(t *testing.T) {
	for _, code := range []int{CodeNotExecutable, CodeNotFound} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.startError = &StartError{Code: code, Err: errors.New("exec format error")}
				f := w.fails(code)
				require.ErrorContains(t, f, "exec format error")
			})
		})
	}
	cause := errors.New("exec format error")
	require.ErrorIs(t, &StartError{Err: cause}, cause)
}

func TestUnwatchableVersionIsNotStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.Heights = func(Version) (HeightReader, error) { return nil, errors.New("no port") }
		w.failsBecause(FilesInvalid)
	})
}

func TestLeftoversAreEndedBeforeAnythingFollows(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}, act{v1First, reaches(40)}, act{askV1, answers(40)}).withPlan(twoVersions())
		w.leftovers = 2
		require.NoError(t, w.run())
		assert.Len(t, w.sweeps, 4)
		assert.Equal(t, 4, w.count("leftover processes ended"))
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}).withPlan(twoVersions())
		w.sweepError = errors.New("operation not permitted")
		w.fails(CodeMismatch)
	})
}

func TestStopBetweenADecisionAndAStartStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, changed(stamped(1), func(s *checkpoint.Stamp) { s.StopHeight = 0 }), act{askV1, answers(30)})
		w.store.failStamp = func(n int) error {
			if n == 1 { // the write of the stop height
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v1 stop 40 completed"}, w.store.wrote())
	})
}

func TestExitsInWords(t *testing.T) {
	assert.Equal(t, "exited 3", Exit{Code: 3}.String())
	assert.Equal(t, "was killed by SIGKILL", Exit{Signal: syscall.SIGKILL}.String())
	assert.Equal(t, "was killed by signal 40", Exit{Signal: 40}.String())
}
