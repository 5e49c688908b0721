package limits

import (
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenFiles are the limits of the files that a process may have open.
type OpenFiles struct {
	// Soft is what a process that we start gets; 0 if that is not known.
	Soft uint64
	// Hard is how far it, or RaiseFiles, can raise that.
	Hard uint64
}

// Raised is what RaiseFiles(n) raises the soft limit to.
func (f OpenFiles) Raised(n uint64) uint64 { return max(f.Soft, min(n, f.Hard)) }

// Files gives what the processes get that we start, unless RaiseFiles was called. It must not be called while something
// else waits for children of this process.
func Files() (OpenFiles, error) {
	var ours unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &ours); err != nil {
		return OpenFiles{}, fmt.Errorf("cannot read the limit of open files: %w", err)
	}
	files := OpenFiles{Soft: ours.Cur, Hard: ours.Max}
	if ours.Cur == ours.Max-1 {
		// The Go runtime has raised ours to one below the hard limit, and gives a child the old one back. It does not
		// say which that was (package syscall, rlimit.go).
		files.Soft = softOfAChild()
	}
	return files, nil
}

// RaiseFiles raises the soft limit of open files for all processes that are started from now on to n, or to the hard
// limit if that is lower. It never lowers it, and 0 leaves it as it is. It gives what they get. As Files, it must not
// be called while something else waits for children of this process.
func RaiseFiles(n uint64) (OpenFiles, error) {
	files, err := Files()
	if err != nil || n == 0 || files.Soft == files.Raised(n) {
		return files, err
	}
	files.Soft = files.Raised(n)
	// After this the Go runtime gives children what we have.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files.Soft, Max: files.Hard}); err != nil {
		return files, fmt.Errorf("cannot raise the limit of open files to %d: %w", files.Soft, err)
	}
	return files, nil
}

// softOfAChild finds out which soft limit the Go runtime gives to a child: it starts one that is stopped before its
// first instruction, looks at its limit, and ends it. 0 if that cannot be done here; ptrace(2) may be denied.
func softOfAChild() uint64 {
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"entrypoint"}, &syscall.ProcAttr{
		Files: []uintptr{}, Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		return 0
	}
	var limit unix.Rlimit
	err = unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit)
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if _, wait := unix.Wait4(pid, nil, 0, nil); wait != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0
	}
	return limit.Cur
}

// FilesOf gives the soft limit of open files that a running process has; 0 if it cannot be read.
func FilesOf(pid int) uint64 {
	var limit unix.Rlimit
	if pid < 1 || unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit) != nil {
		return 0
	}
	return limit.Cur
}
