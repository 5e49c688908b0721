package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/limits"
	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const checkUsage = "entrypoint check -c CONFIG [-f CHECKPOINT] [--running URL] [FLAGS]"

// checked is the outcome of a check. plan is nil if the config could not be read.
type checked struct {
	plan       *sequencer.Plan
	checkpoint string
	// running is the address of a running entrypoint; empty for none.
	running string
	// manifest is the manifest that the files were compared with; empty for none.
	manifest string
	findings []sequencer.Finding
	strict   bool
	// undoPoint is the undo point that is there; nil for none.
	undoPoint *checkpoint.UndoPoint
	undo      undoFlags
	// aside is the state that an undo point has replaced; empty for none.
	aside string
	// holds is what --hold-file says, held the hold that is there; nil for none.
	holds string
	held  *seenHold
	// nofile is the --nofile of a run, files is what its nodes get.
	nofile uint64
	files  limits.OpenFiles
}

// checkCommand looks for all that would keep a run or the next upgrade from succeeding. It starts, locks and writes
// nothing, so it may be run beside a sequence.
func checkCommand(flags *flagSet) func(p program) int {
	var config, manifest, running, termination string
	var stopHeight uint64
	var asJSON bool
	c := checked{}
	flags.StringVarP(&config, "config", "c", "", configUsage)
	flags.StringVarP(&c.checkpoint, "checkpoint-file", "f", "", "the checkpoint `FILE`, to check it and its volume too (default in an image, if its directory exists: "+layout.Checkpoint+")")
	flags.StringVar(&running, "running", "", "compare the plan with the height of the entrypoint running at `URL`; exit 78 if the plan comes too late")
	registerStopHeight(flags, &stopHeight)
	registerManifest(flags.FlagSet, &manifest)
	flags.Uint64Var(&c.nofile, "nofile", preflight.FilesDefault, "the `N` that run will use as --nofile: warn if a node gets too few open files")
	c.undo.register(flags)
	registerHoldFile(flags, &c.holds)
	registerTermination(flags, &termination, "check")
	flags.BoolVar(&asJSON, "json", false, "print the findings as JSON")
	flags.BoolVar(&c.strict, "strict", false, "exit 78 for warnings too")
	flags.check = func() (err error) {
		flags.useLayout(&config, &c.checkpoint)
		if _, err := os.Stat(filepath.Dir(c.checkpoint)); err != nil && !flags.given("checkpoint-file") {
			c.checkpoint = "" // while an image is built its volume is not there yet
		}
		if err = flags.want(config != "" && flags.NArg() == 0); err == nil {
			c.running, err = runningAddress(running)
		}
		return errors.Join(err, c.undo.check(), notForTermination(termination, c.checkpoint), notForHold(holdFile(c.checkpoint, c.holds), c.checkpoint, termination))
	}
	return func(p program) int {
		var err error
		c.look(config, stopHeight, manifest, flags.given("manifest"))
		if asJSON {
			err = c.printJSON(p.stdout)
		} else {
			c.print(p.stdout)
		}
		code := fail(p, err)
		if err == nil && !c.ok() {
			err, code = c.failure(), sequencer.CodeMismatch
		}
		if err != nil {
			terminationOf(flags).writeOrSay(p, asFailure(err))
		}
		return code
	}
}

// failure is what was found, for the termination message.
func (c *checked) failure() *sequencer.Failure {
	var found sequencer.Problems
	for _, f := range c.sorted() {
		found = append(found, string(f.Severity)+": "+f.Text(c.plan))
	}
	return &sequencer.Failure{
		Code: sequencer.CodeMismatch, What: "the check failed", Err: found, Safe: "nothing was started or changed",
		Next: "fix what is listed, and check again",
	}
}

// sorted gives the findings, errors first.
func (c *checked) sorted() (all []sequencer.Finding) {
	for _, severity := range []sequencer.Severity{sequencer.SeverityError, sequencer.SeverityWarning} {
		for _, f := range c.findings {
			if f.Severity == severity {
				all = append(all, f)
			}
		}
	}
	return all
}

