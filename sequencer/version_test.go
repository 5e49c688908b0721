package sequencer

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oneVersion is v0 to 20 alone.
func oneVersion(t *testing.T, acts ...act) *world {
	w := newWorld(t, acts...)
	w.plan.Versions = w.plan.Versions[:1]
	return w
}

func TestRestartInMidVersionDoesNotAssertTheStartHeight(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1Later, reaches(30, 40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, true)
		require.NoError(t, w.run())
	})
}

func TestStartHeightIsAssertedAgainUntilTheNodeToldAHeight(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 30)}, act{v1Later, reaches(30, 40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, false)
		require.NoError(t, w.run())
	})
}

func TestCompletionIsProvenByRefusalAfterARestart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 20)}, act{v1First, reaches(40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.store.have = record(0, PhaseRunning, true)
		require.NoError(t, w.run())
		assert.Equal(t, ProofDurable, w.store.have.History[0].Proof)
	})
}

func TestFastResyncWithoutAReadingIsVerified(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, exits(0)}, act{v0, refusesStop(20, 20)})
		require.NoError(t, w.run())
		assert.Equal(t, ProofDurable, w.store.have.History[0].Proof)
	})
}

func TestResyncOfWhichOneHeightWasReadIsVerified(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, func(p *fakeProcess) {
			time.Sleep(pollDefault / 2) // the first query is refused
			height := uint64(3)
			w := p.w
			w.mu.Lock()
			w.height = &height
			w.mu.Unlock()
			time.Sleep(pollDefault) // the second one is the only reading
			p.exits(0)
		}}, act{v0, refusesStop(20, 20)})
		require.NoError(t, w.run())
	})
}

func TestEarlyExitIsVerifiedOnce(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, reaches(15)}, act{v0, reaches(15)})
		f := w.fails(CodeEarlyExit)
		assert.Contains(t, f.What, "again without progress")
		assert.Equal(t, 0, w.store.have.VersionIndex)
		assert.Empty(t, w.store.have.History)
	})
}

func TestVerificationWithoutHeightsIsTriedThreeTimes(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, exits(0)}, act{v0, exits(0)}, act{v0, exits(0)}, act{v0, exits(0)})
		assert.Contains(t, w.fails(CodeEarlyExit).What, "never told a height), again without progress")
	})
}

func TestProgressAllowsAnotherVerification(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, reaches(15)}, act{v0, reaches(15, 16)}, act{v0, reaches(16, 19)}, act{v0, refusesStop(20, 20)})
		require.NoError(t, w.run())
	})
}

func TestExitFarBelowTheStopHeightFails(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, reaches(3)})
		assert.Contains(t, w.fails(CodeEarlyExit).What, "before its stop height 20 (last height read: 3")
	})
}

func TestExitWithoutStopHeightFails(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v2Later, reaches(50)})
		w.store.have = record(2, PhaseRunning, true)
		assert.Contains(t, w.fails(CodeEarlyExit).What, "no stop height")
	})
}

// A replica that follows its leader to the stop height, becomes leader there and exits to be started again has a durable
// state below it.
func TestLeaderRestartAtTheStopHeightDoesNotMigrateBelowIt(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(1, 20)}, act{v0, reaches(17, 20)}, act{v0, refusesStop(20, 20)}, act{m1, exits(9)})
		w.fails(9)
		assert.Equal(t, ProofDurable, w.store.have.History[0].Proof)
	})
}

func TestLeaderRestartAtTheStopHeightLetsThePreviousVersionFinish(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t,
			act{v0, reaches(1, 20)},
			act{v1First, refusesStart(21, 18)}, // durable 17
			act{v0, reaches(17, 20)},
			act{v0, refusesStop(20, 20)}, // once counted as complete and was not: now it is proven
			act{v1First, reaches(21, 40)},
			act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		require.NoError(t, w.run())
		assert.Contains(t, w.events(), "previous version was not complete")
		var phases []Phase
		for i, c := range w.store.saved[1:] {
			assert.GreaterOrEqual(t, c.VersionIndex, w.store.saved[i].VersionIndex, "the version never goes back")
			phases = append(phases, c.Phase)
		}
		assert.Equal(t, []Phase{PhaseRunning, PhaseRunning, PhaseFinishingPrevious, PhaseRunning, PhaseRunning, PhaseFinished}, phases)
		assert.Equal(t, ProofDurable, w.store.have.History[0].Proof, "the first entry was wrong and is replaced")
		assert.Len(t, w.store.have.History, 2)
	})
}

