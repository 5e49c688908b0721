package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A fault that no longer applies tests nothing.
func TestEachFaultStillApplies(t *testing.T) {
	mutants, err := mutantsOf("../..", faults)
	require.NoError(t, err)
	names := map[string]bool{}
	for _, m := range mutants {
		require.False(t, names[m.name], "two faults are called %s", m.name)
		names[m.name] = true
		require.NotEmpty(t, m.harm, m.name)
		require.True(t, m.breaks >= 1 && m.breaks <= 12, m.name)
		text, err := os.ReadFile(filepath.Join("../..", m.file))
		require.NoError(t, err)
		require.NotEqual(t, string(text), string(m.text), m.name)
		_, err = parser.ParseFile(token.NewFileSet(), m.file, m.text, 0)
		require.NoError(t, err, m.name)
	}
}

// packageOf makes a package "p" of the files, by name, and gives the root that it is in.
func packageOf(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(root, "p"), 0o755))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(root, "p", name), []byte("package p\n"+text), 0o644))
	}
	return root
}

func TestFaultIsFoundInWhicheverFileDeclaresItsName(t *testing.T) {
	root := packageOf(t, map[string]string{
		"a.go":      "type T int\nfunc (t T) f() int { return 1 }\nfunc g() int { return 1 }\n",
		"b.go":      "func (t *T) g() int {\n\treturn 1 +\n\t\t2\n}\nconst (\n\tx   = 1\n\ty   = 1\n)\n",
		"b_test.go": "func g() int { return 1 }\n",
	})
	for in, want := range map[string][2]string{
		"p.g":      {"p/a.go", "package p\ntype T int\nfunc (t T) f() int { return 1 }\nfunc g() int { return 9 }\n"},
		"p.T.f":    {"p/a.go", "package p\ntype T int\nfunc (t T) f() int { return 9 }\nfunc g() int { return 1 }\n"},
		"p.(*T).g": {"p/b.go", "package p\nfunc (t *T) g() int {\n\treturn 9 +\n\t\t2\n}\nconst (\n\tx   = 1\n\ty   = 1\n)\n"},
		"p.y":      {"p/b.go", "package p\nfunc (t *T) g() int {\n\treturn 1 +\n\t\t2\n}\nconst (\n\tx   = 1\n\ty   = 9\n)\n"},
	} {
		m, err := fault{in: in, old: "(return|y =) 1( \\+ 2)?", new: "${1} 9${2}"}.build(root)
		require.NoError(t, err, in)
		require.Equal(t, want, [2]string{m.file, string(m.text)}, in)
	}
}

func TestFaultThatNoLongerAppliesIsAnError(t *testing.T) {
	root := packageOf(t, map[string]string{"a.go": "func f() { g(); g() }\n", "b.go": "func g() {}\n", "c.go": "func g() {}\n"})
	for problem, f := range map[string]fault{
		"h is declared 0 times in p":            {in: "p.h", old: "g"},
		"g is declared 2 times in p":            {in: "p.g", old: "g"},
		"p/a.go: p.f has 2 matches":             {in: "p.f", old: `g\(\)`},
		"p/a.go: p.f has 0 matches":             {in: "p.f", old: "h"},
		"missing closing ): `g(`":               {in: "p.f", old: "g("},
		"f is declared 0 times in no/such/path": {in: "no/such/path.f", old: "g"},
	} {
		f.name = "gone"
		_, err := mutantsOf(root, []fault{f})
		require.ErrorContains(t, err, "fault gone no longer applies: ")
		require.ErrorContains(t, err, problem)
	}
}

// What is tried first must exist, or it would pass on any fault without a word.
func TestEachFaultIsFirstTriedOnATestThatExists(t *testing.T) {
	checks := allChecks(1)
	mutants, err := mutantsOf("../..", faults)
	require.NoError(t, err)
	for _, m := range mutants {
		order := inOrder(checks, m)
		require.NotEmpty(t, order, "no check is tried on %s", m.file)
		if m.by == simulation {
			require.Equal(t, simulation, order[0].name, "the simulation is not tried on %s", m.name)
			continue
		}
		require.Equal(t, []string{"-run", "^" + m.by + "$"}, order[0].args, m.name)
		require.True(t, order[0].has(t, m.by), "%s has no %s, which is said to notice %s", order[0].name, m.by, m.name)
	}
}

// has reports whether the packages of the check have the test.
func (c check) has(t *testing.T, test string) bool {
	t.Helper()
	for _, dir := range c.packages {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			if strings.Contains(string(text), "\nfunc "+test+"(t *testing.T)") {
				return true
			}
		}
	}
	return false
}

func TestAllChecksFollowTheOneThatIsTriedFirst(t *testing.T) {
	names := func(file, by string) (names []string) {
		for _, c := range inOrder(allChecks(1), mutant{fault: fault{by: by}, file: file}) {
			names = append(names, c.name)
		}
		return names
	}
	sequence := "the tests of the sequence"
	require.Equal(t, []string{sequence, simulation, sequence}, names("sequencer/version.go", "TestOne"))
	require.Equal(t, []string{simulation, sequence}, names("sequencer/version.go", simulation))
	require.Equal(t, []string{sequence, sequence}, names("sequencer/findings.go", "TestOne"))
}
