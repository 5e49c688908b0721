package dockertest_test

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/companion"
	"rollup-entrypoint/test/dockertest"
)

func TestUpgradeWorksUnderEachRestriction(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		flags []string
	}{
		{"init", []string{"--init"}},
		{"read-only root", []string{"--read-only"}},
		{"user of OpenShift", []string{"--user", "1000660000:0"}},
		{"root", []string{"--user", "0:0"}},
		{"no capabilities", []string{"--cap-drop", "ALL"}},
		{"root without capabilities", []string{"--user", "0:0", "--cap-drop", "ALL"}},
		{"no new privileges", []string{"--security-opt", "no-new-privileges"}},
		{"few processes", []string{"--pids-limit", "64"}},
		{"little memory", []string{"--memory", "96m", "--memory-swap", "96m"}},
		{"all of them", []string{
			"--init", "--read-only", "--user", "1000660000:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
			"--pids-limit", "64", "--memory", "96m", "--memory-swap", "96m", "--network", "none",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// A volume, since the root may be read-only.
			c := dockertest.Run(t, append(append([]string{"-v", dockertest.Volume(t) + ":/data"}, test.flags...), rollup(t, upgrade())...)...)
			require.Zero(t, c.WaitExit())
			assert.Equal(t, upgraded, lives(t, c))
			assert.Len(t, c.Events("sequence finished"), 1)
		})
	}
}

// As a subreaper the entrypoint is not the init, and reports it.
func TestInitAboveIsTold(t *testing.T) {
	t.Parallel()
	node := rollup(t, []version{{}})
	above := dockertest.Run(t, append([]string{"--init"}, node...)...)
	above.WaitEvent("height known")
	assert.Len(t, above.Events("not process 1"), 1)
	above.Stop()
	assert.Zero(t, above.WaitExit(), "docker-init hands the code on")
	alone := dockertest.Run(t, node...)
	alone.WaitEvent("height known")
	assert.Empty(t, alone.Events("not process 1"))
}

func TestProcessesOfTheHostAreLeftAloneInItsProcessNamespace(t *testing.T) {
	t.Parallel()
	foreign := exec.Command("sleep", "100000")
	foreign.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	companion.Start(t, foreign)

	leaves := func(m *mockrollup.Mock) {
		m.Leftover = []string{mockrollup.LeftoverSetsid, mockrollup.LeftoverDoubleFork, mockrollup.LeftoverIgnoresStops}
	}
	c := dockertest.Run(t, append([]string{"--pid=host", "-e", "ENTRYPOINT_LEFTOVER_TIMEOUT=1s"}, rollup(t, []version{{stop: 8, faults: leaves}, {stop: 16, migrates: true}})...)...)
	require.Zero(t, c.WaitExit())
	noted := c.Events("not process 1")
	require.Len(t, noted, 1)
	assert.Contains(t, noted[0]["detail"], "another process is the init here")
	assert.NotEmpty(t, c.Events("leftover processes ended"), "its own leftovers are found all the same")
	assert.Equal(t, upgraded, lives(t, c))
	assert.NoError(t, foreign.Process.Signal(syscall.Signal(0)), "a process of the host has not ended")
}
