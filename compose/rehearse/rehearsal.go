package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// The names of the steps, in their order.
const (
	stepStart    = "start"
	stepLive     = "live upgrade"
	stepResync   = "resync"
	stepKill     = "kill -9 at the upgrade"
	stepStop     = "SIGTERM at the stop height"
	stepLate     = "late node"
	stepDryRun   = "migration dry run"
	stepSnapshot = "restored snapshot"
)

// rehearsal is one run through all steps.
type rehearsal struct {
	*network
	settings settings
	report   *report
	progress io.Writer
	// versions is the plan of the nodes without their own plan.
	versions []versionReport
	// chain counts the chains. Roots are compared within one.
	chain int
	// agreed has the roots of the first chain, from the live upgrade.
	agreed rootTable
	// common is the last height of the live upgrade that was compared.
	common uint64
}

func newRehearsal(w *network, s settings, r *report, progress io.Writer) *rehearsal {
	for _, row := range []struct {
		phase int
		name  string
	}{
		{0, stepStart}, {1, stepLive}, {2, stepResync}, {3, stepKill}, {3, stepStop}, {3, stepLate}, {3, stepDryRun}, {3, stepSnapshot},
	} {
		r.Steps = append(r.Steps, &stepReport{
			Phase: row.phase, Name: row.name, Result: notReached, Notes: []string{}, Failures: []failureReport{},
			Damaged: []damageReport{}, Nodes: []nodeReport{}, Roots: []rootReport{},
		})
	}
	return &rehearsal{network: w, settings: s, report: r, progress: progress}
}

func (r *rehearsal) step(name string) *stepReport {
	i := slices.IndexFunc(r.report.Steps, func(s *stepReport) bool { return s.Name == name })
	return r.report.Steps[i]
}

func (r *rehearsal) say(format string, values ...any) {
	fmt.Fprintf(r.progress, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, values...))
}

// run goes through the steps. A failed step of phase 1 or 2 ends the rehearsal; those of phase 3 are independent. The
// error means that there is no verdict: the rehearsal cannot run, or was interrupted.
func (r *rehearsal) run(ctx context.Context) error {
	for _, phase := range []struct {
		name string
		do   func(context.Context, *stepReport) error
	}{{stepStart, r.begin}, {stepLive, r.live}, {stepResync, r.resync}} {
		if err := r.carryOut(ctx, r.step(phase.name), phase.do, r.nodes); err != nil {
			return err
		}
		if r.step(phase.name).Result != passed {
			return nil
		}
	}
	return r.faults(ctx)
}

// carryOut runs one step, which concerns some nodes, and sets its result.
func (r *rehearsal) carryOut(ctx context.Context, s *stepReport, do func(context.Context, *stepReport) error, about []*node) error {
	r.say("%s …", s.Name)
	begun := time.Now()
	err := do(ctx, s)
	s.Seconds, s.Chain = time.Since(begun).Seconds(), r.chain
	return r.settle(ctx, s, err, about)
}

// settle sets the result of a step. It returns errors that are not the plan's. A step that was cut short, or one of
// whose nodes failed unnoticed, has not passed.
func (r *rehearsal) settle(ctx context.Context, s *stepReport, err error, about []*node) error {
	s.Damaged = damaged(about)
	if err == nil && ctx.Err() != nil {
		err = failf("", "%s, before everything was compared", reasonOf(context.Cause(ctx)))
	}
	if err == nil {
		s.Failures = append(s.Failures, r.unnoticed(s, about)...)
	}
	if errors.Is(err, errUnavailable) || ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout) {
		return err
	}
	var found failures
	switch {
	case err == nil && len(s.Failures) == 0:
		s.Result = passed
		r.say("%s passed in %.0f s", s.Name, s.Seconds)
		return nil
	case errors.As(err, &found):
		s.Failures = append(s.Failures, found...)
	case err != nil:
		s.Failures = append(s.Failures, failureReport{Sentence: err.Error()})
	}
	s.Result = failed
	r.say("%s FAILED: %s", s.Name, s.Failures[0].Sentence)
	return nil
}

