package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func threeVersions() []versionReport {
	first, second := uint64(40), uint64(80)
	return []versionReport{
		{Version: 0, Name: "v0", Binary: "/v0/rollup", StopHeight: &first},
		{Version: 1, Name: "v1", Binary: "/v1/rollup", StartHeight: 41, StopHeight: &second},
		{Version: 2, Name: "v2", Binary: "/v2/rollup", StartHeight: 81},
	}
}

func TestOddOnesAreThoseThatDifferFromMost(t *testing.T) {
	for _, row := range []struct {
		name  string
		roots map[string]string
		want  []string
	}{
		{"equal", map[string]string{"a": "1", "b": "1"}, nil},
		{"alone", map[string]string{"a": "1"}, nil},
		{"one of three", map[string]string{"a": "1", "b": "2", "c": "1"}, []string{"b"}},
		{"one of two", map[string]string{"a": "1", "b": "2"}, []string{"a", "b"}},
		{"each another", map[string]string{"c": "1", "b": "2", "a": "3"}, []string{"a", "b", "c"}},
		{"two of five", map[string]string{"a": "1", "b": "2", "c": "1", "d": "3", "e": "1"}, []string{"b", "d"}},
	} {
		require.Equal(t, row.want, odd(row.roots), row.name)
	}
}

func TestFirstDifferenceNamesHeightVersionAndNode(t *testing.T) {
	table := rootTable{}
	for slot := uint64(1); slot <= 50; slot++ {
		table.put(slot, "sequencer", "right")
		table.put(slot, "replica-0", "right")
		if slot < 42 {
			table.put(slot, "replica-1", "right")
		} else {
			table.put(slot, "replica-1", "wrong")
		}
	}
	d := table.firstDifference(newHeightMap(), threeVersions(), nil)
	require.Equal(t, uint64(42), d.Height)
	require.Equal(t, 1, d.Version)
	require.Equal(t, "state roots diverge from height 42, in version 1 (v1): replica-1 differs from the others", d.sentence(threeVersions()))
	table.put(41, "replica-0", "")
	require.Equal(t, uint64(42), table.firstDifference(newHeightMap(), threeVersions(), nil).Height, "what is unknown differs from nothing")
	delete(table[42], "replica-0")
	require.Equal(t, "state roots diverge from height 42, in version 1 (v1): replica-1, sequencer differ from each other",
		table.firstDifference(newHeightMap(), threeVersions(), nil).sentence(threeVersions()))
}

func TestEqualRootsDoNotDiffer(t *testing.T) {
	table := rootTable{}
	table.put(1, "a", "x")
	table.put(1, "b", "x")
	table.put(2, "b", "y")
	require.Nil(t, table.firstDifference(newHeightMap(), threeVersions(), nil))
	require.Equal(t, 1, table.reported("a"))
	require.Equal(t, 2, table.reported("b"))
	rows := table.rows(threeVersions(), newHeightMap())
	require.False(t, rows[len(rows)-1].Equal, "one witness is equal to nobody")
}

func TestFirstDifferenceOfANodeIsThatInWhichItIsOdd(t *testing.T) {
	table := rootTable{}
	for slot := uint64(1); slot <= 9; slot++ {
		for node, from := range map[string]uint64{"a": 99, "b": 99, "c": 99, "d": 3, "e": 7} {
			root := "right"
			if slot >= from {
				root = node
			}
			table.put(slot, node, root)
		}
	}
	difference := func(about ...string) *divergence {
		return table.firstDifference(newHeightMap(), threeVersions(), about)
	}
	require.Equal(t, uint64(3), difference().Slot)
	require.Equal(t, uint64(3), difference("d").Slot)
	require.Equal(t, uint64(7), difference("e").Slot)
	require.Equal(t, uint64(3), difference("e", "d").Slot)
	require.Nil(t, difference("a"))
}

func TestSamplesHaveTheStopHeightsAndTheLast(t *testing.T) {
	few := samples(threeVersions(), newHeightMap(), 90)
	require.Len(t, few, 90, "few slots are all compared")
	many := samples(threeVersions(), newHeightMap(), 1_000_000)
	for _, slot := range []uint64{1, 40, 41, 80, 81, 1_000_000} {
		require.Contains(t, many, slot)
	}
	require.Less(t, len(many), 2*samplesMost)
	require.NotContains(t, samples(threeVersions(), newHeightMap(), 50), uint64(80))
}

func TestNeededSlotsAreTheLastAndThoseAroundTheStopHeights(t *testing.T) {
	require.ElementsMatch(t, []uint64{40, 41, 80, 81, 90}, neededSlots(threeVersions(), newHeightMap(), 90))
	require.ElementsMatch(t, []uint64{80, 81, 90}, neededSlots(threeVersions()[1:], newHeightMap(), 90))
	require.ElementsMatch(t, []uint64{40, 41}, neededSlots(threeVersions(), newHeightMap(), 41))
}

func TestSlotsAreCountedFromWhatWasReported(t *testing.T) {
	heights := newHeightMap()
	require.Equal(t, uint64(7), heights.slotOf(7), "nothing is known")
	require.Equal(t, uint64(7), heights.heightOf(7))
	heights.learn(10, 12) // two empty slots until there
	heights.learn(20, 25)
	require.Equal(t, uint64(12), heights.slotOf(10))
	require.Equal(t, uint64(14), heights.slotOf(12))
	require.Equal(t, uint64(30), heights.slotOf(25))
	require.Equal(t, uint64(5), heights.slotOf(5))
	require.Equal(t, uint64(20), heights.heightOf(25))
	require.Equal(t, uint64(12), heights.heightOf(14))
}

func TestHeightBelongsToAVersionOfThePlan(t *testing.T) {
	for height, want := range map[uint64]int{0: 0, 40: 0, 41: 1, 80: 1, 81: 2, 1000: 2} {
		require.Equal(t, want, versionOf(threeVersions(), height), height)
	}
	require.Equal(t, 0, versionOf(nil, 3))
}

func TestShownRowsAreThoseAroundTheStopHeights(t *testing.T) {
	table := rootTable{}
	for slot := uint64(1); slot <= 90; slot++ {
		table.put(slot, "a", "x")
	}
	var heights []uint64
	for _, row := range table.rows(threeVersions(), newHeightMap()) {
		heights = append(heights, row.Height)
	}
	require.Equal(t, []uint64{40, 41, 80, 81, 90}, heights)
}
