package checkpoint

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openStore opens the checkpoint at path, with no storage directory, and gives it back at the end of the test.
func openStore(t *testing.T, path string) *Store {
	t.Helper()
	store, err := Open(path, "")
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// refusedStore expects that the lock of path is held.
func refusedStore(t *testing.T, path string) *LockHeldError {
	t.Helper()
	store, err := Open(path, "")
	require.Nil(t, store)
	var held *LockHeldError
	require.ErrorAs(t, err, &held)
	seen, err := Holder(LockPath(path))
	require.NoError(t, err)
	require.Equal(t, held, seen, "who only looks sees the same")
	return held
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

	require.NoError(t, first.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}), "the refused one has changed nothing")
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
			" is locked: the entrypoint with pid " + strconv.Itoa(gone) + " has ended, but a node or migration that it started is still running",
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
	child.ExtraFiles = store.LockFiles()
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
const holdLockVariable = "CHECKPOINT_TEST_HOLDS_LOCK"

func TestLockOfAKilledEntrypointNamesTheNodeThatSurvived(t *testing.T) {
	if path := os.Getenv(holdLockVariable); path != "" {
		store, err := Open(path, "")
		require.NoError(t, err)
		node := exec.Command("cat") //nolint:noctx // it must outlive this process
		node.Stdin = os.NewFile(3, "the test's pipe")
		node.ExtraFiles = store.LockFiles()
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
	assert.ErrorContains(t, held, "has ended, but a node or migration that it started is still running")

	require.NoError(t, keepsNodeAlive.Close()) // the node ends; nobody here is its parent, so it is not waited for
	require.Eventually(t, func() bool {
		store, err := Open(path, "")
		if err == nil {
			_ = store.Close()
		}
		return err == nil
	}, time.Minute, time.Millisecond)
}

func TestStoreWithoutACheckpointFileHasTheLockOfTheStateAlone(t *testing.T) {
	storage := t.TempDir()
	for range 2 {
		store, err := Open("", storage)
		require.NoError(t, err)
		assert.Len(t, store.LockFiles(), 1)
		assert.Empty(t, store.Path())
		require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}))
		kept, err := store.KeepCheckpoint()
		require.NoError(t, err)
		assert.Empty(t, kept)
		require.NoError(t, store.Close())
	}
	assert.Empty(t, names(t, storage), "the lock is no file")
}

// Two checkpoints, or one and none, for one state: the second entrypoint is kept away all the same.
func TestOneStateHasOneHolder(t *testing.T) {
	dir := t.TempDir()
	storage := filepath.Join(dir, "state")
	first, err := Open(filepath.Join(dir, "a.json"), storage)
	require.NoError(t, err)
	assert.Len(t, first.LockFiles(), 1, "there is no directory yet")
	late, err := Open("", storage)
	require.NoError(t, err)
	require.NoError(t, first.SaveStamp(Stamp{Name: "v0"}))
	assert.Len(t, first.LockFiles(), 2)

	var held *LockHeldError
	require.ErrorAs(t, late.SaveStamp(Stamp{Name: "v0"}), &held, "it came while there was nothing to lock")
	for _, path := range []string{"", filepath.Join(dir, "b.json")} {
		_, err := Open(path, storage)
		require.ErrorAs(t, err, &held)
		assert.Equal(t, LockHeldError{Path: storage}, *held)
	}
	require.NoError(t, first.Close())
	second, err := Open(filepath.Join(dir, "b.json"), storage)
	require.NoError(t, err)
	require.NoError(t, second.Close())
}

func TestLookingAtALockTakesAndMakesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	held, err := Holder(LockPath(path))
	require.NoError(t, err)
	assert.Nil(t, held)
	assert.Empty(t, names(t, dir))

	store := openStore(t, path)
	require.NoError(t, store.Close())
	for range 2 {
		held, err = Holder(LockPath(path))
		require.NoError(t, err)
		assert.Nil(t, held, "a free lock")
	}
	openStore(t, path)
	assert.Equal(t, os.Getpid(), refusedStore(t, path).Pid)
}

