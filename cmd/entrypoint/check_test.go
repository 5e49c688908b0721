package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
)

func TestCheckSaysWhatItHasLookedAt(t *testing.T) {
	c := checked{plan: &sequencer.Plan{File: "manager.json", Versions: []sequencer.Version{{Name: "v0"}, {Name: "osaka"}}}}
	assert.Equal(t, "no problems found: manager.json; the programs, libraries and configs of v0, osaka; the volume of the state; io_uring", c.summary())
	c.checkpoint = "/data/c.json"
	assert.Contains(t, c.summary(), "; the checkpoint /data/c.json; the volume of the state")
	c.running = "10.0.0.1:9848"
	assert.Contains(t, c.summary(), "; the height of the entrypoint at 10.0.0.1:9848; ")
}

// A new config is compared with what runs before the old container goes: the gate of a deployment.
func TestCheckOfAConfigForWhatRunsFindsThatItComesTooLate(t *testing.T) {
	dir := t.TempDir()
	node, config := filepath.Join(dir, "node.toml"), filepath.Join(dir, "manager.json")
	require.NoError(t, os.WriteFile(node, []byte("storage.path = '"+dir+"/state'\nrunner.http_config.bind_port = 1\n"), 0o644))
	require.NoError(t, os.WriteFile(config, []byte(`[
		{"name": "first", "rollup_binary": "/bin/sh", "config_path": "`+node+`", "stop_height": 40},
		{"name": "second", "rollup_binary": "/bin/sh", "config_path": "`+node+`", "start_height": 41}
	]`), 0o644))
	const first = `"version_index": 0, "version": "first", "versions": [{"version": "first", "start_height": 0, "stop_height": 30}]`
	for name, test := range map[string]struct {
		answer string
		code   int
		says   string
	}{
		"below the stop height":            {`{"phase": "running", "height": {"blocks": 39}, ` + first + `}`, 0, ""},
		"at the stop height":               {`{"phase": "running", "height": {"blocks": 40}, ` + first + `}`, 0, ""},
		"above the stop height":            {`{"phase": "running", "height": {"blocks": 41}, ` + first + `}`, 78, "too late: the rollup that runs is at height 41, above its stop height 40"},
		"no height":                        {`{"phase": "starting", "height": null, ` + first + `}`, 78, "does not know the height of its node"},
		"finished, and the plan has grown": {`{"phase": "finished", "height": null, ` + first + `}`, 0, ""},
		"finished above the new stop height": {
			`{"phase": "finished", "height": null, "version_index": 0, "version": "first", "versions": [{"version": "first", "start_height": 0, "stop_height": 41}]}`,
			78, "too late: the rollup that runs is at height 41",
		},
		"a later version, without end": {
			`{"phase": "running", "height": {"blocks": 100}, "version_index": 0, "version": "second", "versions": [{"version": "second", "start_height": 41}]}`, 0, "",
		},
		"a version that the plan has lost": {
			`{"phase": "running", "height": {"blocks": 10}, "version_index": 0, "version": "zero", "versions": [{"version": "zero", "start_height": 0}]}`,
			78, `the version that runs, "zero" from height 0, is not in`,
		},
		"something else than an entrypoint": {`{"value": [3, 3]}`, 78, "it is no entrypoint"},
		"a version out of range":            {`{"phase": "running", "height": {"blocks": 10}, "version_index": 7, "versions": []}`, 78, "it is no entrypoint"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(test.answer)) }))
			defer server.Close()
			for _, url := range []string{server.URL, server.URL + "/", strings.TrimPrefix(server.URL, "http://")} {
				var out, errs bytes.Buffer
				code := dispatch(program{stdout: &out, stderr: &errs}, []string{"check", "-c", config, "--manifest=", "--running", url})
				assert.Equal(t, test.code, code, out.String())
				assert.Contains(t, strings.Join(strings.Fields(out.String()), " "), test.says)
				assert.Empty(t, errs.String())
			}
		})
	}
}

// A version's own environment wins over ours, as it does when the version is started.
func TestPreflightLooksWithTheVersionsOwnEnvironment(t *testing.T) {
	dir := t.TempDir()
	script, config := filepath.Join(dir, "migration"), filepath.Join(dir, "node.toml")
	require.NoError(t, os.WriteFile(script, []byte("#!/usr/bin/env its-own-shell\n"), 0o755))
	require.NoError(t, os.WriteFile(config, []byte("runner.http_config.bind_port = 1\n"), 0o644))
	require.NoError(t, os.Symlink("/bin/sh", filepath.Join(dir, "its-own-shell")))
	plan := &sequencer.Plan{Versions: []sequencer.Version{{Binary: "/bin/sh", Config: config}, {Binary: "/bin/sh", Migration: script, Config: config}}}
	assert.Empty(t, preflightVersion(plan, 0))
	found := preflightVersion(plan, 1)
	require.Len(t, found, 1)
	assert.Equal(t, sequencer.SeverityError, found[0].Severity)
	assert.Equal(t, 1, found[0].Version)
	assert.Contains(t, found[0].What, `migration_path: the interpreter "its-own-shell", named in the #! line of `+script+", is not found in PATH=")
	plan.Versions[1].Env = []string{"PATH=" + dir}
	assert.Empty(t, preflightVersion(plan, 1))
}

// Docker's own seccomp profile denies io_uring, with EPERM; older ones and kernels do not know it.
func TestForbiddenIOUringIsAWarning(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS} {
		var found []sequencer.Finding
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlock: the filter ends with the thread
			err := denyIOUring(errno)
			found = checkMachine()
			done <- err
		}()
		require.NoError(t, <-done)
		require.NotEmpty(t, found)
		assert.Equal(t, sequencer.Finding{
			Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning,
			What: "io_uring is not permitted here (" + errno.Error() + "): the state engine of a real node panics without it, exit 101",
			Next: "take a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=FILE), " +
				"and see that the sysctl kernel.io_uring_disabled is 0",
		}, found[0])
	}
}

// denyIOUring has io_uring_setup(2) fail with errno in this thread.
func denyIOUring(errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

func TestCommandInAFindingIsNotBroken(t *testing.T) {
	assert.Equal(t, []string{
		"if it is so, run", "'entrypoint checkpoint set -c 'a b' -f c.json --version 1';", "if not, do not",
	}, wrap("if it is so, run 'entrypoint checkpoint set -c 'a b' -f c.json --version 1'; if not, do not", 20))
}

func TestFindingsAreATable(t *testing.T) {
	c := checked{
		plan: &sequencer.Plan{Versions: []sequencer.Version{{Name: "v0"}, {Name: "a-long-name"}}},
		findings: []sequencer.Finding{
			{Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: "the volume is full"},
			{Version: 1, Severity: sequencer.SeverityError, What: strings.Repeat("word ", 20), Next: strings.Repeat("act ", 25)},
			{Version: 0, Severity: sequencer.SeverityError, What: "a line\nand\x1b[2J another", Next: strings.Repeat("x", 100) + " y"},
		},
	}
	var out bytes.Buffer
	c.print(&out)
	assert.Equal(t, strings.Join([]string{
		"severity version      what, and what to do",
		"error    a-long-name  " + strings.TrimSpace(strings.Repeat("word ", 18)),
		"                      word word",
		"                      → " + strings.TrimSpace(strings.Repeat("act ", 22)),
		"                        act act act",
		"error    v0           a line and?[2J another",
		"                      → " + strings.Repeat("x", 100),
		"                        y",
		"warning               the volume is full",
		"2 errors, 1 warning",
		"",
	}, "\n"), out.String())
}
