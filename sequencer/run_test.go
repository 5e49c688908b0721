package sequencer

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer/checkpoint"
)

func TestChainRunsThroughAllItsVersions(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(
			t,
			act{v0, reaches(1, 19, 20)},
			act{askV0, answers(20)},
			act{m1, exits(0)},
			act{askV1, answers(20)},
			act{v1First, reaches(21, 30, 40)},
			act{askV1, answers(40)},
			act{v2First, stoppedAt(41)},
		)
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v0 stop 20", "v0 stop 20", "v1 stop 40 begun", "sync", "v1 stop 40 completed", "v2 stop 0"}, w.store.story)
		history := w.store.checkpoint.History
		require.Len(t, history, 2)
		assert.Equal(t, checkpoint.ProofDurable, history[0].Proof)
		assert.Equal(t, []uint64{20, 40}, []uint64{history[0].StopHeight, history[1].StopHeight})
		assert.Equal(t, []string{"sha of /v0", "sha of /v1"}, []string{history[0].BinarySHA256, history[1].BinarySHA256})
		require.NotNil(t, history[1].Migration)
		assert.Equal(t, 1, history[1].Migration.Runs)
		assert.False(t, history[1].Migration.CompletedAt.IsZero())
		assert.Equal(t, "sha of /v2", w.store.stamp.BinarySHA256)
		assert.Equal(t, []string{"sha of /v0", "sha of /v1"}, w.store.checkpoint.Answers)
		assert.True(t, w.files.wasRead("/v2"))
	})
}

func TestLastVersionWithStopHeightFinishes(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}, act{v1First, reaches(21, 40)}, act{askV1, answers(40)}).withPlan(twoVersions())
		require.NoError(t, w.run())
		assert.Equal(t, checkpoint.PhaseFinished, w.store.checkpoint.Phase)
		assert.Equal(t, 1, w.store.checkpoint.VersionIndex)

		at := w.store.checkpoint.History[1].CompletedAt
		time.Sleep(time.Hour)
		again := w.again(act{askV1, answers(40)})
		require.NoError(t, again.run(), "started again it only asks, and ends well")
		assert.Empty(t, again.store.wrote(), "and changes no stamp")
		assert.Equal(t, at, again.store.checkpoint.History[1].CompletedAt)
		assert.Equal(t, 1, again.count("sequence finished"))
	})
}

func TestPlanThatHasGrownGoesOnFromAFinishedSequence(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}).withPlan(twoVersions())
		w.plan.Versions = w.plan.Versions[:1]
		require.NoError(t, w.run())
		assert.Equal(t, checkpoint.PhaseFinished, w.store.checkpoint.Phase)
		again := w.again(act{askV0, answers(20)}, act{v1First, stoppedAt(25)}).withPlan(twoVersions())
		require.NoError(t, again.run())
		assert.Equal(t, 1, again.store.stamp.VersionIndex)
	})
}

func TestFinishedSequenceCanWaitForAStop(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1, ""), act{askV1, answers(40)}).withPlan(twoVersions())
		w.options.WaitWhenFinished = true
		began := time.Now()
		go func() {
			time.Sleep(time.Hour)
			w.signals <- syscall.SIGUSR1
			time.Sleep(time.Hour)
			w.signals <- syscall.SIGINT
		}()
		require.NoError(t, w.run())
		assert.Equal(t, 2*time.Hour, time.Since(began))
	})
}

func TestStopBeforeTheFirstStartChangesNothing(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		for name, w := range map[string]func(t *testing.T) *world{
			"without a state": func(t *testing.T) *world { t.Helper(); return newWorld(t) },
			"with a state":    func(t *testing.T) *world { t.Helper(); return worldAt(t, stamped(1)) },
		} {
			t.Run(signalname.Of(sig)+" "+name, func(t *testing.T) {
				lives(t, func(t *testing.T) {
					w := w(t)
					w.signals <- syscall.SIGHUP
					w.signals <- sig
					require.NoError(t, w.run())
					assert.Empty(t, w.store.story)
					assert.Zero(t, w.store.checkpoints)
				})
			})
		}
	}
}

func TestStopDuringTheFirstWriteStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.failStamp = func(int) error { w.signals <- syscall.SIGTERM; return nil }
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v0 stop 20"}, w.store.story)
	})
}

