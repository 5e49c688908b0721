package undo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// ownNamespace says that the process has mounts of its own.
const ownNamespace = "UNDO_TEST_OWN_MOUNTS"

// TestMain runs the tests again in a process with mounts of its own, if this user may: in the copy of our mounts that any
// other new namespace would have, a file system would live on after its power was cut.
func TestMain(m *testing.M) {
	if os.Getenv(ownNamespace) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), ownNamespace+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose death it would be
	err := cmd.Run()
	if cmd.ProcessState == nil { // no namespaces here
		fmt.Fprintln(os.Stderr, err)
		os.Exit(m.Run())
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// missing ends a test that cannot run here. In CI everything must be there.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must have what is missing: "+format, args...)
	}
	t.Skipf(format, args...)
}

// mounted gives a directory on a file system of its own.
func mounted(t testing.TB, kind, options string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	require.NoError(t, os.Mkdir(dir, 0o755))
	source := kind
	if kind != "tmpfs" {
		known, err := os.ReadFile("/proc/filesystems")
		// Only btrfs is the kernel's matter. For the others CI must have what a mount needs.
		if kind == "btrfs" && (err != nil || !strings.Contains(string(known), "\tbtrfs\n")) {
			t.Skip("this kernel has no btrfs")
		}
		source = image(t, kind)
		options = strings.Trim(options+",loop", ",")
	}
	out, err := exec.Command("mount", "-t", kind, "-o", options, source, dir).CombinedOutput()
	if err != nil {
		missing(t, "this test needs root, and loop devices: cannot mount %s: %v %s", kind, err, out)
	}
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// image makes a file system in a file.
func image(t testing.TB, kind string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), kind+".img")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 400<<20)) // sparse
	mkfs := []string{"mkfs." + kind, "-q", path}
	if kind == "xfs" {
		mkfs = []string{"mkfs.xfs", "-q", "-m", "reflink=1", path}
	}
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		missing(t, "this test needs %s: %s", mkfs[0], err)
	}
	out, err := exec.Command(mkfs[0], mkfs[1:]...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// stampOfV0 is that of the state of most tests.
var stampOfV0 = checkpoint.Stamp{Name: "v0", StopHeight: 100, UpdatedAt: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}

var toV1 = checkpoint.UndoTarget{VersionIndex: 1, Name: "v1", StartHeight: 101}

// pointToV1 is what a caller says of the undo point before version 1.
func pointToV1() checkpoint.UndoPoint {
	height := uint64(100)
	return checkpoint.UndoPoint{Stamp: stampOfV0, To: toV1, Height: &height, Checkpoint: `{"version_index":0}`}
}

// writeStamp writes the stamp of a state.
func writeStamp(t testing.TB, dir string, stamp checkpoint.Stamp) {
	t.Helper()
	text, err := checkpoint.EncodeStamp(stamp)
	require.NoError(t, err)
	require.NoError(t, durable.Replace(filepath.Join(dir, checkpoint.StampFile), text, func(*os.File) error { return nil }))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// testPart has files that are not large copied in parts.
const testPart = 256 << 10

// smallState is a state in which it can be seen whether it is whole.
func smallState(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	writeStamp(t, dir, stampOfV0)
	write(t, filepath.Join(dir, "ledger", "CURRENT"), "v0 at 100")
	write(t, filepath.Join(dir, "ledger", "000001.sst"), strings.Repeat("v0", 5000))
	write(t, filepath.Join(dir, "state.db"), "v0")
}

// spoil does what a wrong version does to a state.
func spoil(t testing.TB, dir string) {
	t.Helper()
	stamp := stampOfV0
	stamp.VersionIndex, stamp.Name, stamp.StartHeight, stamp.Migration = 1, "v1", 101, checkpoint.MigrationBegun
	writeStamp(t, dir, stamp)
	require.NoError(t, os.Remove(filepath.Join(dir, "ledger", "000001.sst")))
	write(t, filepath.Join(dir, "ledger", "CURRENT"), "v1 at 100")
	write(t, filepath.Join(dir, "new.db"), "v1")
}

// tree describes everything below dir, but the times of directories, in which a description was.
func tree(t testing.TB, dir string, except ...string) map[string]string {
	t.Helper()
	all, inodes := map[string]string{}, map[uint64]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		for _, skip := range except {
			switch {
			case name != skip:
			case entry.IsDir():
				return filepath.SkipDir
			default:
				return nil
			}
		}
		var stat unix.Stat_t
		require.NoError(t, unix.Lstat(path, &stat))
		text := fmt.Sprintf("mode %o, owner %d:%d", stat.Mode, stat.Uid, stat.Gid)
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			first, linked := inodes[stat.Ino]
			if !linked {
				inodes[stat.Ino], first = name, name
			}
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			text += fmt.Sprintf(", size %d, changed %v, %d links, first %s, %x", stat.Size, stat.Mtim, stat.Nlink, first, sha256.Sum256(content))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			require.NoError(t, err)
			text += " to " + target
		}
		value := make([]byte, 100)
		if n, err := unix.Lgetxattr(path, "user.rollup", value); err == nil {
			text += ", attribute " + string(value[:n])
		}
		all[name] = text
		return nil
	}))
	return all
}

