package guards

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	hostileRun   = regexp.MustCompile(`-run '\^TestHostile' \./(\S+)`)
	testDeclared = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
)

// The target does not run a hostile test that has another name or is in another package, and nobody would notice.
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

// hasHostileTests reports whether the package has such tests. In a file with "hostile" in its name all tests must be.
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

// Below nohup SIGHUP is ignored, and would be ignored in every program that the tests start.
func TestTargetsThatRunTestsGiveIgnoredSignalsBack(t *testing.T) {
	if exec.Command("env", "--default-signal", "true").Run() != nil && os.Getenv("CI") != "true" {
		t.Skip("env has no --default-signal here")
	}
	dir := t.TempDir()
	fake := "#!/bin/sh\nsed -n 's/^SigIgn:[[:space:]]*/ignored: /p' /proc/self/status\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), []byte(fake), 0o755))
	for _, target := range []string{"test", "test RACE=1", "other-tests", "chart", "hostile", "soak", "power-cuts", "kill-matrix", "simulate", "mutants", "guards"} {
		cmd := exec.Command("sh", "-c", `trap '' HUP INT; exec make --no-print-directory -C "$0" $1`, root, target)
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "MAKEFLAGS=", "RACE=", "COVER=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		var masks int
		for line := range strings.Lines(string(out)) {
			text, found := strings.CutPrefix(line, "ignored: ")
			if !found {
				continue
			}
			masks++
			mask, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			require.NoError(t, err)
			// Not all: the C library of env(1) keeps two signals for itself.
			assert.Zero(t, mask&(1<<(syscall.SIGHUP-1)|1<<(syscall.SIGINT-1)), "'make %s' ignores %s", target, text)
		}
		assert.Positive(t, masks, "make %s: %s", target, out)
	}
}
