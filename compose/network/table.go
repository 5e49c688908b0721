package network

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// rootShown is how many characters of a state root the table shows: enough to see that two differ.
const rootShown = 18

// Write writes the report as a table, followed by the result of the comparison.
func (r Report) Write(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	root := "STATE ROOT"
	if r.Complete {
		root = fmt.Sprintf("STATE ROOT AT SLOT %d", r.Slot)
	}
	fmt.Fprintf(table, "NODE\tVERSION\tPHASE\tROLE\tHEIGHT\tNEXT UPGRADE\tETA\t%s\n", root)
	for _, node := range r.Nodes {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", node.Node, known(node.Version), known(node.Phase),
			node.role(), number(node.Height), node.upgrade(), node.eta(), known(cut(node.Root)))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("cannot write the table: %w", err)
	}
	for _, node := range r.Nodes {
		if node.Problem != "" {
			fmt.Fprintf(out, "%s: %s\n", node.Node, node.Problem)
		}
	}
	fmt.Fprintln(out, r.Verdict())
	return nil
}

// Verdict gives the result of the comparison in one line.
func (r Report) Verdict() string {
	switch {
	case !r.Complete:
		return "state roots: not compared, since not every node reported one"
	case r.Equal:
		return fmt.Sprintf("state roots: equal on all %d nodes at slot %d", len(r.Nodes), r.Slot)
	}
	return fmt.Sprintf("state roots: NOT EQUAL at slot %d: one node was upgraded differently from the others", r.Slot)
}

// Since has a line for each node whose version, phase or leadership is not as in the report before. It leaves out nodes
// that reported nothing in one of the two: a late status page is not a change.
func (r Report) Since(before Report) (changes []string) {
	for i, now := range r.Nodes {
		if i >= len(before.Nodes) || now.Phase == "" || before.Nodes[i].Phase == "" {
			continue
		}
		if now.does() != before.Nodes[i].does() {
			changes = append(changes, now.Node+": "+now.does())
		}
	}
	return changes
}

// Over returns the report with the earlier reading of each node that reports nothing now.
func (r Report) Over(before Report) Report {
	r.Nodes = slices.Clone(r.Nodes)
	for i := range min(len(r.Nodes), len(before.Nodes)) {
		if r.Nodes[i].Phase == "" {
			r.Nodes[i] = before.Nodes[i]
		}
	}
	return r
}

func (r Reading) does() string {
	if r.Leads {
		return r.Phase + " " + r.Version + " as leader"
	}
	return r.Phase + " " + r.Version
}

func (r Reading) role() string {
	switch {
	case r.Leads:
		return "leader"
	case r.Ready:
		return "replica"
	case r.Phase == "":
		return "-"
	}
	return "not ready"
}

func (r Reading) upgrade() string {
	if r.StopHeight == nil {
		return "-"
	}
	return fmt.Sprintf("after %d", *r.StopHeight)
}

func (r Reading) eta() string {
	if r.ETASeconds == nil {
		return "-"
	}
	return time.Duration(*r.ETASeconds * float64(time.Second)).Round(time.Second).String()
}

func cut(root string) string { return root[:min(len(root), rootShown)] }

func known(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func number(n *uint64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}
