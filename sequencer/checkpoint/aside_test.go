package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// withState opens a store with a checkpoint, a state and its stamp.
func withState(t *testing.T) (store *Store, dir string) {
	t.Helper()
	dir = t.TempDir()
	store, err := Open(filepath.Join(dir, "c.json"), filepath.Join(dir, "state"))
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	require.NoError(t, store.SaveStamp(Stamp{Name: "v0"}))
	require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/v0"}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state", "data"), nil, 0o644))
	return store, dir
}

func reset(t *testing.T, store *Store, remove bool) *Reset {
	t.Helper()
	r, err := store.PrepareReset(remove)
	require.NoError(t, err)
	return r
}

func namesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// Two resets in one second, or a name that somebody has taken: both get the same number.
func TestResetTakesNamesThatAreFreeForBoth(t *testing.T) {
	t.Parallel()
	store, dir := withState(t)
	// The clock may move between the look and the reset.
	for second := range 30 {
		at := time.Now().Add(time.Duration(second) * time.Second).UTC().Format(asideTime)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state."+at), nil, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "c.json."+at+"-2"), nil, 0o644))
	}
	r := reset(t, store, false)
	require.NoError(t, r.Run())
	assert.Regexp(t, `/c\.json\.\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ-3$`, r.CheckpointTo)
	assert.Regexp(t, `/state\.\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ-3$`, r.StateTo)
	assert.FileExists(t, filepath.Join(r.StateTo, StampFile))
}

func TestResetThatCannotMoveTheStatePutsTheCheckpointBack(t *testing.T) {
	t.Parallel()
	store, dir := withState(t)
	r := reset(t, store, false)
	require.NoError(t, os.Mkdir(r.StateTo, 0o755)) // somebody has taken the name meanwhile
	require.Error(t, r.Run())
	assert.Contains(t, namesIn(t, dir), "c.json")
	assert.NoFileExists(t, r.CheckpointTo)
	assert.Equal(t, []string{"data", StampFile}, namesIn(t, filepath.Join(dir, "state")))
	assert.Empty(t, namesIn(t, r.StateTo), "nothing was moved into it")
}

func TestResetThatCannotTakeTheCheckpointLeavesTheState(t *testing.T) {
	t.Parallel()
	for _, remove := range []bool{false, true} {
		store, dir := withState(t)
		r := reset(t, store, remove)
		require.NoError(t, os.Remove(r.Checkpoint))
		require.NoError(t, os.MkdirAll(filepath.Join(r.Checkpoint, "in the way"), 0o755))
		if r.CheckpointTo != "" {
			require.NoError(t, os.WriteFile(r.CheckpointTo, nil, 0o644))
		}
		require.Error(t, r.Run())
		assert.Equal(t, []string{"data", StampFile}, namesIn(t, filepath.Join(dir, "state")))
	}
}

// What a reset leaves of a record in the storage directory is no state.
func TestCheckpointSetAsideInAStorageDirectoryIsNoState(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.Mkdir(state, 0o755))
	store, err := Open(filepath.Join(state, "c.json"), state)
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/v0"}))
	r := reset(t, store, false)
	assert.Empty(t, r.State, "there is none")
	require.NoError(t, r.Run())
	found, err := store.Load()
	require.NoError(t, err)
	assert.Nil(t, found.Checkpoint)
	assert.Equal(t, StateNone, found.State)
	assert.True(t, reset(t, store, false).Empty())
	for name, ours := range map[string]bool{
		"c.json.2026-11-30T07:00:00Z": true, "c.json.2026-11-30T07:00:00Z-2": true, "c.json.2026": false, "c.json.old": false, "d.json.2026-11-30T07:00:00Z": false,
	} {
		assert.Equal(t, ours, isAside("c.json", name), name)
	}
}

func TestStateDeletedInPlaceKeepsItsStampToTheEnd(t *testing.T) {
	t.Parallel()
	store, dir := withState(t)
	state := filepath.Join(dir, "state")
	for _, name := range []string{"lost+found", "a", "z/sub"} {
		require.NoError(t, os.MkdirAll(filepath.Join(state, name), 0o755))
	}
	require.NoError(t, store.deleteForeign(state))
	names := namesIn(t, state)
	slices.Sort(names)
	assert.Equal(t, []string{"lost+found", StampFile}, names)
	require.NoError(t, store.deleteInPlace())
	assert.Equal(t, []string{"lost+found"}, namesIn(t, state))
}

// A part of a state must never have a state's name.
func TestStateIsDeletedUnderAnotherName(t *testing.T) {
	t.Parallel()
	store, dir := withState(t)
	r := reset(t, store, true)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "state"+doomedSuffix, "in the way"), 0o755))
	require.Error(t, r.Run())
	assert.Equal(t, []string{"data", StampFile}, namesIn(t, filepath.Join(dir, "state")))
	r = reset(t, store, true)
	require.NoError(t, r.Run())
	assert.Equal(t, []string{"c.json.lock", "state"}, namesIn(t, dir))
	assert.Empty(t, namesIn(t, filepath.Join(dir, "state")))
}

func TestStateThatCannotBeMarkedIsNotDeletedInPlace(t *testing.T) {
	t.Parallel()
	store, dir := withState(t)
	stamp := filepath.Join(dir, "state", StampFile)
	require.NoError(t, os.Remove(stamp))
	require.NoError(t, os.MkdirAll(filepath.Join(stamp, "in the way"), 0o755))
	require.Error(t, store.deleteInPlace())
	assert.Equal(t, []string{"data", StampFile}, namesIn(t, filepath.Join(dir, "state")))
}

func TestMountPointIsFoundInADirectoryAndAtIt(t *testing.T) {
	t.Parallel()
	assert.Empty(t, MountIn(t.TempDir()))
	table, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(table)) {
		point := strings.Fields(line)[4]
		if above := filepath.Dir(point); above != "/" && !strings.Contains(point, `\`) {
			assert.True(t, strings.HasPrefix(MountIn(point), point), point)
			assert.True(t, strings.HasPrefix(MountIn(above), above+"/"), above)
		}
	}
}
