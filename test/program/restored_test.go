package program

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/status"
)

// States and checkpoints that were restored, alone or from elsewhere, and plans that were deployed late.

// snapshot copies the state of a stopped chain.
func (c *chain) snapshot(name string) string {
	c.t.Helper()
	to := filepath.Join(c.dir, name)
	out, err := exec.Command("cp", "-a", c.state, to).CombinedOutput()
	require.NoError(c.t, err, "%s", out)
	return to
}

// restore puts a snapshot in the place of the state, as a whole directory.
func (c *chain) restore(snapshot string) {
	c.t.Helper()
	require.NoError(c.t, os.RemoveAll(c.state))
	require.NoError(c.t, os.Rename(snapshot, c.state))
}

// An operator restores a snapshot of v0's state, and leaves the checkpoint of v1 as it is.
func TestSnapshotOfAnEarlierVersionContinuesByItself(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	snapshot := c.snapshot("snapshot")
	c.run(
		phase{
			name: "to v1", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")}, trace: append([]string{"asked v0 at 5"}, upgraded...),
			checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
	c.restore(snapshot)
	before := readText(c.checkpoint)
	code, out, errs := c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Zero(t, code, out+errs)
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "the stamp of the state says version 0")
	assert.Equal(t, before, readText(c.checkpoint), "it only looks")
	c.run(phase{
		name: "restored", do: start(), events: []event{on("checkpoint corrected", "detail~the stamp takes precedence"), on("old checkpoint kept"), on("height known", "version=1")},
		trace:      append([]string{"asked v0 at 5"}, upgraded...),
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	})
	kept, err := filepath.Glob(c.checkpoint + ".before-*")
	require.NoError(t, err)
	require.Len(t, kept, 1)
	assert.Equal(t, before, readText(kept[0]))
}

// The state of a replica that is further, under a checkpoint of our own.
func TestSnapshotOfALaterVersionContinuesByItself(t *testing.T) {
	t.Parallel()
	replica := newChain(t, migratingChain()...)
	inV1(replica)
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	c.restore(replica.snapshot("snapshot"))
	c.run(phase{
		name: "restored", do: do(heights(15, 15), start()), events: []event{on("checkpoint was interrupted"), on("height known", "version=1")},
		trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running migrated ?0@10", stamp: "1 from 11 to 20 migrated", state: "15 version 1 migrated@10",
	})
}

// The state and the checkpoint of a replica, in a directory of ours.
func TestCheckpointOfAReplicaFollowsTheStamp(t *testing.T) {
	t.Parallel()
	replica := newChain(t, migratingChain()...)
	inV1(replica)
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	require.NoError(t, os.WriteFile(c.checkpoint, []byte(readText(replica.checkpoint)), 0o644))
	c.run(phase{
		name: "its checkpoint alone", do: start(), events: []event{on("checkpoint corrected"), on("height known", "version=0")},
		trace: []string{"asked v0 at 5", "start v0 stop=10"}, checkpoint: "0 running", stamp: "0 to 10", state: "5 version 0",
	})
}

// lateChain is a chain whose only version has no stop height, at height 13; late is the plan that gives it one.
func lateChain(t *testing.T) (c *chain, late func(stop uint64) (file string)) {
	t.Helper()
	c = served(t, version{})
	next := newChain(t, version{stop: 10}, version{})
	return c, func(stop uint64) string {
		t.Helper()
		file := filepath.Join(c.dir, fmt.Sprintf("late-%d.json", stop))
		text, err := json.Marshal([]map[string]any{
			{"rollup_binary": c.binary(0), "config_path": c.config(0), "stop_height": stop},
			{"rollup_binary": next.binary(1), "config_path": lateConfig(c, next), "start_height": stop + 1},
		})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, text, 0o644))
		return file
	}
}

// lateConfig is the config of the version that is deployed late, over the state of c.
func lateConfig(c, next *chain) string {
	c.t.Helper()
	node := c.versions[0].node
	node.Mock.Label = "v1"
	next.versions[1].node = node
	next.writeConfig(1)
	return next.config(1)
}

func atHeight13(r status.Report) bool { return r.Height != nil && r.Height.Blocks == 13 }

