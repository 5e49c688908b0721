package checkpoint

import (
	"encoding/json"
	"fmt"
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

	"rollup-entrypoint/internal/procfs"
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

// endedPid is a pid that no process has: PID_MAX_LIMIT of the kernel. That of a process that has ended may be used again.
const endedPid = 1 << 22

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
	assert.Equal(t, path, store.path)
	r := recordOf(t, path)
	host, _ := os.Hostname()
	self, err := procfs.Read(procfs.Root, os.Getpid())
	require.NoError(t, err)
	assert.Equal(t, lockRecord{life: life{os.Getpid(), self.Start}, Host: host, system: thisSystem(), ID: store.ID()}, r)
	assert.NotEmpty(t, r.BootID)
	assert.Contains(t, r.PidNamespace, "pid:[")
	require.NoError(t, store.Close())
	assert.NotEqual(t, r.ID, openStore(t, path).ID(), "each start has an id of its own")
}

// recordOf reads the lock file of the checkpoint at path as any JSON reader does.
func recordOf(t *testing.T, path string) lockRecord {
	t.Helper()
	text, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)
	var r lockRecord
	require.NoError(t, json.Unmarshal(text, &r), "%s", text)
	return r
}

// written is the text of a lock file. Changes are made to what this process would write.
func written(t *testing.T, change func(*lockRecord)) string {
	t.Helper()
	r := newRecord("")
	change(&r)
	text, err := json.Marshal(r)
	require.NoError(t, err)
	return string(text)
}

// The lock is held by a process that inherited it from this one, which has no share of it any more: only what is
// written says who took it.
func TestHolderIsKnownToBeGoneOnlyWhereItsPidMeansSomething(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	gone, parent := endedPid, os.Getppid()
	for _, test := range []struct {
		name, text string
		want       LockHeldError // without Path and Left
		message    string        // after the path
	}{
		{
			"ended", written(t, func(r *lockRecord) { r.Pid = gone }),
			LockHeldError{Pid: gone, Host: host, HolderGone: true},
			" is in use: the entrypoint with pid " + strconv.Itoa(gone) + " has ended, but a node or migration that it started is still running: pid ",
		},
		{
			"ended, and its pid is another one's now", written(t, func(r *lockRecord) { r.Pid, r.StartTime = parent, 1 }),
			LockHeldError{Pid: parent, Host: host, HolderGone: true},
			" is in use: the entrypoint with pid " + strconv.Itoa(parent) + " has ended",
		},
		{
			"ended, of an earlier release", `{"pid":` + strconv.Itoa(gone) + `,"host":"` + host + `"}`,
			LockHeldError{Pid: gone, Host: host, HolderGone: true},
			" is in use: the entrypoint with pid " + strconv.Itoa(gone) + " has ended",
		},
		{
			"alive", written(t, func(r *lockRecord) {}),
			LockHeldError{Pid: os.Getpid(), Host: host},
			" is locked by the entrypoint with pid " + strconv.Itoa(os.Getpid()) + ` on host "` + host + `"`,
		},
		{
			"alive, of an earlier release", `{"pid":` + strconv.Itoa(parent) + `,"host":"` + host + `"}`,
			LockHeldError{Pid: parent, Host: host},
			" is locked by the entrypoint with pid " + strconv.Itoa(parent) + ` on host "` + host + `"`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			child := inherits(t, path)
			require.NoError(t, os.WriteFile(path+".lock", []byte(test.text), 0o600)) // keeps the inode, and so the lock
			held := refusedStore(t, path)
			assert.Contains(t, held.Error(), path+".lock"+test.message)
			if test.want.HolderGone {
				assert.Equal(t, []Process{{Pid: child, Command: "cat"}}, held.Left)
			}
			held.Path, held.Left = "", nil
			assert.Equal(t, &test.want, held)
		})
	}
}

// inherits has a process that inherited the lock of path, and gives its pid. We have no share of the lock.
func inherits(t *testing.T, path string) int {
	t.Helper()
	store, err := Open(path, "")
	require.NoError(t, err)
	defer store.Close()
	return startCat(t, store.LockFiles()).Process.Pid
}

// startCat starts a process that lives until the end of the test or of its input.
func startCat(t *testing.T, files []*os.File) *exec.Cmd {
	t.Helper()
	cat := exec.Command("cat")
	cat.ExtraFiles = files
	stdin, err := cat.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cat.Start())
	t.Cleanup(func() { _, _ = stdin.Close(), cat.Wait() })
	return cat
}

