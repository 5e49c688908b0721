package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
)

// preflightVersion finds all that would keep version i from running: its files, and what its programs need of the image. It may
// run in a goroutine, and changes nothing.
func preflightVersion(plan *sequencer.Plan, i int) []sequencer.Finding {
	found := preflight.CheckFiles(plan, i)
	place := &images.Place{Path: os.Getenv("PATH"), LibraryPath: os.Getenv("LD_LIBRARY_PATH")}
	for _, pair := range plan.Versions[i].Env {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "PATH":
			place.Path = value
		case "LD_LIBRARY_PATH":
			place.LibraryPath = value
		}
	}
	programs := preflight.Programs(plan, i)
	for _, key := range slices.Sorted(maps.Keys(programs)) {
		for _, p := range place.Check(programs[key]) {
			f := sequencer.Finding{Version: i, Severity: sequencer.SeverityWarning, What: key + ": " + p.What, Next: p.Next}
			if p.Sure {
				f.Severity = sequencer.SeverityError
			}
			found = append(found, f)
		}
	}
	return found
}

// runPreflight is the preflight for a run, which has the lock and has read the checkpoint. What it finds of the volume and
// the machine is a warning: a node may get along with it, and otherwise says so itself.
func runPreflight(plan *sequencer.Plan) func(i int) []sequencer.Finding {
	return func(i int) []sequencer.Finding {
		if i != sequencer.WholePlan {
			return preflightVersion(plan, i)
		}
		found := preflight.CheckStorage(plan)
		for _, f := range slices.Concat(preflight.CheckVolume(plan, ""), checkMachine()) {
			f.Severity = sequencer.SeverityWarning
			found = append(found, f)
		}
		return found
	}
}

// preflightAll finds all that would keep a run from going on, or a later upgrade from succeeding, as far as it can be
// known before: the versions, their digests (nil for no manifest), the record (path is the checkpoint, empty for none), the
// volume and the machine. It changes nothing.
func preflightAll(plan *sequencer.Plan, path string, verifier *verifier) []sequencer.Finding {
	var found []sequencer.Finding
	first, ofRecord := 0, []sequencer.Finding(nil)
	if storage, err := preflight.StorageOf(plan); err == nil { // otherwise CheckStorage says what is wrong
		first, ofRecord = sequencer.CheckRecord(plan, path, storage, (&preflight.Disk{}).Digest)
	}
	for i := range plan.Versions {
		ofVersion := preflightVersion(plan, i)
		if verifier != nil {
			ofVersion = append(ofVersion, verifier.verify(context.Background(), i, false)...)
		}
		for n := range ofVersion {
			if i < first { // it is complete, and is not started any more
				ofVersion[n].Severity = sequencer.SeverityWarning
			}
		}
		found = append(found, ofVersion...)
	}
	if verifier != nil {
		found = append(found, verifier.verify(context.Background(), sequencer.WholePlan, false)...)
	}
	return slices.Concat(found, preflight.CheckStorage(plan), ofRecord, preflight.CheckVolume(plan, path), checkMachine())
}

// filesWanted is how many open files a state engine with a few hundred files and as many connections gets along with.
const filesWanted = 4096

// checkMachine finds what a node needs of the kernel and is not given.
func checkMachine() []sequencer.Finding {
	var found []sequencer.Finding
	warn := func(what, next string) {
		found = append(found, sequencer.Finding{Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: what, Next: next})
	}
	if err := probeIOUring(); err != nil {
		warn(fmt.Sprintf("io_uring is not permitted here (%s): the state engine of a real node panics without it, exit 101", err),
			"take a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=FILE), "+
				"and see that the sysctl kernel.io_uring_disabled is 0")
	}
	// The soft limit is not known any more: the runtime of Go has raised ours to the hard one, and gives the node the
	// old one back.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Max < filesWanted {
		warn(fmt.Sprintf("a process may have only %d files open", limit.Max), fmt.Sprintf("raise the limit to %d or more (docker run --ulimit nofile=65536)", filesWanted))
	}
	return found
}

// probeIOUring makes the smallest ring that there is, and gives it back.
func probeIOUring() error {
	var params [120]byte // struct io_uring_params, all zero
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno //nolint:wrapcheck // its words are all that there is to say
	}
	return unix.Close(int(fd)) //nolint:wrapcheck // it cannot fail
}
