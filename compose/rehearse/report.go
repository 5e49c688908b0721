package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// schema is the version of the report's JSON. Adding a key does not change it; removing or changing a key does.
const schema = 1

// The results of a step.
const (
	passed     = "passed"
	failed     = "failed"
	notReached = "not reached"
)

// report is the rehearsal's result. docs/rehearsal.md describes the keys.
type report struct {
	Schema    int       `json:"schema"`
	Passed    bool      `json:"passed"`
	Verdict   string    `json:"verdict"`
	StartedAt time.Time `json:"started_at"`
	Seconds   float64   `json:"seconds"`
	Project   string    `json:"project"`
	File      string    `json:"file"`
	Image     string    `json:"image"`
	Plan      string    `json:"plan"`
	Docker    string    `json:"docker"`
	Compose   string    `json:"compose"`
	Nodes     []string  `json:"nodes"`
	// DamagedStates counts the nodes whose state was damaged, once in each step.
	DamagedStates int             `json:"damaged_states"`
	Versions      []versionReport `json:"versions"`
	Steps         []*stepReport   `json:"steps"`
}

type versionReport struct {
	Version     int     `json:"version"`
	Name        string  `json:"name"`
	Binary      string  `json:"binary"`
	StartHeight uint64  `json:"start_height"`
	StopHeight  *uint64 `json:"stop_height"`
}

type stepReport struct {
	Phase      int             `json:"phase"`
	Name       string          `json:"name"`
	Result     string          `json:"result"`
	Chain      int             `json:"chain"`
	Seconds    float64         `json:"seconds"`
	Notes      []string        `json:"notes"`
	Failures   []failureReport `json:"failures"`
	Damaged    []damageReport  `json:"damaged"`
	Nodes      []nodeReport    `json:"nodes"`
	Roots      []rootReport    `json:"roots"`
	Divergence *divergence     `json:"divergence"`
}

type failureReport struct {
	Sentence string   `json:"sentence"`
	Node     string   `json:"node"`
	Version  *int     `json:"version"`
	Height   *uint64  `json:"height"`
	ExitCode *int     `json:"exit_code"`
	Error    string   `json:"error"`
	Stderr   string   `json:"stderr"`
	Log      []string `json:"log"`
}

// damageReport is a node that rejects its state. It is counted apart from other failures, because the plan need not be
// the cause: a kill can do this to a real node.
type damageReport struct {
	Node    string `json:"node"`
	Version *int   `json:"version"`
	// Killed says that the node was killed in this step.
	Killed bool `json:"killed"`
}

type nodeReport struct {
	Node     string          `json:"node"`
	Versions []spanReport    `json:"versions"`
	Upgrades []upgradeReport `json:"upgrades"`
	Restarts []restartReport `json:"restarts"`
}

type spanReport struct {
	Version     int    `json:"version"`
	FirstHeight uint64 `json:"first_height"`
	LastHeight  uint64 `json:"last_height"`
}

type upgradeReport struct {
	From            int       `json:"from"`
	To              int       `json:"to"`
	At              time.Time `json:"at"`
	HandOverSeconds float64   `json:"hand_over_seconds"`
	DowntimeSeconds *float64  `json:"downtime_seconds"`
}

type restartReport struct {
	At       time.Time `json:"at"`
	Cause    string    `json:"cause"`
	Expected bool      `json:"expected"`
}

// conclude gives the report its verdict, in one sentence, and empty lists instead of none.
func (r *report) conclude() {
	var broken, missed []string
	if r.Versions == nil {
		r.Versions = []versionReport{}
	}
	r.DamagedStates = 0
	for _, s := range r.Steps {
		r.DamagedStates += len(s.Damaged)
		for i := range s.Failures {
			if s.Failures[i].Log == nil {
				s.Failures[i].Log = []string{}
			}
		}
		switch s.Result {
		case failed:
			why := "for an unknown reason"
			if len(s.Failures) > 0 {
				why = s.Failures[0].Sentence
			}
			broken = append(broken, fmt.Sprintf("%s failed: %s", s.Name, why))
		case notReached:
			missed = append(missed, s.Name)
		}
	}
	r.Passed = len(broken) == 0 && len(missed) == 0
	switch {
	case r.Passed:
		r.Verdict = "every step passed"
	case len(broken) == 0:
		r.Verdict = "not reached: " + strings.Join(missed, ", ")
	default:
		r.Verdict = strings.Join(broken, "; ")
	}
}

func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("cannot write the report: %w", err)
	}
	return nil
}
