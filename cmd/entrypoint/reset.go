package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/undo"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const resetUsage = "entrypoint reset -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--undo-dir DIRECTORY] [--delete] [--yes]"

// resetCommand takes state and checkpoint away together, under the locks, so that the next start begins at genesis.
func resetCommand(flags *flagSet) func(p program) int {
	var f recordFlags
	u := undoFlags{mode: string(undo.Off), fixed: true} // it makes none
	var remove, yes bool
	flags.acts = []string{"delete", "yes"}
	f.register(flags)
	u.registerDir(flags)
	flags.BoolVar(&remove, "delete", false, "delete both instead of renaming them")
	flags.BoolVar(&yes, "yes", false, "do not ask for confirmation; required without a terminal")
	flags.check = func() error { return flags.want(f.settle(flags) && flags.NArg() == 0 && f.config != "") }
	return func(p program) int {
		plan, storage, err := f.planWithState()
		if err != nil {
			return fail(p, err)
		}
		store, err := checkpoint.Open(f.checkpoint, storage)
		if err != nil {
			return fail(p, notWritten("the record cannot be locked", err, "nothing was changed"))
		}
		defer store.Close()
		keeper, err := u.at(plan, storage, f.checkpoint, newLog(p.stderr, isTerminal(os.Stderr), slog.LevelWarn))
		if err == nil { // what was the state would never be recognised without the one that has replaced it
			_, err = finish(p.stdout, keeper)
		}
		if err != nil {
			return fail(p, err)
		}
		reset, err := store.PrepareReset(remove)
		if err != nil {
			return fail(p, notResettable(err))
		}
		switch err := notThere(store, reset); {
		case err != nil:
			return fail(p, err)
		case reset.Empty():
			fmt.Fprintf(p.stdout, "nothing to reset: there is no state in %s, and no checkpoint\n", plain.Line(storage))
			return 0
		}
		printCopies(p.stdout, keeper, storage)
		return doReset(p, f.inspection, store, reset, yes)
	}
}

// notThere refuses to take away the checkpoint of a state that is not there. The state may only not be mounted, or a
// relative path may lead elsewhere from here, and the next start would continue with that state.
func notThere(store *checkpoint.Store, r *checkpoint.Reset) error {
	found, err := store.Load()
	if r.State != "" || r.Leftover != "" || err != nil || found.Checkpoint == nil || !found.Checkpoint.Stamped && found.Checkpoint.Height == nil {
		return nil
	}
	return &sequencer.Failure{
		Code: sequencer.CodeMismatch, Cause: sequencer.StateGone, Safe: "nothing was changed",
		What: fmt.Sprintf("the checkpoint, at version %d, belongs to a state, but there is none in %s", found.Checkpoint.VersionIndex, found.Storage),
		Next: "mount the state, or run this in the directory in which the entrypoint runs; if the state is gone for good, move the checkpoint away by hand",
	}
}

// planWithState is plan for a command that exchanges or removes the storage directory as a whole.
func (f *recordFlags) planWithState() (plan *sequencer.Plan, storage string, err error) {
	if plan, storage, err = f.plan(); err == nil {
		err = ownDirectory(plan, storage)
	}
	return plan, storage, err
}

// ownDirectory refuses a state whose directory is not known, or holds more than the state: a reset would take the
// versions away.
func ownDirectory(plan *sequencer.Plan, storage string) error {
	const byHand = ", or, with the node stopped, move checkpoint and state away by hand"
	f := &sequencer.Failure{Code: sequencer.CodeMismatch, Safe: "nothing was changed"}
	if storage == "" {
		f.Cause, f.What = sequencer.StorageUnknown, "no node config of "+plan.File+" says where the state is"
		f.Next = "set storage.path in the node configs" + byHand
		return f
	}
	if file := within(plan, storage); file != "" {
		f.What = fmt.Sprintf("%s is in %s, the directory of the state", file, storage)
		f.Next = "give the state a directory of its own" + byHand
		return f
	}
	return nil
}

// within gives a file of the plan, such as a program, that is in the storage directory; empty for none.
func within(plan *sequencer.Plan, storage string) string {
	dir, found := strings.TrimSuffix(checkpoint.ResolveLinks(storage), "/")+"/", ""
	look := func(file string) {
		if file != "" && strings.HasPrefix(checkpoint.ResolveLinks(file), dir) {
			found = file
		}
	}
	for i := range plan.Versions {
		v := &plan.Versions[i]
		if len(v.Before) > 0 {
			look(v.Before[0])
		}
		look(v.Migration)
		look(v.Config)
		look(v.Binary)
	}
	look(plan.File)
	return found
}

// printCopies names the other states that a reset leaves, or takes along because they are in the directory of the state.
func printCopies(w io.Writer, keeper *undo.Undo, storage string) {
	for _, path := range keeper.Copies() {
		if strings.HasPrefix(path, checkpoint.ResolveLinks(storage)+"/") {
			printLine(w, "also", "%s goes with the state", path)
		} else {
			printLine(w, "left", "%s; delete it with 'entrypoint undo --drop'", path)
		}
	}
}

