package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// writeTree writes files below a new directory, by their paths in it.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return root
}

func TestPlanIsReadFromFolders(t *testing.T) {
	root := writeTree(t, map[string]string{
		// Their names would sort in another order.
		"versions/genesis/version.json":  `{}`,
		"versions/genesis/genesis.json":  `{}`,
		"versions/osaka/version.json":    `{"start_height": 101, "args": ["--metrics", "x"], "env": {"A": "b"}, "on_interrupted_migration": "halt"}`,
		"versions/osaka/migration":       "",
		"versions/berlin/version.json":   `{"$schema": "x", "start_height": 201, "stop_height": 300, "args": ["--genesis-path=/etc/g"], "api_path": "/v2", "ask": false}`,
		"versions/berlin/genesis.json":   `{}`,
		"versions/berlin/notes/migrate":  "only a folder's own files count",
		"versions/.wh..opq/version.json": "not looked at",
		"versions/README":                "not looked at",
	})
	plan, err := Load(root)
	require.NoError(t, err)
	in := func(name ...string) string { return filepath.Join(append([]string{root, "versions"}, name...)...) }
	assert.Equal(t, &Plan{File: root, Versions: []Version{
		{
			Name: "genesis", Binary: in("genesis", "rollup"), Config: in("genesis", "config.toml"), Stop: 100,
			Args: []string{"--genesis-path", in("genesis", "genesis.json")}, OnInterrupted: Rerun,
		},
		{
			Name: "osaka", Binary: in("osaka", "rollup"), Config: in("osaka", "config.toml"), Migration: in("osaka", "migration"),
			Start: 101, Stop: 200, Args: []string{"--metrics", "x"}, Env: []string{"A=b"}, OnInterrupted: Halt,
		},
		{
			Name: "berlin", Binary: in("berlin", "rollup"), Config: in("berlin", "config.toml"), Start: 201, Stop: 300,
			Args: []string{"--genesis-path=/etc/g"}, OnInterrupted: Rerun, APIPath: "/v2", NeverAsk: true,
		},
	}}, plan)
}

func TestFolderIsAddedWithoutATouchOfTheOthers(t *testing.T) {
	root := writeTree(t, map[string]string{"versions/v0/version.json": `{}`})
	plan, err := Load(root)
	require.NoError(t, err)
	assert.Zero(t, plan.Versions[0].Stop, "the last version has no end")

	require.NoError(t, os.Mkdir(filepath.Join(root, "versions", "v1"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "versions", "v1", "version.json"), []byte(`{"start_height": 51}`), 0o644))
	plan, err = Load(root)
	require.NoError(t, err)
	require.Len(t, plan.Versions, 2)
	assert.Equal(t, uint64(50), plan.Versions[0].Stop)
	assert.Equal(t, uint64(51), plan.Versions[1].Start)
}

func TestRetiredFolderHasOnlyHeights(t *testing.T) {
	root := writeTree(t, map[string]string{
		"versions/genesis/version.json": `{"retired": true, "last_image": "r.example/rollup:7"}`,
		"versions/genesis/genesis.json": "other versions may be told to read it",
		"versions/berlin/version.json":  `{"start_height": 101, "retired": true}`,
		"versions/osaka/version.json":   `{"start_height": 201, "migration_args": ["--fast"], "migration_env": {"A": "b"}, "before": ["./hook"]}`,
		"versions/osaka/migration":      "",
	})
	plan, err := Load(root)
	require.NoError(t, err)
	osaka := filepath.Join(root, "versions", "osaka")
	assert.Equal(t, []Version{
		{Name: "genesis", Stop: 100, OnInterrupted: Rerun, Retired: true, LastImage: "r.example/rollup:7"},
		{Name: "berlin", Start: 101, Stop: 200, OnInterrupted: Rerun, Retired: true},
		{
			Name: "osaka", Binary: filepath.Join(osaka, "rollup"), Config: filepath.Join(osaka, "config.toml"), Migration: filepath.Join(osaka, "migration"),
			Start: 201, OnInterrupted: Rerun, Before: []string{"./hook"}, MigrationArgs: []string{"--fast"}, MigrationEnv: []string{"A=b"},
		},
	}, plan.Versions)
}

