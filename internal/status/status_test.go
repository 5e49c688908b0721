package status

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

var update = flag.Bool("update", false, "write golden files and generated documentation anew")

// golden compares text with a committed file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), text, "go test ./internal/status -update writes it anew")
}

// threeVersions is v0 to 100, a migration, v1 to 220, v2 without end.
func threeVersions() *sequencer.Plan {
	return &sequencer.Plan{File: "manager.json", Versions: []sequencer.Version{
		{Name: "v0", Binary: "/opt/v0/rollup", Config: "/opt/v0/config.toml", Stop: 100},
		{Name: "v1", Binary: "/opt/v1/rollup", Config: "/opt/v1/config.toml", Migration: "/opt/v1/migrate", Start: 101, Stop: 220, Args: []string{"--secret-argument"}, Env: []string{"TOKEN=secret-value"}},
		{Name: "v2", Binary: "/opt/v2/rollup", Config: "/opt/v2/config.toml", Start: 221},
	}}
}

// running is a state in the middle of v1, of this moment.
func running() sequencer.State {
	now := time.Now()
	return sequencer.State{
		Phase: sequencer.PhaseRunning, Since: now.Add(-time.Hour),
		Record: checkpoint.Checkpoint{
			VersionIndex: 1, BinaryPath: "/opt/v1/rollup", BinarySHA256: strings.Repeat("1", 64), MigrationCompleted: true, Phase: checkpoint.PhaseRunning, Stamped: true,
			History: []checkpoint.Entry{
				{VersionIndex: 0, Name: "v0", BinarySHA256: strings.Repeat("0", 64), StopHeight: 100, Proof: checkpoint.ProofDurable, CompletedAt: now.Add(-2 * time.Hour)},
				{VersionIndex: 1, Name: "v1", Migration: &checkpoint.MigrationRecord{BegunAt: now.Add(-95 * time.Minute), CompletedAt: now.Add(-91 * time.Minute), Runs: 2}},
			},
			UpdatedAt: now.Add(-time.Hour),
		},
		Stamp:   checkpoint.Stamp{VersionIndex: 1, Name: "v1", StartHeight: 101, StopHeight: 220, Migration: checkpoint.MigrationCompleted, UpdatedAt: now.Add(-time.Hour)},
		Process: sequencer.ProcessState{Pid: 17, Version: 1, StartedAt: now.Add(-90 * time.Minute)},
		Height:  &sequencer.Reading{Height: 180, At: now.Add(-time.Second)}, RoseAt: now.Add(-2 * time.Second), Rate: 0.5,
		Starts:  map[int]uint64{0: 2, 1: 1},
		Exits:   map[sequencer.ExitCount]uint64{{Code: 0}: 1, {Code: 101}: 1, {Migration: true}: 1, {Hook: true, Code: 3}: 1},
		Signals: map[syscall.Signal]uint64{syscall.SIGHUP: 2, syscall.Signal(40): 1}, Leftovers: 3,
		Undelivered: map[syscall.Signal]uint64{syscall.SIGTERM: 2}, DamageReported: true,
		Left:       []sequencer.Leftover{{Pid: 77, Command: "worker", Since: now.Add(-time.Minute)}, {Pid: 78, Command: "helper", Since: now.Add(-time.Second)}},
		Migrations: []sequencer.MigrationRun{{Version: 1, StartedAt: now.Add(-95 * time.Minute), Took: 4 * time.Minute}},
		HandOvers:  []sequencer.HandOver{{Version: 1, Took: 93 * time.Millisecond, Asked: 90 * time.Millisecond}},
		Writes:     sequencer.WriteCount{Done: 7, Took: 14 * time.Millisecond, Failed: 1}, Queries: 100, QueryFailures: 4,
		Questions: sequencer.QuestionCount{Asked: 3, Answered: 2, Took: 240 * time.Millisecond},
		Preflight: map[int]sequencer.Preflight{
			1: {At: now.Add(-2 * time.Hour)},
			2: {At: now.Add(-time.Minute), Findings: []sequencer.Finding{{Version: 2, Severity: sequencer.SeverityError, What: "/opt/v2/rollup is not there", Next: "put it into the image"}}},
		},
		HoldFile: "/data/hold",
		UndoPoint: &checkpoint.UndoPoint{
			ID: "ABC", Path: "/data/state.before-v1", Stamp: checkpoint.Stamp{Name: "v0", StopHeight: 100}, To: checkpoint.UndoTarget{VersionIndex: 1, Name: "v1", StartHeight: 101},
			Height: new(uint64(100)), Checkpoint: "secret", Method: checkpoint.UndoReflink, Bytes: 3_300_000_000, CreatedAt: now.Add(-96 * time.Minute),
		},
		Copying:     &sequencer.UndoProgress{Method: checkpoint.UndoCopy, Done: 1_500_000_000, Total: 2_000_000_000, Since: now.Add(-30 * time.Second)},
		NoUndoPoint: "the file system has no reflinks", PutBack: 1,
		Failure:  &sequencer.Failure{Code: 74, What: "the checkpoint cannot be written", Err: errors.New("no space left on device"), Safe: "the node keeps running", Next: "make room", Stderr: "secret of the node"},
		FailedAt: now.Add(-30 * time.Minute),
	}
}

