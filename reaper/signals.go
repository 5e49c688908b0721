package reaper

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest signal number of Linux, SIGRTMAX (signal(7)).
const lastSignal = syscall.Signal(64)

// fault is why the signals of faults are not handed out.
const fault = "it reports a fault of our own; if a process sent it, it is dropped"

// notForwarded lists the signals that are not handed out, each with the reason. All others are.
var notForwarded = []struct {
	sig syscall.Signal
	why string
}{
	{unix.SIGKILL, "it cannot be caught"},
	{unix.SIGSTOP, "it cannot be caught"},
	{unix.SIGCHLD, "it reports that a child of ours ended"},
	{unix.SIGPIPE, "it reports that the reader of our own output is gone"},
	{unix.SIGTTIN, "it reports that we ourselves read the terminal from the background"},
	// If it were caught, the write would be restarted forever.
	{unix.SIGTTOU, "it reports that we ourselves wrote to the terminal from the background"},
	{unix.SIGURG, "the Go scheduler preempts goroutines with it"},
	{unix.SIGPROF, "the Go runtime reserves it for its profiler"},
	{unix.SIGILL, fault},
	{unix.SIGTRAP, fault},
	{unix.SIGBUS, fault},
	{unix.SIGFPE, fault},
	{unix.SIGSEGV, fault},
	{unix.SIGSTKFLT, fault},
	{unix.SIGSYS, fault},
	{32, "the C library cancels threads with it"},
	{33, "the C library and the Go runtime change the ids of all threads with it"},
	{34, "musl stops all threads with it; the Go runtime does not let it be caught"},
}

// faults are the signals by which the kernel reports a fault.
func faults() []syscall.Signal {
	var signals []syscall.Signal
	for _, row := range notForwarded {
		if row.why == fault {
			signals = append(signals, row.sig)
		}
	}
	return signals
}

// Forwardable says whether sig is caught and handed out by an [Inbox]. If it is not, why is the reason, in words.
func Forwardable(sig syscall.Signal) (ok bool, why string) {
	if sig < 1 || sig > lastSignal {
		return false, "there is no such signal"
	}
	for _, row := range notForwarded {
		if row.sig == sig {
			return false, row.why
		}
	}
	return true, ""
}

// forwardable lists the signals that are caught and handed out.
func forwardable() []os.Signal {
	var list []os.Signal
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		// HUP or INT may be ignored from the start, by nohup(1) or by a shell for its background jobs. That is what our
		// parent wants, for our children too, and catching the signal would undo it.
		if ok, _ := Forwardable(sig); ok && !signal.Ignored(sig) {
			list = append(list, sig)
		}
	}
	return list
}

// Inbox holds the signals that this process has received and nobody has taken yet. Like the kernel's pending signals
// each is in it once, however often it came; unlike them they are in the order of their arrival. None is dropped,
// however long nobody takes them.
type Inbox struct {
	caught   chan os.Signal
	children chan os.Signal // SIGCHLD alone: a burst of dying orphans must not push a SIGTERM out of a full channel
	out      chan syscall.Signal
	ask      chan chan<- syscall.Signal
	quit     chan struct{}
	stopped  chan struct{}
}

// CatchSignals catches every signal that can be handed out, and SIGCHLD for the [Reaper]. Call it as the first
// statement of main: an earlier signal has its default effect, which is none for process 1 and mostly death for others.
// SIGPIPE is caught too, and dropped, so that a closed stderr does not kill us; it is not ignored, because children
// would inherit that. A SIGHUP or SIGINT that was ignored when the process started stays ignored, for us and for
// children. SIGTTIN and SIGTTOU are left to the Go runtime.
//
// A fault signal that a process sent with kill(2) is dropped: it would crash the Go runtime, and with process 1 the
// whole container. A fault of our own still crashes with its trace; so does a signal of sigqueue(3), which to the
// runtime looks the same.
func CatchSignals() *Inbox {
	list := append(forwardable(), unix.SIGPIPE)
	for _, sig := range faults() {
		list = append(list, sig)
	}
	return catch(list)
}

// catch returns an Inbox for the listed signals and SIGCHLD.
func catch(list []os.Signal) *Inbox {
	b := &Inbox{
		// The relay below is always ready; the room is for bursts before the scheduler wakes it.
		caught:   make(chan os.Signal, 1024),
		children: make(chan os.Signal, 1), // one is enough: each SIGCHLD makes us reap all there is
		out:      make(chan syscall.Signal),
		ask:      make(chan chan<- syscall.Signal),
		quit:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	signal.Notify(b.children, unix.SIGCHLD)
	if len(list) > 0 {
		signal.Notify(b.caught, list...)
	}
	go b.relay()
	return b
}

// Signals returns the channel that hands out each caught signal, in order of arrival. A signal that comes again before
// it was taken is handed out once. The channel is never closed.
func (b *Inbox) Signals() <-chan syscall.Signal { return b.out }

// TryTake takes the oldest signal without waiting for one; ok is false if there is none. It sees every signal that the
// Go runtime has relayed before the call.
func (b *Inbox) TryTake() (sig syscall.Signal, ok bool) {
	answer := make(chan syscall.Signal, 1)
	select {
	case b.ask <- answer:
		sig = <-answer
		return sig, sig != 0
	case <-b.quit:
		return 0, false
	}
}

// Pulse returns the channel by which a watchdog sees that whoever takes the signals still does: a send of 0 succeeds when
// [Inbox.Signals] is received from. 0 is no signal; the receiver ignores it.
func (b *Inbox) Pulse() chan<- syscall.Signal { return b.out }

// Close stops catching: the signals have their default effect again, and those that were not taken are forgotten. It
// must be called once, and not while a Reaper uses the Inbox.
func (b *Inbox) Close() error {
	signal.Stop(b.caught)
	signal.Stop(b.children)
	close(b.quit)
	<-b.stopped
	return nil
}

// relay takes caught signals at once, so that the runtime never finds its channel full, and offers the oldest.
func (b *Inbox) relay() {
	defer close(b.stopped)
	var waiting []syscall.Signal
	for {
		var out chan<- syscall.Signal // nil while nothing waits: a send on it is never chosen
		var oldest syscall.Signal
		if len(waiting) > 0 {
			out, oldest = b.out, waiting[0]
		}
		select {
		case sig := <-b.caught:
			waiting = enqueue(waiting, sig)
		case out <- oldest:
			waiting = waiting[1:]
		case answer := <-b.ask:
			waiting = b.takeOver(waiting)
			if len(waiting) == 0 {
				answer <- 0
				continue
			}
			answer <- waiting[0]
			waiting = waiting[1:]
		case <-b.quit:
			return
		}
	}
}

// takeOver empties the runtime's channel into the queue.
func (b *Inbox) takeOver(waiting []syscall.Signal) []syscall.Signal {
	for {
		select {
		case sig := <-b.caught:
			waiting = enqueue(waiting, sig)
		default:
			return waiting
		}
	}
}

// enqueue adds sig, unless it waits already or is caught only to be dropped.
func enqueue(waiting []syscall.Signal, caught os.Signal) []syscall.Signal {
	sig, _ := caught.(syscall.Signal)
	if ok, _ := Forwardable(sig); !ok || slices.Contains(waiting, sig) {
		return waiting
	}
	return append(waiting, sig)
}
