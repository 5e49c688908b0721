package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/test/ptrace"
)

// openBoth opens a checkpoint and a state in a new directory.
func openBoth(t *testing.T) (store *Store, path, storage string) {
	t.Helper()
	dir := realTempDir(t)
	path, storage = filepath.Join(dir, "checkpoint.json"), filepath.Join(dir, "state")
	require.NoError(t, os.Mkdir(storage, 0o700))
	store, err := Open(path, storage)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	require.NoError(t, store.Held())
	return store, path, storage
}

// expectLost expects that each way to use the store says so, and writes nothing.
func expectLost(t *testing.T, store *Store, path, now string) *LockLostError {
	t.Helper()
	before := names(t, filepath.Dir(path))
	err := store.Held()
	var lost *LockLostError
	require.ErrorAs(t, err, &lost)
	assert.Equal(t, path, lost.Path)
	require.EqualError(t, err, "the lock "+path+" is lost: "+now)
	if path == store.storage {
		require.EqualError(t, store.SaveStamp(fullStamp()), err.Error())
	}
	require.EqualError(t, store.SaveCheckpoint(fullCheckpoint()), err.Error())
	assert.Equal(t, before, names(t, filepath.Dir(path)))
	return lost
}

func TestLockFileThatWasRemovedIsLost(t *testing.T) {
	store, path, storage := openBoth(t)
	require.NoError(t, store.SaveCheckpoint(fullCheckpoint()))
	require.NoError(t, os.Rename(path+".lock", path+".moved"))
	assert.ErrorIs(t, expectLost(t, store, path+".lock", "nothing is there now"), fs.ErrNotExist)
	_, err := store.KeepCheckpoint()
	require.ErrorAs(t, err, new(*LockLostError))

	_, err = Open(path, storage)
	var held *LockHeldError
	require.ErrorAs(t, err, &held, "the lock of the state keeps the next one away")
	assert.Equal(t, storage, held.Path)
	assert.Equal(t, os.Getpid(), held.Pid)
	expectLost(t, store, path+".lock", "another file is there now")
	require.NoError(t, os.Rename(path+".moved", path+".lock"))
	require.NoError(t, store.Held(), "it is the one that we have locked")
}

// The lock of the state is enough for that: what has happened to the state has to be recorded.
func TestStampIsWrittenWhileTheStateIsLocked(t *testing.T) {
	store, path, storage := openBoth(t)
	require.NoError(t, os.Remove(path+".lock"))
	require.Error(t, store.Held())
	require.NoError(t, store.SaveStamp(fullStamp()))
	found, err := store.LoadState()
	require.NoError(t, err)
	assert.NotNil(t, found.Stamp)
	require.NoError(t, os.Rename(storage, storage+".moved"))
	require.NoError(t, os.Mkdir(storage, 0o755))
	other := openStore(t, path+".other")
	defer other.Close()
	require.NoError(t, store.SaveStamp(fullStamp()), "another directory is locked anew")
}

func TestLockFileThatIsALinkToOursIsLost(t *testing.T) {
	store, path, _ := openBoth(t)
	require.NoError(t, os.Rename(path+".lock", path+".moved"))
	require.NoError(t, os.Symlink(path+".moved", path+".lock"))
	expectLost(t, store, path+".lock", "another file is there now")
}

// A person restores a state by a rename.
func TestStorageDirectoryThatWasReplacedIsLockedAnew(t *testing.T) {
	store, _, storage := openBoth(t)
	require.NoError(t, os.Rename(storage, storage+".aside"))
	require.NoError(t, store.Held(), "there is nothing that another one could lock")
	aside, err := Open("", storage+".aside")
	require.NoError(t, err, "what was put aside is not ours")
	require.NoError(t, aside.Close())

	require.NoError(t, os.Mkdir(storage, 0o700))
	require.NoError(t, store.Held())
	_, err = Open("", storage)
	require.ErrorAs(t, err, new(*LockHeldError))
	assert.Len(t, store.LockFiles(), 2)

	require.NoError(t, os.Rename(storage, storage+".2"))
	require.NoError(t, os.Symlink(storage+".2", storage))
	require.NoError(t, store.Held(), "the same directory by another name")
	_, err = Open("", storage+".2")
	require.ErrorAs(t, err, new(*LockHeldError))
}

