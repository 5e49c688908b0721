package reaper

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
	"rollup-entrypoint/internal/signalname"
)

const (
	// The pauses between two looks, for processes that are not our own children, so that their end is not reported to
	// us.
	shortestPause = 10 * time.Millisecond
	longestPause  = time.Second

	// emptyLooks is how many looks in a row must find nothing if something of ours ended during each. Two in a row
	// sometimes miss a process that forks and ends again and again.
	emptyLooks = 100

	// stuckAfter is how long a process may outlive SIGKILL before each warning.
	stuckAfter = 10 * time.Second
)

// Leftover is a process that a started process left behind.
type Leftover struct {
	Pid     int       // negative: a process group, as for kill(2), because /proc cannot be used
	Command string    // comm of proc(5), never the arguments, which may hold secrets; empty for a group
	Since   time.Time // when the Sweep first saw it
}

// Sweep is the wait for what the started processes left behind. Its methods may be called from any goroutine.
type Sweep struct {
	r      *Reaper
	ask    bool
	orders chan order
	done   chan struct{}
	view   atomic.Pointer[[]Leftover] // of the latest look

	// Only the goroutine that waits uses the rest.
	left    []procfs.Process        // those that the latest look found
	table   map[int]procfs.Process  // what was read for it
	reaped  <-chan struct{}         // closed when something was reaped since
	seen    map[processID]time.Time // every leftover that was found alive, and when first
	sent    map[processID]bool      // those that got the signals of the current phase
	killing bool                    // SIGKILL was called for
	hurry   bool                    // the latest look found processes to kill: look again at once
	stuck   <-chan time.Time        // ticks while killing
	groups  bool                    // there is no /proc: leftovers are groups, not processes
	over    bool
	err     error // valid, as seen is, once done is closed
}

// order is a call of Signal.
type order struct {
	sig    syscall.Signal
	answer chan<- error
}

// Sweep begins to wait until everything that the started processes left behind has ended. Call it when no Child should
// survive: a Child that still runs is spared, with its group and all below it, but a daemon that detached from it looks
// like a leftover. If nothing is left, the wait is over when Sweep returns.
//
// If ask is set, each leftover gets SIGTERM and SIGCONT once, when it is first seen. Those that were in the group of a
// child when [Child.Signal] sent a stop signal there get no SIGTERM: they have had theirs, and many programs take a
// second one as "at once". Nothing else is sent except by [Sweep.Signal]. In particular nothing is killed unasked, so a
// wait may last forever.
//
// Left behind is whatever is below us in the process tree, because orphans are reparented to us. Process 1 of a
// container also gets the orphans of sessions that entered it from outside, such as `docker exec`; they are spared as
// long as their session leader lives. If /proc cannot be used (proc(5)), only the groups of the started processes are
// looked for.
func (r *Reaper) Sweep(ask bool) *Sweep {
	s := &Sweep{r: r, ask: ask, done: make(chan struct{})}
	childless, err := r.reapNow()
	s.err, s.over = err, childless || err != nil
	if !s.over {
		s.orders, s.seen, s.sent = make(chan order), map[processID]time.Time{}, map[processID]bool{}
		s.step()
	}
	if s.over {
		close(s.done)
	} else {
		r.sweeps.Go(s.run)
	}
	return s
}

// Done is closed when no leftover is alive, or when that cannot be achieved or known: see Ended.
func (s *Sweep) Done() <-chan struct{} { return s.done }

// Left returns those that were alive at the latest look, at most about a second ago, the oldest process first.
func (s *Sweep) Left() []Leftover {
	if view := s.view.Load(); view != nil {
		return slices.Clone(*view)
	}
	return nil
}

// Ended returns, once Done is closed, how many leftovers there were. The error says that we may not kill one, that it
// cannot be known whether one still lives, or that the Reaper is closed.
func (s *Sweep) Ended() (n int, err error) {
	select {
	case <-s.done:
		return len(s.seen), s.err
	default:
		return 0, nil
	}
}

// Signal sends sig once to each that is left now. SIGKILL also goes to all that appear later; if we may not kill one,
// the wait ends with that error. For those that the kernel does not let die (uninterruptible sleep) a warning is logged
// every ten seconds. After Done there is nothing to send it to, which is no error.
func (s *Sweep) Signal(sig syscall.Signal) error {
	answer := make(chan error, 1)
	select {
	case s.orders <- order{sig, answer}:
		return <-answer
	case <-s.done:
		return nil
	}
}

// run looks and signals until the wait is over.
func (s *Sweep) run() {
	defer close(s.done)
	for pause := shortestPause; !s.over; pause = min(2*pause, longestPause) {
		wait := pause
		if s.hurry {
			wait = 0 // outrun a process that forks faster than we look
		}
		select {
		case <-s.reaped:
			pause = shortestPause / 2
		case <-time.After(wait):
		case o := <-s.orders:
			o.answer <- s.obey(o.sig)
			continue
		case <-s.stuck:
			s.warn()
			continue
		case <-s.r.quit:
			s.err = errClosed
			return
		}
		s.step()
	}
}

// obey does what Signal asks for.
func (s *Sweep) obey(sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		if !s.killing {
			s.killing, s.stuck = true, time.Tick(stuckAfter)
			clear(s.sent)
		}
		s.step()
		return s.err
	}
	s.step()
	var errs []error
	for _, p := range s.left {
		if err := s.r.signalLeftover(p, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("cannot send %s to %s: %w", signalname.Of(sig), describe(p), err))
		}
	}
	return errors.Join(errs...)
}

