package sequencer

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openStore opens the checkpoint at path and gives it back at the end of the test.
func openStore(t *testing.T, path string) *FileStore {
	t.Helper()
	store, err := OpenFileStore(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// refusedStore expects that the lock of path is held.
func refusedStore(t *testing.T, path string) *LockHeldError {
	t.Helper()
	store, err := OpenFileStore(path)
	require.Nil(t, store)
	var held *LockHeldError
	require.ErrorAs(t, err, &held)
	return held
}

// mountOrSkip mounts something for a test, which needs root: in CI it must be possible.
func mountOrSkip(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot mount %q at %s, which CI must be able to: run the tests as root: %v", kind, target, err)
		}
		t.Skipf("cannot mount %q (needs root): %v", kind, err)
	}
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(target, unix.MNT_DETACH)) })
}

// names lists a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// endedPid is the pid of a process that has ended.
func endedPid(t *testing.T) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	require.NoError(t, cmd.Run())
	return cmd.Process.Pid
}

func TestSecondStoreIsRefusedWithTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	first := openStore(t, path)
	host, err := os.Hostname()
	require.NoError(t, err)

	held := refusedStore(t, path)
	assert.Equal(t, &LockHeldError{Path: path + ".lock", Pid: os.Getpid(), Host: host}, held)
	assert.EqualError(t, held, path+".lock is locked by the entrypoint with pid "+strconv.Itoa(os.Getpid())+" on host \""+host+"\"")

	require.NoError(t, first.Save(Checkpoint{BinaryPath: "/b"}), "the refused one has changed nothing")
	require.NoError(t, first.Close())
	require.Error(t, first.Close(), "a lock is given up once")
	openStore(t, path)
}

func TestLockFileNamesItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	require.NoError(t, os.WriteFile(path+".lock", []byte(`{"pid":1234567890,"host":"a-long-name-of-an-earlier-holder"}`+"\n"), 0o600))
	store := openStore(t, path)
	assert.Equal(t, path, store.Path())
	text, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)
	var h holder
	require.NoError(t, json.Unmarshal(text, &h), "nothing of the earlier text is left: %s", text)
	host, _ := os.Hostname()
	assert.Equal(t, holder{os.Getpid(), host}, h)
}

func TestHolderIsKnownToBeGoneOnlyOnItsOwnHost(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	gone := endedPid(t)
	for _, test := range []struct {
		name, text string
		want       LockHeldError // without Path
		message    string        // after the path
	}{
		{
			"ended", `{"pid":` + strconv.Itoa(gone) + `,"host":"` + host + `"}`,
			LockHeldError{Pid: gone, Host: host, HolderGone: true},
			" is locked: the entrypoint with pid " + strconv.Itoa(gone) + " has ended, but a node or migration that it started still runs",
		},
		{
			"alive", `{"pid":` + strconv.Itoa(os.Getppid()) + `,"host":"` + host + `"}`,
			LockHeldError{Pid: os.Getppid(), Host: host},
			" is locked by the entrypoint with pid " + strconv.Itoa(os.Getppid()) + ` on host "` + host + `"`,
		},
		{
			"on another host", `{"pid":` + strconv.Itoa(gone) + `,"host":"elsewhere"}`,
			LockHeldError{Pid: gone, Host: "elsewhere"},
			" is locked by the entrypoint with pid " + strconv.Itoa(gone) + ` on host "elsewhere"`,
		},
		{"negative pid", `{"pid":-1,"host":"` + host + `"}`, LockHeldError{}, " is locked by another process"},
		{"a pid that kill(2) would cut off", `{"pid":4294967297,"host":"` + host + `"}`, LockHeldError{}, " is locked by another process"},
		{"empty", "", LockHeldError{}, " is locked by another process"},
		{"foreign", "locked by somebody\n", LockHeldError{}, " is locked by another process"},
		{"longer than any of ours", `{"host":"` + strings.Repeat("x", 300) + `","pid":7}`, LockHeldError{}, " is locked by another process"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			openStore(t, path)
			require.NoError(t, os.WriteFile(path+".lock", []byte(test.text), 0o600)) // keeps the inode, and so the lock
			held := refusedStore(t, path)
			assert.Equal(t, path+".lock"+test.message, held.Error())
			held.Path = ""
			assert.Equal(t, &test.want, held)
		})
	}
}

