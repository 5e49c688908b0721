package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode"

	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/internal/strictjson"
)

// sizeLimit bounds, in bytes, what is read as a config.
const sizeLimit = 16 << 20

// entry is a version while its config is read.
type entry struct {
	Version
	// label names it in problems: by its place in a file, or by the file in its folder.
	label             string
	hasStart, hasStop bool
	// forMigration are the keys in the file that only a migration needs.
	forMigration []string
	// failed are the keys that were reported already, so that a bad value is not reported as missing too.
	failed map[string]bool
}

// Load reads the plan at path: a file, or a directory with a manager.json or with a folder for each version, as
// docs/images.md describes. The error is an *Error with all problems at once.
func Load(path string) (*Plan, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return loadDirectory(path)
	}
	return loadFile(path)
}

// Error says why a config cannot be used.
type Error struct {
	// What is wrong, as a whole.
	What string
	// Err is what is wrong in detail: Problems, or what the kernel says. It may be nil.
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
	return &Error{"cannot read the plan", err, "use --config to name the file that lists the versions"}
}

// unusable is the error for problems, each of which names its file.
func unusable(found Problems) *Error {
	return &Error{"the plan cannot be used", found, "fix the named file and start again"}
}

// in puts the name of the file before its problems.
func in(path string, found Problems) Problems {
	for i := range found {
		found[i] = path + ": " + found[i]
	}
	return found
}

func loadFile(path string) (*Plan, error) {
	text, err := regularfile.Read(path, sizeLimit)
	if err != nil {
		return nil, unreadableConfig(err)
	}
	plan, found := parse(text)
	if len(found) > 0 {
		return nil, unusable(in(path, found))
	}
	plan.File = path
	return plan, nil
}

// parse reads a config: a JSON array of versions (as the README of sov-rollup-manager shows it) or an object with the
// key "versions" (as its code wants it), which may also name its schema for an editor. It reports every problem, with line and column if a value is to blame.
func parse(text []byte) (*Plan, Problems) {
	r := planReader{strictjson.NewReader(text)}
	entries := r.file()
	if found := slices.Concat(r.Problems, chainProblems(entries)); len(found) > 0 {
		return nil, found
	}
	return &Plan{Versions: versionsOf(entries)}, nil
}

func versionsOf(entries []entry) []Version {
	var versions []Version
	for _, e := range entries {
		versions = append(versions, e.Version)
	}
	return versions
}

// planReader knows how a plan looks in JSON.
type planReader struct{ *strictjson.Reader }

// file reads the whole text. It returns what it could read. What it could not read is in Problems.
func (r planReader) file() []entry {
	top, ok := r.Document()
	if !ok {
		return nil
	}
	if top.Kind() == "object" {
		f := versionFields{r: r, fields: r.Object(top, "the plan", []string{keyVersions, keySchema}), entry: &entry{failed: map[string]bool{}}}
		f.text(keySchema) // it means nothing to us
		list, ok := f.fields[keyVersions]
		if !ok {
			r.Problem(top.At, `the plan has no "versions"`)
			return nil
		}
		top = list
	}
	if top.Kind() != "list" {
		r.Problem(top.At, `the plan is %s, want a list of versions or {"versions": [...]}`, top.AKind())
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
		r.Problem(list.At, "the plan has no versions, want at least one")
	}
	return entries
}

// The keys of a version: those of sov-rollup-manager, then ours.
const (
	KeyBinary        = "rollup_binary"
	KeyConfig        = "config_path"
	KeyMigration     = "migration_path"
	keyStart         = "start_height"
	keyStop          = "stop_height"
	keyName          = "name"
	KeyArgs          = "args"
	keyEnv           = "env"
	KeyBefore        = "before"
	keyMigrationArgs = "migration_args"
	keyMigrationEnv  = "migration_env"
	keyInterrupted   = "on_interrupted_migration"
	keyAPIPath       = "api_path"
	keyAsk           = "ask"
	keyRetired       = "retired"
	keyLastImage     = "last_image"
)

