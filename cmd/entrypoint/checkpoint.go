package main

import (
	"errors"
	"fmt"
	"io"

	"rollup-entrypoint/sequencer"
)

const (
	checkpointUsage = "entrypoint checkpoint show|set -f CHECKPOINT [FLAGS]"
	showUsage       = "entrypoint checkpoint show -f CHECKPOINT [-c CONFIG] [--json]"
	setUsage        = "entrypoint checkpoint set -c CONFIG -f CHECKPOINT --version N [--migrated]"
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

// fail prints why a command failed and gives the exit code.
func fail(p program, err error) int {
	fmt.Fprintf(p.stderr, "entrypoint: %s\n", err)
	var f *sequencer.Failure
	if errors.As(err, &f) {
		return f.Code
	}
	return sequencer.CodeMismatch
}

// checkpointShow prints a checkpoint without taking its lock, so that it works beside a running sequence.
func checkpointShow(p program, args []string) int {
	var path, config string
	var asJSON bool
	flags := newFlags("checkpoint show")
	flags.StringVarP(&path, "checkpoint-file", "f", "", "the checkpoint `FILE`")
	flags.StringVarP(&config, "config", "c", "", configUsage)
	flags.BoolVar(&asJSON, "json", false, "print the record as JSON")
	if code, done := parseOrHelp(p, flags, showUsage, args); done {
		return code
	}
	flags.useLayout(&config, &path)
	if path == "" || flags.NArg() > 0 {
		return usageError(p, "checkpoint show", errors.New("want: "+showUsage))
	}
	c, found, err := sequencer.ReadCheckpoint(path)
	if err != nil {
		return fail(p, &sequencer.Failure{
			Code: sequencer.CodeCheckpointUnreadable, What: "the checkpoint cannot be read", Err: err,
			Safe: "it was left as it is", Next: "find out which version the state belongs to and write it again with '" + setUsage + "'",
		})
	}
	if !found {
		fmt.Fprintf(p.stdout, "there is no checkpoint at %s: a run would begin with version 0\n", path)
		return 0
	}
	if asJSON {
		text, err := sequencer.EncodeCheckpoint(c)
		if err != nil {
			return fail(p, err)
		}
		_, _ = p.stdout.Write(text)
		return 0
	}
	var plan *sequencer.Plan
	if config != "" {
		if plan, err = sequencer.LoadPlan(config); err != nil {
			return fail(p, err)
		}
	}
	printCheckpoint(p.stdout, c, plan)
	return 0
}

// printCheckpoint prints a checkpoint for a person. plan may be nil.
func printCheckpoint(w io.Writer, c sequencer.Checkpoint, plan *sequencer.Plan) {
	line := func(label, format string, values ...any) {
		fmt.Fprintf(w, "%-12s%s\n", label+":", fmt.Sprintf(format, values...))
	}
	name := ""
	if plan != nil && c.VersionIndex <= plan.Last() {
		name = " (" + plan.Versions[c.VersionIndex].Name + ")"
	}
	line("version", "%d%s", c.VersionIndex, name)
	line("state", "%s", describe(c))
	line("binary", "%s", c.BinaryPath)
	if c.BinarySHA256 != "" {
		line("sha256", "%s", c.BinarySHA256)
	}
	if !c.UpdatedAt.IsZero() {
		line("updated", "%s", c.UpdatedAt.Format("2006-01-02 15:04:05 MST"))
	}
	for _, h := range c.History {
		line("completed", "version %d (%s) at height %d, %s, by %s",
			h.VersionIndex, h.Name, h.StopHeight, h.CompletedAt.Format("2006-01-02 15:04:05 MST"), h.Proof)
	}
}

// describe says in words what the record means for the next start.
func describe(c sequencer.Checkpoint) string {
	switch {
	case c.Phase == sequencer.PhaseFinished:
		return "finished: the last version reached its stop height"
	case c.Phase == sequencer.PhaseMigrating && c.Started:
		return "its migration was begun and is not recorded as completed"
	case c.Phase == sequencer.PhaseMigrating:
		return "its migration is due and was not begun"
	case c.Phase == "":
		return "running, as sov-rollup-manager records it: whether a migration completed is not known"
	case c.Phase == sequencer.PhaseFinishingPrevious:
		return "waiting for the version before, which did not end at its stop height and has to prove it"
	case c.Started:
		return "running"
	}
	return "to be started for the first time, or not seen at a height yet"
}

// checkpointSet writes a checkpoint by the operator's word.
func checkpointSet(p program, args []string) int {
	var path, config string
	var index int
	var migrated bool
	flags := newFlags("checkpoint set")
	flags.acts = []string{"version", "migrated"} // ENTRYPOINT_VERSION may well be a label of the image
	flags.StringVarP(&config, "config", "c", "", configUsage)
	flags.StringVarP(&path, "checkpoint-file", "f", "", "the checkpoint `FILE`; made if absent")
	flags.IntVar(&index, "version", -1, "the version, from 0, to which the state belongs: its place `N` in the config")
	flags.Lookup("version").DefValue = "0" // as "none" it is not worth showing
	flags.BoolVar(&migrated, "migrated", false, "the migration of that version has completed and is not to be run")
	if code, done := parseOrHelp(p, flags, setUsage, args); done {
		return code
	}
	flags.useLayout(&config, &path)
	if path == "" || config == "" || index < 0 || flags.NArg() > 0 {
		return usageError(p, "checkpoint set", errors.New("want: "+setUsage))
	}
	plan, err := sequencer.LoadPlan(config)
	if err != nil {
		return fail(p, err)
	}
	if err := checkMigrated(plan, index, migrated); err != nil {
		return fail(p, err)
	}
	c, err := adopt(plan, path, index, migrated)
	if err != nil {
		return fail(p, err)
	}
	printCheckpoint(p.stdout, c, plan)
	return 0
}

// checkMigrated refuses --migrated where there is no migration: whoever says it is mistaken about the version, or the
// config is.
func checkMigrated(plan *sequencer.Plan, index int, migrated bool) error {
	if !migrated || index > plan.Last() || plan.Versions[index].Migration != "" {
		return nil
	}
	return &sequencer.Failure{
		Code: sequencer.CodeMismatch, What: fmt.Sprintf("version %d (%q) has no migration in %s", index, plan.Versions[index].Name, plan.File),
		Safe: "the checkpoint is unchanged", Next: "look for the version that is meant, or leave --migrated out",
	}
}

// adopt changes the checkpoint under its lock: a running sequence must not find another one under its feet.
func adopt(plan *sequencer.Plan, path string, index int, migrated bool) (sequencer.Checkpoint, error) {
	notChanged := func(what string, err error) error {
		return &sequencer.Failure{
			Code: sequencer.CodeCheckpointNotWritable, What: what, Err: err,
			Safe: "the checkpoint is unchanged", Next: "stop the entrypoint that uses it, make the volume writable, and say it again",
		}
	}
	store, err := sequencer.OpenFileStore(path)
	if err != nil {
		return sequencer.Checkpoint{}, notChanged("the checkpoint cannot be locked", err)
	}
	defer store.Close()
	var old *sequencer.Checkpoint
	// A file that cannot be read is the reason to come here: it is replaced, without what it knew.
	if have, found, err := store.Load(); err == nil && found {
		old = &have
	}
	digest, _ := (&sequencer.Disk{}).Digest(plan.Versions[min(index, plan.Last())].Binary) // it is recorded at the next start otherwise
	c, err := sequencer.AdoptVersion(plan, old, index, migrated, digest)
	if err != nil {
		return sequencer.Checkpoint{}, err //nolint:wrapcheck // a Failure in its own words
	}
	if err := store.Save(c); err != nil {
		return sequencer.Checkpoint{}, notChanged("the checkpoint cannot be written", err)
	}
	return c, nil
}
