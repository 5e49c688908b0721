package plan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlanIsReadInBothForms(t *testing.T) {
	list := `[
  {"rollup_binary": "/v0/rollup", "config_path": "/v0/config.toml", "stop_height": 100},
  {"rollup_binary": "/v1/rollup", "config_path": "/v1/config.toml", "migration_path": "/v1/migrate",
   "start_height": 101, "stop_height": 200, "name": "osaka", "args": ["--metrics", ""],
   "env": {"RUST_LOG": "info", "A": "", "B": "x=y"}, "on_interrupted_migration": "halt", "api_path": "/v1", "ask": false,
   "before": ["snapshot", "--now", ""], "migration_args": ["--fast"], "migration_env": {"Z": "1", "A": "2"}, "retired": false},
  {"start_height": 201, "config_path": "v2.toml", "rollup_binary": "rollup", "api_path": "", "ask": true}
]`
	want := []Version{
		{Name: "v0", Binary: "/v0/rollup", Config: "/v0/config.toml", Stop: 100, OnInterrupted: Rerun},
		{
			Name: "osaka", Binary: "/v1/rollup", Config: "/v1/config.toml", Migration: "/v1/migrate", Start: 101, Stop: 200,
			Args: []string{"--metrics", ""}, Env: []string{"A=", "B=x=y", "RUST_LOG=info"}, OnInterrupted: Halt,
			APIPath: "/v1", NeverAsk: true,
			Before: []string{"snapshot", "--now", ""}, MigrationArgs: []string{"--fast"}, MigrationEnv: []string{"A=2", "Z=1"},
		},
		{Name: "v2", Binary: "rollup", Config: "v2.toml", Start: 201, OnInterrupted: Rerun},
	}
	for name, text := range map[string]string{
		"list":                       list,
		"object":                     `{"versions": ` + list + `}`,
		"object with a schema":       `{"$schema": "./manager.schema.json", "versions": ` + list + `}`,
		"with space around":          "\r\n\t " + list + " \n\n",
		"object with space":          "\n{ \"versions\" :\n" + list + "\n}\n",
		"with a key that is escaped": strings.ReplaceAll(list, `"stop_height"`, `"stop\u005fheight"`),
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := parsed([]byte(text))
			require.NoError(t, err)
			assert.Equal(t, want, plan.Versions)
			assert.Empty(t, plan.File)
			assert.Equal(t, 2, plan.Last())
		})
	}
}

// parsed is parse with its problems as an error.
func parsed(text []byte) (*Plan, error) {
	plan, found := parse(text)
	if len(found) > 0 {
		return plan, found
	}
	return plan, nil
}

// chain writes a config whose versions have these keys besides a binary and a config.
func chain(versions ...string) string {
	var all []string
	for i, keys := range versions {
		if keys != "" {
			keys = ", " + keys
		}
		all = append(all, fmt.Sprintf(`{"rollup_binary": "/v%d", "config_path": "/c%d"%s}`, i, i, keys))
	}
	return "[" + strings.Join(all, ",\n") + "]"
}

