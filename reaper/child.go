package reaper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/signalname"
)

// Exit is how a process ended (wait(2)).
type Exit struct {
	Code       int            // 0 to 255, if it exited
	Signal     syscall.Signal // the signal that killed it; 0: it exited
	CoreDumped bool           // the kernel wrote a core dump
}

// newExit translates the wait status of a process that has ended.
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

// String returns words for a message, such as "exited 101" or "killed by SIGKILL".
func (e Exit) String() string {
	switch {
	case e.CoreDumped:
		return "killed by " + signalname.Of(e.Signal) + " (core dumped)"
	case e.Signal != 0:
		return "killed by " + signalname.Of(e.Signal)
	}
	return "exited " + strconv.Itoa(e.Code)
}

// Child is a process that [Reaper.Start] started.
type Child struct {
	r       *Reaper
	pid     int
	pumps   []*pump             // of stdout and stderr, those that pass through us
	stopped chan syscall.Signal // the latest stop that was not taken yet
	done    chan struct{}
	exit    Exit   // written before done is closed
	reaped  bool   // guarded by r.mu, as is asked
	asked   uint64 // the clock tick in which a stop signal was last sent to its group; 0: never
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
//
// If we may signal no member of the group, because they run as other users, the error wraps EPERM. If we may signal one
// there is no error: the kernel skips the others silently.
func (c *Child) Signal(sig syscall.Signal) error {
	err := c.kill(-c.pid, sig)
	if errors.Is(err, unix.ESRCH) {
		return c.kill(c.pid, sig) // it has moved to another group, but is still our child
	}
	return err
}

// SignalProcess sends sig to the child alone, not to its group. Otherwise it is like Signal.
func (c *Child) SignalProcess(sig syscall.Signal) error { return c.kill(c.pid, sig) }

// kill sends sig to target, which is certain to be the child, or its group, only until the child is reaped.
func (c *Child) kill(target int, sig syscall.Signal) error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.reaped {
		return os.ErrProcessDone
	}
	now := clockTick() // before the signal: a process that began earlier got it
	if err := unix.Kill(target, sig); err != nil {
		return c.explainKill(target, sig, err)
	}
	if target == -c.pid && (sig == unix.SIGTERM || sig == unix.SIGINT || sig == unix.SIGQUIT) {
		c.asked = now
	}
	return nil
}

// explainKill turns an error of kill(2) into words.
func (c *Child) explainKill(target int, sig syscall.Signal, err error) error {
	whom, why := fmt.Sprintf("process %d", c.pid), ""
	if target < 0 {
		whom = fmt.Sprintf("process group %d", c.pid)
	}
	if errors.Is(err, unix.EPERM) {
		why = "it runs as another user now, whose processes we may not signal: "
	}
	return fmt.Errorf("cannot send %s to %s: %s%w", signalname.Of(sig), whom, why, err)
}

// noteStop records that a signal has stopped the child. Only the latest is kept.
func (c *Child) noteStop(sig syscall.Signal) {
	c.r.log.Info("process stopped", "pid", c.pid, "signal", signalname.Of(sig))
	select {
	case <-c.stopped:
	default:
	}
	c.stopped <- sig // there is room: only the loop sends
}