// richState has every kind of file.
func richState(t testing.TB, dir string) {
	t.Helper()
	smallState(t, dir)
	require.NoError(t, os.Link(filepath.Join(dir, "state.db"), filepath.Join(dir, "ledger", "linked.db")))
	require.NoError(t, os.Symlink("state.db", filepath.Join(dir, "latest")))
	require.NoError(t, os.Symlink("/nowhere", filepath.Join(dir, "broken")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o640))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "read-only", "empty"), 0o755))
	write(t, filepath.Join(dir, "read-only", "file"), "")
	write(t, filepath.Join(dir, "name with\nline end"), "odd")
	require.NoError(t, os.Chmod(filepath.Join(dir, "read-only", "file"), 0o400))
	_ = unix.Setxattr(filepath.Join(dir, "state.db"), "user.rollup", []byte("kept"), 0) // not every file system has them
	if os.Geteuid() == 0 {
		require.NoError(t, os.Lchown(filepath.Join(dir, "state.db"), 1234, 2345))
	}
	sparse, err := os.Create(filepath.Join(dir, "hash-table"))
	require.NoError(t, err)
	defer sparse.Close()
	require.NoError(t, sparse.Truncate(3*testPart))
	for _, at := range []int64{0, testPart - 3000, 2*testPart + 77} {
		_, err := sparse.WriteAt([]byte(strings.Repeat("data", 2000)), at)
		require.NoError(t, err)
	}
	require.NoError(t, os.Chtimes(filepath.Join(dir, "state.db"), time.Unix(1000, 5), time.Unix(2000, 7000)))
	require.NoError(t, os.Chmod(filepath.Join(dir, "read-only"), 0o555))
	t.Cleanup(func() { // or it could not be deleted by others than root
		for _, state := range []string{dir, dir + ".before-v1"} {
			_ = os.Chmod(filepath.Join(state, "read-only"), 0o755)
		}
	})
}

func newUndo(t testing.TB, o Options) *Undo {
	t.Helper()
	if o.Mode == "" {
		o.Mode = Auto
	}
	u, err := New(o)
	require.NoError(t, err)
	u.part = testPart
	return u
}

// blocks is how many bytes of the disk a file has.
func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var stat unix.Stat_t
	require.NoError(t, unix.Lstat(path, &stat))
	return stat.Blocks * 512
}

