package mockrollup

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGenesisIsCommittedByTheWrongBinary(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	v2 := c.config("v2", func(cfg *Config) { cfg.Mock.StateVersion = 2 })
	c.start(v2, "--start-at-rollup-height", "41").exits(101)
	require.Equal(t, GenesisState(2, "v2", ""), c.read())
}

func TestSoftHeightRunsAheadAndTheNodeIsNotReadyAtTheStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.DA.Finality = 1 << 40 })
	p := c.start(config, "--stop-at-rollup-height", "5")
	p.until("reaches the stop height", func() bool { return softHeight(c.port) == 5 })
	require.Zero(t, c.read().Height)
	require.True(t, p.alive())
	p.until("is unready", func() bool {
		status, _, err := get(c.port, "/sequencer/ready")
		return err == nil && status == http.StatusServiceUnavailable
	})
}

func TestLeaderIsReadyAndReplicaIsNot(t *testing.T) {
	t.Parallel()
	for role, want := range map[string]int{"leader": http.StatusOK, "replica": http.StatusServiceUnavailable} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			// Slow blocks: on a busy machine a fast chain leaves its node syncing now and then.
			p := c.start(c.config("v0", func(cfg *Config) {
				cfg.Mock.Role, cfg.Mock.DA.BlockTime = role, time.Second
			}))
			c.ready(p)
			status, _, err := get(c.port, "/sequencer/ready")
			require.NoError(t, err)
			require.Equal(t, want, status)
		})
	}
}

func TestHeightsAreNullBeforeTheFirstBlock(t *testing.T) {
	t.Parallel()
	for shape, want := range map[string]string{
		"value": `{"value":null}`,
		"data":  `{"data":{"value":null},"meta":{}}`,
	} {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			p := c.start(c.config("v0", func(cfg *Config) {
				cfg.Mock.HeightsShape, cfg.Mock.DA.BlockTime = shape, 24*time.Hour
			}))
			c.ready(p)
			_, body, err := get(c.port, heightsPath+"/")
			require.NoError(t, err)
			require.JSONEq(t, want, body)
		})
	}
}

func TestHeightsComeInTheOlderShape(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.HeightsShape = "data" }))
	p.until("makes a block", func() bool { return softHeight(c.port) > 0 })
	_, body, err := get(c.port, heightsPath)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(body, `{"data":{"value":[`), body)
}

func TestStopSignalKillsDuringTheStart(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Startup = time.Hour }))
			p.prints("Genesis committed")
			p.signal(sig)
			p.diesBy(sig)
			require.Empty(t, p.stderr.String())
		})
	}
}

func TestRequestsDuringTheStartAreRefusedOrHang(t *testing.T) {
	t.Parallel()
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		c := newChain(t)
		p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Startup = time.Hour }))
		p.prints("Genesis committed")
		require.True(t, refused(c.port))
	})
	t.Run("hang", func(t *testing.T) {
		t.Parallel()
		c := newChain(t)
		p := c.start(c.config("v0", func(cfg *Config) {
			cfg.Mock.Startup, cfg.Mock.StartupHTTP = time.Second, "hang"
		}))
		p.prints("HTTP server listens")
		require.NotContains(t, p.stdout.String(), "Rollup started")
		status, _, err := get(c.port, "/healthcheck")
		require.NoError(t, err, "the request hangs, then it is answered")
		require.Equal(t, http.StatusOK, status)
		p.prints("Rollup started")
	})
}

func TestNewerBinaryRefusesAnOlderState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.start(c.config("v0", nil), "--stop-at-rollup-height", "3").exits(0)
	before := c.read()
	v1 := c.config("v1", func(cfg *Config) { cfg.Mock.StateVersion = 1 })
	p := c.start(v1, "--start-at-rollup-height", "4").exits(101)
	require.Contains(t, p.stderr.String(), "state_version on disk is 0, this binary requires 1")
	require.Equal(t, before, c.read())
}

func TestOlderBinaryDivergesSilentlyOnANewerState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	v1 := c.config("v1", func(cfg *Config) { cfg.Mock.StateVersion = 1 })
	c.start(v1, "--stop-at-rollup-height", "3").exits(0)
	root := c.read().StateRoot
	c.start(c.config("v0", nil), "--stop-at-rollup-height", "4").exits(0)

	state := c.read()
	require.Equal(t, NextRoot(root, 4, 0, ""), state.StateRoot)
	require.NotEqual(t, NextRoot(root, 4, 1, ""), state.StateRoot)
	require.Equal(t, Segment{From: 4, To: 4, BinaryVersion: 0, DiskVersion: 1, By: "v0"}, state.History[1])
}

func TestWipedNodeResyncsTheSameChain(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.DA.BlockTime = 2 * time.Millisecond })
	c.start(config, "--stop-at-rollup-height", "200").exits(0)
	root := c.read().StateRoot
	require.NoError(t, os.RemoveAll(c.state()))
	c.start(config, "--stop-at-rollup-height", "200").exits(0)
	require.Equal(t, root, c.read().StateRoot)
}

func TestEmptySlotsDoNotAdvanceTheRollup(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.DA.EmptyEvery = 1 }))
	p.until("sees slots", func() bool {
		_, body, err := get(c.port, "/rollup/sync-status")
		return err == nil && strings.HasPrefix(body, `{"synced"`) && !strings.HasSuffix(body, ":0}}")
	})
	require.Zero(t, softHeight(c.port))
}

func TestLockedStateIsRefusedAndJournalled(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", nil)
	p := c.start(config)
	c.ready(p)
	require.Nil(t, Overlap(c.journal()))
	c.start(config).exits(101)
	overlap := Overlap(c.journal())
	require.NotNil(t, overlap)
	require.Equal(t, 101, *overlap.Exit.Code)
}