func TestLockThatMayNotBeTakenIsAnError(t *testing.T) {
	dir := t.TempDir()
	_, err := Holder(filepath.Join(dir, "missing/../lock"))
	require.NoError(t, err, "there is none")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o444))
	_, err = Holder(file + "/lock")
	require.EqualError(t, err, "cannot open the lock of the checkpoint: open "+file+"/lock: not a directory")
	asNobody(t, dir, func() {
		_, err = Holder(file)
		require.EqualError(t, err, file+" cannot be written by user "+strconv.Itoa(os.Getuid())+": permission denied")
	})
}

func TestStoreInAMissingDirectoryIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	_, err := Open(filepath.Join(dir, "checkpoint.json"), "")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "cannot open the lock of the checkpoint: open "+dir+"/checkpoint.json.lock: no such file or directory")
	_, err = os.Stat(dir)
	require.ErrorIs(t, err, fs.ErrNotExist, "a volume that is not mounted is not made up")
}

func TestFullVolumeRefusesTheLock(t *testing.T) {
	dir := t.TempDir()
	mountOrSkip(t, "none", dir, "tmpfs", 0, "size=64k")
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600), unix.ENOSPC)
	path := filepath.Join(dir, "checkpoint.json")
	for range 2 { // the second one finds the lock free
		_, err := Open(path, "")
		require.ErrorIs(t, err, unix.ENOSPC)
		require.ErrorContains(t, err, "cannot write the lock of the checkpoint: ")
	}
}

func TestVolumeThatLeftoversHaveFilledIsOpened(t *testing.T) {
	dir := t.TempDir()
	mountOrSkip(t, "none", dir, "tmpfs", 0, "size=64k")
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, ".checkpoint.json1"), make([]byte, 1<<20), 0o600), unix.ENOSPC)
	openStore(t, filepath.Join(dir, "checkpoint.json"))
}

// A lock file that somebody else wrote is no holder; of one of ours it is known whether its writer is alive.
func FuzzLockHolder(f *testing.F) {
	host, err := os.Hostname()
	if err != nil {
		f.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(f.TempDir(), "checkpoint.json.lock"))
	if err != nil {
		f.Fatal(err)
	}
	defer lock.Close()
	for _, seed := range []string{
		"", `{"pid":1,"host":"@"}`, `{"pid":1234567890,"host":"@"}`, `{"pid":7,"host":"elsewhere"}`, `{"pid":-1,"host":"@"}`,
		`{"pid":4294967297,"host":"@"}`, `{"pid":"1"}`, `{"pid":1,"host":"@"}{`, "\x00\x00\x00", `{"PID":0,"host":null}`, "4711\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ReplaceAll(text, "@", host)
		if err := lock.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := lock.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		got := readHolder(lock)
		if got.Path != lock.Name() || !strings.Contains(got.Error(), lock.Name()) {
			t.Fatalf("%+v does not name %s", got, lock.Name())
		}
		if got.Pid == 0 {
			if got.HolderGone {
				t.Fatalf("nobody is gone: %+v of %q", got, text)
			}
			return
		}
		var h holder
		err := json.Unmarshal([]byte(text[:min(256, len(text))]), &h)
		if err != nil || h.Pid != got.Pid || h.Host != got.Host || h.Pid < 1 {
			t.Fatalf("%+v was read of %q", got, text)
		}
		const pidLimit = 1 << 22 // of Linux
		lives := h.Pid == os.Getpid() || h.Pid == 1
		if got.HolderGone && (h.Host != host || lives) || !got.HolderGone && h.Host == host && h.Pid > pidLimit {
			t.Fatalf("gone %t, and it is process %d on %q", got.HolderGone, h.Pid, h.Host)
		}
	})
}