// unnoticed gives the failures of nodes that the step does not have yet.
func (r *rehearsal) unnoticed(s *stepReport, nodes []*node) (found failures) {
	for _, n := range nodes {
		known := slices.ContainsFunc(s.Failures, func(f failureReport) bool { return f.Node == n.service })
		if f := r.trouble(n); f != nil && !known {
			found = append(found, *f)
		}
	}
	return found
}

// damaged gives the nodes that report a damaged state.
func damaged(nodes []*node) []damageReport {
	found := []damageReport{}
	for _, n := range nodes {
		n.with(func() {
			if damage := n.seen.damage(); damage != nil {
				found = append(found, *damage)
			}
		})
	}
	return found
}

// begin starts everything and waits until every node has reported a height.
func (r *rehearsal) begin(ctx context.Context, s *stepReport) error {
	r.chain = 1
	// The nodes are made before the chain starts, which does not wait for them.
	if err := r.create(ctx, r.nodes, r.others, r.fillNew(ctx)); err != nil {
		return fmt.Errorf("%w: %w", errUnavailable, err)
	}
	if err := r.startOthers(ctx, r.others); err != nil {
		return err
	}
	r.followLogs(ctx)
	if err := r.startNew(ctx, r.nodes...); err != nil {
		return err
	}
	err := r.await(ctx, "plan known", r.nodes, func(n *node) bool {
		known := false
		n.with(func() { known = len(n.status.Versions) > 0 && len(n.seen.plan()) == len(n.status.Versions) })
		return known
	})
	r.readPlan()
	if err == nil {
		err = r.checkPlan(ctx, s)
	}
	if err == nil {
		err = r.await(ctx, "first height reported", r.nodes, func(n *node) bool { return n.height() > 0 })
	}
	if err == nil {
		err = r.checkState()
	}
	if err != nil {
		r.record(s)
	}
	return err
}

// readPlan takes the plan from the first node without its own plan.
func (r *rehearsal) readPlan() {
	for _, n := range r.nodes {
		if r.settings.nodePlans[n.service] == "" && len(r.versions) == 0 {
			n.with(func() { r.versions = n.seen.plan() })
		}
	}
	if len(r.versions) == 0 {
		r.nodes[0].with(func() { r.versions = r.nodes[0].seen.plan() })
	}
	r.report.Versions = r.versions
}

// checkState notices a snapshot that is not where the nodes look for it.
func (r *rehearsal) checkState() error {
	for _, n := range r.nodes {
		began := len(r.versions)
		n.with(func() {
			for version := range n.seen.heights {
				began = min(began, version)
			}
		})
		if began < r.settings.first {
			return fmt.Errorf("%w: %s started with version %d, but the snapshot is of version %d: is --data %s the folder of state and checkpoint?",
				errUnavailable, n.service, began, r.settings.first, r.data)
		}
	}
	return nil
}

// checkPlan finds what would make a rehearsal worthless, or could not be seen from outside: a version that runs another
// version's binary agrees with every node that makes the same mistake.
func (r *rehearsal) checkPlan(ctx context.Context, s *stepReport) error {
	if len(r.versions) < 2 {
		return fmt.Errorf("%w: the plan has only one version, so there is no upgrade to rehearse", errUnavailable)
	}
	if r.settings.first >= len(r.versions)-1 {
		return fmt.Errorf("%w: the snapshot is of version %d and the plan ends with version %d, so there is no upgrade to rehearse",
			errUnavailable, r.settings.first, len(r.versions)-1)
	}
	if last := r.versions[len(r.versions)-1]; last.StopHeight != nil {
		return fmt.Errorf("%w: the last version, %d (%s), has a stop height, after which no node runs that could be compared: rehearse a plan without it",
			errUnavailable, last.Version, last.Name)
	}
	for _, n := range r.nodes {
		var versions []versionReport
		n.with(func() { versions = n.seen.plan() })
		if n != r.nodes[0] && r.settings.nodePlans[n.service] == "" && r.settings.nodePlans[r.nodes[0].service] == "" {
			continue
		}
		digests := map[string]versionReport{}
		for _, v := range versions {
			digest, err := r.digest(ctx, n.id(), v.Binary)
			if err != nil {
				return err
			}
			if other, twice := digests[digest]; twice {
				s.Failures = append(s.Failures, failureReport{Node: n.service, Version: &v.Version, Sentence: fmt.Sprintf(
					"%s, version %d: %s runs the binary of version %d: %s", n.service, v.Version, v.Name, other.Version, v.Binary)})
			}
			digests[digest] = v
		}
	}
	return nil
}

