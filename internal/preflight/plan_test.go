package preflight

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
)

// folder is what is in a directory: the text of each file by its name.
type folder map[string]string

func (f folder) write(t *testing.T, dir string) {
	t.Helper()
	for name, text := range f {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// from loads the plan at path.
func from(path string) func() (*sequencer.Plan, error) {
	return func() (*sequencer.Plan, error) { return sequencer.LoadPlan(path) }
}

const twoVersions = `[{"rollup_binary": "a", "config_path": "a.toml", "stop_height": 10}, {"rollup_binary": "b", "config_path": "b.toml", "start_height": 11}]`

func TestPlanIsOutdatedIfItsMeaningOnDiskIsAnother(t *testing.T) {
	folders := folder{
		"versions/v0/rollup": "", "versions/v0/config.toml": "", "versions/v0/version.json": `{}`,
		"versions/v1/rollup": "", "versions/v1/config.toml": "", "versions/v1/version.json": `{"start_height": 11}`,
	}
	for _, test := range []struct {
		name          string
		before, after folder
		remove        string
		outdated      bool
	}{
		{name: "untouched", before: folder{"manager.json": twoVersions}},
		{name: "another layout", before: folder{"manager.json": twoVersions}, after: folder{"manager.json": `{"versions": ` + twoVersions + "}\n"}},
		{name: "another height", before: folder{"manager.json": twoVersions}, after: folder{"manager.json": `[{"rollup_binary": "a", "config_path": "a.toml", "stop_height": 20}, {"rollup_binary": "b", "config_path": "b.toml", "start_height": 21}]`}, outdated: true},
		{name: "an argument more", before: folder{"manager.json": twoVersions}, after: folder{"manager.json": `[{"rollup_binary": "a", "config_path": "a.toml", "stop_height": 10}, {"rollup_binary": "b", "config_path": "b.toml", "start_height": 11, "args": ["-v"]}]`}, outdated: true},
		{name: "a version less", before: folder{"manager.json": twoVersions}, after: folder{"manager.json": `[{"rollup_binary": "a", "config_path": "a.toml", "stop_height": 10}]`}, outdated: true},
		{name: "torn", before: folder{"manager.json": twoVersions}, after: folder{"manager.json": twoVersions[:50]}, outdated: true},
		{name: "gone", before: folder{"manager.json": twoVersions}, remove: "manager.json", outdated: true},
		{name: "folders untouched", before: folders},
		{name: "a folder more", before: folders, after: folder{"versions/v2/rollup": "", "versions/v2/config.toml": "", "versions/v2/version.json": `{"start_height": 21}`}, outdated: true},
		{name: "a file that the plan does not read", before: folders, after: folder{"versions/v1/config.toml": "[storage]\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.before.write(t, dir)
			plan, err := sequencer.LoadPlan(dir)
			require.NoError(t, err)
			test.after.write(t, dir)
			if test.remove != "" {
				require.NoError(t, os.Remove(filepath.Join(dir, test.remove)))
			}
			assert.Equal(t, test.outdated, planOutdated(from(dir), plan))
		})
	}
}

// A ConfigMap's files are links to a folder that is replaced by renaming a link.
func TestPlanOfAMountedConfigMapIsFollowed(t *testing.T) {
	dir := t.TempDir()
	folder{"..1/manager.json": twoVersions, "..2/manager.json": `[{"rollup_binary": "a", "config_path": "a.toml"}]`}.write(t, dir)
	require.NoError(t, os.Symlink("..1", filepath.Join(dir, "..data")))
	path := filepath.Join(dir, "manager.json")
	require.NoError(t, os.Symlink("..data/manager.json", path))
	plan, err := sequencer.LoadPlan(path)
	require.NoError(t, err)
	assert.False(t, planOutdated(from(path), plan))
	require.NoError(t, os.Symlink("..2", filepath.Join(dir, "..new")))
	require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	assert.True(t, planOutdated(from(path), plan))
}

func TestPlanWithAnEmergencyStopIsNotOutdated(t *testing.T) {
	dir := t.TempDir()
	folder{"manager.json": twoVersions}.write(t, dir)
	stopped := func() (*sequencer.Plan, error) {
		plan, err := sequencer.LoadPlan(dir)
		if err != nil {
			return nil, err
		}
		return plan.StoppedAt(5), nil
	}
	plan, err := stopped()
	require.NoError(t, err)
	assert.False(t, planOutdated(stopped, plan))

	folder{"manager.json": `[{"rollup_binary": "a", "config_path": "a.toml"}]`}.write(t, dir)
	plan, err = stopped()
	require.NoError(t, err)
	folder{"manager.json": `[{"rollup_binary": "a", "config_path": "a.toml", "stop_height": 5}]`}.write(t, dir)
	assert.True(t, planOutdated(stopped, plan), "the plan itself ends there now")
}

// What is in the place of the plan must not keep the watch waiting, nor fill the memory.
func TestPlanWhoseFileIsNoneIsOutdated(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o644) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"a terabyte": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
		},
		"a link to itself": func(path string) error { return os.Symlink(path, path) },
		"a device":         func(path string) error { return os.Symlink("/dev/zero", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "manager.json")
			folder{"manager.json": twoVersions}.write(t, dir)
			plan, err := sequencer.LoadPlan(path)
			require.NoError(t, err)
			require.NoError(t, os.Remove(path))
			require.NoError(t, replace(path))
			assert.True(t, planOutdated(from(path), plan))
		})
	}
}
