package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const heightUsage = "entrypoint height -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--manifest FILE] [--json] [-- NODE ARGUMENTS]"

// heightCommand asks the node of the stamped version, which must be stopped, for the durable height of its state.
func heightCommand(p program, args []string) int {
	var f recordFlags
	var manifest string
	var asJSON bool
	flags := newFlags("height")
	f.register(flags)
	registerManifest(flags.FlagSet, &manifest)
	flags.BoolVar(&asJSON, "json", false, "print the answer as JSON")
	if code, done := parseOrHelp(p, flags, heightUsage, args); done {
		return code
	}
	f.settle(flags)
	before := flags.ArgsLenAtDash()
	if f.config == "" || !f.isNamed() || before > 0 || before < 0 && flags.NArg() > 0 {
		return usageError(p, "height", errors.New("want: "+heightUsage))
	}
	plan, err := sequencer.LoadPlan(f.config)
	if err != nil {
		return fail(p, err)
	}
	verifier, err := openVerifier(manifest, flags.given("manifest"), plan)
	if err != nil {
		return fail(p, err)
	}
	report, err := askHeight(p, plan, f.checkpoint, verifier, flags.Args())
	switch {
	case err != nil:
	case asJSON:
		err = printHeightJSON(p.stdout, plan, report)
	default:
		printHeight(p.stdout, plan, report)
	}
	if err != nil {
		return fail(p, err)
	}
	return 0
}

// askHeight asks under the lock, with the same preparations as a run. verifier is nil for no manifest.
func askHeight(p program, plan *sequencer.Plan, path string, verifier *verifier, nodeArgs []string) (sequencer.Report, error) {
	log := newLog(p.stderr, isTerminal(os.Stderr), slog.LevelWarn)
	init, err := newInit(p, log)
	if err != nil {
		return sequencer.Report{}, err
	}
	// Nobody has got a height, so the exit code must not be 0.
	stopped := &sequencer.Failure{Code: sequencer.CodeEarlyExit, What: "a stop signal came before the node gave its height", Next: "run this again"}
	store, _, err := openStore(p, plan, path)
	if errors.Is(err, errStopped) {
		return sequencer.Report{}, stopped
	}
	if err != nil {
		return sequencer.Report{}, err
	}
	defer store.Close()
	options := sequencer.Options{
		Plan: plan, Checkpoint: path, Store: store, Signals: p.inbox, Log: log, Stderr: p.stderr, Restarts: defaultRestarts,
		NodeArgs: nodeArgs, Heights: nodeHeights, Processes: &processes{init: init, locks: store.LockFiles},
	}
	options.Files, options.Verify = verifier.files()
	report, err := sequencer.Ask(options)
	if err == nil && report.Step.Action == "" {
		return sequencer.Report{}, stopped
	}
	return report, err //nolint:wrapcheck // a Failure in its own words
}

func printHeight(w io.Writer, plan *sequencer.Plan, r sequencer.Report) {
	switch r.Durable.Knowledge {
	case sequencer.Asked:
		printLine(w, "height", "%d", r.Durable.Height)
	case sequencer.NoState:
		printLine(w, "height", "none: there is no state yet")
	case sequencer.CannotBeAsked:
		printLine(w, "height", "not known: the node cannot be asked")
	case sequencer.NotAsked:
		printLine(w, "height", "not asked: a migration was begun and is not recorded as completed")
	}
	printStamp(w, r.Stamp)
	printLine(w, "next start", "%s", nextStart(plan, r.Step))
}

// nextStart says in words what a start would do.
func nextStart(plan *sequencer.Plan, step sequencer.Step) string {
	name := plan.Versions[step.Version].Name
	switch {
	case step.Action == sequencer.Finish:
		return "starts nothing: " + name + ", the last version, is complete"
	case step.Action == sequencer.MigrateAgain:
		return "runs the interrupted migration of " + name + " again"
	case step.Action == sequencer.EnterVersion && plan.Versions[step.Version].Migration != "":
		return "runs the migration of " + name + ", then its node"
	case step.Start > 0:
		return fmt.Sprintf("runs %s from its start height %d", name, step.Start)
	}
	return "runs " + name
}

// printHeightJSON prints the same for programs. The height is null if it is not known, and the version and action are those
// of the next start.
func printHeightJSON(w io.Writer, plan *sequencer.Plan, r sequencer.Report) error {
	var height *uint64
	if r.Durable.Knowledge == sequencer.Asked {
		height = &r.Durable.Height
	}
	type next struct {
		Action  sequencer.Action `json:"action"`
		Version int              `json:"version_index"`
		Text    string           `json:"text"`
	}
	return writeJSON(w, struct {
		Height *uint64          `json:"height"`
		Stamp  checkpoint.Stamp `json:"stamp"`
		Next   next             `json:"next_start"`
	}{height, r.Stamp, next{r.Step.Action, r.Step.Version, nextStart(plan, r.Step)}})
}
