package program

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
)

// phase is one step of a test.
type phase struct {
	name string
	// do may be nil, if what is expected follows from the phase before.
	do func(c *chain)
	// events are lines of our log, in this order; others may be between them.
	events []event
	// trace is all that the nodes and migrations wrote into their journal since the last phase: starts with their
	// arguments, questions with the height that was the answer, signals, and exits with their code and the durable height.
	// A line that begins with ? may be missing.
	trace []string
	// checkpoint, stamp and state are what is on the volume, in words, of which those with a ? may be missing; empty: not
	// looked at.
	checkpoint, stamp, state string
	// exit ends the program with this code; nil: it keeps running.
	exit *int
	// says are parts of the last log line, which says why a run failed; cause is the cause in it, for programs.
	says  []string
	cause string
	// allows are warnings that may come or not.
	allows []string
}

func exits(code int) *int { return &code }

// event is a log message, and then attributes: key=value, or key~part of the value.
type event []string

func on(message string, attrs ...string) event { return append(event{message}, attrs...) }

// run drives the chain through phases.
func (c *chain) run(phases ...phase) {
	c.t.Helper()
	for i, p := range phases {
		c.phase = fmt.Sprintf("phase %d (%s)", i, p.name)
		if p.do != nil {
			p.do(c)
		}
		c.expect(p)
	}
}

// expect waits until everything is as p wants it, and finds what it does not want.
func (c *chain) expect(p phase) {
	c.t.Helper()
	for _, e := range p.events {
		c.awaitEvent(e)
	}
	if c.program != nil && p.exit != nil {
		c.awaitExit(*p.exit)
		c.awaitOutlived()
	}
	ended := c.program == nil || c.program.ended()
	c.expectTrace(p.trace, !ended)
	if p.checkpoint != "" {
		c.awaitEqual("checkpoint", p.checkpoint, !ended, c.checkpointInWords)
	}
	if p.stamp != "" {
		c.awaitEqual("stamp", p.stamp, !ended, c.stampInWords)
	}
	if p.state != "" {
		c.awaitEqual("state", p.state, !ended, c.stateInWords)
	}
	switch {
	case c.program == nil:
	case p.exit != nil:
		c.expectEnd(p)
		c.lastLog, c.program = c.program.log.text(), nil
	case c.program.ended():
		c.fatalf("the program has ended, with code %d", c.program.code())
	default:
		c.awaitNoZombies()
	}
}

// expectEnd looks at what an ended program leaves behind.
func (c *chain) expectEnd(p phase) {
	c.t.Helper()
	killed := c.program.killed()
	if left := c.processes(); len(left) > 0 {
		c.fatalf("processes are left over: %v", left)
	}
	if *p.exit != 0 && !killed {
		c.expectReason(*p.exit, p.cause, p.says)
	}
	c.expectNoWarnings(p.allows)
	entries, err := c.journal()
	if err != nil {
		c.fatalf("%s", err)
	}
	if overlap := mockrollup.Overlap(entries); overlap != nil {
		c.fatalf("two processes worked on the state at once: %+v", overlap)
	}
	if temp := c.leftoverFiles(); !killed && len(temp) > 0 {
		c.fatalf("temporary files are left over: %v", temp)
	}
}

// expectReason looks at the last line of our log.
func (c *chain) expectReason(code int, cause string, says []string) {
	c.t.Helper()
	lines := c.program.log.all()
	if len(lines) == 0 {
		c.fatalf("the program ended without a line of log")
	}
	last := lines[len(lines)-1]
	if last.text("msg") != "run failed" || last.text("exit_code") != strconv.Itoa(code) {
		c.fatalf("the last line does not say why the run failed with %d: %s", code, last.raw)
	}
	if cause != "" && last.text("cause") != cause {
		c.fatalf("the cause is %q, want %q: %s", last.text("cause"), cause, last.raw)
	}
	for _, part := range says {
		if !strings.Contains(last.text("error"), part) {
			c.fatalf("the last line does not say %q:\n%s", part, last.text("error"))
		}
	}
	last.expected = true
}

// saysNothingOf looks for what the log of the last program must not have in its last line.
func (c *chain) saysNothingOf(text string) {
	c.t.Helper()
	_, last, found := strings.Cut(c.lastLog, `"msg":"run failed"`)
	if !found || strings.Contains(last, text) {
		c.fatalf("the failure must be there and say nothing of %q: %s", text, last)
	}
}

// expectNoWarnings finds warnings and errors that no phase waited for.
func (c *chain) expectNoWarnings(allowed []string) {
	c.t.Helper()
	for _, line := range c.program.log.all() {
		level := line.text("level")
		if line.matches(on("preflight problem", "severity=warning")) || line.matches(on("question takes long")) || line.matches(on("disk is slow")) {
			continue // how full the disk is, what the kernel permits and how fast the machine is differ
		}
		if line.matches(on(unendedEvent)) && c.wasKilled() {
			continue
		}
		if (level == "WARN" || level == "ERROR") && !line.expected && !slices.Contains(allowed, line.text("msg")) {
			c.fatalf("an unexpected line of log: %s", line.raw)
		}
	}
}

