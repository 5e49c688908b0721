package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// samplesMost is how many slots are compared at most, in addition to those around the stop heights.
const samplesMost = 256

// rootReport is one slot. Its roots are equal if there are at least two and they are the same.
type rootReport struct {
	Height uint64            `json:"height"`
	Slot   uint64            `json:"slot"`
	Equal  bool              `json:"equal"`
	Roots  map[string]string `json:"roots"`
}

// divergence is the first slot at which state roots differ.
type divergence struct {
	Height  uint64            `json:"height"`
	Slot    uint64            `json:"slot"`
	Version int               `json:"version"`
	Nodes   []string          `json:"nodes"`
	Roots   map[string]string `json:"roots"`
}

// rootTable has the state root of each slot by each witness: a node, or an earlier step of the same chain.
type rootTable map[uint64]map[string]string

func (t rootTable) put(slot uint64, witness, root string) {
	if root == "" {
		return
	}
	if t[slot] == nil {
		t[slot] = map[string]string{}
	}
	t[slot][witness] = root
}

// reported counts the slots at which a witness reported its root.
func (t rootTable) reported(witness string) (count int) {
	for _, roots := range t {
		if roots[witness] != "" {
			count++
		}
	}
	return count
}

func (t rootTable) slots() []uint64 { return slices.Sorted(maps.Keys(t)) }

// odd returns the witnesses that differ from the root that most have. If no root has more witnesses than any other,
// nobody is more right than the rest, and odd returns all of them.
func odd(roots map[string]string) []string {
	votes := map[string]int{}
	for _, root := range roots {
		votes[root]++
	}
	if len(votes) < 2 {
		return nil
	}
	var best string
	most, tied := 0, false
	for root, count := range votes {
		switch {
		case count > most:
			best, most, tied = root, count, false
		case count == most:
			tied = true
		}
	}
	var names []string
	for name, root := range roots {
		if tied || root != best {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// concerned reports whether one of about is odd; if about is empty, whether anything is.
func concerned(odd, about []string) bool {
	if len(about) == 0 {
		return len(odd) > 0
	}
	return slices.ContainsFunc(odd, func(name string) bool { return slices.Contains(about, name) })
}

// firstDifference returns the first slot at which the witnesses disagree and about is concerned, or nil.
func (t rootTable) firstDifference(heights *heightMap, versions []versionReport, about []string) *divergence {
	for _, slot := range t.slots() {
		names := odd(t[slot])
		if !concerned(names, about) {
			continue
		}
		height := heights.heightOf(slot)
		return &divergence{
			Height: height, Slot: slot, Version: versionOf(versions, height), Nodes: names, Roots: maps.Clone(t[slot]),
		}
	}
	return nil
}

// sentence says where the roots diverge, and on which nodes.
func (d *divergence) sentence(versions []versionReport) string {
	name := ""
	if d.Version < len(versions) {
		name = fmt.Sprintf(" (%s)", versions[d.Version].Name)
	}
	who := strings.Join(d.Nodes, ", ") + " differs from the others"
	if len(d.Nodes) == len(d.Roots) {
		who = strings.Join(d.Nodes, ", ") + " differ from each other"
	} else if len(d.Nodes) > 1 {
		who = strings.Join(d.Nodes, ", ") + " differ from the others"
	}
	return fmt.Sprintf("state roots diverge from height %d, in version %d%s: %s", d.Height, d.Version, name, who)
}

// versionOf gives the version that height belongs to by the plan.
func versionOf(versions []versionReport, height uint64) int {
	for _, v := range versions {
		if v.StopHeight == nil || height <= *v.StopHeight {
			return v.Version
		}
	}
	return max(0, len(versions)-1)
}

// samples gives the slots to compare up to last, in order: each stop height and the one after it, last itself, and
// others evenly spread.
func samples(versions []versionReport, heights *heightMap, last uint64) []uint64 {
	chosen := map[uint64]bool{}
	for _, slot := range neededSlots(versions, heights, last) {
		chosen[slot] = true
	}
	for step, slot := max(1, last/samplesMost), uint64(1); slot <= last; slot += step {
		chosen[slot] = true
	}
	return slices.Sorted(maps.Keys(chosen))
}

// neededSlots gives the slots without which a comparison up to last says nothing: those of each stop height and the one
// after it, and last itself.
func neededSlots(versions []versionReport, heights *heightMap, last uint64) []uint64 {
	needed := []uint64{last}
	for _, v := range versions {
		if v.StopHeight == nil {
			continue
		}
		for _, height := range []uint64{*v.StopHeight, *v.StopHeight + 1} {
			if slot := heights.slotOf(height); slot < last {
				needed = append(needed, slot)
			}
		}
	}
	return needed
}

// rows gives the slots that the report shows: those around the stop heights, and the last.
func (t rootTable) rows(versions []versionReport, heights *heightMap) []rootReport {
	shown := map[uint64]bool{}
	for _, v := range versions {
		if v.StopHeight != nil {
			shown[*v.StopHeight], shown[*v.StopHeight+1] = true, true
		}
	}
	all := t.slots()
	var rows []rootReport
	for i, slot := range all {
		height := heights.heightOf(slot)
		if !shown[height] && i != len(all)-1 {
			continue
		}
		rows = append(rows, rootReport{Height: height, Slot: slot, Equal: len(t[slot]) > 1 && len(odd(t[slot])) == 0, Roots: maps.Clone(t[slot])})
	}
	return rows
}

// heightMap maps rollup heights to slots of the ledger, as the nodes reported them. They differ if a slot was empty.
type heightMap struct{ pairs map[uint64]uint64 }

func newHeightMap() *heightMap { return &heightMap{pairs: map[uint64]uint64{}} }

func (m *heightMap) learn(height, slot uint64) { m.pairs[height] = slot }

// slotOf returns the slot of height. Between two reported heights it counts from the lower one. With none, slots and
// heights are taken to be the same.
func (m *heightMap) slotOf(height uint64) uint64 {
	below, found := uint64(0), false
	for known := range m.pairs {
		if known <= height && (!found || known > below) {
			below, found = known, true
		}
	}
	if !found {
		return height
	}
	return m.pairs[below] + height - below
}

// heightOf is the reverse.
func (m *heightMap) heightOf(slot uint64) uint64 {
	below, found := uint64(0), false
	for height, known := range m.pairs {
		if known <= slot && (!found || height > below) {
			below, found = height, true
		}
	}
	if !found {
		return slot
	}
	return below + slot - m.pairs[below]
}
