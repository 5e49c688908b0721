package reaper

import (
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStatIsParsedWhateverTheName(t *testing.T) {
	const rest = " S 7 8 9 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0"
	for _, comm := range []string{"sleep", "a b", ") R 1 1 1 (", "line\nend", "((", ""} {
		p, err := parseStat(42, "42 ("+comm+")"+rest)
		require.NoError(t, err)
		require.Equal(t, process{pid: 42, ppid: 7, pgrp: 8, session: 9, threads: 3, state: 'S', start: 12345}, p)
	}
	for _, bad := range []string{"", "42", "42 x S 7 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345", "42 (x) S 7", "42 (x) S x 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345"} {
		_, err := parseStat(42, bad)
		require.Error(t, err, bad)
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	require.True(t, process{state: 'S', threads: 1}.alive())
	require.True(t, process{state: 'D', threads: 1}.alive())
	require.True(t, process{state: 'T', threads: 1}.alive())
	require.True(t, process{state: 'Z', threads: 2}.alive(), "only its first thread has ended")
	require.False(t, process{state: 'Z', threads: 1}.alive())
	require.False(t, process{state: 'X', threads: 0}.alive())
}

func TestForeignProcTableIsRefused(t *testing.T) {
	for _, self := range []string{"", "1", "not a number"} {
		root := t.TempDir()
		if self != "" {
			require.NoError(t, os.Symlink(self, root+"/self"))
		}
		_, err := readProcesses(root)
		require.ErrorIs(t, err, errNoProc)
	}
}

func TestLeftovers(t *testing.T) {
	// row describes a process: number, parent, group, session, state.
	type row struct {
		pid, ppid, pgrp, session int
		state                    byte
	}
	for _, test := range []struct {
		about   string
		self    int
		rows    []row
		running []int
		want    []int
	}{
		{"nothing", 1, []row{{1, 0, 1, 1, 'S'}}, nil, nil},
		{"children, and those below them", 1, []row{{1, 0, 1, 1, 'S'}, {5, 1, 5, 1, 'S'}, {6, 5, 6, 6, 'S'}}, nil, []int{5, 6}},
		{"zombies are none, those below them are", 1, []row{{1, 0, 1, 1, 'S'}, {5, 1, 5, 1, 'Z'}, {6, 5, 5, 1, 'S'}}, nil, []int{6}},
		{"a running child, and all below it", 1, []row{{1, 0, 1, 1, 'S'}, {5, 1, 5, 1, 'S'}, {6, 5, 6, 6, 'S'}}, []int{5}, nil},
		{"an orphan in a running child's group", 1, []row{{1, 0, 1, 1, 'S'}, {5, 1, 5, 1, 'S'}, {6, 1, 5, 1, 'S'}}, []int{5}, nil},
		{"what is not below us", 9, []row{{1, 0, 1, 1, 'S'}, {9, 1, 9, 9, 'S'}, {5, 1, 5, 1, 'S'}, {6, 9, 6, 9, 'S'}}, nil, []int{6}},
		{"a foreign orphan, its leader alive", 1, []row{{1, 0, 1, 1, 'S'}, {7, 0, 7, 7, 'S'}, {8, 1, 8, 7, 'S'}, {9, 8, 8, 7, 'S'}}, nil, nil},
		{"a foreign orphan, its leader below a shell that entered", 1, []row{{1, 0, 1, 1, 'S'}, {6, 0, 6, 6, 'S'}, {7, 6, 7, 7, 'S'}, {8, 1, 8, 7, 'S'}}, nil, nil},
		{"its leader dead", 1, []row{{1, 0, 1, 1, 'S'}, {7, 0, 7, 7, 'Z'}, {8, 1, 8, 7, 'S'}}, nil, []int{8}},
		{"its leader gone", 1, []row{{1, 0, 1, 1, 'S'}, {8, 1, 8, 7, 'S'}}, nil, []int{8}},
		{"its leader's parent gone", 1, []row{{1, 0, 1, 1, 'S'}, {7, 6, 7, 7, 'S'}, {8, 1, 8, 7, 'S'}}, nil, []int{8}},
		{"its leader outside", 1, []row{{1, 0, 1, 1, 'S'}, {8, 1, 8, 0, 'S'}}, nil, nil},
		{"our own leader outside, too", 1, []row{{1, 0, 0, 0, 'S'}, {8, 1, 8, 0, 'S'}}, nil, []int{8}},
		{"a session below us", 1, []row{{1, 0, 1, 1, 'S'}, {7, 1, 7, 7, 'S'}, {8, 1, 8, 7, 'S'}}, nil, []int{7, 8}},
		{"to a subreaper nothing is foreign", 2, []row{{1, 0, 1, 1, 'S'}, {2, 1, 2, 1, 'S'}, {7, 0, 7, 7, 'S'}, {8, 2, 8, 7, 'S'}}, nil, []int{8}},
	} {
		t.Run(test.about, func(t *testing.T) {
			table, running := map[int]process{}, map[int]bool{}
			for _, r := range test.rows {
				table[r.pid] = process{pid: r.pid, ppid: r.ppid, pgrp: r.pgrp, session: r.session, threads: 1, state: r.state}
			}
			for _, pid := range test.running {
				running[pid] = true
			}
			var got []int
			for _, p := range leftovers(table, test.self, running) {
				got = append(got, p.pid)
			}
			slices.Sort(got)
			require.Equal(t, test.want, got)
		})
	}
}

func TestCircleInTheProcessTableIsNoTrap(t *testing.T) {
	// The table is not read in one instant: 7 was seen below 8, then 8 ended, and its number went to a child of 7.
	circle := map[int]process{
		1: {pid: 1, session: 1, pgrp: 1, threads: 1, state: 'S'},
		5: {pid: 5, ppid: 1, session: 7, pgrp: 5, threads: 1, state: 'S'},
		7: {pid: 7, ppid: 8, session: 7, pgrp: 7, threads: 1, state: 'S'},
		8: {pid: 8, ppid: 7, session: 7, pgrp: 7, threads: 1, state: 'S'},
	}
	require.Equal(t, []process{circle[5]}, leftovers(circle, 1, nil), "whether its leader came from outside is not known")
	require.Equal(t, []process{circle[8]}, leftovers(circle, 7, nil))
}
