package undo

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// asStranger runs a test again as a user who owns nothing here.
func asStranger(t *testing.T, state func() string) (string, bool) {
	t.Helper()
	return again(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4711, Gid: 4711}}, state)
}

// openDir is a directory that any user can enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "undo") //nolint:usetesting // that one is in a directory that only we may enter
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// Such as /var/lib/private, in which systemd keeps the state of a unit with DynamicUser.
func TestDirectoryThatCannotBeReadIsNoReasonNotToStart(t *testing.T) {
	state, stranger := asStranger(t, func() string {
		dir := openDir(t)
		state := filepath.Join(dir, "state")
		smallState(t, state)
		require.NoError(t, os.Chmod(dir, 0o711))
		return state
	})
	if !stranger {
		return
	}
	for _, mode := range []Mode{Auto, Off} {
		u := newUndo(t, Options{Storage: state, Mode: mode})
		found, err := u.Find()
		require.NoError(t, err)
		assert.Nil(t, found)
		assert.Empty(t, u.Aside())
	}
	noUndo(t, Options{Storage: state}, "this user cannot read the directory "+filepath.Dir(state))
}

func TestUndoDirectoryThatIsAFileIsNoReasonNotToStart(t *testing.T) {
	w := newWorld(t, "exchange")
	file := filepath.Join(w.dir, "undo")
	write(t, file, "")
	u := newUndo(t, Options{Storage: w.state, Dir: file, Mode: Auto})
	_, err := u.Find()
	require.NoError(t, err)
	_, err = u.Make(t.Context(), pointToV1(), nil)
	wantNone(t, Auto, err, "not a directory")
}

func TestDropDeletesAnUndoPointWhoseDescriptionIsTorn(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, way)
			whole := w.content(t)
			p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
			require.NoError(t, err)
			mine := filepath.Join(filepath.Dir(p.Path), "state.before-lunch")
			write(t, filepath.Join(mine, "mine"), "mine")
			require.NoError(t, os.Truncate(filepath.Join(p.Path, checkpoint.UndoFile), 40))
			_, err = w.undo(t).Find()
			require.ErrorContains(t, err, p.Path)
			assert.Equal(t, []string{p.Path}, w.undo(t).Torn())
			deleted, err := w.undo(t).Drop()
			require.NoError(t, err)
			assert.Equal(t, []string{p.Path}, deleted)
			assert.False(t, exists(p.Path))
			assert.True(t, exists(mine))
			assert.Equal(t, whole, w.content(t))
			_, err = w.undo(t).Find()
			require.NoError(t, err)
		})
	}
}

// It was put back, and the description was damaged before it could be removed.
func TestDropRemovesATornDescriptionFromTheState(t *testing.T) {
	w := newWorld(t, "exchange")
	whole := w.content(t)
	write(t, filepath.Join(w.state, checkpoint.UndoFile), "{")
	_, err := w.undo(t).Find()
	require.Error(t, err)
	assert.Equal(t, []string{filepath.Join(w.state, checkpoint.UndoFile)}, w.undo(t).Torn())
	_, err = w.undo(t).Drop()
	require.NoError(t, err)
	assert.Equal(t, whole, w.content(t))
}

// A description that cannot be read today may be read tomorrow.
func TestDropKeepsAnUndoPointThatCannotBeReadNow(t *testing.T) {
	state, stranger := asStranger(t, func() string {
		dir := openDir(t)
		state := filepath.Join(dir, "state")
		smallState(t, state)
		p, err := newUndo(t, Options{Storage: state, Mode: Copy}).Make(t.Context(), pointToV1(), nil)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(filepath.Join(p.Path, checkpoint.UndoFile), 0o600))
		require.NoError(t, os.Chmod(dir, 0o777))
		return state
	})
	if !stranger {
		return
	}
	u := newUndo(t, Options{Storage: state})
	assert.Empty(t, u.Torn())
	_, err := u.Drop()
	require.ErrorContains(t, err, "permission denied")
	assert.True(t, exists(state+".before-v1"))
}

// A migration may remove everything.
func TestFailedStateWithoutAStampGetsOne(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			w := newWorld(t, way)
			p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
			require.NoError(t, err)
			spoil(t, w.state)
			require.NoError(t, os.Remove(filepath.Join(w.state, checkpoint.StampFile)))
			aside, err := w.undo(t).PutBack(p)
			require.NoError(t, err)
			require.NotEmpty(t, aside)
			assert.Equal(t, aside, w.undo(t).Aside())
			stamp, err := stampOf(aside)
			require.NoError(t, err)
			stamp.UpdatedAt = stampOfV0.UpdatedAt
			assert.Equal(t, checkpoint.Stamp{
				VersionIndex: 1, Name: "v1", StartHeight: 101, Migration: checkpoint.MigrationBegun, UndoPoint: p.ID, UpdatedAt: stampOfV0.UpdatedAt,
			}, *stamp)
			_, err = w.undo(t).Drop()
			require.NoError(t, err)
			assert.False(t, exists(aside))
		})
	}
}