func TestUndoPointIsACopyOfEverything(t *testing.T) {
	for _, fs := range []struct {
		kind   string
		method checkpoint.UndoMethod
	}{{"", ""}, {"tmpfs", checkpoint.UndoCopy}, {"ext4", checkpoint.UndoCopy}, {"xfs", checkpoint.UndoReflink}, {"btrfs", checkpoint.UndoReflink}} {
		for _, noReflink := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, no reflinks %v", fs.kind, noReflink), func(t *testing.T) {
				dir := t.TempDir()
				if fs.kind != "" {
					dir = mounted(t, fs.kind, "")
				}
				state := filepath.Join(dir, "state")
				richState(t, state)
				want := tree(t, state)
				u := newUndo(t, Options{Storage: state})
				u.noReflink = noReflink
				p, err := u.Make(t.Context(), pointToV1(), nil)
				require.NoError(t, err)
				switch {
				case noReflink:
					assert.Equal(t, checkpoint.UndoCopy, p.Method)
				case fs.kind != "":
					assert.Equal(t, fs.method, p.Method)
				}
				assert.Equal(t, state+".before-v1", p.Path)
				assert.Equal(t, want, tree(t, p.Path, checkpoint.UndoFile))
				assert.Equal(t, want, tree(t, state), "the state is as it was")
				table := filepath.Join(p.Path, "hash-table")
				assert.LessOrEqual(t, blocks(t, table), blocks(t, filepath.Join(state, "hash-table"))+(256<<10), "holes stay holes")
				found, err := u.Find()
				require.NoError(t, err)
				assert.Equal(t, &p, found)
				assert.NotEmpty(t, p.ID)
				assert.Positive(t, p.Bytes)
				assert.Equal(t, []string{"state", "state.before-v1"}, namesIn(t, dir))
			})
		}
	}
}

// namesIn are the names in a directory, but that of the file system itself.
func namesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, entry := range entries {
		if entry.Name() != "lost+found" {
			names = append(names, entry.Name())
		}
	}
	return names
}

// ways are the layouts and the file systems, as far as they make a difference for putting back.
var ways = []string{"exchange", "two renames", "undo dir", "in place"}

// world is a state, its undo point, and where both are.
type world struct {
	dir, state string
	options    Options
	way        string
}

func newWorld(t testing.TB, way string) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), way: way}
	w.lay(t)
	return w
}

// lay makes the state, and what else is there in that way.
func (w *world) lay(t testing.TB) {
	t.Helper()
	w.place()
	smallState(t, w.state)
	if w.options.Checkpoint != "" {
		write(t, w.options.Checkpoint, "not ours to copy")
		write(t, w.options.Checkpoint+".lock", "held")
	}
}

// undo gives an Undo as a new process has it.
func (w *world) undo(t testing.TB) *Undo {
	u := newUndo(t, w.options)
	u.noExchange = w.way == "two renames"
	return u
}

// content is the state itself, without what is beside it in the same directory.
func (w *world) content(t testing.TB) map[string]string {
	all := tree(t, w.state, ".undo", "checkpoint.json", "checkpoint.json.lock")
	delete(all, ".")
	return all
}

// clutter are files that should not be there when nothing is being done.
func (w *world) clutter(t testing.TB) (names []string) {
	for _, dir := range []string{w.dir, w.state, w.options.Dir} {
		if dir == "" || !exists(dir) {
			continue
		}
		for _, name := range namesIn(t, dir) {
			if strings.Contains(name, "undo-") || name == checkpoint.UndoFile || strings.HasSuffix(name, ".tmp") {
				names = append(names, name)
			}
		}
	}
	return names
}

func TestUndoPointIsPutBackAndTheFailedStateIsKept(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, way)
			whole := w.content(t)
			var first map[string]string
			for range 2 { // the second time a failed state is there, and stays
				p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
				require.NoError(t, err)
				spoil(t, w.state)
				spoiled := w.content(t)
				if first == nil {
					first = maps.Clone(spoiled)
				}
				spoiled = maps.Clone(first)
				aside, err := w.undo(t).PutBack(p)
				require.NoError(t, err)
				assert.Equal(t, whole, w.content(t))
				kept := tree(t, aside)
				delete(kept, ".")
				for _, all := range []map[string]string{kept, spoiled} { // the stamp is a copy
					assert.NotEmpty(t, all[checkpoint.StampFile])
					delete(all, checkpoint.StampFile)
				}
				assert.Equal(t, spoiled, kept)
				stamp, err := stampOf(aside)
				require.NoError(t, err)
				assert.Equal(t, "v1", stamp.Name)
				assert.Equal(t, "state.failed-v1", filepath.Base(aside))
				assert.Equal(t, aside, w.undo(t).Aside())
				found, err := w.undo(t).Find()
				require.NoError(t, err)
				assert.Nil(t, found, "it is the state now")
				assert.Empty(t, w.clutter(t))
			}
			if way == "in place" {
				held, err := os.ReadFile(w.options.Checkpoint + ".lock")
				require.NoError(t, err)
				assert.Equal(t, "held", string(held), "the lock was not moved")
			}
			deleted, err := w.undo(t).Drop()
			require.NoError(t, err)
			assert.Len(t, deleted, 1)
			assert.Equal(t, whole, w.content(t))
		})
	}
}

