package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"rollup-entrypoint/internal/strictjson"
)

// entry is a version while its config is read.
type entry struct {
	Version
	hasStart, hasStop bool
	// failed are the keys that were reported already, so that a bad value is not reported as missing too.
	failed map[string]bool
}

// Load reads the config at path: a file, or a directory, as docs/images.md has it, with a manager.json or with a
// folder for each version. The error is an *Error with all problems at once.
func Load(path string) (*Plan, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return loadDirectory(path)
	}
	return loadFile(path)
}

// Error says why a config cannot be used.
type Error struct {
	// What is the file or the directory, or what is wrong with it as a whole.
	What string
	// Err is what is wrong in it: Problems, or what the kernel says. It may be nil.
	Err error
	// Next is what to do.
	Next string
}

// Error gives what is wrong.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.What
	}
	return e.What + ": " + e.Err.Error()
}

// Unwrap gives what is wrong in the config.
func (e *Error) Unwrap() error { return e.Err }

func unreadableConfig(err error) *Error {
	return &Error{"cannot read the config", err, "name the file that lists the versions with --config"}
}

func loadFile(path string) (*Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadableConfig(err)
	}
	plan, err := Parse(text)
	if err != nil {
		return nil, &Error{path, err, "fix the config and start again"}
	}
	plan.File = path
	return plan, nil
}

// Parse reads a config: a JSON array of versions (as the README of sov-rollup-manager shows it) or an object with
// the one key "versions" (as its code wants it). The error is Problems: every one that was found, with line and column
// if a value is to blame.
func Parse(text []byte) (*Plan, error) {
	r := planReader{strictjson.NewReader(text)}
	entries := r.file()
	found := slices.Concat(r.Problems, heightProblems(entries))
	if len(found) > 0 {
		return nil, found
	}
	plan := &Plan{}
	for _, e := range entries {
		plan.Versions = append(plan.Versions, e.Version)
	}
	return plan, nil
}

// planReader knows how a plan looks in JSON.
type planReader struct{ *strictjson.Reader }

// file reads the whole text. It returns what could be read; what could not be is in Problems.
func (r planReader) file() []entry {
	top, ok := r.Document()
	if !ok {
		return nil
	}
	if top.Kind() == "object" {
		fields := r.Object(top, "the config", []string{"versions"})
		list, ok := fields["versions"]
		if !ok {
			r.Problem(top.At, `the config has no "versions"`)
			return nil
		}
		top = list
	}
	if top.Kind() != "list" {
		r.Problem(top.At, `the config is %s, want a list of versions or {"versions": [...]}`, top.AKind())
		return nil
	}
	return r.versions(top)
}

func (r planReader) versions(list strictjson.Value) []entry {
	var entries []entry
	for i, v := range r.Elements(list) {
		entries = append(entries, r.version(i, v))
	}
	if len(entries) == 0 {
		r.Problem(list.At, "the config has no version, want at least one")
	}
	return entries
}

// The keys of a version: those of sov-rollup-manager, then ours.
const (
	KeyBinary      = "rollup_binary"
	KeyConfig      = "config_path"
	KeyMigration   = "migration_path"
	keyStart       = "start_height"
	keyStop        = "stop_height"
	keyName        = "name"
	keyArgs        = "args"
	keyEnv         = "env"
	keyInterrupted = "on_interrupted_migration"
	keyAPIPath     = "api_path"
	keyAsk         = "ask"
)

var versionKeys = []string{
	KeyBinary, KeyConfig, KeyMigration, keyStart, keyStop, keyName, keyArgs, keyEnv, keyInterrupted, keyAPIPath, keyAsk,
}

func (r planReader) version(i int, v strictjson.Value) entry {
	e := entry{failed: map[string]bool{}}
	e.Name, e.OnInterrupted = defaultName(i), Rerun
	if v.Kind() != "object" {
		r.Problem(v.At, "version %d is %s, want an object", i, v.AKind())
		// One problem is enough: do not report its heights as missing too.
		e.failed[keyStart], e.failed[keyStop] = true, true
		return e
	}
	fields := r.Object(v, Label(i, ""), versionKeys)
	where := versionFields{r: r, fields: fields, entry: &e}
	if name := where.text(i, keyName); name != "" {
		e.Name = name
	}
	where.read(i)
	for _, key := range []string{KeyBinary, KeyConfig} {
		if _, there := fields[key]; !there {
			r.Problem(v.At, "%s: %s is missing", Label(i, e.Name), key)
		}
	}
	return e
}

// versionFields reads the values of one version.
type versionFields struct {
	r      planReader
	fields map[string]strictjson.Value
	entry  *entry
}

func (f versionFields) read(i int) {
	e := f.entry
	e.Binary = f.path(i, KeyBinary)
	e.Config = f.path(i, KeyConfig)
	e.Migration = f.path(i, KeyMigration)
	f.readSettings(i)
}

