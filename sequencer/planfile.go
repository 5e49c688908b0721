package sequencer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// entry is a version while its config is read.
type entry struct {
	Version
	hasStart, hasStop bool
	// failed are the keys that were reported already, so that a bad value is not reported as missing too.
	failed map[string]bool
}

// LoadPlan reads the config at path: a file, or a directory, as docs/images.md has it, with a manager.json or with a
// folder for each version. The error is a *Failure (78) with all problems at once.
func LoadPlan(path string) (*Plan, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return loadDirectory(path)
	}
	return loadFile(path)
}

func unreadableConfig(err error) *Failure {
	return failf(CodeMismatch, "cannot read the config").because(err).
		safe("nothing was started").next("name the file that lists the versions with --config")
}

func loadFile(path string) (*Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadableConfig(err)
	}
	plan, err := ParsePlan(text)
	if err != nil {
		return nil, failf(CodeMismatch, "%s", path).because(err).
			safe("nothing was started").next("mend the config and start again")
	}
	plan.File = path
	return plan, nil
}

// ParsePlan reads a config: a JSON array of versions (as the README of sov-rollup-manager has it) or an object with
// the one key "versions" (as its code wants it). The error is Problems: every one that was found, with line and column
// where a value is to blame.
func ParsePlan(text []byte) (*Plan, error) {
	r := &planReader{text: text}
	entries := r.file()
	found := slices.Concat(r.problems, heightProblems(entries))
	if len(found) > 0 {
		return nil, found
	}
	plan := &Plan{}
	for _, e := range entries {
		plan.Versions = append(plan.Versions, e.Version)
	}
	return plan, nil
}

// planReader walks the file with the position of every value at hand.
type planReader struct {
	text     []byte
	problems Problems
}

// value is a JSON value and where it starts in the file, in bytes.
type value struct {
	raw json.RawMessage
	at  int
}

// problem reports what is wrong at a byte of the file, with line and column as an editor counts them.
func (r *planReader) problem(at int, format string, args ...any) {
	line := 1 + bytes.Count(r.text[:at], []byte("\n"))
	column := 1 + utf8.RuneCount(r.text[bytes.LastIndexByte(r.text[:at], '\n')+1:at])
	r.problems = append(r.problems, fmt.Sprintf("line %d, column %d: %s", line, column, fmt.Sprintf(format, args...)))
}

// file reads the whole text. It returns what could be read; what could not is in problems.
func (r *planReader) file() []entry {
	top, ok := r.document()
	if !ok {
		return nil
	}
	if kind(top.raw) == "object" {
		fields := r.object(top, "the config", []string{"versions"})
		list, ok := fields["versions"]
		if !ok {
			r.problem(top.at, `the config has no "versions"`)
			return nil
		}
		top = list
	}
	if kind(top.raw) != "list" {
		r.problem(top.at, `the config is %s, want a list of versions or {"versions": [...]}`, aKind(top.raw))
		return nil
	}
	return r.versions(top)
}

// document reads the one JSON value that the text is. It reports false where there is none, which is a problem.
func (r *planReader) document() (value, bool) {
	if at := invalidUTF8(r.text); at >= 0 {
		r.problem(at, "not valid JSON: the byte 0x%02x is not UTF-8", r.text[at])
		return value{}, false
	}
	var whole json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(r.text))
	if err := dec.Decode(&whole); err != nil {
		r.syntax(err)
		return value{}, false
	}
	if rest := bytes.TrimSpace(r.text[dec.InputOffset():]); len(rest) > 0 {
		r.problem(bytes.LastIndex(r.text, rest), "the config goes on after its end: %.20q", rest)
		return value{}, false
	}
	return value{whole, int(dec.InputOffset()) - len(whole)}, true
}

// syntax reports text that is no JSON at all.
func (r *planReader) syntax(err error) {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		// Offset counts the bytes read, the offending one included.
		r.problem(max(0, min(int(syntax.Offset)-1, len(r.text))), "not valid JSON: %s", syntax)
	case errors.Is(err, io.EOF):
		r.problem(0, "the config is empty")
	default:
		r.problem(len(r.text), "not valid JSON: the file ends in the middle (%s)", err)
	}
}

