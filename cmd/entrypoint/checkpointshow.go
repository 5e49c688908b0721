package main

import (
	"errors"
	"fmt"
	"io"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const showUsage = "entrypoint checkpoint show (-f CHECKPOINT | --no-checkpoint-file) [-c CONFIG] [--stop-height N] [--hold-file FILE] [--json]"

// checkpointShow prints checkpoint and stamp without taking a lock, so that it works beside a running sequence.
func checkpointShow(flags *flagSet) func(p program) int {
	var f recordFlags
	var asJSON bool
	var holds string
	f.register(flags)
	registerStopHeight(flags, &f.stopHeight)
	registerHoldFile(flags, &holds)
	flags.BoolVar(&asJSON, "json", false, "print the record as JSON")
	flags.check = func() error {
		return flags.want(f.settle(flags) && flags.NArg() == 0 && (f.checkpoint != "" || f.config != ""))
	}
	return func(p program) int {
		plan, storage, err := f.plan()
		found, unreadable := checkpoint.Read(f.checkpoint, storage) // with an error, what can be read of it
		if err == nil && unreadable != nil {
			err = f.recordUnreadable(plan, found, unreadable)
		}
		held := lookForHold(holdFile(f.checkpoint, holds), plan)
		switch {
		case err != nil && !asJSON:
			printFound(p.stdout, found, plan)
			held.print(p.stdout)
			printLastRun(p.stdout, f.checkpoint)
		case err != nil:
		case asJSON:
			err = writeJSON(p.stdout, recordReport(f.checkpoint, found, plan, f.lookAhead(plan, found), held))
		default:
			printRecord(p.stdout, "version", f.checkpoint, found, plan)
			printOutlook(p.stdout, plan, f.lookAhead(plan, found))
			held.print(p.stdout)
			printLastRun(p.stdout, f.checkpoint)
		}
		return fail(p, err)
	}
}

// recordUnreadable says what to do, if the config is known.
func (f *recordFlags) recordUnreadable(plan *sequencer.Plan, beside checkpoint.Found, err error) error {
	if plan != nil {
		return sequencer.Unreadable(plan, f.checkpoint, err, beside) //nolint:wrapcheck // a Failure in its own words
	}
	return &sequencer.Failure{
		Code: sequencer.CodeCheckpointUnreadable, What: "the record cannot be read", Err: err,
		Safe: "it was left as it is", Next: "run this again with the plan (-c) to see what to do",
	}
}

// printFound prints those of checkpoint and stamp that could be read: one may well show which version the state belongs
// to.
func printFound(w io.Writer, found checkpoint.Found, plan *sequencer.Plan) {
	if found.Checkpoint != nil {
		printCheckpoint(w, "version", *found.Checkpoint, plan)
	}
	if found.Stamp != nil {
		printStamp(w, *found.Stamp)
	}
}

// lookAhead is what the next start makes of the record; nil without a config.
func (f *recordFlags) lookAhead(plan *sequencer.Plan, found checkpoint.Found) *sequencer.Outlook {
	if plan == nil {
		return nil
	}
	o := sequencer.LookAhead(plan, f.checkpoint, found, f.inspection.Digest)
	return &o
}

// recordReport has the files of the record, and what the next start does. What is absent, unreadable, or was not looked
// for, is null.
func recordReport(path string, found checkpoint.Found, plan *sequencer.Plan, o *sequencer.Outlook, held *seenHold) any {
	type next struct {
		Action sequencer.Action `json:"action"`
		Text   string           `json:"text"`
	}
	record := struct {
		Checkpoint  *checkpoint.Checkpoint `json:"checkpoint"`
		Stamp       *checkpoint.Stamp      `json:"stamp"`
		Storage     string                 `json:"storage"`
		Differences []string               `json:"differences"`
		Next        *next                  `json:"next_start"`
		Hold        *seenHold              `json:"hold"`
		LastRun     *checkpoint.LastRun    `json:"last_run"`
	}{found.Checkpoint, found.Stamp, found.Storage, []string{}, nil, held, nil}
	if last, err := readLastRun(path); err == nil {
		record.LastRun = last
	}
	if o != nil {
		record.Differences = append(record.Differences, o.Differences...)
		record.Next = &next{o.Step.Action, outlookInWords(plan, o)}
	}
	return record
}

// printOutlook prints for a person how stamp and checkpoint differ, which of them counts, and what the next start does.
func printOutlook(w io.Writer, plan *sequencer.Plan, o *sequencer.Outlook) {
	if o == nil {
		return
	}
	for _, difference := range o.Differences {
		printLine(w, "differs", "%s", difference)
	}
	printLine(w, "next start", "%s", outlookInWords(plan, o))
}

func outlookInWords(plan *sequencer.Plan, o *sequencer.Outlook) string {
	var f *sequencer.Failure
	switch {
	case errors.As(o.Refusal, &f):
		return fmt.Sprintf("is refused with exit code %d: %s", f.Code, f)
	case o.Step.Action == sequencer.AskVersion && plan.Versions[o.Step.Version].NeverAsk:
		return "continues with " + plan.Versions[o.Step.Version].Name + ", whose node is not asked for the height of the state"
	case o.Step.Action == sequencer.AskVersion:
		return "asks " + plan.Versions[o.Step.Version].Name + " for the height of the state, and continues from there"
	}
	return nextStart(plan, o.Step)
}

// printRecord prints checkpoint and stamp for a person, the present version after label. Without a plan, which may be nil, the stamp is unknown.
func printRecord(w io.Writer, label, path string, found checkpoint.Found, plan *sequencer.Plan) {
	if c := found.Checkpoint; c != nil {
		printCheckpoint(w, label, *c, plan)
	} else if path != "" {
		fmt.Fprintf(w, "there is no checkpoint at %s\n", plain.Line(path))
	}
	switch {
	case plan == nil:
		printLine(w, "stamp", "unknown: only a plan (-c) says where the state is")
	case found.Stamp != nil:
		printStamp(w, *found.Stamp)
	case found.Storage == "" && found.Checkpoint != nil && found.Checkpoint.Stamp != nil:
		printStamp(w, *found.Checkpoint.Stamp)
		printLine(w, "", "it is kept in the checkpoint: no node config of %s says where the state is", plan.File)
	case found.Storage == "":
		printLine(w, "stamp", "none: no node config of %s says where the state is", plan.File)
	case found.State == checkpoint.StateNone:
		printLine(w, "stamp", "none: there is no state in %s", found.Storage)
	case found.Checkpoint != nil && found.Checkpoint.Stamped:
		printLine(w, "stamp", "none: the state in %s is not the one that this checkpoint belongs to", found.Storage)
	default:
		printLine(w, "stamp", "none: the state in %s has none yet", found.Storage)
	}
}