// The keys of a file beside those of a version. By keySchema it tells an editor how it looks.
const (
	keyVersions = "versions"
	keySchema   = "$schema"
)

var versionKeys = []string{
	KeyBinary, KeyConfig, KeyMigration, keyName, keyStart, keyStop, KeyArgs, keyEnv, KeyBefore, keyMigrationArgs, keyMigrationEnv,
	keyInterrupted, keyAPIPath, keyAsk, keyRetired, keyLastImage,
}

// retiredKeys are the keys that a retired version may have.
var retiredKeys = []string{keyName, keyStart, keyStop, keyRetired, keyLastImage}

func (r planReader) version(i int, v strictjson.Value) entry {
	e := entry{label: Label(i, ""), failed: map[string]bool{}}
	e.Name, e.OnInterrupted = defaultName(i), Rerun
	if v.Kind() != "object" {
		r.Problem(v.At, "%s is %s, want an object", e.label, v.AKind())
		// One problem is enough: do not report its heights as missing too.
		e.failed[keyStart], e.failed[keyStop] = true, true
		return e
	}
	f := versionFields{r: r, fields: r.Object(v, e.label, versionKeys), entry: &e, what: e.label + ": "}
	if name := f.text(keyName); name != "" {
		e.Name, e.label = name, Label(i, name)
		f.what = e.label + ": "
	}
	if f.readRetired(); e.Retired {
		return e
	}
	e.Binary, e.Config, e.Migration = f.path(KeyBinary), f.path(KeyConfig), f.path(KeyMigration)
	f.readSettings()
	for _, key := range []string{KeyBinary, KeyConfig} {
		if _, there := f.fields[key]; !there {
			f.problem(v, "%s is missing", key)
		}
	}
	return e
}

// versionFields reads the values of one version. Its problems never quote the file, as package strictjson requires.
type versionFields struct {
	r      planReader
	fields map[string]strictjson.Value
	entry  *entry
	// what begins its problems. It names the version, unless the file does.
	what string
}

func (f versionFields) problem(v strictjson.Value, format string, args ...any) {
	f.r.Problem(v.At, "%s%s", f.what, fmt.Sprintf(format, args...))
}

// readRetired reads the heights, and whether only these are left of the version.
func (f versionFields) readRetired() {
	e := f.entry
	e.hasStart = f.decode(keyStart, &e.Start, "a whole number of blocks")
	e.hasStop = f.decode(keyStop, &e.Stop, "a whole number of blocks")
	f.decode(keyRetired, &e.Retired, "true or false")
	e.LastImage = f.text(keyLastImage)
	if !e.Retired {
		if f.has(keyLastImage) && !e.failed[keyLastImage] && !e.failed[keyRetired] {
			f.problem(f.fields[keyLastImage], "%s is set, but the version is not retired: remove it", keyLastImage)
		}
		return
	}
	for _, key := range versionKeys {
		if v, there := f.fields[key]; there && !slices.Contains(retiredKeys, key) {
			f.problem(v, "%s is set, but the version is retired: of such a version only the heights count, so remove it", key)
		}
	}
}

// readSettings reads every key that does not name a file of the version, besides those of readRetired.
func (f versionFields) readSettings() {
	e := f.entry
	e.Args, e.Env = f.words(KeyArgs), f.env(keyEnv)
	e.MigrationArgs, e.MigrationEnv = f.words(keyMigrationArgs), f.env(keyMigrationEnv)
	for _, key := range []string{keyMigrationArgs, keyMigrationEnv} {
		if f.has(key) {
			e.forMigration = append(e.forMigration, key)
		}
	}
	reported := len(f.r.Problems)
	e.Before = f.words(KeyBefore)
	if f.has(KeyBefore) && len(f.r.Problems) == reported && (len(e.Before) == 0 || e.Before[0] == "") {
		f.problem(f.fields[KeyBefore], "%s has no program, want a program and its arguments", KeyBefore)
	}
	e.APIPath = f.apiPath()
	ask := true
	f.decode(keyAsk, &ask, "true or false")
	e.NeverAsk = !ask
	switch policy := OnInterrupted(f.text(keyInterrupted)); policy {
	case "":
	case Rerun, Halt:
		e.OnInterrupted = policy
	default:
		f.problem(f.fields[keyInterrupted], "%s is neither %q nor %q", keyInterrupted, Rerun, Halt)
	}
}

