package sequencer

import (
	"fmt"
	"syscall"
)

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code, 0 to 255, of a process that ended by itself.
	Code int
	// Signal is the signal that killed the process, 0 for none.
	Signal syscall.Signal
	// OutOfMemory: Signal is SIGKILL, and the kernel killed in our container while the process ran, because it ran out of
	// memory.
	OutOfMemory bool
}

// Status is the code that a shell gives: Code, or 128 plus the signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// String is for messages.
func (e Exit) String() string {
	switch {
	case e.OutOfMemory:
		return "was killed by " + signalName(e.Signal) + ", by the kernel's out-of-memory killer"
	case e.Signal != 0:
		return "was killed by " + signalName(e.Signal)
	}
	return fmt.Sprintf("exited %d", e.Code)
}
