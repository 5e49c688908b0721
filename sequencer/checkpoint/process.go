package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// Process is one that has a lock, or that works on the state without it.
type Process struct {
	Pid int
	// Command is comm of proc(5). Arguments may hold secrets and are never read.
	Command string
}

// life is one process. A pid alone is not: the kernel gives it to another process later.
type life struct {
	Pid int `json:"pid"`
	// StartTime is in clock ticks since boot, as in proc_pid_stat(5); 0 if it is not known.
	StartTime uint64 `json:"start_time,omitempty"`
}

// lifeOf is the process with that pid; nil if it has ended or /proc does not show it.
func lifeOf(pid int) (*life, error) {
	now, err := procfs.Read(procfs.Root, pid)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot find out when process %d began: %w", pid, err)
	}
	return &life{Pid: pid, StartTime: now.Start}, nil
}

// isAlive reports whether the process still runs. If /proc hides it (hidepid), it does.
func (l life) isAlive() bool {
	if errors.Is(unix.Kill(l.Pid, 0), unix.ESRCH) {
		return false
	}
	now, err := procfs.Read(procfs.Root, l.Pid)
	return err != nil || now.Alive() && (l.StartTime == 0 || now.Start == l.StartTime)
}

// system is where a life means something.
type system struct {
	BootID       string `json:"boot_id,omitempty"`
	PidNamespace string `json:"pid_namespace,omitempty"`
}

// thisSystem is ours; empty if /proc is missing or belongs to another namespace, where our pids are those of others.
func thisSystem() system {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, linkErr := os.Readlink("/proc/self/ns/pid")
	if err != nil || linkErr != nil || !procfs.IsOurs(procfs.Root) {
		return system{}
	}
	return system{BootID: strings.TrimSpace(string(boot)), PidNamespace: namespace}
}

// markerName is the environment variable that names the state on which a process works.
const markerName = "ROLLUP_ENTRYPOINT_STATE"

// Marker is an environment variable for each process that works on the state. It names the storage directory, or the
// lock file if no directory is known. Whatever such a process starts inherits it, so Open finds what a dead entrypoint
// left running even if it has closed the locks, left its process group, and was started with another checkpoint or with
// none.
func (s *Store) Marker() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stat unix.Stat_t
	switch {
	case s.storage != "" && unix.Stat(s.storage, &stat) == nil:
	case s.lock != nil && unix.Fstat(int(s.lock.Fd()), &stat) == nil:
	default:
		return ""
	}
	return fmt.Sprintf("%s=%d:%d", markerName, stat.Dev, stat.Ino)
}

// isMarked reports whether a process was started with that variable. Of one that has ended nothing can be read.
func isMarked(pid int, marker string) bool {
	env, err := os.ReadFile(fmt.Sprintf("%s/%d/environ", procfs.Root, pid))
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+marker+"\x00"))
}

// left is what a dead entrypoint left running without the locks: a wrapper of the node may close the descriptors that
// it does not know. It is the process that wrote's last child and what is in that child's process group, for a wrapper
// may end before the node, and what was started with the marker, if there is one. recorded: one of the former is among
// them.
//
// Nothing shows a process that has closed the locks, left the group and cleared its environment, nor, if it has closed
// the locks, one of another pid namespace, as in another container.
func (r lockRecord) left(marker string) (alive []Process, recorded bool) {
	child := r.child()
	if child == nil && marker == "" || thisSystem() == (system{}) {
		return nil, false
	}
	pids, _ := procfs.Pids(procfs.Root)
	for _, pid := range pids {
		now, err := procfs.Read(procfs.Root, pid)
		if err != nil || pid == os.Getpid() {
			continue
		}
		ofChild := child != nil && now.Alive() && now.Start >= child.StartTime && (pid == child.Pid || now.Group == child.Pid)
		if ofChild || marker != "" && isMarked(pid, marker) {
			alive = append(alive, Process{Pid: pid, Command: now.Command})
			recorded = recorded || ofChild
		}
	}
	return alive, recorded
}

// child is the recorded child; nil if there is none, or its pid means nothing here or belongs to another process now,
// and with it the number of the group.
func (r lockRecord) child() *life {
	if r.Child == nil || r.Child.StartTime == 0 || !r.isOfThisSystem() {
		return nil
	}
	if leader, err := procfs.Read(procfs.Root, r.Child.Pid); err == nil && leader.Start != r.Child.StartTime {
		return nil
	}
	return r.Child
}
