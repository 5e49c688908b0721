package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"
)

// Phase is what the version of a checkpoint was last known to do.
type Phase string

const (
	// PhaseMigrating: the version has a migration which was begun and is not recorded as completed. In a file of an
	// earlier version of this program it may also be due: Checkpoint.Started tells which.
	PhaseMigrating Phase = "migrating"
	// PhaseRunning: the node of the version may have been started.
	PhaseRunning Phase = "running"
	// PhaseFinished: the last version reached its stop height.
	PhaseFinished Phase = "finished"
	// PhaseFinishingPrevious is only read, in files of earlier versions of this program: the version before has not
	// reached its stop height yet, and this version has touched nothing.
	PhaseFinishingPrevious Phase = "finishing_previous"
)

// Checkpoint is the record of where the sequence is, for people, for sov-rollup-manager, and for a state without a
// stamp. The first two keys are those of sov-rollup-manager, which ignores the others; a file with those two alone is a
// good one.
type Checkpoint struct {
	// VersionIndex is the place of the version in the plan, from 0.
	VersionIndex int `json:"version_index"`
	// BinaryPath is the path of the version's binary, as it is in the plan.
	BinaryPath string `json:"binary_path"`
	// MigrationCompleted: the migration of this version ran to its end and must never run again. The name is the one of
	// the reference's open pull request.
	MigrationCompleted bool `json:"migration_completed"`
	// Phase is empty in a file of sov-rollup-manager.
	Phase Phase `json:"phase,omitempty"`
	// Height is the durable height that was last confirmed, in blocks.
	Height *uint64 `json:"height,omitempty"`
	// Stamped: the checkpoint has followed a stamp in the state, so a state without one is another state.
	Stamped bool `json:"stamped,omitempty"`
	// Started is only read: it is not nil in a file of an earlier version of this program, and never written. In
	// PhaseMigrating it meant that the migration was begun, in PhaseRunning that the node answered with a height.
	Started *bool `json:"started,omitempty"`
	// BinarySHA256 is the digest of the binary in hex: it distinguishes a binary that was moved from another one.
	BinarySHA256 string `json:"binary_sha256,omitempty"`
	// Answers are the digests of the binaries that have answered a question.
	Answers []string `json:"answers,omitempty"`
	// History has the versions up to this one, oldest first, each of them once.
	History []Entry `json:"history,omitempty"`
	// Stamp is kept here if no config says where the state is.
	Stamp *Stamp `json:"stamp,omitempty"`
	// UpdatedAt is the time of the last change.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Entry is what the history has of a version.
type Entry struct {
	VersionIndex int    `json:"version_index"`
	Name         string `json:"name,omitempty"`
	BinaryPath   string `json:"binary_path"`
	BinarySHA256 string `json:"binary_sha256,omitempty"`
	// StopHeight is the height, in blocks, at which it was complete.
	StopHeight uint64 `json:"stop_height,omitempty"`
	// Proof says how that is known.
	Proof Proof `json:"proof,omitempty"`
	// CompletedAt is when that was recorded; zero while the version is not complete.
	CompletedAt time.Time `json:"completed_at,omitzero"`
	// Migration is nil if none was begun for this version.
	Migration *MigrationRecord `json:"migration,omitempty"`
}

// MigrationRecord is the life of a migration.
type MigrationRecord struct {
	BegunAt     time.Time `json:"begun_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	// Runs is how often it was begun.
	Runs int `json:"runs"`
}

// Proof is how a version is known to be complete.
type Proof string

const (
	// ProofDurable: the version's own node said that its durable height is the stop height.
	ProofDurable Proof = "durable height"
	// ProofWord: a person said so, with 'checkpoint set --complete'.
	ProofWord Proof = "a person's word"
	// ProofSlack: --height-slack counted it as complete.
	ProofSlack Proof = "height slack"
	// ProofHeight is only read, in files of earlier versions of this program: the node exited 0 at the stop height as
	// it was last reported over HTTP, which is a soft-confirmed height.
	ProofHeight Proof = "last height read"
)

// Clone copies the checkpoint so deep that no change of one copy shows in another.
func (c Checkpoint) Clone() Checkpoint {
	c.Height = clone(c.Height)
	c.Started = clone(c.Started)
	c.Stamp = clone(c.Stamp)
	c.Answers = slices.Clone(c.Answers)
	c.History = slices.Clone(c.History)
	for i := range c.History {
		c.History[i].Migration = clone(c.History[i].Migration)
	}
	return c
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	copied := *p
	return &copied
}

// Entry is what the history has of version i.
func (c *Checkpoint) Entry(i int) (Entry, bool) {
	at := slices.IndexFunc(c.History, func(e Entry) bool { return e.VersionIndex == i })
	if at < 0 {
		return Entry{}, false
	}
	return c.History[at], true
}

// Encode gives the text of a checkpoint file: indented JSON, made to be read and edited by hand. If it would be longer
// than what is read back, the oldest entries of the history are left out.
func Encode(c Checkpoint) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("cannot write the checkpoint: %w", err)
	}
	c.Started = nil
	text, err := encode(c)
	if errors.Is(err, errTooLong) {
		history := c.History
		excess := sort.Search(len(history), func(n int) bool {
			c.History = history[n:]
			_, err := encode(c)
			return err == nil
		})
		c.History = history[excess:]
		text, err = encode(c)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the checkpoint: %w", err)
	}
	return text, nil
}

var (
	entryShape = shape{
		name:     "history",
		required: []string{"version_index"},
		optional: []string{"name", "binary_path", "binary_sha256", "stop_height", "proof", "completed_at", "migration"},
		within:   []shape{{name: "migration", required: []string{"runs"}, optional: []string{"begun_at", "completed_at"}}},
	}
	checkpointShape = shape{
		name:     "checkpoint",
		required: []string{"version_index", "binary_path"},
		optional: []string{
			"migration_completed", "phase", "height", "stamped", "started", "binary_sha256", "answers", "history", "stamp", "updated_at",
		},
		lists:  []shape{entryShape},
		within: []shape{stampShape},
	}
)

// Parse reads the text of a checkpoint file strictly: what is torn, empty or foreign is an error that says so, because
// a guess here would start the wrong version. It reads the present format, the two keys of sov-rollup-manager, and the
// format of earlier versions of this program, which could have a version in the history more than once: the newest
// entry counts.
func Parse(text []byte) (Checkpoint, error) {
	var c Checkpoint
	if err := parse(text, checkpointShape, &c); err != nil {
		return Checkpoint{}, err
	}
	if err := c.check(); err != nil {
		return Checkpoint{}, err
	}
	slices.Reverse(c.History)
	slices.SortStableFunc(c.History, func(a, b Entry) int { return a.VersionIndex - b.VersionIndex })
	c.History = slices.CompactFunc(c.History, func(a, b Entry) bool { return a.VersionIndex == b.VersionIndex })
	return c, nil
}

// check finds values that no entrypoint wrote.
func (c *Checkpoint) check() error {
	switch {
	case c.VersionIndex < 0:
		return fmt.Errorf("version_index is %d, want 0 or more", c.VersionIndex)
	case c.BinaryPath == "":
		return errors.New("binary_path is empty")
	case c.Phase == PhaseMigrating && c.MigrationCompleted:
		return fmt.Errorf("phase is %q but migration_completed is true: only one of them can be", c.Phase)
	}
	switch c.Phase {
	case "", PhaseMigrating, PhaseRunning, PhaseFinished:
	case PhaseFinishingPrevious:
		if c.VersionIndex == 0 || c.MigrationCompleted || c.Started != nil && *c.Started {
			return fmt.Errorf("phase is %q, which is not possible for version 0, nor once the version was started or migrated", c.Phase)
		}
	default:
		return fmt.Errorf("phase is %q, want %q, %q or %q", c.Phase, PhaseMigrating, PhaseRunning, PhaseFinished)
	}
	for _, e := range c.History {
		switch {
		case e.VersionIndex < 0 || e.VersionIndex > c.VersionIndex:
			return fmt.Errorf("history has version_index %d, want 0 to %d", e.VersionIndex, c.VersionIndex)
		case e.Migration != nil && e.Migration.Runs < 0:
			return fmt.Errorf("history has a migration of version %d with %d runs, want 0 or more", e.VersionIndex, e.Migration.Runs)
		}
	}
	if c.Stamp != nil {
		return c.Stamp.check()
	}
	return nil
}
