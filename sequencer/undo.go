package sequencer

import (
	"context"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Undo keeps the undo point: a copy of the state from before an upgrade, and puts it back. There is at most one. Package
// internal/undo is the real one. No process may work on the state during any call.
type Undo interface {
	// Find gives the undo point that is there; nil for none. It first finishes or forgets what a kill left half done.
	Find() (*checkpoint.UndoPoint, error)
	// Make replaces the undo point by a copy of the present state, and gives it once it is complete and durable. p says
	// what it is for; its ID, Method, Bytes, CreatedAt and Path are set by Make. progress is called now and then, from any
	// goroutine, until Make returns. When ctx ends, Make forgets what it has copied and returns soon. The error is a
	// *NoUndoPointError if there is none to be had here, and the upgrade may go on without one.
	Make(ctx context.Context, p checkpoint.UndoPoint, progress func(UndoProgress)) (checkpoint.UndoPoint, error)
	// PutBack makes the undo point the state again, in one step that a kill cannot divide. What was the state is kept
	// under another name, which PutBack gives; an older one that was kept so is deleted.
	PutBack(p checkpoint.UndoPoint) (aside string, err error)
}

// UndoProgress is how far the copy of a state is.
type UndoProgress struct {
	Method checkpoint.UndoMethod
	// Done and Total are bytes.
	Done, Total int64
	// Since is when the copy was begun.
	Since time.Time
}

// NoUndoPointError says why no undo point can be made, although nothing has failed.
type NoUndoPointError struct {
	// Why is a clause, such as "the file system has no reflinks, and the state, 5 GB, is more than half of the free 6 GB".
	Why string
	// Unwanted: an operator has said that there is to be none, so it is not worth a warning.
	Unwanted bool
}

// Error gives the reason.
func (e *NoUndoPointError) Error() string { return e.Why }
