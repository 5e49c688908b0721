package mockrollup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDemoRunsThroughItsVersions(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "demo")
	run(t, "demo", "--dir", dir, "--block-time", "10ms").exits(0)
	text, err := os.ReadFile(filepath.Join(dir, "manager.json"))
	require.NoError(t, err)
	var versions []manifestVersion
	require.NoError(t, json.Unmarshal(text, &versions))
	require.Len(t, versions, 3)
	require.NotContains(t, string(text), `"start_height": 0`)

	c := &chain{t: t, dir: dir}
	c.runDemo(versions[0].RollupBinary, versions[0].ConfigPath, "--stop-at-rollup-height", "20")
	c.runDemo(versions[1].MigrationPath, versions[1].ConfigPath)
	c.runDemo(versions[1].RollupBinary, versions[1].ConfigPath,
		"--start-at-rollup-height", "21", "--stop-at-rollup-height", "40")
	c.runDemo(versions[2].RollupBinary, versions[2].ConfigPath,
		"--start-at-rollup-height", "41", "--stop-at-rollup-height", "45")

	state := c.read()
	require.Equal(t, []Segment{
		{From: 0, To: 20, By: "v0"},
		{From: 21, To: 40, BinaryVersion: 1, DiskVersion: 1, By: "v1"},
		{From: 41, To: 45, BinaryVersion: 1, DiskVersion: 1, By: "v2"},
	}, state.History)
	require.Equal(t, "format-1", state.Format)
	require.Nil(t, Overlap(c.journal()))

	inspected := run(t, "inspect", "--dir", c.state()).exits(0).stdout.String()
	require.Equal(t, 1, strings.Count(inspected, "\n"))
	var shown State
	require.NoError(t, json.Unmarshal([]byte(inspected), &shown))
	require.Equal(t, state, shown)
}

func (c *chain) runDemo(binary, config string, args ...string) {
	c.t.Helper()
	cmd := standIn(append([]string{"--rollup-config-path", config}, args...)...)
	cmd.Path, cmd.Args[0] = binary, binary
	startCommand(c.t, cmd).exits(0)
}

func TestDemoIsNeverOverwritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run(t, "demo", "--dir", dir).exits(0)
	manifest := filepath.Join(dir, "manager.json")
	require.NoError(t, os.WriteFile(manifest, []byte("mine"), 0o644))
	run(t, "demo", "--dir", dir).exits(0)
	text, err := os.ReadFile(manifest)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))

	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "notes"), nil, 0o644))
	p := run(t, "demo", "--dir", foreign).exits(1)
	require.Contains(t, p.stderr.String(), "is not empty")
}

func TestVersionsOfTheDemoDifferInTheirBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, WriteDemo(dir, time.Second, 12346))
	v0, err := os.ReadFile(filepath.Join(dir, "v0", "rollup"))
	require.NoError(t, err)
	v1, err := os.ReadFile(filepath.Join(dir, "v1", "rollup"))
	require.NoError(t, err)
	require.NotEqual(t, v0[len(v0)-4:], v1[len(v1)-4:])
}

func TestInspectOfNoStateFails(t *testing.T) {
	t.Parallel()
	run(t, "inspect", "--dir", t.TempDir()).exits(1)
	run(t, "inspect").exits(2)
}
