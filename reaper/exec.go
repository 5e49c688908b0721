package reaper

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecOptions say how Exec forwards signals. The zero value forwards each signal as it is to the process alone.
type ExecOptions struct {
	// Group forwards to the process group instead of the process alone.
	Group bool
	// SignalMap replaces the signals that are its keys by their values; 0: the signal is dropped.
	SignalMap map[syscall.Signal]syscall.Signal
}

// Exec is a whole init: it starts the process, forwards each caught signal to it once until it ends, and returns how
// it ended. Signals that were caught before the start are forwarded after it, in their order. It needs Options.Inbox.
// It does not wait for processes that the command left behind; see Sweep. The error is that of Start.
//
// With Command.Foreground, and Stdin being our controlling terminal, the process gets the terminal, and with it Ctrl-C
// and Ctrl-Z, from the terminal directly and so once. When the process is stopped and a shell with job control is above
// us, we take the terminal back and stop ourselves with our process group; continued, we continue the process. At the
// end the terminal is taken back. Process 1 has nobody above it and is never stopped.
func (r *Reaper) Exec(cmd Command, opts ExecOptions) (Exit, error) {
	if r.ownInbox {
		return Exit{}, errors.New("cannot forward signals: Options.Inbox was not set")
	}
	c, err := r.Start(cmd)
	if err != nil {
		return Exit{}, err
	}
	x := &execution{r: r, c: c, opts: opts}
	if cmd.Foreground {
		if x.tty = openTerminal(orElse(cmd.Stdin, os.Stdin), c.pid); x.tty != nil {
			x.tty.give()
			defer x.tty.takeBack()
		}
	}
	for {
		select {
		case sig := <-r.inbox.Signals():
			x.forward(sig)
		case sig := <-c.stopped:
			x.childStopped(sig)
		case <-c.Done():
			return c.Exit(), nil
		}
	}
}

// execution is one call of Exec.
type execution struct {
	r    *Reaper
	c    *Child
	opts ExecOptions
	tty  *terminal // nil: the child has no terminal from us
}

// forward passes a caught signal on.
func (x *execution) forward(sig syscall.Signal) {
	send := x.c.SignalProcess
	if x.opts.Group {
		send = x.c.Signal
	}
	if sig == unix.SIGCONT && x.tty != nil {
		x.tty.give()      // if a shell has put us in the foreground again; in the background it is not ours
		send = x.c.Signal // Ctrl-Z has stopped the whole group
	}
	to := sig
	if mapped, ok := x.opts.SignalMap[sig]; ok {
		to = mapped
	}
	if to == 0 {
		x.r.log.Debug("signal dropped", "signal", name(sig))
		return
	}
	if err := send(to); err != nil && !errors.Is(err, os.ErrProcessDone) {
		x.r.log.Warn("signal not forwarded", "signal", name(to), "error", err)
	}
}

// childStopped stops us as well, where a shell above waits to see that.
func (x *execution) childStopped(sig syscall.Signal) {
	if x.tty != nil && (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && x.tty.foreground() == x.c.pid {
		// It touched the terminal before we had given it: the new process runs before we can.
		_ = x.c.Signal(unix.SIGCONT)
		return
	}
	if x.tty == nil || os.Getpid() == 1 || !jobControlAbove() {
		x.r.log.Debug("child stopped", "pid", x.c.pid, "signal", name(sig))
		return
	}
	x.tty.takeBack()
	_ = unix.Kill(0, unix.SIGSTOP) // our group, as Ctrl-Z would: a shell waits for every process of a job
}
