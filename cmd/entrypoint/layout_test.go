package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// bakedImage is a root directory with the layout of an image FROM scratch: nothing but the entrypoint and its versions.
type bakedImage struct {
	t    *testing.T
	root string
	port uint16
}

func bakeImage(t *testing.T) *bakedImage {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "this test needs root, to change the root directory")
	}
	b := &bakedImage{t, t.TempDir(), freePort(t)}
	// Not programs.entrypoint: that of the race detector needs a loader itself.
	require.NoError(t, build(b.root+"/entrypoint", "rollup-entrypoint/cmd/entrypoint", false))
	require.NoError(t, build(b.root+"/node", "rollup-entrypoint/cmd/mock-rollup", false))
	for _, dir := range []string{"data", "tmp"} {
		require.NoError(t, os.Mkdir(filepath.Join(b.root, dir), 0o755))
	}
	return b
}

// addVersion adds the folder of a version; description is its version.json.
func (b *bakedImage) addVersion(name, description string, stateVersion uint64) {
	b.t.Helper()
	dir := filepath.Join(b.root, "opt", "rollup", "versions", name)
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	require.NoError(b.t, copyProgram(b.root+"/node", dir+"/rollup", name))
	if stateVersion > 0 {
		require.NoError(b.t, copyProgram(b.root+"/node", dir+"/migration", name))
	}
	cfg := mockrollup.NewConfig("/data/state", "/data/da.json", b.port)
	cfg.Mock.Label, cfg.Mock.StateVersion, cfg.Mock.Startup = name, stateVersion, 0
	cfg.Mock.DA.BlockTime = 50e6
	require.NoError(b.t, mockrollup.WriteConfig(dir+"/config.toml", cfg))
	require.NoError(b.t, os.WriteFile(dir+"/genesis.json", []byte(`{"name": "`+name+`"}`), 0o644))
	require.NoError(b.t, os.WriteFile(dir+"/version.json", []byte(description), 0o644))
}

// run runs the entrypoint in the image, as a container would.
func (b *bakedImage) run(args ...string) (code int, out string) {
	b.t.Helper()
	cmd := exec.Command("/entrypoint", args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"ENTRYPOINT_LISTEN="}, &syscall.SysProcAttr{Chroot: b.root}
	text, err := cmd.CombinedOutput()
	return exitCode(err), string(text)
}

func TestImageWithTheLayoutNeedsNoFlag(t *testing.T) {
	t.Parallel()
	image := bakeImage(t)
	image.addVersion("v0", `{}`, 0)
	image.addVersion("v1", `{"start_height": 6, "stop_height": 10}`, 1)
	code, out := image.run("check")
	assert.Zero(t, code, out)

	code, out = image.run()
	require.Zero(t, code, out)
	assert.Contains(t, out, `"msg":"sequence finished"`)
	state, err := mockrollup.ReadState(image.root + "/data/state")
	require.NoError(t, err)
	assert.Equal(t, uint64(10), state.Height)
	require.Len(t, state.Migrations, 1)
	assert.Equal(t, uint64(5), state.Migrations[0].Height, "v0 ends where v1's folder says that it starts")

	code, out = image.run("checkpoint", "show")
	assert.Zero(t, code, out)
	assert.Contains(t, out, "1 (v1)")
	assert.FileExists(t, image.root+"/data/checkpoint.json")

	// The next release adds a folder, and nothing else changes but that v1 is not the last any more.
	require.NoError(t, os.WriteFile(image.root+"/opt/rollup/versions/v1/version.json", []byte(`{"start_height": 6}`), 0o644))
	image.addVersion("v2", `{"start_height": 11, "stop_height": 15}`, 2)
	code, out = image.run()
	require.Zero(t, code, out)
	state, err = mockrollup.ReadState(image.root + "/data/state")
	require.NoError(t, err)
	assert.Equal(t, uint64(15), state.Height)
	require.Len(t, state.Migrations, 2)
	assert.Equal(t, uint64(10), state.Migrations[1].Height)
}

func TestImageWithTwoPlansIsRefused(t *testing.T) {
	t.Parallel()
	image := bakeImage(t)
	image.addVersion("v0", `{}`, 0)
	require.NoError(t, os.WriteFile(image.root+"/opt/rollup/manager.json", []byte(`[]`), 0o644))
	for _, args := range [][]string{nil, {"check"}} {
		code, out := image.run(args...)
		assert.Equal(t, 78, code)
		// check breaks its lines
		assert.Contains(t, strings.Join(strings.Fields(out), " "), "/opt/rollup has both a manager.json and, in its versions folders, a version.json")
	}
	entries, err := os.ReadDir(image.root + "/data")
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestWhatIsGivenWinsOverTheLayout(t *testing.T) {
	t.Parallel()
	image := bakeImage(t)
	image.addVersion("v0", `{"stop_height": 3}`, 0)
	code, out := image.run("--no-checkpoint-file")
	assert.Zero(t, code, out)
	assert.NoFileExists(t, image.root+"/data/checkpoint.json")
	code, out = image.run("-f", "/data/other.json")
	assert.Zero(t, code, out)
	assert.FileExists(t, image.root+"/data/other.json")
	code, out = image.run("-c", "/nowhere.json")
	assert.Equal(t, 78, code, out)
	assert.Contains(t, out, "open /nowhere.json")
	code, out = image.run("-f", "")
	assert.Equal(t, 64, code, out)
	assert.Contains(t, out, "--checkpoint-file is missing")
}

// A folder that is lost would let the version before it run past the fork.
func TestPlanOfFoldersIsThatOfTheManifest(t *testing.T) {
	t.Parallel()
	image := bakeImage(t)
	image.addVersion("v0", `{}`, 0)
	image.addVersion("v1", `{"start_height": 6, "stop_height": 8}`, 1)
	code, out := image.run("manifest", "write")
	require.Zero(t, code, out)
	v1 := filepath.Join(image.root, "opt", "rollup", "versions", "v1")

	require.NoError(t, os.Rename(v1, image.root+"/lost"))
	code, out = image.run()
	assert.Equal(t, 78, code, out)
	assert.Contains(t, out, "/opt/rollup/versions/v1/version.json is missing")
	assert.Contains(t, out, "nothing was started")
	assert.NotContains(t, out, `"msg":"version started"`)

	require.NoError(t, os.Rename(image.root+"/lost", v1))
	require.NoError(t, os.WriteFile(v1+"/version.json", []byte(`{"start_height": 4, "stop_height": 8}`), 0o644))
	code, out = image.run()
	assert.Equal(t, 78, code, out)
	assert.Contains(t, out, "/opt/rollup/versions/v1/version.json has the sha256")
	assert.NotContains(t, out, `"msg":"version started"`)

	require.NoError(t, os.WriteFile(v1+"/version.json", []byte(`{"start_height": 6, "stop_height": 8}`), 0o644))
	code, out = image.run()
	assert.Zero(t, code, out)
	assert.Contains(t, out, `"msg":"sequence finished"`)
}