func TestNextUndoPointReplacesTheOneBefore(t *testing.T) {
	w := newWorld(t, "exchange")
	first, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	next := pointToV1()
	next.To.Name = "v2/../x y"
	second, err := w.undo(t).Make(t.Context(), next, nil)
	require.NoError(t, err)
	assert.NotEqual(t, first.ID, second.ID)
	assert.Equal(t, []string{"state", "state.before-v2_.._x_y"}, namesIn(t, w.dir))
	again, err := w.undo(t).Make(t.Context(), next, nil)
	require.NoError(t, err, "the same name once more")
	deleted, err := w.undo(t).Drop()
	require.NoError(t, err)
	assert.Equal(t, []string{again.Path}, deleted)
	assert.Equal(t, []string{"state"}, namesIn(t, w.dir))
}

func TestCopiesThatPeopleMakeAreLeftAlone(t *testing.T) {
	w := newWorld(t, "exchange")
	write(t, filepath.Join(w.dir, "state.before-v1.bak", "mine"), "mine")
	write(t, filepath.Join(w.dir, "state.before-lunch", "mine"), "mine")
	write(t, filepath.Join(w.dir, "state.failed-once", "mine"), "mine")
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	require.NoError(t, os.CopyFS(p.Path+"-copy", os.DirFS(p.Path)))
	found, err := w.undo(t).Find()
	require.NoError(t, err)
	assert.Equal(t, p.Path, found.Path)
	spoil(t, w.state)
	_, err = w.undo(t).PutBack(p)
	require.NoError(t, err)
	_, err = w.undo(t).Drop()
	require.NoError(t, err)
	assert.Equal(t, []string{"state", "state.before-lunch", "state.before-v1-copy", "state.before-v1.bak", "state.failed-once"}, namesIn(t, w.dir))
}

// As docs/undo.md describes it.
func TestUndoPointThatAPersonRenamedToTheStateIsOne(t *testing.T) {
	w := newWorld(t, "exchange")
	whole := w.content(t)
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	spoil(t, w.state)
	require.NoError(t, os.Rename(w.state, w.state+".mine"))
	require.NoError(t, os.Rename(p.Path, w.state))
	found, err := w.undo(t).Find()
	require.NoError(t, err)
	assert.Nil(t, found)
	assert.Equal(t, whole, w.content(t))
	assert.Equal(t, []string{"state", "state.mine"}, namesIn(t, w.dir))
}

func TestStateThatIsGoneIsPutBack(t *testing.T) {
	w := newWorld(t, "exchange")
	whole := w.content(t)
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(w.state))
	found, err := w.undo(t).Find()
	require.NoError(t, err)
	require.Equal(t, &p, found, "not by itself: it may only not be mounted")
	aside, err := w.undo(t).PutBack(p)
	require.NoError(t, err)
	assert.Empty(t, aside)
	assert.Equal(t, whole, w.content(t))
}

func TestUndoPointThatWasWorkedOnIsNotPutBack(t *testing.T) {
	for what, change := range map[string]func(t *testing.T, p *checkpoint.UndoPoint){
		"another version": func(t *testing.T, p *checkpoint.UndoPoint) {
			writeStamp(t, p.Path, checkpoint.Stamp{VersionIndex: 1, Name: "v1"})
		},
		"no stamp": func(t *testing.T, p *checkpoint.UndoPoint) {
			require.NoError(t, os.Remove(p.Path+"/"+checkpoint.StampFile))
		},
		"another one": func(_ *testing.T, p *checkpoint.UndoPoint) { p.ID = "other" },
		"no description": func(t *testing.T, p *checkpoint.UndoPoint) {
			require.NoError(t, os.Remove(p.Path+"/"+checkpoint.UndoFile))
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, "exchange")
			p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
			require.NoError(t, err)
			spoil(t, w.state)
			before := w.content(t)
			change(t, &p)
			_, err = w.undo(t).PutBack(p)
			require.ErrorContains(t, err, p.Path)
			assert.Equal(t, before, w.content(t))
		})
	}
}

