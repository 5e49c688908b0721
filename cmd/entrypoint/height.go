package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/systemd"
	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const heightUsage = "entrypoint height -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]"

// heightCommand asks the node of the stamped version, which must be stopped, for the durable height of its state.
func heightCommand(flags *flagSet) func(p program) int {
	var f recordFlags
	var u undoFlags
	var manifest, holds string
	var asJSON bool
	f.register(flags)
	registerStopHeight(flags, &f.stopHeight)
	registerManifest(flags.FlagSet, &manifest)
	u.register(flags)
	registerHoldFile(flags, &holds)
	flags.BoolVar(&asJSON, "json", false, "print the answer as JSON")
	flags.check = func() error {
		return errors.Join(flags.want(f.settle(flags) && f.config != "" && !flags.unexpected()), u.check())
	}
	return func(p program) int {
		plan, err := f.load()
		if err != nil {
			return fail(p, err)
		}
		inspection := preflight.New(plan)
		inspection.NodeArgs = flags.Args()
		if err := inspection.UseManifest(manifest, flags.given("manifest")); err != nil {
			return fail(p, err)
		}
		held := lookForHold(holdFile(f.checkpoint, holds), plan)
		report, err := askHeight(p, f.checkpoint, inspection, &u, flags.Args())
		switch {
		case err != nil:
		case asJSON:
			err = writeJSON(p.stdout, heightReport(plan, report, held))
		default:
			printHeight(p.stdout, plan, report)
			held.print(p.stdout)
		}
		return fail(p, err)
	}
}

// askHeight asks under the lock, with the same preparations as a run.
func askHeight(p program, path string, inspection *preflight.Inspection, u *undoFlags, nodeArgs []string) (sequencer.Report, error) {
	log := newLog(p.stderr, isTerminal(os.Stderr), slog.LevelWarn)
	_ = systemd.Take() // the node that is asked must not have it
	init, err := newInit(p, log)
	if err != nil {
		return sequencer.Report{}, err
	}
	// Nobody got a height, so the exit code must not be 0.
	stopped := &sequencer.Failure{Code: sequencer.CodeEarlyExit, What: "a stop signal came before the node reported its height", Next: "run this again"}
	options, store, err := whileStopped(p, log, init, path, inspection)
	if errors.Is(err, checkpoint.ErrStopped) {
		return sequencer.Report{}, stopped
	}
	if err != nil {
		return sequencer.Report{}, err
	}
	defer store.Close()
	options.NodeArgs = nodeArgs
	if err := u.use(inspection, options, log); err != nil {
		return sequencer.Report{}, err
	}
	report, err := sequencer.Ask(*options)
	if err == nil && report.Step.Action == "" {
		return sequencer.Report{}, stopped
	}
	return report, err //nolint:wrapcheck // a Failure in its own words
}

// whileStopped takes the locks, and gives what is needed to work on the state while no node runs.
func whileStopped(p program, log *slog.Logger, init *reaper.Reaper, path string, inspection *preflight.Inspection) (*sequencer.Options, *checkpoint.Store, error) {
	store, err := openStore(p, log, inspection, path, nil, func(sequencer.State) {})
	if err != nil {
		return nil, nil, err
	}
	return &sequencer.Options{
		Plan: inspection.Plan, Inspection: inspection, Checkpoint: path, Store: store, Signals: p.inbox, Log: log, Stderr: p.stderr, Restarts: defaultRestarts,
		LeftoverTimeout: defaultLeftoverTimeout, Heights: nodeHeights, Processes: &processes{init: init, store: store, log: log},
	}, store, nil
}

func printHeight(w io.Writer, plan *sequencer.Plan, r sequencer.Report) {
	printDurable(w, r.Durable)
	printStamp(w, r.Stamp)
	printLine(w, "next start", "%s", nextStart(plan, r.Step))
}

func printDurable(w io.Writer, d sequencer.Durable) {
	switch d.Knowledge {
	case sequencer.Asked:
		printLine(w, "height", "%d", d.Height)
	case sequencer.NoState:
		printLine(w, "height", "none: there is no state yet")
	case sequencer.CannotBeAsked:
		printLine(w, "height", "unknown: the node cannot be asked")
	case sequencer.NotAsked:
		printLine(w, "height", "not asked: a migration was begun and is not recorded as completed")
	}
}

// nextStart describes what the next start does.
func nextStart(plan *sequencer.Plan, step sequencer.Step) string {
	v := plan.Versions[step.Version]
	name := v.Name
	switch {
	case step.Action == sequencer.Finish && plan.Brake > 0:
		return fmt.Sprintf("starts nothing: %s is complete at --stop-height %d", name, plan.Brake)
	case step.Action == sequencer.Finish:
		return "starts nothing: " + name + ", the last version, is complete"
	case step.Action == sequencer.MigrateAgain:
		return "runs the interrupted migration of " + name + " again"
	case step.Action == sequencer.PutBack:
		return "puts the undo point back, because the migration of " + name + " was interrupted, and continues from there"
	case step.Action == sequencer.EnterVersion && len(v.Before) > 0 && v.Migration != "":
		return "runs the hook before " + name + ", then its migration, then its node"
	case step.Action == sequencer.EnterVersion && len(v.Before) > 0:
		return "runs the hook before " + name + ", then its node"
	case step.Action == sequencer.EnterVersion && v.Migration != "":
		return "runs the migration of " + name + ", then its node"
	case step.Start > 0:
		return fmt.Sprintf("runs %s from its start height %d", name, step.Start)
	}
	return "runs " + name
}

// heightReport is the same for programs. The height is null if it is unknown; version and action are those of the next
// start.
func heightReport(plan *sequencer.Plan, r sequencer.Report, held *seenHold) any {
	var height *uint64
	if r.Durable.Knowledge == sequencer.Asked {
		height = &r.Durable.Height
	}
	type next struct {
		Action  sequencer.Action `json:"action"`
		Version int              `json:"version_index"`
		Text    string           `json:"text"`
	}
	return struct {
		Height *uint64          `json:"height"`
		Stamp  checkpoint.Stamp `json:"stamp"`
		Next   next             `json:"next_start"`
		Hold   *seenHold        `json:"hold"`
	}{height, r.Stamp, next{r.Step.Action, r.Step.Version, nextStart(plan, r.Step)}, held}
}