// The image with the fork is deployed when its height has passed.
func TestPlanThatComesTooLateIsRefused(t *testing.T) {
	t.Parallel()
	c, late := lateChain(t)
	c.run(phase{
		name: "run", do: do(heights(13, 13), start()), events: []event{on("height known")}, trace: []string{"start v0"}, state: "13 version 0",
	})
	c.awaitStatus("height 13", atHeight13)
	code, out, errs := c.command("check", "-c", late(10), "--running", "http://"+c.statusAddress)
	assert.Equal(t, 78, code, errs)
	assert.Contains(t, strings.Join(strings.Fields(out), " "), "too late: the running rollup is at height 13, above its stop height 10")
	code, out, errs = c.command("check", "-c", late(1000), "--running", "http://"+c.statusAddress)
	assert.Zero(t, code, out+errs)

	c.run(phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 13"}})
	c.manager = late(10)
	refused := phase{
		name: "too late", do: start(), exit: exits(78), trace: []string{"asked v0 at 13"}, cause: "too_late",
		says:       []string{"too late", "above the stop height 10", "is at height 13", "the state was not touched", "made by the wrong version"},
		checkpoint: "0 running", stamp: "0", state: "13 version 0",
	}
	c.run(refused, refused)
	c.saysNothingOf("checkpoint set")
	code, out, _ = c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, 78, code)
	assert.Contains(t, out, "too late")

	// Not too late is the same plan with a height that is still to come.
	c.manager = late(20)
	c.run(phase{
		name: "in time", do: do(heights(25, 25), start()), events: []event{on("version completed", "version=0", "height=20"), on("version started", "version=1")},
		trace: []string{"asked v0 at 13", "start v0 stop=20", "exit v0 0 at 20", "asked v0 at 20", anything}, checkpoint: "1 running 0@20",
	})
}

// A plan that was deployed just in time has its stop height where the state is.
func TestPlanWhoseStopHeightIsReachedGoesOn(t *testing.T) {
	t.Parallel()
	c, late := lateChain(t)
	c.run(
		phase{name: "run", do: do(heights(13, 13), start()), events: []event{on("height known")}, trace: []string{"start v0"}, state: "13 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 13"}},
	)
	c.manager = late(13)
	c.run(phase{
		name: "at the stop height", do: do(heights(15, 15), start()), events: []event{on("version completed", "version=0", "height=13"), on("version started", "version=1")},
		trace: []string{"asked v0 at 13", anything}, checkpoint: "1 running 0@13",
	})
}

// A finished sequence starts nothing, and continues when its plan has grown.
func TestFinishedSequenceGoesOnWithAPlanThatHasGrown(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true})
	all := c.versions
	c.versions = all[:1]
	c.writeManager()
	finished := phase{
		name: "to the end", do: do(heights(13, 13), start()), exit: exits(0), events: []event{on("sequence finished", "version=0")}, trace: upgraded[:3],
		checkpoint: "0 finished 0@10", stamp: "0 to 10", state: "10 version 0",
	}
	again := finished
	again.name, again.trace = "again", []string{"asked v0 at 10"}
	c.run(finished, again)
	c.versions = all
	c.writeManager()
	c.run(phase{
		name: "grown", do: start(), events: []event{on("version completed", "version=0"), on("height known", "version=1")}, trace: upgraded[2:],
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	})
}

// A hook asks from a place without the state: v0, which the running rollup is through with, is not needed there.
func TestCheckOfARunningRollupNeedsNoRetiredVersion(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10}, version{})
	elsewhere := newChain(t, version{stop: 10}, version{stop: 20}, version{})
	check := func(retired int, args ...string) (int, string) {
		entries := elsewhere.entries()
		for i := range retired {
			delete(entries[i], "rollup_binary")
			delete(entries[i], "config_path")
			entries[i]["name"], entries[i]["retired"] = fmt.Sprintf("v%d", i), true
		}
		text, err := json.Marshal(entries)
		require.NoError(t, err)
		file := filepath.Join(elsewhere.dir, fmt.Sprintf("retired-%d.json", retired))
		require.NoError(t, os.WriteFile(file, text, 0o644))
		code, out, errs := c.command(append([]string{"check", "-c", file}, args...)...)
		return code, strings.Join(strings.Fields(out+errs), " ")
	}
	c.run(phase{name: "to v1", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")}, trace: []string{anything}, state: "13 version 0"})
	c.awaitStatus("height 13", atHeight13)
	running := "--running=http://" + c.statusAddress
	code, out := check(1, running)
	assert.Zero(t, code, out)
	code, out = check(1)
	assert.Equal(t, 78, code)
	assert.Contains(t, out, "there is no state, and version 0, which makes the first blocks, is retired")
	code, out = check(2, running)
	assert.Equal(t, 78, code)
	assert.Contains(t, out, `the running version, "v1", is retired in `)
	c.run(phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{anything}})
}