func TestPlanHeightsAreContiguousFromGenesis(t *testing.T) {
	const largest = "18446744073709551615"
	for _, test := range []struct {
		name, text string
		want       Problems // nil for a good plan
	}{
		{"one version", chain(``), nil},
		{"one version with a stop height", chain(`"stop_height": 100`), nil},
		{"one version that stops at once", chain(`"stop_height": 1`), nil},
		{"two versions", chain(`"stop_height": 100`, `"start_height": 101`), nil},
		{"three versions", chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 200`, `"start_height": 201`), nil},
		{"last with a stop height", chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 200`), nil},
		{"a version of one block", chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 101`, `"start_height": 102`), nil},
		{"null is absent", chain(`"start_height": null, "stop_height": 100, "migration_path": null, "api_path": null, "ask": null`, `"start_height": 101, "stop_height": null`), nil},
		{"up to the largest height", chain(`"stop_height": 18446744073709551614`, `"start_height": `+largest), nil},

		{"no version", `[]`, Problems{"line 1, column 1: the plan has no versions, want at least one"}},
		{"no version in an object", ` {"versions": []}`, Problems{"line 1, column 15: the plan has no versions, want at least one"}},
		{"first with a start height", chain(`"start_height": 1`), Problems{
			"version 0: start_height is set, but the first version starts from genesis: remove it",
		}},
		{"first with start height 0", chain(`"start_height": 0, "stop_height": 7`, `"start_height": 8`), Problems{
			"version 0: start_height is set, but the first version starts from genesis: remove it",
		}},
		{"missing start height", chain(`"stop_height": 100`, ``), Problems{
			"version 1: start_height is missing: every version but the first needs one",
		}},
		{"null start height is missing", chain(`"stop_height": 100`, `"start_height": null`), Problems{
			"version 1: start_height is missing: every version but the first needs one",
		}},
		{"missing stop height", chain(``, `"start_height": 101`), Problems{
			"version 0: stop_height is missing: only the last version may have none",
		}},
		{"missing stop height in the middle", chain(`"stop_height": 100`, `"start_height": 101`, `"start_height": 201`), Problems{
			"version 1: stop_height is missing: only the last version may have none",
		}},
		{"gap", chain(`"stop_height": 100`, `"start_height": 102`), Problems{
			"version 1: start_height is 102, want 101: version 0 stops at 100",
		}},
		{"overlap", chain(`"stop_height": 100`, `"start_height": 100`), Problems{
			"version 1: start_height is 100, want 101: version 0 stops at 100",
		}},
		{"start height 0 later", chain(`"stop_height": 100`, `"start_height": 0`), Problems{
			"version 1: start_height is 0, want 101: version 0 stops at 100",
		}},
		{"gap between named versions", chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 200, "name": "b"`, `"start_height": 300, "name": "c"`), Problems{
			`version "c" (index 2): start_height is 300, want 201: version "b" (index 1) stops at 200`,
		}},
		{"stop below start", chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 100`), Problems{
			"version 1: stop_height 100 is below start_height 101",
		}},
		{"stop 0", chain(`"stop_height": 0`), Problems{
			"version 0: stop_height is 0, want a number above 0 and below 2^64-1",
		}},
		{"stop at the largest height", chain(`"stop_height": ` + largest), Problems{
			"version 0: stop_height is " + largest + ", want a number above 0 and below 2^64-1",
		}},
		{"nothing can follow the largest height", chain(`"stop_height": `+largest, `"start_height": 0`), Problems{
			"version 0: stop_height is " + largest + ", want a number above 0 and below 2^64-1",
		}},
		{"a gap before the largest height", chain(`"stop_height": 100`, `"start_height": 102, "stop_height": `+largest), Problems{
			"version 1: stop_height is " + largest + ", want a number above 0 and below 2^64-1",
			"version 1: start_height is 102, want 101: version 0 stops at 100",
		}},
		{"a hook on the first version", chain(`"before": ["/hook"], "stop_height": 100`, `"start_height": 101`), Problems{
			"version 0: before is set, but the first version has no version before it: remove it",
		}},
		{"settings of a migration without one", chain(`"stop_height": 100`, `"start_height": 101, "migration_path": null, "migration_args": [], "migration_env": {}`), Problems{
			"version 1: migration_args is set, but the version has no migration: remove it",
			"version 1: migration_env is set, but the version has no migration: remove it",
		}},
		{"null settings of a migration without one", chain(`"stop_height": 100`, `"start_height": 101, "before": null, "migration_args": null, "migration_env": null, "retired": null, "last_image": null`), nil},
		{"retired versions", `[{"stop_height": 100, "retired": true}, {"name": "b", "start_height": 101, "stop_height": 200, "retired": true, "last_image": "r:1"},
			{"rollup_binary": "/b", "config_path": "/c", "start_height": 201}]`, nil},
		{"the last version retired", `[{"stop_height": 100, "retired": true}]`, Problems{
			"version 0: retired is set, but there is no version after it: the last version cannot be retired",
		}},
		{"a retired version after one that is not", chain(`"stop_height": 100`, `"start_height": 101`)[:len(chain(`"stop_height": 100`))-1] +
			`, {"start_height": 101, "stop_height": 200, "retired": true}, {"rollup_binary": "/b", "config_path": "/c", "start_height": 201}]`, Problems{
			"version 1: retired is set, but version 0 is not retired: a version can only be retired with all versions before it",
		}},
		{"a retired version with a gap", `[{"stop_height": 100, "retired": true}, {"rollup_binary": "/b", "config_path": "/c", "start_height": 102}]`, Problems{
			"version 1: start_height is 102, want 101: version 0 stops at 100",
		}},
		{"migration on the first version", chain(`"migration_path": "/m", "stop_height": 100`, `"start_height": 101`), Problems{
			"version 0: migration_path is set, but the first version has no version before it to migrate from: remove it",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, err := parsed([]byte(test.text))
			if test.want == nil {
				require.NoError(t, err)
				require.NotEmpty(t, plan.Versions)
				return
			}
			assert.Equal(t, test.want, err)
			assert.Nil(t, plan)
		})
	}
}

// brokenValue is a config whose first version has the given value on a line of its own, at column 11.
func brokenValue(key, text string) string {
	return "[\n  {\"rollup_binary\": \"/b\", \"config_path\": \"/c\",\n" + fmt.Sprintf("%9s:", fmt.Sprintf("%q", key)) + text + "}\n]"
}

func TestPlanReportsBadValuesWhereTheyStand(t *testing.T) {
	const heightHint = ", want a whole number of blocks"
	for _, test := range []struct {
		name, key, value string
		want             string // after "line 3, column N: version 0: "; N follows from the key
	}{
		{"height as text", "stop_height", `"100"`, `stop_height is a string` + heightHint},
		{"negative height", "stop_height", `-1`, `stop_height is a number` + heightHint},
		{"height with a fraction", "stop_height", `100.5`, `stop_height is a number` + heightHint},
		{"height with an empty fraction", "stop_height", `100.0`, `stop_height is a number` + heightHint},
		{"height with an exponent", "stop_height", `1e3`, `stop_height is a number` + heightHint},
		{"height beyond the largest", "stop_height", `18446744073709551616`, `stop_height is a number` + heightHint},
		{"height as boolean", "stop_height", `true`, `stop_height is a boolean` + heightHint},
		{"height as list", "stop_height", "[ 100,\n 200 ]", `stop_height is a list` + heightHint},
		{"height as object", "start_height", "{\r\n\t\"a\": 1}", `start_height is an object` + heightHint},
		{"long height", "stop_height", `"` + strings.Repeat("7", 99) + `"`, `stop_height is a string` + heightHint},
		{"name as number", "name", `7`, `name is a number, want a string`},
		{"migration as boolean", "migration_path", `false`, `migration_path is a boolean, want a path`},
		{"policy as list", "on_interrupted_migration", `["halt"]`, `on_interrupted_migration is a list, want a string`},
		{"unknown policy", "on_interrupted_migration", `"stop"`, `on_interrupted_migration is neither "rerun" nor "halt"`},
		{"policy in capitals", "on_interrupted_migration", `"Halt"`, `on_interrupted_migration is neither "rerun" nor "halt"`},
		{"args as text", "args", `"--a --b"`, `args is a string, want a list of strings`},
		{"args as object", "args", `{"--a": "b"}`, `args is an object, want a list of strings`},
		{"env as a list", "env", `["TOKEN=secret"]`, `env is a list, want an object of strings`},
		{"a hook as text", "before", `"/hook --a"`, `before is a string, want a list of strings`},
		{"a hook without a program", "before", `[]`, `before has no program, want a program and its arguments`},
		{"a hook with an empty program", "before", `["", "--a"]`, `before has no program, want a program and its arguments`},
		{"arguments of a migration as text", "migration_args", `"--a"`, `migration_args is a string, want a list of strings`},
		{"environment of a migration as list", "migration_env", `["TOKEN=secret"]`, `migration_env is a list, want an object of strings`},
		{"retired as text", "retired", `"yes"`, `retired is a string, want true or false`},
		{"last image as list", "last_image", `["secret"]`, `last_image is a list, want a string`},
		{"ask as text", "ask", `"no"`, `ask is a string, want true or false`},
		{"ask as number", "ask", `0`, `ask is a number, want true or false`},
		{"api path as list", "api_path", `["/v1"]`, `api_path is a list, want a path`},
		{"api path without a slash before it", "api_path", `"v1"`, `api_path is not a path such as "/v1"`},
		{"api path with a slash after it", "api_path", `"/v1/"`, `api_path is not a path such as "/v1"`},
		{"api path that is a slash", "api_path", `"/"`, `api_path is not a path such as "/v1"`},
		{"api path that is an address", "api_path", `"http://localhost/v1"`, `api_path is not a path such as "/v1"`},
		{"api path with a query", "api_path", `"/v1?a"`, `api_path is not a path such as "/v1"`},
		{"api path with a fragment", "api_path", `"/v1#a"`, `api_path is not a path such as "/v1"`},
		{"api path with a space", "api_path", `"/v 1"`, `api_path is not a path such as "/v1"`},
		{"api path with a line end", "api_path", `"/v1\r\nX: y"`, `api_path is not a path such as "/v1"`},
		{"api path with a DEL", "api_path", `"/v\u007f"`, `api_path is not a path such as "/v1"`},
		{"env as text", "env", `"TOKEN=secret"`, `env is a string, want an object of strings`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parsed([]byte(brokenValue(test.key, test.value)))
			column := max(10, len(test.key)+3) + 1
			want := fmt.Sprintf("line 3, column %d: version 0: %s", column, test.want)
			require.IsType(t, Problems{}, err)
			assert.Contains(t, []string(err.(Problems)), want) //nolint:errorlint // it is never wrapped
			for _, problem := range err.(Problems) {           //nolint:errorlint // it is never wrapped
				assert.NotContains(t, problem, "\n", "a problem is one line")
				assert.True(t, problem == want || !strings.HasPrefix(problem, "line 3"), "a value is reported once, but also: %s", problem)
				assert.NotContains(t, problem, "secret", "what may be a secret is not quoted")
			}
		})
	}
}

func TestPlanReportsLineAndColumnAsAnEditorCountsThem(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       Problems
	}{
		{"missing keys point at the version", "[\n  {}\n]", Problems{
			"line 2, column 3: version 0: rollup_binary is missing",
			"line 2, column 3: version 0: config_path is missing",
		}},
		{"null paths", `[{"rollup_binary": null, "config_path":null}]`, Problems{
			"line 1, column 20: version 0: rollup_binary is null, want a path",
			"line 1, column 40: version 0: config_path is null, want a path",
		}},
		{"empty paths", `[{"rollup_binary": "", "config_path": "/c", "migration_path": ""}]`, Problems{
			`line 1, column 20: version 0: rollup_binary is empty or has a NUL byte, want a path`,
			`line 1, column 63: version 0: migration_path is empty or has a NUL byte, want a path`,
		}},
		{"paths with a NUL byte", `[{"rollup_binary": "a\u0000b", "config_path": "/c"}]`, Problems{
			`line 1, column 20: version 0: rollup_binary is empty or has a NUL byte, want a path`,
		}},
		{"unknown key", "[\n\t{\"rollup_binary\": \"/b\", \"config_path\": \"/c\",\n\t \"migraton_path\": \"/m\"}]", Problems{
			`line 3, column 3: version 0: unknown key "migraton_path" (did you mean "migration_path"?)`,
		}},
		{"unknown key that is like none", `[{"rollup_binary": "/b", "config_path": "/c","comment":1}]`, Problems{
			`line 1, column 46: version 0: unknown key`,
		}},
		{"unknown key with escapes", `[{"rollup_binary": "/b", "config_path": "/c" , "na\u006de\u0021": 1}]`, Problems{
			`line 1, column 48: version 0: unknown key "name!" (did you mean "name"?)`,
		}},
		{"key in other letters", `[{"rollup_binary": "/b", "config_path": "/c", "Stop_Height": 1}]`, Problems{
			`line 1, column 47: version 0: unknown key "Stop_Height" (did you mean "stop_height"?)`,
		}},
		{"duplicate key", `[{"rollup_binary": "/b", "config_path": "/c", "name": "a", "name": "b"}]`, Problems{
			`line 1, column 60: version 0: key "name" is repeated`,
		}},
		{"duplicate versions", `{"versions": [], "versions": [{"rollup_binary": "/b", "config_path": "/c"}]}`, Problems{
			`line 1, column 18: the plan: key "versions" is repeated`,
		}},
		{"after multi-byte text", `[{"name": "Zürich 日本 🚀", "rollup_binary": "/b", "config_path": 7}]`, Problems{
			`line 1, column 64: version "Zürich 日本 🚀" (index 0): config_path is a number, want a path`,
		}},
		{"after lines that end in CR LF", "[\r\n  {\"rollup_binary\": \"/b\",\r\n   \"config_path\": 7}\r\n]\r\n", Problems{
			`line 3, column 19: version 0: config_path is a number, want a path`,
		}},
		{"unknown multi-byte key", "[{\"rollup_binary\": \"/b\", \"config_path\": \"/c\",\n \"ключ\" : 1, \"x\": 2}]", Problems{
			`line 2, column 2: version 0: unknown key`,
			`line 2, column 14: version 0: unknown key`,
		}},
		{"env with a name that has =", `[{"rollup_binary": "/b", "config_path": "/c", "env": {"A=B": "secret", "": "secret", "OK": "1"}}]`, Problems{
			`line 1, column 76: version 0: env: the name of this value is empty, or has = or NUL in it`,
			`line 1, column 62: version 0: env: the name of this value is empty, or has = or NUL in it`,
		}},
		{"env with NUL bytes", `[{"rollup_binary": "/b", "config_path": "/c", "env": {"A\u0000": "1", "B": "2\u0000"}}]`, Problems{
			`line 1, column 66: version 0: env: the name of this value is empty, or has = or NUL in it`,
			`line 1, column 76: version 0: env: a value has a NUL byte`,
		}},
		{"env with values that are no text", `[{"rollup_binary": "/b", "config_path": "/c", "env": {"A": 1, "B": null, "C": {}, "D": "secret"}}]`, Problems{
			`line 1, column 60: version 0: env: a value is a number, want a string`,
			`line 1, column 68: version 0: env: a value is a null, want a string`,
			`line 1, column 79: version 0: env: a value is an object, want a string`,
		}},
		{"env with a name twice", `[{"rollup_binary": "/b", "config_path": "/c", "env": {"A": "1", "A": "2"}}]`, Problems{
			`line 1, column 65: version 0: env: a key is repeated`,
		}},
		{"args with elements that are no text", `[{"rollup_binary": "/b", "config_path": "/c", "args": ["--a", 1, null, "b\u0000"]}]`, Problems{
			`line 1, column 63: version 0: args: number 2 is a number, want a string`,
			`line 1, column 66: version 0: args: number 3 is a null, want a string`,
			`line 1, column 72: version 0: args: number 4 has a NUL byte`,
		}},
		{"a hook with elements that are no text", `[{"rollup_binary": "/b", "config_path": "/c", "before": [7]}]`, Problems{
			`line 1, column 58: version 0: before: number 1 is a number, want a string`,
			`version 0: before is set, but the first version has no version before it: remove it`,
		}},
		{"a bad migration is not missing too", chain(`"stop_height": 1`, `"start_height": 2, "migration_path": "", "migration_args": ["a"]`), Problems{
			`line 2, column 85: version 1: migration_path is empty or has a NUL byte, want a path`,
		}},
		{"a last image of a version that is not retired", `[{"rollup_binary": "/b", "config_path": "/c", "retired": false, "last_image": "r:1"}]`, Problems{
			`line 1, column 79: version 0: last_image is set, but the version is not retired: remove it`,
		}},
		{"a retired version with files", `[{"retired": true, "stop_height": 9, "rollup_binary": null, "ask": true}, {"rollup_binary": "/b", "config_path": "/c", "start_height": 10}]`, Problems{
			`line 1, column 55: version 0: rollup_binary is set, but the version is retired: of such a version only the heights count, so remove it`,
			`line 1, column 68: version 0: ask is set, but the version is retired: of such a version only the heights count, so remove it`,
		}},
		{"a bad height is not missing too", chain(`"stop_height": "1"`, `"start_height": -2`), Problems{
			`line 1, column 64: version 0: stop_height is a string, want a whole number of blocks`,
			`line 2, column 64: version 1: start_height is a number, want a whole number of blocks`,
		}},
		{"a version that is none", `["v0", 7, null, [], true]`, Problems{
			"line 1, column 2: version 0 is a string, want an object",
			"line 1, column 8: version 1 is a number, want an object",
			"line 1, column 11: version 2 is a null, want an object",
			"line 1, column 17: version 3 is a list, want an object",
			"line 1, column 21: version 4 is a boolean, want an object",
		}},

		{"a number", ` 7`, Problems{`line 1, column 2: the plan is a number, want a list of versions or {"versions": [...]}`}},
		{"null", `null`, Problems{`line 1, column 1: the plan is a null, want a list of versions or {"versions": [...]}`}},
		{"null versions", "{\n\"versions\": null}", Problems{`line 2, column 13: the plan is a null, want a list of versions or {"versions": [...]}`}},
		{"an object of versions", `{"versions": {"v0": {}}}`, Problems{`line 1, column 14: the plan is an object, want a list of versions or {"versions": [...]}`}},
		{"an object without versions", "\n {}", Problems{`line 2, column 2: the plan has no "versions"`}},
		{"an object with another key", `{"version": []}`, Problems{
			`line 1, column 2: the plan: unknown key "version" (did you mean "versions"?)`,
			`line 1, column 1: the plan has no "versions"`,
		}},
		{"an object with one key more", `{"$comment": "x", "versions": [{"rollup_binary": "/b", "config_path": "/c"}]}`, Problems{
			`line 1, column 2: the plan: unknown key`,
		}},
		{"a schema that is no text", `{"$schema": 7, "versions": [{"rollup_binary": "/b", "config_path": "/c"}]}`, Problems{
			`line 1, column 13: $schema is a number, want a string`,
		}},
		{"a schema in a version", `[{"$schema": "x", "rollup_binary": "/b", "config_path": "/c"}]`, Problems{
			`line 1, column 3: version 0: unknown key`,
		}},

		{"empty", "", Problems{"the file is empty"}},
		{"only white space", " \n\n", Problems{"the file is empty"}},
		{"a byte order mark", "\uFEFF[]", Problems{"line 1, column 1: not valid JSON: invalid character 'ï' looking for beginning of value"}},
		{"TOML", "[versions]\n", Problems{"line 1, column 2: not valid JSON: invalid character 'v' looking for beginning of value"}},
		{"a comment", "[ // the versions\n]", Problems{"line 1, column 3: not valid JSON: invalid character '/' looking for beginning of value"}},
		{"a comma too many", "[\r\n  {\r\n    \"rollup_binary\": \"/b\",\r\n  }\r\n]", Problems{
			"line 4, column 3: not valid JSON: invalid character '}' looking for beginning of object key string",
		}},
		{"a comma too few, after multi-byte text", `["日本" "x"]`, Problems{`line 1, column 7: not valid JSON: invalid character '"' after array element`}},
		{"a mistake behind the decoder's first read", "[" + strings.Repeat(" \n", 5000) + "  x]", Problems{
			"line 5001, column 3: not valid JSON: invalid character 'x' looking for beginning of value",
		}},
		{"torn in a list", "[\n  {},\n", Problems{"the file is torn: it ends in the middle of the JSON text"}},
		{"torn in a string", `[{"rollup`, Problems{"the file is torn: it ends in the middle of the JSON text"}},
		{"NUL bytes", "\x00\x00\x00", Problems{"the file is torn: it has NUL bytes, as after a power cut"}},
		{"NUL bytes at the end", chain(``) + "\x00", Problems{"the file is torn: it has NUL bytes, as after a power cut"}},
		{"not UTF-8", "[{\"name\": \"ü\",\n \"rollup_binary\": \"/b\xfc\"}]", Problems{"line 2, column 22: not valid JSON: the byte 0xfc is not UTF-8"}},
		{"not UTF-8 from the first byte", "\xff\xfe[\x00]\x00", Problems{"line 1, column 1: not valid JSON: the byte 0xff is not UTF-8"}},
		{"text after the end", chain(``) + "\n\n ,\n" + chain(``), Problems{`line 3, column 2: the file continues after its end`}},
		{"two configs", "[]\n[]\n", Problems{`line 2, column 1: the file continues after its end`}},
		{"nested too deep", strings.Repeat("[", 20000), Problems{"line 1, column 10001: not valid JSON: invalid character '[' exceeded max depth"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, err := parsed([]byte(test.text))
			assert.Equal(t, test.want, err)
			assert.Nil(t, plan)
		})
	}
}

