package mockrollup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stopped returns a chain that v0 has brought to height 3, and the config of v1, which needs a migration.
func stopped(t *testing.T, change func(*Config)) (*chain, string) {
	t.Helper()
	c := newChain(t)
	c.start(c.config("v0", nil), "--stop-at-rollup-height", "3").exits(0)
	return c, c.config("v1", func(cfg *Config) {
		cfg.Mock.StateVersion = 1
		if change != nil {
			change(cfg)
		}
	})
}

func (c *chain) migrate(config string, args ...string) *process {
	return run(c.t, append([]string{"migrate", "--rollup-config-path", config}, args...)...)
}

func TestMigrationRewritesTheStateAndReports(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, nil)
	before := c.read()
	p := c.migrate(v1).exits(0)
	var report Report
	require.NoError(t, json.Unmarshal([]byte(p.stdout.String()), &report))
	after := c.read()
	require.Equal(t, Report{
		From: 0, To: 1, Height: 3, OldRoot: before.StateRoot, NewRoot: MigratedRoot(before.StateRoot, 0, 1),
	}, report)
	require.Equal(t, report.NewRoot, after.StateRoot)
	require.Equal(t, uint64(1), after.StateVersion)
	require.Equal(t, []MigrationRecord{{Height: 3, From: 0, To: 1, By: "v1"}}, after.Migrations)
	c.start(v1, "--start-at-rollup-height", "4", "--stop-at-rollup-height", "5").exits(0)
}

func TestSecondMigrationFailsUnlessIdempotent(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, nil)
	c.migrate(v1).exits(0)
	migrated := c.read()
	p := c.migrate(v1).exits(1)
	require.Contains(t, p.stderr.String(), "rollup-db-migration failed: ")
	again := c.migrate(v1, "--idempotent").exits(0)
	require.Contains(t, again.stdout.String(), `"already_migrated":true`)
	require.Equal(t, migrated, c.read())
}

func TestDryRunOfAMigrationChangesNothing(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, nil)
	before := c.read()
	p := c.migrate(v1, "--dry-run").exits(0)
	require.Contains(t, p.stdout.String(), `"dry_run":true`)
	require.Equal(t, before, c.read())
}

func TestMigrationMayIgnoreThatItIsADryRun(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, func(cfg *Config) { cfg.Mock.Migration.IgnoresDryRun = true })
	c.migrate(v1, "--dry-run").exits(0)
	require.Equal(t, uint64(1), c.read().StateVersion)
}

func TestMigrationMayRequireAnArgumentOrAVariable(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, func(cfg *Config) { cfg.Mock.Migration.Requires = "batch=9" })
	p := c.migrate(v1).exits(1)
	require.Contains(t, p.stderr.String(), "batch=9 is required")
	c.migrate(v1, "--dry-run", "--set", "batch=9").exits(0)
	cmd := standIn("migrate", "--rollup-config-path", v1)
	cmd.Env = append(cmd.Env, "batch=9")
	startCommand(t, cmd).exits(0)
	require.Equal(t, uint64(1), c.read().StateVersion)
}

func TestMigrationRefusesAnEmptyState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v1", func(cfg *Config) { cfg.Mock.StateVersion = 1 })
	p := c.migrate(config).exits(1)
	require.Contains(t, p.stderr.String(), "rollup-db-migration failed: ")
	require.NoDirExists(t, c.state())
	require.NoError(t, os.Mkdir(c.state(), 0o755))
	c.migrate(config).exits(1)
}

func TestMigrationRefusesALockedState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.ready(c.start(c.config("v0", nil)))
	p := c.migrate(c.config("v1", func(cfg *Config) { cfg.Mock.StateVersion = 1 })).exits(1)
	require.Contains(t, p.stderr.String(), errLocked.Error())
	require.Equal(t, KindMigration, Overlap(c.journal()).Start.Kind)
}

func TestMigrationDoesNotCheckTheHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	v0 := c.config("v0", func(cfg *Config) { cfg.Mock.ExitEarlyAt = 5 })
	c.start(v0, "--stop-at-rollup-height", "20").exits(0)
	c.migrate(c.config("v1", func(cfg *Config) { cfg.Mock.StateVersion = 1 })).exits(0)
	require.Less(t, c.read().Migrations[0].Height, uint64(5))
}

func TestKilledMigrationLeavesAStateThatOnlyAnIdempotentOneRepairs(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, func(cfg *Config) { cfg.Mock.Migration.Sleep = time.Hour })
	p := c.migrate(v1)
	p.until("is half way", func() bool { return c.read().Migrating != nil })
	p.signal(syscall.SIGTERM)
	p.diesBy(syscall.SIGTERM)

	node := c.start(v1).exits(101)
	require.Contains(t, node.stderr.String(), "in the middle of a migration")
	refused := c.migrate(v1).exits(1)
	require.Contains(t, refused.stderr.String(), "half migrated")
	repaired := c.migrate(v1, "--idempotent", "--sleep", "0s").exits(0)
	require.Contains(t, repaired.stdout.String(), `"resumed":true`)
	c.start(v1, "--start-at-rollup-height", "4", "--stop-at-rollup-height", "4").exits(0)
}

func TestMigrationFailsWithAChosenCode(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, func(cfg *Config) { cfg.Mock.Migration.Exit = 7 })
	before := c.read()
	c.migrate(v1).exits(7)
	c.migrate(v1, "--exit", "9").exits(9)
	require.Equal(t, before, c.read())
	c.migrate(v1, "--exit", "0").exits(0)
}

func TestMigrationTakesItsTargetFromTheFlag(t *testing.T) {
	t.Parallel()
	c, v1 := stopped(t, nil)
	c.migrate(v1, "--to", "4").exits(0)
	require.Equal(t, uint64(4), c.read().StateVersion)
	p := c.migrate(v1, "--to", "3").exits(1)
	require.Contains(t, p.stderr.String(), "beyond 3")
}

func TestMigrationRefusesUnknownFlags(t *testing.T) {
	t.Parallel()
	run(t, "migrate", "--rollup-config-path", "x", "--stop-at-rollup-height", "3").exits(2)
	run(t, "migrate").exits(2)
	run(t, "migrate", "--rollup-config-path", filepath.Join(t.TempDir(), "none.toml")).exits(1)
}

func TestProgramNamedMigrationIsTheMigration(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"migration", "rollup-db-migration-v1"} {
		c, v1 := stopped(t, nil)
		link := filepath.Join(c.dir, name)
		require.NoError(t, os.Symlink(os.Args[0], link))
		cmd := standIn("--rollup-config-path", v1)
		cmd.Path, cmd.Args[0] = link, link
		startCommand(t, cmd).exits(0)
		require.Equal(t, uint64(1), c.read().StateVersion)
	}
}

func TestMigrationLeavesAWorkerThatCompletesIt(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.start(c.config("v0", nil), "--stop-at-rollup-height", "3").exits(0)
	v1 := c.config("v1", func(cfg *Config) {
		cfg.Mock.StateVersion, cfg.Mock.Migration.Worker = 1, 500*time.Millisecond
	})
	m := standIn("migrate", "--rollup-config-path", v1)
	require.NoError(t, m.Start())
	require.NoError(t, m.Wait())
	require.NotNil(t, c.read().Migrating, "the migration has ended, and its work has not")
	p := c.start(v1).exits(101)
	require.Contains(t, p.stderr.String(), errLocked.Error())
	require.Eventually(t, func() bool { return c.read().Migrating == nil }, deadline, time.Millisecond)
	require.Len(t, c.read().Migrations, 1)
	require.Eventually(t, func() bool {
		for _, run := range Runs(c.journal()) {
			if run.Start.Kind == KindWorker && run.Exit != nil {
				return true
			}
		}
		return false
	}, deadline, time.Millisecond)
	c.start(v1, "--start-at-rollup-height", "4", "--stop-at-rollup-height", "5").exits(0)
}