// doReset says what will be done and what follows, asks the person at the terminal, and does it.
func doReset(p program, inspection *preflight.Inspection, store *checkpoint.Store, r *checkpoint.Reset, yes bool) int {
	printReset(p.stdout, store, r)
	printNextStart(p.stdout, inspection)
	switch {
	case yes:
	case !isTerminal(os.Stdin):
		return usageError(p, "reset", errors.New("nothing was changed: stdin is not a terminal, so nobody can be asked; add --yes to do this"))
	case !confirmed(p.stderr):
		fmt.Fprintln(p.stderr, "entrypoint: nothing was changed")
		return sequencer.CodeUsage
	}
	if err := r.Run(); err != nil {
		f := &sequencer.Failure{
			Code: sequencer.CodeCheckpointNotWritable, What: "the reset is not complete", Err: err,
			Safe: "checkpoint and state are whole, under the old names or the new ones", Next: "make the volume writable, and run this again to finish the reset",
		}
		if r.StateTo == "" {
			f.Safe = "the state is whole, or nothing will start on what is left of it"
		}
		return fail(p, f)
	}
	printLine(p.stdout, "done", "the reset is complete")
	return 0
}

// notResettable says why nothing can be done.
func notResettable(err error) error {
	f := &sequencer.Failure{Code: sequencer.CodeCheckpointUnreadable, What: "cannot find out whether there is a state", Err: err, Safe: "nothing was changed"}
	f.Next = "make the storage directory readable for this user, or repair the volume, and run this again"
	var mounted *checkpoint.MountError
	if errors.As(err, &mounted) {
		f.Code, f.What = sequencer.CodeMismatch, "the state cannot be set aside"
		f.Next = "with the node stopped, move the checkpoint away, then what is in these directories"
		if mounted.Point == mounted.Storage {
			f.Next += "; or add --delete, which deletes what is in it"
		}
	}
	return f
}

// printReset says what will be done, and to which state.
func printReset(w io.Writer, store *checkpoint.Store, r *checkpoint.Reset) {
	becomes := func(label, from, to string) {
		switch {
		case from == "":
			printLine(w, label, "there is none")
		case to == "":
			printLine(w, label, "%s is deleted", from)
		default:
			printLine(w, label, "%s becomes %s", from, to)
		}
	}
	becomes("checkpoint", r.Checkpoint, r.CheckpointTo)
	becomes("state", r.State, r.StateTo)
	if r.Leftover != "" {
		printLine(w, "", "%s, left by an interrupted reset, is deleted", r.Leftover)
	}
	found, err := store.Load()
	switch {
	case found.Stamp != nil:
		printStamp(w, *found.Stamp)
	case r.State != "" && err == nil:
		printLine(w, "stamp", "none")
	}
	if c := found.Checkpoint; c != nil && c.Height != nil {
		printLine(w, "height", "%d, when its node was asked last", *c.Height)
	}
	if err != nil {
		printLine(w, "unreadable", "%s", err)
	}
	printLine(w, "elsewhere", "nothing is changed: reset what the chain keeps elsewhere, such as the sequencer's database schema, too")
}

// printNextStart says what the next start after a reset does, and what would keep it from that: it needs every version.
func printNextStart(w io.Writer, inspection *preflight.Inspection) {
	problems, plan := 0, inspection.Plan
	if plan.Versions[0].Retired {
		printLine(w, "then", "the next start %s", retiredGenesis(plan))
		return
	}
	for i := range plan.Versions {
		for _, f := range inspection.Version(context.Background(), i, sequencer.Programs) {
			if f.Severity == sequencer.SeverityError {
				printLine(w, "warning", "%s", f.Text(plan))
				problems++
			}
		}
	}
	text := fmt.Sprintf("runs %s, version 0, from genesis", plan.Versions[0].Name)
	if plan.Last() > 0 {
		text += fmt.Sprintf(", and syncs again through all %d versions", len(plan.Versions))
	}
	if problems > 0 {
		text += "; fix the problems above first"
	}
	printLine(w, "then", "the next start %s", text)
}

// retiredGenesis says why a chain cannot sync from genesis with this plan, and what can make its first blocks.
func retiredGenesis(plan *sequencer.Plan) string {
	retired := ""
	for i := range plan.Versions {
		v := &plan.Versions[i]
		if !v.Retired { // retired versions come before all others
			return fmt.Sprintf("is refused: the blocks below %d are made by retired versions%s; sync to there with an older image, or restore a snapshot of %s or later",
				v.Start, retired, v.Name)
		}
		retired += ", " + v.Name
		if v.LastImage != "" {
			retired += " (last image: " + v.LastImage + ")"
		}
	}
	return "" // the last one is never retired
}

func confirmed(w io.Writer) bool {
	fmt.Fprint(w, `Type "yes" to do this: `)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err == nil && strings.TrimSpace(answer) == "yes"
}