func TestSignalsWithoutANodeAreDropped(t *testing.T) {
	lives(t, func(t *testing.T) {
		all := []syscall.Signal{syscall.SIGWINCH, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}
		arrive := func(w *world) {
			for _, sig := range all {
				w.signals <- sig
			}
		}
		// A SIGHUP would kill the node in its start-up.
		runs := func(p *fakeProcess) {
			time.Sleep(time.Minute)
			assert.Empty(t, p.signals)
		}
		w := newWorld(t, act{v0, func(p *fakeProcess) { runs(p); p.at(20); p.exits(0) }}, act{askV0, answers(20)},
			act{m1, func(p *fakeProcess) { arrive(p.w); runs(p); p.exits(0) }},
			act{askV1, func(p *fakeProcess) { arrive(p.w); runs(p); answers(20)(p) }},
			act{v1First, func(p *fakeProcess) { runs(p); stoppedAt(25)(p) }})
		arrive(w)
		require.NoError(t, w.run())
		assert.Equal(t, 3*len(all), w.count("signal dropped while no node runs"))
	})
}

func TestWithoutACheckpointFileTheStampIsTheRecord(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(25)})
		w.store.noCheckpoint = true
		require.NoError(t, w.run())
		assert.Nil(t, w.store.checkpoint)
		again := w.again(act{askV1, answers(25)}, act{v1Later, stoppedAt(30)})
		require.NoError(t, again.run(), "the migration is not run a second time")
	})
}

func TestWithoutACheckpointFileAStateThatNobodyStampedIsNotTouched(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.noCheckpoint, w.store.state = true, checkpoint.StatePresent
		f := w.failsBecause(OwnerUnknown, Remedy{Version: 0}, Remedy{Version: 1, Migrated: true}, Remedy{Version: 2})
		assert.Contains(t, f.Remedies[0].Command(), "--no-checkpoint-file")
		assert.Empty(t, w.store.story)
	})
}

func TestStampIsInTheCheckpointWhereNoConfigSaysWhereTheStateIs(t *testing.T) {
	lives(t, func(t *testing.T) {
		// Without a checkpoint it is a new chain, as for sov-rollup-manager; it cannot be seen whether that is so, so it is asked.
		w := newWorld(t, act{askV0, answers(0)}, act{v0, reaches(20)}, act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(25)})
		w.store.storage = ""
		require.NoError(t, w.run())
		assert.Nil(t, w.store.stamp)
		assert.False(t, w.store.checkpoint.Stamped)
		assert.Equal(t, checkpoint.MigrationCompleted, w.store.checkpoint.Stamp.Migration)
		again := w.again(act{askV1, answers(25)}, act{v1Later, stoppedAt(30)})
		require.NoError(t, again.run())
	})
}

func TestStampedCheckpointWhoseConfigsDoNotNameTheDirectoryAnyMoreIsRefused(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.store.storage, w.store.stamp = "", nil
		w.failsBecause(StorageUnknown)
		assert.Zero(t, w.store.checkpoints)
	})
}

func TestUnreadableRecordStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.store.loadError = &checkpoint.UnreadableError{Path: "/data/state/rollup-version.json", Stamp: true, Err: errors.New("the file is torn")}
		f := w.fails(CodeCheckpointUnreadable)
		require.ErrorIs(t, f, w.store.loadError)
		var versions []int
		for _, r := range f.Remedies {
			versions = append(versions, r.Version)
			assert.Equal(t, w.plan.Versions[r.Version].Migration != "", r.Migrated)
		}
		assert.Equal(t, []int{0, 1, 2}, versions, "the repair for each version, never a guess")
		assert.Zero(t, w.store.stamps)
		assert.Zero(t, w.store.checkpoints)
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.loadError = &checkpoint.UnreadableError{Path: "/data/checkpoint.json", Err: checkpoint.ErrNoFile}
		assert.Empty(t, w.fails(CodeCheckpointUnreadable).Remedies, "a directory that Docker made is no checkpoint of anybody")
	})
}

