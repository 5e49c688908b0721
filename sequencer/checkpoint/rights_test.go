package checkpoint

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	rollupUser  = 65532
	rollupGroup = 65531
)

// needsRoot ends a test that gives files to other users.
func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must run the tests as root")
		}
		t.Skip("needs root")
	}
}

// volumeOf is a directory of the rollup's user.
func volumeOf(t *testing.T, uid, gid int, mode fs.FileMode) string {
	t.Helper()
	needsRoot(t)
	dir := realTempDir(t)
	for above := dir; above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
		require.NoError(t, os.Chmod(above, 0o755))
	}
	require.NoError(t, os.Chown(dir, uid, gid))
	require.NoError(t, os.Chmod(dir, mode))
	return dir
}

// owners gives "UID:GID MODE" of everything in dir.
func owners(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := entry.Info()
		owner := info.Sys().(*syscall.Stat_t)
		name := strings.TrimPrefix(path, dir+"/")
		if strings.Contains(name, keptInfix) {
			name = "kept"
		}
		all[name] = strconv.Itoa(int(owner.Uid)) + ":" + strconv.Itoa(int(owner.Gid)) + " " + info.Mode().String()
		return err
	}))
	return all
}

// usesStore has the test binary use the store in a directory.
const usesStore = "CHECKPOINT_TEST_USES_STORE"

func useStore(t *testing.T, dir string) {
	t.Helper()
	store, err := Open(dir+"/checkpoint.json", dir+"/state")
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.SaveStamp(fullStamp()))
	require.NoError(t, store.SaveCheckpoint(fullCheckpoint()))
	_, err = store.KeepCheckpoint()
	require.NoError(t, err)
	child := exec.Command("true")
	require.NoError(t, child.Start())
	require.NoError(t, store.NoteChild(child.Process.Pid))
	require.NoError(t, child.Wait())
	require.NoError(t, store.Held())
}

func TestUsesStore(t *testing.T) {
	if dir := os.Getenv(usesStore); dir != "" { // this is what asUser runs
		unix.Umask(0o022)
		useStore(t, dir)
	}
}

// asUser uses the store in dir as another user, who is in those groups too.
func asUser(t *testing.T, dir string, uid, gid uint32, groups ...uint32) {
	t.Helper()
	// The test binary is in a directory that others may not enter.
	self, err := os.Open("/proc/self/exe")
	require.NoError(t, err)
	defer self.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run=^TestUsesStore$")
	cmd.Dir, cmd.ExtraFiles = "/", []*os.File{self}
	cmd.Env = append(os.Environ(), usesStore+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestWhatRootMakesBelongsToTheUserOfTheDirectory(t *testing.T) {
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	dir := volumeOf(t, rollupUser, rollupGroup, 0o755)
	useStore(t, dir)
	owner := "65532:65531 "
	assert.Equal(t, map[string]string{
		"checkpoint.json": owner + "-rw-r--r--", "checkpoint.json.lock": owner + "-rw-r--r--", "kept": owner + "-rw-r--r--",
		"state": owner + "drwxr-xr-x", "state/" + StampFile: owner + "-rw-r--r--",
	}, owners(t, dir))
	asUser(t, dir, rollupUser, rollupGroup)
	useStore(t, dir)
	asUser(t, dir, rollupUser, rollupGroup)
}

func TestNextUserOfTheGroupOfTheDirectoryGoesOn(t *testing.T) {
	for name, mode := range map[string]fs.FileMode{"with the group's id set": 0o775 | fs.ModeSetgid, "without": 0o775} {
		t.Run(name, func(t *testing.T) {
			dir := volumeOf(t, 0, rollupGroup, mode) // as Kubernetes has it with fsGroup
			asUser(t, dir, 1001, 1001, rollupGroup)
			for file, owner := range owners(t, dir) {
				assert.Regexp(t, `^1001:65531 (-rw-rw-r--|dg?rwxrwxr-x)$`, owner, file)
			}
			asUser(t, dir, 1002, 1002, rollupGroup)
			useStore(t, dir)
			asUser(t, dir, 1003, 1003, rollupGroup)
		})
	}
}

func TestReplacedFileKeepsOwnerGroupAndMode(t *testing.T) {
	dir := volumeOf(t, rollupUser, rollupGroup, 0o755)
	store, err := Open(dir+"/checkpoint.json", "")
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, os.WriteFile(store.path, nil, 0o600))
	require.NoError(t, os.Chown(store.path, 1001, 1002))
	require.NoError(t, os.Chmod(store.path, 0o640))
	require.NoError(t, store.SaveCheckpoint(fullCheckpoint()))
	assert.Equal(t, "1001:1002 -rw-r-----", owners(t, dir)["checkpoint.json"])
	_, err = store.KeepCheckpoint()
	require.NoError(t, err)
	assert.Equal(t, "1001:1002 -rw-r-----", owners(t, dir)["kept"])
}

// Another group than the one that was meant gets nothing that was not everybody's.
func TestGroupThatCannotBeGivenKeepsAPrivateFilePrivate(t *testing.T) {
	dir := volumeOf(t, rollupUser, rollupUser, 0o755)
	useStore(t, dir)
	require.NoError(t, os.Chown(dir+"/checkpoint.json", rollupUser, rollupGroup))
	require.NoError(t, os.Chmod(dir+"/checkpoint.json", 0o660))
	asUser(t, dir, rollupUser, rollupUser) // which is not in rollupGroup
	assert.Equal(t, "65532:65532 -rw-------", owners(t, dir)["checkpoint.json"])
}
