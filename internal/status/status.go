package status

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

// Options are what a Status is made of. Plan is required.
type Options struct {
	Plan *sequencer.Plan
	// Version is that of this program.
	Version string
	// Checkpoint is the checkpoint file, empty for none.
	Checkpoint string
	// Readiness asks the node of a version whether it is ready; nil: no node is ever called ready.
	Readiness func(ctx context.Context, v sequencer.Version) sovereign.Readiness
	// Orphans gives how many orphans were reaped; nil for none.
	Orphans func() uint64
	// StallTimeout is how long the height may stay the same, or unknown after it was known, before the run counts as not
	// alive; 0 for ever.
	StallTimeout time.Duration
}

// Status holds the newest state of a run. Use New.
type Status struct {
	Options
	started time.Time
	state   atomic.Pointer[sequencer.State]
	asking  asking
}

// New returns a Status which says, until it has observed a state, that the run is being prepared.
func New(o Options) *Status {
	s := &Status{Options: o, started: time.Now()}
	s.Observe(sequencer.State{Phase: sequencer.PhasePreparing, Since: s.started})
	return s
}

// Observe takes a new state. It is made for sequencer.Options, and returns at once.
func (s *Status) Observe(state sequencer.State) { s.state.Store(&state) }

// alive reports whether the run is alive at now, and if not, why. It is alive until it fails: a question, a start-up and a
// migration may take as long as they like, and a node that hangs while it is asked is not ready but alive, because a restart
// would only ask it again. With a stall timeout the node has to make progress once it has reported a height.
func (s *Status) alive(state *sequencer.State, now time.Time) (ok bool, why string) {
	if state.Phase == sequencer.PhaseFailed {
		return false, "the run has failed"
	}
	if s.StallTimeout == 0 || state.Height == nil || state.Process.Pid == 0 {
		return true, ""
	}
	if since := now.Sub(state.RoseAt); since > s.StallTimeout {
		return false, fmt.Sprintf("no new height for %s, since height %d", since.Round(time.Second), state.Height.Height)
	}
	return true, ""
}
