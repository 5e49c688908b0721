package guards

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	hostileRun   = regexp.MustCompile(`-run '\^TestHostile' \./(\S+)`)
	testDeclared = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
)

// A hostile test that is called otherwise, or is in another package, is not run by the target, and nobody would notice.
func TestMakeHostileRunsEachHostileTest(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	var run []string
	for _, match := range hostileRun.FindAllStringSubmatch(string(makefile), -1) {
		run = append(run, match[1])
	}
	var have []string
	for _, importPath := range golist(t, "./...") {
		dir := strings.TrimPrefix(importPath, module)
		if hasHostileTests(t, dir) {
			have = append(have, dir)
		}
	}
	require.NotEmpty(t, have)
	require.ElementsMatch(t, have, run, "the packages with tests named TestHostile… and those that 'make hostile' runs")
}

// hasHostileTests reports whether the package has such tests. All tests of a file that is called so must be.
func hasHostileTests(t *testing.T, dir string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	require.NoError(t, err)
	has := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range testDeclared.FindAllSubmatch(text, -1) {
			hostile := strings.HasPrefix(string(match[1]), "TestHostile")
			has = has || hostile
			if strings.Contains(filepath.Base(file), "hostile") {
				assert.True(t, hostile, "%s: %s must be called TestHostile…, or be in another file", file, match[1])
			}
		}
	}
	return has
}