func TestLockHoldsForAsLongAsAChildThatInheritedIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	store := openStore(t, path)
	child := exec.CommandContext(t.Context(), "cat")
	child.ExtraFiles = []*os.File{store.LockFile()}
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.NoError(t, store.Close())

	assert.Equal(t, os.Getpid(), refusedStore(t, path).Pid, "the child holds it although its parent gave it up")

	require.NoError(t, stdin.Close()) // cat ends
	require.NoError(t, child.Wait())
	openStore(t, path)
}

func TestLockIsNotInheritedByAccident(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	store := openStore(t, path)
	child := exec.CommandContext(t.Context(), "cat")
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.NoError(t, store.Close())
	openStore(t, path)
	require.NoError(t, stdin.Close())
	require.NoError(t, child.Wait())
}

// holdLockVariable has the test binary stand in for an entrypoint that is killed.
const holdLockVariable = "SEQUENCER_TEST_HOLDS_LOCK"

func TestLockOfAKilledEntrypointNamesTheNodeThatSurvived(t *testing.T) {
	if path := os.Getenv(holdLockVariable); path != "" {
		store, err := OpenFileStore(path)
		require.NoError(t, err)
		node := exec.Command("cat") //nolint:noctx // it must outlive this process
		node.Stdin = os.NewFile(3, "the test's pipe")
		node.ExtraFiles = []*os.File{store.LockFile()}
		require.NoError(t, node.Start())
		os.Stdout.WriteString("holds\n")
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGKILL))
		select {} // until the signal arrives
	}
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	nodeInput, keepsNodeAlive, err := os.Pipe()
	require.NoError(t, err)
	defer nodeInput.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	entrypoint := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
	entrypoint.Env = append(os.Environ(), holdLockVariable+"="+path)
	entrypoint.ExtraFiles = []*os.File{nodeInput}
	out, err := entrypoint.Output()
	require.Contains(t, string(out), "holds")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)

	held := refusedStore(t, path)
	assert.Equal(t, entrypoint.Process.Pid, held.Pid)
	assert.True(t, held.HolderGone)
	assert.ErrorContains(t, held, "has ended, but a node or migration that it started still runs")

	require.NoError(t, keepsNodeAlive.Close()) // the node ends; nobody here is its parent, so it is not waited for
	require.Eventually(t, func() bool {
		store, err := OpenFileStore(path)
		if err == nil {
			_ = store.Close()
		}
		return err == nil
	}, time.Minute, time.Millisecond)
}

func TestSaveIsReadBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	store := openStore(t, path)
	_, found, err := store.Load()
	require.NoError(t, err)
	require.False(t, found)

	var told int
	store.OnSave(func(took time.Duration) {
		told++
		assert.GreaterOrEqual(t, took, time.Duration(0))
	})
	for i, c := range []Checkpoint{{BinaryPath: "/v0"}, fullCheckpoint(), {VersionIndex: 3, BinaryPath: "/v3", Phase: PhaseFinished}} {
		require.NoError(t, store.Save(c))
		got, found, err := store.Load()
		require.NoError(t, err)
		assert.True(t, found)
		assert.Equal(t, c, got)
		assert.Equal(t, i+1, told)
	}
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json.lock"}, names(t, dir), "no temporary file is left")
}

func TestSaveKeepsThePermissions(t *testing.T) {
	for _, test := range []struct {
		name         string
		before, want fs.FileMode
	}{
		{"a new file", 0, 0o644},
		{"private", 0o600, 0o600},
		{"for the group", 0o660, 0o660},
	} {
		t.Run(test.name, func(t *testing.T) {
			old := unix.Umask(0o022)
			defer unix.Umask(old)
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			if test.before != 0 {
				require.NoError(t, os.WriteFile(path, nil, test.before))
				require.NoError(t, os.Chmod(path, test.before))
			}
			require.NoError(t, openStore(t, path).Save(Checkpoint{BinaryPath: "/b"}))
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, test.want, info.Mode())
		})
	}
}

