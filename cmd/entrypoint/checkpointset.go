package main

import (
	"errors"
	"io"
	"syscall"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const setUsage = "entrypoint checkpoint set -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) --version N [--migrated] [--complete] [--stop-height N] [--force] [--dry-run] [--json]"

// setFlags are the flags of `checkpoint set`.
type setFlags struct {
	recordFlags
	word           sequencer.Word
	dryRun, asJSON bool
}

// checkpointSet writes checkpoint and stamp by a person's word.
func checkpointSet(flags *flagSet) func(p program) int {
	var f setFlags
	flags.acts = []string{"version", "migrated", "complete", "force", "dry-run"} // ENTRYPOINT_VERSION may well be a label of the image
	f.register(flags)
	registerStopHeight(flags, &f.stopHeight)
	flags.IntVar(&f.word.Version, "version", -1, "the version that the state belongs to: its index `N` in the plan, from 0")
	flags.Lookup("version").DefValue = "0" // "no version" is not worth showing as a default
	flags.BoolVar(&f.word.Migrated, "migrated", false, "the migration of that version has completed on this state")
	flags.BoolVar(&f.word.Complete, "complete", false, "that version is at its stop height (this only counts for a node that cannot be asked)")
	flags.BoolVar(&f.word.Force, "force", false, "set it even if the stamp of the state says otherwise")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only show what would be written")
	flags.BoolVar(&f.asJSON, "json", false, "print what is written as JSON")
	flags.check = func() error {
		return flags.want(f.settle(flags) && flags.NArg() == 0 && f.config != "" && f.word.Version >= 0)
	}
	return func(p program) int {
		plan, storage, err := f.plan()
		if err != nil {
			return fail(p, err)
		}
		adopted, err := f.adopt(plan, storage)
		switch {
		case err != nil:
		case f.asJSON:
			err = f.printJSON(p.stdout, storage, adopted)
		default:
			f.print(p.stdout, plan, adopted)
		}
		return fail(p, err)
	}
}

// print shows a person what was written, or would be.
func (f *setFlags) print(w io.Writer, plan *sequencer.Plan, adopted sequencer.Adopted) {
	if f.checkpoint != "" {
		printCheckpoint(w, "version", adopted.Checkpoint, plan)
	}
	printStamp(w, adopted.Stamp)
	for _, change := range adopted.Changes {
		printLine(w, "changed", "%s", change)
	}
	if f.dryRun {
		printLine(w, "dry run", "nothing was written; without --dry-run it would be as above")
	}
}

// printJSON prints the same with the keys of `checkpoint show --json`.
func (f *setFlags) printJSON(w io.Writer, storage string, adopted sequencer.Adopted) error {
	written := struct {
		DryRun     bool                   `json:"dry_run"`
		Changes    []string               `json:"changes"`
		Checkpoint *checkpoint.Checkpoint `json:"checkpoint"`
		Stamp      checkpoint.Stamp       `json:"stamp"`
		Storage    string                 `json:"storage"`
	}{f.dryRun, append([]string{}, adopted.Changes...), nil, adopted.Stamp, storage}
	if f.checkpoint != "" {
		written.Checkpoint = &adopted.Checkpoint
	}
	return writeJSON(w, written)
}

// adopt writes what a person says, under the lock: the record of a running sequence must not change. A dry run takes
// the lock too, so that it shows exactly what would be written.
func (f *setFlags) adopt(plan *sequencer.Plan, storage string) (sequencer.Adopted, error) {
	store, err := checkpoint.Open(f.checkpoint, storage)
	if err != nil {
		return sequencer.Adopted{}, notWritten("the record cannot be locked", err, "nothing was changed")
	}
	defer store.Close()
	// If the binary cannot be read, its digest is recorded at the next start.
	digest, _ := f.inspection.Digest(min(f.word.Version, plan.Last()))
	found, err := readable(f.checkpoint, storage, store, f.word.Force)
	if err != nil {
		return sequencer.Adopted{}, err
	}
	adopted, err := sequencer.Adopt(plan, found, f.word, digest)
	if err != nil || f.dryRun {
		return adopted, err //nolint:wrapcheck // a Failure in its own words
	}
	return write(store, storage, adopted)
}

// write keeps the old checkpoint, and writes the stamp first, because the stamp counts.
func write(store *checkpoint.Store, storage string, adopted sequencer.Adopted) (sequencer.Adopted, error) {
	kept, err := store.KeepCheckpoint()
	if err != nil {
		return sequencer.Adopted{}, notWritten("the old checkpoint cannot be kept", err, "nothing was changed")
	}
	if kept != "" {
		adopted.Changes = append(adopted.Changes, "the old checkpoint is kept as "+kept)
	}
	safe := "the checkpoint is unchanged"
	if storage != "" {
		if err := store.SaveStamp(adopted.Stamp); err != nil {
			return sequencer.Adopted{}, notWritten("the stamp of the state cannot be written", err, safe+"; the stamp is either the old or the new one: 'entrypoint checkpoint show' shows which")
		}
		safe = "the stamp of the state is written, and it counts"
	}
	if err := store.SaveCheckpoint(adopted.Checkpoint); err != nil {
		return sequencer.Adopted{}, notWritten("the checkpoint cannot be written", err, safe)
	}
	return adopted, nil
}

// notWritten is the end of a `checkpoint set` that could not lock or write the record.
func notWritten(what string, err error, safe string) error {
	next := "make the volume writable, and run this again"
	var held *checkpoint.LockHeldError
	switch {
	case errors.As(err, &held) && held.HolderGone:
		next = "wait until what is still running has ended (a node may need a SIGTERM), and run this again"
	case held != nil:
		next = "stop the entrypoint that uses it, and run this again"
	}
	return &sequencer.Failure{Code: sequencer.CodeCheckpointNotWritable, What: what, Err: err, Safe: safe, Next: next}
}

// readable is what can be read of the record. A file that is torn or foreign is a reason for 'checkpoint set': it is
// replaced and its content dropped, a stamp only with --force. A file that another user, or a sound disk, could give is
// not.
func readable(path, storage string, store *checkpoint.Store, force bool) (checkpoint.Found, error) {
	unchanged := func(err error, next string) error {
		return &sequencer.Failure{
			Code: sequencer.CodeCheckpointUnreadable, What: "the record so far cannot be read", Err: err, Safe: "nothing was changed", Next: next,
		}
	}
	found, err := store.LoadState()
	switch {
	case err == nil:
	case errors.As(err, new(syscall.Errno)):
		return found, unchanged(err, "make it readable for this user, or repair the volume, and run this again")
	case !force:
		return found, unchanged(err, "restore the state with its stamp, or, if you know which version the state belongs to, add --force")
	default: // where there is a stamp that cannot be read, there is a state
		found.Storage, found.State = storage, checkpoint.StatePresent
	}
	c, err := checkpoint.Read(path, "")
	if errors.As(err, new(syscall.Errno)) {
		return found, unchanged(err, "make it readable for this user, or repair the volume, and run this again")
	}
	found.Checkpoint = c.Checkpoint
	return found, nil
}
