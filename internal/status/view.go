package status

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
)

// Bounds on what is shown of a report. Anybody may have written it: a program that is not an entrypoint can hold our
// port.
const (
	// labelWidth is the width of the labels and minWidth the narrowest terminal that is drawn for, both in columns.
	labelWidth, minWidth = 10, 24
	// barWidth is the width of the progress bar, in columns. cellLimit is the length of a table cell, in bytes.
	barWidth, cellLimit = 40, 100
	// rowLimit is how many versions, or problems, are shown.
	rowLimit = 200
)

// view is a text for a terminal of this width.
type view struct {
	strings.Builder
	width int
}

// line adds text after a label, wrapped within its own column.
func (v *view) line(label, format string, args ...any) {
	for _, part := range wrap(plain.Line(fmt.Sprintf(format, args...)), v.width-labelWidth) {
		fmt.Fprintf(v, "%-*s%s\n", labelWidth, label, part)
		label = ""
	}
}

// View gives the report as text for a terminal of this width in columns; 0 means that any width will do. It has the
// current state, the progress to the next upgrade and a table of the versions. Nothing in it can move the cursor or fill
// the screen, no matter who wrote the report: see package plain.
func (r Report) View(width int) string {
	v := &view{width: max(width, minWidth)}
	if width == 0 {
		v.width = math.MaxInt
	}
	until := " for "
	if r.Phase == sequencer.PhaseAsking { // "… for its durable height for 3 s" would be read twice
		until = ", for "
	}
	v.WriteString(strings.Join(wrap(r.headline()+until+since(r.PhaseSince), v.width), "\n") + "\n")
	r.viewNode(v)
	r.viewUndo(v)
	r.viewWarnings(v)
	r.viewUpgrade(v)
	if f := r.LastFailure; f != nil {
		v.line("failure", "%s: %s", utc(f.At), f.Text)
	}
	if p := r.PreviousRun; p != nil && p.Text != "" {
		v.line("last run", "%s", p.words())
	}
	v.WriteString("\n" + table(r.rows(v.width), v.width))
	return v.String()
}

// words say in a line how the run before ended.
func (p PreviousRun) words() string {
	if p.EndedAt == nil || p.ExitCode == nil {
		return "began " + utc(p.BeganAt) + ", " + p.Text
	}
	return fmt.Sprintf("ended %s with exit code %d: %s", utc(*p.EndedAt), *p.ExitCode, p.Text)
}

// headline says who this is and what is going on.
func (r Report) headline() string { return strings.TrimPrefix(r.who()+" · "+r.state(), " · ") }

// who names the host and, if it is known, the role of the node.
func (r Report) who() string {
	if r.Role == nil {
		return cell(r.Entrypoint.Host)
	}
	return strings.TrimPrefix(cell(r.Entrypoint.Host)+" · "+cell(*r.Role), " · ")
}

// state says in a sentence what is going on.
func (r Report) state() string {
	words := ""
	switch r.Phase {
	case sequencer.PhaseAsking:
		words = "asking the node for its durable height"
	case sequencer.PhaseCopying:
		words = "making an undo point"
	case sequencer.PhaseHook:
		words = "running the hook before the upgrade"
	default:
		words = cell(strings.ReplaceAll(string(r.Phase), "_", " "))
	}
	if r.Stopping {
		words += " (stop requested)"
	}
	return fmt.Sprintf("%s (version %d): %s", cell(r.Version), r.VersionIndex, words)
}

func (r Report) viewNode(v *view) {
	v.line("alive", "%s", verdictWords(r.Alive, r.NotAliveBecause))
	v.line("ready", "%s", verdictWords(r.Ready, r.NotReadyBecause))
	if h := r.Height; h != nil {
		v.line("height", "%d%s, read %s ago", h.Blocks, rateWords(r.BlocksPerSecond), duration(h.AgeSeconds))
	} else {
		v.line("height", "%s", r.durableWords())
	}
	if n := r.Node; n != nil && !n.Asked {
		v.line("node", "pid %d, up for %s, restarts: %d", n.Pid, since(n.StartedAt), r.Restarts)
	}
}

// durableWords say what is known of the height of the state if no node reports one.
func (r Report) durableWords() string {
	switch h := r.DurableHeight; {
	case h == nil, r.Node != nil && !r.Node.Asked:
		return "not known"
	case r.Complete():
		return fmt.Sprintf("%d (durable, confirmed)", *h)
	default:
		return fmt.Sprintf("%d or more (durable, when its node was asked last)", *h)
	}
}

// Complete reports whether the version is recorded as complete: then its durable height is the height of the state.
func (r Report) Complete() bool { return r.Versions[r.VersionIndex].CompletedAt != nil }

func (r Report) viewWarnings(v *view) {
	if r.PlanOutdated {
		v.line("warning", "the plan on disk has changed, or cannot be read: this run keeps to the one it has read; 'entrypoint check' looks at the new one, and a restart uses it")
	}
	if r.CannotBeAsked {
		v.line("warning", "the node cannot be asked for its durable height: at the stop height, an operator must declare the version complete")
	}
	if r.StateDamaged {
		v.line("warning", "the node reports that its state is damaged: restore a snapshot of the whole directory, or run 'entrypoint reset' and resync")
	}
	for _, p := range r.Leftovers {
		v.line("leftover", "waiting for pid %d (%s), found %s ago", p.Pid, p.Command, since(p.Since))
	}
	for _, u := range r.Undelivered {
		v.line("warning", "%s could not be delivered, times: %d", u.Signal, u.Count)
	}
}