func TestSaveFollowsASymbolicLink(t *testing.T) {
	for _, test := range []struct {
		name   string
		exists bool
		link   func(dir string) string // where the link "link" points to
	}{
		{"absolute", true, func(dir string) string { return dir + "/volume/checkpoint.json" }},
		{"relative", true, func(string) string { return "volume/checkpoint.json" }},
		{"absolute, to a file that does not exist yet", false, func(dir string) string { return dir + "/volume/checkpoint.json" }},
		{"relative, to a file that does not exist yet", false, func(string) string { return "volume/checkpoint.json" }},
		{"through a directory link and back", false, func(string) string { return "elsewhere/../checkpoint.json" }},
		{"through another link", false, func(string) string { return "volume/other" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(dir+"/volume/deep", 0o700))
			require.NoError(t, os.Symlink("volume/deep", dir+"/elsewhere")) // and ".." from there is volume
			require.NoError(t, os.Symlink("checkpoint.json", dir+"/volume/other"))
			target, link := dir+"/volume/checkpoint.json", dir+"/link"
			require.NoError(t, os.Symlink(test.link(dir), link))
			if test.exists {
				require.NoError(t, os.WriteFile(target, []byte(fullText), 0o600))
			}
			store := openStore(t, link)
			assert.Equal(t, target, store.Path())
			refusedStore(t, target) // it is one lock, by whatever name
			require.NoError(t, store.Save(Checkpoint{BinaryPath: "/b"}))

			info, err := os.Lstat(link)
			require.NoError(t, err)
			assert.Equal(t, fs.ModeSymlink, info.Mode().Type(), "the link is still a link")
			info, err = os.Lstat(target)
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular())
			c, found, err := ReadCheckpoint(link)
			require.NoError(t, err)
			assert.True(t, found)
			assert.Equal(t, Checkpoint{BinaryPath: "/b"}, c)
		})
	}
}

func TestStoreFindsItsDirectoryAsTheKernelDoes(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir+"/volume/deep", 0o700))
	require.NoError(t, os.Symlink("volume/deep", dir+"/link"))
	t.Chdir(dir)
	for _, test := range []struct{ name, path, want string }{
		{"relative", "checkpoint.json", "checkpoint.json"},
		{"below", "./volume/checkpoint.json", "volume/checkpoint.json"},
		{"through a linked directory", "link/checkpoint.json", "volume/deep/checkpoint.json"},
		{"up from a linked directory", "link/../checkpoint.json", "volume/checkpoint.json"},
		{"absolute", dir + "/link/../checkpoint.json", dir + "/volume/checkpoint.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			store, err := OpenFileStore(test.path)
			require.NoError(t, err)
			defer store.Close()
			assert.Equal(t, test.want, store.Path())
			require.NoError(t, store.Save(Checkpoint{BinaryPath: test.name}))
			c, found, err := ReadCheckpoint(test.path)
			require.NoError(t, err)
			assert.True(t, found)
			assert.Equal(t, test.name, c.BinaryPath)
		})
	}
}

func TestLinkThatLeadsNowhereIsNoFirstStart(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{
		"into a directory that is not mounted": "missing/checkpoint.json",
		"to itself":                            "to itself",
	} {
		t.Run(name, func(t *testing.T) {
			link := filepath.Join(dir, name)
			require.NoError(t, os.Symlink(target, link))
			store, err := OpenFileStore(link)
			if err == nil { // the lock of a loop can be taken, but its checkpoint cannot be read
				defer store.Close()
				_, _, err = store.Load()
			}
			require.Error(t, err)
		})
	}
}

func TestLeftoversOfKilledWritesAreRemovedAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	require.NoError(t, os.Mkdir(dir, 0o700))
	leftovers := []string{".check?[x]1", ".check?[x]9223372036854775807"}
	kept := []string{
		".check?[x]", ".check?[x]12.bak", ".check?[x]1a", ".check?[x]x1", ".check?[x]-1", ".checkab[x]1", ".check?x1", ".other123", "check?[x]1",
	}
	for _, name := range append(append([]string{}, leftovers...), kept...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".check?[x]77"), 0o700))
	store := openStore(t, filepath.Join(dir, "check?[x]"))
	assert.ElementsMatch(t, append(kept, ".check?[x]77", "check?[x].lock"), names(t, dir))
	require.NoError(t, store.Save(Checkpoint{BinaryPath: "/b"}))
}

func TestSaveThatIsKilledLeavesTheOldCheckpoint(t *testing.T) {
	// The moment just before the rename: the temporary file is there, half written.
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	store := openStore(t, path)
	require.NoError(t, store.Save(fullCheckpoint()))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".checkpoint.json4711"), []byte(fullText[:77]), 0o600))
	require.NoError(t, store.Close())

	c, found, err := openStore(t, path).Load()
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, fullCheckpoint(), c)
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json.lock"}, names(t, dir))
}

// saveVariable has the test binary save a checkpoint, for strace to look at.
const saveVariable = "SEQUENCER_TEST_SAVES"

