package program

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// undoable is a chain on a volume of that kind, whose upgrades can be undone.
func undoable(t *testing.T, kind string, versions ...version) *chain {
	t.Helper()
	c := newChain(t, versions...)
	c.undo = "auto"
	if kind != "" {
		ownMounts(t)
		d := newDisk(t, kind, filepath.Dir(c.checkpoint))
		t.Cleanup(func() {
			c.cleanUp()
			if d.mounted && !t.Failed() {
				d.unmount()
			}
		})
	}
	return c
}

// beside lists what is beside the state, apart from the checkpoint's files.
func (c *chain) beside() (names []string) {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(c.state))
	require.NoError(c.t, err)
	for _, e := range entries {
		if e.IsDir() && e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names
}

// A version that cannot read the state of the one before, and destroys it by opening it, as two real releases did. The
// operator gets the state back without doing anything, mends the image, and goes on.
func TestVersionThatDestroysTheStateIsUndoneAndMended(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"xfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := undoable(t, kind, version{stop: 10}, version{})
			configure(1, func(n *mockrollup.Config) { n.Mock.Format = "another" })(c)
			fails := phase{
				name: "v1 destroys the state", do: do(heights(13, 13), start()), exit: exits(101), cause: "undone",
				events: []event{on("version completed", "version=0"), on("undo point made", "version=1"), on("version started", "version=1"), on("undo point put back", "version=1")},
				trace:  []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 start=11", "exit v1 101 at 10", "asked v1, exit 101 at 10"},
				says:   []string{"the state of version 0 at height 10 was put back from the undo point, and no block was lost", "state.failed-v1", "fix version 1, and start again"},
				state:  "10 version 0", stamp: "0 to 10", checkpoint: "0 running 0@10",
			}
			c.run(fails)
			assert.Equal(t, []string{"state", "state.failed-v1"}, c.beside())
			fails.name, fails.do, fails.trace = "it does so again", start(), []string{"asked v0 at 10", "start v1 start=11", "exit v1 101 at 10", "asked v1, exit 101 at 10"}
			c.run(fails)
			assert.Equal(t, []string{"state", "state.failed-v1"}, c.beside(), "one failed state is kept")
			c.run(phase{
				name: "the image is mended", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Format = "format 0" }), start()),
				events: []event{on("undo point made", "version=1"), on("height known", "version=1")},
				trace:  []string{"asked v0 at 10", "start v1 start=11"}, state: "13 version 0",
			})
			assert.Equal(t, []string{"state", "state.before-v1", "state.failed-v1"}, c.beside())
			c.run(phase{
				name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
			})
		})
	}
}

func TestFailedMigrationIsUndone(t *testing.T) {
	t.Parallel()
	c := undoable(t, "xfs", version{stop: 10}, version{migrates: true, keys: map[string]any{"on_interrupted_migration": "halt"}})
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Exit = 7 })(c)
	c.run(
		phase{
			name: "the migration fails", do: do(heights(13, 13), start()), exit: exits(7), cause: "undone", events: []event{on("undo point put back")},
			trace: []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 migration", "exit v1 migration 7 at 10"},
			says:  []string{"the migration of version 1 exited 7", "was put back"}, state: "10 version 0", checkpoint: "0 running 0@10",
		},
		phase{
			name: "fixed", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Exit = 0 }), start()),
			events: []event{on("migration finished", "exit_code=0"), on("height known", "version=1")},
			trace:  []string{"asked v0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11"},
			state:  "13 version 1 migrated@10", checkpoint: "1 running migrated 0@10",
		},
	)
}

// A migration that does not survive a second run is killed in its middle.
func TestInterruptedMigrationIsUndone(t *testing.T) {
	t.Parallel()
	c := undoable(t, "xfs", migratingChain()...)
	halfWay(c, false)
	c.run(phase{
		name: "restart", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Sleep = 0 }), start()),
		events: []event{on("migration was interrupted", "version=1"), on("undo point put back"), on("undo point made"), on("height known", "version=1")},
		trace:  []string{"asked v0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20"},
		state:  "13 version 1 migrated@10", checkpoint: "1 running migrated 0@10",
	})
}

// A version that has made a block is only undone by a person, who is told what is lost.
func TestVersionThatMadeBlocksIsUndoneByHandOnly(t *testing.T) {
	t.Parallel()
	c := undoable(t, "xfs", version{stop: 10}, version{})
	c.run(
		phase{
			name: "v1 makes blocks", do: do(heights(13, 13), start()), events: []event{on("undo point made"), on("height known", "version=1")},
			trace: []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 start=11"}, state: "13 version 0",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
		phase{
			name: "it cannot read its state any more", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Format = "another" }), start()),
			exit: exits(101), cause: "state_damaged", trace: []string{"asked v1, exit 101 at 13"}, says: []string{"'entrypoint undo' puts back the state from before version 1"},
			stamp: "1 from 11", state: "13 version 0 damaged",
		},
	)
	code, out, errs := c.command("undo", "-c", c.manager, "-f", c.checkpoint)
	require.NotZero(t, code, "nobody can be asked here: %s", errs)
	require.Contains(t, out, "every block above height 10")
	require.Equal(t, "1 from 11", c.stampInWords(), "nothing was done")
	code, _, errs = c.command("undo", "-c", c.manager, "-f", c.checkpoint, "--yes")
	require.Zero(t, code, errs)
	require.Equal(t, "10 version 0", c.stateInWords())
	require.Equal(t, "0 to 10", c.stampInWords())
	require.Equal(t, "0 running 0@10", c.checkpointInWords())
	c.run(phase{
		name: "mended", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Format = "format 0" }), start()), events: []event{on("height known", "version=1")},
		trace: []string{"asked v0 at 10", "start v1 start=11"}, state: "13 version 0",
	})
}

