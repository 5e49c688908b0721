package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"rollup-entrypoint/internal/undo"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const undoUsage = "entrypoint undo -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--undo-dir DIRECTORY] [--drop] [--yes]"

// undoCommand puts the undo point back by hand, under the locks, or deletes it.
func undoCommand(flags *flagSet) func(p program) int {
	var f recordFlags
	u := undoFlags{mode: string(undo.Off), fixed: true} // it makes none
	var drop, yes bool
	flags.acts = []string{"drop", "yes"}
	f.register(flags)
	u.registerDir(flags)
	flags.BoolVar(&drop, "drop", false, "delete the undo point, and the state that one has replaced, instead")
	flags.BoolVar(&yes, "yes", false, "do not ask for confirmation; required without a terminal")
	flags.check = func() error { return flags.want(f.settle(flags) && flags.NArg() == 0 && f.config != "") }
	return func(p program) int {
		plan, storage, err := f.planWithState()
		if err != nil {
			return fail(p, err)
		}
		keeper, err := u.at(plan, storage, f.checkpoint, newLog(p.stderr, isTerminal(os.Stderr), slog.LevelWarn))
		if err != nil {
			return fail(p, err)
		}
		store, err := checkpoint.Open(f.checkpoint, storage)
		if err != nil {
			return fail(p, notWritten("the record cannot be locked", err, "nothing was changed"))
		}
		defer store.Close()
		by := undoing{p: p, plan: plan, keeper: keeper, store: store, storage: storage, yes: yes}
		if drop {
			return fail(p, by.drop())
		}
		return fail(p, by.run())
	}
}

// undoing is what 'entrypoint undo' works with, under the locks.
type undoing struct {
	p       program
	plan    *sequencer.Plan
	keeper  *undo.Undo
	store   *checkpoint.Store
	storage string
	yes     bool
}

// finish completes an undo that was interrupted, and says so. It gives the undo point; nil if there was nothing to do.
func finish(w io.Writer, keeper *undo.Undo) (*checkpoint.UndoPoint, error) {
	returned, aside, err := keeper.Finish()
	if err != nil {
		return nil, &sequencer.Failure{
			Code: sequencer.CodeCheckpointNotWritable, What: "what was begun with an undo point cannot be finished", Err: err,
			Safe: "the state is whole, under its name or as the undo point, or nothing will start on what is there",
			Next: "remove the cause and run this again; if a description is torn, remove it with 'entrypoint undo --drop'",
		}
	}
	if returned == nil {
		return nil, nil //nolint:nilnil // as Finish
	}
	printLine(w, "finished", "an undo had been interrupted, and the undo point is the state now")
	printAside(w, aside)
	return returned, nil
}

func printAside(w io.Writer, aside string) {
	if aside != "" {
		printLine(w, "kept", "what was the state is now %s; delete it with --drop", aside)
	}
}

// run says what will be lost, asks, and puts the undo point back. One that a call before this one has put back gets its
// checkpoint.
func (u *undoing) run() error {
	finished, err := finish(u.p.stdout, u.keeper)
	if err != nil {
		return err
	}
	if finished != nil {
		return u.complete(finished)
	}
	point, err := u.keeper.Look()
	if err != nil {
		return undoFailed("cannot find out whether there is an undo point", err, "nothing was changed")
	}
	if point == nil {
		return &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: "there is no undo point of the state in " + u.storage, Safe: "nothing was changed",
			Next: "restore a snapshot of the state; or name the directory of the undo point with --undo-dir",
		}
	}
	found, err := u.store.Load() // what cannot be read is replaced
	u.printLoss(u.p.stdout, found, err, point)
	if err := u.confirm(); err != nil {
		return err
	}
	aside, err := u.keeper.PutBack(*point)
	if err != nil {
		return undoFailed("the undo is not complete", err, "the state is whole, under its name or as the undo point, or nothing will start on what is there")
	}
	printAside(u.p.stdout, aside)
	return u.complete(point)
}

