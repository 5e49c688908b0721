package program

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/status"
)

const (
	// freezeRequest and thawRequest are FIFREEZE and FITHAW of the kernel: between the two nothing is written to a file
	// system, and a process that tries waits in the kernel, as on a disk that does not answer.
	freezeRequest = 0xc0045877
	thawRequest   = 0xc0045878
)

// freeze has every write to the disk hang until it is thawed.
func (d *disk) freeze() (thaw func()) {
	d.t.Helper()
	fd, err := unix.Open(d.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(d.t, err)
	require.NoError(d.t, unix.IoctlSetInt(fd, freezeRequest, 0))
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			require.NoError(d.t, unix.IoctlSetInt(fd, thawRequest, 0))
			_ = unix.Close(fd)
		}
	}
	d.t.Cleanup(thaw)
	return thaw
}

// awaitHanging waits until the program has waited for its disk for a while.
func (c *chain) awaitHanging() {
	c.t.Helper()
	c.awaitEvent(on("disk is slow"))
}

// A disk may take long for a write. A stop is seen meanwhile, and shown, though it has to wait.
func TestStopIsSeenWhileAWriteHangs(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	c := served(t, migratingChain()...)
	require.NoError(t, os.Mkdir(c.state, 0o755))
	d := newDisk(t, "ext4", c.state)
	held := handOverHeld(c)
	thaw := d.freeze()
	held.pass()
	c.awaitEvent(on("version completed", "version=0"))
	c.awaitHanging()
	c.run(
		phase{name: "stop", do: func(c *chain) {
			send(syscall.SIGTERM)(c)
			c.awaitStatus("the stop", func(r status.Report) bool { return r.Stopping })
		}, events: []event{on("stop requested")}, trace: upgraded[:3]},
		phase{
			name: "the disk answers", do: func(*chain) { thaw() }, exit: exits(0), events: []event{on("stopped")},
			stamp: "0 to 10", state: "10 version 0",
		},
	)
	d.unmount()
}

// The record of a completed migration is tried until it is written; a stop is seen all the same.
func TestStopIsSeenWhileTheRecordOfAMigrationHangs(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	c := served(t, migratingChain()...)
	require.NoError(t, os.Mkdir(c.state, 0o755))
	d := newDisk(t, "ext4", c.state)
	letGo := workerOf(c, 1)
	c.run(phase{
		name: "the migration has exited", do: do(heights(13, 13), start()),
		events: []event{on("migration finished", "exit_code=0"), on("leftover processes still run")}, trace: upgraded[:5],
	})
	thaw := d.freeze()
	letGo()
	c.run(
		phase{name: "stop", do: func(c *chain) {
			c.awaitEvent(on("leftover processes ended"))
			c.awaitHanging()
			send(syscall.SIGTERM)(c)
			c.awaitStatus("the stop", func(r status.Report) bool { return r.Stopping })
		}, events: []event{on("stop requested")}},
		phase{
			name: "the disk answers", do: func(*chain) { thaw() }, exit: exits(0), events: []event{on("stopped")},
			stamp: "1 from 11 to 20 migrated", state: "10 version 1 migrated@10",
		},
	)
	d.unmount()
}