func TestPreviousVersionThatRunsOnIsTakenUpAgainAfterARestart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 20)}, act{v1First, exits(9)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseFinishingPrevious, false)
		w.fails(9)
		assert.Equal(t, PhaseRunning, w.store.have.Phase)
		assert.Equal(t, ProofDurable, w.store.have.History[0].Proof)
	})
}

// It is recorded also where the stop comes in the moment of the refusal, which then is no failure.
func TestOverrunIsRecordedAlsoWhenAStopWasRequested(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{v1First, func(p *fakeProcess) {
			p.w.signals <- syscall.SIGTERM
			refusesStart(21, 24)(p)
		}})
		w.plan = twoVersions()
		require.NoError(t, w.run())
		assert.Equal(t, PhaseFinishingPrevious, w.store.have.Phase)
		assert.False(t, w.store.have.Started)
	})
}

func TestPreviousVersionDoesNotRunOnWhereAMigrationIsRecorded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 18)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, false)
		w.store.have.MigrationCompleted = true // of a migration that was taken out of the plan
		assert.Contains(t, w.fails(CodeMismatch).Next, "restore the state that belongs to the checkpoint")
		assert.Equal(t, PhaseRunning, w.store.have.Phase)
	})
}

// A migration that is new in the plan does not have the record of an overrun forgotten.
func TestOverrunIsNotForgottenForAMigrationThatWasPutIn(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 23)})
		w.store.have = record(1, PhaseFinishingPrevious, false)
		assert.Contains(t, w.fails(CodeMismatch).Next, "above height 20 was made by the wrong version")
		assert.Equal(t, PhaseFinishingPrevious, w.store.have.Phase)
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 20)}, act{m1, exits(9)})
		w.store.have = record(1, PhaseFinishingPrevious, false)
		w.fails(9)
		assert.Equal(t, []string{"v1 finishing_previous", "v1 migrating started"}, w.store.story())
	})
}

// The blocks above version 0's stop height are not version 1's, also where the entrypoint was killed before it could say so.
func TestOverrunOfAPreviousVersionThatRunsOnIsFoundAfterARestart(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 23)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseFinishingPrevious, false)
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.What, "the state is at height 23, beyond the stop height 20 of version 0, and no node of version 1 has run yet")
		assert.Contains(t, f.Next, "above height 20 was made by the wrong version")
		assert.Equal(t, PhaseFinishingPrevious, w.store.have.Phase)
	})
}

// With --height-slack, too: a version that counted as complete and was not has used up what is taken on trust.
func TestPreviousVersionThatRunsOnHasNoSlack(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(17, 18)}, act{v0, refusesStop(20, 20)}, act{v1First, exits(9)})
		w.plan = twoVersions()
		w.options.Slack = new(uint64(5))
		w.store.have = record(1, PhaseFinishingPrevious, false)
		w.fails(9)
	})
}

func TestPreviousVersionDoesNotRunOnWithoutARecordOfIt(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 18)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, false)
		w.store.fail = func(n int) error {
			if n == 0 {
				return nil
			}
			return errors.New("disk full")
		}
		f := w.fails(CodeCheckpointNotWritable)
		assert.Contains(t, f.Safe, "nothing of version 1 was done")
	})
}

func TestPreviousVersionNeedsItsFilesToRunOn(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan = twoVersions()
		w.files.problems = map[int]Problems{0: {"version 0: rollup_binary: /v0 is not there"}}
		w.store.have = record(1, PhaseFinishingPrevious, false)
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.What, "version 1 needs version 0 to prove its stop height first")
		assert.Contains(t, f.Next, "put the files of version 0 back")
	})
}

