package dockertest_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollup-entrypoint/test/dockertest"
)

// eater takes all the memory there is.
const eater = "#!/bin/sh\nexec tail /dev/zero\n"

func TestNodeKilledForWantOfMemoryIsNamedSo(t *testing.T) {
	t.Parallel()
	limit := []string{"--memory", "64m", "--memory-swap", "64m"}
	for name, versions := range map[string][]version{
		"node":      {{node: eater}},
		"migration": {{stop: 5}, {migrates: true, migration: eater}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dockertest.Run(t, append(slices.Clone(limit), rollup(t, versions)...)...)
			assert.Equal(t, 137, c.WaitExit())
			assert.True(t, c.State().OOMKilled, "as Docker sees it")
			text := c.Events("run failed")[0]["error"]
			assert.Contains(t, text, "was killed by SIGKILL, by the kernel's out-of-memory killer")
			assert.Contains(t, text, "give the container a higher memory limit")
		})
	}
}

// Another kill is not blamed on memory.
func TestNodeKilledBySomebodyIsNotSaidToHaveLackedMemory(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, append([]string{"--memory", "256m"}, rollup(t, []version{{}})...)...)
	c.WaitEvent("height known")
	assert.Zero(t, c.Exec("sh", "-c", `for p in /proc/[0-9]*; do read -r name <$p/comm; [ "$name" != rollup ] || kill -KILL "${p#/proc/}"; done`).Code)
	assert.Equal(t, 137, c.WaitExit())
	assert.False(t, c.State().OOMKilled)
	assert.NotContains(t, c.Events("run failed")[0]["error"], "by the kernel's out-of-memory killer")
}
