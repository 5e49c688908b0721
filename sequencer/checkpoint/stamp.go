package checkpoint

import (
	"fmt"
	"time"
)

// StampFile is the name of the stamp in the storage directory.
const StampFile = "rollup-version.json"

// Migration is how far the migration of a stamp's version is; empty if it has none, or none was begun.
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
	// VersionIndex is the place of the version in the plan that it was written under, from 0.
	VersionIndex int    `json:"version_index"`
	Name         string `json:"name"`
	// StartHeight is the first height of the version, in blocks; 0 for the first version.
	StartHeight uint64 `json:"start_height"`
	// StopHeight is the one that was last passed on to its node; 0 for none.
	StopHeight   uint64    `json:"stop_height"`
	BinarySHA256 string    `json:"binary_sha256,omitempty"`
	Migration    Migration `json:"migration,omitempty"`
	// Hook: the hook before the next version is done.
	Hook bool `json:"hook,omitempty"`
	// Complete: a person said that the version has reached StopHeight.
	Complete  bool      `json:"complete,omitempty"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// EncodeStamp gives the text of a stamp file: indented JSON, made to be read.
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

var stampShape = shape{
	name:     "stamp",
	required: []string{"version_index", "name", "start_height", "stop_height"},
	optional: []string{"binary_sha256", "migration", "hook", "complete", "updated_at"},
}

// ParseStamp reads the text of a stamp file, as strictly as Parse reads a checkpoint.
func ParseStamp(text []byte) (Stamp, error) {
	var s Stamp
	if err := parse(text, stampShape, &s); err != nil {
		return Stamp{}, err
	}
	if err := s.check(); err != nil {
		return Stamp{}, err
	}
	return s, nil
}

// check finds values that no entrypoint wrote.
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
