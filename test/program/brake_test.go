package program

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer"
)

// --stop-height, the emergency stop: the plan of the late image starts its next version at 11, and the present one does not
// know that.

func stopIsSet(version, height string) event {
	return on("emergency stop is set", "version="+version, "stop_height="+height)
}

var idle = []event{on("sequence finished", "detail~stopped at --stop-height"), on("waiting for a stop signal")}

// stoppedAt10 has version 0, which makes blocks to the end, stop at 10 and idle there.
func stoppedAt10(c *chain) {
	c.t.Helper()
	c.run(
		phase{
			name: "to the stop", do: do(heights(13, 13), start("--stop-height=10", "--when-finished=wait")),
			events: append([]event{stopIsSet("0", "10")}, idle...),
			trace:  []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10"}, checkpoint: "0 finished 0@10", stamp: "0 to 10", state: "10 version 0",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), events: []event{on("stop requested"), on("stopped")}},
		phase{
			name: "again", do: start("--stop-height=10", "--when-finished=wait"), events: append([]event{stopIsSet("0", "10")}, idle...),
			trace: []string{"asked v0 at 10"}, checkpoint: "0 finished 0@10", stamp: "0 to 10",
		},
		phase{name: "stop again", do: send(syscall.SIGKILL), exit: exits(137)},
	)
}

// lateImage is a chain whose plan has no end yet, and the version that comes with the late image.
func lateImage(t *testing.T) *chain {
	t.Helper()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true})
	c.versions[0].stop = 0
	late(c, 1)
	return c
}

// late has the plan name the first of the versions only.
func late(c *chain, versions int) {
	c.t.Helper()
	all := c.versions
	c.versions = all[:versions]
	c.writeManager()
	c.versions = all
}

func TestLateImageContinuesFromTheEmergencyStop(t *testing.T) {
	t.Parallel()
	c := lateImage(t)
	stoppedAt10(c)
	c.versions[0].stop = 10
	late(c, 2)
	c.run(
		phase{
			name: "the image with the next version", do: start("--stop-height=10", "--when-finished=wait"), events: []event{on("height known", "version=1")},
			trace:      []string{"asked v0 at 10", "start v1 migration", anything},
			checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		},
		phase{name: "kill", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
		phase{
			name: "restart", do: do(heights(25, 25), start("--stop-height=10")), exit: exits(0), events: []event{on("sequence finished", "version=1", "height=20")},
			trace: []string{"asked v1 at 13", "start v1 stop=20", "exit v1 0 at 20", "asked v1 at 20"}, state: "20 version 1 migrated@10",
		},
	)
}

func TestNothingFollowsTheEmergencyStopInAPlanThatGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	c := lateImage(t)
	stoppedAt10(c)
	c.versions[0].stop, c.versions[1].start = 12, 13
	late(c, 2)
	require.NoError(t, os.Remove(c.binary(1))) // it is not needed
	c.run(
		phase{
			name: "another plan", do: start("--stop-height=10"), exit: exits(0),
			events: []event{stopIsSet("0", "10"), on("sequence finished", "version=0", "height=10")}, trace: []string{"asked v0 at 10"}, stamp: "0 to 10", state: "10 version 0",
		},
	)
	c.install(programs.nodes[1], c.binary(1))
	c.run(phase{
		name: "without the stop", do: do(heights(12, 12), start()), events: []event{on("version completed", "version=0", "height=12"), on("height known", "version=1")},
		trace: []string{"asked v0 at 10", "start v0 stop=12", "exit v0 0 at 12", "asked v0 at 12", anything}, checkpoint: "1 running migrated 0@12", stamp: "1 from 13 to 20 migrated",
	})
}

func TestEmergencyStopTakesNoBlockBack(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20}, version{})
	inV1(c)
	checkpointBefore, stampBefore := readText(c.checkpoint), readText(c.stampFile())
	c.run(phase{
		name: "in an earlier version", do: start("--stop-height=5"), exit: exits(78), cause: "too_late", events: []event{stopIsSet("0", "5")}, state: "13 version 0",
		says: []string{"the state belongs to version 1, which starts at height 11, above --stop-height 5", "nothing else was started", "remove --stop-height, or set it to 11 or more"},
	})
	assert.Equal(t, []string{checkpointBefore, stampBefore}, []string{readText(c.checkpoint), readText(c.stampFile())}, "nothing was written")
	c.run(
		phase{
			name: "below the height", do: start("--stop-height=12"), exit: exits(78), cause: "too_late", events: []event{stopIsSet("1", "12")}, trace: []string{"asked v1 at 13"},
			state: "13 version 0", stamp: "1 from 11 to 20", says: []string{"the state of version 1 is at height 13, above --stop-height 12", "set it to 13 or more"},
		},
		phase{
			name: "at the height", do: start("--stop-height=13"), exit: exits(0), events: []event{stopIsSet("1", "13"), on("sequence finished", "version=1", "height=13")},
			trace: []string{"asked v1 at 13"}, stamp: "1 from 11 to 20", checkpoint: "1 finished 0@10 1@13",
		},
		phase{
			name: "without it", do: start(), events: []event{on("height known", "version=1")},
			trace: []string{"asked v1 at 13", "start v1 stop=20"}, stamp: "1 from 11 to 20", checkpoint: "1 running 0@10",
		},
	)
}