// target is the height up to which a live chain is watched.
func (r *rehearsal) target() uint64 {
	return r.versions[len(r.versions)-1].StartHeight + r.settings.moreBlocks
}

// live lets all nodes upgrade under load.
func (r *rehearsal) live(ctx context.Context, s *stepReport) error {
	defer r.record(s)
	stopLoad := r.startLoad(ctx, s)
	err := r.awaitHeight(ctx, r.nodes, r.target())
	stopLoad()
	if err != nil {
		r.compareWhatThereIs(ctx, s, r.nodes)
		return err
	}
	r.noteWhoWasBehind(s)
	table, last, err := r.compare(ctx, s, r.nodes, nil)
	r.agreed, r.common = table, last
	return err
}

// noteWhoWasBehind notes the nodes that met their first stop height while they were still catching up with the chain,
// as on an overloaded machine: that was a resync, not a live upgrade.
func (r *rehearsal) noteWhoWasBehind(s *stepReport) {
	for _, n := range r.nodes {
		n.with(func() {
			first, reported := n.seen.heights[r.settings.first]
			if stop := r.versions[r.settings.first].StopHeight; stop != nil && (reported && first.first >= *stop || !reported && len(n.seen.heights) > 0) {
				s.Notes = append(s.Notes, fmt.Sprintf("%s reached height %d before it had caught up with the chain: its first upgrade was not live", n.service, *stop))
			}
		})
	}
}

func (r *rehearsal) startLoad(ctx context.Context, s *stepReport) (stop func()) {
	l := &load{network: r.network, command: r.settings.load}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	return func() {
		cancel()
		running.Wait()
		note := fmt.Sprintf("load: paused %d times before a stop height", l.pauses.Load())
		if l.command == "" {
			note = fmt.Sprintf("load: %d transactions, paused %d times before a stop height", l.sent.Load(), l.pauses.Load())
		}
		s.Notes = append(s.Notes, note)
		if why := l.broken.Load(); why != nil {
			s.Failures = append(s.Failures, failureReport{Sentence: *why})
		}
	}
}

// awaitHeight waits until nodes have reached height in the last version.
func (r *rehearsal) awaitHeight(ctx context.Context, nodes []*node, height uint64) error {
	last := len(r.versions) - 1
	return r.await(ctx, fmt.Sprintf("height %d in version %d", height, last), nodes, func(n *node) (there bool) {
		n.with(func() {
			there = n.status.VersionIndex == last && n.status.Height != nil && n.status.Height.Blocks >= height
		})
		return there
	})
}

// resync lets all nodes start over on the same chain.
func (r *rehearsal) resync(ctx context.Context, s *stepReport) error {
	defer r.record(s)
	if err := r.wipe(ctx, append(r.services(r.nodes), r.settings.wipeToo...)); err != nil {
		return err
	}
	if err := r.create(ctx, r.nodes, r.settings.wipeToo, r.fillNew(ctx)); err != nil {
		return err
	}
	if err := r.startOthers(ctx, r.settings.wipeToo); err != nil {
		return err
	}
	if err := r.startNew(ctx, r.nodes...); err != nil {
		return err
	}
	if err := r.catchUp(ctx, r.nodes, r.common); err != nil {
		r.compareWhatThereIs(ctx, s, r.nodes)
		return err
	}
	_, _, err := r.compare(ctx, s, r.nodes, r.agreed)
	return err
}

