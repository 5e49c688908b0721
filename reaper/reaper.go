// Package reaper is a container's init as a library. It becomes the parent of every orphan (as process 1, or as child
// subreaper), starts processes in groups of their own, reaps everything that ends, hands out the signals that the
// process receives, and ends what the started processes left behind.
//
// It promises: no zombie stays, whatever its parent was; no exit status of a started process is lost, however short its
// life and however many orphans end beside it; a caught signal is handed out once, also if it came before anything was
// started; no signal is sent to a process number that may belong to somebody else by now.
//
// It refuses: to share wait4(2). While a [Reaper] lives, nothing else in the program may wait for a child, so neither
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
)

// errClosed is returned by what is called after [Reaper.Close].
var errClosed = errors.New("the reaper is closed")

// Options are what [New] needs. The zero value is useful: nothing but SIGCHLD is caught, nothing is logged.
type Options struct {
	// Inbox is what CatchSignals returned. Nil: only SIGCHLD is caught, and Exec cannot be used.
	Inbox *Inbox
	// ParentDeathSignal is sent to this process when its own parent dies (PR_SET_PDEATHSIG, prctl(2)). 0: none.
	ParentDeathSignal syscall.Signal
	// Log gets warnings about processes that cannot be ended, and details at debug level. Nil: no log.
	Log *slog.Logger
}

// Stats counts since New. The numbers only grow.
type Stats struct {
	Started       uint64 // processes started by Start and Exec
	OrphansReaped uint64 // processes reaped that were not started here: they were reparented to us
	SignalsSent   uint64 // signals sent to children, to their groups, and to leftovers
	Swept         uint64 // leftover processes ended by Sweep
}

// Reaper owns all children of this process. Its methods may be called from any goroutine.
type Reaper struct {
	log      *slog.Logger
	inbox    *Inbox
	ownInbox bool
	procRoot string // /proc, but for tests

	// mu is held across start and registration, and across wait4 and delivery: a process can end before we have
	// recorded its number, and os.StartProcess itself waits for a child whose exec failed. It is also held across each
	// kill of a child: only we reap, so while it is held no child's number can be given to another process.
	mu       sync.Mutex
	children map[int]*Child     // started and not reaped
	groups   map[int]struct{}   // groups that outlived the child that led them
	pumps    map[*pump]struct{} // pipes that are still open
	reaped   chan struct{}      // closed and replaced whenever a process was reaped
	closed   bool

	ask     chan chan<- bool // a request to reap now; the answer: no children are left
	quit    chan struct{}
	stopped chan struct{}

	started, orphans, signals, swept atomic.Uint64
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
		procRoot: "/proc",
		children: map[int]*Child{},
		groups:   map[int]struct{}{},
		pumps:    map[*pump]struct{}{},
		reaped:   make(chan struct{}),
		ask:      make(chan chan<- bool),
		quit:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.inbox == nil {
		r.inbox, r.ownInbox = catch(nil), true
	}
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
		return fmt.Errorf("cannot set the parent-death signal to %s: %w", name(sig), err)
	}
	return nil
}

// Stats returns the counters, without waiting for anything.
func (r *Reaper) Stats() Stats {
	return Stats{
		Started:       r.started.Load(),
		OrphansReaped: r.orphans.Load(),
		SignalsSent:   r.signals.Load(),
		Swept:         r.swept.Load(),
	}
}

// Close ends the goroutines of the Reaper, for tests. It ends no process: children that still live are nobody's from
// then on, their Done channels stay open, and what they write to a pumped stdout or stderr is lost.
func (r *Reaper) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errClosed
	}
	r.closed = true
	for p := range r.pumps {
		p.r.Close()
	}
	r.mu.Unlock()
	close(r.quit)
	<-r.stopped
	if r.ownInbox {
		return r.inbox.Close()
	}
	return nil
}