func TestPreviousVersionIsLetRunOnOnlyAsLongAsItGetsOn(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 18)}, act{v0, reaches(17, 20)}, act{v0, reaches(17)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, false)
		f := w.fails(CodeEarlyExit)
		assert.Contains(t, f.What, "again without progress")
		assert.Contains(t, f.Next, "start again")
	})
	t.Run("and once only", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v1First, refusesStart(21, 18)}, act{v0, refusesStop(20, 20)}, act{v1First, refusesStart(21, 18)})
			w.plan = twoVersions()
			w.store.have = record(1, PhaseRunning, false)
			assert.Contains(t, w.fails(CodeMismatch).Next, "restore the state that belongs to the checkpoint")
		})
	})
}

func TestStateOlderThanThePreviousVersionIsRefused(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v2First, refusesStart(41, 16)}) // durable 15: version 0 has made it
		w.store.have = record(2, PhaseRunning, false)
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Next, "restore the state that belongs to the checkpoint")
	})
}

func TestProofBeforeAMigrationAssertsTheStartHeightToo(t *testing.T) {
	plan := threeVersions()
	plan.Versions[1].Migration, plan.Versions[2].Migration = "", "/m2"
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 31)}, act{v1Later, refusesStop(40, 40)}, act{"/m2 --rollup-config-path c2", exits(8)})
		w.plan = plan
		w.store.have = record(2, PhaseMigrating, false)
		w.fails(8)
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 13)}) // version 0 does not run under a checkpoint of version 2
		w.plan = plan
		w.store.have = record(2, PhaseMigrating, false)
		assert.Contains(t, w.fails(CodeMismatch).Next, "restore the state that belongs to the checkpoint")
	})
}

// v0 was not seen above its stop height, but v1's node finds blocks there which it has not made.
func TestUnseenOverrunIsFoundByTheNextVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{v1First, refusesStart(21, 24)})
		w.plan = twoVersions()
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.What, "the state is at height 23, beyond the stop height 20 of version 0")
		assert.Contains(t, f.Next, "above height 20 was made by the wrong version")

		again := newWorld(t, act{v0, refusesStop(20, 23)})
		again.plan, again.store = w.plan, w.store
		assert.Contains(t, again.fails(CodeMismatch).What, "beyond the stop height 20 of version 0", "a restart does not forget it")
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{v1First, refusesStart(21, 24)})
		w.plan = twoVersions()
		w.store.fail = func(n int) error {
			if n < 3 {
				return nil
			}
			return errors.New("disk full")
		}
		assert.Contains(t, w.fails(CodeMismatch).What, "beyond the stop height 20 of version 0")
		assert.Contains(t, w.events(), "checkpoint not written")
	})
}

// A deleted checkpoint, or none at all, does not tell whether the migration at that very height has run.
func TestMigrationIsNotRunOnAStateOfUnknownPast(t *testing.T) {
	refused := []act{{v0, refusesStop(20, 20)}}
	t.Run("checkpoint absent", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, refused...)
			f := w.fails(CodeMismatch)
			assert.Contains(t, f.Next, "entrypoint checkpoint set --version 1'")
			assert.Contains(t, f.Next, "entrypoint checkpoint set --version 1 --migrated")

			again := newWorld(t, refused...)
			again.store = w.store
			again.fails(CodeMismatch)
		})
	})
	t.Run("no checkpoint file", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, refused...)
			w.store = nil
			assert.Contains(t, w.fails(CodeMismatch).Next, "--checkpoint-file")
		})
	})
	t.Run("seen to run", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, exits(0)}, refused[0], act{m1, exits(4)})
			w.store = nil
			w.fails(4)
		})
	})
	t.Run("begun over an empty state", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, refused[0], act{m1, exits(4)})
			w.files.empty = true
			w.fails(4)
		})
	})
	t.Run("recorded by sov-rollup-manager", func(t *testing.T) {
		lives(t, func(t *testing.T) { // which begins at version 0 again, too, where its file was deleted
			w := newWorld(t, refused...)
			w.store.have = &Checkpoint{BinaryPath: "/v0"}
			assert.Contains(t, w.fails(CodeMismatch).Next, "entrypoint checkpoint set --version 1 --migrated")
		})
	})
	t.Run("set by hand", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, refused[0], act{m1, exits(4)})
			c, err := AdoptVersion(w.plan, nil, 0, false, "")
			require.NoError(t, err)
			w.store.have = &c
			w.fails(4)
		})
	})
}

