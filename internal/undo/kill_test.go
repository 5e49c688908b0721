package undo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/test/ptrace"
)

// acts are what can be killed: each is done by a process of its own.
var acts = []string{"make", "make again", "put back", "find", "drop"}

// prepare brings the world to where the act begins, and says what the state is then.
func (w *world) prepare(t testing.TB, act string) (now, whole map[string]string) {
	t.Helper()
	whole = w.content(t)
	if act == "make" {
		return whole, whole
	}
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	if act == "make again" || act == "drop" {
		return whole, whole
	}
	// The second time there is an older failed state.
	spoil(t, w.state)
	_, err = w.undo(t).PutBack(p)
	require.NoError(t, err)
	p, err = w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	spoil(t, w.state)
	if act == "find" {
		u, n := w.undo(t), 0
		u.step = func(string) { // it is interrupted in the middle
			if n++; n == 3 {
				panic(errKilled)
			}
		}
		killedAt(func() { _, _ = u.PutBack(p) })
		return nil, whole
	}
	return w.content(t), whole
}

var errKilled = errors.New("killed here")

// killedAt calls f, and reports whether a step ended it.
func killedAt(f func()) (killed bool) {
	defer func() {
		if cause := recover(); cause == errKilled { //nolint:errorlint // it is the one of the step
			killed = true
		} else if cause != nil {
			panic(cause)
		}
	}()
	f()
	return false
}

// do does the act.
func (w *world) do(t testing.TB, act string, u *Undo) error {
	t.Helper()
	switch act {
	case "make", "make again":
		_, err := u.Make(t.Context(), pointToV1(), nil)
		return err
	case "put back":
		p, err := u.Look()
		require.NoError(t, err)
		_, err = u.PutBack(*p)
		return err
	case "drop":
		_, err := u.Drop()
		return err
	}
	_, err := u.Find()
	return err
}

// judge looks at what is there after an act was killed, as the next start does: the state is as it was before or, if it
// was being put back, whole; and if there is an undo point, that one is whole.
func (w *world) judge(t testing.TB, act, at string, now, whole map[string]string) {
	t.Helper()
	p, err := w.undo(t).Find()
	require.NoError(t, err, at)
	assert.Empty(t, w.clutter(t), at)
	switch {
	case p == nil && (act == "put back" || act == "find"):
		require.Equal(t, whole, w.content(t), "%s: it was put back", at)
	case now != nil:
		require.Equal(t, now, w.content(t), "%s: the state is untouched", at)
	}
	if p == nil && act == "put back" {
		require.NotEmpty(t, w.undo(t).Aside(), "%s: the failed state is kept", at)
	}
	if p == nil {
		return
	}
	_, err = w.undo(t).PutBack(*p)
	require.NoError(t, err, at)
	require.Equal(t, whole, w.content(t), "%s: the undo point is whole", at)
	assert.Empty(t, w.clutter(t), at)
}

func TestKilledAtAnyStepTheNextFindFinishesOrForgets(t *testing.T) {
	for _, way := range ways {
		for _, act := range acts {
			t.Run(way+", "+act, func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					w := newWorld(t, way)
					now, whole := w.prepare(t, act)
					killed, at := w.killAtStep(t, act, n)
					w.judge(t, act, at, now, whole)
					if !killed {
						require.Greater(t, n, 1, "there are steps")
						return
					}
				}
			})
		}
	}
}

// killAtStep does the act until the nth change on disk.
func (w *world) killAtStep(t testing.TB, act string, n int) (killed bool, at string) {
	t.Helper()
	u := w.undo(t)
	u.step = func(what string) {
		if what == stepPart || what == stepGivenUp {
			return
		}
		if n--; n == 0 {
			at = fmt.Sprintf("%s, killed after %q", act, what)
			panic(errKilled)
		}
	}
	var err error
	killed = killedAt(func() { err = w.do(t, act, u) })
	if !killed {
		require.NoError(t, err)
	}
	return killed, at
}

// The steps above are ours. Here every system call is one that changes something.
const (
	actVariable = "UNDO_TEST_ACT"
	wayVariable = "UNDO_TEST_WAY"
	dirVariable = "UNDO_TEST_DIR"
)

// TestProcessToKill is the process that is killed.
func TestProcessToKill(t *testing.T) {
	act := os.Getenv(actVariable)
	if act == "" {
		return
	}
	w := &world{dir: os.Getenv(dirVariable), way: os.Getenv(wayVariable)}
	w.place()
	require.NoError(t, w.do(t, act, w.undo(t)))
}

