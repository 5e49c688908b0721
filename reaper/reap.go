package reaper

import (
	"errors"

	"golang.org/x/sys/unix"
)

// loop is the only caller of wait4. It reaps once at the beginning, because children may have ended before SIGCHLD was
// caught.
func (r *Reaper) loop() {
	defer close(r.stopped)
	for {
		r.reapAll()
		select {
		case <-r.inbox.children:
		case answer := <-r.ask:
			answer <- r.reapAll()
		case <-r.quit:
			return
		}
	}
}

// reapNow reaps everything that has ended by now, and reports whether no child is left. As process 1 or subreaper we
// have none exactly if nothing is left of all that our processes ever started.
func (r *Reaper) reapNow() (childless bool, err error) {
	answer := make(chan bool, 1)
	select {
	case r.ask <- answer:
		return <-answer, nil
	case <-r.quit:
		return false, errClosed
	}
}

// reapAll reaps until nothing is left to reap: signals coalesce, so one SIGCHLD may mean many deaths.
func (r *Reaper) reapAll() (childless bool) {
	for {
		more, err := r.reapOne()
		if !more {
			return errors.Is(err, unix.ECHILD)
		}
	}
}

// reapOne reaps one process, or notes one stop, and delivers it before the mutex is released. It holds the mutex for
// one process at a time, so that Start and Signal get their turn while many orphans die.
func (r *Reaper) reapOne() (more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG|unix.WUNTRACED, nil)
	if errors.Is(err, unix.EINTR) {
		return true, nil
	}
	if err != nil || pid == 0 {
		return false, err
	}
	c := r.children[pid]
	switch {
	case status.Stopped():
		if c != nil {
			c.noteStop(status.StopSignal())
		}
		return true, nil
	case c != nil:
		r.deliver(c, newExit(status))
	default:
		r.orphans.Add(1)
	}
	r.forgetEmptyGroups()
	close(r.reaped)
	r.reaped = make(chan struct{})
	return true, nil
}

// deliver records the end of a child that was just reaped. The mutex is held.
func (r *Reaper) deliver(c *Child, exit Exit) {
	delete(r.children, c.pid)
	r.groups[c.pid] = c.asked
	c.exit, c.reaped = exit, true
	if len(c.pumps) == 0 {
		close(c.done)
		return
	}
	for _, p := range c.pumps {
		p.childEnded()
	}
	go func() {
		for _, p := range c.pumps {
			<-p.drained
		}
		close(c.done)
	}()
}

// forgetEmptyGroups drops the groups without a member: their numbers may be used again. The mutex is held.
func (r *Reaper) forgetEmptyGroups() {
	for pgid := range r.groups {
		if errors.Is(unix.Kill(-pgid, 0), unix.ESRCH) {
			delete(r.groups, pgid)
		}
	}
}

// nextReap returns a channel that is closed when a process has been reaped after the call.
func (r *Reaper) nextReap() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reaped
}
