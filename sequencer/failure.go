package sequencer

import (
	"fmt"
	"strings"
)

// Exit codes of the entrypoint, besides 0 (finished, or stopped as asked), the node's or the migration's own code, and
// 128+n for death by signal n. 64, 65, 74, 75 and 78 are those of sysexits.h, 126 and 127 those of a shell.
const (
	// CodeUsage: the command line or the environment is wrong.
	CodeUsage = 64
	// CodeCheckpointUnreadable: the checkpoint or the stamp is torn, empty, foreign, or not readable.
	CodeCheckpointUnreadable = 65
	// CodeCheckpointNotWritable: the checkpoint or the stamp cannot be written, or another process holds the lock.
	CodeCheckpointNotWritable = 74
	// CodeEarlyExit: a node exits 0 again and again below its stop height, or another passing condition. Starting again is
	// safe.
	CodeEarlyExit = 75
	// CodeMismatch: the configuration, a file that it names, the checkpoint and the state are inconsistent.
	CodeMismatch = 78
	// CodeNotExecutable: a binary is there but the kernel does not execute it.
	CodeNotExecutable = 126
	// CodeNotFound: a binary is not there.
	CodeNotFound = 127
)

// Cause says, for programs, why a run failed; empty where the exit code says it all. The log has it as "cause".
type Cause string

// The causes of failures: those of 78, of EarlyExits (75), and what a node says of its state, with the code of the node.
const (
	// VersionUnknown: the plan does not have the version of the stamp.
	VersionUnknown Cause = "version_unknown"
	// MigrationVanished: a migration was begun that the plan does not have any more.
	MigrationVanished Cause = "migration_vanished"
	// MigrationInterrupted: a migration was begun, and on_interrupted_migration is "halt".
	MigrationInterrupted Cause = "migration_interrupted"
	// MigrationSkipped: the version was entered without the migration that the plan now has for it.
	MigrationSkipped Cause = "migration_skipped"
	// StateGone: the record speaks of a state, and there is none.
	StateGone Cause = "state_gone"
	// StateBelow: the durable height is below the first height of the version that the stamp names.
	StateBelow Cause = "state_below"
	// TooLate: the version was started without this stop height, and has passed it.
	TooLate Cause = "too_late"
	// Overrun: the version was started with its stop height, and has passed it.
	Overrun Cause = "overrun"
	// OwnerUnknown: nothing says which version's format the state has.
	OwnerUnknown Cause = "owner_unknown"
	// OtherState: the checkpoint belongs to another state.
	OtherState Cause = "other_state"
	// OtherProgram: another program went on from the checkpoint.
	OtherProgram Cause = "other_program"
	// BinaryMisplaced: the binary that ran last as the stamped version is now that of another version.
	BinaryMisplaced Cause = "binary_misplaced"
	// StorageUnknown: no config says any more where the state is.
	StorageUnknown Cause = "storage_unknown"
	// CameUp: a node that was asked with an impossible start height came up.
	CameUp Cause = "came_up"
	// NotAnswered: a node that cannot be asked may be complete; a person has to say so.
	NotAnswered Cause = "cannot_be_asked"
	// StateDamaged: the node says that its state is damaged.
	StateDamaged Cause = "state_damaged"
	// NotMigrated: the node says that its state was not migrated.
	NotMigrated Cause = "not_migrated"
	// EarlyExits: a node, or one that was asked, exited 0 more often than restarts are allowed.
	EarlyExits Cause = "early_exits"
	// FilesInvalid: files of the plan are missing, not usable, or not as the manifest has them.
	FilesInvalid Cause = "files_invalid"
)

// Remedy is 'entrypoint checkpoint set', as an operator may run it, and what has to be true for it.
type Remedy struct {
	// When has to be true, in words.
	When    string
	Version int
	// Migrated, Complete and Force are the flags of that name.
	Migrated, Complete, Force bool
	// Config and Checkpoint are the files; Checkpoint is empty for a run without one.
	Config, Checkpoint string
}

// Command is the remedy as a shell takes it.
func (r Remedy) Command() string {
	words := []string{"entrypoint checkpoint set -c", quoted(r.Config)}
	if r.Checkpoint == "" {
		words = append(words, "--no-checkpoint-file")
	} else {
		words = append(words, "-f", quoted(r.Checkpoint))
	}
	words = append(words, fmt.Sprintf("--version %d", r.Version))
	for _, flag := range []struct {
		set  bool
		name string
	}{{r.Migrated, "--migrated"}, {r.Complete, "--complete"}, {r.Force, "--force"}} {
		if flag.set {
			words = append(words, flag.name)
		}
	}
	return strings.Join(words, " ")
}

// plainName are the characters that no shell gives a meaning.
const plainName = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"

// quoted is name as a shell takes it.
func quoted(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(plainName, r) }) {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// Failure ends a run. Its text is one sentence in three parts: what happened, what is safe, what to do next.
type Failure struct {
	// Code is the exit code, 1 to 255.
	Code  int
	Cause Cause
	// What happened, with the version and the heights (in blocks).
	What string
	// Safe says what did not happen, or what the state is known to be.
	Safe string
	// Next is what the operator is to do, in words; Remedies are the commands that may help, each with its condition.
	Next     string
	Remedies []Remedy
	// Err is the cause, where there is one.
	Err error
	// Stderr has the last lines that the node or the migration wrote, empty where there is no such process.
	Stderr string
	// Version is the index of the version that the run was at, nil where it had come to none of the plan.
	Version *int
	// Start and Stop are the heights of that version in the plan, in blocks; 0 for none.
	Start, Stop uint64
	// Height is the last height that is known, in blocks: one that a node reported or gave as its answer. Nil for none.
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

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// failf makes a Failure whose What is formatted.
func failf(code int, format string, args ...any) *Failure {
	return &Failure{Code: code, What: fmt.Sprintf(format, args...)}
}

// mismatch makes a Failure with code 78 and its cause.
func mismatch(cause Cause, format string, args ...any) *Failure {
	f := failf(CodeMismatch, format, args...)
	f.Cause = cause
	return f
}

// safe, next, because and remedy complete a Failure where it is made, so that its parts are side by side.
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

func (f *Failure) remedy(all ...Remedy) *Failure {
	f.Remedies = append(f.Remedies, all...)
	return f
}

// withFiles names the files in the commands of the remedies.
func (f *Failure) withFiles(config, checkpoint string) *Failure {
	for i := range f.Remedies {
		f.Remedies[i].Config, f.Remedies[i].Checkpoint = config, checkpoint
	}
	return f
}
