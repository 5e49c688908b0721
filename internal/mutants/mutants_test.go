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
	names := map[string]bool{}
	for _, f := range faults {
		require.False(t, names[f.name], "two faults are called %s", f.name)
		names[f.name] = true
		require.NotEmpty(t, f.harm, f.name)
		require.True(t, f.breaks >= 1 && f.breaks <= 7, f.name)
		text, err := os.ReadFile(filepath.Join("../..", f.file))
		require.NoError(t, err)
		mutant, err := f.apply(text)
		require.NoError(t, err)
		require.NotEqual(t, text, mutant, f.name)
		_, err = parser.ParseFile(token.NewFileSet(), f.file, mutant, 0)
		require.NoError(t, err, f.name)
	}
}

func TestFaultWhoseTextIsGoneIsAnError(t *testing.T) {
	f := fault{name: "gone", file: "a.go", old: "x", new: "y"}
	_, err := f.apply([]byte("a b c"))
	require.ErrorContains(t, err, "fault gone no longer applies")
	_, err = f.apply([]byte("x x"))
	require.ErrorContains(t, err, "stands there 2 times")
}

// What is tried first must exist, or it would pass on any fault without a word.
func TestEachFaultIsFirstTriedOnATestThatExists(t *testing.T) {
	checks := allChecks(1)
	for _, f := range faults {
		order := inOrder(checks, f)
		require.NotEmpty(t, order, "no check is tried on %s", f.file)
		if f.by == simulation {
			require.Equal(t, simulation, order[0].name, "the simulation is not tried on %s", f.name)
			continue
		}
		require.Equal(t, []string{"-run", "^" + f.by + "$"}, order[0].args, f.name)
		require.True(t, order[0].has(t, f.by), "%s has no %s, which is said to notice %s", order[0].name, f.by, f.name)
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
	names := func(f fault) (names []string) {
		for _, c := range inOrder(allChecks(1), f) {
			names = append(names, c.name)
		}
		return names
	}
	sequence := "the tests of the sequence"
	require.Equal(t, []string{sequence, simulation, sequence}, names(fault{file: "sequencer/version.go", by: "TestOne"}))
	require.Equal(t, []string{simulation, sequence}, names(fault{file: "sequencer/version.go", by: simulation}))
	require.Equal(t, []string{sequence, sequence}, names(fault{file: "sequencer/store.go", by: "TestOne"}))
}
