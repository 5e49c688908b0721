package preflight

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/undo"
	"rollup-entrypoint/sequencer/checkpoint"
)

func TestUpgradeThatCouldNotBeUndoneIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	state := dir + "/state"
	require.NoError(t, os.MkdirAll(state, 0o755))
	mountOrSkip(t, "none", state, "tmpfs", 0, "size=8m")
	stamped := func(version int) {
		text, err := checkpoint.EncodeStamp(checkpoint.Stamp{VersionIndex: version, Name: "v"})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(state+"/"+checkpoint.StampFile, text, 0o600))
	}
	n := New(plan)
	found := func(mode undo.Mode, undoDir string) string {
		var err error
		n.Undo, err = undo.New(undo.Options{Storage: state, Dir: undoDir, Mode: mode})
		require.NoError(t, err)
		return strings.Join(rows(n.undoPoint()), "\n")
	}
	assert.Empty(t, found(undo.Auto, ""), "there is no state yet")
	stamped(0)
	assert.Contains(t, found(undo.Auto, ""), "-1 warning: the next upgrade could not be undone, because there would be no undo point: "+state+" is a mount point")
	assert.Empty(t, found(undo.Auto, state+"/.undo"))
	require.NoError(t, os.WriteFile(state+"/large", make([]byte, 5<<20), 0o600))
	assert.Contains(t, found(undo.Auto, state+"/.undo"), "more than half of the free 3.1 MB → move the state to a file system with reflinks, such as XFS")
	assert.Empty(t, found(undo.Off, ""))
	require.NoError(t, os.Mkdir(state+"/.undo", 0o755))
	way := state + "/.undo/state.before-" + plan.Versions[1].Name
	require.NoError(t, os.WriteFile(way, nil, 0o600))
	assert.Contains(t, found(undo.Auto, state+"/.undo"), way+" is in the way and is not an undo point: move it away")
	stamped(plan.Last())
	assert.Empty(t, found(undo.Auto, ""), "no upgrade is ahead")
	n.Undo = nil
	assert.Empty(t, n.undoPoint())
}

// Then the stamp is in the checkpoint, if there is one.
func TestUpgradeOfAStateThatNobodyNamesCannotBeUndone(t *testing.T) {
	plan, dir := realPlan(t)
	require.NoError(t, os.WriteFile(dir+"/config.toml", []byte("runner.http_config.bind_port = 1\n"), 0o600))
	n := New(plan)
	storage, err := n.StateDir()
	require.NoError(t, err)
	require.Empty(t, storage)
	assert.Empty(t, n.undoPoint(), "none is wanted")
	n.UndoWanted = true
	const says = "there would be no undo point: no node config says where the state is → set storage.path in the node configs; otherwise hold the upgrade"
	assert.Contains(t, strings.Join(rows(n.undoPoint()), "\n"), says)
	n.Checkpoint = dir + "/c.json"
	assert.Contains(t, strings.Join(rows(n.undoPoint()), "\n"), says)
	for version, warns := range map[string]bool{"0": true, strconv.Itoa(plan.Last()): false} {
		require.NoError(t, os.WriteFile(n.Checkpoint, []byte(`{"version_index": `+version+`, "binary_path": "./v"}`), 0o600))
		assert.Equal(t, warns, len(n.undoPoint()) > 0, version)
	}
}
