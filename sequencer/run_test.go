package sequencer

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	v0      = "/v0 --rollup-config-path c0 --stop-at-rollup-height 20"
	v1First = "/v1 --rollup-config-path c1 --start-at-rollup-height 21 --stop-at-rollup-height 40"
	v1Later = "/v1 --rollup-config-path c1 --stop-at-rollup-height 40"
	v2First = "/v2 --rollup-config-path c2 --start-at-rollup-height 41"
	v2Later = "/v2 --rollup-config-path c2"
	m1      = "/m1 --rollup-config-path c1"
)

// record is a checkpoint at version i of the test plans.
func record(i int, phase Phase, started bool) *Checkpoint {
	return &Checkpoint{VersionIndex: i, BinaryPath: threeVersions().Versions[i].Binary, Phase: phase, Started: started}
}

func TestChainRunsThroughAllItsVersions(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.acts = []act{
			{v0, reaches(1, 19, 20)},
			{v0, refusesStop(20, 20)}, // a migration follows: the height read is no proof
			{m1, exits(0)},
			{v1First, reaches(21, 30, 40)},
			{v2First, func(p *fakeProcess) {
				p.at(41)
				w.signals <- syscall.SIGTERM
				p.gets(syscall.SIGTERM)
				p.exits(0)
			}},
		}
		require.NoError(t, w.run())
		assert.Equal(t, []string{
			"v0 running", "v0 running started",
			"v1 migrating", "v1 migrating started", "v1 running migrated", "v1 running started migrated",
			"v2 running", "v2 running started",
		}, w.store.story())
		history := w.store.have.History
		require.Len(t, history, 2)
		assert.Equal(t, ProofDurable, history[0].Proof)
		assert.Equal(t, uint64(20), history[0].StopHeight)
		assert.Equal(t, "sha of /v0", history[0].BinarySHA256)
		assert.Equal(t, ProofHeight, history[1].Proof)
		assert.Equal(t, "sha of /v2", w.store.have.BinarySHA256)
		assert.True(t, w.files.wasRead("/v2"))
	})
}

func TestLastVersionWithStopHeightFinishes(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{v1First, reaches(21, 40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		require.NoError(t, w.run())
		assert.Equal(t, PhaseFinished, w.store.have.Phase)
		assert.Equal(t, 1, w.store.have.VersionIndex)

		again := newWorld(t)
		again.plan, again.store = w.plan, w.store
		saves := w.store.tries
		require.NoError(t, again.run(), "started again it starts nothing and ends well")
		assert.Equal(t, saves, w.store.tries, "and writes nothing")
		assert.Contains(t, again.events(), "sequence finished")
	})
}

func TestFinishedSequenceCanWaitForAStop(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan = twoVersions()
		w.store.have = record(1, PhaseFinished, false)
		w.store.have.History = []Completed{{VersionIndex: 1, StopHeight: 40, Proof: ProofHeight}}
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
		t.Run(signalName(sig), func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.signals <- syscall.SIGHUP
				w.signals <- sig
				require.NoError(t, w.run())
				assert.Zero(t, w.store.tries)
			})
		})
	}
}

func TestSignalsBeforeTheFirstStartReachTheNodeOnce(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan.Versions = w.plan.Versions[:1]
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.gets(syscall.SIGHUP)
			p.gets(syscall.SIGUSR1)
			time.Sleep(time.Minute)
			assert.Empty(t, p.signals)
			p.at(20)
			p.exits(0)
		}}, {v0, refusesStop(20, 20)}}
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGHUP} {
			w.signals <- sig
		}
		require.NoError(t, w.run())
	})
}

func TestNoCheckpointFileBeginsAtVersionZeroAndWarnsOfMigrations(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store = nil
		w.acts = []act{{v0, exits(7)}}
		w.fails(7)
		assert.Contains(t, w.events(), "migrations are not recorded")
	})
}

func TestUnreadableCheckpointStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.err = errors.New("the file is torn")
		f := w.fails(CodeCheckpointUnreadable)
		assert.Contains(t, f.Error(), "the file is torn")
		assert.Contains(t, f.Next, "entrypoint checkpoint set --version N")
		assert.Zero(t, w.store.tries)
	})
}

