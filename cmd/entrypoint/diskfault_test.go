package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// separateCheckpoint lays out a chain whose checkpoint has a directory of its own, apart from the state.
func separateCheckpoint(t *testing.T, versions []version) (c *chain, dir string) {
	t.Helper()
	c = newChain(t, versions...)
	dir = filepath.Join(c.dir, "record")
	require.NoError(t, os.Mkdir(dir, 0o755))
	c.checkpoint = filepath.Join(dir, "checkpoint.json")
	return c, dir
}

// tmpfsOptions are small file systems: one that runs out of space, one that runs out of inodes.
var tmpfsOptions = map[string]string{"space": "size=64k", "inodes": "size=1m,nr_inodes=24"}

// onSmallDisks runs f with the checkpoint on each of them, and with what fills it.
func onSmallDisks(t *testing.T, versions func() []version, f func(c *chain, full func() (free func()))) {
	t.Helper()
	for what, options := range tmpfsOptions {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ownMounts(t)
			c, dir := separateCheckpoint(t, versions())
			require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
			t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
			f(c, func() func() { return fill(t, dir, what == "inodes") })
		})
	}
}

// fill leaves no byte, or no inode, of the file system at dir, and gives back what frees it.
func fill(t *testing.T, dir string, inodes bool) (free func()) {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	require.NoError(t, os.MkdirAll(ballast, 0o755))
	var text []byte
	if !inodes {
		text = make([]byte, 4<<10)
	}
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(ballast, fmt.Sprint(i)), text, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return func() { require.NoError(t, os.RemoveAll(ballast)) }
		}
		require.NoError(t, err)
	}
}

// hold has a program of the chain wait, once it is started, until it is let go.
func (c *chain) hold(program string) (letGo func()) {
	c.t.Helper()
	name := filepath.Base(program)
	behind := filepath.Join(filepath.Dir(program), "behind")
	require.NoError(c.t, os.MkdirAll(behind, 0o755))
	require.NoError(c.t, os.Rename(program, filepath.Join(behind, name)))
	script := fmt.Sprintf("#!/bin/sh\nuntil [ -e %[1]s/go ]; do sleep 0.02; done\nexec %[1]s/%[2]s \"$@\"\n", behind, name)
	require.NoError(c.t, writeExecutable(program, []byte(script)))
	return func() { require.NoError(c.t, os.WriteFile(filepath.Join(behind, "go"), nil, 0o600)) }
}

// v0AtItsEnd is the trace of a version 0 that reaches its stop height.
var v0AtItsEnd = []string{"exit v0 0 at 10", "?start v0 stop=10", "?exit v0 101 at 10"}

// inV0 is the phase before most faults: version 0 runs well below its stop height.
func inV0() phase {
	return phase{
		name: "in v0", do: do(heights(3, 3), start()), events: []event{on("height known", "version=0")},
		trace: []string{"start v0 stop=10"}, checkpoint: "0 running started", state: "3 version 0",
	}
}

// noHandOver is the phase in which version 0 is complete and the checkpoint cannot be written.
func noHandOver(says ...string) phase {
	return phase{
		name: "no hand-over", do: heights(10, 10), exit: exits(74), events: []event{on("version completed", "version=0")}, trace: v0AtItsEnd,
		state: "10 version 0",
		says:  append(says, "the checkpoint cannot be written", "version 0", "is complete at height 10 and nothing of version 1", "make the volume writable"),
	}
}

func TestFullVolumeFailsTheFirstSaveOfALife(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, plainChain, func(c *chain, full func() func()) {
		c.run(inV0(), phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"},
		})
		free := full()
		c.run(phase{
			name: "full", do: start(), exit: exits(74), checkpoint: "0 running started", state: "3 version 0",
			says: []string{c.checkpoint, "no space left on device", "nothing was started"},
		})
		free()
		c.run(phase{
			name: "freed", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
			trace:      append(append([]string{"start v0 stop=10"}, v0AtItsEnd...), "start v1 start=11 stop=20"),
			checkpoint: "1 running started 0@10", state: "13 version 0",
		})
	})
}

func TestFullVolumeFailsTheHandOver(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, migratingChain, func(c *chain, full func() func()) {
		c.run(inV0())
		free := full()
		failed := noHandOver(c.checkpoint, "no space left on device")
		failed.checkpoint = "0 running started"
		c.run(failed)
		free()
		c.run(phase{
			name: "freed", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
			trace:      []string{"start v0 stop=10", "exit v0 101 at 10", "start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11 stop=20"},
			checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		})
	})
}

// heldInMigration breaks the disk while the migration runs, and lets it complete.
func heldInMigration(c *chain, spoil func() (mend func()), says string) (mend func()) {
	c.t.Helper()
	letGo := c.hold(c.migration(1))
	c.run(phase{
		name: "to the migration", do: do(heights(13, 13), start()), events: []event{on("migration started", "version=1")},
		trace: append([]string{"start v0 stop=10"}, v0AtItsEnd...), checkpoint: "1 migrating started 0@10", state: "10 version 0",
	})
	mend = spoil()
	letGo()
	c.run(phase{
		name: "spoilt", events: []event{on("migration finished", "version=1"), on("checkpoint not written", "error~"+says)},
		trace: []string{"start v1 migration", "exit v1 migration 0 at 10"}, checkpoint: "1 migrating started 0@10", state: "10 version 1 migrated@10",
	})
	return mend
}