// look finds everything. manifestGiven: the manifest was named by the user.
func (c *checked) look(config string, stopHeight uint64, manifest string, manifestGiven bool) {
	plan, err := loadPlan(config, stopHeight)
	c.held = lookForHold(holdFile(c.checkpoint, c.holds), plan)
	if err != nil {
		c.findings = sequencer.FindingsOf(sequencer.WholePlan, err)
		return
	}
	c.plan = plan
	inspection := preflight.New(plan)
	inspection.Elsewhere = c.running != ""
	if err := inspection.UseManifest(manifest, manifestGiven); err != nil {
		c.findings = sequencer.FindingsOf(sequencer.WholePlan, err)
	}
	c.manifest = inspection.Manifest
	c.lookForUndo(inspection)
	if c.files, err = limits.Files(); err == nil {
		c.files.Soft = c.files.Raised(c.nofile)
	}
	stopTimeout := envName("stop-timeout")
	c.findings = slices.Concat(c.findings, inspection.All(c.checkpoint), preflight.CheckGrace(stopTimeout, os.Getenv(stopTimeout)),
		preflight.CheckOpenFiles(c.files), checkRunning(plan, c.running), c.held.findings())
}

// lookForUndo looks for the undo point, and has the inspection look for what would keep the next one from being made.
func (c *checked) lookForUndo(inspection *preflight.Inspection) {
	u, err := c.undo.inspected(inspection, c.checkpoint, nil)
	if u != nil {
		c.aside = u.Aside()
		c.undoPoint, err = u.Look()
	}
	if err != nil {
		c.findings = append(c.findings, sequencer.FindingsOf(sequencer.WholePlan, err)...)
	}
}

// runningAddress is the HOST:PORT of a URL; empty if there is none.
func runningAddress(url string) (string, error) {
	if url == "" {
		return "", nil
	}
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	// With a path it is something else, and with @ it may have a password.
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" || strings.ContainsAny(address, "/@") {
		return "", errors.New("--running: want http://HOST:PORT, the address of the status of the running entrypoint")
	}
	return address, nil
}

// checkRunning compares the plan with the height that the entrypoint at address reports. If it cannot be found out
// whether the plan comes too late, that is an error, too.
func checkRunning(plan *sequencer.Plan, address string) []sequencer.Finding {
	if address == "" {
		return nil
	}
	problem := func(what, next string) []sequencer.Finding {
		return []sequencer.Finding{{Version: sequencer.WholePlan, Severity: sequencer.SeverityError, What: what, Next: next}}
	}
	r, err := status.Client{Listen: address}.Report(context.Background())
	if err != nil {
		return problem("the running entrypoint cannot be asked: "+err.Error(), "name the address of its status, such as http://127.0.0.1:9848")
	}
	v := r.Versions[r.VersionIndex]
	switch {
	case r.Phase == sequencer.PhaseFinished && v.StopHeight != nil: // no node runs, so there is no height
		return sequencer.CheckTooLate(plan, r.Version, v.StartHeight, *v.StopHeight)
	case r.Height != nil:
		return sequencer.CheckTooLate(plan, r.Version, v.StartHeight, r.Height.Blocks)
	}
	var late []sequencer.Finding
	if r.DurableHeight != nil { // by now the state may be higher, but not lower
		late = sequencer.CheckTooLate(plan, r.Version, v.StartHeight, *r.DurableHeight)
	}
	if late != nil || r.DurableHeight != nil && r.Complete() {
		return late
	}
	found := problem("the entrypoint at "+address+" does not know the height of its node", "run this again when the node has reported a height")
	if r.Phase == sequencer.PhaseHeld {
		found[0].Severity, found[0].What = sequencer.SeverityWarning, "the entrypoint at "+address+" is held, so the height of its state is not known: this plan may come too late"
		found[0].Next = "run 'entrypoint check' with the plan on the volume of the state, or run this again after the hold"
	}
	return found
}

func (c *checked) count(severity sequencer.Severity) int {
	n := 0
	for _, f := range c.findings {
		if f.Severity == severity {
			n++
		}
	}
	return n
}

func (c *checked) ok() bool {
	return c.count(sequencer.SeverityError) == 0 && (!c.strict || len(c.findings) == 0)
}

func (c *checked) versionName(i int) string {
	if i == sequencer.WholePlan || c.plan == nil {
		return ""
	}
	return c.plan.Versions[i].Name
}

// jsonVersion names a version; both are null if a finding belongs to none.
type jsonVersion struct {
	Index *int    `json:"version_index"`
	Name  *string `json:"version"`
}

