package reaper

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// The pauses between two looks, for processes whose end nobody tells us because they are not our own children.
	shortestPause = 10 * time.Millisecond
	longestPause  = time.Second

	// emptyLooks is how many looks in a row must have found nothing while something of ours ended in each. A process that
	// moves on into a new one is missed by two of them now and then.
	emptyLooks = 100

	// stuckAfter is how long a process may outlive SIGKILL before it is worth a warning, and another one.
	stuckAfter = 10 * time.Second
)

// Sweep ends what the started processes left behind, and returns how many processes that were. Call it when no Child is
// to survive: a Child that still runs is spared with its group and all below it, but a daemon that cut itself loose
// from it cannot be told from a leftover.
//
// If nothing is left it returns at once. Otherwise every leftover gets SIGTERM and SIGCONT, after the grace period (0:
// at once) SIGKILL, and Sweep waits until none is alive, for ever if need be: for those that the kernel does not let die
// (uninterruptible sleep) it logs a warning every ten seconds. Processes that appear meanwhile are included.
//
// Left behind is whatever is below us in the process tree, since orphans are reparented to us. As process 1 of a
// container we also get the orphans of sessions that entered it from outside, such as `docker exec`; they are spared as
// long as their session leader lives. Without a /proc that fits (proc(5)) only the groups of the started processes are
// ended. The error tells that a process may not be killed by us, that it cannot be known whether one still lives, or
// that the Reaper is closed.
func (r *Reaper) Sweep(grace time.Duration) (n int, err error) {
	childless, err := r.reapNow()
	if childless || err != nil {
		return 0, err
	}
	s := &sweep{r: r, seen: map[processID]bool{}, signalled: map[processID]bool{}}
	err = s.run(grace)
	r.swept.Add(uint64(len(s.seen)))
	return len(s.seen), err
}

// processID names a process for good: its number alone may be used again.
type processID struct {
	pid   int
	start uint64
}

// sweep is the state of one call of Sweep.
type sweep struct {
	r         *Reaper
	seen      map[processID]bool // every leftover that was found alive
	signalled map[processID]bool // those that got the signals of the current phase
	killing   bool               // the grace period is over
	groups    bool               // there is no /proc: leftovers are groups, not processes
	table     map[int]process    // what was read for the latest look
}

// run looks and signals until nothing is left.
func (s *sweep) run(grace time.Duration) error {
	s.killing = grace <= 0
	term := time.NewTimer(grace)
	defer term.Stop()
	stuck := time.NewTicker(stuckAfter)
	defer stuck.Stop()
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		reaped := s.r.nextReap() // before the look, or an end in between would go unnoticed
		left, err := s.look()
		if err != nil || len(left) == 0 {
			return err
		}
		found, err := s.signal(left)
		if err != nil {
			return err
		}
		if found && s.killing {
			continue // without a pause, to outrun one that forks faster than we look
		}
		select {
		case <-reaped:
			pause = shortestPause / 2
		case <-time.After(pause):
		case <-term.C:
			s.killing = true
			clear(s.signalled)
		case <-stuck.C:
			if err := s.warn(left); err != nil {
				return err
			}
		case <-s.r.quit:
			return errClosed
		}
	}
}

// look returns the leftovers. One look may miss a process whose parent forks it and ends while the table is read. Such a
// parent is our child, or becomes it, so "nothing" is believed if wait4 says so, or of a look during which nothing ended
// that is ours to reap: then each of our children was in it. The orphans of a `docker exec` session that goes on and on
// are ours to reap, too, so the looks are bounded.
func (s *sweep) look() ([]process, error) {
	for range emptyLooks {
		reaped := s.r.nextReap()
		if left := s.find(); len(left) > 0 {
			return left, nil
		}
		childless, err := s.r.reapNow()
		if childless || err != nil {
			return nil, err
		}
		select {
		case <-reaped:
		default:
			return nil, nil
		}
	}
	return nil, nil
}

