package main

import (
	"fmt"
	"os"
	"path/filepath"

	"rollup-entrypoint/images"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// useLayout fills in what was not given, where this is an image with the layout of package images: there no flag is
// needed. What was given empty stays so, and is refused as before.
func (fs *flagSet) useLayout(config, checkpoint *string) {
	if !images.HasLayout(images.Root) {
		return
	}
	if !fs.given("config") {
		*config = images.Root
	}
	if !fs.given("checkpoint-file") {
		*checkpoint = images.Checkpoint
	}
}

// recordFlags name the config and the record that goes with it.
type recordFlags struct {
	config, checkpoint string
	noCheckpoint       bool
}

func (f *recordFlags) register(flags *flagSet) {
	flags.StringVarP(&f.config, "config", "c", "", configUsage)
	flags.StringVarP(&f.checkpoint, "checkpoint-file", "f", "", "the checkpoint `FILE`; default in an image: "+images.Checkpoint)
	flags.BoolVar(&f.noCheckpoint, "no-checkpoint-file", false, "there is no checkpoint: the stamp in the state alone is the record")
}

// settle fills in what an image gives. An image may set a checkpoint or none in its environment, and a user the other one
// as a flag: the flag wins.
func (f *recordFlags) settle(flags *flagSet) {
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
}

// isNamed reports whether there is either a checkpoint or the word that there is none.
func (f *recordFlags) isNamed() bool { return (f.checkpoint != "") != f.noCheckpoint }

// plan reads the config; nil if none is named. storage is where the state is, empty if that is not known.
func (f *recordFlags) plan() (plan *sequencer.Plan, storage string, err error) {
	if f.config == "" {
		return nil, "", nil
	}
	if plan, err = sequencer.LoadPlan(f.config); err != nil {
		return nil, "", err //nolint:wrapcheck // a Failure in its own words
	}
	storage, err = storageFor(plan, f.checkpoint)
	return plan, storage, err
}

// volumeThere reports whether the directory of the checkpoint exists. Where an image is built there is none yet.
func volumeThere(checkpoint string) bool {
	_, err := os.Stat(filepath.Dir(checkpoint))
	return err == nil
}

// checkName refuses a checkpoint that would be taken for the stamp, or overwrite it.
func checkName(path string) error {
	if filepath.Base(path) == checkpoint.StampFile {
		return fmt.Errorf("--checkpoint-file is %q, which is the name of the stamp in the state: give the checkpoint another one", path)
	}
	return nil
}
