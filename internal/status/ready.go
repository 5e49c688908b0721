package status

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

const (
	// freshFor is how long an answer of the node is reused, so that probes and dashboards do not load the node.
	freshFor = time.Second
	// usableFor is how old the last answer may be while the node is being asked again. A node that hangs takes a
	// second, and probes must not wait for each other.
	usableFor = 3 * time.Second
)

// asking keeps the last answer of a node.
type asking struct {
	mu   sync.Mutex
	last *question // nil before the first answer
	// now is the open question; nil if there is none.
	now *question
}

// question is one question to the node with this pid. Its answer may be read once answered is closed.
type question struct {
	pid      int
	answered chan struct{}
	at       time.Time
	answer   sovereign.Readiness
}

// Roles of a node. Only a leader takes transactions.
const (
	roleAny     = ""
	roleLeader  = "leader"
	roleReplica = "replica"
)

// ready gives the role of the node, if it is known, and why the node cannot be used in the wanted role; why is empty if
// it can.
func (s *Status) ready(ctx context.Context, state *sequencer.State, wanted string) (role, why string) {
	if why := notServing(state); why != "" {
		return "", why
	}
	answer := s.ask(ctx, state.Process)
	stop := s.Plan.Versions[state.Process.Version].Stop
	switch {
	case answer.Leads:
		return roleLeader, ""
	case !answer.Synced:
		return "", cmp.Or(answer.Why, "the node does not say whether it is ready")
	case state.Height != nil && stop > 0 && state.Height.Height >= stop: // a leader says here that it is synced, too
		return "", "the node has reached its stop height"
	case wanted == roleLeader:
		return roleReplica, "the node is a replica"
	}
	return roleReplica, ""
}

// notServing says why no node can be ready now; it is empty if one can.
func notServing(state *sequencer.State) string {
	switch {
	case state.Stopping:
		return "a stop was requested"
	case state.Phase == sequencer.PhasePreparing:
		return "nothing has been started yet" + waitedFor(state)
	case state.Phase == sequencer.PhaseAsking:
		return "the node is being asked for its durable height"
	case state.Phase == sequencer.PhaseHeld:
		return "an operator holds the sequence: nothing is started while " + state.HoldFile + " exists"
	case state.Phase == sequencer.PhaseCopying:
		return "the state is being copied, for the undo point"
	case state.Phase == sequencer.PhaseHook:
		return "the hook before an upgrade is running"
	case state.Phase == sequencer.PhaseMigrating:
		return "a migration is running"
	case state.Phase == sequencer.PhaseHandingOver:
		return "one process has ended and the next has not been started yet" + waitedFor(state)
	case state.Phase == sequencer.PhaseFinished:
		return "the stop height is reached, and nothing follows it"
	case state.Phase == sequencer.PhaseFailed:
		return "the run has failed"
	case state.Process.Stranger:
		return "another process answers on the node's port"
	}
	return ""
}

func waitedFor(state *sequencer.State) string {
	if len(state.Left) == 0 {
		return ""
	}
	oldest := state.Left[0]
	return fmt.Sprintf(": waiting for leftover processes to end: %d, the oldest is pid %d (%q)", len(state.Left), oldest.Pid, oldest.Command)
}

// ask asks the node, unless its last answer is fresh. There is one question at a time. It outlives the request that
// asked it, since others use its answer. A request that comes in the meantime gets the previous answer or, if that is
// too old, waits for the new one.
func (s *Status) ask(ctx context.Context, p sequencer.ProcessState) sovereign.Readiness {
	for {
		q := s.question(p)
		select {
		case <-q.answered:
		case <-ctx.Done():
			return sovereign.Readiness{Why: "the node has not said yet whether it is ready"}
		}
		if q.pid == p.Pid { // else the question was to the previous node
			return q.answer
		}
	}
}

// question gives the last answer of the node or, if that is too old, the open question to wait for. It asks if none is
// open.
func (s *Status) question(p sequencer.ProcessState) *question {
	a := &s.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil && a.last.pid == p.Pid {
		if age := time.Since(a.last.at); age <= freshFor || a.now != nil && age <= usableFor {
			return a.last
		}
	}
	if a.now == nil {
		a.now = &question{pid: p.Pid, answered: make(chan struct{})}
		go s.putQuestion(a.now, s.Plan.Versions[p.Version])
	}
	return a.now
}

// putQuestion asks the node, which takes a second at most.
func (s *Status) putQuestion(q *question, v sequencer.Version) {
	q.answer = s.Readiness(context.Background(), v)
	a := &s.asking
	a.mu.Lock()
	defer a.mu.Unlock()
	q.at = time.Now()
	a.last, a.now = q, nil
	close(q.answered)
}
