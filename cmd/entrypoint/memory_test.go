package main

import (
	"os"
	"path/filepath"
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
