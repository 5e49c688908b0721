package dockertest_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// The causes are real; each has a plan of its own in one image.
func TestExitCodesAsDockerReportsThem(t *testing.T) {
	t.Parallel()
	node := func(faults func(*mockrollup.Mock)) []version { return []version{{stop: 8, faults: faults}} }
	crash := func(code int, signal string) []version {
		return node(func(m *mockrollup.Mock) { m.CrashAt, m.ExitCode, m.CrashSignal = 3, code, signal })
	}
	tests := []struct {
		name     string
		code     int
		versions []version
		flags    []string
		args     []string
		says     string
	}{
		{name: "finished", code: 0, versions: node(nil), says: "sequence finished"},
		{name: "panic", code: 101, versions: node(func(m *mockrollup.Mock) { m.PanicOnStart = "no such module" }), says: "exited 101"},
		{name: "bad-argument", code: 2, versions: node(nil), args: []string{"--", "--no-such-flag"}, says: "exited 2"},
		{name: "own-code", code: 42, versions: crash(42, ""), says: "exited 42"},
		{name: "usage", code: 64, versions: node(nil), args: []string{"--no-such-flag"}, says: "Try: entrypoint run --help"},
		{
			name: "torn-checkpoint", code: 65, versions: node(nil),
			flags: []string{"--entrypoint", "sh"},
			args:  []string{"-c", `echo '{"version_ind' >/data/checkpoint.json; exec /entrypoint`}, says: "/data/checkpoint.json",
		},
		{name: "read-only", code: 74, versions: node(nil), flags: []string{"--read-only"}, says: "read-only file system"},
		{
			name: "early", code: 75, versions: []version{{stop: 1000, faults: func(m *mockrollup.Mock) { m.ExitEarlyAt = 3 }}},
			args: []string{"--restarts", "0"}, says: "and was started again in place",
		},
		{name: "no-config", code: 78, says: "no such file or directory"},
		{name: "migration", code: 9, versions: []version{{stop: 5}, {stop: 10, migrates: true, migration: "#!/bin/sh\nexit 9\n"}}, says: "exited 9"},
		{name: "segmentation-fault", code: 139, versions: crash(0, "SIGSEGV"), says: "killed by SIGSEGV"},
		{name: "abort", code: 134, versions: crash(0, "SIGABRT"), says: "killed by SIGABRT"},
		{name: "killed", code: 137, versions: crash(0, "SIGKILL"), says: "killed by SIGKILL"},
		{name: "exec-code", code: 7, args: []string{"exec", "--", "sh", "-c", "exit 7"}},
		{name: "exec-signal", code: 143, args: []string{"exec", "--", "sh", "-c", "kill -TERM $$"}},
		{name: "not-executable", code: 126, args: []string{"exec", "--", "/etc/hostname"}, says: "permission denied"},
		{name: "not-found", code: 127, args: []string{"exec", "--", "no-such-program"}, says: "no-such-program"},
	}
	files := dockertest.Files{}
	for _, test := range tests {
		if len(test.versions) > 0 {
			addRollup(t, files, "cases/"+test.name, test.versions)
		}
	}
	cases := writeFiles(t, files) + "/cases:/cases:ro"
	for _, test := range tests {
		t.Run(strconv.Itoa(test.code)+" "+test.name, func(t *testing.T) {
			t.Parallel()
			flags := append([]string{"-v", cases, "-e", "ENTRYPOINT_CONFIG=/cases/" + test.name + "/manager.json"}, test.flags...)
			c := dockertest.Run(t, append(append(flags, stage(t)), test.args...)...)
			assert.Equal(t, test.code, c.WaitExit())
			state := c.State()
			assert.Equal(t, test.code, state.ExitCode)
			assert.False(t, state.OOMKilled)
			assert.Contains(t, c.Logs(), test.says)
		})
	}
}
