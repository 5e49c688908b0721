package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer"
)

const checkSynopsis = "entrypoint check -c CONFIG [-f CHECKPOINT] [--running URL] [--manifest FILE] [--json] [--strict]"

// checked is the outcome of a check. plan is nil if the config could not be read.
type checked struct {
	plan       *sequencer.Plan
	checkpoint string
	// running is the address of an entrypoint that runs; empty for none.
	running string
	// verifier has the manifest; nil for none.
	verifier *verifier
	findings []sequencer.Finding
	strict   bool
}

// checkCommand looks for all that would keep a run or the next upgrade from succeeding. It starts, locks and writes
// nothing, so it may be run beside a sequence.
func checkCommand(p program, args []string) int {
	var config, manifest, running string
	var asJSON bool
	c := checked{}
	flags := newFlags("check")
	flags.StringVarP(&config, "config", "c", "", configUsage)
	flags.StringVarP(&c.checkpoint, "checkpoint-file", "f", "", "the checkpoint `FILE`, to check it and its volume too; default in an image, if its directory exists: "+images.Checkpoint)
	flags.StringVar(&running, "running", "", "compare the config with the height of the entrypoint that runs at `URL`: exit 78 if it comes too late")
	registerManifest(flags.FlagSet, &manifest)
	flags.BoolVar(&asJSON, "json", false, "print what was found as JSON")
	flags.BoolVar(&c.strict, "strict", false, "exit 78 for a warning, too")
	if code, done := parseOrHelp(p, flags, checkSynopsis, args); done {
		return code
	}
	flags.useLayout(&config, &c.checkpoint)
	if !flags.given("checkpoint-file") && !volumeThere(c.checkpoint) {
		c.checkpoint = ""
	}
	if config == "" || flags.NArg() > 0 {
		return usageError(p, "check", errors.New("want: "+checkSynopsis))
	}
	var err error
	if c.running, err = runningAddress(running); err != nil {
		return usageError(p, "check", err)
	}
	c.look(config, manifest, flags.given("manifest"))
	if asJSON {
		err = c.printJSON(p.stdout)
	} else {
		c.print(p.stdout)
	}
	switch {
	case err != nil:
		return fail(p, err)
	case !c.ok():
		return sequencer.CodeMismatch
	}
	return 0
}

// look finds everything. manifestGiven: somebody has named the manifest.
func (c *checked) look(config, manifest string, manifestGiven bool) {
	plan, err := sequencer.LoadPlan(config)
	if err != nil {
		c.findings = planFindings(config, err)
		return
	}
	c.plan = plan
	if c.verifier, err = openVerifier(manifest, manifestGiven, plan); err != nil {
		c.findings = planFindings(config, err)
	}
	c.findings = append(c.findings, preflightAll(plan, c.checkpoint, c.verifier)...)
	c.findings = append(c.findings, checkRunning(plan, c.running)...)
}

// runningAddress is the HOST:PORT of a URL; empty if there is none.
func runningAddress(url string) (string, error) {
	if url == "" {
		return "", nil
	}
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" || strings.Contains(address, "/") {
		return "", fmt.Errorf("--running is %q, want http://HOST:PORT, the address of the status of the entrypoint that runs", url)
	}
	return address, nil
}

// checkRunning compares the plan with the height that the entrypoint at address reports. A gate that cannot find out
// whether it is too late stays closed.
func checkRunning(plan *sequencer.Plan, address string) []sequencer.Finding {
	if address == "" {
		return nil
	}
	problem := func(what, next string) []sequencer.Finding {
		return []sequencer.Finding{{Version: sequencer.WholePlan, Severity: sequencer.SeverityError, What: what, Next: next}}
	}
	r, err := status.Client{Listen: address}.Report(context.Background())
	if err != nil {
		return problem("the entrypoint that runs cannot be asked: "+err.Error(), "name the address of its status, such as http://127.0.0.1:9848")
	}
	v := r.Versions[r.VersionIndex]
	switch {
	case r.Phase == sequencer.PhaseFinished && v.StopHeight != nil: // no node runs any more
		return sequencer.CheckTooLate(plan, r.Version, v.StartHeight, *v.StopHeight)
	case r.Height == nil:
		return problem("the entrypoint at "+address+" does not know the height of its node", "run this again when the node has reported a height")
	}
	return sequencer.CheckTooLate(plan, r.Version, v.StartHeight, r.Height.Blocks)
}