// nodeSays answers for the node.
func nodeSays(r sovereign.Readiness) func(context.Context, sequencer.Version) sovereign.Readiness {
	return func(context.Context, sequencer.Version) sovereign.Readiness { return r }
}

// in runs a test in a bubble, in which it is midnight on 2000-01-01.
func in(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func newStatus(state sequencer.State, readiness sovereign.Readiness) *Status {
	s := New(Options{
		Plan: threeVersions(), Version: "v9.8.7", Checkpoint: "/data/checkpoint.json", Readiness: nodeSays(readiness), Orphans: func() uint64 { return 12 },
		OpenFiles: func(int) uint64 { return 65536 },
	})
	s.host = "node-7"
	s.Identify("0123abcd")
	s.Observe(state)
	return s
}

func TestAliveAsLongAsTheSequenceContinues(t *testing.T) {
	in(t, func(t *testing.T) {
		for _, test := range []struct {
			name  string
			state func(s *sequencer.State)
			stall time.Duration
			why   string
		}{
			{"running", func(*sequencer.State) {}, 0, ""},
			{"no new height for a day, without a limit", func(s *sequencer.State) { s.RoseAt = time.Now().Add(-24 * time.Hour) }, 0, ""},
			{"rising within the limit", func(*sequencer.State) {}, time.Minute, ""},
			{"no new height for longer than the limit", func(s *sequencer.State) { s.RoseAt = time.Now().Add(-90 * time.Second) }, time.Minute, "no new height for 1m30s, since height 180"},
			{"a node that no longer answers", func(s *sequencer.State) {
				s.RoseAt = time.Now().Add(-time.Hour)
				s.Height.At = s.RoseAt
			}, time.Minute, "no new height for 1h0m0s, since height 180"},
			{"a start-up of hours", func(s *sequencer.State) {
				s.Phase, s.Height, s.Since = sequencer.PhaseStarting, nil, time.Now().Add(-5*time.Hour)
			}, time.Minute, ""},
			{"a question of hours", func(s *sequencer.State) {
				s.Phase, s.Height, s.Process.Asked, s.Since = sequencer.PhaseAsking, nil, true, time.Now().Add(-5*time.Hour)
			}, time.Minute, ""},
			{"a migration of hours", func(s *sequencer.State) {
				s.Phase, s.Height, s.Process.Migration = sequencer.PhaseMigrating, nil, true
			}, time.Minute, ""},
			{"held for a day", func(s *sequencer.State) {
				s.Phase, s.Process, s.Since = sequencer.PhaseHeld, sequencer.ProcessState{}, time.Now().Add(-24*time.Hour)
			}, time.Minute, ""},
			{"a copy of hours", func(s *sequencer.State) {
				s.Phase, s.Process, s.Since = sequencer.PhaseCopying, sequencer.ProcessState{}, time.Now().Add(-5*time.Hour)
			}, time.Minute, ""},
			{"a hook of hours", func(s *sequencer.State) {
				s.Phase, s.Height, s.Process = sequencer.PhaseHook, nil, sequencer.ProcessState{Pid: 9, Version: 2, Hook: true}
			}, time.Minute, ""},
			{"between two versions", func(s *sequencer.State) {
				s.Phase, s.Process, s.RoseAt = sequencer.PhaseHandingOver, sequencer.ProcessState{}, time.Now().Add(-time.Hour)
			}, time.Minute, ""},
			{"finished", func(s *sequencer.State) { s.Phase, s.Process = sequencer.PhaseFinished, sequencer.ProcessState{} }, time.Minute, ""},
			{"failed", func(s *sequencer.State) { s.Phase, s.Process = sequencer.PhaseFailed, sequencer.ProcessState{} }, 0, "the run has failed"},
		} {
			state := running()
			test.state(&state)
			s := newStatus(state, sovereign.Readiness{})
			s.StallTimeout = test.stall
			assert.Equal(t, test.why, s.notAlive(&state, time.Now()), test.name)
		}
	})
}

func TestReadyIsWhatTheNodeSays(t *testing.T) {
	leads, synced := sovereign.Readiness{Leads: true}, sovereign.Readiness{Synced: true}
	in(t, func(t *testing.T) {
		for _, test := range []struct {
			name  string
			node  sovereign.Readiness
			role  string
			state func(s *sequencer.State)
			why   string
		}{
			{"a leader", leads, roleAny, nil, ""},
			{"a leader, asked for", leads, roleLeader, nil, ""},
			{"a replica", synced, roleAny, nil, ""},
			{"a replica, where a leader is asked for", synced, roleLeader, nil, "the node is a replica"},
			{"syncing", sovereign.Readiness{Why: "the node is syncing: DA height 5 of 9"}, roleAny, nil, "the node is syncing: DA height 5 of 9"},
			{"a leader at its stop height", synced, roleAny, func(s *sequencer.State) { s.Height.Height = 220 }, "the node has reached its stop height"},
			{"without a height yet", leads, roleAny, func(s *sequencer.State) { s.Phase, s.Height = sequencer.PhaseStarting, nil }, ""},
			{"asked to stop", leads, roleAny, func(s *sequencer.State) { s.Stopping = true }, "a stop was requested"},
			{"asked for its height", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseAsking }, "the node is being asked for its durable height"},
			{"one that cannot be asked", leads, roleAny, func(s *sequencer.State) { s.CannotBeAsked = true }, ""},
			{"migrating", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseMigrating }, "a migration is running"},
			{"held", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseHeld }, "an operator holds the sequence: nothing is started while /data/hold exists"},
			{"copying", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseCopying }, "the state is being copied, for the undo point"},
			{"a hook", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseHook }, "the hook before an upgrade is running"},
			{"preparing", leads, roleAny, func(s *sequencer.State) { s.Phase, s.Left = sequencer.PhasePreparing, nil }, "nothing has been started yet"},
			{
				"waiting for what a dead entrypoint left behind", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhasePreparing },
				`nothing has been started yet: waiting for leftover processes to end: 2, the oldest is pid 77 ("worker")`,
			},
			{"handing over", leads, roleAny, func(s *sequencer.State) { s.Phase, s.Left = sequencer.PhaseHandingOver, nil }, "one process has ended and the next has not been started yet"},
			{"finished", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseFinished }, "the stop height is reached, and nothing follows it"},
			{"failed", leads, roleAny, func(s *sequencer.State) { s.Phase = sequencer.PhaseFailed }, "the run has failed"},
			{"a stranger on the port", leads, roleAny, func(s *sequencer.State) { s.Process.Stranger = true }, "another process answers on the node's port"},
		} {
			state := running()
			if test.state != nil {
				test.state(&state)
			}
			_, why := newStatus(state, test.node).ready(t.Context(), &state, test.role)
			assert.Equal(t, test.why, why, test.name)
		}
	})
}

