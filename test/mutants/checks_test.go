package main

import (
	"errors"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyATestThatFailsCatchesAFault(t *testing.T) {
	t.Parallel()
	failed := exec.Command("false").Run()
	require.Error(t, failed)
	for name, c := range map[string]struct {
		output string
		err    error
		hung   bool
		by     string // empty where nothing was caught
		broken bool   // nothing was checked
	}{
		"passed":               {output: "ok  \tx/reaper\t0.1s\n"},
		"a pipe was held open": {output: "ok  \tx/reaper\t0.1s\n", err: exec.ErrWaitDelay},
		"a test failed": {
			output: "--- FAIL: TestSecond (0.00s)\n    a_test.go:1: no\nFAIL\nFAIL\tx/reaper\t0.1s\nFAIL\n", err: failed, by: "TestSecond",
		},
		"a life broke an invariant": {
			output: "--- FAIL: TestSimulation (0.00s)\n    s_test.go:1: seed 7: invariant 3: migrated twice\nFAIL\n", err: failed,
			by: "seed 7: invariant 3: migrated twice",
		},
		"a test panicked": {output: "panic: oops\n\ngoroutine 1 [running]:\nFAIL\tx/reaper\t0.1s\n", err: failed, by: "panic: oops"},
		"a test hung": {
			output: "panic: test timed out after 2m0s\n\trunning tests:\n\t\tTestThird (2m0s)\nFAIL\tx/reaper\t120s\n", err: failed,
			by: "a hang of TestThird",
		},
		"the tests were killed":    {output: "signal: killed\nFAIL\tx/reaper\t0.1s\n", err: failed, by: "signal: killed"},
		"we ended them":            {output: "", err: failed, hung: true, by: "a hang"},
		"it does not compile":      {output: "# x/reaper\n./a.go:1:1: undefined: y\nFAIL\tx/reaper [build failed]\nFAIL\n", err: failed, broken: true},
		"an import is missing":     {output: "FAIL\tx/reaper [setup failed]\n--- FAIL: TestSecond\n", err: failed, broken: true},
		"its program is not built": {output: "cannot build rollup-entrypoint/cmd/entrypoint: exit 1\nFAIL\tx/test/program\t1s\n", err: failed, broken: true},
		"the volume is full":       {output: "go: mkdir /tmp/go-build1: no space left on device\n", err: failed, broken: true},
		"there is no go":           {err: errors.New("not found"), broken: true},
	} {
		o := judge(c.output, c.err, c.hung)
		assert.Equal(t, c.by, o.by, name)
		assert.Equal(t, c.by != "", o.failed, name)
		assert.Equal(t, c.broken, o.err != nil, name)
	}
}

// scripts are tests that only see the program that TestMain of test/program builds.
var scripts = check{name: "the scripts", packages: []string{"./test/program"}, args: []string{"-run", "^TestScripts$"}}

// tried builds a fault in and runs the scripts.
func tried(t *testing.T, f fault) outcome {
	t.Helper()
	tree, err := openTree()
	require.NoError(t, err)
	t.Cleanup(tree.close)
	m, err := f.build(tree.root)
	require.NoError(t, err)
	overlay, err := tree.overlay(m)
	require.NoError(t, err)
	return scripts.run(tree, overlay)
}

// Without this the tests of the whole program would pass on the program as it is, whatever the fault.
func TestFaultReachesTheProgramThatATestBuilds(t *testing.T) {
	t.Parallel()
	o := tried(t, fault{
		name: "usage-error-exits-1", in: "cmd/entrypoint.usageError", old: `\w+\.CodeUsage`, new: "$0 - 63",
	})
	require.NoError(t, o.err)
	assert.True(t, o.failed)
	assert.Equal(t, "TestScripts", o.by)
	assert.Contains(t, o.output, "exits 1 (exit status 1), want 64")
}

func TestFaultThatDoesNotCompileIsNotCaught(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{
		{name: "in-what-the-test-imports", in: "sequencer.Exit.Status", old: `return 128 \+ int\(e\.Signal\)`, new: `return "128"`},
		{name: "in-what-the-test-builds", in: "cmd/mock-rollup.main", old: `os\.Exit`, new: "undefined()\n$0"},
	} {
		o := tried(t, f)
		assert.False(t, o.failed, f.name)
		assert.ErrorContains(t, o.err, "does not compile", f.name)
	}
}
