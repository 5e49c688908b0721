package preflight

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// What is wrong with the versions before it is only a warning.
func TestProblemOfTheVersionThatRunsNextIsAnErrorForCheck(t *testing.T) {
	plan, dir := realPlan(t)
	touch(t, dir+"/state/data")
	store, err := checkpoint.Open(dir+"/c.json", dir+"/state")
	require.NoError(t, err)
	v := plan.Versions[1]
	require.NoError(t, store.SaveStamp(checkpoint.Stamp{
		VersionIndex: 1, Name: v.Name, StartHeight: v.Start, StopHeight: v.Stop, Migration: checkpoint.MigrationCompleted, UpdatedAt: time.Now(),
	}))
	require.NoError(t, store.Close())
	for i := range plan.Versions {
		plan.Versions[i].Binary = "/nowhere"
	}
	severities := map[int]sequencer.Severity{}
	for _, f := range New(plan).All(dir + "/c.json") {
		if strings.HasPrefix(f.What, "rollup_binary: ") {
			severities[f.Version] = f.Severity
		}
	}
	assert.Equal(t, map[int]sequencer.Severity{0: sequencer.SeverityWarning, 1: sequencer.SeverityError, 2: sequencer.SeverityError}, severities)
}

// What is left of a retired version is its heights: no question that needs a file has an answer.
func TestRetiredVersionHasNoFilesToInspect(t *testing.T) {
	plan, dir := realPlan(t)
	plan.Versions[0] = sequencer.Version{Name: "v0", Stop: 100, Retired: true, LastImage: "r:1"}
	n := New(plan)
	_, err := n.Digest(0)
	require.EqualError(t, err, "the version is retired: its files are not in this image")
	_, same, err := n.Storage(0, dir+"/state")
	require.ErrorIs(t, err, errRetired)
	assert.False(t, same)
	storage, err := n.StateDir()
	require.NoError(t, err)
	assert.Equal(t, dir+"/state", storage)
	var first []string
	for _, f := range n.All("") {
		if f.Version == 0 {
			first = append(first, f.What)
		}
	}
	require.Len(t, first, 1, "a new chain would need it")
	assert.Contains(t, first[0], "there is no state, and version 0, which makes the first blocks, is retired")
	n.Elsewhere = true
	for _, f := range n.All("") {
		assert.NotZero(t, f.Version, "%s: the state is elsewhere, and may be beyond it", f.What)
	}
	assert.Empty(t, filesOf(plan.Versions[0]))
	assert.Contains(t, filesOf(sequencer.Version{Binary: "/b", Config: "/c", Before: []string{"/hook", "/no/file"}}), "/hook")
	assert.NotContains(t, filesOf(sequencer.Version{Binary: "/b", Config: "/c", Before: []string{"/hook", "/no/file"}}), "/no/file")
}

// A program that is started now must find the state that the config names now. A store into a mapped page changes neither
// size nor inode, and on a tmpfs no time.
func TestConfigIsReadEachTime(t *testing.T) {
	plan, dir := realPlan(t)
	plan.Versions[0].Config = filepath.Join("/dev/shm", filepath.Base(filepath.Dir(dir))+".toml")
	n := New(plan)
	require.NoError(t, os.WriteFile(plan.Versions[0].Config, []byte("storage.path = '/state'\nrunner.http_config.bind_port = 1\n"), 0o644))
	t.Cleanup(func() { _ = os.Remove(plan.Versions[0].Config) })
	file, err := os.OpenFile(plan.Versions[0].Config, os.O_RDWR, 0)
	require.NoError(t, err)
	defer file.Close()
	page, err := unix.Mmap(int(file.Fd()), 0, 30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(page)
	for _, name := range []string{"/state", "/STATE", "/state"} {
		copy(page[len("storage.path = '"):], name)
		now, same, err := n.Storage(0, "/state")
		require.NoError(t, err)
		assert.Equal(t, name, now)
		assert.Equal(t, name == "/state", same)
	}
	require.NoError(t, os.Remove(plan.Versions[0].Config))
	_, _, err = n.Storage(0, "/state")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Kubernetes updates a ConfigMap by a rename of the link "..data", to which the names of its files lead.
func TestConfigInAConfigMapIsReadAgainWhenItsLinkIsReplaced(t *testing.T) {
	plan, dir := realPlan(t)
	for _, name := range []string{"one", "two"} {
		require.NoError(t, os.Mkdir(dir+"/"+name, 0o755))
		require.NoError(t, os.WriteFile(dir+"/"+name+"/node.toml", []byte("storage.path = '"+dir+"/"+name+"'\nrunner.http_config.bind_port = 1\n"), 0o644))
	}
	require.NoError(t, os.Symlink("one", dir+"/..data"))
	plan.Versions[0].Config = dir + "/node.toml"
	require.NoError(t, os.Symlink("..data/node.toml", plan.Versions[0].Config))
	n := New(plan)
	now, same, err := n.Storage(0, dir+"/one")
	require.NoError(t, err)
	assert.Equal(t, dir+"/one", now)
	assert.True(t, same)
	require.NoError(t, os.Symlink("two", dir+"/..data_tmp"))
	require.NoError(t, os.Rename(dir+"/..data_tmp", dir+"/..data"))
	now, same, err = n.Storage(0, dir+"/one")
	require.NoError(t, err)
	assert.Equal(t, dir+"/two", now)
	assert.False(t, same)
}

// The config says nothing of a link in the path of the storage, so that is followed each time.
func TestLinkToTheStorageIsFollowedEachTime(t *testing.T) {
	plan, dir := realPlan(t)
	require.NoError(t, os.WriteFile(dir+"/config.toml", []byte("storage.path = '"+dir+"/link'\nrunner.http_config.bind_port = 1\n"), 0o644))
	n := New(plan)
	for _, name := range []string{"/one", "/two", "/one"} {
		require.NoError(t, os.MkdirAll(dir+name, 0o755))
		_ = os.Remove(dir + "/link")
		require.NoError(t, os.Symlink(dir+name, dir+"/link"))
		now, same, err := n.Storage(0, dir+"/one")
		require.NoError(t, err)
		assert.Equal(t, dir+name, now)
		assert.Equal(t, name == "/one", same)
	}
}

// The README's own command names it after "--".
func TestGenesisThatIsNoFileIsFoundInEitherPlace(t *testing.T) {
	plan, dir := realPlan(t)
	require.NoError(t, unix.Mkfifo(dir+"/fifo", 0o644))
	n := New(plan)
	n.NodeArgs = []string{"--genesis-path", dir + "/fifo"}
	assert.Equal(t, []string{"0 error: argument after --: cannot read the genesis: open " + dir + "/fifo: it is a FIFO, want a regular file → fix that file, or name another one"},
		rows(n.Version(t.Context(), 0, sequencer.FilesOnly)))
	plan.Versions[0].Args, n.NodeArgs = n.NodeArgs, nil
	found := n.Version(t.Context(), 0, sequencer.FilesOnly)
	require.Len(t, found, 1)
	assert.Contains(t, found[0].What, "args: cannot read the genesis: open "+dir+"/fifo")
}