// A full volume, and one on which a real copy does not fit, keep nothing from being started in auto.
func TestUpgradeWithoutRoomForAnUndoPoint(t *testing.T) {
	t.Parallel()
	c := undoable(t, "ext4", version{stop: 10}, version{})
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"}, state: "5 version 0",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	require.NoError(t, os.WriteFile(filepath.Join(c.state, "ballast"), []byte(strings.Repeat("x", 150<<20)), 0o644))
	c.undo = "copy"
	c.run(phase{
		name: "copy must", do: do(heights(13, 13), start()), exit: exits(74), says: []string{"the undo point before version 1 cannot be made", "--undo off"},
		trace: []string{"asked v0 at 5", "start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10"}, stamp: "0 to 10",
	})
	c.undo = "auto"
	c.run(phase{
		name: "auto may", do: start(), events: []event{on("no undo point", "version=1"), on("height known", "version=1")},
		trace: []string{"asked v0 at 10", "start v1 start=11"}, state: "13 version 0",
	})
	require.Equal(t, []string{"state"}, c.beside(), "nothing is left of the copy")
}

// A hold before the upgrade, and a hook that fails at first.
func TestHoldAndHookBeforeAnUpgrade(t *testing.T) {
	t.Parallel()
	c := undoable(t, "xfs", version{stop: 10}, version{})
	said, hook, hold := filepath.Join(c.dir, "said"), filepath.Join(c.dir, "hook"), filepath.Join(filepath.Dir(c.checkpoint), "hold")
	c.versions[1].keys = map[string]any{"before": []string{hook, "argument"}}
	c.writeManager()
	write := func(text string) { require.NoError(t, writeExecutable(hook, []byte("#!/bin/sh\n"+text))) }
	write("echo $ENTRYPOINT_FROM_VERSION $ENTRYPOINT_TO_VERSION $ENTRYPOINT_HEIGHT $ENTRYPOINT_STORAGE_PATH $ENTRYPOINT_CHECKPOINT $1 > " + said + "\nexit 9\n")
	code, _, errs := c.command("hold", "-c", c.manager, "-f", c.checkpoint, "--before", "v1")
	require.Zero(t, code, errs)
	c.run(
		phase{
			name: "held", do: do(heights(13, 13), start()), events: []event{on("version completed", "version=0"), on("held", "file="+hold)},
			trace: []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10"}, state: "10 version 0", checkpoint: "0 running 0@10",
		},
		phase{
			name: "the hook fails", do: func(c *chain) {
				code, _, errs := c.command("resume", "-c", c.manager, "-f", c.checkpoint)
				require.Zero(t, code, errs)
			}, exit: exits(9), events: []event{on("hold ended"), on("undo point made"), on("hook started"), on("hook finished", "exit_code=9")},
			trace: []string{"asked v0 at 10"}, says: []string{"the hook before version 1 exited 9", "version 0 is complete at height 10"}, stamp: "0 to 10",
		},
	)
	require.Equal(t, "v0 v1 10 "+c.state+" "+c.checkpoint+" argument", readText(said))
	write("exit 0\n")
	c.run(
		phase{
			name: "the hook is mended", do: start(), events: []event{on("hook finished", "exit_code=0"), on("height known", "version=1")},
			trace: []string{"asked v0 at 10", "asked v0 at 10", "start v1 start=11"}, state: "13 version 0",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
	)
	require.NoError(t, os.WriteFile(hold, nil, 0o644))
	c.run(
		phase{name: "a start under a hold", do: start(), events: []event{on("held")}},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0)},
	)
}

// The entrypoint is killed at any moment around an upgrade that fails, and the next start goes on.
func TestKilledAroundAPutBackTheNextStartGoesOn(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	for i := range 12 {
		c := newChain(t, version{stop: 10}, version{})
		c.undo = "auto"
		d := newDisk(t, "xfs", filepath.Dir(c.checkpoint))
		configure(1, func(n *mockrollup.Config) { n.Mock.Format = "another" })(c)
		heights(13, 13)(c)
		for c.phase = "killed"; ; {
			c.start()
			select {
			case <-time.After(time.Duration(i*15) * time.Millisecond):
				_ = c.program.cmd.Process.Kill()
			case <-c.program.done:
			}
			<-c.program.done
			c.awaitOutlived()
			killed := c.program.killed()
			c.program = nil
			if !killed {
				break
			}
			i += 3
		}
		if c.stateInWords() == "10 version 0 damaged" { // killed while v1 ran: nobody knows whether that was up
			code, _, errs := c.command("undo", "-c", c.manager, "-f", c.checkpoint, "--yes")
			require.Zero(t, code, errs)
		}
		require.Equal(t, "10 version 0", c.stateInWords())
		require.Equal(t, "0 to 10", c.stampInWords())
		configure(1, func(n *mockrollup.Config) { n.Mock.Format = "format 0" })(c)
		c.run(
			phase{name: "mended", do: start(), events: []event{on("height known", "version=1")}, trace: []string{anything}, state: "13 version 0", allows: []string{"checkpoint corrected"}},
			phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{anything}},
		)
		d.unmount()
	}
}
