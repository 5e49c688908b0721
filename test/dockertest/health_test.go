package dockertest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

func TestHealthcheckThroughAnUpgrade(t *testing.T) {
	t.Parallel()
	versions := []version{{stop: 8}, {migrates: true, migration: gatedMigration}}
	// The entrypoint starts behind a gate, so that for some time it is not up yet.
	c := dockertest.Run(t, append([]string{"--entrypoint", "sh"},
		rollup(t, versions, "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; exec /entrypoint")...)...)
	c.WaitHealth("starting")
	eventually(t, "a check that fails in the start period", func() bool { return len(checks(t, c)) > 0 })
	c.WaitHealth("starting")
	require.Zero(t, c.Exec("touch", "/tmp/go").Code)
	c.WaitHealth("healthy")
	healthy := len(checks(t, c))

	c.WaitEvent("migration started", "version", 1)
	before := len(checks(t, c))
	eventually(t, "three checks in the migration", func() bool { return len(checks(t, c)) >= before+3 })
	require.Zero(t, c.Exec("touch", "/data/go").Code)
	c.WaitEvent("height known", "version", 1)
	before = len(checks(t, c))
	eventually(t, "a check after the upgrade", func() bool { return len(checks(t, c)) > before })
	states := healthStates(t, c)
	assert.Equal(t, []string{"health_status: healthy"}, states, "it became healthy once and stayed so")
	assert.NotContains(t, checks(t, c)[healthy:], "1")

	c.Kill("STOP")
	c.WaitHealth("unhealthy")
	c.Kill("CONT")
	c.WaitHealth("healthy")
	c.Stop()
	assert.Zero(t, c.WaitExit())
}

// checks returns the exit codes of the health checks so far. Docker records the end of each.
func checks(t *testing.T, c *dockertest.Container) []string {
	t.Helper()
	return engineEvents(t, c, "exec_die", `{{.Actor.Attributes.exitCode}}`)
}

// healthStates returns each change of the health so far.
func healthStates(t *testing.T, c *dockertest.Container) []string {
	t.Helper()
	return engineEvents(t, c, "health_status", `{{.Action}}`)
}
