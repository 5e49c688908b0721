package program

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

const dryStart = "start v1 migration --set BATCH=9 --dry-run"

// comingMigration is the coming migration of a chain that stopped at height 5 of version 0, with an argument and a variable of its own.
func comingMigration(t *testing.T, change func(m *mockrollup.MigrationConfig)) *chain {
	t.Helper()
	v1 := version{migrates: true, keys: map[string]any{"migration_args": []string{"--set", "BATCH=9"}, "migration_env": map[string]string{"DEPTH": "3"}}}
	c := newChain(t, version{stop: 10}, v1)
	c.undo = "auto"
	configure(1, func(n *mockrollup.Config) {
		n.Mock.Migration.Requires = "BATCH=9"
		if change != nil {
			change(&n.Mock.Migration)
		}
	})(c)
	c.run(
		phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	return c
}

// unchanging is what is on the volume, but for the times of the record.
func (c *chain) unchanging() map[string]string {
	c.t.Helper()
	all := c.volume()
	for name, text := range all {
		all[name] = updatedAt.ReplaceAllString(text, "")
	}
	return all
}

var updatedAt = regexp.MustCompile(`"updated_at": "[^"]*"`)

// dryRun runs `entrypoint migrate --dry-run`, which must exit with code and leave the volume as it is.
func (c *chain) dryRun(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	before := c.unchanging()
	got, stdout, stderr := c.command(append([]string{"migrate", "--dry-run", "-c", c.manager, "-f", c.checkpoint}, args...)...)
	require.Equal(c.t, code, got, "%s%s", stdout, stderr)
	assert.Equal(c.t, before, c.unchanging())
	assert.Equal(c.t, []string{"state"}, c.beside(), "nothing is left of it")
	return stdout, stderr
}

// continues has version 0 go on after a dry run, and be migrated at its stop height.
func (c *chain) continues() {
	c.t.Helper()
	c.run(
		phase{
			name: "to v1", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Migration = mockrollup.MigrationConfig{Requires: "DEPTH=3"} }), heights(13, 13), start()),
			events: []event{on("migration finished", "exit_code=0"), on("height known", "version=1")},
			trace: []string{
				"asked v0 at 5", "start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 migration --set BATCH=9", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11",
			},
			state: "13 version 1 migrated@10", checkpoint: "1 running migrated 0@10",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
	)
}

func TestDryRunShowsTheReportOfTheComingMigration(t *testing.T) {
	t.Parallel()
	c := comingMigration(t, nil)
	out, errs := c.dryRun(0)
	assert.Regexp(t, `(?m)^migration:  to version 1 \(v1\), with --dry-run: exited 0 after \d+\.\d s$`, out)
	assert.Regexp(t, `(?m)^state:      .*; it was copied before \((copy|reflink)\), and put back after$`, out)
	assert.Regexp(t, `(?m)^free:       `, out)
	assert.Contains(t, out, "for real:   at height 10, the stop height of the version before; the state may have grown by then\n")
	assert.Regexp(t, `report:\s+\{"from_state_version":0,"to_state_version":1,"height":5,.*"dry_run":true`, out)
	assert.Contains(t, errs, "migration finished")
	c.expectTrace([]string{dryStart, "exit v1 migration 0 at 5"}, false)

	out, _ = c.dryRun(0, "--json")
	var report struct {
		VersionIndex int    `json:"version_index"`
		ExitCode     *int   `json:"exit_code"`
		Height       uint64 `json:"migrates_at_height"`
		State        int64  `json:"state_bytes"`
		Free         int64  `json:"free_bytes"`
		Report       string
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	assert.Equal(t, 1, report.VersionIndex)
	assert.Equal(t, 0, *report.ExitCode)
	assert.EqualValues(t, 10, report.Height)
	assert.Positive(t, report.State)
	assert.Positive(t, report.Free)
	assert.Contains(t, report.Report, `"dry_run":true`)
	c.expectTrace([]string{dryStart, "exit v1 migration 0 at 5"}, false)
	c.continues()
}

func TestDryRunEndsWithTheCodeOfTheMigration(t *testing.T) {
	t.Parallel()
	c := comingMigration(t, func(m *mockrollup.MigrationConfig) { m.Requires = "BATCH=10" })
	out, errs := c.dryRun(1)
	assert.Contains(t, out, "with --dry-run: exited 1 after")
	assert.Contains(t, errs, "BATCH=10 is required")
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration = mockrollup.MigrationConfig{Exit: 7} })(c)
	c.dryRun(7)
	c.expectTrace([]string{dryStart, "exit v1 migration 7 at 5"}, false)
	c.continues()
}

func TestMigrationThatIgnoresThatItIsADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	c := comingMigration(t, func(m *mockrollup.MigrationConfig) { m.IgnoresDryRun = true })
	out, _ := c.dryRun(0)
	assert.Contains(t, out, `"dry_run":false`)
	c.expectTrace([]string{dryStart, "exit v1 migration 0 at 5"}, false)
	assert.Equal(t, "5 version 0", c.stateInWords())
	c.continues()
}

// Its migration is killed with it, half done, on the only state that is there.
func TestKilledDryRunIsPutBackByTheNextStart(t *testing.T) {
	t.Parallel()
	c := comingMigration(t, func(m *mockrollup.MigrationConfig) { m.IgnoresDryRun, m.Sleep = true, deadline })
	c.startWith("migrate", "--dry-run", "-c", c.manager, "-f", c.checkpoint)
	c.awaitEqual("state", "5 version 0 half migrated", true, c.stateInWords)
	c.run(phase{
		name: "killed", do: (*chain).killAll, trace: []string{dryStart},
		stamp: "1 from 11 migrating", state: "5 version 0 half migrated", checkpoint: "0 running",
	})
	assert.Equal(t, []string{"state", "state.before-v1.dry-run"}, c.beside())
	code, _, errs := c.command("migrate", "--dry-run", "-c", c.manager, "-f", c.checkpoint)
	require.Equal(t, 78, code, errs)
	assert.Contains(t, errs, "start the entrypoint")
	c.run(
		phase{
			name: "restart", do: start(), events: []event{on("migration was interrupted", "version=1", "detail~it was a dry run"), on("undo point put back", "version=1"), on("height known", "version=0")},
			trace: []string{"asked v0 at 5", "start v0 stop=10"}, state: "5 version 0", stamp: "0 to 10", checkpoint: "0 running",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	c.continues()
}

func TestDryRunOnAStateThatIsInUseIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{migrates: true})
	c.run(phase{name: "run", do: do(heights(3, 3), start()), trace: []string{"start v0 stop=10"}, events: []event{on("height known")}})
	code, _, errs := c.command("migrate", "--dry-run", "-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, 74, code)
	assert.Contains(t, errs, "locked by the entrypoint with pid ")
}

// The plan and the command of docs/migrations.md, as they are.
func TestDryRunOfThePageWorks(t *testing.T) {
	t.Parallel()
	readSources()
	page := readText("../../docs/migrations.md")
	_, after, found := strings.Cut(page, "```json\n")
	manager, _, closed := strings.Cut(after, "```")
	command := regexp.MustCompile(`(?m)^    entrypoint (migrate .*)$`).FindStringSubmatch(page)
	require.True(t, found && closed && command != nil)
	c := &chain{t: t, dir: t.TempDir()}
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644))
	}
	write("manager.json", manager)
	const node = "storage.path = \"state\"\nrunner.http_config.bind_port = %d\n[mock]\nstate_version = %d\nresync_rate = 1000\nda.file = \"da.json\"\nda.block_time = \"10ms\"\n"
	write("node.toml", fmt.Sprintf(node, 0, 0))
	write("v0.toml", fmt.Sprintf(node, 12346, 0))
	write("v1.toml", fmt.Sprintf(node, 12346, 1)+"migration.requires = \"BATCH=500\"\n")
	for i, name := range []string{"rollup-v0", "rollup-v1", "migration-v1"} {
		require.NoError(t, os.Symlink(programs.nodes[i], filepath.Join(c.dir, name)))
	}
	cmd := exec.Command(programs.nodes[0], "--rollup-config-path", "node.toml", "--stop-at-rollup-height", "5")
	cmd.Dir = c.dir
	require.NoError(t, cmd.Run())
	code, _, errs := c.command("checkpoint", "set", "-c", "manager.json", "-f", "checkpoint.json", "--version", "0")
	require.Zero(t, code, errs)
	code, out, errs := c.command(strings.Fields(command[1])...)
	require.Zero(t, code, errs)
	for _, line := range []string{"migration:  to version 1 (v1), with --dry-run: exited 0 after ", "state:      ", "free:       ", "for real:   at height 10, ", "report:\n{"} {
		assert.Contains(t, out, line)
		assert.Contains(t, page, strings.ReplaceAll(line, "\n", "\n    "))
	}
}
