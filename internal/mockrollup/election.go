package mockrollup

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	roleLeader  = "leader"
	roleReplica = "replica"
	// roleAuto lets an election decide.
	roleAuto = "auto"

	// restartAsLeader is why a replica that became leader exits.
	restartAsLeader = "restart as leader"
	// resignTimeout is how long a leader that ends tries to say so. Otherwise its lease runs out.
	resignTimeout = time.Second
	// claimEvery is how long a node waits between two claims before it knows the lease, of which it takes a third.
	claimEvery = time.Second
)

// election is a node's part in choosing the leader. It claims leadership as long as it is a candidate, and knows
// whether it leads. A node that hears nothing from the server leads until its lease is over, which it counts from
// before the claim: it never leads longer than the server thinks.
type election struct {
	da        *remoteDA
	id        string
	log       *logger
	candidate atomic.Bool
	// end stops the claims, and ended says that they have stopped.
	end   context.CancelFunc
	ended chan struct{}

	mu     sync.Mutex
	until  time.Time
	rival  string
	every  time.Duration
	failed bool
}

// elect takes part in the election and returns after the first claim: a node that wins it starts as leader.
func elect(ctx context.Context, da *remoteDA, id string, log *logger) *election {
	e := &election{da: da, id: id, log: log, every: claimEvery, ended: make(chan struct{})}
	e.claim(ctx)
	e.candidate.Store(e.leads(time.Now()))
	ctx, e.end = context.WithCancel(ctx)
	go e.run(ctx)
	return e
}

func (e *election) run(ctx context.Context) {
	defer close(e.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(e.pause()):
		}
		if e.candidate.Load() {
			e.claim(ctx)
		}
	}
}

func (e *election) pause() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.every
}

func (e *election) claim(ctx context.Context) {
	asked := time.Now()
	seen, err := e.call(ctx, http.MethodPut)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		if !e.failed && ctx.Err() == nil {
			e.log.warn("the leader cannot be elected, retrying", "error", err)
		}
		e.failed = true
		return
	}
	lease := time.Duration(seen.LeaseMS) * time.Millisecond
	e.failed, e.every, e.rival = false, max(lease/3, time.Millisecond), ""
	if seen.Holder == e.id {
		e.until = asked.Add(lease)
		return
	}
	e.rival, e.until = seen.Holder, time.Time{}
}

func (e *election) call(ctx context.Context, method string) (seen Leadership, err error) {
	err = e.da.call(ctx, method, "leader", url.Values{"id": {e.id}}, nil, daAnswerLimit, &seen)
	return seen, err
}

// leads reports whether the lease holds at now.
func (e *election) leads(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Before(e.until)
}

// deposed returns who leads instead; it is empty if that is unknown.
func (e *election) deposed() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rival
}

// leave ends the node's part. A node that will no longer lead gives up the leadership, so that another need not wait
// for the end of the lease.
func (e *election) leave(resign bool) {
	e.end()
	<-e.ended
	if !resign {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), resignTimeout)
	defer cancel()
	if _, err := e.call(ctx, http.MethodDelete); err != nil {
		e.log.warn("Leadership not given up, its lease runs out", "error", err)
	}
}

// takeRole decides the role of this run.
func (n *node) takeRole(ctx context.Context) {
	da, remote := n.da.(*remoteDA)
	if n.role != roleAuto || !remote {
		return
	}
	id := n.cfg.Mock.NodeID
	if id == "" {
		id = hostName()
	}
	n.election = elect(ctx, da, id, n.log)
	n.role = roleReplica
	if n.election.leads(time.Now()) {
		n.role = roleLeader
	}
	n.log.info("Sequencer role taken", "role", n.role, "node", id)
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unnamed"
	}
	return name
}

// campaign follows the election. A replica that has won must restart, since a running one cannot become a leader. A
// deposed leader continues as a replica. A node that is behind, or has nothing left to sequence before its stop height,
// is no candidate: it would take the leadership along when it ends.
func (n *node) campaign(now time.Time) *ending {
	if n.election == nil {
		return nil
	}
	leads, rival := n.election.leads(now), n.election.deposed()
	switch {
	case n.role == roleReplica && leads:
		n.log.info("Exiting to restart as leader", "height", n.soft)
		return &ending{reason: restartAsLeader}
	case n.role == roleLeader && rival != "":
		n.log.warn("Leadership lost", "leader", rival)
		n.role = roleReplica
	}
	seen := n.view.Load()
	n.election.candidate.Store(n.role == roleLeader || seen.known && !seen.syncing && !seen.atStop)
	return nil
}

// leading reports whether this node may sequence at now.
func (n *node) leading(now time.Time) bool {
	return n.role == roleLeader && (n.election == nil || n.election.leads(now))
}