func TestRefusalsStartAndWriteNothing(t *testing.T) {
	tests := map[string]struct {
		prepare  func(w *world)
		cause    Cause
		remedies []Remedy
	}{
		"file of a version still to run": {
			func(w *world) { w.files.problems = map[int]Problems{2: {"rollup_binary: no such file"}} }, FilesInvalid, nil,
		},
		"checkpoint beyond the plan": {
			func(w *world) {
				w.store.stamp, w.store.checkpoint = nil, &checkpoint.Checkpoint{VersionIndex: 3, BinaryPath: "/v3"}
			}, VersionUnknown, nil,
		},
		"binary of another version": {
			func(w *world) {
				w.store.stamp, w.store.checkpoint = nil, &checkpoint.Checkpoint{VersionIndex: 2, BinaryPath: "/v1", Phase: checkpoint.PhaseRunning}
			}, OwnerUnknown, nil,
		},
		"plan that lost its first entry": {
			func(w *world) {
				w.plan.Versions = w.plan.Versions[1:]
				w.plan.Versions[0].Start, w.plan.Versions[0].Migration = 0, ""
			}, VersionUnknown, nil,
		},
		"state gone": {
			func(w *world) { w.store.state = checkpoint.StateNone }, StateGone, []Remedy{{Version: 0, Force: true}},
		},
		"another state": {
			func(w *world) { w.store.stamp = nil }, OtherState, []Remedy{{Version: 0}, {Version: 1, Migrated: true}, {Version: 2}},
		},
		"checkpoint of a program that does not know the stamp": {
			func(w *world) { w.store.checkpoint = older(2, checkpoint.PhaseRunning, true) },
			OtherProgram,
			[]Remedy{{Version: 2, Force: true}, {Version: 1, Migrated: true, Force: true}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1))
				test.prepare(w)
				w.failsBecause(test.cause, test.remedies...)
				assert.Zero(t, w.store.stamps)
				assert.Zero(t, w.store.checkpoints)
				assert.Empty(t, w.store.kept)
			})
		})
	}
}

func TestRefusalsOfTheStampStartNothing(t *testing.T) {
	halting := func(w *world) { w.plan.Versions[1].OnInterrupted = Halt }
	unmigrated := func(w *world) { w.plan.Versions[1].Migration = "" }
	for _, test := range []struct {
		name     string
		stamp    *checkpoint.Stamp
		prepare  func(w *world)
		cause    Cause
		remedies []Remedy
	}{
		{"interrupted migration that must not be run again", stamped(1, begun), halting, MigrationInterrupted, []Remedy{{Version: 1, Migrated: true, Force: true}}},
		{"interrupted migration that vanished from the plan", stamped(1, begun), unmigrated, MigrationVanished, nil},
		{"migration that was put into the plan afterwards", stamped(1, ""), func(*world) {}, MigrationSkipped, []Remedy{{Version: 1, Migrated: true, Force: true}, {Version: 0, Force: true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, test.stamp)
				test.prepare(w)
				w.failsBecause(test.cause, test.remedies...)
				assert.Empty(t, w.store.wrote())
				assert.True(t, sameButTime(*test.stamp, *w.store.stamp))
			})
		})
	}
}

func TestDeletedCheckpointChangesNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(35)}, act{v1Later, stoppedAt(36)})
		w.store.checkpoint = nil
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.store.checkpoint.VersionIndex)
		assert.True(t, w.store.checkpoint.MigrationCompleted)
	})
}

// A snapshot of v0's state is restored under a checkpoint of v1, which is left where it was.
func TestRestoredSnapshotOfAnOlderVersionGoesOnByItself(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(
			t, stamped(0),
			act{askV0, answers(12)}, act{v0, reaches(13, 20)}, act{askV0, answers(20)}, act{m1, exits(0)}, act{askV1, answers(20)}, act{v1First, stoppedAt(21)},
		)
		w.store.checkpoint = following(stamped(1))
		w.store.checkpoint.History = []checkpoint.Entry{{VersionIndex: 0}, {VersionIndex: 1, Migration: &checkpoint.MigrationRecord{Runs: 1}}}
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("checkpoint corrected"))
		require.Len(t, w.store.kept, 1, "the old file is kept")
		assert.Equal(t, 1, w.store.kept[0].VersionIndex)
		assert.Equal(t, 1, w.store.checkpoint.History[1].Migration.Runs, "the migration of the state that is gone does not count")
		assert.False(t, w.store.checkpoint.History[0].CompletedAt.IsZero())
	})
}

func TestCheckpointThatCannotBeKeptIsNotCorrected(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0))
		w.store.checkpoint, w.store.keepError = following(stamped(2)), errFull
		w.fails(CodeCheckpointNotWritable)
		assert.Zero(t, w.store.checkpoints)
		assert.Empty(t, w.store.story)
	})
}

