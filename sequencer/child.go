package sequencer

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	"rollup-entrypoint/internal/signalname"
)

// child is a process of version index, from its start to its end: a node that runs or is asked, or a migration.
type child struct {
	s       *sequence
	index   int
	process Process
	kill    killTimer
}

// forward passes a signal on to the process group of the child.
func (c *child) forward(sig syscall.Signal) {
	s := c.s
	switch err := c.process.Signal(sig); {
	case errors.Is(err, syscall.EPERM): // it changed its user
		s.undelivered(c.index, sig, err)
		return
	case err != nil: // it has just ended
		s.Log.Debug("signal not delivered", slog.Int("version", c.index), slog.String("signal", signalname.Of(sig)), slog.String("error", err.Error()))
		return
	}
	s.state.Signals = counted(s.state.Signals, sig)
	s.publish()
	s.Log.Info("signal forwarded", slog.Int("version", c.index), slog.String("signal", signalname.Of(sig)))
}

// undelivered notes a signal that the kernel refuses to deliver to a process of version i.
func (s *sequence) undelivered(i int, sig syscall.Signal, err error) {
	s.Log.Error("signal cannot be delivered", slog.Int("version", i), slog.String("signal", signalname.Of(sig)), slog.String("error", err.Error()))
	s.state.Undelivered = counted(s.state.Undelivered, sig)
	s.publish()
}

// stop sends sig, which asks the child to end. SIGKILL is due after --stop-timeout.
func (c *child) stop(sig syscall.Signal) {
	c.kill.asks(c.s.StopTimeout)
	c.forward(sig)
}

// killOverdue kills the child, whose time to stop is over.
func (c *child) killOverdue() {
	c.kill.C = nil
	c.forward(syscall.SIGKILL)
}

// killTimer fires when SIGKILL is due. The zero value never does.
type killTimer struct {
	C   <-chan time.Time
	due time.Time
	// asked: the process was asked to stop.
	asked bool
}

// fired reports whether SIGKILL was due and has been sent.
func (k *killTimer) fired() bool { return k.C == nil && !k.due.IsZero() }

// asks is for a process that is asked to stop: the timer fires after limit, unless it is due earlier already. A limit
// of 0 means never: SIGKILL can damage the state, so nothing but what an operator has set may lead to it.
func (k *killTimer) asks(limit time.Duration) {
	k.asked = true
	k.after(limit)
}

// after makes the timer fire after limit, unless that is 0 or the timer is due earlier already.
func (k *killTimer) after(limit time.Duration) {
	due := time.Now().Add(limit)
	if limit > 0 && (k.due.IsZero() || due.Before(k.due)) {
		k.C, k.due = time.After(limit), due
	}
}