// complete is the end of an undo, when the state is that of the undo point.
func (u *undoing) complete(point *checkpoint.UndoPoint) error {
	if err := u.putCheckpointBack(point); err != nil {
		return err
	}
	printLine(u.p.stdout, "done", "the state is that of version %d (%s) again", point.Stamp.VersionIndex, point.Stamp.Name)
	return nil
}

// confirm asks the person at the terminal.
func (u *undoing) confirm() error {
	f := &sequencer.Failure{Code: sequencer.CodeUsage, What: "nothing was changed"}
	switch {
	case u.yes:
		return nil
	case !isTerminal(os.Stdin):
		f.Next = "stdin is not a terminal, so nobody can be asked: add --yes to do this"
		return f
	case !confirmed(u.p.stderr):
		return f
	}
	return nil
}

// putCheckpointBack writes the checkpoint of that time, and keeps the present one. The stamp counts: if that checkpoint
// cannot be used, or this fails, the next start corrects the present one.
func (u *undoing) putCheckpointBack(point *checkpoint.UndoPoint) error {
	kept, err := u.store.KeepCheckpoint()
	var before checkpoint.Checkpoint
	if err == nil {
		if kept != "" {
			printLine(u.p.stdout, "", "the checkpoint was kept as %s", kept)
		}
		before, err = checkpoint.Parse([]byte(point.Checkpoint))
		if point.Checkpoint == "" || err != nil {
			printLine(u.p.stdout, "checkpoint", "the next start corrects it: the undo point has none that can be used")
			return nil
		}
		err = u.store.SaveCheckpoint(before)
	}
	if err != nil {
		return &sequencer.Failure{
			Code: sequencer.CodeCheckpointNotWritable, What: "the checkpoint was not written", Err: err,
			Safe: "the state was put back, and its stamp counts", Next: "make the volume of the checkpoint writable: the next start corrects the checkpoint",
		}
	}
	return nil
}

// drop deletes the undo point, and the state that was set aside.
func (u *undoing) drop() error {
	torn := u.keeper.Torn()
	if len(torn) == 0 { // otherwise Drop does it
		if _, err := finish(u.p.stdout, u.keeper); err != nil {
			return err
		}
	}
	point, err := u.keeper.Look()
	if err != nil && len(torn) == 0 {
		return undoFailed("cannot find out whether there is an undo point", err, "nothing was deleted")
	}
	if err := u.onlyWhole(point, torn); err != nil {
		return err
	}
	lost := u.lost(point)
	copies := u.keeper.Copies()
	if len(copies) == 0 && len(torn) == 0 && lost == nil {
		printLine(u.p.stdout, "", "nothing to delete: there is no undo point, and no state that was set aside")
		return nil
	}
	u.printDrop(point, torn, copies, lost)
	if err := u.confirm(); err != nil {
		return err
	}
	if _, err := u.keeper.Drop(); err != nil {
		return undoFailed("not everything was deleted", err, "the state was not touched")
	}
	if lost != nil {
		if err := u.store.SaveStamp(*lost); err != nil {
			return undoFailed("the stamp of the state cannot be written", err, "the stamp is either the old or the new one")
		}
	}
	printLine(u.p.stdout, "done", "the state in %s stays as it is, and the last upgrade can no longer be undone", u.storage)
	return nil
}

// lost gives the stamp of a half-migrated state that no longer names its undo point, if that is not found: then
// on_interrupted_migration decides. It gives nil for any other state.
func (u *undoing) lost(point *checkpoint.UndoPoint) *checkpoint.Stamp {
	found, err := u.store.LoadState()
	stamp := found.Stamp
	if err != nil || stamp == nil || stamp.Migration != checkpoint.MigrationBegun || stamp.DryRun || stamp.UndoPoint == "" || point != nil {
		return nil
	}
	stamp.UndoPoint, stamp.Entered = "", false
	return stamp
}

