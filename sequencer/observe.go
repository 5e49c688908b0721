package sequencer

import (
	"log/slog"
	"maps"
	"time"
)

func (n *nodeRun) observe(r Reading) {
	s := n.s
	n.countQueries()
	if before := s.state.Height; before == nil || r.Height > before.Height {
		s.state.RoseAt = r.At
	}
	s.state.Height, s.state.Rate = &r, n.pace.add(r)
	if s.state.Phase == PhaseStarting {
		s.enter(PhaseRunning)
	} else {
		s.publish()
	}
	n.preflightWhenNear(r.At)
}

// countQueries takes over what the watch has counted since the last call.
func (n *nodeRun) countQueries() {
	queries, failures := n.watch.queries.Load(), n.watch.failures.Load()
	n.s.state.Queries += queries - n.queries
	n.s.state.QueryFailures += failures - n.failures
	n.queries, n.failures = queries, failures
}

// preflightsAhead is how many preflights fit into PreflightBefore: what is fixed meanwhile must show.
const preflightsAhead = 12

// preflightWhenNear has the next version inspected, in the background, while its upgrade is within reach.
func (n *nodeRun) preflightWhenNear(now time.Time) {
	s := n.s
	_, eta, known := s.state.UntilUpgrade(s.Plan)
	if s.PreflightBefore == 0 || !known || eta < 0 || eta > s.PreflightBefore || n.index >= s.Plan.End() || n.inspecting.Load() || now.Before(n.nextPreflight) {
		return
	}
	n.nextPreflight = now.Add(s.PreflightBefore / preflightsAhead)
	n.inspecting.Store(true)
	go func() {
		defer n.inspecting.Store(false)
		n.inspect(WholePlan, Programs)
		n.inspect(n.index+1, inBackground)
	}()
}

// readAhead has all later versions inspected in the background, now that the node has its start-up behind it, and the
// next version's binary read. A file that does not match the manifest is known long before its height; and at the
// hand-over the digests are known and the pages are in memory.
func (n *nodeRun) readAhead() {
	go func() {
		for i := n.index + 1; i <= n.s.Plan.End() && n.ctx.Err() == nil; i++ {
			n.inspect(i, inBackground)
			if i > n.index+1 || n.ctx.Err() != nil {
				continue
			}
			if _, err := n.s.Inspection.Digest(i); err != nil {
				n.s.Log.Warn("next version unreadable", slog.Int("version", i), slog.String("error", err.Error()))
			}
		}
	}()
}

// inBackground is how closely a later version is inspected while a node runs.
const inBackground = Programs | Manifest | Idly

// inspected is what an inspection of a version has found.
type inspected struct {
	version int
	found   []Finding
}

// inspect inspects version i, or what all versions share, beside the loop, which takes what was found unless the node
// ends first.
func (n *nodeRun) inspect(i int, depth Depth) {
	found := n.s.look(n.ctx, i, depth)
	select {
	case n.inspected <- inspected{i, found}:
	case <-n.ctx.Done():
	}
}

// preflightDone makes what an inspection of version i has found part of the state, and logs what is new.
func (s *sequence) preflightDone(i int, found []Finding) {
	before := map[Finding]bool{}
	for _, known := range s.state.Preflight[i].Findings {
		before[known] = true
	}
	for _, f := range found {
		if !before[f] {
			s.Log.Warn("preflight problem", slog.Int("version", i), slog.String("severity", string(f.Severity)),
				slog.String("problem", f.What), slog.String("next", f.Next))
		}
	}
	after := map[int]Preflight{}
	maps.Copy(after, s.state.Preflight)
	after[i] = Preflight{At: time.Now(), Findings: found}
	s.state.Preflight = after
	s.publish()
}
