package sequencer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Phase is what the version of a checkpoint was last known to do.
type Phase string

const (
	// PhaseMigrating: the version has a migration which is not recorded as completed. Checkpoint.Started tells
	// whether it was begun.
	PhaseMigrating Phase = "migrating"
	// PhaseFinishingPrevious: the version's node found that the version before it did not end at its stop height, and
	// touched nothing. The version before runs on to it; if it went beyond, its state is to be restored. Until its end is
	// proven every block is one of the version before.
	PhaseFinishingPrevious Phase = "finishing_previous"
	// PhaseRunning: the node of the version may have been started.
	PhaseRunning Phase = "running"
	// PhaseFinished: the last version reached its stop height.
	PhaseFinished Phase = "finished"
)

// Checkpoint is the record of where the sequence is. The first two keys are those of sov-rollup-manager, which ignores
// the others; a file with those two alone is a good one.
type Checkpoint struct {
	// VersionIndex is the place of the version in the plan, from 0.
	VersionIndex int `json:"version_index"`
	// BinaryPath is the version's binary as it stands in the plan.
	BinaryPath string `json:"binary_path"`
	// MigrationCompleted: the migration of this version ran to its end and is never to be run again. The name is the
	// one of the reference's open pull request.
	MigrationCompleted bool `json:"migration_completed"`
	// Phase is empty in a file of sov-rollup-manager, which does not know whether a migration was completed.
	Phase Phase `json:"phase,omitempty"`
	// Started: in PhaseMigrating, the migration was begun; in PhaseRunning, the node answered with a height, so it
	// accepted its start height and must not be asked to assert it again.
	Started bool `json:"started"`
	// BinarySHA256 is the digest of the binary in hex: it tells a binary that was moved from another one.
	BinarySHA256 string `json:"binary_sha256,omitempty"`
	// History has the versions that are complete, oldest first.
	History []Completed `json:"history,omitempty"`
	// UpdatedAt is the time of the last change.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Completed is a version whose stop height was reached.
type Completed struct {
	VersionIndex int    `json:"version_index"`
	Name         string `json:"name,omitempty"`
	BinaryPath   string `json:"binary_path"`
	BinarySHA256 string `json:"binary_sha256,omitempty"`
	// StopHeight is the height, in blocks, at which it was complete.
	StopHeight uint64 `json:"stop_height"`
	// Proof says how that is known.
	Proof Proof `json:"proof"`
	// CompletedAt is when it was recorded.
	CompletedAt time.Time `json:"completed_at,omitzero"`
}

// Proof is how a version is known to be complete.
type Proof string

const (
	// ProofDurable: the node refused to start because its durable height is the stop height.
	ProofDurable Proof = "durable height"
	// ProofHeight: the node exited 0, unasked, and the last height read was the stop height. That height is the
	// soft-confirmed one: the next version's assertion of its start height completes the proof, and no migration is
	// started on it.
	ProofHeight Proof = "last height read"
	// ProofSlack: the operator's --height-slack counted it as complete.
	ProofSlack Proof = "height slack"
)

// completed is the history's entry for version i, the newest one where there are several.
func (c *Checkpoint) completed(i int) (Completed, bool) {
	for _, entry := range slices.Backward(c.History) {
		if entry.VersionIndex == i {
			return entry, true
		}
	}
	return Completed{}, false
}

// forget takes version i out of the history: it was not complete after all.
func (c *Checkpoint) forget(i int) {
	c.History = slices.DeleteFunc(slices.Clone(c.History), func(done Completed) bool { return done.VersionIndex == i })
}

// clone copies the history, so that appending to one copy never shows in another.
func (c Checkpoint) clone() Checkpoint {
	c.History = slices.Clone(c.History)
	return c
}

// EncodeCheckpoint gives the text of a checkpoint file: indented JSON, made to be read and edited by hand.
func EncodeCheckpoint(c Checkpoint) ([]byte, error) {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot write the checkpoint as JSON: %w", err)
	}
	return append(text, '\n'), nil
}

