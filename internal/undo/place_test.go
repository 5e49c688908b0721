package undo

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer/checkpoint"
)

// A directory that cannot be used is refused at the start, and not at the height.
func TestDirectoryThatCannotBeUsedIsRefusedAtTheStart(t *testing.T) {
	disk := mounted(t, "tmpfs", "")
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	smallState(t, state)
	for undoDir, says := range map[string]string{
		disk:                             "is not on the same mount",
		filepath.Join(disk, "new"):       "is not on the same mount",
		state:                            "is the storage directory itself",
		filepath.Join(state, "a", "b"):   "is not directly in the storage directory",
		filepath.Join(dir, "undo"):       "",
		filepath.Join(dir, "a", "undo"):  "",
		filepath.Join(state, ".undo"):    "",
		filepath.Join(state, "..", "up"): "",
	} {
		for _, mode := range []Mode{Auto, Copy, Off} {
			_, err := New(Options{Storage: state, Dir: undoDir, Mode: mode})
			if says == "" {
				assert.NoError(t, err, undoDir)
			} else {
				assert.ErrorContains(t, err, says, undoDir)
			}
		}
	}
	bind := filepath.Join(dir, "bind")
	require.NoError(t, os.Mkdir(bind, 0o755))
	require.NoError(t, unix.Mount(dir, bind, "", unix.MS_BIND, ""))
	t.Cleanup(func() { _ = unix.Unmount(bind, unix.MNT_DETACH) })
	_, err := New(Options{Storage: state, Dir: filepath.Join(bind, "undo"), Mode: Auto})
	assert.ErrorContains(t, err, "is not on the same mount", "the same file system, but rename(2) gives EXDEV")
}

// noUndo expects that there can be no undo point: known at once, and a failure at the start for those who want one.
func noUndo(t *testing.T, o Options, says string) {
	t.Helper()
	o.Mode = Copy
	_, err := New(o)
	require.ErrorContains(t, err, says)
	o.Mode = Auto
	u, err := New(o)
	require.NoError(t, err)
	assert.Contains(t, u.Outlook(t.Context(), "v1"), says)
	_, err = u.Make(t.Context(), pointToV1(), nil)
	wantNone(t, Auto, err, says)
}

func TestStorageDirectoryThatIsAMountPointNeedsADirectoryInIt(t *testing.T) {
	state := mounted(t, "tmpfs", "")
	smallState(t, state)
	noUndo(t, Options{Storage: state}, "is a mount point, which cannot be renamed (keep undo points in it with --undo-dir "+state+"/.undo)")
	_, err := New(Options{Storage: state, Dir: filepath.Dir(state), Mode: Auto})
	require.ErrorContains(t, err, "name a directory in it, such as "+state+"/.undo")

	u := newUndo(t, Options{Storage: state, Dir: filepath.Join(state, ".undo"), Mode: Copy})
	before := tree(t, state)
	p, err := u.Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	spoil(t, state)
	aside, err := u.PutBack(p)
	require.NoError(t, err)
	assert.Equal(t, before, tree(t, state, ".undo"))
	assert.Equal(t, filepath.Join(state, ".undo", filepath.Base(state)+".failed-v1"), aside)
}

func TestStorageDirectoryWithAMountPointInItHasNoUndoPoint(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	smallState(t, state)
	inner := filepath.Join(state, "da")
	require.NoError(t, os.Mkdir(inner, 0o755))
	if err := unix.Mount("tmpfs", inner, "tmpfs", 0, "size=64k"); err != nil {
		missing(t, "this test needs root: %s", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(inner, unix.MNT_DETACH) })
	noUndo(t, Options{Storage: state}, "contains the mount point "+inner)
	noUndo(t, Options{Storage: state, Dir: filepath.Join(state, ".undo")}, "contains the mount point "+inner)
}

// A lock belongs to an open file: another file under its name would let a second entrypoint in.
func TestLockInTheStorageDirectoryIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	smallState(t, state)
	require.NoError(t, os.Mkdir(filepath.Join(state, "sub"), 0o755))
	const says = "its lock cannot be replaced while it is held"
	noUndo(t, Options{Storage: state, Checkpoint: filepath.Join(state, "c.json")}, says)
	noUndo(t, Options{Storage: state, Checkpoint: filepath.Join(state, "sub", "c.json")}, says)
	inPlace := filepath.Join(state, ".undo")
	noUndo(t, Options{Storage: state, Checkpoint: filepath.Join(state, "sub", "c.json"), Dir: inPlace}, says)
	u := newUndo(t, Options{Storage: state, Checkpoint: filepath.Join(state, "c.json"), Dir: inPlace, Mode: Copy})
	_, err := u.Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
}

// The lock of the real store is on the directory itself. After an exchange the store locks the new one.
func TestStoreKeepsItsLocksWhenAnUndoPointIsPutBack(t *testing.T) {
	w := newWorld(t, "exchange")
	path := filepath.Join(w.dir, "c.json")
	store, err := checkpoint.Open(path, w.state)
	require.NoError(t, err)
	defer store.Close()
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	require.NoError(t, store.SaveStamp(checkpoint.Stamp{VersionIndex: 1, Name: "v1", StartHeight: 101, UndoPoint: p.ID}))
	_, err = w.undo(t).PutBack(p)
	require.NoError(t, err)
	require.NoError(t, store.Held())
	_, err = checkpoint.Open("", w.state)
	require.ErrorAs(t, err, new(*checkpoint.LockHeldError))
	found, err := store.Load()
	require.NoError(t, err)
	assert.Equal(t, "v0", found.Stamp.Name)
	require.NoError(t, store.SaveStamp(*found.Stamp))
}

func TestOutlookKnowsReflinksAndRoom(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			state := filepath.Join(mounted(t, kind, ""), "state")
			smallState(t, state)
			assert.True(t, hasReflinks(filepath.Dir(state)))
			assert.Empty(t, newUndo(t, Options{Storage: state}).Outlook(t.Context(), "v1"))
		})
	}
	dir := mounted(t, "tmpfs", "size=16m")
	assert.False(t, hasReflinks(dir))
	state := filepath.Join(dir, "state")
	u := newUndo(t, Options{Storage: state})
	assert.Empty(t, u.Outlook(t.Context(), "v1"), "there is no state yet")
	smallState(t, state)
	assert.Empty(t, u.Outlook(t.Context(), "v1"), "it is small")
	write(t, filepath.Join(state, "large"), strings.Repeat("x", 10<<20))
	assert.Contains(t, u.Outlook(t.Context(), "v1"), "the state, 10.5 MB, is more than half of the free 6.")
	late, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Empty(t, u.Outlook(late, "v1"), "nothing was measured in that time")
}