func TestTornDescriptionIsAnErrorThatNamesTheFile(t *testing.T) {
	w := newWorld(t, "exchange")
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	path := filepath.Join(p.Path, checkpoint.UndoFile)
	require.NoError(t, os.Truncate(path, 40))
	for _, dir := range []string{p.Path, w.state} {
		_, err = w.undo(t).Find()
		require.ErrorContains(t, err, filepath.Join(dir, checkpoint.UndoFile))
		require.ErrorAs(t, err, new(*checkpoint.UnreadableError))
		require.NoError(t, os.Rename(path, filepath.Join(w.state, checkpoint.UndoFile)))
		path = filepath.Join(w.state, checkpoint.UndoFile)
		if dir == w.state {
			break
		}
	}
}

func TestStateWithAnotherStampIsNotCopied(t *testing.T) {
	w := newWorld(t, "exchange")
	p := pointToV1()
	p.Stamp.StopHeight++
	_, err := w.undo(t).Make(t.Context(), p, nil)
	require.ErrorContains(t, err, "stamp")
	assert.Equal(t, []string{"state"}, namesIn(t, w.dir))
}

func TestOffMakesNoneAndFindsTheOneThatIsThere(t *testing.T) {
	w := newWorld(t, "exchange")
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	w.options.Mode = Off
	_, err = w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.ErrorAs(t, err, new(*sequencer.NoUndoPointError))
	found, err := w.undo(t).Find()
	require.NoError(t, err)
	assert.Equal(t, &p, found)
	assert.Empty(t, w.undo(t).Outlook(t.Context(), "v1"))
}

// wantNone expects that there is no undo point to be had: no failure with Auto, one with Copy.
func wantNone(t *testing.T, mode Mode, err error, says string) {
	t.Helper()
	require.ErrorContains(t, err, says)
	assert.Equal(t, mode == Auto, errors.As(err, new(*sequencer.NoUndoPointError)), "%v", err)
}

func TestStateThatDoesNotFitIsNotCopied(t *testing.T) {
	for mode, megabytes := range map[Mode]int{Auto: 12, Copy: 20} { // of 32
		t.Run(string(mode), func(t *testing.T) {
			dir := mounted(t, "tmpfs", "size=32m")
			state := filepath.Join(dir, "state")
			smallState(t, state)
			write(t, filepath.Join(state, "large"), strings.Repeat("x", megabytes<<20))
			u := newUndo(t, Options{Storage: state, Mode: mode})
			assert.Contains(t, u.Outlook(t.Context(), "v1"), "no reflinks")
			_, err := u.Make(t.Context(), pointToV1(), nil)
			wantNone(t, mode, err, "free")
			assert.Equal(t, []string{"state"}, namesIn(t, dir))
		})
	}
}

func TestOlderCopiesMakeRoomForTheNextOne(t *testing.T) {
	dir := mounted(t, "tmpfs", "size=64m")
	state := filepath.Join(dir, "state")
	smallState(t, state)
	write(t, filepath.Join(state, "large"), strings.Repeat("x", 17<<20))
	u := newUndo(t, Options{Storage: state, Mode: Auto})
	p, err := u.Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	spoil(t, state)
	aside, err := u.PutBack(p)
	require.NoError(t, err)
	require.True(t, exists(aside))
	assert.Empty(t, u.Outlook(t.Context(), "v1"))
	_, err = u.Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err, "the failed state had to go")
	assert.Equal(t, []string{"state", "state.before-v1"}, namesIn(t, dir))
	p, err = u.Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err, "so had the older undo point")
	assert.Equal(t, state+".before-v1", p.Path)
}