// planFindings are the problems of a config that cannot be read, one each.
func planFindings(config string, err error) []sequencer.Finding {
	problem := func(what, next string) sequencer.Finding {
		return sequencer.Finding{Version: sequencer.WholePlan, Severity: sequencer.SeverityError, What: what, Next: next}
	}
	var problems sequencer.Problems
	if !errors.As(err, &problems) {
		var f *sequencer.Failure
		if errors.As(err, &f) && f.Err != nil {
			return []sequencer.Finding{problem(f.What+": "+f.Err.Error(), f.ToDo())}
		}
		return []sequencer.Finding{problem(err.Error(), "")}
	}
	var found []sequencer.Finding
	for _, what := range problems {
		found = append(found, problem(config+": "+what, "fix it there"))
	}
	return found
}

// count is how many findings are of that severity.
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

// versionName is how a finding's version is shown.
func (c *checked) versionName(i int) string {
	if i == sequencer.WholePlan || c.plan == nil {
		return ""
	}
	return c.plan.Versions[i].Name
}

// jsonVersion names a version; both are null where a finding belongs to none.
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
	}{c.ok(), []jsonFinding{}, []jsonVersion{}}
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

// writeJSON prints a report as JSON for people and programs.
func writeJSON(w io.Writer, report any) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the report as JSON: %w", err)
	}
	if _, err := w.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}

// textWidth is where the text of a finding is wrapped, in bytes. Names of files are never broken.
const textWidth = 90

// print prints a table for a person, errors first, and a last line that says how it is.
func (c *checked) print(w io.Writer) {
	column := len("version")
	for _, f := range c.findings {
		column = max(column, len(c.versionName(f.Version)))
	}
	if len(c.findings) > 0 {
		fmt.Fprintf(w, "%-8s %-*s  what, and what to do\n", "severity", column, "version")
	}
	for _, severity := range []sequencer.Severity{sequencer.SeverityError, sequencer.SeverityWarning} {
		for _, f := range c.findings {
			if f.Severity == severity {
				printRow(w, column, string(f.Severity), c.versionName(f.Version), f.What, f.Next)
			}
		}
	}
	fmt.Fprintln(w, c.summary())
}

// printRow prints a finding: what is wrong, and below it what to do.
func printRow(w io.Writer, column int, severity, name, what, next string) {
	lines := wrap(what, textWidth)
	for n, line := range wrap(next, textWidth-2) {
		lines = append(lines, [2]string{"→ ", "  "}[min(n, 1)]+line)
	}
	for _, line := range lines {
		fmt.Fprintf(w, "%-8s %-*s  %s\n", severity, column, name, line)
		severity, name = "", ""
	}
}

func (c *checked) summary() string {
	errs, warnings := c.count(sequencer.SeverityError), c.count(sequencer.SeverityWarning)
	if errs+warnings > 0 {
		text := fmt.Sprintf("%s, %s", counted(errs, "error"), counted(warnings, "warning"))
		if c.ok() {
			return text + ": it can run"
		}
		return text
	}
	var names []string
	for _, v := range c.plan.Versions {
		names = append(names, v.Name)
	}
	text := fmt.Sprintf("no problems found: %s; the programs, libraries and configs of %s; ", c.plan.File, strings.Join(names, ", "))
	if c.checkpoint != "" {
		text += "the checkpoint " + c.checkpoint + "; "
	}
	if c.running != "" {
		text += "the height of the entrypoint at " + c.running + "; "
	}
	if c.verifier != nil {
		text += "their digests in " + c.verifier.file + "; "
	}
	return text + "the volume of the state; io_uring"
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// wordsOf splits text at spaces, but not within a quoted command of ours.
func wordsOf(text string) []string {
	var words []string
	quoted := false
	for _, word := range strings.Fields(text) {
		if quoted {
			words[len(words)-1] += " " + word
		} else {
			words = append(words, word)
		}
		last := words[len(words)-1] // names in the command may be in quotes, too
		quoted = strings.HasPrefix(last, "'entrypoint") &&
			(strings.Count(last, "'")%2 == 1 || !strings.HasSuffix(strings.TrimRight(last, ";,."), "'"))
	}
	return words
}

// wrap breaks text between words into lines of at most width bytes, if no word is longer. A command in quotes is one word,
// so that it can be copied. What a terminal would obey, which may be in any file, is shown as a question mark.
func wrap(text string, width int) []string {
	text = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) && r != '\n' {
			return '?'
		}
		return r
	}, text)
	var lines []string
	line := ""
	for _, word := range wordsOf(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
