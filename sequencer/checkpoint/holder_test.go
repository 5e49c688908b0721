package checkpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// looksAt has the test binary say who holds the locks in a directory. Behind it is what becomes of /proc before.
const looksAt = "CHECKPOINT_TEST_LOOKS_AT"

func TestLooksAt(t *testing.T) {
	dir, proc, _ := strings.Cut(os.Getenv(looksAt), ":")
	if dir == "" {
		return // this is what look runs
	}
	if proc != "" {
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	}
	switch proc {
	case "covered":
		require.NoError(t, unix.Mount("none", "/proc", "tmpfs", 0, ""))
	case "own":
		require.NoError(t, unix.Mount("proc", "/proc", "proc", 0, ""))
	}
	own, err := Open(filepath.Join(dir, "of-the-looker.json"), "")
	require.NoError(t, err)
	require.NoError(t, own.NoteChild(os.Getppid()), "whether or not it can be known")
	require.NoError(t, own.Held())
	require.NoError(t, own.Close())
	for _, path := range []string{dir + "/checkpoint.json", ""} {
		_, err := Open(path, dir)
		var held *LockHeldError
		require.ErrorAs(t, err, &held)
		fmt.Printf("LOOK %d %t %v\n", held.Pid, held.HolderGone, held.Left)
	}
}

// look says what another process sees of the locks in dir: the checkpoint's, and the state's.
func look(t *testing.T, dir, proc string, attr *syscall.SysProcAttr) []string {
	t.Helper()
	self, err := os.Open("/proc/self/exe") // others may not enter its directory
	require.NoError(t, err)
	defer self.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestLooksAt$")
	cmd.Dir, cmd.ExtraFiles, cmd.SysProcAttr = "/", []*os.File{self}, attr
	cmd.Env = append(os.Environ(), looksAt+"="+dir+":"+proc)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line, ok := strings.CutPrefix(line, "LOOK "); ok {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// What is known of a holder depends on who looks, and from where. Nobody takes one that lives for one that has ended.
func TestHolderAsOthersSeeIt(t *testing.T) {
	const anybody = 0o777
	dir := volumeOf(t, 0, 0, anybody)
	store, err := Open(dir+"/checkpoint.json", dir)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir+"/checkpoint.json.lock", 0o666))
	stranger := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rollupUser, Gid: rollupGroup}}
	covered := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	container := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}

	lives := fmt.Sprintf("%d false []", os.Getpid())
	assert.Equal(t, []string{lives, lives}, look(t, dir, "", stranger), "the table of locks shows it to another user")
	const unknown = "0 false []"
	assert.Equal(t, []string{unknown, unknown}, look(t, dir, "covered", covered))
	assert.Equal(t, []string{unknown, unknown}, look(t, dir, "own", container))
	assert.Equal(t, []string{unknown, unknown}, look(t, dir, "", container), "its /proc is that of another namespace")

	child := startCat(t, store.LockFiles()).Process.Pid
	r := recordOf(t, dir+"/checkpoint.json")
	r.Pid = endedPid
	require.NoError(t, r.write(store.lock))
	require.NoError(t, store.Close())
	gone, gone2 := fmt.Sprintf("%d true [{%d cat}]", r.Pid, child), fmt.Sprintf("0 true [{%d cat}]", child)
	assert.Equal(t, []string{gone, gone2}, look(t, dir, "", nil))
	assert.Equal(t, []string{unknown, unknown}, look(t, dir, "own", container))
}
