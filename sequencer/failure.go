package sequencer

import "fmt"

// Exit codes of the entrypoint, besides 0 (finished, or stopped as asked), the node's or the migration's own code, and
// 128+n for death by signal n. 64, 65, 74, 75 and 78 are those of sysexits.h, 126 and 127 those of a shell.
const (
	// CodeUsage: the command line or the environment is wrong.
	CodeUsage = 64
	// CodeCheckpointUnreadable: the checkpoint is torn, empty, foreign, or not readable.
	CodeCheckpointUnreadable = 65
	// CodeCheckpointNotWritable: the checkpoint cannot be written, or another process holds its lock.
	CodeCheckpointNotWritable = 74
	// CodeEarlyExit: a node exited 0 although its stop height is not proven to be reached. Starting again is safe.
	CodeEarlyExit = 75
	// CodeMismatch: the configuration, a file that it names, the checkpoint and the state do not fit together.
	CodeMismatch = 78
	// CodeNotExecutable: a binary is there but the kernel does not execute it.
	CodeNotExecutable = 126
	// CodeNotFound: a binary is not there.
	CodeNotFound = 127
)

// Failure ends a run. Its text is one sentence in three parts: what happened, what is safe, what to do next.
type Failure struct {
	// Code is the exit code, 1 to 255.
	Code int
	// What happened, with the version and the heights (in blocks).
	What string
	// Safe says what did not happen, or what the state is known to be.
	Safe string
	// Next is what the operator is to do.
	Next string
	// Err is the cause, where there is one.
	Err error
	// Stderr has the last lines that the node or the migration wrote there, empty where there is no such process.
	Stderr string
	// Version is the index of the version that the run was at, nil where it had come to none of the plan.
	Version *int
	// Start and Stop are the heights of that version in the plan, in blocks; 0 for none.
	Start, Stop uint64
	// Height is the last height that is known, in blocks: one that a node told, or that its refusal proved. Nil for none.
	Height *uint64
}

// Error gives the whole sentence.
func (f *Failure) Error() string {
	text := f.What
	if f.Err != nil {
		text += ": " + f.Err.Error()
	}
	for _, part := range []string{f.Safe, f.Next} {
		if part != "" {
			text += "; " + part
		}
	}
	return text
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// failf makes a Failure whose What is formatted.
func failf(code int, format string, args ...any) *Failure {
	return &Failure{Code: code, What: fmt.Sprintf(format, args...)}
}

// safe and next complete a Failure where it is made, so that the three parts stand together.
func (f *Failure) safe(text string) *Failure {
	f.Safe = text
	return f
}

func (f *Failure) next(format string, args ...any) *Failure {
	f.Next = fmt.Sprintf(format, args...)
	return f
}

func (f *Failure) because(err error) *Failure {
	f.Err = err
	return f
}
