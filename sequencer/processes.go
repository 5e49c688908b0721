package sequencer

import (
	"io"
	"syscall"
)

// Processes starts processes. Package reaper is the real one, through an adapter.
type Processes interface {
	// Start returns once the program is executed. The error is a *StartError if the kernel refused the program.
	Start(c Command) (Process, error)
	// Sweep begins to wait for all leftover processes, and does not block. If ask is set, each gets SIGTERM first, unless
	// the process group that it came from was sent a stop signal: it has had one then.
	Sweep(ask bool) Sweep
}

// Sweep is the wait for leftover processes.
type Sweep interface {
	// Done is closed when none of them is alive, or when that cannot be found out.
	Done() <-chan struct{}
	// Left are those that were alive at the last look, the oldest first.
	Left() []Leftover
	// Signal sends sig to each that is left. SIGKILL is also sent to all that appear later.
	Signal(sig syscall.Signal) error
	// Ended is how many there were, and the error that ended the wait before they had ended. It is valid after Done.
	Ended() (n int, err error)
}

// Command is a process to start. It gets our standard input and working directory.
type Command struct {
	// Path is the program, searched in PATH if it has no slash.
	Path string
	// Args are the arguments without argv[0].
	Args []string
	// Env is added to our environment.
	Env []string
	// Stdout and Stderr get all that the process writes there. If Stdout is nil it is ours.
	Stdout, Stderr io.Writer
	// Migration: it runs to its end even if we die. A node is asked to stop then.
	Migration bool
}

// Process is a process that was started.
type Process interface {
	Pid() int
	// Done is closed when the process has been reaped and all that it wrote was passed on.
	Done() <-chan struct{}
	// Exit is how it ended. It is valid after Done.
	Exit() Exit
	// Signal sends sig to the process group. If the process has ended, the error is not worth handling.
	Signal(sig syscall.Signal) error
}

// StartError says that a program could not be executed.
type StartError struct {
	// Code is CodeNotExecutable, CodeNotFound, or CodeEarlyExit for a passing shortage.
	Code int
	// Passing: there were no processes or no memory left, so that a later try may succeed.
	Passing bool
	Err     error
}

// Error gives the cause.
func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *StartError) Unwrap() error { return e.Err }