type jsonFinding struct {
	jsonVersion
	Severity sequencer.Severity `json:"severity"`
	What     string             `json:"what"`
	Next     string             `json:"next"`
}

func (c *checked) jsonVersion(i int) jsonVersion {
	if i == sequencer.WholePlan {
		return jsonVersion{}
	}
	name := c.versionName(i)
	return jsonVersion{&i, &name}
}

func (c *checked) printJSON(w io.Writer) error {
	report := struct {
		OK       bool          `json:"ok"`
		Findings []jsonFinding `json:"findings"`
		Versions []jsonVersion `json:"versions"`
		// OpenFiles is how many files a node may have open; 0 if that is not known.
		OpenFiles uint64 `json:"open_files"`
		// UndoPoint is the undo point that is there; null for none.
		UndoPoint *jsonUndoPoint `json:"undo_point"`
		// FailedState is the directory of the state that an undo point has replaced; empty for none.
		FailedState string `json:"failed_state"`
		// Hold is the hold that is there; null for none.
		Hold *seenHold `json:"hold"`
	}{c.ok(), []jsonFinding{}, []jsonVersion{}, c.files.Soft, newJSONUndoPoint(c.undoPoint), c.aside, c.held}
	for _, f := range c.findings {
		report.Findings = append(report.Findings, jsonFinding{c.jsonVersion(f.Version), f.Severity, f.What, f.Next})
	}
	if c.plan != nil {
		for i := range c.plan.Versions {
			report.Versions = append(report.Versions, c.jsonVersion(i))
		}
	}
	return writeJSON(w, report)
}

// print prints a table for a person, errors first, and a last line with the result.
func (c *checked) print(w io.Writer) {
	var rows []row
	for _, f := range c.sorted() {
		rows = append(rows, row{f.Severity, c.versionName(f.Version), f.What, f.Next})
	}
	printTable(w, rows)
	printLastFailure(w, c.checkpoint)
	if c.undoPoint != nil {
		printLine(w, "undo point", "%s", describePoint(c.undoPoint))
	}
	if c.aside != "" {
		printLine(w, "failed", "%s: the state that an undo point has replaced; 'entrypoint undo --drop' deletes it, and the undo point", c.aside)
	}
	c.held.print(w)
	fmt.Fprintln(w, c.summary())
}

// jsonUndoPoint is an undo point in a report. The height is null if it was not known.
type jsonUndoPoint struct {
	Path      string                `json:"path"`
	Version   int                   `json:"version_index"`
	Name      string                `json:"version"`
	Height    *uint64               `json:"height"`
	Before    string                `json:"before"`
	Method    checkpoint.UndoMethod `json:"method"`
	Bytes     int64                 `json:"bytes"`
	CreatedAt time.Time             `json:"created_at"`
}

func newJSONUndoPoint(p *checkpoint.UndoPoint) *jsonUndoPoint {
	if p == nil {
		return nil
	}
	return &jsonUndoPoint{p.Path, p.Stamp.VersionIndex, p.Stamp.Name, p.Height, p.To.Name, p.Method, p.Bytes, p.CreatedAt}
}

func (c *checked) summary() string {
	errs, warnings := c.count(sequencer.SeverityError), c.count(sequencer.SeverityWarning)
	if errs+warnings > 0 {
		text := fmt.Sprintf("%s, %s", plain.Count(errs, "error"), plain.Count(warnings, "warning"))
		if c.ok() {
			return text + ": it can run"
		}
		return text
	}
	var names, retired []string
	for _, v := range c.plan.Versions {
		if v.Retired {
			retired = append(retired, v.Name)
		} else {
			names = append(names, v.Name)
		}
	}
	text := fmt.Sprintf("no problems found. Checked: %s; the programs, libraries and configs of %s; ", c.plan.File, strings.Join(names, ", "))
	if len(retired) > 0 {
		text += "only the heights of " + strings.Join(retired, ", ") + ", retired; "
	}
	if c.checkpoint != "" {
		text += "the checkpoint " + c.checkpoint + "; "
	}
	if c.running != "" {
		text += "the height of the entrypoint at " + c.running + "; "
	}
	if c.manifest != "" {
		text += "their digests in " + c.manifest + "; "
	}
	text += "the volume of the state; io_uring"
	if c.files.Soft > 0 {
		text += fmt.Sprintf("; %d open files", c.files.Soft)
	}
	return text
}