func (r *planReader) versions(list value) []entry {
	var entries []entry
	for i, v := range r.elements(list) {
		entries = append(entries, r.version(i, v))
	}
	if len(entries) == 0 {
		r.problem(list.at, "the config has no version, want at least one")
	}
	return entries
}

// The keys of a version: those of sov-rollup-manager, then ours.
const (
	keyBinary      = "rollup_binary"
	keyConfig      = "config_path"
	keyMigration   = "migration_path"
	keyStart       = "start_height"
	keyStop        = "stop_height"
	keyName        = "name"
	keyArgs        = "args"
	keyEnv         = "env"
	keyInterrupted = "on_interrupted_migration"
)

var versionKeys = []string{
	keyBinary, keyConfig, keyMigration, keyStart, keyStop, keyName, keyArgs, keyEnv, keyInterrupted,
}

func (r *planReader) version(i int, v value) entry {
	e := entry{failed: map[string]bool{}}
	e.Name, e.OnInterrupted = defaultName(i), Rerun
	if kind(v.raw) != "object" {
		r.problem(v.at, "version %d is %s, want an object", i, aKind(v.raw))
		// One problem is enough: do not report its heights as missing too.
		e.failed[keyStart], e.failed[keyStop] = true, true
		return e
	}
	fields := r.object(v, label(i, ""), versionKeys)
	where := versionFields{r: r, fields: fields, entry: &e}
	if name := where.text(i, keyName); name != "" {
		e.Name = name
	}
	where.read(i)
	for _, key := range []string{keyBinary, keyConfig} {
		if _, there := fields[key]; !there {
			r.problem(v.at, "%s: %s is missing", label(i, e.Name), key)
		}
	}
	return e
}

// versionFields reads the values of one version.
type versionFields struct {
	r      *planReader
	fields map[string]value
	entry  *entry
}

func (f versionFields) read(i int) {
	e := f.entry
	e.Binary = f.path(i, keyBinary)
	e.Config = f.path(i, keyConfig)
	e.Migration = f.path(i, keyMigration)
	f.readSettings(i)
}

// readSettings reads what is no file.
func (f versionFields) readSettings(i int) {
	e := f.entry
	e.hasStart = f.decode(i, keyStart, &e.Start, "a whole number of blocks")
	e.hasStop = f.decode(i, keyStop, &e.Stop, "a whole number of blocks")
	e.Args = f.args(i)
	e.Env = f.env(i)
	switch policy := OnInterrupted(f.text(i, keyInterrupted)); policy {
	case "":
	case Rerun, Halt:
		e.OnInterrupted = policy
	default:
		f.r.problem(f.fields[keyInterrupted].at, "%s: %s is %q, want %q or %q", label(i, e.Name), keyInterrupted, policy, Rerun, Halt)
	}
}

// args reads the list of arguments.
func (f versionFields) args(i int) []string {
	list, there := f.list(i, keyArgs, "list", "a list of strings")
	if !there {
		return nil
	}
	var args []string
	for n, v := range f.r.elements(list) {
		args = append(args, f.word(v, fmt.Sprintf("%s: args: number %d", label(i, f.entry.Name), n+1)))
	}
	return args
}

// env reads the environment, sorted by name.
func (f versionFields) env(i int) []string {
	object, there := f.list(i, keyEnv, "object", "an object of strings")
	if !there {
		return nil
	}
	what := label(i, f.entry.Name) + ": env"
	values := f.r.object(object, what, nil)
	var env []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			f.r.problem(values[name].at, "%s: %q cannot be set in an environment", what, name)
			continue
		}
		env = append(env, name+"="+f.word(values[name], fmt.Sprintf("%s: %q", what, name)))
	}
	return env
}

// list gives the value of key where it is there and of the wanted kind. Like word, it never quotes what it finds,
// because that may be a secret.
func (f versionFields) list(i int, key, wanted, want string) (value, bool) {
	v, there := f.fields[key]
	if !there || kind(v.raw) == "null" {
		return value{}, false
	}
	if kind(v.raw) != wanted {
		f.r.problem(v.at, "%s: %s is %s, want %s", label(i, f.entry.Name), key, aKind(v.raw), want)
		return value{}, false
	}
	return v, true
}

