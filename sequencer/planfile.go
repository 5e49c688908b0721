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
)

// entry is a version while its config is read.
type entry struct {
	Version
	hasStart, hasStop bool
	// failed are the keys that were reported already, so that a bad value is not reported as missing too.
	failed map[string]bool
}

// LoadPlan reads the config file at path. The error is a *Failure (78) with all problems of the file at once.
func LoadPlan(path string) (*Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, failf(CodeMismatch, "cannot read the config").because(err).
			safe("nothing was started").next("name the file that lists the versions with --config")
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

func (r *planReader) problem(at int, format string, args ...any) {
	line := 1 + bytes.Count(r.text[:at], []byte("\n"))
	column := at - bytes.LastIndexByte(r.text[:at], '\n')
	r.problems = append(r.problems, fmt.Sprintf("line %d, column %d: %s", line, column, fmt.Sprintf(format, args...)))
}

// file reads the whole text. It returns what could be read; what could not is in problems.
func (r *planReader) file() []entry {
	var whole json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(r.text))
	if err := dec.Decode(&whole); err != nil {
		r.syntax(err)
		return nil
	}
	if rest := bytes.TrimSpace(r.text[dec.InputOffset():]); len(rest) > 0 {
		r.problem(int(dec.InputOffset()), "the config goes on after its end: %.20q", rest)
		return nil
	}
	top := value{whole, int(dec.InputOffset()) - len(whole)}
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
		r.problem(top.at, `the config is a %s, want a list of versions or {"versions": [...]}`, kind(top.raw))
		return nil
	}
	return r.versions(top)
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
		r.problem(v.at, "version %d is a %s, want an object", i, kind(v.raw))
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
	e.hasStart = f.decode(i, keyStart, &e.Start, "a whole number of blocks")
	e.hasStop = f.decode(i, keyStop, &e.Stop, "a whole number of blocks")
	f.decode(i, keyArgs, &e.Args, "a list of strings")
	var env map[string]string
	f.decode(i, keyEnv, &env, "an object of strings")
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(env[name], 0) {
			f.r.problem(f.fields[keyEnv].at, "%s: env: %q cannot be set in an environment", label(i, e.Name), name)
			continue
		}
		e.Env = append(e.Env, name+"="+env[name])
	}
	for _, arg := range e.Args {
		if strings.ContainsRune(arg, 0) {
			f.r.problem(f.fields[keyArgs].at, "%s: args: %q has a NUL byte", label(i, e.Name), arg)
		}
	}
	switch policy := OnInterrupted(f.text(i, keyInterrupted)); policy {
	case "":
	case Rerun, Halt:
		e.OnInterrupted = policy
	default:
		f.r.problem(f.fields[keyInterrupted].at, "%s: %s is %q, want %q or %q", label(i, e.Name), keyInterrupted, policy, Rerun, Halt)
	}
}

// decode reads the value of key into target and reports whether it is there and good. null counts as absent, as in
// sov-rollup-manager.
func (f versionFields) decode(i int, key string, target any, want string) bool {
	v, there := f.fields[key]
	if !there || kind(v.raw) == "null" {
		return false
	}
	if err := json.Unmarshal(v.raw, target); err != nil {
		f.r.problem(v.at, "%s: %s is %.40s, want %s", label(i, f.entry.Name), key, v.raw, want)
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

// object splits an object into its fields, and reports unknown and repeated keys.
func (r *planReader) object(v value, what string, known []string) map[string]value {
	fields := map[string]value{}
	dec := json.NewDecoder(bytes.NewReader(v.raw))
	_, _ = dec.Token() // the brace: v was decoded as an object before
	for dec.More() {
		token, _ := dec.Token()
		key, _ := token.(string)
		at := v.at + int(dec.InputOffset()) - len(key) - 2
		field := r.next(dec, v.at)
		if _, twice := fields[key]; twice {
			r.problem(max(at, v.at), "%s: key %q stands twice", what, key)
		}
		if !slices.Contains(known, key) {
			r.problem(max(at, v.at), "%s: unknown key %q%s", what, key, suggest(key, known))
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
