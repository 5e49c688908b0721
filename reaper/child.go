package reaper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit is how a process ended (wait(2)).
type Exit struct {
	Code       int            // 0 to 255, if it exited by itself
	Signal     syscall.Signal // the signal that killed it; 0: it exited by itself
	CoreDumped bool           // the kernel wrote a core dump
}

// newExit translates a wait status of a process that has ended.
func newExit(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Signal: status.Signal(), CoreDumped: status.CoreDump()}
	}
	return Exit{Code: status.ExitStatus()}
}

// Status returns the exit code as shells report it: 0 to 255, or 128+n for a process that was killed by signal n.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// String returns words for a message, such as "exit code 101" or "killed by SIGKILL".
func (e Exit) String() string {
	switch {
	case e.CoreDumped:
		return "killed by " + name(e.Signal) + " (core dumped)"
	case e.Signal != 0:
		return "killed by " + name(e.Signal)
	}
	return "exit code " + strconv.Itoa(e.Code)
}

// Child is a process that [Reaper.Start] started.
type Child struct {
	r       *Reaper
	pid     int
	pumps   []*pump             // of stdout and stderr, those that pass through us
	stopped chan syscall.Signal // the latest stop that nobody has looked at
	done    chan struct{}
	exit    Exit // written before done is closed
	reaped  bool // guarded by r.mu
}

// Pid returns the process number, which is also the number of the process group.
func (c *Child) Pid() int { return c.pid }

// Done is closed when the process has been reaped and everything that it wrote to a pumped stdout or stderr has been
// given to Command.Stdout or Command.Stderr. It does not wait for processes that it left behind.
func (c *Child) Done() <-chan struct{} { return c.done }

// Exit returns how the process ended. It is meaningful once Done is closed.
func (c *Child) Exit() Exit {
	select {
	case <-c.done:
		return c.exit
	default:
		return Exit{}
	}
}

// Signal sends sig to the process group of the child (kill(2) with a negative number). After the child was reaped it
// sends nothing, because the number may belong to another process, and returns [os.ErrProcessDone].
func (c *Child) Signal(sig syscall.Signal) error {
	err := c.kill(-c.pid, sig)
	if errors.Is(err, unix.ESRCH) {
		return c.kill(c.pid, sig) // it has moved itself to another group, but still is our child
	}
	return err
}

// SignalProcess sends sig to the child alone, not to its group. Otherwise it is like Signal.
func (c *Child) SignalProcess(sig syscall.Signal) error { return c.kill(c.pid, sig) }

// kill sends sig to target, which is only known to be the child, or its group, as long as the child is not reaped.
func (c *Child) kill(target int, sig syscall.Signal) error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.reaped {
		return os.ErrProcessDone
	}
	if err := unix.Kill(target, sig); err != nil {
		return fmt.Errorf("cannot send %s to process %d: %w", name(sig), target, err)
	}
	c.r.signals.Add(1)
	return nil
}

// noteStop records that a signal has stopped the child. Only the latest is kept.
func (c *Child) noteStop(sig syscall.Signal) {
	c.r.log.Info("process stopped", "pid", c.pid, "signal", name(sig))
	select {
	case <-c.stopped:
	default:
	}
	c.stopped <- sig // there is room: only the loop sends
}
