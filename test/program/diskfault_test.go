package program

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
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
func fill(t testing.TB, dir string, inodes bool) (free func()) {
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

// inV0 is the phase before most faults: version 0 runs well below its stop height.
func inV0() phase {
	return phase{
		name: "in v0", do: do(heights(3, 3), start()), events: []event{on("height known", "version=0")},
		trace: []string{"start v0 stop=10"}, checkpoint: "0 running", stamp: "0 to 10", state: "3 version 0",
	}
}

// stopInV1 ends a chain.
func stopInV1(allows ...string) phase {
	return phase{
		name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}, allows: allows,
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
			name: "full", do: start(), exit: exits(74), checkpoint: "0 running", state: "3 version 0",
			says: []string{c.checkpoint, "no space left on device", "nothing was started"}, allows: []string{unrecordedEvent},
		})
		free()
		c.run(phase{
			name: "freed", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
			trace:      append([]string{"asked v0 at 3", "start v0 stop=10"}, toV1(false)...),
			checkpoint: "1 running 0@10", state: "13 version 0",
		})
	})
}

// Everything is decided from the stamp, so a checkpoint that cannot follow it holds nobody up.
func TestFullVolumeOfTheCheckpointHoldsNoHandOverUp(t *testing.T) {
	t.Parallel()
	onSmallDisks(t, migratingChain, func(c *chain, full func() func()) {
		c.run(inV0())
		free := full()
		c.run(phase{
			name: "full", do: heights(13, 13), trace: upgraded[1:],
			events:     []event{on("version completed", "version=0"), on("checkpoint not written", "error~no space left on device"), on("height known", "version=1")},
			checkpoint: "0 running", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		}, stopInV1("checkpoint not written"))
		free()
		c.run(phase{
			name: "freed", do: start(), events: []event{on("checkpoint was interrupted"), on("height known", "version=1")},
			trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated",
		})
	})
}

// handOverHeld has the program wait, when version 0 is complete, before the next version is entered.
func handOverHeld(c *chain) *waiting {
	c.t.Helper()
	c.da.set(10, 10)
	return c.heldAtRead(ownBinary(1)(c), journalled("asked v0 at 10"))
}

func TestFullVolumeOfTheStateFailsTheHandOver(t *testing.T) {
	t.Parallel()
	for what, options := range tmpfsOptions {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ownMounts(t)
			c := newChain(t, migratingChain()...)
			require.NoError(t, os.Mkdir(c.state, 0o755))
			require.NoError(t, unix.Mount("tmpfs", c.state, "tmpfs", 0, options))
			t.Cleanup(func() { require.NoError(t, unix.Unmount(c.state, unix.MNT_DETACH)) })
			held := handOverHeld(c)
			free := fill(t, c.state, what == "inodes")
			held.pass()
			c.run(noHandOver("no space left on device"))
			free()
			c.run(handOverMended())
		})
	}
}

// noHandOver is the phase in which version 0 is complete and the stamp cannot be written.
func noHandOver(says ...string) phase {
	return phase{
		name: "no hand-over", exit: exits(74), events: []event{on("version completed", "version=0")}, trace: upgraded[:3],
		checkpoint: "0 running", stamp: "0 to 10", state: "10 version 0",
		says: append(says, "checkpoint or stamp cannot be written", "rollup-version.json", "the migration was not started", "make the volume writable"),
	}
}

// handOverMended is the next start after that, on a volume that is writable again.
func handOverMended() phase {
	return phase{
		name: "writable again", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")}, trace: upgraded[2:],
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	}
}

func TestDiskThatBecomesReadOnlyFailsTheHandOver(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	c := newChain(t, migratingChain()...)
	require.NoError(t, os.Mkdir(c.state, 0o755))
	d := newDisk(t, "ext4", c.state)
	configure(0, func(n *mockrollup.Config) { n.Mock.Fsync = true })(c)
	held := handOverHeld(c)
	d.abort()
	held.pass()
	c.run(noHandOver("read-only file system"))
	d.powerUp()
	c.run(handOverMended(), stopInV1())
	d.unmount()
}

// spoilStamp has no stamp be written any more, as somebody does who makes a directory of that name.
func (c *chain) spoilStamp() {
	c.t.Helper()
	require.NoError(c.t, os.Remove(c.stampFile()))
	require.NoError(c.t, os.Mkdir(c.stampFile(), 0o755))
}