// printDrop says what will be deleted.
func (u *undoing) printDrop(point *checkpoint.UndoPoint, torn, copies []string, lost *checkpoint.Stamp) {
	if point != nil {
		printLine(u.p.stdout, "deletes", "%s", describePoint(point))
	}
	for _, path := range torn {
		printLine(u.p.stdout, "deletes", "%s: an undo point whose description cannot be read", path)
	}
	for _, path := range copies {
		if (point == nil || path != point.Path) && !slices.Contains(torn, path) {
			printLine(u.p.stdout, "deletes", "%s: a state that an undo point has replaced", path)
		}
	}
	if lost != nil {
		printLine(u.p.stdout, "forgets", "the undo point that the stamp names, which is not found: on_interrupted_migration then decides about the half-migrated state")
	}
}

// onlyWhole refuses to delete the undo point of a migration, or of a dry run, that was interrupted.
func (u *undoing) onlyWhole(point *checkpoint.UndoPoint, torn []string) error {
	found, err := u.store.LoadState()
	f := &sequencer.Failure{Code: sequencer.CodeMismatch, Safe: "nothing was deleted"}
	switch stamp := found.Stamp; {
	case err != nil && point == nil && len(torn) == 0:
		return nil
	case err != nil:
		f.What, f.Err, f.Next = "the stamp of the state cannot be read, so the undo point may be the only whole state", err, "run 'entrypoint undo', which puts it back; or repair the stamp"
	case stamp == nil || stamp.Migration != checkpoint.MigrationBegun || stamp.UndoPoint == "":
		return nil
	case point != nil && point.ID == stamp.UndoPoint:
		f.What, f.Next = "the state is half migrated, and this undo point is the only whole one", "start the entrypoint, or run 'entrypoint undo': both put it back"
	case point == nil && len(torn) > 0:
		f.What = "the state is half migrated, and " + torn[0] + ", whose description cannot be read, may be the only whole one"
		f.Next = "move the state away by hand, give that directory its name, and remove the description, " + checkpoint.UndoFile
	default:
		return nil
	}
	return f
}

func undoFailed(what string, err error, safe string) error {
	return &sequencer.Failure{
		Code: sequencer.CodeCheckpointNotWritable, What: what, Err: err, Safe: safe,
		Next: "remove the cause and run this again",
	}
}

// printLoss says what the state is now, what it becomes, and what that costs.
func (u *undoing) printLoss(w io.Writer, found checkpoint.Found, err error, point *checkpoint.UndoPoint) {
	printLine(w, "state", "%s", u.storage)
	if found.Stamp != nil {
		printStamp(w, *found.Stamp)
	} else {
		printLine(w, "stamp", "none")
	}
	now := found.Checkpoint
	if now != nil && now.Height != nil {
		printLine(w, "height", "%d, when its node was asked last", *now.Height)
	}
	if err != nil {
		printLine(w, "unreadable", "%s", err)
	}
	printLine(w, "undo point", "%s", describePoint(point))
	lost := "everything that was done to the state since then"
	if point.Height != nil {
		lost = fmt.Sprintf("every block above height %d", *point.Height)
		if now != nil && now.Height != nil && *now.Height > *point.Height {
			lost += fmt.Sprintf(": %d blocks or more", *now.Height-*point.Height)
		}
	}
	printLine(w, "lost", "%s", lost)
	printLine(w, "elsewhere", "nothing is changed: undo what the chain keeps elsewhere, such as the sequencer's database, too")
	printLine(w, "then", "the next start %s", u.then(point))
}

// then says what the next start does with the state of the undo point.
func (u *undoing) then(point *checkpoint.UndoPoint) string {
	i, image := planned(u.plan, point.Stamp), ""
	if i >= 0 && u.plan.Versions[i].Retired {
		i, image = -1, u.plan.Versions[i].LastImage
	}
	if i >= 0 {
		return fmt.Sprintf("continues with version %d (%s), and enters %s again: fix that version first, or hold it", i, point.Stamp.Name, point.To.Name)
	}
	if image != "" {
		image = " (last image: " + image + ")"
	}
	return fmt.Sprintf("is refused: %s cannot run version %q from height %d, which that state needs: use a plan and an image that can%s",
		u.plan.File, point.Stamp.Name, point.Stamp.StartHeight, image)
}
