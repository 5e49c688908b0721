package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
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
