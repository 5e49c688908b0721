// Package procfs reads what proc(5) shows of processes. It refuses a /proc of another process namespace, because its
// numbers belong to other processes. It knows nothing of why somebody looks.
package procfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Root is where proc(5) is mounted.
const Root = "/proc"

// ErrUnusable says that /proc cannot be used to find processes.
var ErrUnusable = errors.New("/proc is not mounted, or belongs to another process namespace")

// Process is what proc_pid_stat(5) shows of a process.
type Process struct {
	Pid, Parent, Group, Session int
	// Command is comm: the process chooses it, so it may hold anything. Arguments may hold secrets and are never read.
	Command string
	State   byte
	Threads int
	// Start is in clock ticks since boot. A number is used again for another process, but not with the same start.
	Start uint64
}

// Alive is false for a zombie. If only its first thread has ended, the process is alive, though it looks like a zombie.
func (p Process) Alive() bool { return p.Threads > 1 || !strings.ContainsRune("ZXx", rune(p.State)) }

// Read returns the process with that number from root, which is Root but in tests.
func Read(root string, pid int) (Process, error) {
	line, err := os.ReadFile(filepath.Join(root, strconv.Itoa(pid), "stat"))
	if err != nil {
		return Process{}, err
	}
	return parse(pid, string(line))
}

// parse reads "pid (comm) state ppid …". The command may hold anything, even parentheses and line ends, so the fields
// are counted from the last parenthesis.
func parse(pid int, line string) (Process, error) {
	begin, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[end+1:])
	if begin < 0 || end < begin || len(fields) < 20 {
		return Process{}, fmt.Errorf("cannot parse the stat file of process %d: %q", pid, line)
	}
	p := Process{Pid: pid, Command: line[begin+1 : end], State: fields[0][0]}
	var errs [5]error
	p.Parent, errs[0] = strconv.Atoi(fields[1])
	p.Group, errs[1] = strconv.Atoi(fields[2])
	p.Session, errs[2] = strconv.Atoi(fields[3])
	p.Threads, errs[3] = strconv.Atoi(fields[17])
	p.Start, errs[4] = strconv.ParseUint(fields[19], 10, 64)
	return p, errors.Join(errs[:]...)
}

// IsOurs reports whether root shows the process namespace that this process is in. In a new namespace the old /proc may
// still be mounted.
func IsOurs(root string) bool {
	self, err := os.Readlink(filepath.Join(root, "self"))
	return err == nil && self == strconv.Itoa(os.Getpid())
}

// Pids returns the number of each process that root shows, in order.
func Pids(root string) ([]int, error) {
	if !IsOurs(root) {
		return nil, ErrUnusable
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
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}
