package main

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	checkpointUsage = "entrypoint checkpoint show|set [FLAGS]"
	showUsage       = "entrypoint checkpoint show (-f CHECKPOINT | --no-checkpoint-file) [-c CONFIG] [--json]"
	setUsage        = "entrypoint checkpoint set -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) --version N [--migrated] [--complete] [--force]"
)

func checkpointCommand(p program, args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "show":
			return checkpointShow(p, args[1:])
		case "set":
			return checkpointSet(p, args[1:])
		case "-h", "--help":
			fmt.Fprintf(p.stdout, "Usage:\n  %s\n  %s\n", showUsage, setUsage)
			return 0
		}
	}
	return usageError(p, "checkpoint", errors.New("want: "+checkpointUsage))
}

// fail prints why a command failed, with the last words of the node that it started, and gives the exit code.
func fail(p program, err error) int {
	fmt.Fprintf(p.stderr, "entrypoint: %s\n", err)
	var f *sequencer.Failure
	if errors.As(err, &f) {
		fmt.Fprint(p.stderr, lastWords(f.Stderr, terminationLimit))
		return f.Code
	}
	return sequencer.CodeMismatch
}

// checkpointShow prints checkpoint and stamp without taking a lock, so that it works beside a running sequence.
func checkpointShow(p program, args []string) int {
	var f recordFlags
	var asJSON bool
	flags := newFlags("checkpoint show")
	f.register(flags)
	flags.BoolVar(&asJSON, "json", false, "print the record as JSON")
	if code, done := parseOrHelp(p, flags, showUsage, args); done {
		return code
	}
	f.settle(flags)
	if flags.NArg() > 0 || !f.isNamed() || f.noCheckpoint && f.config == "" {
		return usageError(p, "checkpoint show", errors.New("want: "+showUsage))
	}
	plan, storage, err := f.plan()
	var found checkpoint.Found
	if err == nil {
		if found, err = checkpoint.Read(f.checkpoint, storage); err != nil {
			err = f.recordUnreadable(plan, found, err)
		}
	}
	switch {
	case err != nil && !asJSON:
		printReadable(p.stdout, f.checkpoint, storage, plan)
		return fail(p, err)
	case err != nil:
		return fail(p, err)
	case asJSON:
		err = printRecordJSON(p.stdout, found)
	default:
		printRecord(p.stdout, f.checkpoint, found, plan)
	}
	if err != nil {
		return fail(p, err)
	}
	return 0
}

// recordUnreadable says what to do, if the config is known.
func (f *recordFlags) recordUnreadable(plan *sequencer.Plan, beside checkpoint.Found, err error) error {
	if plan != nil {
		return sequencer.Unreadable(plan, f.checkpoint, err, beside) //nolint:wrapcheck // a Failure in its own words
	}
	return &sequencer.Failure{
		Code: sequencer.CodeCheckpointUnreadable, What: "the record cannot be read", Err: err,
		Safe: "it was left as it is", Next: "run this again with the config (-c), and it says what to do",
	}
}

// printReadable prints what of checkpoint and stamp can be read, if something else cannot be: it may well say which version
// the state belongs to.
func printReadable(w io.Writer, path, storage string, plan *sequencer.Plan) {
	if found, err := checkpoint.Read(path, ""); err == nil && found.Checkpoint != nil {
		printCheckpoint(w, *found.Checkpoint, plan)
	}
	if found, err := checkpoint.Read("", storage); err == nil && found.Stamp != nil {
		printStamp(w, *found.Stamp)
	}
}

// printRecordJSON prints both files; a file that is absent, or not looked for, is null.
func printRecordJSON(w io.Writer, found checkpoint.Found) error {
	return writeJSON(w, struct {
		Checkpoint *checkpoint.Checkpoint `json:"checkpoint"`
		Stamp      *checkpoint.Stamp      `json:"stamp"`
		Storage    string                 `json:"storage"`
	}{found.Checkpoint, found.Stamp, found.Storage})
}

const timeFormat = "2006-01-02 15:04:05 MST"