// readSettings reads what is no file.
func (f versionFields) readSettings(i int) {
	e := f.entry
	e.hasStart = f.decode(i, keyStart, &e.Start, "a whole number of blocks")
	e.hasStop = f.decode(i, keyStop, &e.Stop, "a whole number of blocks")
	e.Args = f.args(i)
	e.Env = f.env(i)
	e.APIPath = f.apiPath(i)
	ask := true
	f.decode(i, keyAsk, &ask, "true or false")
	e.NeverAsk = !ask
	switch policy := OnInterrupted(f.text(i, keyInterrupted)); policy {
	case "":
	case Rerun, Halt:
		e.OnInterrupted = policy
	default:
		f.r.Problem(f.fields[keyInterrupted].At, "%s: %s is %q, want %q or %q", Label(i, e.Name), keyInterrupted, policy, Rerun, Halt)
	}
}

// args reads the list of arguments.
func (f versionFields) args(i int) []string {
	list, there := f.list(i, keyArgs, "list", "a list of strings")
	if !there {
		return nil
	}
	var args []string
	for n, v := range f.r.Elements(list) {
		args = append(args, f.word(v, fmt.Sprintf("%s: args: number %d", Label(i, f.entry.Name), n+1)))
	}
	return args
}

// env reads the environment, sorted by name.
func (f versionFields) env(i int) []string {
	object, there := f.list(i, keyEnv, "object", "an object of strings")
	if !there {
		return nil
	}
	what := Label(i, f.entry.Name) + ": env"
	values := f.r.Object(object, what, nil)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			f.r.Problem(values[name].At, "%s: %q cannot be set in an environment", what, name)
			continue
		}
		env = append(env, name+"="+f.word(values[name], fmt.Sprintf("%s: %q", what, name)))
	}
	return env
}

// list gives the value of key if it is there and of the wanted kind. Like word, it never quotes what it finds,
// because that may be a secret.
func (f versionFields) list(i int, key, wanted, want string) (strictjson.Value, bool) {
	v, there := f.fields[key]
	if !there || v.Kind() == "null" {
		return strictjson.Value{}, false
	}
	if v.Kind() != wanted {
		f.r.Problem(v.At, "%s: %s is %s, want %s", Label(i, f.entry.Name), key, v.AKind(), want)
		return strictjson.Value{}, false
	}
	return v, true
}

// word reads one string of a list or an object, which can be passed to a process.
func (f versionFields) word(v strictjson.Value, what string) string {
	var s string
	switch {
	case v.Kind() != "string" || json.Unmarshal(v.Raw, &s) != nil:
		f.r.Problem(v.At, "%s is %s, want a string", what, v.AKind())
	case strings.ContainsRune(s, 0):
		f.r.Problem(v.At, "%s has a NUL byte", what)
	}
	return s
}

// decode reads the value of key into target and reports whether it is there and good. null counts as absent, as in
// sov-rollup-manager.
func (f versionFields) decode(i int, key string, target any, want string) bool {
	v, there := f.fields[key]
	if !there || v.Kind() == "null" {
		return false
	}
	if err := json.Unmarshal(v.Raw, target); err != nil {
		text := strings.Join(strings.Fields(string(v.Raw)), " ") // on one line
		f.r.Problem(v.At, "%s: %s is %.40s, want %s", Label(i, f.entry.Name), key, text, want)
		f.entry.failed[key] = true
		return false
	}
	return true
}

func (f versionFields) text(i int, key string) string {
	var s string
	f.decode(i, key, &s, "a string")
	return s
}

// apiPath reads the prefix of the routes of the node's HTTP API.
func (f versionFields) apiPath(i int) string {
	var s string
	if !f.decode(i, keyAPIPath, &s, "a path") || s == "" {
		return ""
	}
	foreign := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("?#", r) }
	if !strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") || strings.ContainsFunc(s, foreign) {
		f.r.Problem(f.fields[keyAPIPath].At, "%s: %s is %q, want a path as in \"/v1\"", Label(i, f.entry.Name), keyAPIPath, s)
	}
	return s
}

// path reads a key that names a file. An empty name is a mistake which would otherwise read as "none".
func (f versionFields) path(i int, key string) string {
	var s string
	if !f.decode(i, key, &s, "a path") {
		if v, there := f.fields[key]; there && !f.entry.failed[key] && key != KeyMigration {
			f.r.Problem(v.At, "%s: %s is null, want a path", Label(i, f.entry.Name), key)
		}
		return ""
	}
	if s == "" || strings.ContainsRune(s, 0) {
		f.r.Problem(f.fields[key].At, "%s: %s is %q, want a path", Label(i, f.entry.Name), key, s)
	}
	return s
}
