package checkpoint

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
)

// recordFile is one of the two files, for tests that hold for both of them. Each has a directory for itself.
type recordFile struct {
	name, file string
	// text is a good one.
	text string
	open func(dir string) (*Store, error)
	read func(dir string) (Found, error)
	// save writes the version with the index, and index gives that of what was read, -1 for none.
	save  func(s *Store, index int) error
	index func(Found) int
}

var recordFiles = []recordFile{
	{
		"checkpoint", "checkpoint.json", fullText,
		func(dir string) (*Store, error) { return Open(dir+"/checkpoint.json", "") },
		func(dir string) (Found, error) { return Read(dir+"/checkpoint.json", "") },
		func(s *Store, index int) error {
			c := fullCheckpoint()
			c.VersionIndex += index
			return s.SaveCheckpoint(c)
		},
		func(found Found) int {
			if found.Checkpoint == nil {
				return -1
			}
			return found.Checkpoint.VersionIndex - fullCheckpoint().VersionIndex
		},
	},
	{
		"stamp", StampFile, stampText,
		func(dir string) (*Store, error) { return Open("", dir) },
		func(dir string) (Found, error) { return Read("", dir) },
		func(s *Store, index int) error { return s.SaveStamp(Stamp{VersionIndex: index, Name: "v"}) },
		func(found Found) int {
			if found.Stamp == nil {
				return -1
			}
			return found.Stamp.VersionIndex
		},
	},
}

// forBoth runs a test for each of the two files. opened opens the record in dir and closes it at the end of the test.
func forBoth(t *testing.T, test func(t *testing.T, f recordFile, opened func(t *testing.T, dir string) *Store)) {
	t.Helper()
	for _, f := range recordFiles {
		t.Run(f.name, func(t *testing.T) {
			test(t, f, func(t *testing.T, dir string) *Store {
				t.Helper()
				store, err := f.open(dir)
				require.NoError(t, err)
				t.Cleanup(func() { _ = store.Close() })
				return store
			})
		})
	}
}

// holds is the index of what is read in dir.
func (f recordFile) holds(t *testing.T, dir string) int {
	t.Helper()
	found, err := f.read(dir)
	require.NoError(t, err)
	return f.index(found)
}

// left is what a save leaves in its directory.
func (f recordFile) left(more ...string) []string {
	all := append(more, f.file)
	if f.name == "checkpoint" {
		all = append(all, f.file+".lock")
	}
	slices.Sort(all)
	return all
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

func TestSaveIsReadBack(t *testing.T) {
	dir := t.TempDir()
	store, err := Open(dir+"/checkpoint.json", dir+"/state")
	require.NoError(t, err)
	defer store.Close()
	stamp := fullStamp()
	for _, c := range []Checkpoint{{BinaryPath: "/v0"}, fullCheckpoint(), {VersionIndex: 3, BinaryPath: "/v3", Phase: PhaseFinished}} {
		stamp.VersionIndex++
		require.NoError(t, store.SaveStamp(stamp))
		require.NoError(t, store.SaveCheckpoint(c))
		found, err := store.Load()
		require.NoError(t, err)
		assert.Equal(t, &c, found.Checkpoint)
		assert.Equal(t, &stamp, found.Stamp)
		assert.Equal(t, StateNone, found.State, "a stamp is no state")
		unlocked, err := Read(dir+"/checkpoint.json", dir+"/state")
		require.NoError(t, err)
		assert.Equal(t, found, unlocked)
	}
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json.lock", "state"}, names(t, dir), "no temporary file is left")
	assert.Equal(t, []string{StampFile}, names(t, dir+"/state"), "no temporary file is left")
}

func TestSaveKeepsThePermissions(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
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
				dir := t.TempDir()
				path := filepath.Join(dir, f.file)
				if test.before != 0 {
					require.NoError(t, os.WriteFile(path, nil, test.before))
					require.NoError(t, os.Chmod(path, test.before))
				}
				require.NoError(t, f.save(opened(t, dir), 1))
				info, err := os.Stat(path)
				require.NoError(t, err)
				assert.Equal(t, test.want, info.Mode())
			})
		}
	})
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
			dir := realTempDir(t)
			require.NoError(t, os.MkdirAll(dir+"/volume/deep", 0o700))
			require.NoError(t, os.Symlink("volume/deep", dir+"/elsewhere")) // and ".." from there is volume
			require.NoError(t, os.Symlink("checkpoint.json", dir+"/volume/other"))
			target, link := dir+"/volume/checkpoint.json", dir+"/link"
			require.NoError(t, os.Symlink(test.link(dir), link))
			if test.exists {
				require.NoError(t, os.WriteFile(target, []byte(fullText), 0o600))
			}
			store := openStore(t, link)
			assert.Equal(t, target, store.path)
			assert.Equal(t, target+".lock", LockPath(link))
			refusedStore(t, target) // it is one lock, by whatever name
			require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}))

			info, err := os.Lstat(link)
			require.NoError(t, err)
			assert.Equal(t, fs.ModeSymlink, info.Mode().Type(), "the link is still a link")
			info, err = os.Lstat(target)
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular())
			found, err := Read(link, "")
			require.NoError(t, err)
			assert.Equal(t, &Checkpoint{BinaryPath: "/b"}, found.Checkpoint)
		})
	}
}