// word reads one string of a list or an object, which can be passed to a process.
func (f versionFields) word(v value, what string) string {
	var s string
	switch {
	case kind(v.raw) != "string" || json.Unmarshal(v.raw, &s) != nil:
		f.r.problem(v.at, "%s is %s, want a string", what, aKind(v.raw))
	case strings.ContainsRune(s, 0):
		f.r.problem(v.at, "%s has a NUL byte", what)
	}
	return s
}

// decode reads the value of key into target and reports whether it is there and good. null counts as absent, as in
// sov-rollup-manager.
func (f versionFields) decode(i int, key string, target any, want string) bool {
	v, there := f.fields[key]
	if !there || kind(v.raw) == "null" {
		return false
	}
	if err := json.Unmarshal(v.raw, target); err != nil {
		text := strings.Join(strings.Fields(string(v.raw)), " ") // on one line
		f.r.problem(v.at, "%s: %s is %.40s, want %s", label(i, f.entry.Name), key, text, want)
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

// path reads a key that names a file. An empty name is a mistake which would otherwise read as "none".
func (f versionFields) path(i int, key string) string {
	var s string
	if !f.decode(i, key, &s, "a path") {
		if v, there := f.fields[key]; there && !f.entry.failed[key] && key != keyMigration {
			f.r.problem(v.at, "%s: %s is null, want a path", label(i, f.entry.Name), key)
		}
		return ""
	}
	if s == "" || strings.ContainsRune(s, 0) {
		f.r.problem(f.fields[key].at, "%s: %s is %q, want a path", label(i, f.entry.Name), key, s)
	}
	return s
}

// object splits an object into its fields, and reports repeated keys and, where known is not nil, unknown ones.
func (r *planReader) object(v value, what string, known []string) map[string]value {
	fields := map[string]value{}
	dec := json.NewDecoder(bytes.NewReader(v.raw))
	_, _ = dec.Token() // the brace: v was decoded as an object before
	for dec.More() {
		at := int(dec.InputOffset())
		at += v.at + bytes.IndexByte(v.raw[at:], '"') // after a comma and white space
		token, _ := dec.Token()
		key, _ := token.(string)
		field := r.next(dec, v.at)
		if _, twice := fields[key]; twice {
			r.problem(at, "%s: key %q stands twice", what, key)
		}
		if known != nil && !slices.Contains(known, key) {
			r.problem(at, "%s: unknown key %q%s", what, key, suggest(key, known))
		}
		fields[key] = field
	}
	return fields
}

func (r *planReader) elements(list value) []value {
	var all []value
	dec := json.NewDecoder(bytes.NewReader(list.raw))
	_, _ = dec.Token() // the bracket
	for dec.More() {
		all = append(all, r.next(dec, list.at))
	}
	return all
}

// next takes one value from dec, whose text starts at base in the file. It cannot fail: the text was decoded before.
func (r *planReader) next(dec *json.Decoder, base int) value {
	var raw json.RawMessage
	_ = dec.Decode(&raw)
	return value{raw, base + int(dec.InputOffset()) - len(raw)}
}

// invalidUTF8 is where the first byte stands that is not UTF-8, -1 for none. The JSON decoder would replace it, and a
// path would name another file.
func invalidUTF8(text []byte) int {
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// aKind is kind with its article.
func aKind(raw json.RawMessage) string {
	if kind(raw) == "object" {
		return "an object"
	}
	return "a " + kind(raw)
}

// kind names the type of a JSON value in words.
func kind(raw json.RawMessage) string {
	switch {
	case len(raw) == 0:
		return "nothing"
	case raw[0] == '{':
		return "object"
	case raw[0] == '[':
		return "list"
	case raw[0] == '"':
		return "string"
	case raw[0] == 'n':
		return "null"
	case raw[0] == 't' || raw[0] == 'f':
		return "boolean"
	}
	return "number"
}