func TestFinishedSequenceOverAnEmptyStateIsRefused(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t)
		w.store.have = record(0, PhaseFinished, false)
		w.store.have.History = []Completed{{StopHeight: 20, Proof: ProofDurable}}
		w.files.empty = true
		assert.Contains(t, w.fails(CodeMismatch).What, "at the end of version 0, but the state directory")
	})
}

// The node's own exit code 75 or 78 is not one of ours.
func TestExitCodesOfTheNodeAreNotTakenForOurs(t *testing.T) {
	for _, code := range []int{CodeEarlyExit, CodeMismatch} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t, act{v1Later, func(p *fakeProcess) {
					p.at(25)
					p.exits(code)
				}})
				w.plan = twoVersions()
				w.store.have = record(1, PhaseRunning, true)
				assert.Contains(t, w.fails(code).Next, "read what the node wrote last on stderr")
			})
		})
	}
}

func TestStopTimeoutIsNotPutOffByAnOverrun(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.StopTimeout = 5 * time.Second
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(22)
			p.gets(syscall.SIGTERM)
			asked := time.Now()
			w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.gets(syscall.SIGKILL)
			assert.Equal(t, 5*time.Second, time.Since(asked))
			p.ends(Exit{Signal: syscall.SIGKILL})
		}}}
		w.fails(CodeMismatch)
	})
}

func TestCommandsInAFailureCanBeRunAsTheyAre(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 99)})
		w.plan.File = "my manager.json"
		o := w.options
		o.Store = storeWithPath{w.store}
		w.options = o
		assert.Contains(t, w.fails(CodeMismatch).Next, "entrypoint checkpoint set -c 'my manager.json' -f /data/checkpoint.json --version 2'")
	})
}

type storeWithPath struct{ *memoryStore }

func (storeWithPath) Path() string { return "/data/checkpoint.json" }

func TestMigratedVersionNeverGoesBackToThePreviousOne(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1First, refusesStart(21, 1)})
		w.store.have = record(1, PhaseRunning, false)
		w.store.have.MigrationCompleted = true
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.What, "the state is at height 0")
		assert.Contains(t, f.Next, "below start_height 21")
	})
}

func TestStateBeyondTheVersionNamesItsOwnerAndTheCommand(t *testing.T) {
	tests := []struct {
		height uint64
		says   []string
	}{
		{30, []string{"that height belongs to version 1", "entrypoint checkpoint set --version 1 --migrated"}},
		{99, []string{"that height belongs to version 2", "entrypoint checkpoint set --version 2'"}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.height), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t, act{v0, refusesStop(20, test.height)})
				f := w.fails(CodeMismatch)
				for _, text := range test.says {
					assert.Contains(t, f.Error(), text)
				}
				assert.Contains(t, f.Stderr, "must be greater")
			})
		})
	}
	t.Run("beyond the plan", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, refusesStop(20, 41)})
			w.plan = twoVersions()
			assert.Contains(t, w.fails(CodeMismatch).Error(), "no version in the plan makes that height")
		})
	})
	t.Run("without a checkpoint file", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := newWorld(t, act{v0, refusesStop(20, 30)})
			w.store = nil
			assert.Contains(t, w.fails(CodeMismatch).Next, "use a checkpoint file")
		})
	})
}