func TestInterruptedCheckpointFollowsWithoutAWarning(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, answers(40)}, act{v2First, stoppedAt(41)})
		w.store.checkpoint = following(stamped(1))
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.count("checkpoint was interrupted"))
		assert.Empty(t, w.store.kept)
		assert.EqualValues(t, 40, w.store.checkpoint.History[0].StopHeight)
	})
}

func TestStateIsStampedByACheckpointWithTwoKeys(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{askV2, answers(50)}, act{v2Later, stoppedAt(51)})
		w.store.state, w.store.checkpoint = checkpoint.StatePresent, reference(2)
		require.NoError(t, w.run())
		assert.Equal(t, "v2 stop 0", w.store.story[0], "before its node is asked")
		assert.Equal(t, 1, w.count("state stamped"))
		assert.Len(t, w.store.kept, 1)
	})
}

func TestVersionThatFailedBeforeItsGenesisIsRunAgainUnasked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, func(p *fakeProcess) {
			p.noGenesis = true
			p.exits(3)
		}})
		w.fails(3)
		again := w.again(act{v0, stoppedAt(1)})
		require.NoError(t, again.run())
	})
}

func TestProblemsOfCompletedVersionsOnlyWarn(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, answers(50)}, act{v2Later, exits(3)})
		w.files.problems = map[int]Problems{0: {"gone"}}
		w.fails(3)
		assert.Equal(t, 1, w.count("a version that is complete has a problem"))
	})
}

func TestPatchReleaseIsRunLoudly(t *testing.T) {
	lives(t, func(t *testing.T) {
		s := changed(stamped(2), func(s *checkpoint.Stamp) { s.BinarySHA256 = "older" })
		w := worldAt(t, s, act{askV2, answers(50)}, act{v2Later, exits(3)})
		w.fails(3)
		assert.Equal(t, "sha of /v2", w.store.stamp.BinarySHA256)
		assert.Equal(t, 1, w.count("binary changed"))
	})
}

// A layout that was mixed up would start the node of one version on the state of another.
func TestBinaryOfAnotherVersionInItsPlaceIsNotStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.files.digest = func(binary string) (string, error) {
			return map[string]string{"/v0": "sha of /v0", "/v1": "sha of /v2", "/v2": "sha of /v1"}[binary], nil
		}
		w.failsBecause(BinaryMisplaced, Remedy{Version: 1, Migrated: true})
		assert.Empty(t, w.store.wrote())
		assert.Equal(t, "sha of /v1", w.store.stamp.BinarySHA256)
	})
}

func TestBinaryThatCannotBeReadIsNotStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1))
		w.files.digest = func(string) (string, error) { return "", errors.New("permission denied") }
		f := w.failsBecause(FilesInvalid)
		require.ErrorContains(t, f, "permission denied")
	})
}

// A version that was redeployed with another file starts with it; within one run it stays the file that was started first.
func TestBinaryThatIsReplacedDuringARunIsNotStarted(t *testing.T) {
	replaced := func(w *world) func(*fakeProcess) {
		return func(p *fakeProcess) {
			p.at(50)
			w.files.mu.Lock()
			w.files.digest = func(string) (string, error) { return "of another file", nil }
			w.files.mu.Unlock()
			p.exits(0) // as a replica that becomes leader does
		}
	}
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(2), act{askV2, answers(49)})
		w.acts = append(w.acts, act{v2Later, replaced(w)})
		f := w.fails(CodeEarlyExit)
		assert.Contains(t, f.What, "of another file")
		assert.Equal(t, "sha of /v2", w.store.stamp.BinarySHA256, "the record names the file that made the blocks")
		assert.Equal(t, "sha of /v2", w.store.checkpoint.BinarySHA256)
	})
	t.Run("between the question and the start", func(t *testing.T) {
		lives(t, func(t *testing.T) {
			w := worldAt(t, stamped(2))
			w.acts = []act{{askV2, func(p *fakeProcess) {
				w.files.mu.Lock()
				w.files.digest = func(string) (string, error) { return "of another file", nil }
				w.files.mu.Unlock()
				answers(49)(p)
			}}}
			w.fails(CodeEarlyExit)
		})
	})
}

