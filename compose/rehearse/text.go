package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// text is the report for people.
func (r *report) text() string {
	var out strings.Builder
	word := "PASSED"
	if !r.Passed {
		word = "FAILED"
	}
	fmt.Fprintf(&out, "Rehearsal %s in %.0f s: %s\n\n", word, r.Seconds, r.Verdict)
	plan := r.Plan
	if plan == "" {
		plan = "from the image"
	}
	fmt.Fprintf(&out, "image   %s\nplan    %s\nnodes   %s\nengine  Docker %s, %s\n", r.Image, plan, strings.Join(r.Nodes, ", "), r.Docker, r.Compose)
	r.writeVersions(&out)
	r.writeSteps(&out)
	r.writeDamage(&out)
	for _, s := range r.Steps {
		if s.Result != notReached || len(s.Notes) > 0 {
			s.write(&out, r)
		}
	}
	return out.String()
}

func table(out *strings.Builder, rows [][]string) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush()
}

func (r *report) writeVersions(out *strings.Builder) {
	if len(r.Versions) == 0 {
		return
	}
	rows := [][]string{{"VERSION", "NAME", "FROM", "TO", "BINARY"}}
	for _, v := range r.Versions {
		to := "no end"
		if v.StopHeight != nil {
			to = fmt.Sprint(*v.StopHeight)
		}
		rows = append(rows, []string{fmt.Sprint(v.Version), v.Name, fmt.Sprint(v.StartHeight), to, v.Binary})
	}
	out.WriteString("\n")
	table(out, rows)
}

func (r *report) writeSteps(out *strings.Builder) {
	rows := [][]string{{"PHASE", "STEP", "RESULT", "SECONDS", "STATE ROOTS"}}
	for _, s := range r.Steps {
		seconds := "-"
		if s.Result != notReached {
			seconds = fmt.Sprintf("%.0f", s.Seconds)
		}
		rows = append(rows, []string{fmt.Sprint(s.Phase), s.Name, s.Result, seconds, s.rootsInWords()})
	}
	out.WriteString("\n")
	table(out, rows)
}

// writeDamage counts the states that were damaged, and says what that means.
func (r *report) writeDamage(out *strings.Builder) {
	if r.DamagedStates == 0 {
		return
	}
	var killed, alone bool
	fmt.Fprintf(out, "\nDamaged states: %d. Such a node rejects its state at every start; only a snapshot or a resync helps.\n", r.DamagedStates)
	for _, s := range r.Steps {
		for _, d := range s.Damaged {
			when := "without having been killed"
			if d.Killed {
				when = "after it was killed"
			}
			killed, alone = killed || d.Killed, alone || !d.Killed
			fmt.Fprintf(out, "  %s, in the step %q, %s\n", d.Node, s.Name, when)
		}
	}
	if killed {
		out.WriteString("A kill can damage a real node's state: 7 of 113 kills in operation did, and 14 of 40 during a resync. No plan prevents\n" +
			"that, but a grace period does: give each container 300 s to stop, and keep a snapshot, or time for a resync, at hand.\n")
	}
	if alone {
		out.WriteString("Without a kill, the usual cause is that a node of another version opened the state: look for a missing migration.\n")
	}
}

func (s *stepReport) rootsInWords() string {
	switch {
	case s.Divergence != nil:
		return fmt.Sprintf("diverge from height %d", s.Divergence.Height)
	case len(s.Roots) > 0 && !s.Roots[len(s.Roots)-1].Equal:
		return "not compared"
	case len(s.Roots) > 0:
		return fmt.Sprintf("equal up to height %d", s.Roots[len(s.Roots)-1].Height)
	}
	return "-"
}

func (s *stepReport) write(out *strings.Builder, r *report) {
	fmt.Fprintf(out, "\n%s: %s\n", strings.ToUpper(s.Name[:1])+s.Name[1:], s.Result)
	for _, note := range s.Notes {
		fmt.Fprintf(out, "  %s\n", note)
	}
	for i := range s.Failures {
		s.Failures[i].write(out)
	}
	s.writeNodes(out, r)
	s.writeUpgrades(out)
	s.writeRestarts(out)
	s.writeRoots(out)
}

func (f *failureReport) write(out *strings.Builder) {
	fmt.Fprintf(out, "  FAILED: %s\n", f.Sentence)
	if len(f.Log) > 0 {
		fmt.Fprintf(out, "  log of %s before that:\n", f.Node)
	}
	for _, line := range f.Log {
		fmt.Fprintf(out, "  | %s\n", line)
	}
}

func (s *stepReport) writeNodes(out *strings.Builder, r *report) {
	if !slices.ContainsFunc(s.Nodes, func(n nodeReport) bool { return len(n.Versions) > 0 }) {
		return
	}
	header := []string{"  NODE"}
	for _, v := range r.Versions {
		header = append(header, "HEIGHTS OF "+v.Name)
	}
	rows := [][]string{header}
	for _, n := range s.Nodes {
		row := []string{"  " + n.Node}
		for _, v := range r.Versions {
			text := "-"
			for _, seen := range n.Versions {
				if seen.Version == v.Version {
					text = fmt.Sprintf("%d to %d", seen.FirstHeight, seen.LastHeight)
				}
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	table(out, rows)
}

func (s *stepReport) writeUpgrades(out *strings.Builder) {
	rows := [][]string{{"  NODE", "UPGRADE", "EXIT TO START", "EXIT TO FIRST HEIGHT"}}
	for _, n := range s.Nodes {
		for _, u := range n.Upgrades {
			down := "-"
			if u.DowntimeSeconds != nil {
				down = fmt.Sprintf("%.3f s", *u.DowntimeSeconds)
			}
			rows = append(rows, []string{
				"  " + n.Node, fmt.Sprintf("%d to %d", u.From, u.To), fmt.Sprintf("%.3f s", u.HandOverSeconds), down,
			})
		}
	}
	if len(rows) > 1 {
		table(out, rows)
	}
}

func (s *stepReport) writeRestarts(out *strings.Builder) {
	for _, n := range s.Nodes {
		for _, restart := range n.Restarts {
			word := "as expected"
			if !restart.Expected {
				word = "UNEXPECTEDLY"
			}
			fmt.Fprintf(out, "  %s restarted %s: %s\n", n.Node, word, restart.Cause)
		}
	}
}

func (s *stepReport) writeRoots(out *strings.Builder) {
	if len(s.Roots) == 0 {
		return
	}
	rows := [][]string{{"  HEIGHT", "STATE ROOT", "OF"}}
	for _, row := range s.Roots {
		byRoot := map[string][]string{}
		var order []string
		for _, witness := range sortedKeys(row.Roots) {
			root := row.Roots[witness]
			if byRoot[root] == nil {
				order = append(order, root)
			}
			byRoot[root] = append(byRoot[root], witness)
		}
		for _, root := range order {
			rows = append(rows, []string{fmt.Sprintf("  %d", row.Height), shorten(root), strings.Join(byRoot[root], ", ")})
		}
	}
	table(out, rows)
}

func sortedKeys(m map[string]string) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func shorten(root string) string {
	if len(root) <= 18 {
		return root
	}
	return root[:18] + "…"
}
