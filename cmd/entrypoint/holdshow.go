package main

import (
	"fmt"
	"io"
	"slices"

	"rollup-entrypoint/internal/hold"
	"rollup-entrypoint/sequencer"
)

// seenHold is a hold that is there. Before is the version before which it holds; empty if before every version, as one
// does with which something is wrong: Error says what.
type seenHold struct {
	File   string `json:"file"`
	Before string `json:"before"`
	Error  string `json:"error"`
}

// lookForHold looks for a hold where a run does. It is nil if there is none. plan is nil if it is not known.
func lookForHold(file string, plan *sequencer.Plan) *seenHold {
	if file == "" {
		return nil
	}
	held, before, err := hold.New(file).Held()
	if !held {
		return nil
	}
	h := &seenHold{File: file, Before: before}
	switch {
	case err != nil:
		h.Error = err.Error()
	case before != "" && plan != nil && !slices.ContainsFunc(plan.Versions, func(v sequencer.Version) bool { return v.Name == before }):
		h.Before, h.Error = "", fmt.Sprintf("the hold file %s: it holds before %q, and %s has no such version", file, before, plan.File)
	}
	return h
}

// print prints a hold, which may be nil, for a person.
func (h *seenHold) print(w io.Writer) {
	if h == nil {
		return
	}
	printLine(w, "hold", "before %s: %s; '%s' ends it", what(h.Before), h.File, h.resume())
	if h.Error != "" {
		printLine(w, "", "%s", h.Error)
	}
}

func (h *seenHold) resume() string {
	return "entrypoint resume --hold-file " + sequencer.Quoted(h.File)
}

// findings warn of a hold, which may be nil, with which something is wrong.
func (h *seenHold) findings() []sequencer.Finding {
	if h == nil || h.Error == "" {
		return nil
	}
	return []sequencer.Finding{{
		Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: h.Error + "; so it holds before every version, and a start starts nothing",
		Next: "run '" + h.resume() + "', and 'entrypoint hold' for a new one",
	}}
}
