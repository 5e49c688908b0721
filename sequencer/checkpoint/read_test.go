package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// writeFiles writes files into dir by their paths in it; a name that ends with a slash is a directory.
func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if strings.HasSuffix(name, "/") {
			require.NoError(t, os.MkdirAll(path, 0o755))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
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

// asNobody has do, which works in the test's directory dir, look at files as a user without rights.
func asNobody(t *testing.T, dir string, do func()) {
	t.Helper()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // that of all directories of the test
	if os.Getuid() == 0 {
		runtime.LockOSThread() // the user is one of the thread
		defer runtime.UnlockOSThread()
		require.NoError(t, unix.Setfsuid(65534))
		defer func() { assert.NoError(t, unix.Setfsuid(0)) }()
	}
	do()
}

// realTempDir is a new directory by the path that has no symbolic links in it.
func realTempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}

func TestBothFilesAreFound(t *testing.T) {
	dir := realTempDir(t)
	writeFiles(t, dir, map[string]string{"meta/c.json": fullText, "state/rollup-version.json": stampText, "state/db/x": "", "empty/": ""})
	c, stamp := fullCheckpoint(), Stamp{VersionIndex: 1, Name: "osaka", StartHeight: 101, Hook: true}
	for _, test := range []struct {
		name, path, storage string
		want                Found
	}{
		{"both", "/meta/c.json", "/state", Found{&c, &stamp, dir + "/state", StatePresent}},
		{"no checkpoint", "/meta/none.json", "/state", Found{nil, &stamp, dir + "/state", StatePresent}},
		{"no directory of a checkpoint", "/none/c.json", "/state", Found{nil, &stamp, dir + "/state", StatePresent}},
		{"no state", "/meta/c.json", "/empty", Found{&c, nil, dir + "/empty", StateNone}},
		{"no directory of a state", "/meta/c.json", "/none/at/all", Found{&c, nil, dir + "/none/at/all", StateNone}},
		{"no stamp", "/meta/c.json", "/state/db", Found{&c, nil, dir + "/state/db", StatePresent}},
		{"neither", "/none.json", "/none", Found{nil, nil, dir + "/none", StateNone}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := Read(dir+test.path, dir+test.storage)
			require.NoError(t, err)
			assert.Equal(t, test.want, found)
		})
	}
	t.Run("what is not known is not looked for", func(t *testing.T) {
		t.Chdir(dir + "/state")
		found, err := Read(dir+"/meta/c.json", "")
		require.NoError(t, err)
		assert.Equal(t, Found{Checkpoint: &c}, found)
		found, err = Read("", dir+"/state")
		require.NoError(t, err)
		assert.Equal(t, Found{nil, &stamp, dir + "/state", StatePresent}, found)
		found, err = Read("", "")
		require.NoError(t, err)
		assert.Equal(t, Found{}, found)
	})
	t.Run("a relative directory is of where we are", func(t *testing.T) {
		t.Chdir(dir + "/meta")
		found, err := Read("c.json", "../state/")
		require.NoError(t, err)
		assert.Equal(t, Found{&c, &stamp, dir + "/state", StatePresent}, found)
		found, err = Read("c.json", "state")
		require.NoError(t, err)
		assert.Equal(t, Found{&c, nil, dir + "/meta/state", StateNone}, found)
	})
	t.Run("links are followed", func(t *testing.T) {
		require.NoError(t, os.Symlink("state", dir+"/link"))
		require.NoError(t, os.Symlink("meta/c.json", dir+"/c.json"))
		found, err := Read(dir+"/c.json", dir+"/link")
		require.NoError(t, err)
		assert.Equal(t, Found{&c, &stamp, dir + "/state", StatePresent}, found)
	})
}

