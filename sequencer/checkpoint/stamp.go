package checkpoint

import (
	"fmt"
	"time"

	"rollup-entrypoint/internal/strictjson"
)

// StampFile is the name of the stamp in the storage directory.
const StampFile = "rollup-version.json"

// Migration is how far the migration of a stamp's version is; empty if there is none, or it was not begun.
type Migration string

const (
	// MigrationBegun: the migration may have written to the state, and its end is not recorded.
	MigrationBegun Migration = "begun"
	// MigrationCompleted: the migration ran to its end.
	MigrationCompleted Migration = "completed"
)

// Stamp says which version's format the state beside it has, as PostgreSQL's PG_VERSION does. It is written before the
// version that it names touches the state, and it travels with every copy of the state.
type Stamp struct {
	// VersionIndex is the index of the version, from 0, in the plan of that time.
	VersionIndex int    `json:"version_index"`
	Name         string `json:"name"`
	// StartHeight is the first height of the version, in blocks; 0 for the first version.
	StartHeight uint64 `json:"start_height"`
	// StopHeight is the one that its node was started with last; 0 for none.
	StopHeight   uint64    `json:"stop_height"`
	BinarySHA256 string    `json:"binary_sha256,omitempty"`
	Migration    Migration `json:"migration,omitempty"`
	// Hook: the hook before the next version is done.
	Hook bool `json:"hook,omitempty"`
	// Complete: a person said that the version has reached StopHeight.
	Complete bool `json:"complete,omitempty"`
	// UndoPoint is the ID of the undo point that was made before the version, or another binary of it, touched the state;
	// empty if there was none.
	UndoPoint string `json:"undo_point,omitempty"`
	// Entered: it is not recorded that a node of the version was up since that undo point was made, except to be asked.
	Entered bool `json:"entered,omitempty"`
	// Started: Entered, but a node was started to run, and how that ended is not recorded: it may have been up.
	Started bool `json:"started,omitempty"`
	// DryRun: the migration that was begun is a dry run, so the version is not entered: the undo point is put back when it
	// has ended, whatever it has done, and without that nothing may follow.
	DryRun    bool      `json:"dry_run,omitempty"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Same reports whether two stamps say the same, written at the same time. The zone in which a time was written does not
// matter.
func (s Stamp) Same(other Stamp) bool {
	at := s.UpdatedAt.Equal(other.UpdatedAt)
	s.UpdatedAt = other.UpdatedAt
	return at && s == other
}

// EncodeStamp gives the text of a stamp file: indented JSON, for people to read.
func EncodeStamp(s Stamp) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("cannot write the stamp: %w", err)
	}
	text, err := encode(s)
	if err != nil {
		return nil, fmt.Errorf("cannot write the stamp: %w", err)
	}
	return text, nil
}

var stampShape = strictjson.Shape{
	Name:     "stamp",
	Required: []string{"version_index", "name", "start_height", "stop_height"},
	Optional: []string{"binary_sha256", "migration", "hook", "complete", "undo_point", "entered", "started", "dry_run", "updated_at"},
}

// ParseStamp reads the text of a stamp file, as strictly as Parse reads a checkpoint.
func ParseStamp(text []byte) (Stamp, error) {
	var s Stamp
	if err := parse(text, stampShape, &s); err != nil {
		return Stamp{}, err
	}
	return s, nil
}

// check finds values that no entrypoint writes.
func (s *Stamp) check() error {
	if s.VersionIndex < 0 {
		return fmt.Errorf("the stamp's version_index is %d, want 0 or more", s.VersionIndex)
	}
	switch s.Migration {
	case "", MigrationBegun, MigrationCompleted:
		return nil
	}
	return fmt.Errorf("the stamp's migration is %q, want %q or %q", s.Migration, MigrationBegun, MigrationCompleted)
}
