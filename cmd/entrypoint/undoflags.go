package main

import (
	"errors"
	"fmt"
	"log/slog"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/undo"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// undoFlags say when an undo point is made, and where.
type undoFlags struct {
	mode, dir string
	// fixed: the command does not have --undo.
	fixed bool
}

func (f *undoFlags) register(flags *flagSet) {
	flags.StringVar(&f.mode, "undo", string(undo.Auto), "copy the state before an upgrade, to undo it: `auto|copy|off`; auto only by reflinks, or into half of the free space within a minute")
	f.registerDir(flags)
}

// registerDir leaves out when one is made, for commands that make none.
func (f *undoFlags) registerDir(flags *flagSet) {
	flags.StringVar(&f.dir, "undo-dir", "", "keep that copy in `DIRECTORY`, on the file system of the state (default: beside the storage directory)")
}

// check refuses an unknown mode.
func (f *undoFlags) check() error {
	switch undo.Mode(f.mode) {
	case undo.Auto, undo.Copy, undo.Off:
		return nil
	}
	return fmt.Errorf("--undo: want %s, %s or %s", undo.Auto, undo.Copy, undo.Off)
}

// at gives the undo point's keeper for a storage directory. The error is a *sequencer.Failure.
func (f *undoFlags) at(plan *sequencer.Plan, storage, path string, log *slog.Logger) (*undo.Undo, error) {
	o := undo.Options{Storage: storage, Dir: f.dir, Checkpoint: path, Mode: undo.Mode(f.mode), Log: log}
	if file := within(plan, storage); file != "" { // a put-back would exchange it too
		o.Never = fmt.Sprintf("%s is in %s, the directory of the state (give that a directory of its own)", file, storage)
	}
	u, err := undo.New(o)
	if err != nil {
		return nil, f.unusable(err)
	}
	return u, nil
}

// unusable is the failure of a command whose flags ask for what cannot be.
func (f *undoFlags) unusable(err error) error {
	next := "change --undo-dir or --undo"
	if f.fixed {
		next = "change --undo-dir"
	}
	return &sequencer.Failure{
		Code: sequencer.CodeMismatch, What: "undo points cannot be kept as the flags say", Err: err, Safe: "nothing was started", Next: next,
	}
}

// use has a run keep undo points, if it is known where the state is.
func (f *undoFlags) use(inspection *preflight.Inspection, options *sequencer.Options, log *slog.Logger) error {
	u, err := f.inspected(inspection, options.Checkpoint, log)
	if u != nil {
		options.Undo = u
	}
	return err
}

// inspected has an inspection look at what undo points need, and gives their keeper; nil if it is not known where the
// state is. If the configs are inconsistent about that, what takes the lock of the directory says so.
func (f *undoFlags) inspected(inspection *preflight.Inspection, path string, log *slog.Logger) (*undo.Undo, error) {
	inspection.UndoWanted, inspection.Checkpoint = f.mode == string(undo.Auto), path
	storage, err := inspection.StateDir()
	switch {
	case err != nil:
		return nil, nil //nolint:nilerr,nilnil // see above
	case storage == "" && f.mode == string(undo.Copy):
		return nil, f.unusable(errors.New("no undo point can be made: no node config of " + inspection.Plan.File + " says where the state is (set storage.path)"))
	case storage == "":
		return nil, nil //nolint:nilnil // the inspection warns of it
	}
	u, err := f.at(inspection.Plan, storage, path, log)
	inspection.Undo = u
	return u, err
}

// describePoint names an undo point for a person.
func describePoint(p *checkpoint.UndoPoint) string {
	height := ""
	if p.Height != nil {
		height = fmt.Sprintf(" at height %d", *p.Height)
	}
	return fmt.Sprintf("%s: version %d (%s)%s, from before %s, %s, %s by %s",
		p.Path, p.Stamp.VersionIndex, p.Stamp.Name, height, p.To.Name, p.CreatedAt.Format(timeFormat), plain.Bytes(p.Bytes), p.Method)
}