func TestDiskThatFillsWhileItIsCopiedLeavesNothingBehind(t *testing.T) {
	for _, mode := range []Mode{Auto, Copy} {
		t.Run(string(mode), func(t *testing.T) {
			dir := mounted(t, "tmpfs", "size=64m")
			state := filepath.Join(dir, "state")
			smallState(t, state)
			write(t, filepath.Join(state, "large"), strings.Repeat("x", 8<<20))
			u := newUndo(t, Options{Storage: state, Mode: mode})
			_, err := u.Make(t.Context(), pointToV1(), func(p sequencer.UndoProgress) {
				if p.Method == checkpoint.UndoCopy && p.Done == 0 && !exists(filepath.Join(dir, "ballast")) {
					_ = os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 56<<20), 0o600)
				}
			})
			wantNone(t, mode, err, "no space left")
			assert.Equal(t, []string{"ballast", "state"}, namesIn(t, dir))
		})
	}
}

// heldAtParts has every worker wait, before it copies anything, until it is let go.
func heldAtParts(u *Undo) (letGo func()) {
	gate := make(chan struct{})
	u.step = func(what string) {
		if what == stepPart {
			<-gate
		}
	}
	return func() { close(gate) }
}

func TestCopyEndsWithItsContextAndLeavesNothingBehind(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, way)
			before := w.content(t)
			ctx, cancel := context.WithCancel(t.Context())
			u := w.undo(t)
			letGo := heldAtParts(u)
			_, err := u.Make(ctx, pointToV1(), func(sequencer.UndoProgress) {
				if ctx.Err() == nil {
					cancel()
					letGo()
				}
			})
			require.ErrorIs(t, err, context.Canceled)
			assert.Equal(t, before, w.content(t))
			assert.Empty(t, w.clutter(t))
		})
	}
}

func TestCopyThatWouldTakeTooLongIsGivenUp(t *testing.T) {
	w := newWorld(t, "exchange")
	w.options.Mode = Auto
	u := w.undo(t)
	u.noReflink, u.patience, u.workers = true, time.Nanosecond, 1
	// The first files are copied, the next one when the copy was given up: nothing else ends the wait.
	givenUp, parts := make(chan struct{}), 0
	u.step = func(what string) {
		switch what {
		case stepPart:
			if parts++; parts == 3 {
				<-givenUp
			}
		case stepGivenUp:
			close(givenUp)
		}
	}
	_, err := u.Make(t.Context(), pointToV1(), nil)
	wantNone(t, Auto, err, "would take")
	assert.Equal(t, []string{"state"}, namesIn(t, w.dir))
}

// A person has undone a version that had run. What that has made may be nowhere else, so no later put-back deletes it.
func TestStateOfAVersionThatHadRunIsKeptForGood(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, way)
			var kept []string
			for range 2 {
				p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
				require.NoError(t, err)
				ran, err := checkpoint.EncodeStamp(checkpoint.Stamp{VersionIndex: 1, Name: "v1", StartHeight: 11, UndoPoint: p.ID})
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(w.state, checkpoint.StampFile), ran, 0o644))
				aside, err := w.undo(t).PutBack(p)
				require.NoError(t, err)
				require.Contains(t, filepath.Base(aside), "state.undone-v1-")
				kept = append(kept, aside)
			}
			p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
			require.NoError(t, err)
			spoil(t, w.state)
			_, err = w.undo(t).PutBack(p)
			require.NoError(t, err)
			for _, path := range kept {
				assert.FileExists(t, filepath.Join(path, checkpoint.StampFile))
			}
			deleted, err := w.undo(t).Drop()
			require.NoError(t, err)
			assert.Len(t, deleted, 3)
		})
	}
}

// What a person keeps under a longer name is none of ours.
func TestFailedStateUnderANameOfItsOwnIsKept(t *testing.T) {
	w := newWorld(t, "exchange")
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	spoil(t, w.state)
	aside, err := w.undo(t).PutBack(p)
	require.NoError(t, err)
	require.NoError(t, os.Rename(aside, aside+".keep"))
	deleted, err := w.undo(t).Drop()
	require.NoError(t, err)
	assert.Empty(t, deleted)
}
