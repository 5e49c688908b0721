package guards

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	// productLines is the limit of a function that is linked into the program.
	productLines = 45
	// otherLines is the limit of every other function: of tests, test tools, the stand-in node and the networks.
	otherLines = 60
)

// A function's lines are counted from "func" to its last brace, blank lines and comments included. A function literal
// belongs to the function around it. Outside the product a composite literal, which may be a table of test cases,
// counts as the line it begins on, plus the lines of the function literals in it.
func TestFunctionsAreShort(t *testing.T) {
	product := map[string]bool{}
	for _, name := range golist(t, "-deps", program) {
		product[strings.TrimPrefix(name, module)] = true
	}
	require.True(t, product["reaper"])
	files := token.NewFileSet()
	for _, path := range goFiles(t) {
		file, err := parser.ParseFile(files, filepath.Join(root, path), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		inProduct := product[filepath.Dir(path)] && !strings.HasSuffix(path, "_test.go")
		eachFunction(file, func(name string, function ast.Node) {
			n, limit := linesOf(files, function), productLines
			if !inProduct {
				n, limit = n-tableLines(files, function), otherLines
			}
			if n > limit {
				t.Errorf("%s:%d: %s has %d lines, %d more than allowed", path, files.Position(function.Pos()).Line, name, n, n-limit)
			}
		})
	}
}

// goFiles lists the Go files of the project, including those in folders that "go list ./..." leaves out, such as .ci.
func goFiles(t *testing.T) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && slices.Contains([]string{".git", "bin"}, path) {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".go" {
			found = append(found, path)
		}
		return err
	})
	require.NoError(t, err)
	require.Contains(t, found, ".ci/testlog/main.go")
	return found
}

// eachFunction calls see with each function of a file, and with each function literal outside of functions, under the
// name of its variable.
func eachFunction(file *ast.File, see func(name string, function ast.Node)) {
	for _, declaration := range file.Decls {
		if function, ok := declaration.(*ast.FuncDecl); ok {
			see(functionName(function), function)
			continue
		}
		var variable string
		ast.Inspect(declaration, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				variable = n.Names[0].Name
			case *ast.FuncLit:
				see("function in "+variable, n)
				return false
			}
			return true
		})
	}
}

func functionName(function *ast.FuncDecl) string {
	if function.Recv == nil {
		return function.Name.Name
	}
	receiver := function.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	if name, ok := receiver.(*ast.Ident); ok {
		return name.Name + "." + function.Name.Name
	}
	return function.Name.Name
}

// linesOf counts the lines of a node.
func linesOf(files *token.FileSet, n ast.Node) int {
	return files.Position(n.End()).Line - files.Position(n.Pos()).Line + 1
}

// tableLines counts the lines of a function that are in composite literals but in no function literal inside these.
func tableLines(files *token.FileSet, function ast.Node) int {
	var total int
	ast.Inspect(function, func(n ast.Node) bool {
		table, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		total += linesOf(files, table) - 1
		ast.Inspect(table, func(n ast.Node) bool {
			inner, ok := n.(*ast.FuncLit)
			if !ok {
				return true
			}
			total -= linesOf(files, inner) - 1 - tableLines(files, inner)
			return false
		})
		return false
	})
	return total
}

func TestLinesOfTablesAreNotCounted(t *testing.T) {
	const source = `package p
func f() {
	for _, row := range []struct{ name string; check func() }{
		{"a", nil},
		{"b", func() {
			g()
			h(map[string]int{
				"x": 1,
			})
		}},
	} {
		row.check()
	}
}
`
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "p.go", source, 0)
	require.NoError(t, err)
	function := file.Decls[0]
	assert.Equal(t, 13, linesOf(files, function))
	// The table's second to last line, without the function's second, third and last one.
	assert.Equal(t, 8-3, tableLines(files, function))
}