func TestEmergencyStopInALaterVersionLetsTheEarlierOnesUpgrade(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true}, version{})
	c.env = append(c.env, "ENTRYPOINT_STOP_HEIGHT=12")
	c.run(phase{
		name: "to the stop", do: do(heights(25, 25), start()), exit: exits(0),
		events: []event{stopIsSet("1", "12"), on("version completed", "version=0", "height=10"), on("sequence finished", "version=1", "height=12")},
		trace:  append([]string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10"}, anything),
		state:  "12 version 1 migrated@10", checkpoint: "1 finished migrated 0@10 1@12", stamp: "1 from 11 to 12 migrated",
	})
}

func TestEmergencyStopWhereThePlanEndsAVersionAnywayChangesNothing(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20})
	c.run(phase{
		name: "to the end", do: do(heights(25, 25), start("--stop-height=10")), exit: exits(0), events: []event{on("sequence finished", "version=1", "height=20")},
		trace: append([]string{"start v0 stop=10"}, anything), checkpoint: "1 finished 0@10 1@20",
	})
	assert.NotContains(t, c.lastLog, "emergency stop is set")
}

func TestNodeThatCannotBeAskedIdlesAtTheEmergencyStopAfterAWord(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{keys: map[string]any{"ask": false}})
	cannot := on("node cannot be asked")
	c.run(phase{
		name: "to the stop", do: do(heights(13, 13), start("--stop-height=10")), exit: exits(78), cause: "cannot_be_asked", events: []event{stopIsSet("0", "10")},
		trace: []string{"start v0 stop=10", "exit v0 0 at 10", anything}, stamp: "0 to 10", allows: []string{"node cannot be asked"},
	})
	c.doAs("--complete --stop-height 10")
	c.run(
		phase{
			name: "idle", do: start("--stop-height=10"), exit: exits(0), events: []event{stopIsSet("0", "10"), cannot, on("sequence finished", "height=10")},
			checkpoint: "0 finished 0@10", stamp: "0 to 10 complete",
		},
		phase{
			name: "without it", do: start(), events: []event{cannot, on("height known")}, trace: []string{"start v0"}, stamp: "0", checkpoint: "0 running", state: "13 version 0",
		},
	)
}

func TestCommandsJudgeThePlanWithItsEmergencyStop(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20}, version{})
	inV1(c)
	const above = "the state of version 1 is at height 13, above --stop-height 12"
	code, _, errs := c.command("height", "-c", c.manager, "-f", c.checkpoint, "--stop-height=12")
	assert.Equal(t, 78, code)
	assert.Contains(t, errs, above)
	out, _ := c.height(0, "--stop-height=13")
	assert.Contains(t, out, "next start: starts nothing: v1 is complete at --stop-height 13\n")
	code, out, _ = c.command("check", "-c", c.manager, "-f", c.checkpoint, "--stop-height=12")
	assert.Equal(t, 78, code)
	assert.Contains(t, out, above)

	assert.Contains(t, c.plan("--stop-height=15"), "stop:       --stop-height 15: nothing follows that height\n")
	assert.Contains(t, c.plan("--stop-height=15"), "version:    1 (v1), from height 11 to 15\n")
	assert.Contains(t, c.plan("--stop-height=15", "--json"), `"emergency_stop": 15`)
	assert.NotContains(t, c.plan("--stop-height=20"), "--stop-height 20")
	code, out, _ = c.command("checkpoint", "show", "-c", c.manager, "-f", c.checkpoint, "--stop-height=5")
	assert.Zero(t, code)
	assert.Contains(t, out, "next start: is refused with exit code 78: the state belongs to version 1")
}

func TestStatusShowsTheEmergencyStop(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10}, version{})
	c.da.set(3, 3)
	c.start("--stop-height=5", "--when-finished=wait")
	r := c.awaitStatus("height 3", func(r status.Report) bool { return r.Height != nil && r.Height.Blocks == 3 })
	require.NotNil(t, r.NextUpgrade)
	assert.Nil(t, r.NextUpgrade.VersionIndex)
	assert.EqualValues(t, 5, r.NextUpgrade.StopHeight)
	require.NotNil(t, r.EmergencyStop)
	assert.EqualValues(t, 5, *r.EmergencyStop)
	_, out, _ := c.command("status", "--listen", c.statusAddress)
	assert.Contains(t, out, "nothing, because of --stop-height, after height 5: 2 blocks left")
	c.da.set(9, 9)
	r = c.awaitPhase(sequencer.PhaseFinished)
	assert.Nil(t, r.NextUpgrade)

	// A running rollup at its emergency stop is not above it, so the late image may come.
	checkRunning := func(args ...string) (int, string) {
		code, out, _ := c.command(append([]string{"check", "-c", c.manager, "--running", "http://" + c.statusAddress}, args...)...)
		return code, out
	}
	for _, height := range []string{"5", "7"} {
		code, out := checkRunning("--stop-height=" + height)
		assert.Zero(t, code, out)
	}
	code, out := checkRunning("--stop-height=4")
	assert.Equal(t, 78, code)
	assert.Contains(t, out, "the running rollup is at height 5, above --stop-height 4")
}