func TestRefusalsStartAndWriteNothing(t *testing.T) {
	tests := map[string]struct {
		prepare func(w *world)
		says    string
	}{
		"file of a version still to run": {
			func(w *world) { w.files.problems = map[int]Problems{2: {"version 2: rollup_binary: no such file"}} },
			"version 2: rollup_binary: no such file",
		},
		"binary unreadable": {
			func(w *world) {
				w.files.digest = func(string) (string, error) { return "", errors.New("permission denied") }
			},
			"permission denied",
		},
		"checkpoint beyond the plan": {
			func(w *world) { w.store.have = &Checkpoint{VersionIndex: 3, BinaryPath: "/v3"} },
			"versions 0 to 2",
		},
		"another binary": {
			func(w *world) { w.store.have = &Checkpoint{VersionIndex: 2, BinaryPath: "/v1", Phase: PhaseRunning} },
			"that binary is now version 1",
		},
		"empty state": {
			func(w *world) { w.store.have, w.files.empty = record(2, PhaseRunning, true), true },
			"delete the checkpoint too",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				test.prepare(w)
				assert.Contains(t, w.fails(CodeMismatch).Error(), test.says)
				assert.Zero(t, w.store.tries)
			})
		})
	}
}

func TestProblemsOfCompletedVersionsOnlyWarn(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.have = record(2, PhaseRunning, true)
		w.files.problems = map[int]Problems{0: {"version 0: gone"}}
		w.acts = []act{{v2Later, exits(3)}}
		w.fails(3)
		assert.Contains(t, w.events(), "version 0: gone")
	})
}

func TestEmptyStateIsFineForTheFirstVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, exits(3)})
		w.store.have = record(0, PhaseRunning, true)
		w.files.empty = true
		w.fails(3)
	})
}

func TestMovedBinaryIsAcceptedAndRecorded(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v2Later, exits(3)})
		w.store.have = record(2, PhaseRunning, true)
		w.store.have.BinaryPath, w.store.have.BinarySHA256 = "/old/v2", "sha of /v2"
		w.fails(3)
		assert.Equal(t, "/v2", w.store.have.BinaryPath)
		assert.Contains(t, w.events(), "binary moved")
	})
}

func TestBinaryReplacedInPlaceIsRunLoudly(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v2Later, exits(3)})
		w.store.have = record(2, PhaseRunning, true)
		w.store.have.BinarySHA256 = "older"
		w.fails(3)
		assert.Equal(t, "sha of /v2", w.store.have.BinarySHA256)
		assert.Contains(t, w.events(), "binary changed")
	})
}

// The writes before a start fail once, each in a life of its own: then nothing may be started any more, and the next life
// must come to the same end.
func TestFailedWriteStartsNothingAndLosesNothing(t *testing.T) {
	life := func(w *world) []act {
		return []act{
			{v0, reaches(1, 20)},
			{v0, refusesStop(20, 20)},
			{m1, exits(0)},
			{v1First, reaches(21, 40)},
			{v2First, then(w, syscall.SIGTERM, runsUntilStopped(41))},
		}
	}
	full := errors.New("no space left on device")
	// Which processes have run when the n-th write fails, and which a second life starts.
	tests := map[string]struct {
		fails  int
		before int
		second func(w *world) []act
	}{
		"first of all":     {0, 0, func(w *world) []act { return life(w) }},
		"hand-over to v1":  {2, 2, func(w *world) []act { return append([]act{{v0, refusesStop(20, 20)}}, life(w)[2:]...) }},
		"migration begins": {3, 2, func(w *world) []act { return life(w)[2:] }},
		"hand-over to v2":  {6, 4, func(w *world) []act { return append([]act{{v1Later, refusesStop(40, 40)}}, life(w)[4:]...) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			lives(t, func(t *testing.T) {
				w := newWorld(t)
				w.acts = life(w)[:test.before]
				w.store.fail = func(n int) error {
					if n == test.fails {
						return full
					}
					return nil
				}
				f := w.fails(CodeCheckpointNotWritable)
				require.ErrorIs(t, f, full)

				again := newWorld(t)
				again.store.have = w.store.have
				again.acts = test.second(again)
				require.NoError(t, again.run())
				assert.Equal(t, 2, again.store.have.VersionIndex)
			})
		})
	}
}

func TestFailedNoteThatTheNodeStartedIsTriedAgainAndStopsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		w.plan.Versions = w.plan.Versions[:1]
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(5)
			time.Sleep(2 * silence)
			p.at(20)
			p.exits(0)
		}}, {v0, refusesStop(20, 20)}}
		w.store.fail = func(n int) error {
			if n == 1 {
				return errors.New("no space left on device")
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.Equal(t, []string{"v0 running", "v0 running started", "v0 finished started"}, w.store.story())
		assert.Contains(t, w.events(), "checkpoint not written")
	})
}
