package status

import (
	"fmt"
	"time"

	"rollup-entrypoint/internal/plain"
)

// lineLimit is how long a line may be, in bytes.
const lineLimit = 300

// Line gives the run in one line of plain text, in the words of 'entrypoint status'. It asks nobody.
func (s *Status) Line() string {
	state, now := s.state.Load(), time.Now()
	i := state.Record.VersionIndex
	r := Report{Phase: state.Phase, Stopping: state.Stopping, VersionIndex: i, Version: s.Plan.Versions[i].Name}
	line := r.state() + waitedFor(state)
	if state.Height != nil {
		line += fmt.Sprintf(", height %d", state.Height.Height)
	}
	if u := s.upgrade(state, now); u != nil {
		line += ", " + u.words(orNull(s.Plan.Brake))
	}
	return plain.Line(plain.Cut(line, lineLimit))
}