func TestStoreFindsItsDirectoryAsTheKernelDoes(t *testing.T) {
	dir := realTempDir(t)
	require.NoError(t, os.MkdirAll(dir+"/volume/deep", 0o700))
	require.NoError(t, os.Symlink("volume/deep", dir+"/link"))
	t.Chdir(dir)
	for _, test := range []struct{ name, path, want string }{
		{"relative", "checkpoint.json", dir + "/checkpoint.json"},
		{"below", "./volume/checkpoint.json", dir + "/volume/checkpoint.json"},
		{"through a linked directory", "link/checkpoint.json", dir + "/volume/deep/checkpoint.json"},
		{"up from a linked directory", "link/../checkpoint.json", dir + "/volume/checkpoint.json"},
		{"absolute", dir + "/link/../checkpoint.json", dir + "/volume/checkpoint.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := openStore(t, test.path)
			assert.Equal(t, test.want, store.path)
			require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: test.name}))
			found, err := Read(test.path, "")
			require.NoError(t, err)
			assert.Equal(t, test.name, found.Checkpoint.BinaryPath)
		})
	}
}

func TestLeftoversOfKilledWritesAreRemovedAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	require.NoError(t, os.Mkdir(dir, 0o700))
	leftovers := []string{".check?[x].1.tmp", ".check?[x].9223372036854775807.tmp"}
	kept := []string{
		".check?[x]20261130", ".check?[x].tmp", ".check?[x]..tmp", ".check?[x]1.tmp", ".check?[x].1", ".check?[x].1a.tmp", ".check?[x].-1.tmp",
		".check?[x].1.tmp.bak", ".checkab[x].1.tmp", ".check?x.1.tmp", ".other.1.tmp", "check?[x].1.tmp",
	}
	for _, name := range slices.Concat(leftovers, kept) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".check?[x].77.tmp"), 0o700))
	require.NoError(t, os.Symlink("check", filepath.Join(dir, ".check?[x].78.tmp")))
	store := openStore(t, filepath.Join(dir, "check?[x]"))
	assert.ElementsMatch(t, append(kept, ".check?[x].77.tmp", ".check?[x].78.tmp", "check?[x].lock"), names(t, dir))
	require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}))
}

func TestSaveThatIsKilledLeavesTheOldFile(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
		// The moment just before the rename: the temporary file is there, half written.
		dir := t.TempDir()
		store := opened(t, dir)
		require.NoError(t, f.save(store, 1))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "."+f.file+".4711.tmp"), []byte(f.text[:40]), 0o600))
		require.NoError(t, store.Close())

		store = opened(t, dir)
		assert.Equal(t, 1, f.holds(t, dir))
		require.NoError(t, f.save(store, 2))
		assert.Equal(t, f.left(), names(t, dir))
	})
}

func TestStampIsTheFirstFileOfAMissingDirectory(t *testing.T) {
	dir := realTempDir(t)
	require.NoError(t, os.Mkdir(dir+"/volume", 0o700))
	require.NoError(t, os.Symlink("volume/rollup/state", dir+"/link"))
	for _, storage := range []string{dir + "/deep/down/state", dir + "/volume/state/", dir + "/volume/rollup"} {
		store, err := Open("", storage)
		require.NoError(t, err)
		require.NoError(t, store.SaveStamp(fullStamp()))
		assert.Equal(t, []string{StampFile}, names(t, storage))
	}
	store, err := Open("", dir+"/link") // which leads to a directory that is missing
	require.NoError(t, err)
	require.NoError(t, store.SaveStamp(fullStamp()))
	assert.Equal(t, []string{StampFile}, names(t, dir+"/volume/rollup/state"))
}