// heldInMigration spoils the stamp while the migration runs, and lets it complete.
func heldInMigration(c *chain) {
	c.t.Helper()
	letGo := c.hold(c.migration(1))
	c.run(phase{
		name: "to the migration", do: do(heights(13, 13), start()), events: []event{on("migration started", "version=1")},
		trace: upgraded[:3], checkpoint: "1 migrating 0@10", stamp: "1 from 11 to 20 migrating", state: "10 version 0",
	})
	c.spoilStamp()
	letGo()
	c.run(phase{
		name: "spoilt", events: []event{on("migration finished", "version=1"), on("record not written", "error~file exists")},
		trace: upgraded[3:5], checkpoint: "1 migrating 0@10", state: "10 version 1 migrated@10",
	})
}

func TestMigrationIsRecordedOnceTheStampCanBeWrittenAgain(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	heldInMigration(c)
	c.run(phase{
		name: "writable again", do: func(c *chain) { require.NoError(t, os.Remove(c.stampFile())) }, events: []event{on("height known", "version=1")},
		trace: upgraded[5:], checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	}, stopInV1("record not written"))
}

func TestMigrationThatCannotBeRecordedIsSetByHand(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	heldInMigration(c)
	c.run(phase{
		name: "spoilt to the end", exit: exits(74), checkpoint: "1 migrating 0@10", state: "10 version 1 migrated@10", allows: []string{"record not written"},
		says: []string{"file exists", "the migration of version 1 completed", "BEFORE anything is started again", "--version 1 --migrated --force"},
	})
	require.NoError(t, os.Remove(c.stampFile()))
	c.run(phase{name: "not set by hand", do: start(), exit: exits(78), cause: "other_state", checkpoint: "1 migrating 0@10", state: "10 version 1 migrated@10"})
	c.doAs("--version 1 --migrated --force")
	c.run(phase{
		name: "set by hand", do: start(), events: []event{on("height known", "version=1")}, trace: upgraded[5:],
		checkpoint: "1 running migrated ?0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	}, stopInV1())
}

// Somebody tidies up while the node runs.
func TestCheckpointThatIsTakenAwayHoldsNoHandOverUp(t *testing.T) {
	t.Parallel()
	c, _ := separateCheckpoint(t, plainChain())
	c.run(inV0())
	require.NoError(t, errors.Join(os.Remove(c.checkpoint), os.Mkdir(c.checkpoint, 0o755)))
	c.run(phase{
		name: "to v1", do: heights(13, 13), events: []event{on("checkpoint not written", "error~file exists"), on("height known", "version=1")},
		trace: toV1(false), stamp: "1 from 11 to 20", state: "13 version 0",
	}, stopInV1("checkpoint not written"))
	require.NoError(t, os.Remove(c.checkpoint))
	c.run(phase{
		name: "fixed", do: start(), events: []event{on("stamp found", "version=1"), on("height known", "version=1")},
		trace:      []string{"asked v1 at 13", "start v1 stop=20"},
		checkpoint: "1 running ?0@10", stamp: "1 from 11 to 20", state: "13 version 0",
	})
}

// With the directory the lock file is gone, so another entrypoint could start.
func TestLockThatIsTakenAwayEndsTheRun(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ spoil, fix func(dir string) error }{
		"the directory is deleted":    {os.RemoveAll, func(dir string) error { return os.Mkdir(dir, 0o755) }},
		"the directory is moved away": {func(dir string) error { return os.Rename(dir, dir+".away") }, func(dir string) error { return os.Rename(dir+".away", dir) }},
		"the lock file is deleted":    {func(dir string) error { return os.Remove(filepath.Join(dir, "checkpoint.json.lock")) }, func(string) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, dir := separateCheckpoint(t, plainChain())
			c.run(inV0())
			require.NoError(t, test.spoil(dir))
			c.run(phase{
				name: "at the stop height", do: heights(13, 13), exit: exits(74), trace: []string{"exit v0 0 at 10"},
				stamp: "0 to 10", state: "10 version 0", says: []string{"another entrypoint can start on the same state", "start again"},
			})
			require.NoError(t, test.fix(dir))
			c.run(phase{
				name: "again", do: start(), events: []event{on("stamp found", "version=0"), on("height known", "version=1")},
				trace: toV1(false)[1:], stamp: "1 from 11 to 20", state: "13 version 0",
			})
		})
	}
}