func TestNodeIsAskedOnceASecond(t *testing.T) {
	in(t, func(t *testing.T) {
		asked := 0
		state := running()
		s := newStatus(state, sovereign.Readiness{})
		s.Readiness = func(context.Context, sequencer.Version) sovereign.Readiness {
			asked++
			return sovereign.Readiness{Leads: true}
		}
		for range 10 {
			s.ready(t.Context(), &state, roleAny)
		}
		assert.Equal(t, 1, asked)
		time.Sleep(freshFor + time.Millisecond)
		s.ready(t.Context(), &state, roleAny)
		assert.Equal(t, 2, asked)
		state.Process.Pid++ // another node: the answer of the last one does not count
		s.ready(t.Context(), &state, roleAny)
		assert.Equal(t, 3, asked)
	})
}

func TestNodeThatRunsIsAskedWhetherItIsReady(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		state.Process.Version = 0
		s := newStatus(state, sovereign.Readiness{})
		s.Readiness = func(_ context.Context, v sequencer.Version) sovereign.Readiness {
			assert.Equal(t, "v0", v.Name)
			return sovereign.Readiness{Leads: true}
		}
		role, why := s.ready(t.Context(), &state, roleAny)
		assert.Empty(t, why)
		assert.Equal(t, roleLeader, role)
	})
}
