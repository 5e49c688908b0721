package status

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// Options configure a Status. Checkpoint and StallTimeout may be zero.
type Options struct {
	Plan *sequencer.Plan
	// Version is the version of this program.
	Version string
	// Checkpoint is the checkpoint file, empty for none.
	Checkpoint string
	// Readiness asks the node of a version whether it is ready.
	Readiness func(ctx context.Context, v sequencer.Version) sovereign.Readiness
	// Orphans gives how many orphans were reaped.
	Orphans func() uint64
	// OpenFiles gives how many files a process may have open, 0 if that is not known.
	OpenFiles func(pid int) uint64
	// StallTimeout is how long the height may stay the same, or unknown after it was known, before the run counts as
	// not alive; 0 means forever.
	StallTimeout time.Duration
}

// Status holds the newest state of a run. Use New.
type Status struct {
	Options
	started time.Time
	host    string
	state   atomic.Pointer[sequencer.State]
	id      atomic.Value // a string
	before  atomic.Pointer[checkpoint.LastRun]
	// planOutdated: the plan on disk is not the one of this run.
	planOutdated atomic.Bool
	asking       asking
	// busy has a place for each request being answered that is not a probe.
	busy chan struct{}
}

// New returns a Status that says the run is being prepared until it has observed a state.
func New(o Options) *Status {
	s := &Status{Options: o, started: time.Now(), busy: make(chan struct{}, busyLimit)}
	s.host, _ = os.Hostname() // empty if it is not known
	s.Observe(sequencer.State{Phase: sequencer.PhasePreparing, Since: s.started})
	return s
}

// Observe takes a new state and returns immediately. It fits sequencer.Options.
func (s *Status) Observe(state sequencer.State) { s.state.Store(&state) }

// Identify takes the id of the lock that this run holds from now on. A client can tell by it that the right entrypoint
// answers.
func (s *Status) Identify(id string) { s.id.Store(id) }

// Follow takes the record of the run before, nil if none is known.
func (s *Status) Follow(before *checkpoint.LastRun) { s.before.Store(before) }

// FollowPlan takes whether the plan on disk is another one than that of this run, or cannot be read any more.
func (s *Status) FollowPlan(outdated bool) { s.planOutdated.Store(outdated) }

// NotAlive says why the run is not alive, as /healthz does; it is empty if the run is.
func (s *Status) NotAlive() string { return s.notAlive(s.state.Load(), time.Now()) }

// instance is that id, empty until the lock is held.
func (s *Status) instance() string {
	id, _ := s.id.Load().(string)
	return id
}

// checkpointPath is the checkpoint file as every answer names it, by whatever name it was given; empty for none.
func (s *Status) checkpointPath() string {
	if s.Checkpoint == "" {
		return ""
	}
	return checkpoint.ResolveLinks(s.Checkpoint)
}

// notAlive says why the run is not alive at now; it is empty if the run is. A run is alive until it fails: a question,
// a start-up, a hold, a copy, a hook and a migration may take as long as they like. A node that hangs while it is asked
// is not ready but alive, since a restart would only ask it again. With a stall timeout, a node must make progress once
// it has reported a height.
func (s *Status) notAlive(state *sequencer.State, now time.Time) string {
	if state.Phase == sequencer.PhaseFailed {
		return "the run has failed"
	}
	if s.StallTimeout == 0 || state.Height == nil || state.Process.Pid == 0 {
		return ""
	}
	if since := now.Sub(state.RoseAt); since > s.StallTimeout {
		return fmt.Sprintf("no new height for %s, since height %d", since.Round(time.Second), state.Height.Height)
	}
	return ""
}