// words reads a list of arguments.
func (f versionFields) words(key string) []string {
	list, there := f.list(key, "list", "a list of strings")
	if !there {
		return nil
	}
	var words []string
	for n, v := range f.r.Elements(list) {
		words = append(words, f.word(v, fmt.Sprintf("%s: number %d", key, n+1)))
	}
	return words
}

// env reads an environment, sorted by name. Its problems do not show a name: it may be a whole "TOKEN=secret".
func (f versionFields) env(key string) []string {
	object, there := f.list(key, "object", "an object of strings")
	if !there {
		return nil
	}
	values := f.r.Object(object, f.what+key, nil)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			f.problem(values[name], "%s: the name of this value is empty, or has = or NUL in it", key)
			continue
		}
		env = append(env, name+"="+f.word(values[name], key+": a value"))
	}
	return env
}

// has reports whether key has a value. null counts as absent.
func (f versionFields) has(key string) bool {
	v, there := f.fields[key]
	return there && v.Kind() != "null"
}

// list gives the value of key if it is there and has the wanted kind.
func (f versionFields) list(key, wanted, want string) (strictjson.Value, bool) {
	v := f.fields[key]
	if !f.has(key) {
		return strictjson.Value{}, false
	}
	if v.Kind() != wanted {
		f.problem(v, "%s is %s, want %s", key, v.AKind(), want)
		return strictjson.Value{}, false
	}
	return v, true
}

// word reads one string of a list or an object, one that can be passed to a process.
func (f versionFields) word(v strictjson.Value, what string) string {
	var s string
	switch {
	case v.Kind() != "string" || json.Unmarshal(v.Raw, &s) != nil:
		f.problem(v, "%s is %s, want a string", what, v.AKind())
	case strings.ContainsRune(s, 0):
		f.problem(v, "%s has a NUL byte", what)
	}
	return s
}

// decode reads the value of key into target and reports whether it is there and valid. null counts as absent, as in
// sov-rollup-manager.
func (f versionFields) decode(key string, target any, want string) bool {
	v := f.fields[key]
	if !f.has(key) {
		return false
	}
	if err := json.Unmarshal(v.Raw, target); err != nil {
		f.problem(v, "%s is %s, want %s", key, v.AKind(), want)
		f.entry.failed[key] = true
		return false
	}
	return true
}

func (f versionFields) text(key string) string {
	var s string
	f.decode(key, &s, "a string")
	return s
}

// apiPath reads the prefix of the routes of the node's HTTP API.
func (f versionFields) apiPath() string {
	var s string
	if !f.decode(keyAPIPath, &s, "a path") || s == "" {
		return ""
	}
	foreign := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("?#", r) }
	if !strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") || strings.ContainsFunc(s, foreign) {
		f.problem(f.fields[keyAPIPath], "%s is not a path such as \"/v1\"", keyAPIPath)
	}
	return s
}

// path reads a key that names a file. An empty name is a mistake: otherwise it would mean "none".
func (f versionFields) path(key string) string {
	var s string
	if !f.decode(key, &s, "a path") {
		if v, there := f.fields[key]; there && !f.entry.failed[key] && key != KeyMigration {
			f.problem(v, "%s is null, want a path", key)
		}
		return ""
	}
	if s == "" || strings.ContainsRune(s, 0) {
		f.problem(f.fields[key], "%s is empty or has a NUL byte, want a path", key)
		f.entry.failed[key] = true
	}
	return s
}
