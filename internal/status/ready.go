package status

import (
	"context"
	"sync"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

// freshFor is how long an answer of the node is used again: probes and dashboards shall not load it.
const freshFor = time.Second

// asking keeps the last answer of a node. A request that comes while the node is asked waits for the same answer.
type asking struct {
	mu     sync.Mutex
	pid    int
	at     time.Time
	answer sovereign.Readiness
}

// Roles that a node can be asked to be ready for.
const (
	roleAny    = ""
	roleLeader = "leader"
)

// ready reports whether the node can be used, and if not, why. With roleLeader only a node that takes transactions is.
func (s *Status) ready(ctx context.Context, state *sequencer.State, role string) (ok bool, why string) {
	if why := notServing(state); why != "" {
		return false, why
	}
	answer := s.ask(ctx, state.Process)
	stop := s.Plan.Versions[state.Process.Version].Stop
	switch {
	case answer.Leads:
		return true, ""
	case !answer.Synced:
		return false, answer.Why
	case state.Height != nil && stop > 0 && state.Height.Height >= stop:
		return false, "the node has reached its stop height"
	case role == roleLeader:
		return false, "the node is a replica"
	}
	return true, ""
}

// notServing says why no node can be ready now, empty where one can.
func notServing(state *sequencer.State) string {
	switch {
	case state.Stopping:
		return "a stop was requested"
	case state.Phase == sequencer.PhasePreparing:
		return "nothing was started yet"
	case state.Phase == sequencer.PhaseAsking:
		return "its node is asked for the height of its state"
	case state.Phase == sequencer.PhaseMigrating:
		return "a migration runs"
	case state.Phase == sequencer.PhaseHandingOver:
		return "one process has ended and the next was not started yet"
	case state.Phase == sequencer.PhaseFinished:
		return "the last version has reached its stop height"
	case state.Phase == sequencer.PhaseFailed:
		return "the run has failed"
	case state.Process.Stranger:
		return "another process answers on the node's port"
	}
	return ""
}

// ask asks the node, unless its last answer is fresh.
func (s *Status) ask(ctx context.Context, p sequencer.ProcessState) sovereign.Readiness {
	if s.Readiness == nil {
		return sovereign.Readiness{Why: "nothing asks the node whether it is ready"}
	}
	a := &s.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pid != p.Pid || time.Since(a.at) > freshFor {
		// Not ended with the request: others use the answer, and it takes a second at most.
		a.answer = s.Readiness(context.WithoutCancel(ctx), s.Plan.Versions[p.Version])
		a.pid, a.at = p.Pid, time.Now()
	}
	return a.answer
}