func TestPlanTornAtAnyByteIsRefused(t *testing.T) {
	text := []byte(`{"versions": ` + chain(`"stop_height": 100, "name": "é"`, `"start_height": 101, "env": {"A": "1"}`) + `}`)
	_, err := parsed(text)
	require.NoError(t, err)
	for n := range text {
		_, err := parsed(text[:n])
		require.Error(t, err, "after %d bytes", n)
	}
}

func TestPlanReportsAllProblemsAtOnce(t *testing.T) {
	text := `{
  "versions": [
    {
      "name": "genesis",
      "rollup_binary": "",
      "config_path": "/v0/config.toml",
      "migration_path": "/v0/migrate"
    },
    {
      "rollup_binary": "/v1/rollup",
      "config_pth": "/v1/config.toml",
      "start_height": "101",
      "stop_height": 100,
      "env": {"A=B": "1"}
    },
    {
      "name": "last",
      "rollup_binary": "/v2/rollup",
      "config_path": "/v2/config.toml",
      "start_height": 202,
      "on_interrupted_migration": "ask",
      "args": "--verbose"
    }
  ],
  "vesion": 1
}
`
	_, err := parsed([]byte(text))
	require.EqualError(t, err, `11 problems:
  line 25, column 3: the plan: unknown key "vesion" (did you mean "versions"?)
  line 5, column 24: version "genesis" (index 0): rollup_binary is empty or has a NUL byte, want a path
  line 11, column 7: version 1: unknown key "config_pth" (did you mean "config_path"?)
  line 12, column 23: version 1: start_height is a string, want a whole number of blocks
  line 14, column 22: version 1: env: the name of this value is empty, or has = or NUL in it
  line 9, column 5: version 1: config_path is missing
  line 22, column 15: version "last" (index 2): args is a string, want a list of strings
  line 21, column 35: version "last" (index 2): on_interrupted_migration is neither "rerun" nor "halt"
  version "genesis" (index 0): stop_height is missing: only the last version may have none
  version "genesis" (index 0): migration_path is set, but the first version has no version before it to migrate from: remove it
  version "last" (index 2): start_height is 202, want 101: version 1 stops at 100`)
}

