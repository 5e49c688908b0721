package reaper

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// processID identifies a process for good: the number alone may be used again.
type processID struct {
	pid   int
	start uint64
}

func idOf(p procfs.Process) processID { return processID{p.Pid, p.Start} }

// describe names the process, or the group if the number is negative, for an operator.
func describe(p procfs.Process) string {
	if p.Pid < 0 {
		return "process group " + strconv.Itoa(-p.Pid)
	}
	return fmt.Sprintf("process %d (%q)", p.Pid, p.Command)
}

// clockTick returns the current time as procfs.Process.Start has it: in USER_HZ, which is 100 on each machine that Go
// knows, of a clock that also runs while the machine sleeps. A time namespace shifts both alike. 0: the kernel has no
// such clock.
func clockTick() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return uint64(now.Nano()) / 1e7
}

// readProcesses returns all processes in the namespace that root, a mount of proc(5), shows.
func readProcesses(root string) (map[int]procfs.Process, error) {
	pids, err := procfs.Pids(root)
	if err != nil {
		return nil, err
	}
	table := make(map[int]procfs.Process, len(pids))
	for _, pid := range pids {
		if p, err := procfs.Read(root, pid); err == nil { // else it has ended meanwhile
			table[pid] = p
		}
	}
	return table, nil
}

// leftovers returns the living processes below self, except the running children, given by number, with all that is
// below them and in their groups, and except foreign processes. The table is read while processes come and go, so
// parents in it may form a circle: the number of a parent is in use again below its child.
func leftovers(table map[int]procfs.Process, self int, running map[int]bool) []procfs.Process {
	below := map[int][]procfs.Process{}
	for _, p := range table {
		below[p.Parent] = append(below[p.Parent], p)
	}
	var left []procfs.Process
	var walk func(parent int)
	walk = func(parent int) {
		children := below[parent]
		delete(below, parent) // visited once, also in a circle
		for _, p := range children {
			if p.Pid == self || running[p.Pid] || running[p.Group] || isForeign(table, self, p) {
				continue
			}
			if p.Alive() {
				left = append(left, p)
			}
			walk(p.Pid)
		}
	}
	walk(self)
	return left
}

// isForeign proves that p was not started by us or our children. Only process 1 gets such processes: the orphans of a
// session that entered the container from outside, such as `docker exec`, are reparented to it. Their session leader
// still lives and has its parent outside, or is itself outside. Sessions are inherited, and our processes cannot join
// such a session.
func isForeign(table map[int]procfs.Process, self int, p procfs.Process) bool {
	if self != 1 || p.Session == table[self].Session {
		return false
	}
	if p.Session == 0 { // the leader is outside of our process namespace (getsid(2) there returns 0)
		return true
	}
	leader, ok := table[p.Session]
	if !ok || !leader.Alive() {
		return false
	}
	for range len(table) {
		if leader.Pid == self || leader.Parent == 0 {
			return leader.Pid != self
		}
		if leader, ok = table[leader.Parent]; !ok {
			return false // reparented while the table was read
		}
	}
	return false // the table has a circle
}
