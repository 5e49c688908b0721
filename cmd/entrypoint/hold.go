package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"rollup-entrypoint/internal/hold"
	"rollup-entrypoint/internal/strictjson"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const holdUsage = "entrypoint hold -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--before NAME] [--hold-file FILE]\n" +
	"  entrypoint hold --all (-f CHECKPOINT | --hold-file FILE)"

// holdFlags name the record, and the file that holds the sequence.
type holdFlags struct {
	recordFlags
	file, before string
	all          bool
}

func (f *holdFlags) register(flags *flagSet) {
	f.recordFlags.register(flags)
	registerHoldFile(flags, &f.file)
}

func registerHoldFile(flags *flagSet, file *string) {
	flags.StringVar(file, "hold-file", "", "while `FILE` exists, no version follows another (default: "+checkpoint.HoldFile+", beside the checkpoint)")
}

// holdFile is the file that holds the sequence with this checkpoint; flag is what --hold-file says. It is empty if there
// is none: without a checkpoint nothing says where it would be.
func holdFile(checkpointFile, flag string) string {
	if flag == "" && checkpointFile != "" {
		return checkpoint.HoldPath(checkpointFile)
	}
	return flag
}

// notForHold says why a hold file cannot have this name; nil if it can. It would hold forever, and the commands would
// replace or remove a file that is needed.
func notForHold(file, checkpointFile, termination string) error {
	if file == "" {
		return nil
	}
	file = checkpoint.ResolveLinks(file)
	same := func(other string) bool { return other != "" && sameName(file, checkpoint.ResolveLinks(other)) }
	switch {
	case same(checkpointFile):
		return errors.New("--hold-file and --checkpoint-file name the same file: use two different files")
	case checkpointFile != "" && same(checkpoint.LockPath(checkpointFile)):
		return errors.New("--hold-file names the lock of the checkpoint: give the hold another name")
	case checkpointFile != "" && same(checkpoint.LastRunPath(checkpointFile)):
		return errors.New("--hold-file names the record of the last run, beside the checkpoint: give the hold another name")
	case filepath.Base(file) == checkpoint.StampFile:
		return fmt.Errorf("--hold-file has the name of the stamp in the state, %s: give the hold another name", checkpoint.StampFile)
	case same(termination):
		return errors.New("--hold-file and --termination-log name the same file: use two different files")
	}
	return nil
}

// holdCommand writes the hold file. It takes no lock, so that it works beside a running sequence.
func holdCommand(flags *flagSet) func(p program) int {
	var f holdFlags
	flags.acts = []string{"before", "all"}
	f.register(flags)
	flags.StringVar(&f.before, "before", "", "hold before the version with this `NAME` (default: the next version)")
	flags.BoolVar(&f.all, "all", false, "hold before every version, and keep a starting entrypoint from starting anything")
	flags.check = func() error { return f.check(flags) }
	return func(p program) int { return fail(p, f.hold(p, flags)) }
}

func (f *holdFlags) check(flags *flagSet) error {
	known := f.settle(flags)
	file := holdFile(f.checkpoint, f.file)
	switch {
	case flags.NArg() > 0, !f.all && (!known || f.config == ""), f.all && flags.given("before"):
		return flags.want(false)
	case file == "":
		return errors.New("--hold-file is missing: without a checkpoint nothing says where the file is")
	}
	return notForHold(file, f.checkpoint, "")
}

