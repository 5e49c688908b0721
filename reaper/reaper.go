// Package reaper is a container's init as a library. It becomes the parent of every orphan (as process 1, or as child
// subreaper), starts processes in groups of their own, reaps everything that ends, hands out the signals that the
// process receives, and waits for what the started processes left behind, or ends it.
//
// It promises: no zombie stays, whatever its parent was; no exit status of a started process is lost, however short its
// life and however many orphans end at the same time; a caught signal is handed out once, even if it came before
// anything was started; no signal is sent to a process number that may belong to another process by now.
//
// It refuses to share wait4(2). While a [Reaper] lives, nothing else in the program may wait for a child, so neither
// os/exec nor [os.Process.Wait] can be used. There is one Reaper per process.
package reaper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
	"rollup-entrypoint/internal/signalname"
)

// errClosed is returned by what is called after [Reaper.Close].
var errClosed = errors.New("the reaper is closed")

// Options are what [New] needs.
type Options struct {
	// Inbox is what CatchSignals returned.
	Inbox *Inbox
	// ParentDeathSignal is sent to this process when its own parent dies (PR_SET_PDEATHSIG, prctl(2)). 0: none.
	ParentDeathSignal syscall.Signal
	// Log gets warnings about processes that cannot be ended, and details at debug level.
	Log *slog.Logger
}

// Reaper owns all children of this process. Its methods may be called from any goroutine.
type Reaper struct {
	log      *slog.Logger
	inbox    *Inbox
	procRoot string // procfs.Root but in tests

	// mu is held across start and registration, and across wait4 and delivery: a process can end before we have
	// recorded its number, and os.StartProcess itself waits for a child whose exec failed. It is also held across each
	// kill of a child: only we reap, so while it is held no child's number can be given to another process.
	mu       sync.Mutex
	children map[int]*Child // started and not reaped
	groups   map[int]uint64 // groups that outlived the child that led them, with its Child.asked
	reaped   chan struct{}  // closed and replaced whenever a process was reaped

	ask     chan chan<- bool // a request to reap now; the answer: no children are left
	quit    chan struct{}
	stopped chan struct{}
	sweeps  sync.WaitGroup

	orphans atomic.Uint64
}

// New makes this process the parent of all orphans below it and begins to reap. If it is not process 1 it becomes a
// child subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)). Children that this process already has, for instance because a
// shell replaced itself by it with exec, are reaped as orphans are.
func New(o Options) (*Reaper, error) {
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("cannot become a child subreaper: %w", err)
		}
	}
	if err := setParentDeathSignal(o.ParentDeathSignal); err != nil {
		return nil, err
	}
	r := &Reaper{
		log:      o.Log,
		inbox:    o.Inbox,
		procRoot: procfs.Root,
		children: map[int]*Child{},
		groups:   map[int]uint64{},
		reaped:   make(chan struct{}),
		ask:      make(chan chan<- bool),
		quit:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	onStarter(func() {}) // makes its thread: later there may be no room for one
	go r.loop()
	return r, nil
}

// setParentDeathSignal asks for sig at the death of our parent. The setting belongs to a thread and ends with it, so
// it is made by the one thread that lives as long as the process.
func setParentDeathSignal(sig syscall.Signal) (err error) {
	if sig == 0 {
		return nil
	}
	onStarter(func() { err = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0) })
	if err != nil {
		return fmt.Errorf("cannot set the parent-death signal to %s: %w", signalname.Of(sig), err)
	}
	return nil
}

// Orphans returns how many processes were reaped that we did not start: they were reparented to us.
func (r *Reaper) Orphans() uint64 { return r.orphans.Load() }

// Close ends the goroutine that reaps and every [Sweep], for tests. A Sweep that outlived it would take the processes
// of the next Reaper for leftovers. It ends no process: nobody reaps the children that still live, and their Done
// channels stay open.
func (r *Reaper) Close() {
	close(r.quit)
	<-r.stopped
	r.sweeps.Wait()
}
