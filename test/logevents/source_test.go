package logevents

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// packages are those that log.
var packages = []string{"cmd/entrypoint", "internal/preflight", "internal/status", "internal/systemd", "internal/undo", "reaper", "sequencer", "sequencer/checkpoint"}

// line is one place in the code that logs.
type line struct {
	at, level, name string
	// keys are in each such line, optional ones only under some condition.
	keys, optional []string
}

// source is the code of one package.
type source struct {
	files     *token.FileSet
	functions map[string]*ast.FuncDecl
	lines     []line
	problems  []string
}

// readPackage finds what the files of a package log, apart from its tests.
func readPackage(t *testing.T, dir string) *source {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	s := &source{files: token.NewFileSet(), functions: map[string]*ast.FuncDecl{}}
	var parsed []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.files, path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		parsed = append(parsed, file)
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				s.functions[f.Name.Name] = f
			}
		}
	}
	require.NotEmpty(t, parsed, dir)
	for _, file := range parsed {
		ast.Inspect(file, s.look)
	}
	return s
}

// look takes a node of the syntax: is it a line of log?
func (s *source) look(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return true
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return true
	}
	isLine := slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, method.Sel.Name)
	switch {
	case s.isNote(call, method.Sel.Name), logsNote(call, method.Sel.Name):
	case !isLogger(method.X):
		if isLine && len(call.Args) > 0 {
			if _, ok := literal(call.Args[0]); ok {
				s.problem(call, "it looks like a line of log: a logger must be called log or Log to be found")
			}
		}
	case isLine:
		s.line(call, strings.ToUpper(method.Sel.Name))
	case method.Sel.Name != "New": // that is of the package log. With, Log, LogAttrs and the like hide what a line has
		s.problem(call, "%s of a logger: use Debug, Info, Warn or Error, with all keys at the call", method.Sel.Name)
	}
	return true
}

// isNote takes a line that is made now and logged later: x.note(slog.LevelInfo, "message", "format of detail").
func (s *source) isNote(call *ast.CallExpr, method string) bool {
	if method != "note" || len(call.Args) < 2 {
		return false
	}
	level, ok := call.Args[0].(*ast.SelectorExpr)
	if !ok {
		return false
	}
	name, ok := literal(call.Args[1])
	if !ok {
		s.problem(call, "the message of a line of log must be a literal")
		return true
	}
	s.lines = append(s.lines, line{
		at: s.files.Position(call.Pos()).String(), level: strings.ToUpper(strings.TrimPrefix(level.Sel.Name, "Level")),
		name: name, keys: []string{"detail"},
	})
	return true
}

// logsNote reports whether a call logs a note; its line counts where the note is made.
func logsNote(call *ast.CallExpr, method string) bool {
	if method != "Log" || len(call.Args) < 3 {
		return false
	}
	message, ok := call.Args[2].(*ast.SelectorExpr)
	return ok && message.Sel.Name == "message"
}

// isLogger reports whether an expression is called as our loggers are: log or Log, alone or as a field.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log") || strings.EqualFold(x.Name, "logger")
	case *ast.SelectorExpr:
		return isLogger(x.Sel)
	}
	return false
}

func (s *source) problem(n ast.Node, format string, args ...any) {
	s.problems = append(s.problems, fmt.Sprintf("%s: %s", s.files.Position(n.Pos()), fmt.Sprintf(format, args...)))
}

func (s *source) line(call *ast.CallExpr, level string) {
	l := line{at: s.files.Position(call.Pos()).String(), level: level}
	name, ok := "", len(call.Args) > 0
	if ok {
		name, ok = literal(call.Args[0])
	}
	if !ok {
		s.problem(call, "the message of a line of log must be a literal")
		return
	}
	l.name = name
	args := call.Args[1:]
	if call.Ellipsis.IsValid() {
		s.spread(&l, args[len(args)-1])
		args = args[:len(args)-1]
	}
	for i := 0; i < len(args); i++ {
		key, isAttr := attrKey(args[i])
		if !isAttr {
			if key, ok = literal(args[i]); !ok {
				s.problem(args[i], "the key must be a literal, or an attribute of slog")
				return
			}
			i++ // its value
		}
		l.keys = append(l.keys, key)
	}
	s.lines = append(s.lines, l)
}

