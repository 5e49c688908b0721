package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"rollup-entrypoint/sequencer"
)

// barWidth is that of the progress bar, in columns.
const barWidth = 40

// View gives the report as text for a terminal: what happens now, the progress to the next upgrade, and a table of the
// versions. Nothing in it can move the cursor, whatever the names in the plan are.
func (r Report) View() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (version %d): %s for %s%s\n", printable(r.Version), r.VersionIndex, phaseWords(r), since(r.PhaseSince),
		map[bool]string{true: ", a stop was requested"}[r.Stopping])
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s%s\n", label, fmt.Sprintf(format, args...))
	}
	line("alive", "%s", verdictWords(r.Alive, r.NotAliveBecause))
	line("ready", "%s", verdictWords(r.Ready, r.NotReadyBecause))
	if h := r.Height; h != nil {
		line("height", "%d%s, read %s ago", h.Blocks, rateWords(r.BlocksPerSecond), duration(h.AgeSeconds))
	} else {
		line("height", "not known")
	}
	if n := r.Node; n != nil && !n.Asked {
		line("node", "pid %d, up for %s, restarts: %d", n.Pid, since(n.StartedAt), r.Restarts)
	}
	if r.CannotBeAsked {
		line("warning", "the node cannot be asked for the height of its state: at its stop height a person has to say that it is complete")
	}
	r.viewUpgrade(&b, line)
	if f := r.LastFailure; f != nil {
		line("failure", "%s: %s", f.At.Format(time.RFC3339), printable(f.Text))
	}
	b.WriteByte('\n')
	b.WriteString(table(r.rows()))
	return b.String()
}

func (r Report) viewUpgrade(b *strings.Builder, line func(label, format string, args ...any)) {
	u := r.NextUpgrade
	if u == nil {
		return
	}
	what := "the end"
	if u.VersionIndex != nil {
		what = printable(u.Version)
		if u.Migration {
			what += ", with a migration"
		}
	}
	line("next", "%s after height %d%s", what, u.StopHeight, etaWords(u))
	if u.RemainingBlocks != nil {
		fmt.Fprintf(b, "%-10s%s\n", "", bar(r.Versions[r.VersionIndex].StartHeight, u.StopHeight, *u.RemainingBlocks))
	}
	if u.Preflight == nil {
		return
	}
	if len(u.Preflight.Problems) == 0 {
		line("preflight", "clean")
	} else {
		line("preflight", "problems: %d", len(u.Preflight.Problems))
	}
	for _, problem := range u.Preflight.Problems {
		line("", "%s", printable(problem))
	}
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
	return fmt.Sprintf(", %.2f blocks/s", *rate)
}

// phaseWords gives the phase for a person.
func phaseWords(r Report) string {
	if r.Phase == sequencer.PhaseAsking {
		return "its node is asked for the height of its state,"
	}
	return strings.ReplaceAll(string(r.Phase), "_", " ")
}

func verdictWords(ok bool, why string) string {
	if ok {
		return "yes"
	}
	return "no: " + printable(why)
}

// bar shows how much of the version is done.
func bar(start, stop, remaining uint64) string {
	total := stop - min(start, stop) + 1
	share := 1 - float64(min(remaining, total))/float64(total)
	full := int(share * barWidth)
	return fmt.Sprintf("[%s%s] %d %%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), int(share*100))
}

// rows are the cells of the table of versions, the headings first.
func (r Report) rows() [][]string {
	rows := [][]string{{"", "VERSION", "STATE", "START", "STOP", "MIGRATION", "COMPLETED"}}
	for _, v := range r.Versions {
		mark, stop, completed := "", "-", ""
		if v.VersionIndex == r.VersionIndex {
			mark = ">"
		}
		if v.StopHeight != nil {
			stop = strconv.FormatUint(*v.StopHeight, 10)
		}
		if v.CompletedAt != nil {
			completed = v.CompletedAt.Format(time.RFC3339) + ", by " + string(v.Proof)
		}
		rows = append(rows, []string{mark, printable(v.Version), v.State, strconv.FormatUint(v.StartHeight, 10), stop, v.Migration, printable(completed)})
	}
	return rows
}

// table aligns cells in columns.
func table(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// printable replaces what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
}

func since(t time.Time) string { return duration(max(0, time.Since(t).Seconds())) }

// duration gives seconds for a person, in at most two units.
func duration(seconds float64) string {
	d := time.Duration(min(seconds, 1e9) * float64(time.Second))
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