// find returns the leftovers of one look at the process table, or the groups that are left if there is no table.
func (s *sweep) find() []process {
	self, running := unix.Getpid(), s.r.running()
	table, err := readProcesses(s.r.procRoot)
	s.table = table
	if err == nil {
		return leftovers(table, self, running)
	}
	if !s.groups {
		s.groups = true
		s.r.log.Warn("process table unreadable, only process groups are ended", "error", err)
	}
	return s.r.leftGroups()
}

// running returns the numbers of the children that have not been reaped.
func (r *Reaper) running() map[int]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	running := make(map[int]bool, len(r.children))
	for pid := range r.children {
		running[pid] = true
	}
	return running
}

// leftGroups returns the groups that outlived their leaders, each as if it were one process.
func (r *Reaper) leftGroups() []process {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetEmptyGroups()
	var left []process
	for pgid := range r.groups {
		left = append(left, process{pid: -pgid, pgrp: pgid})
	}
	return left
}

// signal sends the signals of the current phase to those that did not get them yet. It reports whether there were any.
func (s *sweep) signal(left []process) (found bool, err error) {
	signals := []unix.Signal{unix.SIGTERM, unix.SIGCONT} // a stopped process would see its SIGTERM only when continued
	if s.killing {
		signals = []unix.Signal{unix.SIGKILL}
		s.killGroups(left)
	}
	for _, p := range left {
		id := processID{p.pid, p.start}
		s.seen[id] = true
		if s.signalled[id] {
			continue
		}
		s.signalled[id], found = true, true
		for _, sig := range signals {
			sent := s.r.signalLeftover(p, sig)
			if s.killing && errors.Is(sent, unix.EPERM) {
				err = fmt.Errorf("cannot end process %d, which was left behind: %w", p.pid, sent)
			}
		}
	}
	return found, err
}

// killGroups kills the groups that consist of leftovers only. A group is killed as one, so that a process which forks and
// ends without pause cannot slip away between two looks. A member was alive in the look just taken, so the number is
// still the group's.
func (s *sweep) killGroups(left []process) {
	others := map[int]int{} // living members that are not left over, by group
	for _, p := range s.table {
		if p.alive() {
			others[p.pgrp]++
		}
	}
	for _, p := range left {
		others[p.pgrp]--
	}
	for _, p := range left {
		// 0 stands for a group outside of our namespace. To kill(2), -0 is our own group, and -1 everybody.
		if p.pgrp > 1 && others[p.pgrp] == 0 {
			_ = unix.Kill(-p.pgrp, unix.SIGKILL)
			s.r.signals.Add(1)
			others[p.pgrp] = -1 // once is enough
		}
	}
}

// signalLeftover sends sig to a process, or to a group if its number is negative. It may have gone since it was seen,
// and its number be in use again. For our own children the mutex excludes that: they keep their numbers until we
// reap them. For those below them a pidfd does: it is opened first, then what it stands for is checked.
func (r *Reaper) signalLeftover(p process, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.pid < 0 {
		r.signals.Add(1)
		return unix.Kill(p.pid, sig)
	}
	fd, openErr := unix.PidfdOpen(p.pid, 0)
	if openErr == nil {
		defer unix.Close(fd)
	}
	if now, err := readProcess(r.procRoot, p.pid); err != nil || now.start != p.start {
		return unix.ESRCH
	}
	r.signals.Add(1)
	if openErr != nil { // before Linux 5.3, or forbidden by a seccomp filter
		return unix.Kill(p.pid, sig)
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// warn logs those that live though they were killed. Of groups we cannot tell whether their members are only zombies,
// whose parents are not us, so there the wait ends.
func (s *sweep) warn(left []process) error {
	pids := make([]int, len(left))
	for i, p := range left {
		pids[i] = p.pid
	}
	if !s.killing {
		return nil
	}
	if s.groups {
		return fmt.Errorf("cannot tell whether process groups %v have ended: %w", pids, errNoProc)
	}
	s.r.log.Warn("processes left behind outlive SIGKILL", "pids", pids)
	return nil
}