// The writes before a start fail once, each in a life of its own: then nothing may be started any more, and the next life
// must come to the same end.
func TestFailedWriteStartsNothingAndLosesNothing(t *testing.T) {
	life := []act{
		{v0, reaches(1, 20)},
		{askV0, answers(20)},
		{m1, exits(0)},
		{askV1, answers(20)},
		{v1First, reaches(21, 40)},
		{askV1, answers(40)},
		{v2First, stoppedAt(41)},
	}
	for _, test := range []struct {
		name string
		// fails is the write of a stamp that fails, before how many processes have run by then.
		fails, before int
		second        []act
	}{
		{"first of all", 0, 0, life},
		{"first start", 1, 0, life},
		{"migration begins", 2, 2, life[1:]},
		{"hand-over without a migration", 4, 6, life[5:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t, life[:test.before]...)
				w.store.failStamp = failing(test.fails)
				f := w.fails(CodeCheckpointNotWritable)
				require.ErrorIs(t, f, errFull)
				again := w.again(test.second...)
				require.NoError(t, again.run())
				assert.Equal(t, 2, again.store.stamp.VersionIndex)
			})
		})
	}
}

func TestCheckpointThatCannotBeWrittenStopsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(1, 20)}, act{askV0, answers(20)}, act{v1First, reaches(21, 40)}, act{askV1, answers(40)}).withPlan(twoVersions())
		w.store.failCheckpoint = failing(1, 1000)
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.store.stamp.VersionIndex)
		assert.Equal(t, 0, w.store.checkpoint.VersionIndex)
		assert.NotZero(t, w.count("checkpoint not written"))
		again := w.again(act{askV1, answers(40)})
		require.NoError(t, again.run(), "it is followed by the next start")
	})
}

func TestCheckpointThatCannotBeWrittenAtAllStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.failCheckpoint = failing(0)
		w.fails(CodeCheckpointNotWritable)
	})
}

func TestFailureHasTheVersionAndTheHeights(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(31)}, act{v1Later, reachesAndExits(101, 33)})
		f := w.fails(101)
		require.NotNil(t, f.Version)
		require.NotNil(t, f.Height)
		assert.Equal(t, []uint64{1, 21, 40, 33}, []uint64{uint64(*f.Version), f.Start, f.Stop, *f.Height}, "version, start, stop and height")
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(50)})
		f := w.failsBecause(Overrun)
		assert.EqualValues(t, 50, *f.Height, "the height that the node gave as its answer")
	})
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.state, w.store.checkpoint = checkpoint.StatePresent, &checkpoint.Checkpoint{VersionIndex: 7, BinaryPath: "/v7"}
		f := w.failsBecause(VersionUnknown)
		assert.Nil(t, f.Version, "the plan has no such version")
		assert.Nil(t, f.Height)
	})
}

func TestAskGivesTheHeightAndTheNextStepAndDoesNothing(t *testing.T) {
	report := func(w *world) (Report, error) {
		r, err := Ask(w.prepared())
		w.over()
		return r, err
	}
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(1), act{askV1, answers(20)})
		got, err := report(w)
		require.NoError(t, err)
		assert.Equal(t, Report{*w.store.stamp, Durable{Asked, 20}, Step{Action: RunVersion, Version: 1, Start: 21}}, got)
	})
	lives(t, func(t *testing.T) {
		w := worldAt(t, stamped(0), act{askV0, answers(20)})
		got, err := report(w)
		require.NoError(t, err)
		assert.Equal(t, Step{Action: EnterVersion, Version: 1}, got.Step)
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
	})
	lives(t, func(t *testing.T) {
		got, err := report(newWorld(t))
		require.NoError(t, err)
		assert.Equal(t, Durable{Knowledge: NoState}, got.Durable)
		assert.Equal(t, Step{Action: RunVersion}, got.Step)
	})
	lives(t, func(t *testing.T) {
		_, err := report(worldAt(t, stamped(1), act{askV1, answers(41)}))
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, Overrun, f.Cause)
	})
	lives(t, func(t *testing.T) {
		got, err := report(worldAt(t, stamped(1, begun)))
		require.NoError(t, err, "a state in the middle of a migration is not asked")
		assert.Equal(t, Step{Action: MigrateAgain, Version: 1}, got.Step)
	})
}

func TestExitCodesOfTheNodeAreNotTakenForOurs(t *testing.T) {
	for _, code := range []int{CodeEarlyExit, CodeMismatch} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := worldAt(t, stamped(1), act{askV1, answers(25)}, act{v1Later, reachesAndExits(code, 26)})
				assert.Empty(t, w.fails(code).Cause)
			})
		})
	}
}