func TestLoadPlanNamesTheFileAndWhatToDo(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	fails := func(path string) *Error {
		plan, err := Load(path)
		require.Nil(t, plan)
		var f *Error
		require.ErrorAs(t, err, &f)
		return f
	}
	t.Run("a good file", func(t *testing.T) {
		path := write("good.json", chain(`"stop_height": 5`))
		plan, err := Load(path)
		require.NoError(t, err)
		assert.Equal(t, path, plan.File)
		assert.Equal(t, []Version{{Name: "v0", Binary: "/v0", Config: "/c0", Stop: 5, OnInterrupted: Rerun}}, plan.Versions)
	})
	t.Run("a file that is absent", func(t *testing.T) {
		f := fails(filepath.Join(dir, "none.json"))
		require.ErrorIs(t, f, fs.ErrNotExist)
		assert.Equal(t, "cannot read the plan: open "+dir+"/none.json: no such file or directory", f.Error())
		assert.Equal(t, "use --config to name the file that lists the versions", f.Next)
	})
	t.Run("a directory", func(t *testing.T) {
		assert.Contains(t, fails(dir).Error(), "cannot read the plan: "+dir+" has neither a manager.json nor a version folder in versions/")
	})
	t.Run("one problem", func(t *testing.T) {
		path := write("one.json", "[]")
		assert.Equal(t, "the plan cannot be used: "+path+": line 1, column 1: the plan has no versions, want at least one", fails(path).Error())
		assert.Equal(t, "fix the named file and start again", fails(path).Next)
	})
	t.Run("two problems", func(t *testing.T) {
		f := fails(write("two.json", "[{}]"))
		assert.Equal(t, "fix the named file and start again", f.Next)
		var problems Problems
		require.ErrorAs(t, f, &problems)
		assert.Len(t, problems, 2)
	})
}