func TestKilledAtAnySystemCallTheNextFindFinishesOrForgets(t *testing.T) {
	for _, way := range ways {
		for _, act := range acts {
			t.Run(way+", "+act, func(t *testing.T) {
				t.Parallel()
				points := killAtCall(t, newWorld(t, way), act, 0)
				require.Positive(t, points)
				stride := max(1, points/8) // of each act; the matrix is the same every time
				if os.Getenv("ENTRYPOINT_KILL_MATRIX") == "all" {
					stride = 1
				}
				for n := 1; n <= points; n += stride {
					killAtCall(t, newWorld(t, way), act, n)
				}
			})
		}
	}
}

// killAtCall has a process do the act, killed at its nth call that changes something, 0 for none, and judges what is
// there then. It gives the number of such calls.
func killAtCall(t *testing.T, w *world, act string, n int) (seen int) {
	t.Helper()
	now, whole := w.prepare(t, act)
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcessToKill$", "-test.count=1")
	cmd.Env = append(os.Environ(), actVariable+"="+act, wayVariable+"="+w.way, dirVariable+"="+w.dir)
	at := act
	process, err := ptrace.Start(cmd, func(c *ptrace.Call) {
		if !w.touchedBy(c) {
			return
		}
		if seen++; seen == n {
			at = fmt.Sprintf("%s, killed at call %d (%s, exit %v)", act, n, c.Name(), c.Exit)
			_ = c.Signal(unix.SIGKILL)
		}
	})
	if errors.Is(err, unix.EPERM) {
		missing(t, "ptrace(2) is not permitted here: %s", err)
	}
	require.NoError(t, err)
	status, err := process.Wait()
	require.NoError(t, err)
	if n == 0 {
		require.Zero(t, status.ExitStatus())
	}
	w.judge(t, act, at, now, whole)
	return seen
}

// touchedBy reports whether the call changes something in the world.
func (w *world) touchedBy(c *ptrace.Call) bool {
	path := ""
	switch name := c.Name(); name { // those that change something, or make it durable
	case "openat", "renameat", "renameat2", "unlinkat", "mkdirat":
		if name == "openat" && c.Args[2]&unix.O_CREAT == 0 {
			return false
		}
		path, _ = c.Path(0, 1)
	case "fsync", "write", "pwrite64", "ftruncate":
		path, _ = c.File(0)
	}
	return strings.HasPrefix(path, w.dir+"/")
}

// place sets the paths of a world that is there.
func (w *world) place() {
	w.state = filepath.Join(w.dir, "state")
	w.options = Options{Storage: w.state, Mode: Copy}
	switch w.way {
	case "undo dir":
		w.options.Dir = filepath.Join(w.dir, "undo")
	case "in place":
		w.options.Dir = filepath.Join(w.state, ".undo")
		w.options.Checkpoint = filepath.Join(w.state, "checkpoint.json")
	}
}

// shutdownRequest is FS_IOC_SHUTDOWN of the kernel, and noLogFlush has it drop what is not on the disk yet.
const (
	shutdownRequest = 0x8004587d
	noLogFlush      = 2
)

// cutPower takes away what is not durable on the file system at dir, and mounts it again.
func cutPower(t testing.TB, dir string) {
	t.Helper()
	source, err := exec.Command("findmnt", "-n", "-o", "SOURCE", "--mountpoint", dir).Output()
	require.NoError(t, err)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(fd, shutdownRequest, noLogFlush))
	require.NoError(t, unix.Close(fd))
	device := strings.TrimSpace(string(source))
	held, err := os.Open(device) // or the loop device would go with its mount
	require.NoError(t, err)
	defer held.Close()
	require.NoError(t, unix.Unmount(dir, 0))
	out, err := exec.Command("mount", device, dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestPowerCutAtAnyStepTheNextFindFinishesOrForgets(t *testing.T) {
	for _, kind := range []string{"ext4", "xfs"} {
		for _, way := range ways {
			t.Run(kind+", "+way, func(t *testing.T) {
				disk := mounted(t, kind, "")
				for _, act := range []string{"make", "make again", "put back"} {
					for n := 1; ; n++ {
						w := &world{dir: filepath.Join(disk, fmt.Sprintf("%s-%d", act, n)), way: way}
						w.lay(t)
						now, whole := w.prepare(t, act)
						unix.Sync() // what was prepared is durable
						killed, at := w.killAtStep(t, act, n)
						cutPower(t, disk)
						w.judge(t, act, at+", and the power was cut", now, whole)
						require.NoError(t, os.RemoveAll(w.dir))
						if !killed {
							break
						}
					}
				}
			})
		}
	}
}
