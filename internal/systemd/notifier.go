// Package systemd tells the service manager how a run is doing, as sd_notify(3) describes it: that it is up, what it
// does, that it is alive, and that it is stopping.
//
// The contract. [Notifier.Observe] takes each state of the sequence as it comes, and never waits. A sign of life is sent
// only after the loop of the sequence has taken a pulse, so a loop that hangs is noticed however well everything else
// works. A socket that does not work is logged once and changes nothing. Nodes and migrations never see the socket: see
// [Take].
package systemd

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

const (
	// beat is how often at most the loop is given a pulse, and a new line is sent about what the run does.
	beat = 5 * time.Second
	// extension is what is added to the time to start or to stop, at each pulse: enough for a machine that is very busy.
	extension = 2 * time.Minute
)

// Options are what a Notifier depends on. All are required.
type Options struct {
	Socket Socket
	// Pulse takes a 0 when the loop of the sequence is alive.
	Pulse chan<- syscall.Signal
	// Line is what the run does, in one line.
	Line func() string
	// NotAlive says why the run is not alive; it is empty if the run is.
	NotAlive func() string
	Log      *slog.Logger
}

// Notifier sends what the service manager needs to know of a run. Use Start.
type Notifier struct {
	Options
	state   atomic.Pointer[sequencer.State]
	changed chan struct{}
	quit    chan struct{}
	ended   chan struct{}
	// Only the goroutine uses these: what was sent, and whether a failure was logged.
	ready, stopping, warned bool
	phase                   sequencer.Phase
	line                    string
}

// Start begins to notify. Without a socket it does nothing, and neither do the methods of what it returns.
func Start(o Options) *Notifier {
	n := &Notifier{Options: o, changed: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
	n.state.Store(&sequencer.State{Phase: sequencer.PhasePreparing})
	if o.Socket.Path == "" {
		close(n.ended)
		return n
	}
	go n.run()
	return n
}

// Observe takes a new state and returns immediately. It fits sequencer.Options.
func (n *Notifier) Observe(state sequencer.State) {
	n.state.Store(&state)
	select {
	case n.changed <- struct{}{}:
	default: // it will see this state, too
	}
}

// Stop sends what the last state says, and ends the notifier.
func (n *Notifier) Stop() {
	close(n.quit)
	<-n.ended
}

func (n *Notifier) run() {
	defer close(n.ended)
	every := beat
	if half := n.Socket.Watchdog / 2; half > 0 {
		every = min(every, half)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var pulse chan<- syscall.Signal // nil while no pulse is due: a send on it is never chosen
	for {
		select {
		case <-n.changed:
			n.tell(false)
		case <-tick.C:
			pulse = n.Pulse
			n.tell(true)
		case pulse <- 0:
			pulse = nil
			n.alive()
		case <-n.quit:
			n.tell(true)
			return
		}
	}
}

// tell sends what has changed. The line is sent if the phase has changed too or, because heights change all the time,
// if it is due.
func (n *Notifier) tell(due bool) {
	state, message := n.state.Load(), ""
	if running := state.Phase != sequencer.PhasePreparing && state.Phase != sequencer.PhaseFailed; running && !n.ready {
		n.ready = true
		message += "READY=1\n"
	}
	if state.Stopping && !n.stopping {
		n.stopping = true
		message += "STOPPING=1\n"
	}
	due = due || message != "" || state.Phase != n.phase
	if line := n.Line(); due && line != n.line {
		n.line, n.phase = line, state.Phase
		message += "STATUS=" + strings.ReplaceAll(line, "\n", " ") + "\n"
	}
	n.send(message)
}

// alive sends a sign of life, and asks for more time if the run needs it.
func (n *Notifier) alive() {
	if n.NotAlive() != "" {
		return
	}
	message := ""
	if n.Socket.Watchdog > 0 {
		message += "WATCHDOG=1\n"
	}
	if n.needsTime(n.state.Load()) {
		message += fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\n", extension.Microseconds())
	}
	n.send(message)
}

// needsTime reports whether the run may take longer than the unit gives it. Until it is ready it may wait for what a
// dead entrypoint left running. After a stop request it waits for a migration or a hook, for what these left running,
// and for the disk. A node has the time of the unit and no more.
func (n *Notifier) needsTime(state *sequencer.State) bool {
	p := state.Process
	return !n.ready || state.Stopping && (p.Pid == 0 || p.Migration || p.Hook)
}

func (n *Notifier) send(message string) {
	if message == "" {
		return
	}
	if err := n.Socket.Send(message); err != nil && !n.warned {
		n.warned = true
		n.Log.Warn("systemd not notified", slog.String("error", err.Error()))
	}
}
