package procfs

import (
	"fmt"
	"regexp"
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
			want := Process{Pid: 42, Command: comm, Parent: ppid, Group: pgrp, Session: session, Threads: threads, State: state, Start: start}
			if p, err := parse(42, line); err != nil || p != want {
				t.Fatalf("%q was read as %+v, %v", line, p, err)
			}
		}
		if p, err := parse(42, foreign); err == nil {
			checkStat(t, p, foreign)
		}
	})
}

// checkStat compares what was read of a line with the fields that stand in it.
func checkStat(t *testing.T, p Process, line string) {
	t.Helper()
	m := statLine.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%+v was read from %q, which is no line of a process", p, line)
	}
	unsigned := func(s string) string { return strings.TrimLeft(strings.TrimPrefix(s, "+"), "0") }
	got := []string{fmt.Sprint(p.Parent), fmt.Sprint(p.Group), fmt.Sprint(p.Session), fmt.Sprint(p.Threads), fmt.Sprint(p.Start)}
	for i, field := range got {
		if unsigned(strings.TrimPrefix(field, "-")) != unsigned(strings.TrimPrefix(m[i+2], "-")) {
			t.Fatalf("field %d of %q was read as %s", i+2, line, field)
		}
	}
	if p.State != m[1][0] {
		t.Fatalf("the state of %q was read as %c", line, p.State)
	}
}
