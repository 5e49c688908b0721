package sequencer

import (
	"fmt"
	"strings"
)

// Exit codes of the entrypoint, besides 0 (finished, or stopped as asked), the node's or the migration's own code, and
// 128+n for death by signal n. 64, 65, 74, 75 and 78 are those of sysexits.h, 126 and 127 those of a shell.
const (
	CodeUsage                 = 64  // the command line or the environment is wrong
	CodeCheckpointUnreadable  = 65  // the checkpoint or the stamp is torn, empty, foreign, or not readable
	CodeCheckpointNotWritable = 74  // the checkpoint or the stamp cannot be written, or another process holds the lock
	CodeEarlyExit             = 75  // too many exits 0 below the stop height, or another temporary condition: starting again is safe
	CodeMismatch              = 78  // config, files, record and state are inconsistent
	CodeNotExecutable         = 126 // a binary is there but the kernel does not execute it
	CodeNotFound              = 127 // a binary is not there
)

// Cause says, for programs, why a run failed. It is empty if the exit code says it all. The log has it as "cause".
type Cause string

// The causes of failures: those of 78, of EarlyExits (75), and what a node says about its state, with the node's code.
const (
	VersionUnknown       Cause = "version_unknown"       // the plan does not have the version of the stamp
	MigrationVanished    Cause = "migration_vanished"    // a migration began that the plan no longer has
	MigrationInterrupted Cause = "migration_interrupted" // a migration began, and on_interrupted_migration is "halt"
	MigrationSkipped     Cause = "migration_skipped"     // the version was entered without the migration that the plan now has
	StateGone            Cause = "state_gone"            // there is a record of a state, and no state
	StateBelow           Cause = "state_below"           // the durable height is below the first one of the stamped version
	TooLate              Cause = "too_late"              // the version, started without this stop height, has passed it
	Overrun              Cause = "overrun"               // the version, started with its stop height, has passed it
	OwnerUnknown         Cause = "owner_unknown"         // nothing says which version's format the state has
	OtherState           Cause = "other_state"           // the checkpoint belongs to another state
	OtherProgram         Cause = "other_program"         // another program continued from the stamp
	BinaryMisplaced      Cause = "binary_misplaced"      // the stamped version's last binary is now another version's
	StorageUnknown       Cause = "storage_unknown"       // no config says any more where the state is
	CameUp               Cause = "came_up"               // a node that was started only to report its height ran instead
	NotAnswered          Cause = "cannot_be_asked"       // a node that cannot be asked may be complete: a person must say so
	StateDamaged         Cause = "state_damaged"         // the node says that its state is damaged
	NotMigrated          Cause = "not_migrated"          // the node says that its state was not migrated
	EarlyExits           Cause = "early_exits"           // a node exited 0, running or asked, more often than allowed
	WorkersLeft          Cause = "workers_left"          // a migration has ended, and processes that it started have not
	FilesInvalid         Cause = "files_invalid"         // files of the plan are missing, unusable, or not as in the manifest
	Retired              Cause = "version_retired"       // the image no longer has the version that the state needs
	Undone               Cause = "undone"                // the upgrade failed, and the undo point was put back
)

// Failure ends a run. Its text is one sentence in three parts: what happened, what is safe, what to do next.
type Failure struct {
	// Code is the exit code, 1 to 255.
	Code  int
	Cause Cause
	// What happened, with the version and the heights in blocks.
	What string
	// Safe says what did not happen, or what the state is known to be.
	Safe string
	// Next says what the operator should do; Remedies are commands that may help, each with its condition.
	Next     string
	Remedies []Remedy
	// Err is the error behind it, if there is one.
	Err error
	// Stderr has the last lines that the node or the migration wrote; empty if there is no such process.
	Stderr string
	// Version is the index of the version that the run was at, nil if it had not come to one of the plan.
	Version *int
	// Start and Stop are the heights of that version in the plan, in blocks; 0 for none.
	Start, Stop uint64
	// Height is the last known height in blocks, one that a node reported or gave as its answer; nil for none.
	Height *uint64
}

// Error gives the whole sentence.
func (f *Failure) Error() string {
	text := f.What
	if f.Err != nil {
		text += ": " + f.Err.Error()
	}
	for _, part := range []string{f.Safe, f.ToDo()} {
		if part != "" {
			text += "; " + part
		}
	}
	return text
}

// ToDo is Next with the commands of the remedies.
func (f *Failure) ToDo() string {
	var parts []string
	if f.Next != "" {
		parts = append(parts, f.Next)
	}
	for _, r := range f.Remedies {
		text := "run '" + r.Command() + "'"
		if r.When != "" {
			text = "if " + r.When + ", " + text
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// Unwrap gives the error behind it.
func (f *Failure) Unwrap() error { return f.Err }

// failf makes a Failure from its What.
func failf(code int, format string, args ...any) *Failure {
	return &Failure{Code: code, What: fmt.Sprintf(format, args...)}
}

// mismatch makes a Failure with code 78 and a cause.
func mismatch(cause Cause, format string, args ...any) *Failure {
	f := failf(CodeMismatch, format, args...)
	f.Cause = cause
	return f
}

// safe, next, because, wrote and remedy complete a Failure where it is made, so that its parts are side by side.
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

func (f *Failure) wrote(stderr *tail) *Failure {
	f.Stderr = stderr.lastLines(stderrLines)
	return f
}

func (f *Failure) remedy(all ...Remedy) *Failure {
	f.Remedies = append(f.Remedies, all...)
	return f
}
