package sequencer

import (
	"log/slog"
	"maps"
	"slices"
	"time"
)

// observe makes a reading part of the state.
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

// countQueries takes over what the watch has counted since.
func (n *nodeRun) countQueries() {
	queries, failures := n.watch.queries.Load(), n.watch.failures.Load()
	n.s.state.Queries += queries - n.queries
	n.s.state.QueryFailures += failures - n.failures
	n.queries, n.failures = queries, failures
}

// preflightsAhead is how many preflights fit into PreflightBefore: what is mended meanwhile shall show.
const preflightsAhead = 12

// preflightWhenNear has the next version looked at, in the background, while its upgrade is within reach.
func (n *nodeRun) preflightWhenNear(now time.Time) {
	s := n.s
	_, eta, known := s.state.UntilUpgrade(s.Plan)
	if s.PreflightBefore == 0 || !known || eta < 0 || eta > s.PreflightBefore || n.index == s.Plan.Last() || n.preflight != nil || now.Before(n.nextPreflight) {
		return
	}
	n.nextPreflight = now.Add(s.PreflightBefore / preflightsAhead)
	done := make(chan preflights, 1) // the node may have ended by then
	n.preflight = done
	go func() {
		found := preflights{}
		found[WholePlan], found[n.index+1] = s.Preflight(WholePlan), n.examine(n.index+1)
		done <- found
	}()
}

// preflights are the findings of several preflights, by version.
type preflights map[int][]Finding

// examined takes over what was found.
func (n *nodeRun) examined(found preflights) {
	for _, i := range slices.Sorted(maps.Keys(found)) {
		n.s.preflightDone(i, found[i])
	}
}

// preflightDone makes what a preflight of version i has found part of the state, and logs what is new.
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
	after := maps.Clone(s.state.Preflight)
	if after == nil {
		after = map[int]Preflight{}
	}
	after[i] = Preflight{At: time.Now(), Findings: found}
	s.state.Preflight = after
	s.publish()
}

// preflightAll looks at what all versions share, at version now and at all later ones, and gives the errors. What is wrong
// with an earlier version is none.
func (s *sequence) preflightAll(now int) Problems {
	var serious Problems
	for i := WholePlan; i <= s.Plan.Last(); i++ {
		if i != WholePlan && i < now {
			continue
		}
		found := s.Preflight(i)
		s.preflightDone(i, found)
		for _, f := range found {
			if f.Severity == SeverityError && (f.Version == WholePlan || f.Version >= now) {
				serious = append(serious, f.Text(s.Plan))
			}
		}
	}
	return serious
}