func TestStorageDirectoryThatAnotherOneHasLockedIsLost(t *testing.T) {
	store, _, storage := openBoth(t)
	require.NoError(t, os.Rename(storage, storage+".aside"))
	require.NoError(t, os.Mkdir(storage, 0o700))
	other, err := Open("", storage)
	require.NoError(t, err)
	lost := expectLost(t, store, storage, fmt.Sprintf("%s is locked by the process with pid %d (%q)", storage, os.Getpid(), ourCommand(t)))
	require.ErrorAs(t, lost, new(*LockHeldError))
	require.NoError(t, other.Close())
	require.NoError(t, store.Held())
}

func TestStorageDirectoryThatAnotherOneHasMadeFirstIsHeldAndNotLost(t *testing.T) {
	dir := realTempDir(t)
	store, err := Open(filepath.Join(dir, "checkpoint.json"), filepath.Join(dir, "state"))
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.Held())
	other, err := Open(filepath.Join(dir, "other.json"), filepath.Join(dir, "state"))
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, other.SaveStamp(fullStamp()))
	for _, err := range []error{store.Held(), store.SaveStamp(fullStamp()), store.SaveCheckpoint(fullCheckpoint())} {
		assert.EqualError(t, err, fmt.Sprintf("%s is locked by the process with pid %d (%q)", dir+"/state", os.Getpid(), ourCommand(t)))
	}
}

func TestFileSystemThatCannotLockDirectoriesIsNamed(t *testing.T) {
	store, _, storage := openBoth(t)
	assert.Empty(t, store.CannotLock())
	store.cannotLock = true // no file system here is like NFS
	assert.Equal(t, storage, store.CannotLock())
}

// What took the lock of a directory may be hidden from this user, or its pid may be another process's by now.
func TestRecordOfADeadEntrypointCountsBeforeTheLockOfTheDirectory(t *testing.T) {
	dir := t.TempDir()
	path, storage, gone := filepath.Join(dir, "checkpoint.json"), filepath.Join(dir, "state"), endedPid
	require.NoError(t, os.Mkdir(storage, 0o700))
	node, err := lifeOf(startCat(t, nil).Process.Pid)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".lock", []byte(written(t, func(r *lockRecord) { r.Pid, r.Child = gone, node })), 0o600))
	taken, err := openDir(storage)
	require.NoError(t, err)
	defer taken.Close()
	require.NoError(t, unix.Flock(int(taken.Fd()), unix.LOCK_EX))
	_, err = Open(path, storage)
	var held *LockHeldError
	require.ErrorAs(t, err, &held)
	assert.True(t, held.HolderGone)
	assert.Equal(t, gone, held.Pid)
	assert.Equal(t, []Process{{Pid: node.Pid, Command: "cat"}}, held.Left)
}

// noLocks has the test binary note a child that has closed the locks, and be killed.
const noLocks = "CHECKPOINT_TEST_CHILD_WITHOUT_LOCKS"