// printRecord prints checkpoint and stamp for a person. plan may be nil; then the stamp is not known.
func printRecord(w io.Writer, path string, found checkpoint.Found, plan *sequencer.Plan) {
	if c := found.Checkpoint; c != nil {
		printCheckpoint(w, *c, plan)
	} else if path != "" {
		fmt.Fprintf(w, "there is no checkpoint at %s\n", path)
	}
	switch {
	case plan == nil:
		printLine(w, "stamp", "not looked at: only a config (-c) says where the state is")
	case found.Stamp != nil:
		printStamp(w, *found.Stamp)
	case found.Storage == "" && found.Checkpoint != nil && found.Checkpoint.Stamp != nil:
		printStamp(w, *found.Checkpoint.Stamp)
		printLine(w, "", "it is kept in the checkpoint: no config in %s says where the state is", plan.File)
	case found.Storage == "":
		printLine(w, "stamp", "none: no config in %s says where the state is", plan.File)
	case found.State == checkpoint.StateNone:
		printLine(w, "stamp", "none: there is no state in %s", found.Storage)
	case found.Checkpoint != nil && found.Checkpoint.Stamped:
		printLine(w, "stamp", "none: the state in %s is not the one that this checkpoint belongs to", found.Storage)
	default:
		printLine(w, "stamp", "none: the state in %s has none yet", found.Storage)
	}
}

// printStamp prints a stamp for a person.
func printStamp(w io.Writer, s checkpoint.Stamp) {
	from := "genesis"
	if s.StartHeight > 0 {
		from = fmt.Sprintf("height %d", s.StartHeight)
	}
	text := fmt.Sprintf("version %d (%s), from %s", s.VersionIndex, s.Name, from)
	if s.StopHeight > 0 {
		text += fmt.Sprintf(" to %d", s.StopHeight)
	}
	if s.Migration != "" {
		text += ", migration " + string(s.Migration)
	}
	if s.Complete {
		text += ", complete by a person's word"
	}
	printLine(w, "stamp", "%s", text)
}

func printLine(w io.Writer, label, format string, values ...any) {
	if label != "" {
		label += ":"
	}
	fmt.Fprintf(w, "%-12s%s\n", label, fmt.Sprintf(format, values...))
}

// printCheckpoint prints a checkpoint for a person. plan may be nil.
func printCheckpoint(w io.Writer, c checkpoint.Checkpoint, plan *sequencer.Plan) {
	name := ""
	if plan != nil && c.VersionIndex <= plan.Last() {
		name = " (" + plan.Versions[c.VersionIndex].Name + ")"
	}
	printLine(w, "version", "%d%s", c.VersionIndex, name)
	printLine(w, "state", "%s", describe(c))
	if c.Height != nil {
		printLine(w, "height", "%d, when its node was asked last", *c.Height)
	}
	printLine(w, "binary", "%s", c.BinaryPath)
	if c.BinarySHA256 != "" {
		printLine(w, "sha256", "%s", c.BinarySHA256)
	}
	if !c.UpdatedAt.IsZero() {
		printLine(w, "updated", "%s", c.UpdatedAt.Format(timeFormat))
	}
	for _, h := range c.History {
		if m := h.Migration; m != nil && !m.CompletedAt.IsZero() {
			printLine(w, "migrated", "to version %d (%s), %s, runs: %d", h.VersionIndex, h.Name, m.CompletedAt.Format(timeFormat), m.Runs)
		}
		if !h.CompletedAt.IsZero() {
			printLine(w, "completed", "version %d (%s) at height %d, %s, by %s", h.VersionIndex, h.Name, h.StopHeight, h.CompletedAt.Format(timeFormat), h.Proof)
		}
	}
}

