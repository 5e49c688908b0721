package main

import (
	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
)

// configUsage describes --config.
const configUsage = "the plan: a JSON `FILE` that lists the versions, or a directory with manager.json, or with a folder for each version in versions/ (default in an image: " + layout.Root + ")"

// useLayout fills in what was not given, in an image with the layout of package layout: no flag is needed there. What
// was given empty stays empty, and is refused as elsewhere.
func (fs *flagSet) useLayout(config, checkpoint *string) {
	if !layout.In(layout.Root) {
		return
	}
	if fs.Lookup("config") != nil && !fs.given("config") {
		*config = layout.Root
	}
	if !fs.given("checkpoint-file") {
		*checkpoint = layout.Checkpoint
	}
}

// recordFlags name the config and the record that goes with it.
type recordFlags struct {
	config, checkpoint string
	noCheckpoint       bool
	// stopHeight is the emergency stop; 0 for none.
	stopHeight uint64
	// inspection is that of the plan, once that was read.
	inspection *preflight.Inspection
}

func (f *recordFlags) register(flags *flagSet) {
	flags.StringVarP(&f.config, "config", "c", "", configUsage)
	f.registerCheckpoint(flags)
}

// registerCheckpoint leaves the config out, for commands that only need to know which record it is.
func (f *recordFlags) registerCheckpoint(flags *flagSet) {
	flags.StringVarP(&f.checkpoint, "checkpoint-file", "f", "", "the checkpoint: `FILE` on the volume that records where the sequence is, created by run (default in an image: "+layout.Checkpoint+")")
	flags.BoolVar(&f.noCheckpoint, "no-checkpoint-file", false, "there is no checkpoint: the stamp in the state is the only record")
}

// settle fills in what an image gives. An image may set a checkpoint or none in its environment, and a user the other
// one as a flag: the flag wins. It reports whether there is then either a checkpoint or the word that there is none.
func (f *recordFlags) settle(flags *flagSet) bool {
	switch {
	case f.noCheckpoint && flags.fromEnv["checkpoint-file"] && !flags.fromEnv["no-checkpoint-file"]:
		f.checkpoint = ""
	case f.checkpoint != "" && flags.fromEnv["no-checkpoint-file"] && !flags.fromEnv["checkpoint-file"]:
		f.noCheckpoint = false
	}
	flags.useLayout(&f.config, &f.checkpoint)
	if f.noCheckpoint && !flags.given("checkpoint-file") {
		f.checkpoint = ""
	}
	return (f.checkpoint != "") != f.noCheckpoint
}

// registerStopHeight is for the commands that say what follows from a plan, or do it.
func registerStopHeight(flags *flagSet, height *uint64) {
	flags.Var((*blocks)(height), "stop-height", "emergency stop: end the version that makes block `N` there, and start nothing after it, unless the plan ends it there itself (0: none)")
}

// load reads the plan, with the emergency stop.
func (f *recordFlags) load() (*sequencer.Plan, error) { return loadPlan(f.config, f.stopHeight) }

// loadPlan reads a plan, and puts the emergency stop into it.
func loadPlan(config string, stopHeight uint64) (*sequencer.Plan, error) {
	plan, err := sequencer.LoadPlan(config)
	if err != nil {
		return nil, err //nolint:wrapcheck // a Failure in its own words
	}
	return plan.StoppedAt(stopHeight), nil
}

// plan reads the config; nil if none is named. storage is the directory of the state, empty if it is unknown.
func (f *recordFlags) plan() (plan *sequencer.Plan, storage string, err error) {
	if f.config == "" {
		return nil, "", nil
	}
	if plan, err = f.load(); err != nil {
		return nil, "", err
	}
	f.inspection = preflight.New(plan)
	storage, err = storageFor(f.inspection, f.checkpoint)
	return plan, storage, err
}