func TestMigrationIsRecordedOnceTheVolumeHasSpaceAgain(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, migratingChain, func(c *chain, full func() func()) {
		free := heldInMigration(c, full, "no space left on device")
		c.run(phase{
			name: "freed", do: func(*chain) { free() }, events: []event{on("height known", "version=1")}, trace: []string{"start v1 start=11 stop=20"},
			checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		}, phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
			allows: []string{"checkpoint not written"},
		})
	})
}

func TestMigrationThatCannotBeRecordedIsSetByHand(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, migratingChain, func(c *chain, full func() func()) { setMigrationByHand(c, full, "no space left on device") })
}

func setMigrationByHand(c *chain, spoil func() (mend func()), says string) {
	c.t.Helper()
	mend := heldInMigration(c, spoil, says)
	c.run(phase{
		name: "spoilt to the end", exit: exits(74), checkpoint: "1 migrating started 0@10", state: "10 version 1 migrated@10",
		allows: []string{"checkpoint not written"}, says: []string{c.checkpoint, says, "the migration of version 1", "completed", "checkpoint set", "--version 1 --migrated"},
	})
	mend()
	code, _, stderr := c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "1", "--migrated")
	require.Zero(c.t, code, stderr)
	c.run(phase{
		name: "set by hand", do: start(), events: []event{on("height known", "version=1")}, trace: []string{"start v1 start=11 stop=20"},
		checkpoint: "1 running started migrated ?0@10", state: "13 version 1 migrated@10",
	}, phase{
		name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
	})
}

func TestFullVolumeDoesNotStopANodeThatRunsWell(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, plainChain, func(c *chain, full func() func()) {
		letGo := c.hold(c.binary(1))
		c.run(phase{
			name: "to v1", do: do(heights(13, 13), start()), events: []event{on("version started", "version=1")},
			trace: append([]string{"start v0 stop=10"}, v0AtItsEnd...), checkpoint: "1 running 0@10",
		})
		free := full()
		letGo()
		c.run(phase{
			name: "full", events: []event{on("checkpoint not written", "error~no space left on device")}, trace: []string{"start v1 start=11 stop=20"},
			checkpoint: "1 running 0@10", state: "13 version 0",
		}, phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
			checkpoint: "1 running 0@10", allows: []string{"checkpoint not written"},
		})
		free()
		c.run(phase{
			name: "freed", do: start(), events: []event{on("height known", "version=1")},
			trace:      []string{"start v1 start=11 stop=20", "exit v1 101 at 13", "start v1 stop=20"},
			checkpoint: "1 running started 0@10", state: "13 version 0",
		})
	})
}

func TestDiskThatBecomesReadOnlyFailsTheHandOver(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	c, dir := separateCheckpoint(t, migratingChain())
	d := newDisk(t, "ext4", dir)
	c.run(inV0())
	d.abort()
	failed := noHandOver(c.checkpoint, "read-only file system")
	failed.checkpoint = "0 running started"
	c.run(failed)
	d.powerUp()
	c.run(phase{
		name: "mended", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
		trace:      []string{"start v0 stop=10", "exit v0 101 at 10", "start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11 stop=20"},
		checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
	}, phase{
		name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
	})
	d.unmount()
}

func TestDiskThatBecomesReadOnlyInAMigrationIsMendedByHand(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	c, dir := separateCheckpoint(t, migratingChain())
	d := newDisk(t, "ext4", dir)
	setMigrationByHand(c, func() func() { d.abort(); return d.powerUp }, "read-only file system")
	d.unmount()
}

// Somebody tidies up while the node runs.
func TestCheckpointThatIsTakenAwayFailsTheHandOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil, mend func(c *chain, dir string) error
		says        string
	}{
		"the directory is deleted": {
			func(_ *chain, dir string) error { return os.RemoveAll(dir) },
			func(_ *chain, dir string) error { return os.Mkdir(dir, 0o755) }, "no such file or directory",
		},
		"the directory is moved away": {
			func(_ *chain, dir string) error { return os.Rename(dir, dir+".away") },
			func(_ *chain, dir string) error { return os.Rename(dir+".away", dir) }, "no such file or directory",
		},
		"a directory takes the place of the file": {
			func(c *chain, _ string) error {
				return errors.Join(os.Remove(c.checkpoint), os.Mkdir(c.checkpoint, 0o755))
			},
			func(c *chain, _ string) error { return os.Remove(c.checkpoint) }, "file exists",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, dir := separateCheckpoint(t, plainChain())
			c.run(inV0())
			require.NoError(t, test.spoil(c, dir))
			c.run(noHandOver(c.checkpoint, test.says))
			require.NoError(t, test.mend(c, dir))
			c.run(phase{
				name: "mended", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
				trace:      []string{"start v0 stop=10", "exit v0 101 at 10", "start v1 start=11 stop=20"},
				checkpoint: "1 running started 0@10", state: "13 version 0",
			})
		})
	}
}