// awaitEvent waits for the next line of log that matches.
func (c *chain) awaitEvent(e event) {
	c.t.Helper()
	c.await("log event "+strings.Join(e, " "), func() bool {
		ended := c.program.ended() // before the look: nothing comes after it
		lines := c.program.log.all()
		for i := c.program.cursor; i < len(lines); i++ {
			if lines[i].matches(e) {
				lines[i].expected = true
				c.program.cursor = i + 1
				return true
			}
		}
		if ended {
			c.fatalf("the program ended with code %d without the log event %v", c.program.code(), e)
		}
		return false
	})
}

// awaitOutlived waits for the end of what outlives a program that was killed: a node is asked to stop by our death.
func (c *chain) awaitOutlived() {
	c.t.Helper()
	if c.program.killed() {
		c.await("the end of what was started", func() bool { return len(c.processes()) == 0 })
	}
}

func (c *chain) awaitExit(code int) {
	c.t.Helper()
	c.await(fmt.Sprintf("exit %d", code), c.program.ended)
	if got := c.program.code(); got != code {
		c.fatalf("exit code %d, want %d", got, code)
	}
}

// expectTrace compares the journal since the last phase.
func (c *chain) expectTrace(want []string, wait bool) {
	c.t.Helper()
	var got []string
	matches := func() bool {
		got = c.trace()[c.traced:]
		return traceMatches(got, want)
	}
	if wait {
		c.awaitOr("the journal", matches, func() string {
			return "have:\n  " + strings.Join(got, "\n  ") + "\nwant:\n  " + strings.Join(want, "\n  ")
		})
	} else if !matches() {
		c.fatalf("the journal differs, have:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	c.traced += len(got)
}

// anything is at the end of a trace whose rest does not matter.
const anything = "..."

// traceMatches compares line by line; lines of want that begin with ? may be missing.
func traceMatches(got, want []string) bool {
	if len(want) == 0 || want[0] == anything {
		return len(want) > 0 || len(got) == 0
	}
	first, optional := strings.CutPrefix(want[0], "?")
	if len(got) > 0 && got[0] == first && traceMatches(got[1:], want[1:]) {
		return true
	}
	return optional && traceMatches(got, want[1:])
}

// journal is what nodes and migrations wrote. One that was killed as it started may leave an empty file.
func (c *chain) journal() ([]mockrollup.Entry, error) {
	return mockrollup.ReadJournal(c.journalDir())
}

// trace is the journal in words. A question, which is a start with an impossible start height and the exit that follows,
// is one line.
func (c *chain) trace() []string {
	entries, err := c.journal()
	if err != nil {
		return nil // a line is being written
	}
	var lines []string
	questions := map[int]int{} // the line of the question that a process is asked
	for _, e := range entries {
		who := e.Label
		if e.Kind == mockrollup.KindMigration {
			who += " migration"
		}
		at, asked := questions[e.PID]
		switch {
		case e.Event == mockrollup.EventStart && isQuestion(e.Args):
			questions[e.PID] = len(lines)
			lines = append(lines, "asking "+who)
		case e.Event == mockrollup.EventStart:
			delete(questions, e.PID)
			lines = append(lines, strings.TrimSpace("start "+who+" "+c.argsInWords(e.Args)))
		case e.Event == mockrollup.EventSignal:
			lines = append(lines, "signal "+who+" "+e.Reason)
		case e.Event == mockrollup.EventExit && asked:
			lines[at] = answerInWords(who, e)
		case e.Event == mockrollup.EventExit:
			lines = append(lines, fmt.Sprintf("exit %s %d at %d", who, *e.Code, e.Height))
		}
	}
	return lines
}

// answerInWords is "asked v0 at 10" for a node that rejected its start height, as it must.
func answerInWords(who string, exit mockrollup.Entry) string {
	if strings.Contains(exit.Reason, "start_at_rollup_height") {
		return fmt.Sprintf("asked %s at %d", who, exit.Height)
	}
	return fmt.Sprintf("asked %s, exit %d at %d", who, *exit.Code, exit.Height)
}

var heightFlags = regexp.MustCompile(`--(start|stop)-at-rollup-height (\d+)`)

// leastNonce is the lowest start height with which a node is asked: no chain is ever that long.
const leastNonce = 1 << 48

// isQuestion reports whether a node with these arguments was started to be asked.
func isQuestion(args []string) bool {
	for _, found := range heightFlags.FindAllStringSubmatch(strings.Join(args, " "), -1) {
		if height, err := strconv.ParseUint(found[2], 10, 64); err == nil && found[1] == "start" && height >= leastNonce {
			return true
		}
	}
	return false
}

// argsInWords shortens arguments: "start=11 stop=20 --more". The config is left out where it is the version's own.
func (c *chain) argsInWords(args []string) string {
	text := " " + strings.Join(args, " ")
	for i := range c.versions {
		text = strings.Replace(text, " --rollup-config-path "+c.config(i), "", 1)
	}
	return strings.TrimSpace(heightFlags.ReplaceAllString(text, "$1=$2"))
}

// checkpointInWords is "1 running", and then what else it says: migrated, what was completed at which height, and that it
// has not followed a stamp.
func (c *chain) checkpointInWords() string {
	found, err := checkpoint.Read(c.checkpoint, "")
	switch {
	case err != nil:
		return err.Error()
	case found.Checkpoint == nil:
		return "none"
	}
	record := found.Checkpoint
	words := []string{strconv.Itoa(record.VersionIndex), string(record.Phase)}
	if record.MigrationCompleted {
		words = append(words, "migrated")
	}
	for _, done := range completed(record) {
		words = append(words, fmt.Sprintf("%d@%d", done.VersionIndex, done.StopHeight))
	}
	if record.Phase != "" && !record.Stamped {
		words = append(words, "unstamped")
	}
	return strings.Join(words, " ")
}

// completed are the versions that a checkpoint has as complete.
func completed(record *checkpoint.Checkpoint) []checkpoint.Entry {
	return slices.DeleteFunc(slices.Clone(record.History), func(e checkpoint.Entry) bool { return e.CompletedAt.IsZero() })
}

// stampInWords is "1 from 11 to 20 migrated": the version, its heights, and how far its migration is.
func (c *chain) stampInWords() string {
	found, err := checkpoint.Read("", c.state)
	switch {
	case err != nil:
		return err.Error()
	case found.Stamp == nil:
		return "none"
	}
	stamp := found.Stamp
	text := strconv.Itoa(stamp.VersionIndex)
	if stamp.StartHeight > 0 {
		text += fmt.Sprintf(" from %d", stamp.StartHeight)
	}
	if stamp.StopHeight > 0 {
		text += fmt.Sprintf(" to %d", stamp.StopHeight)
	}
	switch stamp.Migration {
	case checkpoint.MigrationBegun:
		text += " migrating"
	case checkpoint.MigrationCompleted:
		text += " migrated"
	}
	if stamp.Complete {
		text += " complete"
	}
	return text
}

// stateInWords is "20 version 1 migrated@10": the durable height, the layout, and where migrations ran.
func (c *chain) stateInWords() string {
	state, err := mockrollup.ReadState(c.state)
	if err != nil {
		return "none"
	}
	text := fmt.Sprintf("%d version %d", state.Height, state.StateVersion)
	if state.Damaged != "" {
		text += " damaged"
	}
	if state.Migrating != nil {
		text += " half migrated"
	}
	for _, m := range state.Migrations {
		text += fmt.Sprintf(" migrated@%d", m.Height)
	}
	return text
}

func (c *chain) awaitEqual(what, want string, wait bool, look func() string) {
	c.t.Helper()
	var have string
	same := func() bool { have = look(); return traceMatches(strings.Fields(have), strings.Fields(want)) }
	if wait {
		c.awaitOr(what, same, func() string { return fmt.Sprintf("have %q, want %q", have, want) })
	} else if !same() {
		c.fatalf("%s is %q, want %q", what, have, want)
	}
}

// The actions of phases.

func start(args ...string) func(*chain) { return func(c *chain) { c.start(args...) } }

func send(sig syscall.Signal) func(*chain) {
	return func(c *chain) {
		c.t.Helper()
		if err := c.program.cmd.Process.Signal(sig); err != nil {
			c.fatalf("cannot send %s: %s", sig, err)
		}
	}
}

// heights lets the chain of DA blocks grow: the node processes up to soft, and commits up to durable.
func heights(soft, durable uint64) func(*chain) {
	return func(c *chain) { c.da.set(soft, durable) }
}

func do(all ...func(*chain)) func(*chain) {
	return func(c *chain) {
		for _, f := range all {
			f(c)
		}
	}
}

// configure changes the node config of version i, for its next start.
func configure(i int, change func(*mockrollup.Config)) func(*chain) {
	return func(c *chain) {
		change(&c.versions[i].node)
		c.writeConfig(i)
	}
}

func TestTraceMatches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		got, want string
		same      bool
	}{
		{"", "", true},
		{"a", "", false},
		{"", "a", false},
		{"a b", "a b", true},
		{"a b", "b a", false},
		{"a b", "a ?x b", true},
		{"a x b", "a ?x b", true},
		{"a x x b", "a ?x b", false},
		{"", "?x", true},
		{"a a", "?a a ?a", true},
		{"a b c", "a ...", true},
	} {
		if traceMatches(strings.Fields(test.got), strings.Fields(test.want)) != test.same {
			t.Errorf("%q and %q: want %v", test.got, test.want, test.same)
		}
	}
}

func readText(path string) string {
	text, _ := os.ReadFile(path)
	return string(bytes.TrimSpace(text))
}
