package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"rollup-entrypoint/internal/strictjson"
)

// Phase is what the version of a checkpoint was last known to do.
type Phase string

const (
	// PhaseMigrating: the version has a migration that was begun and is not recorded as completed. In a file of an
	// earlier version of this program it may also be due: see Checkpoint.Started.
	PhaseMigrating Phase = "migrating"
	// PhaseRunning: the node of the version may have been started.
	PhaseRunning Phase = "running"
	// PhaseFinished: the last version, or the one that an emergency stop ends, reached its stop height.
	PhaseFinished Phase = "finished"
	// PhaseFinishingPrevious is only read, in files of earlier versions of this program: the version before has not
	// reached its stop height, and this version has touched nothing.
	PhaseFinishingPrevious Phase = "finishing_previous"
)

// Checkpoint is the record of how far the sequence is, for people, for sov-rollup-manager, and for a state without a
// stamp. The first two keys are those of sov-rollup-manager, which ignores the others; a file with only those two is
// valid.
type Checkpoint struct {
	// VersionIndex is the index of the version in the plan, from 0.
	VersionIndex int `json:"version_index"`
	// BinaryPath is the path of the version's binary, as in the plan.
	BinaryPath string `json:"binary_path"`
	// MigrationCompleted: the migration of this version ran to its end and must never run again. The key is that of an
	// open pull request of sov-rollup-manager.
	MigrationCompleted bool `json:"migration_completed"`
	// Phase is empty in a file of sov-rollup-manager.
	Phase Phase `json:"phase,omitempty"`
	// Height is the durable height that was confirmed last, in blocks.
	Height *uint64 `json:"height,omitempty"`
	// Stamped: the checkpoint has followed a stamp in the state, so a state without one is another state.
	Stamped bool `json:"stamped,omitempty"`
	// Started is only read: it is not nil in a file of an earlier version of this program, and never written. In
	// PhaseMigrating it meant that the migration was begun, in PhaseRunning that the node answered with a height.
	Started *bool `json:"started,omitempty"`
	// BinarySHA256 is the digest of the binary in hex. It distinguishes a binary that was moved from another binary.
	BinarySHA256 string `json:"binary_sha256,omitempty"`
	// DamageReported: the node said that its state is damaged, and has given no height since. It is for people: no
	// decision depends on it.
	DamageReported bool `json:"damage_reported,omitempty"`
	// NodeUp: a node of this version, or of its present binary, was seen up since the undo point was made. It is written
	// while the node runs, so that it is known after a kill.
	NodeUp bool `json:"node_up,omitempty"`
	// Answers are the digests of the binaries that have answered a question.
	Answers []string `json:"answers,omitempty"`
	// History has the versions up to this one, oldest first, each of them once.
	History []Entry `json:"history,omitempty"`
	// HistoryOmitted is how many older entries were left out because the file would have been too long to be read.
	HistoryOmitted int `json:"history_omitted,omitempty"`
	// Stamp is kept here if no config says where the state is.
	Stamp *Stamp `json:"stamp,omitempty"`
	// UpdatedAt is the time of the last change.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Entry is a version in the history.
type Entry struct {
	VersionIndex int    `json:"version_index"`
	Name         string `json:"name,omitempty"`
	BinaryPath   string `json:"binary_path"`
	BinarySHA256 string `json:"binary_sha256,omitempty"`
	// StopHeight is the height, in blocks, at which it was complete.
	StopHeight uint64 `json:"stop_height,omitempty"`
	// Proof is how that is known.
	Proof Proof `json:"proof,omitempty"`
	// CompletedAt is when it was recorded; zero while the version is not complete.
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
	// ProofWord: a person said so with 'entrypoint checkpoint set --complete'.
	ProofWord Proof = "a person's word"
	// ProofSlack: --height-slack counted it as complete.
	ProofSlack Proof = "height slack"
	// ProofHeight is only read, in files of earlier versions of this program: the node exited 0, and the last height
	// that it reported over HTTP, a soft-confirmed height, was the stop height.
	ProofHeight Proof = "last height read"
)

// Clone returns a deep copy of the checkpoint.
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

// Entry returns version i from the history.
func (c *Checkpoint) Entry(i int) (Entry, bool) {
	at := slices.IndexFunc(c.History, func(e Entry) bool { return e.VersionIndex == i })
	if at < 0 {
		return Entry{}, false
	}
	return c.History[at], true
}

// Encode gives the text of a checkpoint file: indented JSON, for people to read and edit. If it would be too long to be
// read back, the oldest entries of the history are left out, and counted in HistoryOmitted.
func Encode(c Checkpoint) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("cannot write the checkpoint: %w", err)
	}
	c.Started = nil
	text, err := encode(c)
	if errors.Is(err, errTooLong) {
		without := func(oldest int) ([]byte, error) {
			short := c
			short.History = c.History[oldest:]
			short.HistoryOmitted = min(short.HistoryOmitted, math.MaxInt32-oldest) + oldest
			return encode(short)
		}
		excess := sort.Search(len(c.History), func(n int) bool {
			_, err := without(n)
			return err == nil
		})
		text, err = without(excess)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write the checkpoint: %w", err)
	}
	return text, nil
}

var (
	entryShape = strictjson.Shape{
		Name:     "history",
		Required: []string{"version_index"},
		Optional: []string{"name", "binary_path", "binary_sha256", "stop_height", "proof", "completed_at", "migration"},
		Within:   []strictjson.Shape{{Name: "migration", Required: []string{"runs"}, Optional: []string{"begun_at", "completed_at"}}},
	}
	checkpointShape = strictjson.Shape{
		Name:     "checkpoint",
		Required: []string{"version_index", "binary_path"},
		Optional: []string{
			"migration_completed", "phase", "height", "stamped", "started", "binary_sha256", "damage_reported", "node_up", "answers", "history",
			"history_omitted", "stamp", "updated_at",
		},
		Lists:  []strictjson.Shape{entryShape},
		Within: []strictjson.Shape{stampShape},
	}
)

// Parse reads the text of a checkpoint file strictly: what is torn, empty or foreign is an error that says so, because
// a guess here would start the wrong version. It reads the present format, the two keys of sov-rollup-manager, and the
// format of earlier versions of this program, whose history can have a version more than once: the newest entry counts.
func Parse(text []byte) (Checkpoint, error) {
	var c Checkpoint
	if err := parse(text, checkpointShape, &c); err != nil {
		return Checkpoint{}, err
	}
	slices.Reverse(c.History)
	sort.Stable(byVersion(c.History))
	c.History = slices.CompactFunc(c.History, func(a, b Entry) bool { return a.VersionIndex == b.VersionIndex })
	return c, nil
}

// byVersion sorts a history. Sorting such a large type with package slices instead would add 10 kB to the program.
type byVersion []Entry

func (h byVersion) Len() int           { return len(h) }
func (h byVersion) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h byVersion) Less(i, j int) bool { return h[i].VersionIndex < h[j].VersionIndex }

// check finds values that no entrypoint writes.
func (c *Checkpoint) check() error {
	switch {
	case c.VersionIndex < 0:
		return fmt.Errorf("version_index is %d, want 0 or more", c.VersionIndex)
	case c.BinaryPath == "":
		return errors.New("binary_path is empty")
	case c.HistoryOmitted < 0 || c.HistoryOmitted > math.MaxInt32:
		return fmt.Errorf("history_omitted is %d, want 0 to %d", c.HistoryOmitted, math.MaxInt32)
	case c.Phase == PhaseMigrating && c.MigrationCompleted:
		return fmt.Errorf("phase is %q but migration_completed is true: they exclude each other", c.Phase)
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
