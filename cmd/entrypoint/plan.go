package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/plan"
	"rollup-entrypoint/sequencer/sovereign"
)

const (
	planUsage       = "entrypoint plan -c CONFIG [-f CHECKPOINT | --no-checkpoint-file] [--ask] [--stop-height N] [--manifest FILE] [--hold-file FILE] [--json] [-- NODE ARGUMENTS]"
	planSchemaUsage = "entrypoint plan schema [manager|version]"
)

// planCommand shows what will happen. Unless it is to ask the node, it starts, locks and writes nothing.
func planCommand(flags *flagSet) func(p program) int {
	var f planFlags
	flags.acts = []string{"ask"}
	f.register(flags)
	registerStopHeight(flags, &f.stopHeight)
	registerManifest(flags.FlagSet, &f.manifest)
	flags.BoolVar(&f.ask, "ask", false, "ask the node, which must be stopped, for the height of the state, as 'entrypoint height' does")
	f.undo.register(flags)
	registerHoldFile(flags, &f.holds)
	flags.BoolVar(&f.asJSON, "json", false, "print the plan as JSON")
	flags.check = func() error {
		one := f.settle(flags)
		if _, err := os.Stat(filepath.Dir(f.checkpoint)); err != nil && !flags.given("checkpoint-file") {
			f.checkpoint = "" // while an image is built its volume is not there yet
		}
		f.record = one && (f.checkpoint != "" || f.noCheckpoint)
		neither := f.checkpoint == "" && !f.noCheckpoint
		if err := f.undo.check(); err != nil {
			return err
		}
		return flags.want((f.record || neither && !f.ask) && f.config != "" && !flags.unexpected())
	}
	return func(p program) int {
		if !f.ask && p.inbox != nil {
			_ = p.inbox.Close() // it only gives the signals back
		}
		return fail(p, f.show(p, flags))
	}
}

// planFlags are the flags of plan. Nothing is looked at but the plan unless record is set.
type planFlags struct {
	recordFlags
	undo                undoFlags // for the question
	manifest, holds     string
	ask, asJSON, record bool
}

// planReport is what plan prints as JSON. What was not asked for is null.
type planReport struct {
	Plan     string           `json:"plan"`
	Versions []plannedVersion `json:"versions"`
	// EmergencyStop is the --stop-height at which the plan ends before its own end.
	EmergencyStop *uint64 `json:"emergency_stop"`
	// Record is what 'checkpoint show' prints, Answer what 'height' prints.
	Record any `json:"record"`
	Answer any `json:"answer"`
}

// plannedVersion is one version of the plan, and what will be run for it.
type plannedVersion struct {
	Index       int             `json:"version_index"`
	Name        string          `json:"version"`
	StartHeight uint64          `json:"start_height"`
	StopHeight  *uint64         `json:"stop_height"`
	Retired     bool            `json:"retired"`
	LastImage   string          `json:"last_image"`
	Ask         bool            `json:"ask"`
	Hook        *plannedCommand `json:"hook"`
	Migration   *plannedCommand `json:"migration"`
	Node        *plannedCommand `json:"node"`
}

// plannedCommand is a command as it will be run. Env are the names, never the values, of the variables that it gets beside
// those of the container. SHA256 is that of the program; if it cannot be read, Problem says why.
type plannedCommand struct {
	Argv    []string `json:"argv"`
	Env     []string `json:"env"`
	SHA256  string   `json:"sha256"`
	Problem string   `json:"problem"`
}

// show prints everything. The node is asked before the record is read, because that may correct the record.
func (f *planFlags) show(p program, flags *flagSet) error {
	loaded, err := f.load()
	if err != nil {
		return err
	}
	f.inspection = preflight.New(loaded)
	f.inspection.NodeArgs = flags.Args()
	report := planReport{Plan: loaded.File, Versions: f.planned(loaded)}
	if loaded.Brake > 0 {
		report.EmergencyStop = &loaded.Brake
	}
	if !f.asJSON {
		report.print(p.stdout)
	}
	if f.record {
		err = f.showRecord(p, flags, &report)
	}
	if err == nil && f.asJSON {
		err = writeJSON(p.stdout, report)
	}
	return err
}