// Python's subprocess closes every descriptor that it was not given, and so does a wrapper of the node.
func TestNodeThatClosedTheLocksIsWaitedForOnceItsEntrypointWasKilled(t *testing.T) {
	if path := os.Getenv(noLocks); path != "" {
		store, err := Open(path, filepath.Dir(path)+"/state")
		require.NoError(t, err)
		node := exec.Command("cat") //nolint:noctx // it must outlive this process
		node.Stdin = os.NewFile(3, "the test's pipe")
		require.NoError(t, node.Start())
		require.NoError(t, store.NoteChild(node.Process.Pid))
		os.Stdout.WriteString(strconv.Itoa(node.Process.Pid) + "\n")
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGKILL))
		select {} // until the signal arrives
	}
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	require.NoError(t, os.Mkdir(filepath.Dir(path)+"/state", 0o700))
	out, pid, keepsNodeAlive := killedEntrypoint(t, noLocks, path)
	node, err := strconv.Atoi(strings.TrimSpace(out))
	require.NoError(t, err)

	for range 2 { // the first one has not forgotten it
		held := refusedStore(t, path)
		host, _ := os.Hostname()
		assert.Equal(t, &LockHeldError{
			Path: path + ".lock", Pid: pid, Host: host, HolderGone: true, Left: []Process{{Pid: node, Command: "cat"}},
		}, held)
	}
	require.NoError(t, keepsNodeAlive.Close())
	require.Eventually(t, func() bool {
		store, err := Open(path, "")
		if err == nil {
			_ = store.Close()
		}
		return err == nil
	}, time.Minute, time.Millisecond)
}

func TestChildRecordSaysNothingAboutAnotherProcess(t *testing.T) {
	for name, change := range map[string]func(*lockRecord){
		"its pid is another one's now": func(r *lockRecord) { r.Child.StartTime++ },
		"before a reboot":              func(r *lockRecord) { r.BootID = "x" },
		"in another pid namespace":     func(r *lockRecord) { r.PidNamespace = "pid:[1]" },
		"without a start time":         func(r *lockRecord) { r.Child.StartTime = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			store := openStore(t, path)
			require.NoError(t, store.NoteChild(startCat(t, nil).Process.Pid))
			require.NoError(t, store.Close())
			refusedStore(t, path)
			r := recordOf(t, path)
			change(&r)
			text, err := json.Marshal(r)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+".lock", text, 0o600))
			openStore(t, path)
		})
	}
}

func TestChildThatHasEndedIsNotRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	store := openStore(t, path)
	require.NoError(t, store.NoteChild(endedPid))
	assert.Nil(t, recordOf(t, path).Child)
	zombie := exec.Command("true")
	require.NoError(t, zombie.Start())
	defer zombie.Wait()
	require.NoError(t, store.NoteChild(zombie.Process.Pid))
	require.NoError(t, store.Close())
	require.Eventually(t, func() bool {
		store, err := Open(path, "")
		if err == nil {
			_ = store.Close()
		}
		return err == nil
	}, time.Minute, time.Millisecond, "a process that only waits to be reaped has ended")

	without, err := Open("", t.TempDir())
	require.NoError(t, err)
	require.NoError(t, without.NoteChild(os.Getpid()), "there is no file for it")
	require.NoError(t, without.Close())
}

// A reader finds a whole record even while a child is noted.
func TestLockFileIsReadableAtEachMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	store := openStore(t, path)
	child := startCat(t, nil).Process.Pid
	file, err := os.Open(path + ".lock")
	require.NoError(t, err)
	defer file.Close()
	var done atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		for !done.Load() {
			r, err := readRecord(file)
			if !assert.NoError(t, err) || !assert.Equal(t, store.ID(), r.ID) {
				return
			}
		}
	})
	for i := range 2000 {
		require.NoError(t, store.NoteChild([]int{child, os.Getpid(), 1}[i%3]))
	}
	done.Store(true)
	reader.Wait()
}

// What somebody locks that only looks must not make an entrypoint give up.
func TestLookAtALockIsNoHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	ended := written(t, func(r *lockRecord) { r.Pid = endedPid })
	require.NoError(t, os.WriteFile(path+".lock", []byte(ended), 0o600))
	look, err := os.Open(path + ".lock")
	require.NoError(t, err)
	defer look.Close()
	require.NoError(t, unix.Flock(int(look.Fd()), unix.LOCK_SH))
	_, err = Open(path, "")
	var held *LockHeldError
	require.ErrorAs(t, err, &held)
	assert.Zero(t, held.Pid)
	assert.False(t, held.HolderGone)
}