// What is written says nothing about the pid here. If the kernel does not name the holder either, nothing is known.
func TestHolderInAnotherContainerIsNotJudged(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	gone := endedPid
	inContainer := func(host string) string {
		return written(t, func(r *lockRecord) { r.Pid, r.Host, r.PidNamespace = gone, host, "pid:[1]" })
	}
	unknown := " is locked by another process"
	for _, test := range []struct {
		name, text, message string
		want                LockHeldError
	}{
		{"in another container", inContainer("box"), ` is locked by the entrypoint with pid ` + strconv.Itoa(gone) + ` on host "box"`, LockHeldError{Pid: gone, Host: "box"}},
		{"in another container with our host's name", inContainer(host), unknown + `, which may be in another container on host "` + host + `"`, LockHeldError{Host: host}},
		{
			"before a reboot", written(t, func(r *lockRecord) { r.Pid, r.BootID = gone, "x" }),
			unknown + `, which may be in another container on host "` + host + `"`,
			LockHeldError{Host: host},
		},
		{"of an earlier release on another host", `{"pid":` + strconv.Itoa(gone) + `,"host":"box"}`, ` is locked by the entrypoint with pid ` + strconv.Itoa(gone) + ` on host "box"`, LockHeldError{Pid: gone, Host: "box"}},
		{"negative pid", `{"pid":-1,"host":"` + host + `"}`, unknown, LockHeldError{}},
		{"a pid that kill(2) would cut off", `{"pid":4294967297,"host":"` + host + `"}`, unknown, LockHeldError{}},
		{"empty", "", unknown, LockHeldError{}},
		{"foreign", "locked by somebody\n", unknown, LockHeldError{}},
		{"longer than any of ours", `{"host":"` + strings.Repeat("x", recordSize) + `","pid":7}`, unknown, LockHeldError{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file, err := os.Create(filepath.Join(t.TempDir(), "lock"))
			require.NoError(t, err)
			defer file.Close()
			_, err = file.WriteString(test.text)
			require.NoError(t, err)
			r, _ := readRecord(file)
			held := whoHolds(file, r) // which nobody has, so the kernel knows nothing
			assert.Equal(t, file.Name()+test.message, held.Error())
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

// killedEntrypoint runs the test again, with the variable, as an entrypoint that starts a node and is killed. It gives what
// that has written, its pid, and the other end of descriptor 3, by which the node lives.
func killedEntrypoint(t *testing.T, variable, path string) (out string, pid int, keepsNodeAlive *os.File) {
	t.Helper()
	nodeInput, keepsNodeAlive, err := os.Pipe()
	require.NoError(t, err)
	defer nodeInput.Close()
	self, err := os.Executable()
	require.NoError(t, err)
	entrypoint := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
	entrypoint.Env = append(os.Environ(), variable+"="+path)
	entrypoint.ExtraFiles = []*os.File{nodeInput}
	text, err := entrypoint.Output()
	require.ErrorContains(t, err, "killed")
	return string(text), entrypoint.Process.Pid, keepsNodeAlive
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
	out, pid, keepsNodeAlive := killedEntrypoint(t, holdLockVariable, path)
	require.Contains(t, out, "holds")

	held := refusedStore(t, path)
	assert.Equal(t, pid, held.Pid)
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
		assert.Empty(t, store.path)
		require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}))
		kept, err := store.KeepCheckpoint()
		require.NoError(t, err)
		assert.Empty(t, kept)
		require.NoError(t, store.Close())
	}
	assert.Empty(t, names(t, storage), "the lock is no file")
}

// ourCommand is the name of this process.
func ourCommand(t *testing.T) string {
	t.Helper()
	self, err := procfs.Read(procfs.Root, os.Getpid())
	require.NoError(t, err)
	return self.Command
}

// Any program can lock the file, and only what an entrypoint wrote shows that one did.
func TestLockOfAnotherProgramIsNotCalledAnEntrypoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	for name, text := range map[string]string{"empty": "", "of an entrypoint that has ended": written(t, func(r *lockRecord) { r.Pid = endedPid })} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path+".lock", []byte(text), 0o600))
			lock, err := os.Open(path + ".lock")
			require.NoError(t, err)
			require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
			held := refusedStore(t, path)
			assert.EqualError(t, held, fmt.Sprintf("%s.lock is locked by the process with pid %d (%q)", path, os.Getpid(), ourCommand(t)))
			assert.False(t, held.HolderGone)
			require.NoError(t, lock.Close())
		})
	}
	assert.EqualError(t, &LockHeldError{Path: "/state", HolderGone: true, Left: []Process{{Pid: 7, Command: "cat"}}},
		`/state is in use: the process that locked it has ended, but what it started is still running: pid 7 ("cat")`)
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
		assert.Equal(t, LockHeldError{Path: storage, Pid: os.Getpid(), Command: ourCommand(t)}, *held)
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
	require.ErrorIs(t, os.WriteFile(filepath.Join(dir, ".checkpoint.json.1.tmp"), make([]byte, 1<<20), 0o600), unix.ENOSPC)
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
		r, foreign := readRecord(lock)
		got := whoHolds(lock, r)
		if got.Path != lock.Name() || !strings.Contains(got.Error(), lock.Name()) {
			t.Fatalf("%+v does not name %s", got, lock.Name())
		}
		if got.Pid == 0 || foreign != nil {
			if got.HolderGone {
				t.Fatalf("nobody is gone: %+v of %q", got, text)
			}
			return
		}
		var h lockRecord
		err := json.Unmarshal([]byte(text), &h)
		if err != nil || h.Pid != got.Pid || h.Host != got.Host || h.Pid < 1 {
			t.Fatalf("%+v was read of %q", got, text)
		}
		const pidLimit = 1 << 22 // of Linux
		here := h.Host == host && h.BootID == "" || h.BootID != "" && h.system == thisSystem()
		lives := h.StartTime == 0 && (h.Pid == os.Getpid() || h.Pid == 1)
		if got.HolderGone && (!here || lives) || !got.HolderGone && here && h.Pid > pidLimit {
			t.Fatalf("gone %t, and it is process %d on %q", got.HolderGone, h.Pid, h.Host)
		}
	})
}