// spread takes the attributes that a function of the package makes: those in a condition are optional.
func (s *source) spread(l *line, x ast.Expr) {
	call, _ := x.(*ast.CallExpr)
	var function *ast.FuncDecl
	if call != nil {
		if name, ok := call.Fun.(*ast.Ident); ok {
			function = s.functions[name.Name]
		}
	}
	if function == nil {
		s.problem(x, "attributes must be those of a function of this package, called here")
		return
	}
	ast.Inspect(function.Body, func(n ast.Node) bool {
		if condition, ok := n.(*ast.IfStmt); ok {
			l.optional = append(l.optional, keysIn(condition.Body)...)
			return false
		}
		if x, ok := n.(ast.Expr); ok {
			if key, ok := attrKey(x); ok {
				l.keys = append(l.keys, key)
			}
		}
		return true
	})
}

// keysIn are the keys of all attributes below a node.
func keysIn(n ast.Node) (keys []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		if x, ok := n.(ast.Expr); ok {
			if key, ok := attrKey(x); ok {
				keys = append(keys, key)
			}
		}
		return true
	})
	return keys
}

// attrKey is the key of slog.String("key", value) and its like.
func attrKey(x ast.Expr) (key string, ok bool) {
	call, _ := x.(*ast.CallExpr)
	if call == nil || len(call.Args) != 2 {
		return "", false
	}
	function, _ := call.Fun.(*ast.SelectorExpr)
	if function == nil {
		return "", false
	}
	if from, isName := function.X.(*ast.Ident); !isName || from.Name != "slog" {
		return "", false
	}
	return literal(call.Args[0])
}

func literal(x ast.Expr) (string, bool) {
	lit, _ := x.(*ast.BasicLit)
	if lit == nil || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// allLines are the lines of all packages.
func allLines(t *testing.T) (lines []line) {
	t.Helper()
	for _, name := range packages {
		s := readPackage(t, filepath.Join("../..", name))
		require.Empty(t, s.problems)
		lines = append(lines, s.lines...)
	}
	return lines
}

// A line that is hidden from the comparison would be one that the page does not have.
func TestHiddenLinesAreFound(t *testing.T) {
	s := &source{files: token.NewFileSet(), functions: map[string]*ast.FuncDecl{}}
	const text = `package p
func f() {
	log.Info("plain", "key", 1, slog.Int("other", 2))
	s.Log.Warn("spread", made()...)
	x.log.Error(name)
	log.With("key", 1).Info("derived")
	log.Info("unknown", keys...)
	log.Info("variable", key, 1)
	slog.Info("elsewhere")
	err.Error()
	http.Error(w, "text", 1)
	s.note(slog.LevelWarn, "noted", "format %d", 1)
	s.note(slog.LevelWarn, name, "format")
	s.note(sig)
	s.Log.Log(ctx, n.level, n.message, slog.String("detail", n.detail))
	s.Log.Log(ctx, level, "hidden")
}
func made() []any {
	all := []any{slog.Int("always", 1)}
	if x { all = append(all, slog.String("sometimes", "")) }
	return all
}`
	file, err := parser.ParseFile(s.files, "p.go", text, parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		f, _ := decl.(*ast.FuncDecl)
		s.functions[f.Name.Name] = f
	}
	ast.Inspect(file, s.look)
	require.Len(t, s.lines, 4)
	require.Equal(t, line{"p.go:3:2", "INFO", "plain", []string{"key", "other"}, nil}, s.lines[0])
	require.Equal(t, line{"p.go:4:2", "WARN", "spread", []string{"always"}, []string{"sometimes"}}, s.lines[1])
	require.Equal(t, line{"p.go:12:2", "WARN", "noted", []string{"detail"}, nil}, s.lines[3])
	for _, part := range []string{"p.go:5:2: the message", "p.go:6:2: With of a logger", "p.go:7:22: attributes must", "p.go:8:23: the key", "p.go:9:2: it looks like", "p.go:13:2: the message", "p.go:16:2: Log of a logger"} {
		require.True(t, slices.ContainsFunc(s.problems, func(p string) bool { return strings.HasPrefix(p, part) }), "%s in %v", part, s.problems)
	}
	require.Len(t, s.problems, 8, "the derived line is reported twice")
}