// showRecord adds where the sequence is, and what the next start does.
func (f *planFlags) showRecord(p program, flags *flagSet, report *planReport) error {
	loaded := f.inspection.Plan
	storage, err := storageFor(f.inspection, f.checkpoint)
	if err != nil {
		return err
	}
	var answer sequencer.Report
	if f.ask {
		if err := f.inspection.UseManifest(f.manifest, flags.given("manifest")); err != nil {
			return err //nolint:wrapcheck // a Failure in its own words
		}
		if answer, err = askHeight(p, f.checkpoint, f.inspection, &f.undo, f.inspection.NodeArgs); err != nil {
			return err
		}
		report.Answer = heightReport(loaded, answer, lookForHold(holdFile(f.checkpoint, f.holds), loaded))
	}
	found, err := checkpoint.Read(f.checkpoint, storage)
	if err != nil {
		return f.recordUnreadable(loaded, found, err)
	}
	outlook := f.lookAhead(loaded, found)
	held := lookForHold(holdFile(f.checkpoint, f.holds), loaded)
	report.Record = recordReport(f.checkpoint, found, loaded, outlook, held)
	if f.asJSON {
		return nil
	}
	fmt.Fprintln(p.stdout)
	printLine(p.stdout, "checkpoint", "%s", cmp.Or(f.checkpoint, "none"))
	printRecord(p.stdout, "current", f.checkpoint, found, loaded)
	if f.ask {
		printDurable(p.stdout, answer.Durable)
		printLine(p.stdout, "next start", "%s", nextStart(loaded, answer.Step))
	} else {
		printOutlook(p.stdout, loaded, outlook)
	}
	held.print(p.stdout)
	return nil
}

// planned gives what will be run for each version, with the arguments of a node that follows another one.
func (f *planFlags) planned(loaded *sequencer.Plan) []plannedVersion {
	all := make([]plannedVersion, len(loaded.Versions))
	for i := range all {
		v, out := &loaded.Versions[i], &all[i]
		out.Index, out.Name, out.StartHeight, out.Retired, out.LastImage, out.Ask = i, v.Name, v.Start, v.Retired, v.LastImage, !v.NeverAsk
		if v.Stop > 0 {
			out.StopHeight = &v.Stop
		}
		if len(v.Before) > 0 {
			out.Hook = f.command(v.Before, v.Env, plan.HookEnv)
		}
		if v.Migration != "" {
			out.Migration = f.command(append([]string{v.Migration}, sovereign.MigrationArgs(v.Config, v.MigrationArgs...)...), v.Env, v.MigrationEnv)
		}
		if !v.Retired {
			args := sovereign.NodeArgs(v.Config, v.Start, v.Stop, slices.Concat(v.Args, f.inspection.NodeArgs)...)
			out.Node = f.command(append([]string{v.Binary}, args...), v.Env, nil)
		}
	}
	return all
}

// command is what will be run, with NAME=VALUE pairs, or names alone, of its environment.
func (f *planFlags) command(argv, env, more []string) *plannedCommand {
	c := &plannedCommand{Argv: argv, Env: []string{}}
	for _, pair := range slices.Concat(env, more) {
		if name, _, _ := strings.Cut(pair, "="); !slices.Contains(c.Env, name) {
			c.Env = append(c.Env, name)
		}
	}
	var err error
	if c.SHA256, err = f.inspection.DigestOf(argv[0]); err != nil {
		c.Problem = err.Error()
	}
	return c
}

// print prints the versions for a person.
func (r *planReport) print(w io.Writer) {
	printLine(w, "plan", "%s", r.Plan)
	if r.EmergencyStop != nil {
		printLine(w, "stop", "--stop-height %d: nothing follows that height", *r.EmergencyStop)
	}
	for i := range r.Versions {
		v := &r.Versions[i]
		from, to := "genesis", "on"
		if v.StartHeight > 0 {
			from = fmt.Sprintf("height %d", v.StartHeight)
		}
		if v.StopHeight != nil {
			to = fmt.Sprintf("to %d", *v.StopHeight)
		}
		fmt.Fprintln(w)
		printLine(w, "version", "%d (%s), from %s %s", v.Index, v.Name, from, to)
		if v.Retired {
			printLine(w, "retired", "its files are not in this image")
			if v.LastImage != "" {
				printLine(w, "last image", "%s", v.LastImage)
			}
		}
		v.Hook.print(w, "hook")
		v.Migration.print(w, "migration")
		v.Node.print(w, "node")
		if !v.Ask {
			printLine(w, "ask", "false: its node is not asked for its height")
		}
	}
}

// print prints a command, which may be nil, as a shell takes it.
func (c *plannedCommand) print(w io.Writer, label string) {
	if c == nil {
		return
	}
	var words []string
	for _, word := range c.Argv {
		words = append(words, sequencer.Quoted(word))
	}
	printLine(w, label, "%s", strings.Join(words, " "))
	if len(c.Env) > 0 {
		printLine(w, "", "environment: %s", strings.Join(c.Env, ", "))
	}
	if c.Problem != "" {
		printLine(w, "", "%s", c.Problem)
	} else {
		printLine(w, "", "sha256: %s", c.SHA256)
	}
}

// planSchema prints a JSON Schema.
func planSchema(flags *flagSet) func(p program) int {
	text, version := plan.Schemas()
	flags.check = func() error {
		if flags.Arg(0) == "version" {
			text = version
		}
		return flags.want(flags.NArg() <= 1 && slices.Contains([]string{"", "manager", "version"}, flags.Arg(0)))
	}
	return func(p program) int {
		if _, err := io.WriteString(p.stdout, text); err != nil {
			return fail(p, fmt.Errorf("cannot write the schema: %w", err))
		}
		return 0
	}
}
