package plan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		"versions/berlin/version.json":   `{"start_height": 201, "stop_height": 300, "args": ["--genesis-path=/etc/g"], "api_path": "/v2", "ask": false}`,
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
			want:  []string{"has neither a manager.json nor a folder of a version in versions/"},
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
				`versions/v0/version.json: line 1, column 2: version.json: unknown key "stop_hight" (did you mean "stop_height"?)`,
				`versions/v1/version.json: line 2, column 19: `, `start_height is "ten", want a whole number of blocks`,
				`versions/v2/version.json: line 1, column 1: version.json is a list, want an object`,
				`versions/v3/version.json: line 1, column 22: the file continues after its end`,
				`unknown key "name"`, `unknown key "rollup_binary"`,
				`versions/v4/rollup-db-migration would not be run: a migration is named "migration"`,
				`versions/v4/Migration would not be run`,
				`versions/v5/version.json: line 1, column 1: not valid JSON`,
				"versions/v6/version.json: is a directory",
			},
			not: []string{"migrations.d", "is missing"},
		},
		"heights that do not fit": {
			files: map[string]string{
				"versions/a/version.json": `{"stop_height": 8}`,
				"versions/b/version.json": `{"start_height": 10}`,
				"versions/c/version.json": `{"start_height": 10}`,
			},
			want: []string{
				`version 1 ("b"): start_height is 10, want 9: version 0 stops at 8`,
				`version 1 ("b"): stop_height 9 must be above 0, not below start_height 10`,
			},
		},
		"two first versions": {
			files: map[string]string{"versions/a/version.json": `{}`, "versions/b/version.json": `{}`},
			want:  []string{`version 1 ("b"): start_height is missing`, `version 0 ("a"): stop_height is missing`},
		},
		"a migration of the first": {
			files: map[string]string{"versions/a/version.json": `{"start_height": 3}`, "versions/a/migration": ""},
			want:  []string{"start_height is set, but the first version starts from genesis", "there is no version before the first from which to migrate"},
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

func TestFoldersThatCannotBeReadAreNoEmptyPlan(t *testing.T) {
	root := writeTree(t, map[string]string{"versions": "a file"})
	_, err := Load(root)
	require.ErrorContains(t, err, "cannot read the config: open "+filepath.Join(root, "versions"))
	assert.Equal(t, 1, strings.Count(err.Error(), "cannot read the config"))
}
