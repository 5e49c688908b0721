// Package preflight inspects what a run needs before anything is started: the files of the versions and what their
// programs need of the image, the manifest, the volume of the state and the checkpoint, and the machine. There is one
// Inspection for 'check', for the start of a run and for the time before an upgrade, so that they cannot disagree. It
// changes nothing.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/internal/undo"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// Inspection inspects the versions of a plan. It is the sequencer.Inspection of a real machine.
type Inspection struct {
	Plan *sequencer.Plan
	// NodeArgs are passed to every node, after the version's own arguments.
	NodeArgs []string
	// Manifest is the file that is used as the manifest; empty for none.
	Manifest string
	// Undo keeps the undo points; nil for none.
	Undo *undo.Undo
	// UndoWanted: an upgrade is to have an undo point if that is cheap, and to go ahead without one otherwise.
	UndoWanted bool
	// Checkpoint is the checkpoint file, empty for none: it has the stamp if no config says where the state is.
	Checkpoint string
	// Elsewhere: the state is on a volume that is not here. A place without one is then no new chain.
	Elsewhere bool
	// verifier has the manifest, if there is one, and the digests.
	verifier images.Verifier
}

// New gives an inspection without a manifest.
func New(plan *sequencer.Plan) *Inspection {
	return &Inspection{Plan: plan}
}

// Shared finds what is wrong with what all versions share. It is for a run, which has the lock and has read the record:
// to it, what is wrong with the volume or the machine is only a warning. A node may get along with it, and otherwise
// says so itself.
func (n *Inspection) Shared(ctx context.Context, depth sequencer.Depth) []sequencer.Finding {
	var found []sequencer.Finding
	if depth&sequencer.Programs != 0 {
		found = append(n.storage(), asWarnings(n.machine(""))...)
	}
	if depth&sequencer.Manifest != 0 {
		found = append(found, n.comparePlan(ctx)...)
	}
	return found
}

// All finds all that would keep a run from continuing, or a later upgrade from succeeding, as far as it can be known
// before. path is the checkpoint, empty for none.
func (n *Inspection) All(path string) []sequencer.Finding {
	ctx := context.Background()
	var found, ofRecord []sequencer.Finding
	first := 0
	if storage, err := n.StateDir(); err == nil && (!n.Elsewhere || !empty(path, storage)) { // otherwise storage says what is wrong
		first, ofRecord = sequencer.CheckRecord(n.Plan, path, storage, n.Digest)
	}
	for i := range n.Plan.Versions {
		ofVersion := n.Version(ctx, i, sequencer.Programs|sequencer.Manifest)
		if i < first { // it is complete, and is not started any more
			ofVersion = asWarnings(ofVersion)
		}
		found = append(found, ofVersion...)
	}
	return slices.Concat(found, n.Shared(ctx, sequencer.Manifest), n.storage(), ofRecord, n.machine(path))
}

// empty reports whether there is neither a state nor a record of one.
func empty(path, storage string) bool {
	found, err := checkpoint.Read(path, storage)
	return err == nil && found.State != checkpoint.StatePresent && found.Stamp == nil && found.Checkpoint == nil
}

func asWarnings(found []sequencer.Finding) []sequencer.Finding {
	for i := range found {
		found[i].Severity = sequencer.SeverityWarning
	}
	return found
}

// errRetired is why there is no file of a retired version.
var errRetired = errors.New("the version is retired: its files are not in this image")

// Digest gives the SHA-256, in hex, of a version's binary. It is quick as long as the file is the same.
func (n *Inspection) Digest(i int) (string, error) {
	if n.Plan.Versions[i].Retired {
		return "", errRetired
	}
	return n.DigestOf(n.Plan.Versions[i].Binary)
}

// DigestOf is Digest for a program that is named as in the plan.
func (n *Inspection) DigestOf(program string) (string, error) {
	path, err := find(program)
	if err != nil {
		return "", fmt.Errorf("cannot find the binary: %w", err)
	}
	sum, err := n.verifier.Digest(context.Background(), path)
	if err != nil {
		return "", fmt.Errorf("cannot read the binary: %w", err)
	}
	return sum, nil
}

// find gives the file that is executed as the program name.
func find(name string) (string, error) {
	return lookpath.Find(name, os.Getenv("PATH")) // it names the file and PATH
}

// Storage gives the directory in which a program that is started now with the config of version i finds the state, and
// reports whether that is dir.
func (n *Inspection) Storage(i int, dir string) (now string, same bool, err error) {
	cfg, err := n.config(i)
	if err != nil || cfg.Storage == "" {
		return "", dir == "", err
	}
	now = checkpoint.ResolveLinks(cfg.StorageDir())
	return now, dir != "" && sameDirectory(now, dir), nil
}

// config gives the config of version i as it is now. It is read each time, as the node does it: the same inode and times
// do not prove the same content (a mapped page, whole seconds, a network file system), and a config that leads elsewhere
// costs the state.
func (n *Inspection) config(i int) (sovereign.Config, error) {
	if n.Plan.Versions[i].Retired {
		return sovereign.Config{}, errRetired
	}
	return sovereign.ReadConfig(n.Plan.Versions[i].Config) // it names the file
}
