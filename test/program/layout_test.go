package program

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
	"rollup-entrypoint/test/ports"
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
	b := &bakedImage{t, t.TempDir(), ports.Hold(t)}
	buildStatic(t, b.root+"/entrypoint", "entrypoint")
	buildStatic(t, b.root+"/node", "mock-rollup")
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
	code, plan := image.run("plan")
	assert.Zero(t, code, plan)
	assert.Contains(t, plan, "migration:  /opt/rollup/versions/v1/migration --rollup-config-path /opt/rollup/versions/v1/config.toml\n")
	assert.Contains(t, plan, "next start: runs v0\n")

	code, out = image.run()
	require.Zero(t, code, out)
	assert.Contains(t, out, `"msg":"sequence finished"`)
	code, after := image.run("plan")
	assert.Zero(t, code, after)
	assert.Contains(t, after, plan[:strings.Index(plan, "checkpoint:")], "the plan is the same")
	assert.Contains(t, after, "stamp:      version 1 (v1), from height 6 to 10, migration completed\n")
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

// retire leaves only the heights of a version in the image.
func (b *bakedImage) retire(name, description string) {
	b.t.Helper()
	dir := filepath.Join(b.root, "opt", "rollup", "versions", name)
	require.NoError(b.t, os.RemoveAll(dir))
	require.NoError(b.t, os.Mkdir(dir, 0o755))
	require.NoError(b.t, os.WriteFile(dir+"/version.json", []byte(description), 0o644))
}

func TestImageWithoutItsFirstVersionContinuesAndNamesTheLastImageForAResync(t *testing.T) {
	t.Parallel()
	image := bakeImage(t)
	image.addVersion("v0", `{}`, 0)
	image.addVersion("v1", `{"start_height": 6, "stop_height": 10}`, 0)
	code, out := image.run()
	require.Zero(t, code, out)

	image.retire("v0", `{"retired": true, "last_image": "my-rollup:1"}`)
	require.NoError(t, os.WriteFile(image.root+"/opt/rollup/versions/v1/version.json", []byte(`{"start_height": 6}`), 0o644))
	image.addVersion("v2", `{"start_height": 11, "stop_height": 15}`, 2)
	for _, command := range []string{"manifest write", "check", "plan", "height", "run"} {
		code, out = image.run(strings.Fields(command)...)
		require.Zero(t, code, "%s: %s", command, out)
	}
	state, err := mockrollup.ReadState(image.root + "/data/state")
	require.NoError(t, err)
	assert.Equal(t, uint64(15), state.Height)

	code, out = image.run("reset", "--yes")
	require.Zero(t, code, out)
	assert.Contains(t, out, "the blocks below 6 are made by retired versions, v0 (last image: my-rollup:1); sync to there with an older image")
	for _, command := range []string{"check", "run"} {
		code, out = image.run(command)
		assert.Equal(t, 78, code, out)
		assert.Contains(t, strings.Join(strings.Fields(out), " "), "my-rollup:1")
	}
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