func TestDirectoryWithAManagerFileIsReadByIt(t *testing.T) {
	root := writeTree(t, map[string]string{
		"manager.json":         `[{"rollup_binary": "/b", "config_path": "/c"}]`,
		"versions/v0/rollup":   "",
		"versions/v0/whatever": "",
	})
	plan, err := Load(root)
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(root, "manager.json"), plan.File)
	assert.Equal(t, "/b", plan.Versions[0].Binary)
}

func TestProblemsOfFoldersAreAllReported(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  []string // each in the text
		not   []string // none in it
	}{
		"both ways at once": {
			files: map[string]string{"manager.json": `[]`, "versions/v0/version.json": `{}`},
			want:  []string{"has both a manager.json and, in its versions folders, a version.json", "keep one of them"},
		},
		"nothing": {
			files: map[string]string{"versions/README": ""},
			want:  []string{"has neither a manager.json nor a version folder in versions/"},
		},
		"no description": {
			files: map[string]string{"versions/v0/rollup": "", "versions/v1/version.json": `{"start_height": 5}`},
			want:  []string{`versions/v0/version.json is missing: write {} for the first version, {"start_height": N} for any other`},
			not:   []string{"start_height is missing", "stop_height"},
		},
		"all at once": {
			files: map[string]string{
				"versions/v0/version.json":           `{"stop_hight": 9}`,
				"versions/v1/version.json":           "{\n  \"start_height\": \"ten\"}",
				"versions/v2/version.json":           `[]`,
				"versions/v3/version.json":           `{"start_height": 40} x`,
				"versions/v4/version.json":           `{"start_height": 50, "name": "other", "rollup_binary": "/b"}`,
				"versions/v4/rollup-db-migration":    "",
				"versions/v4/Migration":              "",
				"versions/v4/migrations.d/1":         "",
				"versions/v5/version.json":           "\xff",
				"versions/v6/version.json/is/folder": "",
			},
			want: []string{
				`versions/v0/version.json: line 1, column 2: unknown key "stop_hight" (did you mean "stop_height"?)`,
				`versions/v1/version.json: line 2, column 19: start_height is a string, want a whole number of blocks`,
				`versions/v2/version.json: line 1, column 1: the file is a list, want an object`,
				`versions/v3/version.json: line 1, column 22: the file continues after its end`,
				`versions/v4/version.json: line 1, column 22: unknown key`, `versions/v4/version.json: line 1, column 39: unknown key`,
				`versions/v4/rollup-db-migration would not run: a migration must be named "migration"`,
				`versions/v4/Migration would not run`,
				`versions/v5/version.json: line 1, column 1: not valid JSON`,
				"versions/v6/version.json: it is a directory, want a regular file",
			},
			not: []string{"migrations.d", "is missing"},
		},
		"retired, and still there": {
			files: map[string]string{
				"versions/v0/version.json": `{"retired": true}`,
				"versions/v0/rollup":       "", "versions/v0/config.toml": "",
				"versions/v1/version.json": `{"start_height": 10, "migration_args": []}`,
				"versions/v2/version.json": `{"start_height": 20, "retired": true}`, "versions/v2/migration": "",
			},
			want: []string{
				`versions/v0/rollup is there, but the version is retired: remove it, or "retired" from `, "versions/v0/config.toml is there",
				"versions/v1/version.json: migration_args is set, but the version has no migration", "versions/v2/migration is there",
				"versions/v2/version.json: retired is set, but there is no version after it",
			},
		},
		"retired, with a setting": {
			files: map[string]string{"versions/v0/version.json": `{"retired": true, "args": ["--a"]}`, "versions/v1/version.json": `{"start_height": 10}`},
			want:  []string{"versions/v0/version.json: line 1, column 27: args is set, but the version is retired"},
			not:   []string{"problems"},
		},
		"heights that do not fit": {
			files: map[string]string{
				"versions/a/version.json": `{"stop_height": 8}`,
				"versions/b/version.json": `{"start_height": 10}`,
				"versions/c/version.json": `{"start_height": 10}`,
			},
			want: []string{"versions/b/version.json: start_height is 10, want 9: ", "versions/a/version.json stops at 8"},
		},
		"two first versions": {
			files: map[string]string{"versions/a/version.json": `{}`, "versions/b/version.json": `{}`},
			want:  []string{"versions/b/version.json: start_height is missing, as it is in ", "versions/a/version.json: only one version starts from genesis"},
			not:   []string{"stop_height", "problems"},
		},
		"a second version from the first block on": {
			files: map[string]string{"versions/a/version.json": `{}`, "versions/b/version.json": `{"start_height": 1}`},
			want:  []string{"versions/b/version.json: start_height is 1, want 2 or more"},
			not:   []string{"stop_height", "problems"},
		},
		"a migration of the first": {
			files: map[string]string{"versions/a/version.json": `{"start_height": 3}`, "versions/a/migration": ""},
			want:  []string{"start_height is set, but the first version starts from genesis", "the first version has no version before it to migrate from"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(writeTree(t, test.files))
			var f *Error
			require.ErrorAs(t, err, &f)
			assert.NotEmpty(t, f.Next)
			for _, want := range test.want {
				assert.Contains(t, err.Error()+"; "+f.Next, want)
			}
			for _, not := range test.not {
				assert.NotContains(t, err.Error(), not)
			}
		})
	}
}

