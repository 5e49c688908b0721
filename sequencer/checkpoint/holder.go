package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// whoHolds says who has the lock of file, as far as that can be known here. written is what the lock file says; it is
// empty for a directory.
//
// Nothing is known of a holder in another container or, as with NFS, on another host, unless it wrote its host. What a
// process of another user has inherited, only root can see.
func whoHolds(file *os.File, written lockRecord) *LockHeldError {
	held := &LockHeldError{Path: file.Name(), Host: written.Host}
	fate := written.fate()
	if fate == fateAlive {
		held.Pid = written.Pid
		return held
	}
	lock := findLock(file)
	switch {
	case lock.shared: // another process only looks at the lock, for an instant
	case lock.takerLives():
		held.Pid, held.Command, held.Host = lock.taker, lock.command(), ""
	case fate == fateGone || len(lock.having) > 0 || lock.taker > 0:
		held.HolderGone = true
		if fate == fateGone {
			held.Pid = written.Pid
		}
		held.Left = lock.having
		left, _ := written.left("")
		for _, child := range left {
			if !slices.Contains(held.Left, child) {
				held.Left = append(held.Left, child)
			}
		}
	case fate == fateElsewhere:
		held.Pid = written.Pid
	}
	return held
}

// kernelLock is what the kernel shows of a flock(2).
type kernelLock struct {
	lockRow
	// having are the processes that have it: the taker, and those that inherited the descriptor.
	having []Process
}

// findLock finds the lock of file. A process that has the file open without the lock does not count: proc_pid_fdinfo(5)
// shows a lock with the descriptors that share it.
func findLock(file *os.File) kernelLock {
	info, err := file.Stat()
	if err != nil || thisSystem() == (system{}) {
		return kernelLock{}
	}
	var lock kernelLock
	pids, _ := procfs.Pids(procfs.Root)
	for _, pid := range pids {
		row, found := lockOf(pid, info)
		if !found {
			continue
		}
		lock.lockRow = row
		now, _ := procfs.Read(procfs.Root, pid) // without a name if it has just ended
		lock.having = append(lock.having, Process{Pid: pid, Command: now.Command})
	}
	if len(lock.having) == 0 { // those that have it may belong to another user
		lock.lockRow = inLockTable(info)
	}
	return lock
}

func (l kernelLock) command() string {
	p, _ := procfs.Read(procfs.Root, l.taker)
	return cmp.Or(p.Command, "unknown")
}

// takerLives reports whether the process that took the lock still has it. If that cannot be found out, it does.
func (l kernelLock) takerLives() bool {
	if slices.ContainsFunc(l.having, func(p Process) bool { return p.Pid == l.taker }) {
		return true
	}
	if l.taker < 1 || errors.Is(unix.Kill(l.taker, 0), unix.ESRCH) {
		return false
	}
	_, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.taker))
	return err != nil // otherwise the pid belongs to another process now
}

// lockRow is a line of /proc/locks, see proc_locks(5), or of the file of a descriptor in /proc/PID/fdinfo.
type lockRow struct {
	// taker is the process that took the lock; 0 if that one has ended and was in a namespace, or is in another namespace.
	taker int
	// shared: it is LOCK_SH.
	shared bool
	// file is MAJOR:MINOR:INODE, the numbers of the device in hex.
	file string
}

// parseLockRow reads a line; false if it is not about a flock that a process has.
func parseLockRow(line string) (lockRow, bool) {
	fields := strings.Fields(strings.TrimPrefix(line, "lock:"))
	if len(fields) < 6 || fields[1] != "FLOCK" {
		return lockRow{}, false
	}
	pid, err := strconv.Atoi(fields[4])
	return lockRow{taker: pid, shared: fields[3] == "READ", file: fields[5]}, err == nil
}

// lockOf finds the lock of a file among the descriptors of a process.
func lockOf(pid int, file fs.FileInfo) (lockRow, bool) {
	process := filepath.Join(procfs.Root, strconv.Itoa(pid))
	inode := fmt.Sprintf(":%d", file.Sys().(*syscall.Stat_t).Ino)
	descriptors, _ := os.ReadDir(filepath.Join(process, "fdinfo"))
	for _, descriptor := range descriptors {
		text, _ := os.ReadFile(filepath.Join(process, "fdinfo", descriptor.Name()))
		for line := range strings.Lines(string(text)) {
			row, ok := parseLockRow(line)
			// The file itself is looked at only now: it could be on a volume that hangs.
			if !ok || !strings.HasSuffix(row.file, inode) {
				continue
			}
			if it, err := os.Stat(filepath.Join(process, "fd", descriptor.Name())); err == nil && os.SameFile(it, file) {
				return row, true
			}
		}
	}
	return lockRow{}, false
}

// inLockTable finds the lock of a file in /proc/locks. On some file systems, such as btrfs, stat(2) names another
// device.
func inLockTable(file fs.FileInfo) lockRow {
	stat := file.Sys().(*syscall.Stat_t)
	name := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	text, _ := os.ReadFile("/proc/locks")
	for line := range strings.Lines(string(text)) {
		if row, ok := parseLockRow(line); ok && row.file == name {
			return row
		}
	}
	return lockRow{}
}