func TestDirectoryWithOnlyOurOwnFilesHasNoState(t *testing.T) {
	ours := map[string]string{
		"lost+found/": "", StampFile: stampText, "." + StampFile + ".123.tmp": "{", "c.json": fullText, "c.json.lock": "", ".c.json.4711.tmp": "",
		"c.json.before-20260301T000000Z": "", "c.json.before-20260301T000000Z-2": "", ".c.json.before-20260301T000000Z.99.tmp": "",
		"hold": "", ".hold.4711.tmp": "",
	}
	presence := func(t *testing.T, path, storage string) Presence {
		t.Helper()
		found, err := Read(path, storage)
		require.NoError(t, err)
		return found.State
	}
	t.Run("all of ours", func(t *testing.T) {
		dir := t.TempDir()
		writeFiles(t, dir, ours)
		assert.Equal(t, StateNone, presence(t, dir+"/c.json", dir))
		require.NoError(t, os.Symlink(dir, dir+"-link"))
		assert.Equal(t, StateNone, presence(t, dir+"-link/c.json", dir), "by whatever name")
	})
	t.Run("a checkpoint whose name begins with a dot", func(t *testing.T) {
		dir := t.TempDir()
		writeFiles(t, dir, map[string]string{".c": fullText, ".c.lock": "", "..c.1.tmp": "", ".c.before-20260301T000000Z": ""})
		assert.Equal(t, StateNone, presence(t, dir+"/.c", dir))
	})
	t.Run("a checkpoint elsewhere", func(t *testing.T) {
		dir := t.TempDir()
		writeFiles(t, dir, ours)
		assert.Equal(t, StatePresent, presence(t, t.TempDir()+"/c.json", dir), "these are not its files")
		assert.Equal(t, StatePresent, presence(t, "", dir))
		require.NoError(t, os.RemoveAll(dir))
		writeFiles(t, dir, map[string]string{"hold": ""})
		assert.Equal(t, StatePresent, presence(t, t.TempDir()+"/c.json", dir), "nor is this its hold")
	})
	t.Run("a hold alone, before the first start", func(t *testing.T) {
		dir := t.TempDir()
		writeFiles(t, dir, map[string]string{"hold": ""})
		assert.Equal(t, StateNone, presence(t, dir+"/c.json", dir))
	})
	for _, name := range []string{
		"db/", "LOCK", ".hidden", "c.json2", "c.json.bak", "d.json", "d.json.lock", ".c.json", ".c.json.1x.tmp", ".c.json20261130", ".c.json.lock", "c.json.lock.lock",
		"rollup-version.json.bak", ".rollup-version.json", "lost+found2", "hold.bak", ".hold", "holding/", ".hold.1x.tmp",
	} {
		t.Run("with "+name, func(t *testing.T) {
			dir := t.TempDir()
			writeFiles(t, dir, ours)
			writeFiles(t, dir, map[string]string{name: ""})
			assert.Equal(t, StatePresent, presence(t, dir+"/c.json", dir))
		})
	}
}

func TestHoldIsBesideTheCheckpointAndNotBesideALinkToIt(t *testing.T) {
	dir := realTempDir(t)
	writeFiles(t, dir, map[string]string{"meta/c.json": fullText})
	require.NoError(t, os.Symlink("meta/c.json", dir+"/link.json"))
	assert.Equal(t, dir+"/meta/hold", HoldPath(dir+"/meta/c.json"))
	assert.Equal(t, dir+"/meta/hold", HoldPath(dir+"/link.json"))
	assert.Equal(t, dir+"/none/hold", HoldPath(dir+"/none/c.json"))
	t.Chdir(dir)
	assert.Equal(t, dir+"/hold", HoldPath("c.json"))
}

// unreadableFile expects that a file of the record cannot be read, and removes it.
func unreadableFile(t *testing.T, dir string, kind recordFile, want string) error {
	t.Helper()
	file := filepath.Join(dir, kind.file)
	found, err := kind.read(dir)
	var unreadable *UnreadableError
	require.ErrorAs(t, err, &unreadable)
	assert.Equal(t, file, unreadable.Path)
	assert.Equal(t, kind.name == "stamp", unreadable.Stamp)
	require.EqualError(t, err, file+": "+want)
	found.Storage, found.State = "", StateUnknown // where to look is known all the same
	assert.Zero(t, found)
	require.NoError(t, os.RemoveAll(file))
	return err
}

func TestFileThatCannotBeReadIsNoFirstStart(t *testing.T) {
	for _, kind := range recordFiles {
		t.Run(kind.name, func(t *testing.T) {
			dir := realTempDir(t)
			file := filepath.Join(dir, kind.file)
			fails := func(t *testing.T, want string) error { return unreadableFile(t, dir, kind, want) }
			for _, test := range []struct{ name, content, want string }{
				{"empty", "", "the file is empty"},
				{"torn", kind.text[:60], "the file is torn: it ends in the middle of the JSON text"},
				{"NUL bytes", strings.Repeat("\x00", 60), "the file is torn: it has NUL bytes, as after a power cut"},
				{"huge", kind.text + strings.Repeat(" ", limit+1-len(kind.text)), "the file is too large: more than 1048576 bytes"},
				{"foreign", "{\n}", "the file is not a " + kind.name + ": "},
			} {
				t.Run(test.name, func(t *testing.T) {
					writeFiles(t, dir, map[string]string{kind.file: test.content})
					if test.name == "foreign" {
						_, err := kind.read(dir)
						require.ErrorContains(t, err, file+": "+test.want)
						return
					}
					fails(t, test.want)
				})
			}
			t.Run("a directory", func(t *testing.T) {
				require.NoError(t, os.RemoveAll(file))
				require.NoError(t, os.Mkdir(file, 0o700))
				require.ErrorIs(t, fails(t, "it is an empty directory, want a regular file: Docker makes one if the source of a bind mount is missing on the host"), ErrNoFile)
			})
			t.Run("a pipe", func(t *testing.T) {
				require.NoError(t, unix.Mkfifo(file, 0o600))
				require.ErrorIs(t, fails(t, "it is a FIFO, want a regular file"), ErrNoFile)
			})
			t.Run("a link to itself", func(t *testing.T) {
				require.NoError(t, os.Symlink(kind.file, file))
				require.ErrorIs(t, fails(t, "it cannot be read: too many levels of symbolic links"), unix.ELOOP)
			})
			t.Run("without permission", func(t *testing.T) {
				writeFiles(t, dir, map[string]string{kind.file: kind.text})
				require.NoError(t, os.Chmod(file, 0))
				asNobody(t, dir, func() {
					_, err := kind.read(dir)
					require.EqualError(t, err, file+": it cannot be read: permission denied")
				})
			})
			t.Run("the largest is read", func(t *testing.T) {
				writeFiles(t, dir, map[string]string{kind.file: kind.text + strings.Repeat(" ", limit-len(kind.text))})
				require.NoError(t, os.Chmod(file, 0o600))
				_, err := kind.read(dir)
				require.NoError(t, err)
			})
		})
	}
}

