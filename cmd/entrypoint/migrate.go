package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/systemd"
	"rollup-entrypoint/internal/undo"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const migrateUsage = "entrypoint migrate --dry-run -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--undo-dir DIRECTORY] [--manifest FILE] [--json]"

// migrateFlags are the settings of migrate.
type migrateFlags struct {
	recordFlags
	undo           undoFlags
	manifest       string
	dryRun, asJSON bool
}

// migrateCommand tries the coming migration on the state, whose node must be stopped.
func migrateCommand(flags *flagSet) func(p program) int {
	f := migrateFlags{undo: undoFlags{mode: string(undo.Copy), fixed: true}} // without a copy there is no dry run
	f.register(flags)
	registerManifest(flags.FlagSet, &f.manifest)
	flags.acts = []string{"dry-run"}
	flags.BoolVar(&f.dryRun, "dry-run", false, "required: run the migration with --dry-run, on a state that is copied before and put back after")
	f.undo.registerDir(flags)
	flags.BoolVar(&f.asJSON, "json", false, "print the report as JSON")
	flags.check = func() error {
		if !f.dryRun {
			return errors.New("--dry-run is missing: only 'entrypoint run' migrates, when the version before is confirmed at its stop height")
		}
		return flags.want(f.settle(flags) && f.config != "" && flags.NArg() == 0)
	}
	return func(p program) int {
		plan, err := sequencer.LoadPlan(f.config)
		if err != nil {
			return fail(p, err)
		}
		inspection := preflight.New(plan)
		if err := inspection.UseManifest(f.manifest, flags.given("manifest")); err != nil {
			return fail(p, err)
		}
		report, err := f.try(p, inspection)
		if err == nil {
			err = report.print(p.stdout, f.asJSON)
		}
		if err != nil {
			return fail(p, err)
		}
		return report.ExitCode
	}
}

// try runs the migration under the locks, with the same preparations as a run.
func (f *migrateFlags) try(p program, inspection *preflight.Inspection) (*dryRun, error) {
	log := newLog(p.stderr, isTerminal(os.Stderr), slog.LevelInfo)
	_ = systemd.Take()                                     // the migration must not have it
	init, err := newInit(p, slog.New(slog.DiscardHandler)) // it would only say that it is not process 1
	if err != nil {
		return nil, err
	}
	// Nothing was tried, so the exit code must not be 0.
	stopped := &sequencer.Failure{Code: sequencer.CodeEarlyExit, What: "a stop signal came before the dry run", Safe: "the state was not changed", Next: "run this again"}
	options, store, err := whileStopped(p, log, init, f.checkpoint, inspection)
	if errors.Is(err, checkpoint.ErrStopped) {
		return nil, stopped
	}
	if err != nil {
		return nil, err
	}
	defer store.Close()
	storage, err := storageFor(inspection, f.checkpoint)
	if err != nil {
		return nil, err
	}
	var u *undo.Undo
	if storage != "" { // otherwise it is refused
		if u, err = f.openUndo(inspection.Plan, storage, log); err != nil {
			return nil, err
		}
		options.Undo = u
	}
	report, err := sequencer.DryRun(*options)
	if err == nil && report.Version == 0 {
		return nil, stopped
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // a Failure in its own words
	}
	return newDryRun(inspection.Plan, report, storage, u), nil
}

// openUndo is where the copy of the state is kept. The state that the copy replaces is deleted at the end, with any other
// that was kept under such a name, so there must be none.
func (f *migrateFlags) openUndo(plan *sequencer.Plan, storage string, log *slog.Logger) (*undo.Undo, error) {
	u, err := f.undo.at(plan, storage, f.checkpoint, log)
	if err != nil {
		return nil, err
	}
	// If something cannot be finished, the dry run says so.
	if _, err := u.Find(); err == nil && u.Aside() != "" {
		return nil, &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: "no dry run: the failed state that was kept as " + u.Aside() + " would be deleted",
			Safe: "nothing was started and the state was not touched", Next: "if you do not need it any more, run 'entrypoint undo --drop' and then this again",
		}
	}
	return u, nil
}

// dryRun is the report for people and programs.
type dryRun struct {
	Version  int    `json:"version_index"`
	Name     string `json:"name"`
	ExitCode int    `json:"exit_code"`
	// Height is where run does it, the stop height of the version before.
	Height  uint64  `json:"migrates_at_height"`
	Seconds float64 `json:"seconds"`
	State   int64   `json:"state_bytes"`
	Free    int64   `json:"free_bytes"`
	Method  string  `json:"copied_by"`
	Text    string  `json:"report"`
	// Left says what could not be deleted.
	Left string `json:"left_behind,omitempty"`

	exit string
}

// newDryRun completes the report, and deletes the state that the dry run has worked on.
func newDryRun(plan *sequencer.Plan, r sequencer.DryRunReport, storage string, u *undo.Undo) *dryRun {
	d := &dryRun{
		Version: r.Version, Name: plan.Versions[r.Version].Name, ExitCode: r.Exit.Status(), exit: r.Exit.String(), Height: plan.Versions[r.Version-1].Stop,
		Seconds: r.Took.Seconds(), State: r.Bytes, Method: string(r.Method), Text: r.Text,
	}
	if _, err := u.Drop(); err != nil {
		d.Left = fmt.Sprintf("%s, the state that the dry run worked on, was not deleted: %s", r.Aside, err)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(storage, &s); err == nil {
		d.Free = int64(s.Bavail) * s.Frsize
	}
	return d
}

func (d *dryRun) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return writeJSON(w, d)
	}
	printLine(w, "migration", "to version %d (%s), with --dry-run: %s after %.1f s", d.Version, d.Name, d.exit, d.Seconds)
	printLine(w, "state", "%s; it was copied before (%s), and put back after", plain.Bytes(d.State), d.Method)
	printLine(w, "free", "%s on its volume", plain.Bytes(d.Free))
	if d.Free < d.State {
		printLine(w, "warning", "less is free than the size of the state: a migration that writes all of it anew may fill the volume")
	}
	if d.Left != "" {
		printLine(w, "warning", "%s", d.Left)
	}
	printLine(w, "for real", "at height %d, the stop height of the version before; the state may have grown by then", d.Height)
	text := d.Text
	if text == "" {
		text = "(it wrote nothing to stdout)\n"
	}
	if _, err := fmt.Fprint(w, "report:\n", text); err != nil {
		return fmt.Errorf("cannot print the report: %w", err)
	}
	return nil
}