// The folders are not in the order of their indices, and a stop height that is left out was written by nobody.
func TestProblemOfAFolderNamesItsFileAndOnlyNumbersThatAreInTheFiles(t *testing.T) {
	load := func(files map[string]string) (root string, found Problems) {
		root = writeTree(t, files)
		_, err := Load(root)
		require.ErrorAs(t, err, &found)
		return root, found
	}
	root, found := load(map[string]string{
		"versions/v1/version.json": `{}`, "versions/v2/version.json": `{"start_height": "ten"}`,
	})
	assert.Equal(t, Problems{root + "/versions/v2/version.json: line 1, column 18: start_height is a string, want a whole number of blocks"}, found)

	root, found = load(map[string]string{
		"versions/v1/version.json": `{}`, "versions/v2/version.json": `{"start_height": 100}`, "versions/v3/version.json": `{"start_height": 100}`,
	})
	assert.Equal(t, Problems{
		root + "/versions/v3/version.json: start_height is 100, as it is in " + root + "/versions/v2/version.json: give each version its own",
	}, found)
}

// Docker makes a directory of that name if the file is missing on the host.
func TestEmptyDirectoryAsConfigIsCalledOne(t *testing.T) {
	dir := t.TempDir()
	_, err := Load(dir)
	require.EqualError(t, err, "cannot read the plan: open "+dir+": it is an empty directory, want a regular file: Docker makes one if the source of a bind mount is missing on the host")
}

func TestFIFOAsConfigIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "manager.json")
	require.NoError(t, unix.Mkfifo(fifo, 0o644))
	for _, path := range []string{fifo, dir} {
		_, err := Load(path)
		require.EqualError(t, err, "cannot read the plan: open "+fifo+": it is a FIFO, want a regular file")
	}
	root := writeTree(t, map[string]string{"versions/v0/rollup": ""})
	fifo = filepath.Join(root, "versions", "v0", "version.json")
	require.NoError(t, unix.Mkfifo(fifo, 0o644))
	_, err := Load(root)
	require.EqualError(t, err, "the plan cannot be used: open "+fifo+": it is a FIFO, want a regular file")
}

func TestFoldersThatCannotBeReadAreNoEmptyPlan(t *testing.T) {
	root := writeTree(t, map[string]string{"versions": "a file"})
	_, err := Load(root)
	require.ErrorContains(t, err, "cannot read the plan: open "+filepath.Join(root, "versions"))
	assert.Equal(t, 1, strings.Count(err.Error(), "cannot read the plan"))
}