func TestStampIsNotSavedWhereNoStateCanBe(t *testing.T) {
	dir := realTempDir(t)
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	for storage, want := range map[string]string{
		"":                    "cannot write a stamp: it is not known where the state is",
		dir + "/file":         "cannot make the storage directory: mkdir " + dir + "/file: file exists",
		dir + "/file/state":   "cannot make the storage directory: mkdir " + dir + "/file: file exists",
		"/proc/self/no/state": "cannot make the storage directory: mkdir ",
	} {
		store, err := Open("", storage)
		require.NoError(t, err)
		require.ErrorContains(t, store.SaveStamp(fullStamp()), want)
	}
}

func TestCheckpointIsKeptAsItIs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	store := openStore(t, path)
	kept, err := store.KeepCheckpoint()
	require.NoError(t, err)
	assert.Empty(t, kept, "there is nothing to keep")

	var all []string
	for _, content := range []string{fullText, "torn", "torn again"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		kept, err := store.KeepCheckpoint()
		require.NoError(t, err)
		assert.Regexp(t, "^"+regexp.QuoteMeta(path)+`\.before-\d{8}T\d{6}Z(-\d+)?$`, kept)
		assert.NotContains(t, all, kept)
		all = append(all, kept)
		require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}))
		text, err := os.ReadFile(kept)
		require.NoError(t, err)
		assert.Equal(t, content, string(text))
		info, err := os.Stat(kept)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode(), "what was private stays private")
	}
	assert.Len(t, names(t, dir), 2+len(all), "no temporary file is left")

	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err = store.KeepCheckpoint()
	require.EqualError(t, err, "cannot keep a copy of the checkpoint: open "+path+": it is an empty directory, want a regular file: Docker makes one if the source of a bind mount is missing on the host")
}

func TestStateIsMadeDurable(t *testing.T) {
	dir := t.TempDir()
	store, err := Open("", dir)
	require.NoError(t, err)
	require.NoError(t, store.SyncState())
	require.NoError(t, os.Remove(dir))
	require.ErrorContains(t, store.SyncState(), "cannot make the state durable: open "+dir)
	require.NoError(t, openStore(t, t.TempDir()+"/c.json").SyncState(), "where it is not known, all file systems are synced")
}

func TestReadersNeverSeeATornFileWhileSavesRun(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
		dir := t.TempDir()
		store := opened(t, dir)
		require.NoError(t, f.save(store, 1))
		done := make(chan struct{})
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					found, err := f.read(dir)
					if !assert.NoError(t, err) || !assert.Contains(t, []int{1, 12345}, f.index(found)) {
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
			require.NoError(t, f.save(store, 12345)) // a longer text
			require.NoError(t, f.save(store, 1))
		}
		close(done)
		readers.Wait()
	})
}

func TestDirectoryInsteadOfAFileIsReplacedByNothing(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
		dir := t.TempDir()
		path := filepath.Join(dir, f.file)
		require.NoError(t, os.Mkdir(path, 0o700))
		require.ErrorContains(t, f.save(opened(t, dir), 1), "cannot replace "+path+": rename ")
		assert.Equal(t, f.left(), names(t, dir), "no temporary file is left")
	})
}

func TestDirectoryThatVanishesFailsTheSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.Mkdir(dir, 0o700))
	store := openStore(t, filepath.Join(dir, "checkpoint.json"))
	require.NoError(t, os.RemoveAll(dir))
	require.EqualError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}), "the lock "+dir+"/checkpoint.json.lock is lost: nothing is there now")
}

func TestReadOnlyVolumeIsRefused(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
		dir := t.TempDir()
		mountOrSkip(t, "none", dir, "tmpfs", 0, "size=1m")
		store := opened(t, dir)
		require.NoError(t, f.save(store, 1))
		require.NoError(t, store.Close()) // a file that is open for writing keeps a mount from becoming read-only
		require.NoError(t, unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))

		if f.name == "checkpoint" {
			_, err := f.open(dir)
			require.ErrorIs(t, err, unix.EROFS)
			require.ErrorContains(t, err, "cannot open the lock of the checkpoint: open ")
		}
		unlocked := locate(store.path, store.storage)
		err := f.save(unlocked, 2)
		require.ErrorIs(t, err, unix.EROFS)
		require.ErrorContains(t, err, "cannot write beside "+filepath.Join(dir, f.file))
		assert.Equal(t, 1, f.holds(t, dir))
	})
}

