package preflight

import (
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/limits"
	"rollup-entrypoint/sequencer"
)

const (
	// FilesDefault is how many files a node may have open unless --nofile says otherwise.
	FilesDefault = 65536
	// filesWanted is how many are enough for a state engine with a few hundred files and as many connections.
	filesWanted = 4096
	// gracePeriod is what a real node may need to stop: flushing and compaction take it two to three minutes.
	gracePeriod = 300 * time.Second
)

// machine finds what is wrong with the volume of the state, with that of the checkpoint at path (empty for none), and
// with what the kernel gives a node.
func (n *Inspection) machine(path string) []sequencer.Finding {
	return slices.Concat(n.volume(path), n.undoPoint(), checkKernel(), n.coreDumps())
}

// warning is a finding that belongs to no single version.
func warning(next, format string, args ...any) sequencer.Finding {
	return sequencer.Finding{Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: fmt.Sprintf(format, args...), Next: next}
}

// checkKernel finds what a node needs of the kernel and does not get.
func checkKernel() []sequencer.Finding {
	var found []sequencer.Finding
	if err := probeIOUring(); err != nil {
		found = append(found, warning("take a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register "+
			"(docker run --security-opt seccomp=FILE), and make sure that the sysctl kernel.io_uring_disabled is 0",
			"io_uring is not permitted here (%s): the state engine of a real node panics without it (exited 101)", err))
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Max < filesWanted {
		found = append(found, warning(fmt.Sprintf("raise the limit to %d or more (docker run --ulimit nofile=%d)", filesWanted, FilesDefault),
			"a process may have only %d files open", limit.Max))
	}
	return found
}

// probeIOUring makes the smallest possible ring, and gives it back.
func probeIOUring() error {
	var params [120]byte // struct io_uring_params, all zero
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno // its words are all that there is to say
	}
	return unix.Close(int(fd)) // it cannot fail
}

// CheckOpenFiles finds that a node can have few files open although the hard limit allows more. files is what it gets.
func CheckOpenFiles(files limits.OpenFiles) []sequencer.Finding {
	if files.Soft == 0 || files.Soft >= filesWanted || files.Hard < filesWanted { // the last one is checkKernel's
		return nil
	}
	return []sequencer.Finding{warning(fmt.Sprintf("raise --nofile: the hard limit is %d", files.Hard), "a node may have only %d files open", files.Soft)}
}

// CheckGrace warns of a time to stop that is too short for a real node: text is the value of the variable name. That of
// the container cannot be seen from inside, since neither Docker nor Kubernetes shows it to a process. The entrypoint's
// own can, if it is in the environment, as in an image. A value that cannot be read is none: run refuses it.
func CheckGrace(name, text string) []sequencer.Finding {
	limit, err := time.ParseDuration(text)
	if err != nil || limit <= 0 || limit >= gracePeriod {
		return nil
	}
	return []sequencer.Finding{warning(fmt.Sprintf("leave it out, or set it to %.0fs or more", gracePeriod.Seconds()),
		"%s is %s: a node that takes longer to stop gets SIGKILL, and may not be able to open its state again "+
			"(7 of 113 real nodes that were killed in operation could not, and 14 of 40 in a resync)", name, limit)}
}

// coreDumps finds that a node that crashes would write its memory to the volume of the state. It has our working
// directory.
func (n *Inspection) coreDumps() []sequencer.Finding {
	pattern, on := limits.CoreDumps()
	storage, err := n.StateDir()
	dir, dirErr := os.Getwd()
	if !on || err != nil || storage == "" || dirErr != nil || !sameDevice(dir, storage) {
		return nil
	}
	return []sequencer.Finding{warning(
		"switch core dumps off (docker run --ulimit core=0), or start the container in a working directory that is not on the volume",
		"a node that crashes writes its memory to %s (core_pattern %q), which is on the volume of the state: a crash loop fills it", dir, pattern)}
}

// sameDevice reports whether two directories are, or would be made, on one file system.
func sameDevice(a, b string) bool {
	_, first, err := nearest(a)
	if err != nil {
		return false
	}
	_, second, err := nearest(b)
	return err == nil && first.Dev == second.Dev
}