func TestPlanKnowsWhichVersionMakesAHeight(t *testing.T) {
	parse := func(text string) *Plan {
		plan, err := parsed([]byte(text))
		require.NoError(t, err)
		return plan
	}
	endless := parse(chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 101`, `"start_height": 102`))
	ending := parse(chain(`"stop_height": 100`, `"start_height": 101, "stop_height": 200`))
	for _, test := range []struct {
		name   string
		plan   *Plan
		height uint64
		want   int
	}{
		{"genesis", endless, 0, 0},
		{"the first block", endless, 1, 0},
		{"a stop height", endless, 100, 0},
		{"the block after", endless, 101, 1},
		{"the last version", endless, 102, 2},
		{"far away", endless, math.MaxUint64, 2},
		{"the last stop height", ending, 200, 1},
		{"beyond the last stop height", ending, 201, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, test.plan.VersionAt(test.height))
		})
	}
}

func TestVersionsAreLabelledByIndexAndName(t *testing.T) {
	assert.Equal(t, "version 3", Label(3, ""))
	assert.Equal(t, "version 3", Label(3, "v3"))
	assert.Equal(t, `version "v2" (index 3)`, Label(3, "v2"))
	assert.Equal(t, `version "a\nb" (index 3)`, Label(3, "a\nb"), "a name cannot forge a line of the log")
}

func FuzzParsePlan(f *testing.F) {
	for _, seed := range []string{
		``, `[]`, `{}`, `null`, `{"versions":[{}]}`, "\uFEFF[]", `[{"a":1,"a":{"b":[1,2]}}]`,
		chain(``), chain(`"stop_height": 100`, `"start_height": 101, "name": "é", "env": {"A": "1"}, "args": ["b"]`),
		chain(`"stop_height": 18446744073709551615`, `"start_height": 0`), chain(`"api_path": "/v1", "ask": false`),
		chain(`"stop_height": 1`, `"start_height": 2, "before": ["h"], "migration_path": "m", "migration_args": ["a"], "migration_env": {"A": "b"}`),
		`{"$schema": "s", "versions": [{"stop_height": 1, "retired": true, "last_image": "i"}, {"rollup_binary": "b", "config_path": "c", "start_height": 2}]}`, "[\r\n{\"\\u0061\": \"\xff\"}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		plan, err := parsed(text)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || plan != nil {
				t.Fatalf("plan %v with error %#v", plan, err)
			}
			for _, problem := range problems {
				checkPlace(t, problem, text)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatal("a plan was made of what is no JSON")
		}
		for i, v := range plan.Versions {
			first, last := i == 0, i == plan.Last()
			switch {
			case v.Name == "" || (v.Binary == "") != v.Retired || (v.Config == "") != v.Retired:
				t.Fatalf("version %d has no binary, config or name, or is retired and has one: %+v", i, v)
			case v.Retired && (last || i > 0 && !plan.Versions[i-1].Retired):
				t.Fatalf("version %d is retired, but it is the last one or not that before it", i)
			case v.Retired && (v.Migration != "" || len(v.Args)+len(v.Env)+len(v.Before) > 0) || !v.Retired && v.LastImage != "":
				t.Fatalf("version %d has what does not belong to a retired version, or only to one: %+v", i, v)
			case first && (v.Start != 0 || v.Migration != "" || len(v.Before) > 0):
				t.Fatalf("the first version does not start from genesis: %+v", v)
			case v.Migration == "" && len(v.MigrationArgs)+len(v.MigrationEnv) > 0 || v.Before != nil && v.Before[0] == "":
				t.Fatalf("version %d has settings of a migration without one, or a hook without a program: %+v", i, v)
			case !first && v.Start != plan.Versions[i-1].Stop+1:
				t.Fatalf("version %d starts at %d after %d", i, v.Start, plan.Versions[i-1].Stop)
			case !last && v.Stop == 0 || v.Stop != 0 && v.Stop < v.Start || v.Stop == math.MaxUint64:
				t.Fatalf("version %d stops at %d", i, v.Stop)
			case v.OnInterrupted != Rerun && v.OnInterrupted != Halt:
				t.Fatalf("version %d has policy %q", i, v.OnInterrupted)
			case v.APIPath != "" && (v.APIPath[0] != '/' || strings.HasSuffix(v.APIPath, "/") || strings.ContainsAny(v.APIPath, " ?#\r\n\x00")):
				t.Fatalf("version %d has its API at %q", i, v.APIPath)
			}
			if v.Stop > 0 && (plan.VersionAt(v.Stop) != i || plan.VersionAt(v.Start) != i) {
				t.Fatalf("the heights of version %d belong to another one", i)
			}
		}
		if len(plan.Versions) == 0 {
			t.Fatal("a plan without a version")
		}
		for _, same := range [][]byte{otherForm(t, text), encodePlan(t, plan)} {
			again, err := parsed(same)
			if err != nil || !reflect.DeepEqual(again.Versions, plan.Versions) {
				t.Fatalf("%+v became %+v, %v in %s", plan, again, err, same)
			}
		}
	})
}

// checkPlace wants that a place which a problem names is in the text.
func checkPlace(t *testing.T, problem string, text []byte) {
	t.Helper()
	var line, column int
	if n, _ := fmt.Sscanf(problem, "line %d, column %d:", &line, &column); n < 2 {
		return // it concerns more than one place
	}
	lines := bytes.Split(text, []byte("\n"))
	if line < 1 || line > len(lines) || column < 1 || column > len(lines[line-1])+1 {
		t.Fatalf("%s: there is no such place in %q", problem, text)
	}
}

// otherForm turns a list of versions into an object with one, and the other way round.
func otherForm(t *testing.T, text []byte) []byte {
	t.Helper()
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		return slices.Concat([]byte(`{"versions":`), text, []byte("}"))
	}
	var file map[string]json.RawMessage
	err := json.Unmarshal(text, &file)
	delete(file, keySchema)
	if err != nil || len(file) != 1 {
		t.Fatalf("accepted an object with the keys %v: %v", file, err)
	}
	return file["versions"]
}

// encodePlan writes a plan as a config of the reference with all of our keys.
func encodePlan(t *testing.T, plan *Plan) []byte {
	t.Helper()
	var list []map[string]any
	for i, v := range plan.Versions {
		fields := map[string]any{keyName: v.Name}
		if !v.Retired {
			fields[keyInterrupted] = v.OnInterrupted
		}
		for key, value := range map[string]any{
			KeyBinary: v.Binary, KeyConfig: v.Config, KeyMigration: v.Migration, keyStart: v.Start, keyStop: v.Stop, keyAPIPath: v.APIPath,
			KeyArgs: v.Args, KeyBefore: v.Before, keyMigrationArgs: v.MigrationArgs, keyEnv: pairs(v.Env), keyMigrationEnv: pairs(v.MigrationEnv),
			keyRetired: v.Retired, keyLastImage: v.LastImage,
		} {
			if !reflect.ValueOf(value).IsZero() {
				fields[key] = value
			}
		}
		if v.NeverAsk {
			fields[keyAsk] = false
		}
		if i > 0 && v.Start == 0 {
			t.Fatalf("version %d starts at 0", i)
		}
		list = append(list, fields)
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pairs gives an environment as an object; nil for none.
func pairs(env []string) map[string]string {
	if len(env) == 0 {
		return nil
	}
	object := map[string]string{}
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		object[name] = value
	}
	return object
}
