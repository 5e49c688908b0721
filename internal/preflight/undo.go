package preflight

import (
	"context"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// undoLookTime is how long the state is measured: a state of a million files must not hold up a start.
const undoLookTime = 300 * time.Millisecond

// undoPoint finds, long before the height, that the next upgrade could not be undone.
func (n *Inspection) undoPoint() []sequencer.Finding {
	storage, err := n.StateDir()
	if err != nil {
		return nil
	}
	version, next := n.upgradeAhead(storage), ""
	if version == "" {
		return nil
	}
	why := ""
	switch {
	case n.Undo != nil:
		ctx, cancel := context.WithTimeout(context.Background(), undoLookTime)
		defer cancel()
		why = n.Undo.Outlook(ctx, version)
		next = "move the state to a file system with reflinks, such as XFS, or make the volume larger, or see --undo and --undo-dir"
	case n.UndoWanted && storage == "":
		why, next = "no node config says where the state is", "set storage.path in the node configs"
	}
	if why == "" {
		return nil
	}
	return []sequencer.Finding{warning(next+"; otherwise hold the upgrade and take a snapshot of the volume, or set --undo to off if you need none",
		"the next upgrade could not be undone, because there would be no undo point: %s", why)}
}

// upgradeAhead gives the name of the version after that of the state; empty if there is none, or no state yet.
func (n *Inspection) upgradeAhead(storage string) string {
	path := ""
	if storage == "" {
		path = n.Checkpoint
	}
	found, err := checkpoint.Read(path, storage)
	at := 0
	switch {
	case err != nil, storage != "" && found.Stamp == nil:
		return ""
	case found.Stamp != nil:
		at = found.Stamp.VersionIndex
	case found.Checkpoint != nil:
		at = found.Checkpoint.VersionIndex
	}
	if at >= n.Plan.End() {
		return ""
	}
	return n.Plan.Versions[at+1].Name
}