func TestFinishSaysWhichUndoPointItHasPutBack(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			reported := 0
			for n := 1; ; n++ {
				w := newWorld(t, way)
				p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
				require.NoError(t, err)
				spoil(t, w.state)
				killed, at := w.killAtStep(t, "put back", n)
				returned, _, err := w.undo(t).Finish()
				require.NoError(t, err, at)
				left, err := w.undo(t).Look()
				require.NoError(t, err, at)
				switch {
				case returned != nil:
					reported++
					assert.Equal(t, p.ID, returned.ID, at)
					assert.Nil(t, left, at)
				case left == nil: // the description was removed, as the last thing
					stamp, err := stampOf(w.state)
					require.NoError(t, err, at)
					assert.Equal(t, "v0", stamp.Name, at)
				}
				again, _, err := w.undo(t).Finish()
				require.NoError(t, err, at)
				assert.Nil(t, again, at)
				if !killed {
					break
				}
			}
			assert.Positive(t, reported)
		})
	}
}

// A deletion of a million files must not hold up a stop.
func TestDeletionEndsWithItsContextAndIsFinishedByTheNextFind(t *testing.T) {
	w := newWorld(t, "exchange")
	older, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		write(t, filepath.Join(older.Path, name, "file"), name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	u := w.undo(t)
	u.step = func(what string) {
		if strings.Contains(what, "undo-deleted") {
			cancel()
		}
	}
	next := pointToV1()
	next.To.Name = "v2"
	_, err = u.Make(ctx, next, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, exists(filepath.Join(u.doomed(), "a", "file")), "nothing of it was deleted after that")
	_, err = w.undo(t).Find()
	require.NoError(t, err)
	assert.Empty(t, w.clutter(t))

	many := filepath.Join(w.dir, "many")
	for i := range 600 { // more than are read at once
		write(t, filepath.Join(many, strconv.Itoa(i%3), strconv.Itoa(i)), "")
	}
	require.NoError(t, os.Symlink(w.state, filepath.Join(many, "link")))
	require.NoError(t, remove(t.Context(), many))
	assert.False(t, exists(many))
	assert.True(t, exists(filepath.Join(w.state, "state.db")), "what a link leads to stays")
}

// A reset is the way out of it, and must not be kept from that.
func TestTornStampInAStorageDirectoryThatStaysIsLeftToOthers(t *testing.T) {
	w := newWorld(t, "in place")
	p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
	require.NoError(t, err)
	write(t, filepath.Join(w.state, checkpoint.StampFile), "{")
	before := w.content(t)
	returned, _, err := w.undo(t).Finish()
	require.NoError(t, err)
	assert.Nil(t, returned)
	assert.Equal(t, before, w.content(t))
	assert.Equal(t, []string{p.Path}, w.undo(t).Copies())
}

// Whatever has the name of the next undo point is found before anything is copied.
func TestSomethingInTheWayOfTheUndoPointIsSaidBeforeTheCopy(t *testing.T) {
	for what, put := range map[string]func(t *testing.T, path string){
		"a copy that a person made": func(t *testing.T, path string) { smallState(t, path) },
		"a file":                    func(t *testing.T, path string) { write(t, path, "") },
		"a link":                    func(t *testing.T, path string) { require.NoError(t, os.Symlink("/nowhere", path)) },
		"another undo point": func(t *testing.T, path string) {
			w := newWorld(t, "exchange")
			p, err := w.undo(t).Make(t.Context(), pointToV1(), nil)
			require.NoError(t, err)
			text, err := os.ReadFile(filepath.Join(p.Path, checkpoint.UndoFile))
			require.NoError(t, err)
			smallState(t, path)
			write(t, filepath.Join(path, checkpoint.UndoFile), strings.ReplaceAll(string(text), `"name": "v1"`, `"name": "v9"`))
		},
	} {
		t.Run(what, func(t *testing.T) {
			for _, mode := range []Mode{Auto, Copy} {
				w := newWorld(t, "exchange")
				w.options.Mode = mode
				path := w.state + ".before-v1"
				put(t, path)
				u := w.undo(t)
				u.step = func(string) { t.Error("something was done") }
				const says = "is in the way and is not an undo point: move it away"
				assert.Contains(t, u.Outlook(t.Context(), "v1"), path+" "+says)
				_, err := u.Make(t.Context(), pointToV1(), nil)
				wantNone(t, mode, err, path+" "+says)
				assert.NotContains(t, u.Outlook(t.Context(), "v2"), says)
				assert.Equal(t, []string{"state", "state.before-v1"}, namesIn(t, w.dir))
			}
		})
	}
}

func TestReasonOfTheCallerRulesOutAnUndoPoint(t *testing.T) {
	w := newWorld(t, "exchange")
	noUndo(t, Options{Storage: w.state, Never: "the programs are in it"}, "the programs are in it")
}
