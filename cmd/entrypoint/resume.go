package main

import (
	"errors"
	"fmt"

	"rollup-entrypoint/internal/hold"
	"rollup-entrypoint/sequencer"
)

const resumeUsage = "entrypoint resume (-f CHECKPOINT | --hold-file FILE) [-c CONFIG]"

// resumeCommand removes the hold file. The sequence continues by itself.
func resumeCommand(flags *flagSet) func(p program) int {
	var f holdFlags
	f.register(flags)
	flags.check = func() error {
		f.settle(flags)
		file := holdFile(f.checkpoint, f.file)
		switch {
		case flags.NArg() > 0:
			return flags.want(false)
		case file == "":
			return errors.New("which hold to end is not known: give -f CHECKPOINT, or --hold-file FILE")
		}
		return notForHold(file, f.checkpoint, "")
	}
	return func(p program) int { return fail(p, f.end(p)) }
}

func (f *holdFlags) end(p program) error {
	file := holdFile(f.checkpoint, f.file)
	_, before, _ := hold.New(file).Held() // what cannot be read held everything
	removed, err := hold.Remove(file)
	switch {
	case err != nil:
		return &sequencer.Failure{
			Code: sequencer.CodeCheckpointNotWritable, What: "the hold may still be there", Err: err, Safe: "a sequence that is held stays held",
			Next: "make the directory writable for this user, and run this again",
		}
	case !removed:
		printLine(p.stdout, "unchanged", "there is no hold: %s does not exist", file)
		return nil
	}
	printLine(p.stdout, "resumed", "the hold before %s is ended: %s is removed", what(before), file)
	printLine(p.stdout, "then", "%s", f.follows(before))
	return nil
}

// follows says what a running sequence does now. A plan, which need not be there, says at which height.
func (f *holdFlags) follows(before string) string {
	const within = "a sequence that was held continues within a second"
	if before == "" {
		return within
	}
	at := "the version before it has reached its stop height"
	if plan, err := sequencer.LoadPlan(f.config); err == nil {
		for i := 1; i < len(plan.Versions); i++ {
			if plan.Versions[i].Name == before {
				at = fmt.Sprintf("%s has reached its stop height %d", plan.Versions[i-1].Name, plan.Versions[i-1].Stop)
			}
		}
	}
	return before + " follows once " + at + "; " + within
}
