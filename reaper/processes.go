package reaper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is what proc_pid_stat(5) tells of a process.
type process struct {
	pid, ppid, pgrp, session, threads int
	state                             byte
	start                             uint64 // in clock ticks since boot; with pid it names a process for good
}

// alive is false for a zombie. If only its first thread has ended, the process is not one, though it looks like it.
func (p process) alive() bool {
	return p.threads > 1 || !strings.ContainsRune("ZXx", rune(p.state))
}

// errNoProc says that the process table cannot be read.
var errNoProc = errors.New("/proc is not mounted, or belongs to another process namespace")

// readProcesses returns all processes in the namespace that root, a mount of proc(5), shows.
func readProcesses(root string) (map[int]process, error) {
	// In a new namespace the old /proc may still be mounted; its numbers would be those of strangers.
	if self, err := os.Readlink(filepath.Join(root, "self")); err != nil || self != strconv.Itoa(os.Getpid()) {
		return nil, errNoProc
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	table := make(map[int]process, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, err := readProcess(root, pid); err == nil { // else it has gone meanwhile
			table[pid] = p
		}
	}
	return table, nil
}

// readProcess returns one process.
func readProcess(root string, pid int) (process, error) {
	data, err := os.ReadFile(filepath.Join(root, strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, err
	}
	return parseStat(pid, string(data))
}

// parseStat parses "pid (comm) state ppid …". The name may hold anything, even parentheses and line ends, so the
// fields are counted from the last parenthesis.
func parseStat(pid int, line string) (process, error) {
	end := strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[end+1:])
	if end < 0 || len(fields) < 20 {
		return process{}, fmt.Errorf("cannot understand the state of process %d: %q", pid, line)
	}
	p := process{pid: pid, state: fields[0][0]}
	var errs [5]error
	p.ppid, errs[0] = strconv.Atoi(fields[1])
	p.pgrp, errs[1] = strconv.Atoi(fields[2])
	p.session, errs[2] = strconv.Atoi(fields[3])
	p.threads, errs[3] = strconv.Atoi(fields[17])
	p.start, errs[4] = strconv.ParseUint(fields[19], 10, 64)
	return p, errors.Join(errs[:]...)
}

// leftovers returns the living processes below self that belong to none of the running children, by number: everything
// below self, but for the running children with all below them and in their groups, and but for foreign processes. A
// table is read while processes come and go, so parents in it may form a circle: a number that a parent had is in use
// again below its child.
func leftovers(table map[int]process, self int, running map[int]bool) []process {
	below := map[int][]process{}
	for _, p := range table {
		below[p.ppid] = append(below[p.ppid], p)
	}
	var left []process
	var walk func(parent int)
	walk = func(parent int) {
		children := below[parent]
		delete(below, parent) // once is enough, and in a circle all there is
		for _, p := range children {
			if p.pid == self || running[p.pid] || running[p.pgrp] || isForeign(table, self, p) {
				continue
			}
			if p.alive() {
				left = append(left, p)
			}
			walk(p.pid)
		}
	}
	walk(self)
	return left
}

// isForeign proves that p was not started by us or ours. That can only be of process 1, to which also the orphans of a
// session that entered the container from outside, such as `docker exec`, are reparented: their session leader still
// lives and has its parent outside, or is itself outside. Sessions are inherited, and ours cannot join such a one.
func isForeign(table map[int]process, self int, p process) bool {
	if self != 1 || p.session == table[self].session {
		return false
	}
	if p.session == 0 { // the leader is outside of our process namespace (getsid(2) there returns 0)
		return true
	}
	leader, ok := table[p.session]
	if !ok || !leader.alive() {
		return false
	}
	for range len(table) {
		if leader.pid == self || leader.ppid == 0 {
			return leader.pid != self
		}
		if leader, ok = table[leader.ppid]; !ok {
			return false // it was reparented while we looked
		}
	}
	return false // the table has a circle
}
