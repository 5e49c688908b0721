package reaper

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/signalname"
)

// ExecOptions say how Exec forwards signals. The zero value forwards each signal unchanged to the process alone.
type ExecOptions struct {
	// Group forwards to the process group instead of the process alone.
	Group bool
	// SignalMap replaces each signal that is a key by its value; 0: the signal is dropped.
	SignalMap map[syscall.Signal]syscall.Signal
}

// Exec is a whole init: it starts the process, forwards each caught signal to it once until it ends, and returns how it
// ended. Signals that were caught before the start are forwarded after it, in order. It does not wait for processes
// that the command left behind; see Sweep. The error is that of Start.
//
// With Command.Foreground, if our stdin is our controlling terminal, the process gets the terminal, and so gets Ctrl-C
// and Ctrl-Z once, from the terminal itself. When the process is stopped and a shell with job control is above us, we
// take the terminal back and stop our own process group; when we are continued, we continue the process. At the end we
// take the terminal back. Process 1 has nobody above it and is never stopped.
func (r *Reaper) Exec(cmd Command, opts ExecOptions) (Exit, error) {
	c, err := r.Start(cmd)
	if err != nil {
		return Exit{}, err
	}
	x := &execution{r: r, c: c, opts: opts}
	if cmd.Foreground {
		if x.tty = openTerminal(os.Stdin, c.pid); x.tty != nil {
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

func (x *execution) forward(sig syscall.Signal) {
	send := x.c.SignalProcess
	if x.opts.Group {
		send = x.c.Signal
	}
	if sig == unix.SIGCONT && x.tty != nil {
		x.tty.give()      // if a shell has put us in the foreground again; in the background the terminal is not ours
		send = x.c.Signal // Ctrl-Z has stopped the whole group
	}
	to := sig
	if mapped, ok := x.opts.SignalMap[sig]; ok {
		to = mapped
	}
	if to == 0 {
		x.r.log.Debug("signal dropped", "signal", signalname.Of(sig))
		return
	}
	if err := send(to); err != nil && !errors.Is(err, os.ErrProcessDone) {
		x.r.log.Warn("signal not forwarded", "signal", signalname.Of(to), "error", err)
	}
}

// childStopped stops us too, if a shell above waits for that.
func (x *execution) childStopped(sig syscall.Signal) {
	if x.tty != nil && (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && x.tty.foreground() == x.c.pid {
		// It used the terminal before we gave it: the new process can run before we do.
		_ = x.c.Signal(unix.SIGCONT)
		return
	}
	if x.tty == nil || os.Getpid() == 1 || !jobControlAbove() {
		x.r.log.Debug("child stopped", "pid", x.c.pid, "signal", signalname.Of(sig))
		return
	}
	x.tty.takeBack()
	_ = unix.Kill(0, unix.SIGSTOP) // our group, as Ctrl-Z would: a shell waits for every process of a job
}