// step looks once, and sends what is due to new leftovers. The wait is over if there are none, or on an error.
func (s *Sweep) step() {
	s.reaped = s.r.nextReap() // before the look, or an end in between would go unnoticed
	s.left, s.err = s.look()
	s.show()
	s.hurry = false
	switch {
	case s.killing:
		s.kill()
	case s.ask:
		s.askNew()
	}
	s.over = s.over || s.err != nil || len(s.left) == 0
}

// byAge sorts the oldest first. Sorting such a large type with package slices instead would add 20 kB to the program.
type byAge []procfs.Process

func (p byAge) Len() int      { return len(p) }
func (p byAge) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p byAge) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(p[i].Start, p[j].Start), cmp.Compare(p[i].Pid, p[j].Pid)) < 0
}

func (s *Sweep) show() {
	sort.Sort(byAge(s.left))
	view := make([]Leftover, len(s.left))
	for i, p := range s.left {
		since, ok := s.seen[idOf(p)]
		if !ok {
			since = time.Now()
			s.seen[idOf(p)] = since
		}
		view[i] = Leftover{Pid: p.Pid, Command: p.Command, Since: since}
	}
	s.view.Store(&view)
}

// askNew asks those that have not been asked yet to end.
func (s *Sweep) askNew() {
	for _, p := range s.left {
		if s.sent[idOf(p)] {
			continue
		}
		s.sent[idOf(p)] = true
		sig := unix.SIGTERM
		if s.r.hasBeenAsked(p) {
			sig = 0 // only finds out whether we may signal it: if not, the kernel skipped it in its group
		}
		if err := s.r.signalLeftover(p, sig); errors.Is(err, unix.EPERM) {
			s.r.log.Error("leftover process cannot be asked to end", "pid", p.Pid, "command", p.Command, "error", err)
		}
		_ = s.r.signalLeftover(p, unix.SIGCONT) // a stopped process sees its SIGTERM only when continued
	}
}

// kill kills those that have not been killed yet. One that we may not kill is an error, but the others are still
// killed.
func (s *Sweep) kill() {
	s.killGroups()
	for _, p := range s.left {
		if s.sent[idOf(p)] {
			continue
		}
		s.sent[idOf(p)], s.hurry = true, true
		if err := s.r.signalLeftover(p, unix.SIGKILL); errors.Is(err, unix.EPERM) {
			s.err = fmt.Errorf("cannot end %s, which was left behind: %w", describe(p), err)
		}
	}
}

// look returns the leftovers. One look may miss a process whose parent forks it and ends while the table is read. Such
// a parent is our child, or becomes one. So "nothing" is believed if wait4 says that no child is left, or if nothing
// that is ours to reap ended during the look: then each of our children was in it. We also reap the orphans of a
// `docker exec` session that never ends, so the number of looks is bounded.
func (s *Sweep) look() ([]procfs.Process, error) {
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
func (s *Sweep) find() []procfs.Process {
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
func (r *Reaper) leftGroups() []procfs.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetEmptyGroups()
	var left []procfs.Process
	for pgid := range r.groups {
		left = append(left, procfs.Process{Pid: -pgid, Group: pgid})
	}
	return left
}

// hasBeenAsked reports whether p got a stop signal that was sent to its group. That is certain if it began before the
// signal; a fork during the signal passes it on to the new process. /proc gives the start in whole clock ticks: a
// process that began in the tick of the signal may have missed it, and is asked. If it did get it, both come in its
// first hundredth of a second, when there is hardly anything that a second signal would interrupt; a process that is
// never asked might never end. Without /proc the whole group counts as asked: a wait is better than what a second
// signal interrupts.
func (r *Reaper) hasBeenAsked(p procfs.Process) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.groups[p.Group]
	return asked > 0 && p.Start < asked
}

// killGroups kills the groups that consist of leftovers only. A group is killed as a whole, so that a process that
// forks and ends without pause cannot escape between two looks. A member was alive in the latest look, so the number
// still belongs to the group.
func (s *Sweep) killGroups() {
	others := map[int]int{} // living members that are not left over, by group
	for _, p := range s.table {
		if p.Alive() {
			others[p.Group]++
		}
	}
	for _, p := range s.left {
		others[p.Group]--
	}
	for _, p := range s.left {
		// 0 is a group outside of our namespace. To kill(2), -0 is our own group, and -1 everything.
		if p.Group > 1 && others[p.Group] == 0 {
			_ = unix.Kill(-p.Group, unix.SIGKILL)
			others[p.Group] = -1 // once is enough
		}
	}
}

// signalLeftover sends sig to a process, or to a group if its number is negative. The process may have ended since it
// was seen, and its number may be in use again. For our own children the mutex excludes that: they keep their numbers
// until we reap them. For those below them a pidfd does: it is opened first, then the process that it refers to is
// checked.
func (r *Reaper) signalLeftover(p procfs.Process, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Pid < 0 {
		return unix.Kill(p.Pid, sig)
	}
	fd, openErr := unix.PidfdOpen(p.Pid, 0)
	if openErr == nil {
		defer unix.Close(fd)
	}
	if now, err := procfs.Read(r.procRoot, p.Pid); err != nil || now.Start != p.Start {
		return unix.ESRCH
	}
	if openErr != nil { // before Linux 5.3, or forbidden by a seccomp filter
		return unix.Kill(p.Pid, sig)
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// warn logs those that live although they were killed. For a group we cannot know whether its members are only zombies
// that other processes must reap, so there the wait ends.
func (s *Sweep) warn() {
	pids := make([]int, len(s.left))
	for i, p := range s.left {
		pids[i] = p.Pid
	}
	if s.groups {
		s.err, s.over = fmt.Errorf("cannot find out whether process groups %v have ended: %w", pids, procfs.ErrUnusable), true
		return
	}
	s.r.log.Warn("processes left behind outlive SIGKILL", "pids", pids)
}
