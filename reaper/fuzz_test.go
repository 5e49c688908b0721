package reaper

import (
	"maps"
	"slices"
	"testing"

	"rollup-entrypoint/internal/procfs"
)

// tableOf makes a process table of bytes: five a process, small numbers so that they meet. It is read while processes
// come and go, so it need not be a tree.
func tableOf(data []byte) map[int]procfs.Process {
	table := map[int]procfs.Process{}
	for row := range slices.Chunk(data, 5) {
		if len(row) < 5 {
			break
		}
		pid := int(row[0]%16) + 1
		table[pid] = procfs.Process{
			Pid: pid, Parent: int(row[1] % 17), Group: int(row[2] % 17), Session: int(row[3] % 17),
			Threads: int(row[4] >> 4 % 3), State: "RSDZTX"[row[4]%6],
		}
	}
	return table
}

// What is left over is found without a walk through a tree: by going up from each process.
func FuzzLeftovers(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 17, 1, 1, 2, 2, 17, 2, 2, 2, 2, 17, 3, 1, 4, 4, 17}, uint8(1), uint16(1<<2))
	f.Add([]byte{0, 0, 1, 1, 17, 1, 1, 2, 2, 19, 2, 1, 2, 2, 17}, uint8(1), uint16(0))
	f.Add([]byte{4, 3, 5, 5, 17, 5, 5, 5, 5, 17, 6, 6, 5, 5, 19, 7, 7, 8, 8, 17}, uint8(5), uint16(1<<8))
	f.Fuzz(func(t *testing.T, data []byte, self uint8, children uint16) {
		table, us := tableOf(data), int(self%16)+1
		running := map[int]bool{}
		for pid := range 16 {
			if children&(1<<pid) != 0 {
				running[pid] = true
			}
		}
		var want []int
		for _, pid := range slices.Sorted(maps.Keys(table)) {
			if isLeft(table, us, running, pid) {
				want = append(want, pid)
			}
		}
		var got []int
		for _, p := range leftovers(table, us, running) {
			got = append(got, p.Pid)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("process %d finds %v left over, want %v, with %v running, in %+v", us, got, want, running, table)
		}
	})
}

// isLeft goes up from a living process: to us, over nobody who runs, is in the group of one who does, or is foreign.
func isLeft(table map[int]procfs.Process, self int, running map[int]bool, pid int) bool {
	if !table[pid].Alive() || pid == self {
		return false
	}
	for range len(table) + 1 {
		p, ok := table[pid]
		if pid == self {
			return true
		}
		if !ok || running[p.Pid] || running[p.Group] || isForeign(table, self, p) {
			return false
		}
		pid = p.Parent
	}
	return false // in a circle
}
