package sequencer

import (
	"io"
	"log/slog"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Store keeps the stamp in the state and the checkpoint. checkpoint.Store is the real one.
type Store interface {
	// Load gives what is on disk. The error is a *checkpoint.UnreadableError if a file is torn or foreign.
	Load() (checkpoint.Found, error)
	// LoadState is Load without the checkpoint.
	LoadState() (checkpoint.Found, error)
	// SaveStamp and SaveCheckpoint return nil only once the file is durable.
	SaveStamp(s checkpoint.Stamp) error
	SaveCheckpoint(c checkpoint.Checkpoint) error
	// KeepCheckpoint keeps the present checkpoint under another name, which it gives.
	KeepCheckpoint() (kept string, err error)
	// SyncState makes durable what a migration has written.
	SyncState() error
	// Held is nil while the locks keep every other entrypoint away, and otherwise a *checkpoint.LockLostError, if a lock
	// file was removed or replaced, or a *checkpoint.LockHeldError, if another one was faster.
	Held() error
}

// Options are all that a run depends on. Plan, Store, Processes, Signals, Inspection, Heights and Log are required.
type Options struct {
	Plan       *Plan
	Store      Store
	Processes  Processes
	Signals    SignalSource
	Inspection Inspection
	// Checkpoint is the checkpoint file, for messages; empty for a run without one.
	Checkpoint string
	// Heights gives the reader for the node of a version.
	Heights func(v Version) (HeightReader, error)
	// Stderr gets what nodes and migrations write on stderr; nil discards it.
	Stderr io.Writer
	Log    *slog.Logger
	// Undo keeps the undo point; nil for none.
	Undo Undo
	// Hold, if not nil, can keep a version from being started.
	Hold Hold
	// NodeArgs are passed to every node, after the version's own arguments.
	NodeArgs []string
	// Slack, if not nil, is sov-rollup-manager's height slack, in blocks: exit 0 at most so far below the stop height counts
	// as complete. It means nothing for a node that can be asked.
	Slack *uint64
	// Restarts is how often within ten minutes a node that exits 0 below its stop height is started again.
	Restarts int
	// Nonce gives a start height that no chain has, new each time: at least 2^48, below 2^63. Nil: a random one.
	Nonce func() uint64
	// StopTimeout is how long a process and its leftover processes may take to end after they were asked to stop, before
	// SIGKILL; 0: no limit.
	StopTimeout time.Duration
	// LeftoverTimeout is how long leftover processes may live if the process that left them ended by itself. Then those of
	// a node are killed, and for those of a migration the run ends; 0: no limit.
	LeftoverTimeout time.Duration
	// Observe, if not nil, gets the state of the run after each change, from one goroutine. It must return at once.
	Observe func(State)
	// PreflightBefore is how long before an upgrade, by the present rate, the next version is inspected again; 0 for never.
	PreflightBefore time.Duration
	// WaitWhenFinished keeps a finished sequence up, idle, until it is asked to stop.
	WaitWhenFinished bool
}