// catchUp waits until nodes are synced in the last version, and for some more blocks.
func (r *rehearsal) catchUp(ctx context.Context, nodes []*node, height uint64) error {
	last := len(r.versions) - 1
	if err := r.await(ctx, fmt.Sprintf("height %d in version %d, synced", height, last), nodes, func(n *node) (there bool) {
		n.with(func() {
			there = n.status.VersionIndex == last && n.status.Ready && n.status.Height != nil && n.status.Height.Blocks >= height
		})
		return there
	}); err != nil {
		return err
	}
	for _, n := range nodes {
		height = max(height, n.height())
	}
	return r.awaitHeight(ctx, nodes, height+r.settings.moreBlocks)
}

// record writes what was seen of all nodes into a step.
func (r *rehearsal) record(s *stepReport) {
	s.Nodes = []nodeReport{}
	for _, n := range r.nodes {
		r.recordNode(s, n)
	}
}

// recordNode also finds what no log line and no wait has shown: a run that ended silently.
func (r *rehearsal) recordNode(s *stepReport, n *node) {
	known := true
	n.with(func() {
		s.Nodes = append(s.Nodes, n.seen.report())
		known = n.seen.trouble() != nil
	})
	for _, restart := range s.Nodes[len(s.Nodes)-1].Restarts {
		if !restart.Expected && !known {
			known = true
			s.Failures = append(s.Failures, failureReport{
				Node: n.service, Sentence: fmt.Sprintf("%s restarted unexpectedly: %s", n.service, restart.Cause),
			})
		}
	}
}

// compare reads the roots of nodes at the same slots, up to the last height that all have reached, and finds the first
// difference, also from an earlier step on the same chain.
func (r *rehearsal) compare(ctx context.Context, s *stepReport, nodes []*node, before rootTable) (rootTable, uint64, error) {
	table, heights, err := r.gather(ctx, nodes, before.slots())
	if err != nil {
		return nil, 0, err
	}
	for slot, roots := range before {
		if table[slot] != nil {
			for _, root := range roots {
				table.put(slot, stepLive, root)
				break
			}
		}
	}
	r.judge(ctx, s, nodes, table, heights, nil)
	return table, lowest(nodes), nil
}

// gather reads the roots of nodes up to the last height that all have reached, including the slots of an earlier step.
// The roots of the last height, around each stop height, and of the end of that step are needed to say that all agree.
func (r *rehearsal) gather(ctx context.Context, nodes []*node, before []uint64) (rootTable, *heightMap, error) {
	last := lowest(nodes)
	heights := r.knownSlots(nodes)
	lastSlot := heights.slotOf(last)
	if err := r.await(ctx, fmt.Sprintf("state root of height %d", last), nodes, func(n *node) bool {
		return n.root(ctx, lastSlot) != ""
	}); err != nil {
		return nil, nil, err
	}
	before = slices.DeleteFunc(before, func(slot uint64) bool { return slot > lastSlot })
	slots := append(samples(r.versions, heights, lastSlot), before...)
	slices.Sort(slots)
	table := r.readRoots(ctx, nodes, slices.Compact(slots))
	needed := neededSlots(r.versions[r.settings.first:], heights, lastSlot)
	if len(before) > 0 {
		needed = append(needed, slices.Max(before))
	}
	if missing := r.askAgain(ctx, nodes, table, needed, heights); len(missing) > 0 {
		return nil, nil, missing
	}
	return table, heights, nil
}

