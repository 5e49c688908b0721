package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// reportLines is how many lines of a migration's report the step shows, and complaintLines of what it wrote to stderr.
const reportLines, complaintLines = 20, 10

// dryRunReport is the part of what `entrypoint migrate --dry-run --json` prints that the rehearsal uses.
type dryRunReport struct {
	Version  int     `json:"version_index"`
	ExitCode int     `json:"exit_code"`
	Seconds  float64 `json:"seconds"`
	State    uint64  `json:"state_bytes"`
	Free     uint64  `json:"free_bytes"`
	Report   string  `json:"report"`
}

// nothingToTry begins the words of the entrypoint if no migration comes next.
const nothingToTry = "no dry run: the state is at "

// tryMigration runs the coming migration with --dry-run, in a container of its own, on the state of a node that is not
// running.
func (r *rehearsal) tryMigration(ctx context.Context, s *stepReport, n *node) error {
	if r.settings.noDryRun {
		s.Notes = append(s.Notes, "not tried: --no-dry-run was given")
		return nil
	}
	var out, complaint bytes.Buffer
	args := slices.Concat(r.engine.compose, []string{"-p", r.project, "-f", r.file, "run", "--rm", "--no-deps", "-T", n.service, "migrate", "--dry-run", "--json"})
	cmd := command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return failf(n.service, "%s, during the dry run of a migration on %s", reasonOf(context.Cause(ctx)), n.service)
	case err != nil && !errors.As(err, &exit):
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return s.judgeDryRun(n.service, cmd.ProcessState.ExitCode(), out.Bytes(), complaint.String())
}

// judgeDryRun takes the exit code and the output of a dry run on node.
func (s *stepReport) judgeDryRun(node string, code int, out []byte, complaint string) error {
	said := wordsOf(complaint)
	var d dryRunReport
	if json.Unmarshal(out, &d) != nil || d.Version == 0 { // it came to none
		i := slices.IndexFunc(said, func(line string) bool { return strings.Contains(line, nothingToTry) })
		if i >= 0 {
			_, why, _ := strings.Cut(said[i], nothingToTry)
			s.Notes = append(s.Notes, fmt.Sprintf("not tried: the state of %s is at %s", node, why))
			return nil
		}
		return failures{{
			Node: node, ExitCode: &code, Stderr: strings.Join(said, "\n"),
			Sentence: fmt.Sprintf("%s: entrypoint migrate --dry-run exited %d: %s", node, code, reason(said)),
		}}
	}
	s.Notes = append(s.Notes, fmt.Sprintf("migration of version %d on %s: exited %d after %.1f s; the state has %d bytes, and %d are free", d.Version, node, d.ExitCode, d.Seconds, d.State, d.Free))
	lines := strings.Split(strings.TrimSpace(d.Report), "\n")
	for _, line := range lines[max(0, len(lines)-reportLines):] {
		s.Notes = append(s.Notes, "report: "+line)
	}
	if code != 0 {
		return failures{{
			Node: node, Version: &d.Version, ExitCode: &code, Stderr: strings.Join(said, "\n"),
			Sentence: fmt.Sprintf("%s, version %d: the dry run of its migration exited %d: %s", node, d.Version, code, last(said)),
		}}
	}
	return nil
}

// wordsOf gives the last lines of stderr that are not lines of the entrypoint's log.
func wordsOf(text string) (lines []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !json.Valid([]byte(line)) {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-complaintLines):]
}

// reason is the line in which the entrypoint says why it ended, or the last one.
func reason(lines []string) string {
	for _, line := range lines {
		if why, is := strings.CutPrefix(line, "entrypoint: "); is {
			return why
		}
	}
	return last(lines)
}

func last(lines []string) string {
	if len(lines) == 0 {
		return "it wrote nothing to stderr"
	}
	return lines[len(lines)-1]
}