func TestHolderOfAStateWithoutACheckpointIsFoundInTheKernel(t *testing.T) {
	storage := t.TempDir()
	store, err := Open("", storage)
	require.NoError(t, err)
	open := func() *LockHeldError {
		_, err := Open("", storage)
		var held *LockHeldError
		require.ErrorAs(t, err, &held)
		return held
	}
	child := startCat(t, store.LockFiles())
	assert.False(t, open().HolderGone)
	assert.Equal(t, os.Getpid(), open().Pid)
	require.NoError(t, store.Close())
	held := open()
	assert.True(t, held.HolderGone)
	assert.Equal(t, []Process{{Pid: child.Process.Pid, Command: "cat"}}, held.Left)
}

// takesLock has the test binary take a lock, for the tracer to come between its system calls.
const takesLock = "CHECKPOINT_TEST_TAKES_LOCK"

// The file is removed after it was opened and before it is locked: the next one would make and lock a new one.
func TestLockThatIsRemovedWhileItIsTakenIsTakenAnew(t *testing.T) {
	if path := os.Getenv(takesLock); path != "" {
		lock, err := takeLock(path)
		require.NoError(t, err)
		require.NoError(t, stillAt(lock, path, os.Lstat))
		return
	}
	path := filepath.Join(realTempDir(t), "lock")
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), takesLock+"="+path)
	cmd.Stdout, err = os.Create(path + ".out")
	require.NoError(t, err)
	removed := 0
	process, err := ptrace.Start(cmd, func(c *ptrace.Call) {
		if c.Name() == "flock" && !c.Exit && removed < 3 {
			assert.NoError(t, os.Remove(path))
			removed++
		}
	})
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("ptrace(2) is not permitted here: ", err)
	}
	require.NoError(t, err)
	status, err := process.Wait()
	require.NoError(t, err)
	out, _ := os.ReadFile(path + ".out")
	assert.Zero(t, status.ExitStatus(), "%s", out)
	assert.Equal(t, 3, removed)
}

// Many come at once while the lock file is removed under them: one has it.
func TestOneOfManyThatOpenAtOnceHasTheLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	for range 10 {
		var opened sync.Map
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if i%2 == 0 {
					_ = os.Remove(path + ".lock")
				}
				if store, err := Open(path, ""); err == nil {
					opened.Store(i, store)
				}
			})
		}
		all.Wait()
		holders := 0
		opened.Range(func(_, s any) bool {
			if s.(*Store).Held() == nil {
				holders++
			}
			_ = s.(*Store).Close()
			return true
		})
		assert.LessOrEqual(t, holders, 1, "the others know that they have lost it")
	}
}

// A wrapper may close what it inherited and start the node in a session of its own; then only its environment shows
// whose it is.
func TestNodeThatLeftItsGroupIsFoundByItsEnvironment(t *testing.T) {
	store, path, storage := openBoth(t)
	node := exec.Command("sleep", "1000")
	node.Env = append(os.Environ(), store.Marker())
	require.NoError(t, node.Start())
	t.Cleanup(func() { _ = node.Process.Kill(); _ = node.Wait() })
	require.NoError(t, store.NoteChild(endedPid))
	require.NoError(t, store.Close())
	for _, checkpoint := range []string{path, path + ".other", ""} {
		_, err := Open(checkpoint, storage)
		var held *LockHeldError
		require.ErrorAs(t, err, &held, checkpoint)
		assert.True(t, held.HolderGone)
		assert.Equal(t, storage, held.Path)
		assert.Equal(t, []Process{{Pid: node.Process.Pid, Command: "sleep"}}, held.Left)
	}
	other, err := Open("", t.TempDir())
	require.NoError(t, err, "another state")
	require.NoError(t, other.Close())
	require.NoError(t, node.Process.Kill())
	_ = node.Wait()
	next, err := Open(path, storage)
	require.NoError(t, err)
	require.NoError(t, next.Close())
}