// ParseCheckpoint reads the text of a checkpoint file strictly: what is torn, empty or foreign is an error that says
// so, because a guess here would start the wrong version.
func ParseCheckpoint(text []byte) (Checkpoint, error) {
	if err := wholeText(text); err != nil {
		return Checkpoint{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	var whole json.RawMessage
	if err := dec.Decode(&whole); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Checkpoint{}, errors.New("the file is torn: it ends in the middle of the JSON text")
		}
		return Checkpoint{}, fmt.Errorf("the file is no checkpoint: %w", err)
	}
	if rest := bytes.TrimSpace(text[dec.InputOffset():]); len(rest) > 0 {
		return Checkpoint{}, fmt.Errorf("the file goes on after the checkpoint: %.20q", rest)
	}
	if err := checkKeys(text, whole); err != nil {
		return Checkpoint{}, fmt.Errorf("the file is no checkpoint: %w", err)
	}
	var c Checkpoint
	if err := json.Unmarshal(whole, &c); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return Checkpoint{}, fmt.Errorf("the file is no checkpoint: %s has the wrong type: %s", wrong.Field, wrong.Value)
		}
		return Checkpoint{}, fmt.Errorf("the file is no checkpoint: %w", err)
	}
	if err := c.check(); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

var (
	checkpointKeys = []string{
		"version_index", "binary_path", "migration_completed", "phase", "started", "binary_sha256", "history", "updated_at",
	}
	completedKeys = []string{
		"version_index", "name", "binary_path", "binary_sha256", "stop_height", "proof", "completed_at",
	}
)

// checkKeys finds keys that are missing or unknown, and those that stand twice, of which the JSON decoder would take
// the last one.
func checkKeys(text []byte, whole json.RawMessage) error {
	if kind(whole) != "object" {
		return fmt.Errorf("it is %s, want an object", aKind(whole))
	}
	r := &planReader{text: text}
	fields := r.object(value{whole, bytes.IndexByte(text, '{')}, "the checkpoint", checkpointKeys)
	if history := fields["history"]; kind(history.raw) == "list" {
		for _, v := range r.elements(history) {
			if kind(v.raw) == "object" {
				r.object(v, "history", completedKeys)
			}
		}
	}
	if len(r.problems) > 0 {
		return r.problems
	}
	for _, key := range checkpointKeys[:2] {
		if k := kind(fields[key].raw); k == "nothing" || k == "null" {
			return fmt.Errorf("%q is missing", key)
		}
	}
	return nil
}

// wholeText finds what a power cut leaves of a file that was not written atomically.
func wholeText(text []byte) error {
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return errors.New("the file is empty")
	case bytes.IndexByte(text, 0) >= 0:
		return errors.New("the file is torn: it has NUL bytes, as after a power cut")
	}
	return nil
}

// check finds values that no entrypoint wrote.
func (c *Checkpoint) check() error {
	switch {
	case c.VersionIndex < 0:
		return fmt.Errorf("version_index is %d, want 0 or more", c.VersionIndex)
	case c.BinaryPath == "":
		return errors.New("binary_path is empty")
	}
	switch c.Phase {
	case "", PhaseMigrating, PhaseRunning, PhaseFinished:
	case PhaseFinishingPrevious:
		switch {
		case c.VersionIndex == 0:
			return fmt.Errorf("phase is %q, but there is no version before version 0", c.Phase)
		case c.Started || c.MigrationCompleted:
			return fmt.Errorf("phase is %q, but started or migration_completed is true: neither can be", c.Phase)
		}
	default:
		return fmt.Errorf("phase is %q, want %q, %q, %q or %q", c.Phase, PhaseMigrating, PhaseFinishingPrevious, PhaseRunning, PhaseFinished)
	}
	if c.Phase == PhaseMigrating && c.MigrationCompleted {
		return fmt.Errorf("phase is %q but migration_completed is true: only one of them can be", PhaseMigrating)
	}
	for _, h := range c.History {
		if h.VersionIndex < 0 || h.VersionIndex > c.VersionIndex {
			return fmt.Errorf("history has version_index %d, want 0 to %d", h.VersionIndex, c.VersionIndex)
		}
	}
	return nil
}