func TestWantOfMemoryIsNamedAsTheReason(t *testing.T) {
	killed := Exit{Signal: syscall.SIGKILL, OutOfMemory: true}
	t.Run("node", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := oneVersion(t, act{v0, func(p *fakeProcess) { p.ends(killed) }})
			f := w.fails(137)
			assert.Contains(t, f.What, "was killed by SIGKILL, by the kernel's out-of-memory killer")
			assert.Equal(t, "give the container a higher memory limit, or the machine more memory; then start again", f.Next)
		})
	})
	for policy, next := range map[OnInterrupted]string{Rerun: "the next start runs it again", Halt: "the next start halts"} {
		t.Run("migration, "+string(policy), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.plan.Versions[1].OnInterrupted = policy
				w.store.have = due()
				w.acts = []act{{m1, func(p *fakeProcess) { p.ends(killed) }}}
				f := w.fails(137)
				assert.Contains(t, f.What, "was killed by SIGKILL, by the kernel's out-of-memory killer")
				assert.Contains(t, f.Next, "give the container a higher memory limit, or the machine more memory; "+next)
			})
		})
	}
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
					p.at(5)
					p.says("last words")
					p.ends(test.exit)
				}})
				f := w.fails(test.code)
				assert.Equal(t, "last words", f.Stderr)
			})
		})
	}
}

func TestStopIsForwardedAndExitsZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(signalName(sig), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.acts = []act{{v0, func(p *fakeProcess) {
					p.at(20) // at the stop height: asked is asked
					w.signals <- sig
					p.gets(sig)
					time.Sleep(time.Minute)
					p.exits(0)
				}}}
				require.NoError(t, w.run())
				assert.Equal(t, 0, w.store.have.VersionIndex)
				assert.Empty(t, w.store.have.History)
			})
		})
	}
}

func TestStopThatComesWithTheExitCounts(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan = twoVersions()
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(20)
			w.late <- syscall.SIGTERM
			p.exits(0)
		}}}
		require.NoError(t, w.run())
		assert.Equal(t, 0, w.store.have.VersionIndex)
	})
}

func TestProvenCompletionIsRecordedEvenWhenAStopWasRequested(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan = twoVersions()
		w.store.have = record(0, PhaseRunning, true)
		w.acts = []act{{v0, then(w, syscall.SIGTERM, refusesStop(20, 20))}}
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.store.have.VersionIndex)
	})
}

func TestStopDuringAHandOverWriteStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)})
		w.plan = twoVersions()
		w.store.fail = func(n int) error {
			if n == 2 { // the hand-over
				w.signals <- syscall.SIGTERM
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.store.have.VersionIndex)
	})
}

func TestStopInsteadOfARestartIsNoFailure(t *testing.T) {
	tests := map[string]func(*fakeProcess){
		"in mid-version":  refusesStart(21, 30),
		"below the start": refusesStart(21, 18),
	}
	for name, refuses := range tests {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.plan = twoVersions()
				w.store.have = record(1, PhaseRunning, false)
				w.acts = []act{{v1First, then(w, syscall.SIGTERM, refuses)}}
				require.NoError(t, w.run())
			})
		})
	}
}

func TestNodeKilledByTheStopSignalIsTold(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.acts = []act{{v0, func(p *fakeProcess) {
			w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			p.ends(Exit{Signal: syscall.SIGTERM})
		}}}
		f := w.fails(143)
		assert.Contains(t, f.What, "was asked to stop, and the node was killed by SIGTERM")
	})
}

func TestStopTimeoutKillsTheGroup(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.options.StopTimeout = 25 * time.Second
		var asked time.Time
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(5)
			asked = time.Now()
			w.signals <- syscall.SIGTERM
			p.gets(syscall.SIGTERM)
			w.signals <- syscall.SIGTERM // does not buy more time
			p.gets(syscall.SIGTERM)
			p.gets(syscall.SIGKILL)
			assert.Equal(t, 25*time.Second, time.Since(asked))
			p.ends(Exit{Signal: syscall.SIGKILL})
		}}}
		w.fails(137)
		assert.Equal(t, []time.Duration{grace}, w.sweeps)
	})
}

func TestOverrunIsStoppedWithBothHeights(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(19)
			p.at(22)
			p.gets(syscall.SIGTERM)
			began := time.Now()
			p.gets(syscall.SIGKILL)
			assert.InDelta(t, grace.Seconds(), time.Since(began).Seconds(), 3)
			p.ends(Exit{Signal: syscall.SIGKILL})
		}}}
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.What, "past its stop height 20, to height 22")
		require.NotNil(t, f.Version)
		require.NotNil(t, f.Height)
		assert.Equal(t, []uint64{0, 0, 20, 22}, []uint64{uint64(*f.Version), f.Start, f.Stop, *f.Height}, "version, start, stop and height")
		assert.Equal(t, 0, w.store.have.VersionIndex)
	})
}

