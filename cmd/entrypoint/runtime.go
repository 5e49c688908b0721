package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"rollup-entrypoint/internal/limits"
	"rollup-entrypoint/sequencer"
)

// releaseEvery is how often free memory is given back to the system. It costs about half a millisecond.
const releaseEvery = time.Minute

// limitRuntime keeps our own memory small and flat: by default a heap of one megabyte is only collected when it reaches
// four, and what the preparations once took would stay with us for as long as the node runs. It is done here and not by
// variables, which the node would inherit. The environment wins.
func limitRuntime() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(25)
	go func() {
		for range time.Tick(releaseEvery) {
			debug.FreeOSMemory()
		}
	}()
}

// blockingCalls is how many goroutines of a run can be in a system call at once, or are locked to a thread. On a busy
// machine even a call that does not wait takes a while.
const blockingCalls = 1 + // the sequence itself
	1 + // the log
	3 + // what writes stamp and checkpoint, what reads files for it, and what records a process in the lock file
	2 + // an inspection before an upgrade, and the reading ahead
	1 + // the thread of idle work
	1 + // the thread that starts processes
	2 + // what reaps, and what looks for leftover processes
	3 + // the pipes of a node, and of what one left behind
	4 + // HTTP to the node for its height: connect, write, read, close
	4 + // the same for its readiness
	2 + // the server of the status: accept, close; it reads and writes without the runtime's notice
	1 + // the record of the run, beside the checkpoint
	1 + // a message to systemd
	1 // the termination message

// reserveThreads makes all threads that a run needs. When a node has used up the limit of processes, the Go runtime
// aborts at the first thread that it cannot make, and with process 1 the container ends.
func reserveThreads() error {
	err := limits.Reserve(blockingCalls)
	if err == nil {
		return nil
	}
	return &sequencer.Failure{
		Code: sequencer.CodeEarlyExit, What: "there is no room for our own threads", Err: err, Safe: "nothing was started",
		Next: "raise the limit (docker run --pids-limit, podPidsLimit of the kubelet, ulimit -u): a node has a hundred threads beside ours",
	}
}
