package simulation

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

// leftover is what a process that is no node and no migration does about a stop signal, and without one.
type leftover struct {
	// dies is how long it takes over a stop signal. stubborn: it does nothing about one. forks: it leaves another one
	// behind.
	dies            time.Duration
	stubborn, forks bool
}

// leaveBehind leaves a process with the state open.
func (w *world) leaveBehind(parent *process) {
	w.pids++
	l := &leftover{dies: w.between(time.Millisecond, time.Second), forks: parent.plain == nil && w.trait(leftoverForks, .2)}
	p := &process{
		w: w, e: parent.e, pid: 100 + w.pids, release: parent.release, migrates: parent.migrates, alive: true, notified: true, over: true,
		plain: l, startedAt: time.Now(), overAt: parent.overAt, asked: parent.asked, passedAt: parent.passedAt,
	}
	if w.trait(leftoverSlow, .2) {
		l.dies = w.between(time.Second, 10*time.Minute)
	}
	if l.stubborn = w.trait(leftoverStubborn, .3); l.stubborn && w.rng.IntN(2) == 0 {
		p.later(w.between(time.Second, 20*time.Minute), func() { p.die(sequencer.Exit{}) })
	}
	w.processes = append(w.processes, p)
	w.logf("process %d is left behind", p.pid)
	if p.asked { // it was in the group
		p.receive(syscall.SIGTERM)
	}
	p.tiresome()
}

// outlives has the process that the entrypoint started end, while its work continues: a shell that dies of a signal, or
// a migration that leaves it to a worker.
func (p *process) outlives(exit sequencer.Exit) {
	p.over, p.exit = true, exit
	p.w.logf("process %d %s, and its work continues", p.pid, exit)
	p.ended()
	p.tiresome()
}

// tiresome has somebody stop all where something that is left behind does not end.
func (p *process) tiresome() {
	p.later(p.w.between(time.Minute, 30*time.Minute), func() {
		if !p.e.dead {
			p.w.count(probeStop)
			p.e.arrive(syscall.SIGTERM, "leftovers do not end")
			p.tiresome()
		}
	})
}

// sweep is the wait for what earlier processes left behind.
type sweep struct {
	e        *entrypoint
	ask      bool
	done     chan struct{}
	notified bool
	// seen are all that there were, the oldest first; since has when each of them was first seen.
	seen  []*process
	since []time.Time
	kills bool
	err   error
}

// Sweep implements sequencer.Processes.
func (e *entrypoint) Sweep(ask bool) sequencer.Sweep {
	e.enter("sweep")
	defer e.leave()
	w := e.w
	s := &sweep{e: e, ask: ask, done: make(chan struct{})}
	e.sweeping = s
	for _, p := range slices.Clone(w.processes) {
		s.sees(p)
	}
	if len(s.seen) > 0 && w.fault(sweepFails, .05) {
		s.fails(fmt.Errorf("cannot end process %d, which was left behind: operation not permitted", s.seen[0].pid))
	}
	if s.over() {
		s.notify()
	}
	return s
}

// sees has a process be one that is waited for.
func (s *sweep) sees(p *process) {
	s.seen, s.since = append(s.seen, p), append(s.since, time.Now())
	switch {
	case s.kills:
		s.send(p, syscall.SIGKILL)
	case s.ask && !p.asked:
		s.send(p, syscall.SIGTERM)
	}
}

func (s *sweep) send(p *process, sig syscall.Signal) bool {
	w := s.e.w
	w.logf("process %d, which was left behind, gets %s", p.pid, sig)
	w.checkSignal(p, sig)
	if p.migrates && isStop(sig) && p.passedAt.IsZero() { // the operator's second one, after which the stop timeout runs
		p.passedAt = time.Now()
	}
	if !p.gets(sig) {
		if sig == syscall.SIGKILL {
			s.fails(fmt.Errorf("cannot end process %d: %w", p.pid, syscall.EPERM))
		}
		return false
	}
	return true
}

func (s *sweep) fails(err error) {
	s.err, s.e.sweepFailed = err, true
}