// describe says in words what the record means.
func describe(c checkpoint.Checkpoint) string {
	switch {
	case c.Phase == checkpoint.PhaseFinished:
		return "finished: the last version reached its stop height"
	case c.Phase == checkpoint.PhaseMigrating && (c.Started == nil || *c.Started):
		return "its migration was begun and is not recorded as completed"
	case c.Phase == checkpoint.PhaseMigrating, c.Phase == checkpoint.PhaseFinishingPrevious:
		return "nothing of it was started: the version before has to prove its stop height first"
	case c.Phase == "":
		return "running, as sov-rollup-manager records it: whether a migration completed is not known"
	}
	return "running"
}

// checkpointSet writes checkpoint and stamp by a person's word.
func checkpointSet(p program, args []string) int {
	var f recordFlags
	var word sequencer.Word
	flags := newFlags("checkpoint set")
	flags.acts = []string{"version", "migrated", "complete", "force"} // ENTRYPOINT_VERSION may well be a label of the image
	f.register(flags)
	flags.IntVar(&word.Version, "version", -1, "the version, from 0, to which the state belongs: its place `N` in the config")
	flags.Lookup("version").DefValue = "0" // as "none" it is not worth showing
	flags.BoolVar(&word.Migrated, "migrated", false, "the migration of that version has completed on this state")
	flags.BoolVar(&word.Complete, "complete", false, "that version is at its stop height; it counts for a node that cannot be asked")
	flags.BoolVar(&word.Force, "force", false, "do it although the stamp of the state says otherwise")
	if code, done := parseOrHelp(p, flags, setUsage, args); done {
		return code
	}
	f.settle(flags)
	if flags.NArg() > 0 || !f.isNamed() || f.config == "" || word.Version < 0 {
		return usageError(p, "checkpoint set", errors.New("want: "+setUsage))
	}
	plan, storage, err := f.plan()
	if err != nil {
		return fail(p, err)
	}
	adopted, err := f.adopt(plan, storage, word)
	if err != nil {
		return fail(p, err)
	}
	if f.checkpoint != "" {
		printCheckpoint(p.stdout, adopted.Checkpoint, plan)
	}
	printStamp(p.stdout, adopted.Stamp)
	for _, change := range adopted.Changes {
		printLine(p.stdout, "changed", "%s", change)
	}
	return 0
}

// adopt writes what a person says, under the lock: a running sequence must not find another record under its feet.
func (f *recordFlags) adopt(plan *sequencer.Plan, storage string, word sequencer.Word) (sequencer.Adopted, error) {
	store, err := checkpoint.Open(f.checkpoint, storage)
	if err != nil {
		return sequencer.Adopted{}, notWritten("the record cannot be locked", err, "nothing was changed")
	}
	defer store.Close()
	// If the binary cannot be read, its digest is recorded at the next start.
	digest, _ := (&preflight.Disk{}).Digest(plan.Versions[min(word.Version, plan.Last())].Binary)
	found, err := readable(f.checkpoint, storage, store, word.Force)
	if err != nil {
		return sequencer.Adopted{}, err
	}
	adopted, err := sequencer.Adopt(plan, found, word, digest)
	if err != nil {
		return sequencer.Adopted{}, err //nolint:wrapcheck // a Failure in its own words
	}
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
			return sequencer.Adopted{}, notWritten("the stamp of the state cannot be written", err, safe+", and the stamp is either the old or the new one, which 'entrypoint checkpoint show' shows")
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
	return &sequencer.Failure{
		Code: sequencer.CodeCheckpointNotWritable, What: what, Err: err, Safe: safe,
		Next: "stop the entrypoint that uses it, make the volume writable, and run this again",
	}
}

// readable is what can be read of the record. A file that is torn or foreign is a reason to come here: it is replaced,
// without what it knew, a stamp only with --force. One that could be read by another user, or on a sound disk, is none.
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
		return found, unchanged(err, "restore the state with its stamp, or, if you know which version it is of, add --force")
	default: // a stamp that cannot be read is beside a state
		found.Storage, found.State = storage, checkpoint.StatePresent
	}
	c, err := checkpoint.Read(path, "")
	if errors.As(err, new(syscall.Errno)) {
		return found, unchanged(err, "make it readable for this user, or repair the volume, and run this again")
	}
	found.Checkpoint = c.Checkpoint
	return found, nil
}