func (r Report) viewUpgrade(v *view) {
	u := r.NextUpgrade
	if u == nil {
		return
	}
	v.line("next", "%s", u.words(r.EmergencyStop))
	if u.RemainingBlocks != nil {
		v.line("", "%s", bar(r.Versions[r.VersionIndex].StartHeight, u.StopHeight, *u.RemainingBlocks, min(barWidth, v.width-labelWidth-len("[] 100 %"))))
	}
	switch p := u.Preflight; {
	case p == nil:
	case len(p.Problems) == 0:
		v.line("preflight", "no problems found")
	default:
		v.line("preflight", "problems: %d", len(p.Problems))
		for _, problem := range p.Problems[:min(rowLimit, len(p.Problems))] {
			v.line("", "%s", problem)
		}
	}
}

// words say what follows, at which height, and when.
func (u *Upgrade) words(emergencyStop *uint64) string {
	what := "the end of the plan"
	switch {
	case u.VersionIndex == nil && emergencyStop != nil:
		what = "nothing, because of --stop-height,"
	case u.VersionIndex != nil:
		what = cell(u.Version)
		switch {
		case u.Hook && u.Migration:
			what += ", with a hook and a migration,"
		case u.Hook:
			what += ", with a hook,"
		case u.Migration:
			what += ", with a migration,"
		}
	}
	return fmt.Sprintf("%s after height %d%s", what, u.StopHeight, etaWords(u))
}

func etaWords(u *Upgrade) string {
	switch {
	case u.RemainingBlocks == nil:
		return ""
	case u.ETASeconds == nil:
		return fmt.Sprintf(": %d blocks left", *u.RemainingBlocks)
	}
	return fmt.Sprintf(": %d blocks left, in about %s", *u.RemainingBlocks, duration(*u.ETASeconds))
}

func rateWords(rate *float64) string {
	if rate == nil {
		return ""
	}
	return fmt.Sprintf(", %.2f blocks/s", min(max(*rate, 0), 1e9))
}

func verdictWords(ok bool, why string) string {
	if ok {
		return "yes"
	}
	return "no: " + why
}

// bar shows how much of the version is done.
func bar(start, stop, remaining uint64, width int) string {
	total := float64(stop-min(start, stop)) + 1 // as an integer this would be 0 for the highest possible stop height
	share := 1 - min(float64(remaining), total)/total
	full := int(share * float64(width))
	return fmt.Sprintf("[%s%s] %d %%", strings.Repeat("#", full), strings.Repeat(".", width-full), int(share*100))
}

// rows are the cells of the table of versions, the headings first. What matters least is on the right.
func (r Report) rows(width int) [][]string {
	rows := [][]string{{"", "VERSION", "STATE", "HEIGHTS", "MIGRATION", "COMPLETED", "PROOF"}}
	for _, v := range r.Versions[:min(rowLimit, len(r.Versions))] {
		mark, heights, completed := "", fmt.Sprintf("from %d", v.StartHeight), ""
		if v.VersionIndex == r.VersionIndex {
			mark = ">"
		}
		if v.StopHeight != nil {
			heights = fmt.Sprintf("%d to %d", v.StartHeight, *v.StopHeight)
		}
		if v.CompletedAt != nil {
			completed = utc(*v.CompletedAt)
		}
		name := plain.Line(plain.Cut(v.Version, min(cellLimit, width/3)))
		rows = append(rows, []string{mark, name, cell(v.State), heights, cell(v.Migration), completed, cell(string(v.Proof))})
	}
	if more := len(r.Versions) - rowLimit; more > 0 {
		rows = append(rows, []string{"", "and " + strconv.Itoa(more) + " more", "", "", "", "", ""})
	}
	return rows
}

// table aligns cells in columns. It leaves out columns on the right that do not fit, but never the first three, whose
// lines are cut instead.
func table(rows [][]string, width int) string {
	var widths []int
	used := 0
	for i := range rows[0] {
		widest := 0
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(row[i]))
		}
		if used += widest; used > width && i > 2 {
			break
		}
		widths, used = append(widths, widest), used+2
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, widest := range widths {
			line += fmt.Sprintf("%-*s  ", widest, row[i])
		}
		line = strings.TrimRight(line, " ")
		b.WriteString(line[:fitting(line, width)] + "\n")
	}
	return b.String()
}

// wrap breaks text into lines of at most width characters: between words, and within a word that is longer than a line.
func wrap(text string, width int) (lines []string) {
	for {
		n := fitting(text, width)
		if n == len(text) {
			return append(lines, text)
		}
		if space := strings.LastIndexByte(text[:n+1], ' '); space > 0 {
			n = space
		}
		lines = append(lines, text[:n])
		text = strings.TrimLeft(text[n:], " ")
	}
}

// fitting gives how many bytes of text the first width characters have.
func fitting(text string, width int) int {
	for i := range text {
		if width--; width < 0 {
			return i
		}
	}
	return len(text)
}

// cell is text that can be shown beside other text in a line.
func cell(text string) string { return plain.Line(plain.Cut(text, cellLimit)) }

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func since(t time.Time) string { return duration(max(0, time.Since(t).Seconds())) }

// duration gives seconds for a person, in at most two units.
func duration(seconds float64) string {
	d := time.Duration(min(max(seconds, 0), 1e9) * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}