// over: there is nothing to wait for any more.
func (s *sweep) over() bool {
	return s.err != nil || !slices.ContainsFunc(s.seen, func(p *process) bool { return p.alive })
}

func (s *sweep) notify() {
	if !s.notified {
		s.notified = true
		close(s.done)
	}
}

// swept looks after the end of a process whether the sweep waits for anything still.
func (e *entrypoint) swept() {
	s := e.sweeping
	if s == nil || s.notified || e.dead {
		return
	}
	for _, p := range slices.Clone(e.w.processes) {
		if !slices.Contains(s.seen, p) {
			s.sees(p)
		}
	}
	if s.over() && !e.busy {
		s.notify()
	}
}

// Done implements sequencer.Sweep. The sequence asks for it at the begin of each wait.
func (s *sweep) Done() <-chan struct{} {
	s.e.enter("wait for leftovers")
	defer s.e.leave()
	if !s.notified && s.over() {
		s.e.w.exactly(2*s.e.w.soon()-1, func() { // see Signals
			if !s.e.busy {
				s.notify()
			}
		})
	}
	return s.done
}

// Left implements sequencer.Sweep. It is called often, and so is no step.
func (s *sweep) Left() (left []sequencer.Leftover) {
	s.e.w.mu.Lock()
	defer s.e.w.mu.Unlock()
	s.e.endIfDead()
	for i, p := range s.seen {
		if p.alive {
			left = append(left, sequencer.Leftover{Pid: p.pid, Command: "leftover", Since: s.since[i]})
		}
	}
	return left
}

// Signal implements sequencer.Sweep.
func (s *sweep) Signal(sig syscall.Signal) error {
	s.e.enter("signal to leftovers")
	defer s.e.leave()
	s.kills = s.kills || sig == syscall.SIGKILL
	var err error
	for _, p := range slices.Clone(s.seen) {
		if p.alive && !s.send(p, sig) {
			err = syscall.EPERM
		}
	}
	return err
}

// Ended implements sequencer.Sweep.
func (s *sweep) Ended() (int, error) {
	s.e.enter("what was left behind")
	defer s.e.leave()
	if len(s.seen) > 0 {
		s.e.step("after the sweep")
	}
	return len(s.seen), s.err
}

// lockPoll is how often, at most, an entrypoint that waits looks at the lock.
const lockPoll = time.Second

// awaitLock is the next entrypoint, which waits until nothing that a dead one left running holds the state. Where it
// does not end, the operator ends it in the end.
func (w *world) awaitLock() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.processes) == 0 {
		return
	}
	w.logf("the next entrypoint waits for process %d", w.processes[0].pid)
	w.count(w.guard(w.processes[0]))
	if w.fault(powerCutWaiting, .05) {
		w.after(w.between(time.Millisecond, time.Minute), func() { w.powerCut() })
	}
	patience := w.between(10*time.Second, 10*time.Minute)
	began := time.Now()
	for len(w.processes) > 0 && w.violation == nil {
		pause := w.between(time.Millisecond, lockPoll) + time.Duration(1+w.rng.Int64N(999_983))
		w.mu.Unlock()
		time.Sleep(pause)
		w.mu.Lock()
		waited := time.Since(began)
		for _, p := range slices.Clone(w.processes) {
			switch {
			case waited > 2*patience:
				w.count(operatorKills)
				w.logf("operator: kill -9 %d", p.pid)
				p.receive(syscall.SIGKILL)
			case waited > patience && !p.asked:
				w.count(operatorStops)
				w.logf("operator: kill %d", p.pid)
				p.asked = true
				p.receive(syscall.SIGTERM)
			}
		}
		w.check()
	}
}

// guard says what keeps the next entrypoint away from a state on which a process still works. What nothing keeps away,
// the operator does here: the documentation says so.
func (w *world) guard(p *process) fault {
	switch inherits, removed := !w.releases[p.release].closes, w.e.lockLost; {
	case inherits && !removed:
		return waitsForLock
	case inherits && !w.options.nameless:
		return waitsForDirectory
	case !p.over && !removed:
		return waitsForRecord
	}
	return waitsForNothing
}