// hold says what follows, writes the file, and says what was there before.
func (f *holdFlags) hold(p program, flags *flagSet) error {
	file := holdFile(f.checkpoint, f.file)
	then := "what runs now continues to its stop height, and then nothing follows; a start asks and starts nothing"
	if !f.all {
		var err error
		if then, err = f.next(flags); err != nil {
			return err
		}
	}
	held, before, unreadable := hold.New(file).Held()
	if held && unreadable == nil && before == f.before {
		printLine(p.stdout, "unchanged", "there already is a hold before %s: %s", what(before), file)
	} else if err := hold.Write(file, f.before); err != nil {
		return &sequencer.Failure{
			Code: sequencer.CodeCheckpointNotWritable, What: "there is no such hold yet", Err: err, Safe: "the sequence is as it was",
			Next: "make the directory writable for this user, or create the file by hand: an empty one holds everything",
		}
	} else {
		printLine(p.stdout, "hold", "before %s: %s", what(f.before), file)
		switch {
		case unreadable != nil:
			printLine(p.stdout, "replaced", "%s", unreadable)
		case held:
			printLine(p.stdout, "replaced", "a hold before %s", what(before))
		}
	}
	printLine(p.stdout, "then", "%s; '%s' continues", then, f.resume(flags))
	return nil
}

// what a hold with this content holds, in words.
func what(before string) string {
	if before == "" {
		return "every version"
	}
	return before
}

// resume is the command that ends the hold. Files that come from the environment, or from the layout of an image, are
// the same there.
func (f *holdFlags) resume(flags *flagSet) string {
	for _, flag := range []string{"hold-file", "checkpoint-file"} {
		if flags.given(flag) && !flags.fromEnv[flag] {
			return "entrypoint resume --" + flag + " " + sequencer.Quoted(flags.Lookup(flag).Value.String())
		}
	}
	return "entrypoint resume"
}

// next finds the version before which to hold, the one after the present one unless it was named, and says what happens
// until then.
func (f *holdFlags) next(flags *flagSet) (then string, err error) {
	plan, now, err := f.present()
	if err != nil {
		return "", err
	}
	names := make([]string, len(plan.Versions))
	for i := range names {
		names[i] = plan.Versions[i].Name
	}
	to, wrong := now+1, ""
	switch come := names[to:]; {
	case flags.given("before") && slices.Contains(come, f.before):
		to += slices.Index(come, f.before)
	case flags.given("before") && slices.Contains(names, f.before):
		wrong = fmt.Sprintf("the state already belongs to %s: it is too late for a hold before %q", plan.Label(now), f.before)
	case flags.given("before"):
		wrong = fmt.Sprintf("%s has no version %q%s", plan.File, f.before, strictjson.Suggest(f.before, come))
	case len(come) == 0:
		wrong = fmt.Sprintf("%s is the last version of %s: nothing follows it", plan.Label(now), plan.File)
	}
	if wrong != "" {
		return "", &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: wrong, Safe: "nothing was changed",
			Next: "name a version that is to come: " + cmp.Or(strings.Join(names[now+1:], ", "), "none") + "; or hold every version with --all",
		}
	}
	f.before = names[to]
	return fmt.Sprintf("%s runs to its stop height %d; then the sequence holds before %s, with no process on the state",
		names[to-1], plan.Versions[to-1].Stop, f.before), nil
}

// present is the version whose state it is, by the stamp, and otherwise the one that the next start continues with.
func (f *holdFlags) present() (*sequencer.Plan, int, error) {
	plan, storage, err := f.plan()
	if err != nil {
		return nil, 0, err
	}
	found, err := checkpoint.Read(f.checkpoint, storage)
	if err != nil {
		return nil, 0, f.recordUnreadable(plan, found, err)
	}
	stamp := found.Stamp
	if stamp == nil && found.Checkpoint != nil {
		stamp = found.Checkpoint.Stamp
	}
	if stamp != nil { // also while its migration runs, when a start might be refused
		if i := planned(plan, *stamp); i >= 0 {
			return plan, i, nil
		}
	}
	o := f.lookAhead(plan, found)
	if o.Refusal != nil {
		return nil, 0, o.Refusal
	}
	return plan, o.Step.Version, nil
}

// planned is the index of the version of a stamp in the plan; -1 if that does not have it.
func planned(plan *sequencer.Plan, stamp checkpoint.Stamp) int {
	for i := range plan.Versions {
		if v := &plan.Versions[i]; v.Name == stamp.Name && v.Start == stamp.StartHeight {
			return i
		}
	}
	return -1
}
