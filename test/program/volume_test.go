package program

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ownMounts gives this goroutine, and what it starts, mounts of their own. The thread is never unlocked, so it ends with
// the goroutine; with the last process in it the namespace goes, and every mount in it, also after a kill of the tests.
func ownMounts(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err != nil {
		missing(t, "this test needs root and a mount namespace: %s", err)
	}
}

// missing ends a test that cannot run here. In CI everything must be there.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must have what is missing: "+format, args...)
	}
	t.Skipf(format, args...)
}

// disk is a file system in an image file, whose power can be cut.
type disk struct {
	t          *testing.T
	image, dir string
	options    string
	mounted    bool
}

// imageBytes is the smallest size that mkfs.xfs accepts.
const imageBytes = 300 << 20

// newDisk makes a file system of that kind and mounts it at dir, in mounts of our own.
func newDisk(t *testing.T, kind, dir string) *disk {
	t.Helper()
	d := &disk{t: t, image: filepath.Join(t.TempDir(), kind+".img"), dir: dir, options: "loop"}
	mkfs := []string{"mkfs." + kind, "-q", d.image}
	if kind == "ext4" {
		// By default ext4 writes the content out at a rename over another file, which hides a missing fsync.
		d.options += ",noauto_da_alloc"
	}
	for _, tool := range []string{mkfs[0], "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "this test needs %s: %s", tool, err)
		}
	}
	require.NoError(t, os.WriteFile(d.image, nil, 0o600))
	require.NoError(t, os.Truncate(d.image, imageBytes)) // sparse
	out, err := exec.Command(mkfs[0], mkfs[1:]...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := d.tryMount(); err != nil {
		missing(t, "this test needs loop devices and %s: %s %s", kind, err, out)
	}
	t.Cleanup(func() {
		if d.mounted { // the test has failed, and its processes may still be there
			d.cutPower()
			_ = unix.Unmount(d.dir, unix.MNT_DETACH)
		}
	})
	return d
}

func (d *disk) tryMount() ([]byte, error) {
	out, err := exec.Command("mount", "-o", d.options, d.image, d.dir).CombinedOutput()
	d.mounted = err == nil
	return out, err
}

func (d *disk) mount() {
	d.t.Helper()
	out, err := d.tryMount()
	require.NoError(d.t, err, "%s", out)
}

// unmount waits until nobody holds the file system any more: a killed process closes its files as it dies.
func (d *disk) unmount() {
	d.t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(2 * time.Millisecond) {
		err := unix.Unmount(d.dir, 0)
		if err == nil {
			d.mounted = false
			return
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			d.t.Fatalf("cannot unmount %s: %s", d.dir, err)
		}
	}
}

const (
	// shutdownRequest is FS_IOC_SHUTDOWN of the kernel, _IOR('X', 125, __u32), which ext4, xfs, f2fs and btrfs know.
	shutdownRequest = 0x8004587d
	// noLogFlush drops all that is not on the disk yet, the journal in memory too, as a power cut does.
	noLogFlush = 2
)

// cutPower has nothing more written to the disk. Everything that uses it fails from now on.
func (d *disk) cutPower() {
	d.t.Helper()
	fd, err := unix.Open(d.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(d.t, err)
	defer unix.Close(fd)
	require.NoError(d.t, unix.IoctlSetPointerInt(fd, shutdownRequest, noLogFlush))
}

// abort has ext4 make itself read-only, as at an error of its disk, over the heads of those who have files open for
// writing: a plain remount is refused while the lock of the checkpoint is open.
func (d *disk) abort() {
	d.t.Helper()
	out, err := exec.Command("mount", "-o", "remount,abort", d.dir).CombinedOutput()
	probe := os.WriteFile(filepath.Join(d.dir, "probe"), nil, 0o600)
	require.ErrorIs(d.t, probe, unix.EROFS, "%v %s", err, out)
}

// keepBusy writes to the disk, as others on a volume do, until its power is cut: so a sync takes its time, and a cut can
// come before its end. What it returns waits for that.
func (d *disk) keepBusy() (idle func()) {
	d.t.Helper()
	file, err := os.Create(filepath.Join(d.dir, "busy"))
	require.NoError(d.t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer file.Close()
		for block, err := make([]byte, 1<<20), error(nil); err == nil; {
			if _, err = file.WriteAt(block, 0); err == nil {
				err = file.Sync()
			}
		}
	}()
	return func() { <-ended }
}

// powerUp is the restart of the machine: the file system recovers from its journal.
func (d *disk) powerUp() {
	d.t.Helper()
	d.unmount()
	d.mount()
}