// askAgain asks nodes for the roots that they have not reported, for as long as --stall, and fails with those still
// missing.
func (r *rehearsal) askAgain(ctx context.Context, nodes []*node, table rootTable, slots []uint64, heights *heightMap) failures {
	for end := time.Now().Add(r.stall); ; {
		var missing failures
		for _, n := range nodes {
			for _, slot := range slots {
				if table[slot][n.service] != "" {
					continue
				}
				table.put(slot, n.service, n.root(ctx, slot))
				if table[slot][n.service] == "" {
					missing = append(missing, failf(n.service, "%s does not report its state root at height %d (/ledger/slots/%d), so it was not compared",
						n.service, heights.heightOf(slot), slot)...)
				}
			}
		}
		if len(missing) == 0 || time.Now().After(end) {
			return missing
		}
		if err := pause(ctx, pollEvery); err != nil {
			return failf("", "%s, while reading the state roots", reasonOf(err))
		}
	}
}

// judge writes the roots into a step, which fails if they differ; with about, only if one of those nodes differs.
func (r *rehearsal) judge(ctx context.Context, s *stepReport, nodes []*node, table rootTable, heights *heightMap, about []*node) {
	names := r.services(about)
	if d := table.firstDifference(heights, r.versions, names); d != nil {
		r.narrow(ctx, nodes, table, d.Slot, names)
		d = table.firstDifference(heights, r.versions, names)
		s.Divergence = d
		s.Failures = append(s.Failures, failureReport{
			Node: d.Nodes[0], Version: &d.Version, Height: &d.Height, Sentence: d.sentence(r.versions),
		})
	}
	s.Roots = table.rows(r.versions, heights)
	for _, n := range nodes {
		if reported, all := table.reported(n.service), len(table); reported < all {
			s.Notes = append(s.Notes, fmt.Sprintf("%s reported its state root at %d of %d slots", n.service, reported, all))
		}
	}
}

// narrow finds the first slot that differs between the sampled slot and the one sampled before it.
func (r *rehearsal) narrow(ctx context.Context, nodes []*node, table rootTable, differs uint64, about []string) {
	slots := table.slots()
	i, _ := slices.BinarySearch(slots, differs)
	same := uint64(0)
	if i > 0 {
		same = slots[i-1]
	}
	for differs-same > 1 {
		middle := same + (differs-same)/2
		for slot, roots := range r.readRoots(ctx, nodes, []uint64{middle}) {
			table[slot] = roots
		}
		if concerned(odd(table[middle]), about) {
			differs = middle
		} else {
			same = middle
		}
	}
}

// compareWhatThereIs looks for a divergence after a failure, as it may be the cause. It leaves out nodes that do not
// answer.
func (r *rehearsal) compareWhatThereIs(ctx context.Context, s *stepReport, nodes []*node) {
	var answering []*node
	for _, n := range nodes {
		if n.height() > 0 && n.root(ctx, 1) != "" {
			answering = append(answering, n)
		}
	}
	if len(answering) < 2 {
		return
	}
	heights := r.knownSlots(answering)
	table := r.readRoots(ctx, answering, samples(r.versions, heights, heights.slotOf(lowest(answering))))
	r.judge(ctx, s, answering, table, heights, nil)
}

func (r *rehearsal) readRoots(ctx context.Context, nodes []*node, slots []uint64) rootTable {
	table := rootTable{}
	var mu sync.Mutex
	var readers sync.WaitGroup
	for _, n := range nodes {
		readers.Go(func() {
			for _, slot := range slots {
				root := n.root(ctx, slot)
				mu.Lock()
				table.put(slot, n.service, root)
				mu.Unlock()
			}
		})
	}
	readers.Wait()
	return table
}

func (r *rehearsal) knownSlots(nodes []*node) *heightMap {
	all := newHeightMap()
	for _, n := range nodes {
		n.with(func() {
			for height, slot := range n.heights.pairs {
				all.learn(height, slot)
			}
		})
	}
	return all
}

func lowest(nodes []*node) uint64 {
	low := nodes[0].height()
	for _, n := range nodes {
		low = min(low, n.height())
	}
	return low
}
