package dockertest_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// crashesOnce is a version that exits 101 the first time it reaches a height.
func crashesOnce(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.CrashOnce = 5, "durable", true }

func TestRestartPolicyGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	versions := []version{{stop: 8, faults: crashesOnce}, {stop: 16, migrates: true}}
	t.Run("on-failure", func(t *testing.T) {
		t.Parallel()
		c := dockertest.Run(t, append([]string{"--restart", "on-failure:5"}, rollup(t, versions)...)...)
		c.WaitEvent("sequence finished")
		state := c.WaitState("its end", func(s dockertest.State) bool { return s.Status == "exited" })
		assert.Zero(t, state.ExitCode, "an end without failure is not started again")
		assert.Equal(t, 1, state.Restarts)
		assert.Equal(t, append([]string{"v0 node 101 at 5", "v0 asked 101 at 5"}, upgraded...), lives(t, c))
	})
	t.Run("always", func(t *testing.T) {
		t.Parallel()
		c := dockertest.Run(t, append([]string{"--restart", "always"}, rollup(t, versions, "--when-finished", "wait")...)...)
		c.WaitEvent("waiting for a stop signal")
		state := c.State()
		assert.True(t, state.Running)
		assert.Equal(t, 1, state.Restarts)
		c.Stop()
		state = c.WaitState("its end", func(s dockertest.State) bool { return s.Status == "exited" })
		assert.Zero(t, state.ExitCode, "docker stop is not undone by the policy")
		assert.Equal(t, 1, state.Restarts)
	})
}

// interrupted is a migration that hangs the first time, and does its work the second time.
const interrupted = `#!/bin/sh
if [ ! -e /data/begun ]; then : >/data/begun; echo hangs >&2; exec sleep 100000; fi
exec /opt/rollup/versions/v1/migration "$@"
`

func TestKilledInAMigrationAnotherContainerGoesOnFromTheVolume(t *testing.T) {
	t.Parallel()
	versions := []version{{stop: 8}, {stop: 16, migrates: true, migration: interrupted}}
	args := append([]string{"-v", dockertest.Volume(t) + ":/data"}, rollup(t, versions)...)
	killed := dockertest.Run(t, args...)
	killed.WaitLine("the migration", func(line string) bool { return line == "hangs" })
	killed.Kill("KILL")
	require.Equal(t, 137, killed.WaitExit())
	assert.Contains(t, killed.ReadFile("/data/state/rollup-version.json"), `"migration": "begun"`)

	next := dockertest.Run(t, args...)
	next.WaitEvent("migration was interrupted", "version", 1)
	require.Zero(t, next.WaitExit())
	again := slices.Insert(slices.Clone(upgraded), 2, upgraded[1]) // version 0, whose state was put back, is asked once more
	assert.Equal(t, again, lives(t, next), "no node ran between, and one migration has completed")
	assert.Empty(t, next.Events("run failed"))
}

func TestSecondContainerOnTheVolumeIsRefused(t *testing.T) {
	t.Parallel()
	args := append([]string{"-v", dockertest.Volume(t) + ":/data"}, rollup(t, []version{{}})...)
	first := dockertest.Run(t, args...)
	first.WaitEvent("height known")
	second := dockertest.Run(t, args...)
	assert.Equal(t, 74, second.WaitExit())
	assert.Contains(t, second.Logs(), "stop the other process first")
	assert.True(t, first.State().Running)
}
