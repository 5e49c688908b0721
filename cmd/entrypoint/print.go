package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

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

const timeFormat = "2006-01-02 15:04:05 MST"

func printLine(w io.Writer, label, format string, values ...any) {
	if label != "" {
		label += ":"
	}
	fmt.Fprintf(w, "%-12s%s\n", label, plain.Line(fmt.Sprintf(format, values...)))
}

func printStamp(w io.Writer, s checkpoint.Stamp) {
	from := "genesis"
	if s.StartHeight > 0 {
		from = fmt.Sprintf("height %d", s.StartHeight)
	}
	text := fmt.Sprintf("version %d (%s), from %s", s.VersionIndex, s.Name, from)
	if s.StopHeight > 0 {
		text += fmt.Sprintf(" to %d", s.StopHeight)
	}
	if s.Migration != "" {
		text += ", migration " + string(s.Migration)
	}
	if s.DryRun {
		text += " (a dry run)"
	}
	if s.Complete {
		text += ", complete by a person's word"
	}
	printLine(w, "stamp", "%s", text)
}

// printCheckpoint prints a checkpoint for a person, its version after label. plan may be nil.
func printCheckpoint(w io.Writer, label string, c checkpoint.Checkpoint, plan *sequencer.Plan) {
	name := ""
	if plan != nil && c.VersionIndex <= plan.Last() {
		name = " (" + plan.Versions[c.VersionIndex].Name + ")"
	}
	printLine(w, label, "%d%s", c.VersionIndex, name)
	printLine(w, "phase", "%s", describe(c))
	if c.Height != nil {
		printLine(w, "height", "%d, when its node was asked last", *c.Height)
	}
	printLine(w, "binary", "%s", c.BinaryPath)
	if c.BinarySHA256 != "" {
		printLine(w, "sha256", "%s", c.BinarySHA256)
	}
	if !c.UpdatedAt.IsZero() {
		printLine(w, "updated", "%s", c.UpdatedAt.Format(timeFormat))
	}
	for _, h := range c.History {
		if m := h.Migration; m != nil && !m.CompletedAt.IsZero() {
			printLine(w, "migrated", "to version %d (%s), %s, runs: %d", h.VersionIndex, h.Name, m.CompletedAt.Format(timeFormat), m.Runs)
		}
		if !h.CompletedAt.IsZero() {
			printLine(w, "completed", "version %d (%s) at height %d, %s, by %s", h.VersionIndex, h.Name, h.StopHeight, h.CompletedAt.Format(timeFormat), h.Proof)
		}
	}
}

func describe(c checkpoint.Checkpoint) string {
	switch {
	case c.Phase == checkpoint.PhaseFinished:
		return "finished: it reached its stop height, and nothing was to follow"
	case c.Phase == checkpoint.PhaseMigrating && (c.Started == nil || *c.Started):
		return "its migration was begun and is not recorded as completed"
	case c.Phase == checkpoint.PhaseMigrating, c.Phase == checkpoint.PhaseFinishingPrevious:
		return "it was not started: the version before must be confirmed at its stop height first"
	case c.Phase == "":
		return "running, as sov-rollup-manager records it: whether a migration completed is unknown"
	}
	return "running"
}

// textWidth is where the text of a finding is wrapped, in bytes. Names of files are never broken.
const textWidth = 90

// row is something that is wrong, in a table; name is that of its version.
type row struct {
	severity         sequencer.Severity
	name, what, next string
}

// printTable prints what is wrong, and below each what to do.
func printTable(w io.Writer, rows []row) {
	column := len("version")
	for _, r := range rows {
		column = max(column, len(r.name))
	}
	if len(rows) > 0 {
		fmt.Fprintf(w, "%-8s %-*s  what, and what to do\n", "severity", column, "version")
	}
	for _, r := range rows {
		lines, indent := wrap(r.what, textWidth), "→ "
		for _, line := range wrap(r.next, textWidth-2) {
			lines, indent = append(lines, indent+line), "  "
		}
		for _, line := range lines {
			fmt.Fprintf(w, "%-8s %-*s  %s\n", r.severity, column, r.name, line)
			r.severity, r.name = "", ""
		}
	}
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

// wrap breaks text between words into lines of at most width bytes, if no word is longer. A command in quotes is one
// word, so that it can be copied.
func wrap(text string, width int) (lines []string) {
	for _, word := range wordsOf(plain.Escape(text)) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}
