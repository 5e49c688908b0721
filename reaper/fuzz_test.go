package reaper

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// statLine is what proc_pid_stat(5) says of a line, up to the start time; _ stands for a blank and = for a field.
var statLine = regexp.MustCompile(strings.NewReplacer("_", `[\s\v\pZ\x{85}]`, "=", `[^\s\v\pZ\x{85}]+`).Replace(
	`(?s)\A.*\)_*(=)_+(=)_+(=)_+(=)_+(?:=_+){13}(=)_+=_+(=)[^)]*$`))

// A process is known by the fields that the kernel wrote, whatever it calls itself.
func FuzzParseStat(f *testing.F) {
	f.Add("sleep", byte('S'), 7, 8, 9, 3, uint64(12345), "42 (x) S 7")
	f.Add(") R 1 1 1 (", byte('Z'), 0, 0, 0, 1, uint64(0), "")
	f.Add("line\nend", byte('D'), -1, -1, 0, 0, uint64(1<<63), "42 (x) S x 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345")
	f.Add("", byte('X'), 1, 1, 1, 1, uint64(1), "1 (init) S 0 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5 0 0\n")
	f.Fuzz(func(t *testing.T, comm string, state byte, ppid, pgrp, session, threads int, start uint64, foreign string) {
		if strings.IndexByte("RSDZTtXxKWPI", state) >= 0 {
			line := fmt.Sprintf("42 (%s) %c %d %d %d 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 %d 0 %d 0 0\n", comm, state, ppid, pgrp, session, threads, start)
			want := process{pid: 42, ppid: ppid, pgrp: pgrp, session: session, threads: threads, state: state, start: start}
			if p, err := parseStat(42, line); err != nil || p != want {
				t.Fatalf("%q was read as %+v, %v", line, p, err)
			}
		}
		if p, err := parseStat(42, foreign); err == nil {
			checkStat(t, p, foreign)
		}
	})
}

// checkStat compares what was read of a line with the fields that stand in it.
func checkStat(t *testing.T, p process, line string) {
	t.Helper()
	m := statLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%+v was read from %q, which is no line of a process", p, line)
	}
	unsigned := func(s string) string { return strings.TrimLeft(strings.TrimPrefix(s, "+"), "0") }
	got := []string{fmt.Sprint(p.ppid), fmt.Sprint(p.pgrp), fmt.Sprint(p.session), fmt.Sprint(p.threads), fmt.Sprint(p.start)}
	for i, field := range got {
		if unsigned(strings.TrimPrefix(field, "-")) != unsigned(strings.TrimPrefix(m[i+2], "-")) {
			t.Fatalf("field %d of %q was read as %s", i+2, line, field)
		}
	}
	if p.state != m[1][0] {
		t.Fatalf("the state of %q was read as %c", line, p.state)
	}
}

// tableOf makes a process table of bytes: five a process, small numbers so that they meet. It is read while processes
// come and go, so it need not be a tree.
func tableOf(data []byte) map[int]process {
	table := map[int]process{}
	for row := range slices.Chunk(data, 5) {
		if len(row) < 5 {
			break
		}
		pid := int(row[0]%16) + 1
		table[pid] = process{
			pid: pid, ppid: int(row[1] % 17), pgrp: int(row[2] % 17), session: int(row[3] % 17),
			threads: int(row[4] >> 4 % 3), state: "RSDZTX"[row[4]%6],
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
			got = append(got, p.pid)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("process %d finds %v left over, want %v, with %v running, in %+v", us, got, want, running, table)
		}
	})
}

// isLeft goes up from a living process: to us, over nobody who runs, is in the group of one who does, or is foreign.
func isLeft(table map[int]process, self int, running map[int]bool, pid int) bool {
	if !table[pid].alive() || pid == self {
		return false
	}
	for range len(table) + 1 {
		p, ok := table[pid]
		if pid == self {
			return true
		}
		if !ok || running[p.pid] || running[p.pgrp] || isForeign(table, self, p) {
			return false
		}
		pid = p.ppid
	}
	return false // in a circle
}
