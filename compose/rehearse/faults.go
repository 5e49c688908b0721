package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// snapshotFrom is the lowest height at which a snapshot is taken, in blocks, so that there is something in it.
const snapshotFrom = 3

// faultGroup is what happens on one chain. Each fault goes to a different node, so that a broken node hides no other
// fault. A nil node skips the fault.
type faultGroup struct{ stop, kill, late *node }

// groupFaults spreads the faults over as many chains as the number of nodes requires.
func groupFaults(nodes []*node) []faultGroup {
	switch last := len(nodes) - 1; last {
	case 1:
		return []faultGroup{{stop: nodes[0], kill: nodes[1]}, {late: nodes[1]}}
	default:
		return []faultGroup{{stop: nodes[0], kill: nodes[1], late: nodes[last]}}
	}
}

// fault is a running scenario.
type fault struct {
	step *stepReport
	node *node
	do   func(ctx context.Context, f *fault) error
	err  error
}

// note may be called only by the goroutine of the fault.
func (f *fault) note(format string, values ...any) {
	f.step.Notes = append(f.step.Notes, fmt.Sprintf(format, values...))
}

func (r *rehearsal) faults(ctx context.Context) error {
	for _, group := range groupFaults(r.nodes) {
		if err := r.faultsOf(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// faultsOf runs the faults of a group at the same time, on a new chain.
func (r *rehearsal) faultsOf(ctx context.Context, group faultGroup) error {
	begun := time.Now()
	var saved string
	var faults []*fault
	for _, row := range []struct {
		name string
		node *node
		do   func(context.Context, *fault) error
	}{
		{stepStop, group.stop, r.stopAtStopHeights},
		{stepKill, group.kill, func(ctx context.Context, f *fault) (err error) {
			saved, err = r.saveSnapshot(ctx, f.node, r.step(stepSnapshot))
			if err != nil {
				return err
			}
			return r.killAtUpgrades(ctx, f)
		}},
		{stepLate, group.late, r.joinLate},
	} {
		if row.node != nil {
			r.say("%s, of %s …", row.name, row.node.service)
			faults = append(faults, &fault{step: r.step(row.name), node: row.node, do: row.do})
		}
	}
	if err := r.newChain(ctx, group.late); err != nil {
		for _, f := range faults {
			f.err = err
		}
	} else {
		r.inflict(ctx, faults)
	}
	return r.concludeFaults(ctx, group, faults, saved, begun)
}

// newChain wipes everything, including the chain if it is a service of the Compose file, and starts all nodes but late.
func (r *rehearsal) newChain(ctx context.Context, late *node) error {
	wiped := append(slices.Clone(r.settings.newChain), r.settings.wipeToo...)
	if len(r.settings.newChain) > 0 {
		r.chain++
	}
	if err := r.wipe(ctx, append(r.services(r.nodes), wiped...)); err != nil {
		return err
	}
	for _, n := range r.nodes {
		n.with(func() { n.heights = newHeightMap() })
	}
	if err := r.create(ctx, r.nodes, wiped, r.fillNew(ctx)); err != nil {
		return err
	}
	if err := r.startOthers(ctx, wiped); err != nil {
		return err
	}
	return r.startNew(ctx, slices.DeleteFunc(slices.Clone(r.nodes), func(n *node) bool { return n == late })...)
}

// inflict runs the faults and then waits until each node is where it would be without faults.
func (r *rehearsal) inflict(ctx context.Context, faults []*fault) {
	stopLoad := r.startLoad(ctx, faults[0].step)
	var running sync.WaitGroup
	for _, f := range faults {
		running.Go(func() {
			if f.err = f.do(ctx, f); f.err == nil {
				f.err = r.catchUp(ctx, []*node{f.node}, r.target())
			}
		})
	}
	running.Wait()
	stopLoad()
}

func (r *rehearsal) concludeFaults(ctx context.Context, group faultGroup, faults []*fault, saved string, begun time.Time) error {
	healthy := slices.DeleteFunc(slices.Clone(r.nodes), func(n *node) bool {
		return r.trouble(n) != nil || slices.ContainsFunc(faults, func(f *fault) bool { return f.node == n && f.err != nil })
	})
	var table rootTable
	var heights *heightMap
	var err error
	if len(healthy) > 0 && ctx.Err() == nil {
		table, heights, err = r.gather(ctx, healthy, nil)
	}
	for i, f := range faults {
		about := []*node{f.node}
		if i == 0 { // and the nodes to which nothing was done
			about = append(about, slices.DeleteFunc(slices.Clone(r.nodes), func(n *node) bool {
				return slices.ContainsFunc(faults, func(f *fault) bool { return f.node == n })
			})...)
		}
		f.step.Seconds, f.step.Chain = time.Since(begun).Seconds(), r.chain
		r.recordNode(f.step, f.node)
		if f.err == nil && err == nil {
			r.judge(ctx, f.step, healthy, table, heights, about)
		}
		if err := r.settle(ctx, f.step, errors.Join(f.err, err), about); err != nil {
			return err
		}
	}
	if group.kill == nil || saved == "" || ctx.Err() != nil {
		return nil
	}
	nodes := []*node{group.kill}
	for _, n := range healthy {
		if n != group.kill {
			nodes = append(nodes, n)
		}
	}
	return r.carryOut(ctx, r.step(stepSnapshot), func(ctx context.Context, s *stepReport) error {
		return r.restore(ctx, s, nodes, saved)
	}, nodes)
}

// stopAtStopHeights stops a node as an orchestrator does, when it has reported its stop height but may not have
// committed it.
func (r *rehearsal) stopAtStopHeights(ctx context.Context, f *fault) error {
	hits := 0
	for _, v := range r.versions[r.settings.first:] {
		if v.StopHeight == nil {
			continue
		}
		var at string
		past := false
		if err := r.await(ctx, fmt.Sprintf("stop height %d", *v.StopHeight), []*node{f.node}, func(n *node) bool {
			n.with(func() {
				switch {
				case n.seen.saw("version completed", v.Version):
					at = "just after it was confirmed"
				case n.status.VersionIndex == v.Version && n.status.Height != nil && n.status.Height.Blocks >= *v.StopHeight:
					at = "as soon as it was reported"
				case n.status.VersionIndex > v.Version:
					at, past = "when it was already past it", true
				}
			})
			return at != ""
		}); err != nil {
			return err
		}
		if !past {
			hits++
		}
		code, err := r.stop(ctx, f.node)
		if err != nil {
			return err
		}
		f.note("%s got SIGTERM at stop height %d, %s, and exited %d", f.node.service, *v.StopHeight, at, code)
		if code != 0 {
			return failf(f.node.service, "%s, version %d: after SIGTERM at stop height %d, its container exited %d, not 0",
				f.node.service, v.Version, *v.StopHeight, code)
		}
		if err := r.start(ctx, f.node); err != nil {
			return err
		}
	}
	if hits == 0 {
		return failf(f.node.service, "%s had passed each stop height before it could be stopped there: use higher stop heights", f.node.service)
	}
	return nil
}

// killAtUpgrades kills a node as soon as a migration has begun or, if there is none, as soon as the version before is
// complete.
func (r *rehearsal) killAtUpgrades(ctx context.Context, f *fault) error {
	kills := 0
	for version := r.settings.first + 1; version < len(r.versions); version++ {
		trigger, of := "version completed", version-1
		f.node.with(func() {
			if f.node.status.migrates(version) {
				trigger, of = "migration started", version
			}
		})
		var already bool
		f.node.with(func() { already = f.node.seen.saw("version started", version) })
		if already {
			f.note("%s was already at version %d", f.node.service, version)
			continue
		}
		if err := r.await(ctx, fmt.Sprintf("%q of version %d", trigger, of), []*node{f.node}, func(n *node) bool {
			return n.saw(trigger, of) || n.upgrading(version)
		}); err != nil {
			return err
		}
		if err := r.kill(ctx, f.node); err != nil {
			return err
		}
		kills++
		if err := r.await(ctx, fmt.Sprintf("start of version %d", version), []*node{f.node}, func(n *node) (reached bool) {
			n.with(func() { reached = n.seen.reached(version) })
			return reached
		}); err != nil {
			return err
		}
		f.note("%s was killed at %q of version %d%s", f.node.service, trigger, of, r.afterKill(f.node, version))
	}
	if kills == 0 {
		return failf(f.node.service, "%s had passed each upgrade before it could be killed there: use higher stop heights", f.node.service)
	}
	return nil
}

func (r *rehearsal) afterKill(n *node, version int) (text string) {
	n.with(func() {
		switch {
		case n.seen.saw("interrupted migration is run again", version):
			text = ", and the migration ran again"
		case n.seen.saw("migration finished", version):
			text = ", and the migration had already completed"
		}
	})
	return text
}

// joinLate starts a node on a new volume once all others are past the first upgrade.
func (r *rehearsal) joinLate(ctx context.Context, f *fault) error {
	others := 0
	if err := r.await(ctx, "first upgrade of the other nodes", []*node{f.node}, func(late *node) bool {
		past := true
		others = 0
		var newest time.Time
		for _, n := range r.nodes {
			if n == late || r.trouble(n) != nil {
				continue
			}
			others++
			n.with(func() {
				past = past && n.seen.reached(r.settings.first+1)
				if n.progress.After(newest) {
					newest = n.progress
				}
			})
		}
		// It waits for the others, so it stalls only when they do.
		late.with(func() { late.progress = newest })
		return past
	}); err != nil {
		return err
	}
	if others == 0 {
		return failf(f.node.service, "%s had no node to join: all others have failed", f.node.service)
	}
	if err := r.startNew(ctx, f.node); err != nil {
		return err
	}
	f.note("%s joined after the others' first upgrade", f.node.service)
	return nil
}

// saveSnapshot stops a node before an upgrade (the first one if the machine is fast enough), copies its volume and
// starts it again. Without a snapshot, the name is empty and the step says why.
func (r *rehearsal) saveSnapshot(ctx context.Context, n *node, s *stepReport) (string, error) {
	if err := r.await(ctx, "height for a snapshot", []*node{n}, func(n *node) bool { return n.height() >= snapshotFrom }); err != nil {
		return "", err
	}
	code, err := r.stop(ctx, n)
	if err != nil {
		return "", err
	}
	if code != 0 {
		return "", failf(n.service, "%s: after SIGTERM, for a snapshot, its container exited %d, not 0", n.service, code)
	}
	height, first := n.height(), 0
	n.with(func() { first = n.version })
	file := filepath.Join(r.dir, "snapshot.tar")
	if last := len(r.versions) - 1; n.saw("version completed", last-1) {
		s.Notes = append(s.Notes, fmt.Sprintf("no snapshot was taken: %s was already past its last upgrade, at height %d", n.service, height))
		file = ""
	} else if err := r.save(ctx, n.id(), r.data, file); err != nil {
		return "", err
	} else {
		s.Notes = append(s.Notes, fmt.Sprintf("a snapshot of %s was taken at height %d of version %d", n.service, height, first))
	}
	return file, r.start(ctx, n)
}

// restore replaces the volume of the first node with its snapshot, and compares it with the others, which were never
// restored.
func (r *rehearsal) restore(ctx context.Context, s *stepReport, nodes []*node, file string) error {
	n := nodes[0]
	if err := r.wipe(ctx, []string{n.service}); err != nil {
		return err
	}
	if err := r.create(ctx, []*node{n}, nil, func(n *node) error { return r.load(ctx, n.id(), r.data, file) }); err != nil {
		return err
	}
	// Here it keeps no node from an upgrade, however long it takes, and what follows shows that the state is what it was.
	if err := r.carryOut(ctx, r.step(stepDryRun), func(ctx context.Context, s *stepReport) error { return r.tryMigration(ctx, s, n) }, nil); err != nil {
		return err
	}
	if err := r.startNew(ctx, n); err != nil {
		return err
	}
	defer r.recordNode(s, n)
	if err := r.catchUp(ctx, []*node{n}, r.target()); err != nil {
		return err
	}
	table, heights, err := r.gather(ctx, nodes, nil)
	if err != nil {
		return err
	}
	r.judge(ctx, s, nodes, table, heights, nil)
	return nil
}