func TestFullVolumeKeepsTheOldFile(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
		dir := t.TempDir()
		mountOrSkip(t, "none", dir, "tmpfs", 0, "size=64k")
		store := opened(t, dir)
		require.NoError(t, f.save(store, 1))
		ballast := filepath.Join(dir, "ballast")
		require.ErrorIs(t, os.WriteFile(ballast, make([]byte, 1<<20), 0o600), unix.ENOSPC)

		err := f.save(store, 2)
		require.ErrorIs(t, err, unix.ENOSPC)
		require.ErrorContains(t, err, "cannot write beside "+filepath.Join(dir, f.file))
		assert.Equal(t, f.left("ballast"), names(t, dir), "no temporary file is left")
		assert.Equal(t, 1, f.holds(t, dir), "the old file is whole")

		require.NoError(t, os.Remove(ballast))
		require.NoError(t, f.save(store, 2), "with space again it works")
		assert.Equal(t, 2, f.holds(t, dir))
	})
}

func TestCheckpointMountedAsASingleFileIsExplained(t *testing.T) {
	dir := t.TempDir()
	source, path := filepath.Join(dir, "on-the-host.json"), filepath.Join(dir, "checkpoint.json")
	require.NoError(t, os.WriteFile(source, []byte(fullText), 0o600))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	mountOrSkip(t, source, path, "", unix.MS_BIND, "")
	store := openStore(t, path)
	err := store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"})
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, "cannot replace "+path+", which is mounted as a single file: mount its directory instead: ")
	found, err := store.Load()
	require.NoError(t, err)
	assert.Equal(t, fullCheckpoint(), *found.Checkpoint)
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json.lock", "on-the-host.json"}, names(t, dir))
}

func TestDirectoryThatCannotBeSyncedFailsTheSave(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	require.EqualError(t, durable.SyncDir(missing), "cannot open the directory to make a name in it durable: open "+missing+": no such file or directory")
	require.NoError(t, durable.SyncDir(t.TempDir()))
	err := durable.SyncDir("/proc/self/fd") // a directory that has no fsync
	require.ErrorContains(t, err, "cannot make a name in /proc/self/fd durable: ")
	require.ErrorIs(t, err, unix.EINVAL)
}

func TestNothingIsWrittenThatCouldNotBeReadBack(t *testing.T) {
	forBoth(t, func(t *testing.T, f recordFile, opened func(*testing.T, string) *Store) {
		dir := t.TempDir()
		store := opened(t, dir)
		require.NoError(t, f.save(store, 1))
		require.ErrorContains(t, f.save(store, -10), "want 0 or more")
		assert.Equal(t, 1, f.holds(t, dir))
		assert.False(t, strings.HasPrefix(names(t, dir)[0], "."), "no temporary file is left")
	})
}

// saveVariable has the test binary save a stamp and a checkpoint, for strace to look at.
const saveVariable = "CHECKPOINT_TEST_SAVES"

// Nothing else shows the order without which a power cut takes the file along: the content, the name, the name's own
// durability. And a temporary file in another place could be on another file system.
func TestSaveSyncsTheFileBeforeTheRenameAndTheDirectoryAfterIt(t *testing.T) {
	if dir := os.Getenv(saveVariable); dir != "" {
		store, err := Open(dir+"/checkpoint.json", dir+"/state")
		require.NoError(t, err)
		require.NoError(t, store.SaveStamp(fullStamp()))
		require.NoError(t, store.SaveCheckpoint(fullCheckpoint()))
		require.NoError(t, store.SyncState())
		return
	}
	dir := realTempDir(t)
	calls := straced(t, saveVariable+"="+dir, "mkdir,mkdirat,fsync,fdatasync,rename,renameat,renameat2,syncfs")
	// A test binary that counts its coverage renames the file of the counts at its end.
	calls = slices.DeleteFunc(calls, func(call string) bool { return !strings.Contains(call, dir) })
	root, state := regexp.QuoteMeta(dir), regexp.QuoteMeta(dir+"/state")
	stamp, checkpoint := state+`/\.rollup-version\.json\.\d+\.tmp`, root+`/\.checkpoint\.json\.\d+\.tmp`
	want := []string{
		`mkdir.*"` + state + `"`,
		`fsync\(\d+<` + root + `>`,
		`fsync\(\d+<` + stamp + `>`,
		`rename.*"` + stamp + `".*"` + state + `/rollup-version\.json"`,
		`fsync\(\d+<` + state + `>`,
		`fsync\(\d+<` + checkpoint + `>`,
		`rename.*"` + checkpoint + `".*"` + root + `/checkpoint\.json"`,
		`fsync\(\d+<` + root + `>`,
		`syncfs\(\d+<` + state + `>`,
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
		if call = strings.TrimSpace(call); !strings.HasPrefix(call, "<... ") { // the end of a call whose beginning was listed before
			made = append(made, call)
		}
	}
	return made
}
