package mockrollup

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// formats returns a chain that v0, of format a, has brought to height 3, its config, and that of a v1 of format b.
func formats(t *testing.T) (c *chain, v0, v1 string) {
	t.Helper()
	c = newChain(t)
	v0 = c.config("v0", func(cfg *Config) { cfg.Mock.Format = "a" })
	v1 = c.config("v1", func(cfg *Config) { cfg.Mock.Format, cfg.Mock.StateVersion = "b", 1 })
	c.start(v0, "--stop-at-rollup-height", "3").exits(0)
	require.Equal(t, "a", c.read().Format)
	return c, v0, v1
}

// destroyed requires that no node opens the state any more.
func (c *chain) destroyed(configs ...string) {
	c.t.Helper()
	require.NotEmpty(c.t, c.read().Damaged)
	for _, config := range configs {
		p := c.start(config).exits(101)
		require.Contains(c.t, p.stderr.String(), damageText)
		require.NotNil(c.t, c.lastRun().Refused)
		require.Nil(c.t, c.lastRun().Damaged, "it was damaged before")
	}
}

func (c *chain) lastRun() Run {
	c.t.Helper()
	runs := Runs(c.journal())
	require.NotEmpty(c.t, runs)
	return runs[len(runs)-1]
}

func TestNodeOfAnotherFormatDestroysTheStateByOpeningIt(t *testing.T) {
	t.Parallel()
	for what, start := range map[string]string{"the right start height": "4", "a question": "8123456789012345"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, v0, v1 := formats(t)
			p := c.start(v1, "--start-at-rollup-height", start).exits(101)
			require.Contains(t, p.stderr.String(), damageText)
			require.Contains(t, p.stdout.String(), damageText)
			require.NotContains(t, p.stderr.String(), "The requested")

			run := c.lastRun()
			require.NotNil(t, run.Damaged)
			require.Equal(t, `opened by v1, whose format is "b"; the state's was "a"`, run.Damaged.Reason)
			require.Equal(t, run.Damaged.Reason, c.read().Damaged)
			require.Equal(t, uint64(3), c.read().Height)
			c.destroyed(v0, v1)
			refused := c.migrate(v1).exits(1)
			require.Contains(t, refused.stderr.String(), damageText)
		})
	}
}

func TestVersionWithoutAFormatDestroysAStateThatHasOne(t *testing.T) {
	t.Parallel()
	c, v0, _ := formats(t)
	c.start(c.config("none", nil)).exits(101)
	c.destroyed(v0)
}

func TestMigrationCarriesTheStateOverToItsFormat(t *testing.T) {
	t.Parallel()
	c, v0, v1 := formats(t)
	c.migrate(v1, "--dry-run").exits(0)
	require.Equal(t, "a", c.read().Format)
	c.migrate(v1).exits(0)
	require.Equal(t, "b", c.read().Format)
	c.start(v1, "--start-at-rollup-height", "4", "--stop-at-rollup-height", "5").exits(0)

	again := c.migrate(v1, "--idempotent").exits(0)
	require.Contains(t, again.stdout.String(), `"already_migrated":true`)
	sameVersion := c.config("v2", func(cfg *Config) { cfg.Mock.Format, cfg.Mock.StateVersion = "c", 1 })
	c.migrate(sameVersion).exits(0)
	require.Equal(t, "c", c.read().Format)
	c.start(v0).exits(101)
	c.destroyed(sameVersion)
}

func TestFilesBesideTheStateDoNotDisturbANode(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	require.NoError(t, os.MkdirAll(filepath.Join(c.state(), "lost+found"), 0o755))
	files := []string{"rollup-version.json", "checkpoint.json"}
	for _, name := range files {
		require.NoError(t, os.WriteFile(filepath.Join(c.state(), name), []byte(name), 0o644))
	}
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Format = "a" })
	c.start(config, "--start-at-rollup-height", "1", "--stop-at-rollup-height", "2").exits(0)
	c.start(config, "--start-at-rollup-height", "3", "--stop-at-rollup-height", "4").exits(0)
	for _, name := range files {
		text, err := os.ReadFile(filepath.Join(c.state(), name))
		require.NoError(t, err)
		require.Equal(t, name, string(text))
	}
}

// committing waits until p is in the middle of a commit.
func (c *chain) committing(p *process) {
	c.t.Helper()
	p.until("commits", func() bool {
		text, err := os.ReadFile(filepath.Join(c.state(), committingFile))
		return err == nil && len(text) > 0
	})
}

func TestNodeKilledWhileItCommitsLeavesADamagedState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	careless := c.config("careless", func(cfg *Config) { cfg.Mock.DamageOnKill, cfg.Mock.CommitWindow = true, time.Hour })
	healthy := c.config("healthy", nil)
	p := c.start(careless)
	c.committing(p)
	p.signal(syscall.SIGKILL)
	p.diesBy(syscall.SIGKILL)
	refused := c.migrate(healthy).exits(1)
	require.Contains(t, refused.stderr.String(), damageText)

	found := c.start(healthy).exits(101)
	require.Contains(t, found.stderr.String(), damageText)
	run := c.lastRun()
	require.NotNil(t, run.Damaged)
	require.Regexp(t, `^a node was killed while it committed height \d+$`, run.Damaged.Reason)
	c.destroyed(careless, healthy)
}

func TestStopSignalWhileItCommitsDoesNoHarm(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.DamageOnKill, cfg.Mock.CommitWindow = true, 300*time.Millisecond })
	p := c.start(config)
	c.committing(p)
	p.signal(syscall.SIGTERM)
	p.exits(0)
	require.NoFileExists(t, filepath.Join(c.state(), committingFile))
	require.Empty(t, c.read().Damaged)
	next := fmt.Sprint(c.read().Height + 1)
	c.start(c.config("healthy", nil), "--start-at-rollup-height", next, "--stop-at-rollup-height", next).exits(0)
}

func TestNodeKilledInItsGenesisLeavesATornOne(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			p := c.start(c.config("torn", func(cfg *Config) { cfg.Mock.TornGenesis, cfg.Mock.CommitWindow = true, time.Hour }))
			c.committing(p)
			p.signal(sig)
			p.diesBy(sig)
			config := c.config("v0", nil)
			for range 2 {
				refused := c.start(config, "--start-at-rollup-height", "7").exits(101)
				require.Contains(t, refused.stderr.String(), tornGenesisText)
			}
			require.NoError(t, os.RemoveAll(c.state()))
			c.start(config, "--stop-at-rollup-height", "2").exits(0)
		})
	}
}
