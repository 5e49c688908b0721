package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKillsForWantOfMemoryAreCountedInBothKindsOfControlGroups(t *testing.T) {
	for name, test := range map[string]struct {
		file, text string
		want       uint64
		known      bool
	}{
		"v2":                       {"memory.events", "low 0\nhigh 0\nmax 31\noom 3\noom_kill 2\noom_group_kill 0\n", 2, true},
		"v1":                       {"memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1, true},
		"v1 before Linux 4.13":     {"memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0, false},
		"not a number":             {"memory.events", "oom_kill many\n", 0, false},
		"a machine without either": {"cgroup.procs", "1\n", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), test.file)
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
			require.NoError(t, os.WriteFile(file, []byte(test.text), 0o600))
			n, known := memoryKills(file[:len(file)-len(test.file)])
			assert.Equal(t, test.want, n)
			assert.Equal(t, test.known, known)
		})
	}
}

func TestOnlyAKillThatTheKernelHasCountedIsForWantOfMemory(t *testing.T) {
	root := t.TempDir()
	assert.False(t, outOfMemory(root, syscall.SIGKILL, 0), "nothing counts")
	require.NoError(t, os.WriteFile(filepath.Join(root, "memory.events"), []byte("oom 3\noom_kill 2\n"), 0o600))
	assert.True(t, outOfMemory(root, syscall.SIGKILL, 1))
	assert.False(t, outOfMemory(root, syscall.SIGKILL, 2), "somebody else has killed it")
	assert.False(t, outOfMemory(root, syscall.SIGTERM, 1))
}

func TestControlGroupOfAServiceIsItsOwn(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "cgroup")
	own := filepath.Join(dir, "system.slice", "rollup.service")
	require.NoError(t, os.MkdirAll(own, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(own, "memory.events"), []byte("oom_kill 0\n"), 0o600))
	for text, want := range map[string]string{
		"0::/system.slice/rollup.service\n": own,
		"0::/docker/5f\n":                   dir, // a container that does not see where it is
		"0::/\n":                            dir,
		"9:memory:/docker/5f\n1:name=systemd:/\n0::/system.slice\n": dir,
		"": dir,
	} {
		require.NoError(t, os.WriteFile(list, []byte(text), 0o600))
		assert.Equal(t, want, controlGroup(list, dir), text)
	}
	assert.Equal(t, dir, controlGroup(filepath.Join(dir, "absent"), dir))
}