func TestKilledNodeLeavesAConsistentState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Fsync, cfg.Mock.Journal = true, "heights" })
	p := c.start(config)
	p.prints("Committed")
	p.signal(syscall.SIGKILL)
	p.diesBy(syscall.SIGKILL)
	height := c.read().Height
	require.Positive(t, height)
	next := fmt.Sprint(height + 1)
	c.start(config, "--start-at-rollup-height", next, "--stop-at-rollup-height", next).exits(0)
}

func TestRelativeStorageResolvesAgainstTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Storage.Path = "elsewhere" })
	cmd := standIn("--rollup-config-path", config, "--stop-at-rollup-height", "2")
	cmd.Dir = t.TempDir()
	startCommand(t, cmd).exits(0)
	state, err := ReadState(filepath.Join(cmd.Dir, "elsewhere"))
	require.NoError(t, err)
	require.Equal(t, uint64(2), state.Height)
}

func TestFlagsBelongToAVersion(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	with := c.config("v1", func(cfg *Config) { cfg.Mock.AcceptFlags = []string{"--metrics"} })
	c.start(with, "--metrics", "x", "--stop-at-rollup-height", "1").exits(0)
	c.start(c.config("v0", nil), "--metrics", "x").exits(2)
	c.start(with, "a-word").exits(2)
	c.start(with, "--stop-at-rollup-height", "-1").exits(2)
	run(t).exits(2)
	run(t, "--help").exits(0)
}

func TestGenesisIsParsedAtEveryStart(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config, genesis := c.config("v0", nil), filepath.Join(c.dir, "genesis.json")
	c.start(config, "--genesis-path", genesis).exits(101)
	require.NoError(t, os.WriteFile(genesis, []byte("{"), 0o644))
	p := c.start(config, "--genesis-path", genesis).exits(101)
	require.Contains(t, p.stderr.String(), "genesis.json")
	require.NoError(t, os.WriteFile(genesis, []byte("{}"), 0o644))
	c.start(config, "--genesis-path", genesis, "--stop-at-rollup-height", "1").exits(0)
}

func TestColoursAreUsedUnlessNoColor(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	cmd := standIn("--rollup-config-path", c.config("v0", nil), "--start-at-rollup-height", "7")
	cmd.Env = append(cmd.Env, "NO_COLOR=")
	p := startCommand(t, cmd).exits(101)
	require.Contains(t, p.stdout.String(), "\x1b[")
	require.Contains(t, p.stderr.String(), "\x1b[")
	require.Contains(t, p.stderr.String(), "The requested start_at_rollup_height: 7, is different than expected height 1")

	plain := c.start(c.config("v0", nil), "--start-at-rollup-height", "7").exits(101)
	require.NotContains(t, plain.stdout.String()+plain.stderr.String(), "\x1b[")
}

func TestRustLogTakesLevelsAndModules(t *testing.T) {
	t.Parallel()
	for filter, want := range map[string]int{
		"": levelInfo, "off": 0, "WARN": levelWarn, "info,sov_rollup=debug": levelDebug, "a=error, b=warn": levelWarn,
	} {
		level, err := parseRustLog(filter)
		require.NoError(t, err, filter)
		require.Equal(t, want, level, filter)
	}
	for _, filter := range []string{"loud", "info,,warn", "=info", "a=loud"} {
		_, err := parseRustLog(filter)
		require.Error(t, err, filter)
	}
}

func TestTakenPortExits101(t *testing.T) {
	t.Parallel()
	a, b := newChain(t), newChain(t)
	a.ready(a.start(a.config("v0", nil)))
	b.port = a.port
	p := b.start(b.config("v0", nil)).exits(101)
	require.Contains(t, p.stderr.String(), "address already in use")
}

func TestJournalElsewhereOutlivesTheState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	dir := filepath.Join(c.dir, "journal")
	config := func(text string) string {
		return c.config("v0", func(cfg *Config) { cfg.Mock.JournalDir, cfg.Mock.PanicOnStart = dir, text })
	}
	c.start(config("no luck today")).exits(101)
	require.NoDirExists(t, c.state(), "it failed before it opened the state")
	c.start(config(""), "--stop-at-rollup-height", "2").exits(0)
	require.NoFileExists(t, filepath.Join(c.state(), journalFile))
	c.migrate(config("")).exits(1)
	require.NoError(t, os.RemoveAll(c.state()))
	entries, err := ReadJournal(dir)
	require.NoError(t, err)
	runs := Runs(entries)
	require.Len(t, runs, 3)
	require.Equal(t, KindMigration, runs[2].Start.Kind)
}

func TestJournalSaysWhoRanWhen(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Journal = "heights" })
	c.start(config, "--stop-at-rollup-height", "3").exits(0)
	c.start(config, "--stop-at-rollup-height", "3").exits(101)
	runs := Runs(c.journal())
	require.Len(t, runs, 2)
	require.Equal(t, []string{"--rollup-config-path", config, "--stop-at-rollup-height", "3"}, runs[0].Start.Args)
	require.Equal(t, KindNode, runs[0].Start.Kind)
	require.Equal(t, uint64(3), runs[0].Exit.Height)
	require.Nil(t, runs[0].Refused)
	require.Equal(t, 101, *runs[1].Exit.Code)
	require.NotNil(t, runs[1].Refused)

	require.NoError(t, os.RemoveAll(c.state()))
	c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Journal = "off" }), "--stop-at-rollup-height", "1").exits(0)
	require.Empty(t, c.journal())
}