// Nothing else shows the order without which a power cut takes the checkpoint along: the content, the name, the name's
// own durability. And a temporary file in another place could lie on another file system.
func TestSaveSyncsTheFileBeforeTheRenameAndTheDirectoryAfterIt(t *testing.T) {
	if path := os.Getenv(saveVariable); path != "" {
		require.NoError(t, openStore(t, path).Save(fullCheckpoint()))
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	calls := straced(t, saveVariable+"="+path, "fsync,fdatasync,rename,renameat,renameat2")
	// A test binary that counts its coverage renames the file of the counts at its end.
	calls = slices.DeleteFunc(calls, func(call string) bool { return !strings.Contains(call, dir) })
	temporary := regexp.QuoteMeta(dir) + `/\.checkpoint\.json\d+`
	want := []string{
		`fsync\(\d+<` + temporary + `>`,
		`rename.*"` + temporary + `".*"` + regexp.QuoteMeta(path) + `"`,
		`fsync\(\d+<` + regexp.QuoteMeta(dir) + `>`,
	}
	require.Len(t, calls, len(want), "%q", calls)
	for i := range want {
		assert.Regexp(t, "^"+want[i], calls[i])
	}
}

// straced runs the calling test once more under strace, with a variable in its environment, and gives those of the
// system calls that it makes.
func straced(t *testing.T, variable, calls string) []string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI must have strace: %v", err)
		}
		t.Skipf("needs strace: %v", err)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-y", "-s", "4096", "-e", "signal=none", "-e", "trace="+calls, "-o", trace,
		self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(trace)
	require.NoError(t, err)
	var made []string
	for line := range strings.Lines(string(text)) {
		_, call, _ := strings.Cut(strings.TrimSpace(line), " ")                // behind the thread's number
		if call = strings.TrimSpace(call); !strings.HasPrefix(call, "<... ") { // the end of a call that was told before
			made = append(made, call)
		}
	}
	return made
}

func TestReadersNeverSeeATornFileWhileSavesRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	store := openStore(t, path)
	short, long := Checkpoint{BinaryPath: "/b"}, fullCheckpoint()
	require.NoError(t, store.Save(short))

	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				c, found, err := ReadCheckpoint(path)
				if !assert.NoError(t, err) || !assert.True(t, found) ||
					!assert.True(t, c.BinaryPath == "/b" || len(c.History) == 2, "%+v", c) {
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 50 {
		require.NoError(t, store.Save(long))
		require.NoError(t, store.Save(short))
	}
	close(done)
	readers.Wait()
}

func TestCheckpointThatCannotBeReadIsNoFirstStart(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(path("empty"), nil, 0o600))
	require.NoError(t, os.WriteFile(path("torn"), []byte(fullText[:100]), 0o600))
	require.NoError(t, os.WriteFile(path("huge"), []byte(strings.Repeat(" ", checkpointLimit+1)), 0o600))
	require.NoError(t, os.WriteFile(path("large"), []byte(fullText+strings.Repeat(" ", checkpointLimit-len(fullText))), 0o600))
	require.NoError(t, os.Mkdir(path("directory"), 0o700))
	require.NoError(t, unix.Mkfifo(path("pipe"), 0o600))

	for _, test := range []struct{ name, want string }{
		{"empty", dir + "/empty: the file is empty"},
		{"torn", dir + "/torn: the file is torn: it ends in the middle of the JSON text"},
		{"huge", dir + "/huge has 1048577 bytes: that is no checkpoint"},
		{"directory", dir + "/directory: this is no regular file"},
		{"pipe", dir + "/pipe: this is no regular file"},
		{"empty/below", "cannot read the checkpoint: stat " + dir + "/empty/below: not a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, found, err := ReadCheckpoint(path(test.name))
			require.EqualError(t, err, test.want)
			assert.Equal(t, strings.Contains(test.want, "no regular file"), errors.Is(err, ErrNoFile))
			assert.False(t, found)
			assert.Zero(t, c)
		})
	}
	t.Run("the largest is read", func(t *testing.T) {
		c, found, err := ReadCheckpoint(path("large"))
		require.NoError(t, err)
		assert.True(t, found)
		assert.Equal(t, fullCheckpoint(), c)
	})
	t.Run("an absent one is none", func(t *testing.T) {
		_, found, err := ReadCheckpoint(path("absent"))
		require.NoError(t, err)
		assert.False(t, found)
	})
}

func TestStoreInAMissingDirectoryIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	_, err := OpenFileStore(filepath.Join(dir, "checkpoint.json"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "cannot open the lock of the checkpoint: open "+dir+"/checkpoint.json.lock: no such file or directory")
	_, err = os.Stat(dir)
	require.ErrorIs(t, err, fs.ErrNotExist, "a volume that is not mounted is not made up")
}

