package dockertest_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

// gatedNode begins when the file /data/begin exists.
const gatedNode = `#!/bin/sh
until [ -e /data/begin ]; do sleep 0.1; done
exec /opt/rollup/versions/v0/rollup "$@"
`

// gatedMigration ends when the file /data/go exists.
const gatedMigration = `#!/bin/sh
until [ -e /data/go ]; do sleep 0.1; done
exec /opt/rollup/versions/v1/migration "$@"
`

// The sweep between two versions uses the session to distinguish what a node left behind from what came in from
// outside: the leader of a session from outside has its parent outside. A session whose leader has ended could be
// either, and is ended.
func TestDockerExecSessionsOutliveAnUpgrade(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{stop: 8, node: gatedNode}, {migrates: true, migration: gatedMigration}})...)
	c.WaitEvent("version started", "version", 0)

	attached := exec.Command("docker", "exec", c.Name, "sh", "-c", "exec perl -e '$0 = q(attached); select(undef, undef, undef, undef)'")
	require.NoError(t, attached.Start())
	t.Cleanup(func() { _ = attached.Process.Kill(); _ = attached.Wait() })
	sleeper := func(name string) string { return "perl -e '$0 = q(" + name + "); select(undef, undef, undef, undef)'" }
	// Its parent in the session ends, so it becomes a child of process 1; its session's leader lives.
	dockertest.Docker(t, "exec", "-d", c.Name, "sh", "-c", "("+sleeper("background")+" &); exec "+sleeper("detached"))
	// This session is over at once.
	dockertest.Docker(t, "exec", c.Name, "sh", "-c", sleeper("abandoned")+" >/dev/null 2>&1 </dev/null &")
	guests := []string{"attached", "background", "detached", "abandoned"}
	eventually(t, "the guests", func() bool { return containsAll(processes(t, c), guests) })
	require.Zero(t, c.Exec("touch", "/data/begin").Code)

	c.WaitEvent("migration started", "version", 1)
	left := processes(t, c)
	assert.True(t, containsAll(left, guests[:3]), "%q", left)
	assert.NotContains(t, left, "abandoned")
	require.Zero(t, c.Exec("touch", "/data/go").Code)
	c.WaitEvent("height known", "version", 1)
	left = processes(t, c)
	assert.True(t, containsAll(left, guests[:3]), "%q", left)
	c.Stop()
	assert.Zero(t, c.WaitExit())
}

func containsAll(list, wanted []string) bool {
	have := map[string]bool{}
	for _, word := range list {
		have[word] = true
	}
	for _, word := range wanted {
		if !have[word] {
			return false
		}
	}
	return true
}