func TestOverrunSeenAtTheExitFails(t *testing.T) {
	d := Decide(Evidence{Stop: 20, Last: &Reading{Height: 21}})
	assert.Equal(t, Fail, d.Action)
	assert.Equal(t, CodeMismatch, d.Code)
}

func TestLaterStartBelowTheStartHeightIsStopped(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = record(2, PhaseRunning, true)
		w.acts = []act{{v2Later, runsUntilStopped(39)}}
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.What, "starts at height 41, but its node is at height 39")
	})
}

func TestHugestHeightIsNoLowOne(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v1Later, runsUntilStopped(math.MaxUint64)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, true)
		assert.Contains(t, w.fails(CodeMismatch).What, "past its stop height 40, to height 18446744073709551615")
	})
}

func TestStrangerOnThePortIsNotBelieved(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, reaches(20)}, act{v0, refusesStop(20, 20)})
		w.stranger = true
		require.NoError(t, w.run())
		assert.Contains(t, w.events(), "its heights are not believed")
		assert.Equal(t, ProofDurable, w.store.have.History[0].Proof)
	})
}

func TestSilenceIsWarnedOfOnce(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := oneVersion(t, act{v0, func(p *fakeProcess) {
			time.Sleep(10 * silence)
			p.at(20)
			p.exits(0)
		}}, act{v0, refusesStop(20, 20)})
		require.NoError(t, w.run())
		assert.Equal(t, 1, countEvents(w, "height unknown"))
		assert.Equal(t, 1, countEvents(w, "height known again"))
	})
}

func TestHeightSlackIsTakenLiterally(t *testing.T) {
	lives(t, func(t *testing.T) {
		slack := uint64(5)
		w := newWorld(t, act{v0, reaches(15)}, act{m1, exits(0)}, act{v1First, exits(4)})
		w.options.Slack = &slack
		w.fails(4)
		assert.Equal(t, ProofSlack, w.store.have.History[0].Proof)
	})
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
				assert.Contains(t, f.Error(), "exec format error")
			})
		})
	}
}

func TestNextVersionIsCheckedAgainBeforeTheHandOver(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan = twoVersions()
		w.acts = []act{{v0, func(p *fakeProcess) {
			w.files.problems = map[int]Problems{1: {"version 1: gone"}}
			p.at(20)
			p.exits(0)
		}}}
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Error(), "version 1: gone")
		assert.Equal(t, 0, w.store.have.VersionIndex)
	})
}

func TestUnreadableNextVersionIsNotHandedOverTo(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)})
		w.plan = twoVersions()
		w.files.digest = func(binary string) (string, error) {
			if binary == "/v1" {
				return "", errors.New("input/output error")
			}
			return "ok", nil
		}
		w.fails(CodeMismatch)
		assert.Equal(t, 0, w.store.have.VersionIndex)
		assert.Contains(t, w.events(), "next version unreadable")
	})
}

func TestLeftoversAreEndedBeforeAnythingFollows(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{v1First, reaches(40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.leftovers = 2
		require.NoError(t, w.run())
		assert.Len(t, w.sweeps, 3)
		assert.Contains(t, w.events(), "leftover processes ended")
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)})
		w.plan = twoVersions()
		w.sweepError = errors.New("operation not permitted")
		w.fails(CodeMismatch)
	})
}

func TestUnwatchableVersionIsNotStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		o := Options{
			Plan: w.plan, Processes: w, Signals: w, Files: &w.files, Store: w.store, Log: nopLog(),
			Heights: func(Version) (HeightReader, error) { return nil, errors.New("no port") },
		}
		var f *Failure
		require.ErrorAs(t, Run(o), &f)
		assert.Equal(t, CodeMismatch, f.Code)
	})
}