func TestDirectoryInsteadOfACheckpointIsReplacedByNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	require.NoError(t, os.Mkdir(path, 0o700))
	store := openStore(t, path)
	require.ErrorContains(t, store.Save(Checkpoint{BinaryPath: "/b"}), "cannot replace "+path+": rename ")
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json.lock"}, names(t, dir), "no temporary file is left")
}

func TestDirectoryThatVanishesFailsTheSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.Mkdir(dir, 0o700))
	store := openStore(t, filepath.Join(dir, "checkpoint.json"))
	require.NoError(t, os.RemoveAll(dir))
	require.ErrorContains(t, store.Save(Checkpoint{BinaryPath: "/b"}), "cannot write beside "+dir+"/checkpoint.json: ")
}

func TestReadOnlyVolumeIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	mountOrSkip(t, "none", dir, "tmpfs", 0, "size=1m")
	store := openStore(t, path)
	require.NoError(t, store.Save(fullCheckpoint()))
	told := false
	store.OnSave(func(time.Duration) { told = true })
	require.NoError(t, store.Close()) // a file that is open for writing keeps a mount from becoming read-only
	require.NoError(t, unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))

	_, err := OpenFileStore(path)
	require.ErrorIs(t, err, unix.EROFS)
	require.EqualError(t, err, "cannot open the lock of the checkpoint: open "+path+".lock: read-only file system")
	err = store.Save(Checkpoint{BinaryPath: "/b"})
	require.ErrorIs(t, err, unix.EROFS)
	require.ErrorContains(t, err, "cannot write beside "+path)
	assert.False(t, told, "a failed save is not told")
	c, found, err := ReadCheckpoint(path)
	require.NoError(t, err)
	assert.True(t, found)
	assert.Equal(t, fullCheckpoint(), c)
}

func TestFullVolumeKeepsTheOldCheckpoint(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	mountOrSkip(t, "none", dir, "tmpfs", 0, "size=64k")
	store := openStore(t, path)
	require.NoError(t, store.Save(fullCheckpoint()))
	ballast := filepath.Join(dir, "ballast")
	require.ErrorIs(t, os.WriteFile(ballast, make([]byte, 1<<20), 0o600), unix.ENOSPC)

	err := store.Save(Checkpoint{BinaryPath: "/b"})
	require.ErrorIs(t, err, unix.ENOSPC)
	require.ErrorContains(t, err, "cannot write beside "+path)
	assert.Equal(t, []string{"ballast", "checkpoint.json", "checkpoint.json.lock"}, names(t, dir), "no temporary file is left")
	c, _, err := store.Load()
	require.NoError(t, err)
	assert.Equal(t, fullCheckpoint(), c, "the old checkpoint is whole")

	require.NoError(t, os.Remove(ballast))
	require.NoError(t, store.Save(Checkpoint{BinaryPath: "/b"}), "with space again it goes on")
}

func TestFullVolumeRefusesTheLock(t *testing.T) {
	dir := t.TempDir()
	mountOrSkip(t, "none", dir, "tmpfs", 0, "size=64k")
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600), unix.ENOSPC)
	path := filepath.Join(dir, "checkpoint.json")
	for range 2 { // the second one finds the lock free
		_, err := OpenFileStore(path)
		require.ErrorIs(t, err, unix.ENOSPC)
		require.ErrorContains(t, err, "cannot write the lock of the checkpoint: ")
	}
}

func TestCheckpointMountedAsASingleFileIsExplained(t *testing.T) {
	dir := t.TempDir()
	source, path := filepath.Join(dir, "on-the-host.json"), filepath.Join(dir, "checkpoint.json")
	require.NoError(t, os.WriteFile(source, []byte(fullText), 0o600))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	mountOrSkip(t, source, path, "", unix.MS_BIND, "")
	store := openStore(t, path)
	err := store.Save(Checkpoint{BinaryPath: "/b"})
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, "cannot replace "+path+", which is mounted as a single file: mount its directory instead: ")
	c, _, err := store.Load()
	require.NoError(t, err)
	assert.Equal(t, fullCheckpoint(), c)
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json.lock", "on-the-host.json"}, names(t, dir))
}

func TestDirectoryThatCannotBeSyncedFailsTheSave(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	require.EqualError(t, syncDir(missing), "cannot open the directory of the checkpoint: open "+missing+": no such file or directory")
	require.NoError(t, syncDir(t.TempDir()))
	err := syncDir("/proc/self/fd") // a directory that has no fsync
	require.ErrorContains(t, err, "cannot make the new name in /proc/self/fd durable: ")
	require.True(t, errors.Is(err, unix.EINVAL))
}