func TestLinkThatLeadsNowhereIsNoFirstStart(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink("missing/checkpoint.json", dir+"/c.json"))
	_, err := Open(dir+"/c.json", "")
	require.Error(t, err, "into a directory that is not mounted")
	require.NoError(t, os.Mkdir(dir+"/state", 0o700))
	require.NoError(t, os.Symlink("missing", filepath.Join(dir, "state", StampFile)))
	_, err = Read("", dir+"/state")
	require.ErrorContains(t, err, StampFile+": it cannot be read: no such file or directory")
}

func TestStorageThatCannotBeReadIsNotEmpty(t *testing.T) {
	dir := realTempDir(t)
	writeFiles(t, dir, map[string]string{"file": "", "closed/db": ""})
	fails := func(t *testing.T, storage, want string) {
		t.Helper()
		found, err := Read(dir+"/c.json", storage)
		var unreadable *UnreadableError
		require.ErrorAs(t, err, &unreadable)
		assert.Equal(t, storage, unreadable.Path)
		assert.True(t, unreadable.Stamp)
		require.EqualError(t, err, storage+": it cannot be read: "+want)
		found.Storage, found.State = "", StateUnknown // where to look is known all the same
		assert.Zero(t, found)
	}
	t.Run("a file", func(t *testing.T) { fails(t, dir+"/file", "not a directory") })
	t.Run("below a file", func(t *testing.T) { fails(t, dir+"/file/state", "not a directory") })
	t.Run("without permission", func(t *testing.T) {
		require.NoError(t, os.Chmod(dir+"/closed", 0o300))
		t.Cleanup(func() { _ = os.Chmod(dir+"/closed", 0o700) })
		asNobody(t, dir, func() { fails(t, dir+"/closed", "permission denied") })
	})
}

func TestUnreadableFileNamesItselfAndItsCause(t *testing.T) {
	cause := errors.New("it is torn")
	err := error(&UnreadableError{Path: "/c.json", Err: cause})
	assert.EqualError(t, err, "/c.json: it is torn")
	assert.ErrorIs(t, err, cause)
}

// A volume that is mounted at the storage directory has the checkpoint in a folder of it.
func TestCheckpointInAFolderOfTheStorageDirectoryIsNoState(t *testing.T) {
	storage := t.TempDir()
	folder := filepath.Join(storage, "entrypoint", "v1")
	require.NoError(t, os.MkdirAll(folder, 0o755))
	path := filepath.Join(folder, "checkpoint.json")
	presence := func() Presence {
		found, err := Read(path, storage)
		require.NoError(t, err)
		return found.State
	}
	assert.Equal(t, StateNone, presence())
	require.NoError(t, os.WriteFile(path+".lock", nil, 0o644))
	assert.Equal(t, StateNone, presence())
	require.NoError(t, os.WriteFile(filepath.Join(storage, "entrypoint", "something"), nil, 0o644))
	assert.Equal(t, StatePresent, presence())
	require.NoError(t, os.Remove(filepath.Join(storage, "entrypoint", "something")))
	require.NoError(t, os.Mkdir(filepath.Join(storage, "other"), 0o755))
	assert.Equal(t, StatePresent, presence())
}

// What is readable of the record may say whether a migration was begun.
func TestFileThatCanBeReadIsGivenBesideTheOneThatCannot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "state"), 0o755))
	store, err := Open(path, filepath.Join(dir, "state"))
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.SaveStamp(Stamp{Name: "v0"}))
	require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/v0", Phase: PhaseRunning}))

	require.NoError(t, os.WriteFile(path, []byte("{"), 0o644))
	found, err := store.Load()
	require.Error(t, err)
	assert.Nil(t, found.Checkpoint)
	require.NotNil(t, found.Stamp)

	require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/v0", Phase: PhaseMigrating}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state", StampFile), []byte("{"), 0o644))
	found, err = store.Load()
	require.Error(t, err)
	assert.Nil(t, found.Stamp)
	require.NotNil(t, found.Checkpoint)
	assert.Equal(t, PhaseMigrating, found.Checkpoint.Phase)
}

// The directory above the state is made later, behind a link.
func TestLinksAboveAMissingDirectoryAreFollowed(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "volume"), 0o755))
	require.NoError(t, os.Symlink("volume", filepath.Join(dir, "data")))
	path := filepath.Join(dir, "data", "rollup", "state")
	before := ResolveLinks(path)
	require.NoError(t, os.MkdirAll(path, 0o755))
	assert.Equal(t, ResolveLinks(path), before)
	assert.Equal(t, filepath.Join(dir, "volume", "rollup", "state"), before)
}
