package reaper

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/procfs"
)

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
			table, running := map[int]procfs.Process{}, map[int]bool{}
			for _, r := range test.rows {
				table[r.pid] = procfs.Process{Pid: r.pid, Parent: r.ppid, Group: r.pgrp, Session: r.session, Threads: 1, State: r.state}
			}
			for _, pid := range test.running {
				running[pid] = true
			}
			var got []int
			for _, p := range leftovers(table, test.self, running) {
				got = append(got, p.Pid)
			}
			slices.Sort(got)
			require.Equal(t, test.want, got)
		})
	}
}

func TestCircleInTheProcessTableIsNoTrap(t *testing.T) {
	// The table is not read in one instant: 7 was seen below 8, then 8 ended, and its number went to a child of 7.
	circle := map[int]procfs.Process{
		1: {Pid: 1, Session: 1, Group: 1, Threads: 1, State: 'S'},
		5: {Pid: 5, Parent: 1, Session: 7, Group: 5, Threads: 1, State: 'S'},
		7: {Pid: 7, Parent: 8, Session: 7, Group: 7, Threads: 1, State: 'S'},
		8: {Pid: 8, Parent: 7, Session: 7, Group: 7, Threads: 1, State: 'S'},
	}
	require.Equal(t, []procfs.Process{circle[5]}, leftovers(circle, 1, nil), "whether its leader came from outside is not known")
	require.Equal(t, []procfs.Process{circle[8]}, leftovers(circle, 7, nil))
}
