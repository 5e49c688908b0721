package sequencer

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// leftoverLook is how often the published state is brought up to date, leftoverNote how many looks are between two
	// lines of the log.
	leftoverLook = time.Second
	leftoverNote = 60
	// leftoversNamed is how many processes one line of the log names.
	leftoversNamed = 8
)

// leaving is the wait for the leftover processes of one process of a version.
type leaving struct {
	s     *sequence
	index int
	sweep Sweep
	// job is the migration or hook, which only a second, later stop signal interrupts; nil for a node.
	job   *job
	kill  killTimer
	looks int
}

// sweep waits until nothing is left of the last process of version i, before anything else may start. kill is the timer
// of that process: its leftover processes are killed when it would have been.
func (s *sequence) sweep(i int, kill killTimer) error {
	l := s.leaving(i, kill, nil)
	if !kill.asked {
		l.kill.after(s.LeftoverTimeout)
	}
	l.wait(nil)
	_, err := l.end("the node of " + s.Plan.Label(i))
	return err
}

func (s *sequence) leaving(i int, kill killTimer, of *job) *leaving {
	if !kill.due.IsZero() {
		kill.C = time.After(time.Until(kill.due))
	}
	return &leaving{s: s, index: i, sweep: s.Processes.Sweep(of == nil), job: of, kill: kill}
}

// awaitWorkers waits until nothing is left of a migration or hook. If a worker is interrupted, nobody knows what it has
// done. Then, and if it takes too long, a migration stays begun, and a hook is not done.
func (s *sequence) awaitWorkers(j *job) error {
	l := s.leaving(j.index, j.kill, j)
	var late <-chan time.Time
	if s.LeftoverTimeout > 0 {
		late = time.After(s.LeftoverTimeout)
	}
	whose, safe, after := fmt.Sprintf("the migration of %s", s.Plan.Label(j.index)), "the migration is recorded as begun and not as completed, and no node was started",
		"Then it runs the migration again, or ends with 78 if on_interrupted_migration is halt"
	switch {
	case j.hook:
		whose, safe, after = fmt.Sprintf("the hook before %s", s.Plan.Label(j.index)), "the hook is not recorded as done, and no node was started", "Then it runs the hook again"
	case s.mayPutBack():
		after = "Then it puts the undo point back, and runs the migration anew"
	}
	j.alive = true
	if !l.wait(late) {
		return mismatch(WorkersLeft, "%s has ended, but processes that it started still run after %s: %s", whose, s.LeftoverTimeout, inProcesses(l.sweep.Left())).
			safe(safe).next("make the %s wait for everything that it starts, or raise --leftover-timeout. If the entrypoint is process 1, these processes end with the container; otherwise the next start waits for them. %s", j.what(), after)
	}
	ended, err := l.end(whose)
	j.alive = err != nil
	if err == nil && ended > 0 && l.kill.asked {
		next := "start again: on_interrupted_migration of the version decides"
		if j.hook || s.mayPutBack() {
			next = "start again"
		}
		err = mismatch(WorkersLeft, "leftover processes of %s were asked to stop before they had ended", whose).safe(safe).next("%s", next)
	}
	return err
}

// wait waits until nothing is left, and reports whether that happened before late.
func (l *leaving) wait(late <-chan time.Time) (ended bool) {
	select {
	case <-l.sweep.Done():
		return true
	default:
	}
	look := time.NewTicker(leftoverLook)
	defer look.Stop()
	l.show(l.sweep.Left())
	defer l.show(nil)
	for {
		select {
		case <-l.sweep.Done():
			return true
		case <-late:
			return false
		case <-look.C:
			l.look()
		case sig := <-l.s.Signals.Signals():
			l.signal(sig)
		case <-l.kill.C:
			l.kill.C = nil
			l.s.Log.Warn("killing leftover processes", slog.Int("version", l.index), slog.String("processes", inProcesses(l.sweep.Left())))
			l.send(syscall.SIGKILL)
		}
	}
}

// look shows what is left, and names it in the log now and then.
func (l *leaving) look() {
	left := l.sweep.Left()
	l.show(left)
	if l.looks%leftoverNote == 0 && len(left) > 0 {
		l.s.Log.Warn("leftover processes still run", slog.Int("version", l.index), slog.String("processes", inProcesses(left)),
			slog.String("detail", "nothing is started until they have ended"))
	}
	l.looks++
}

// signal takes a signal. Leftover processes of a node were already asked to end, so the first stop signal only starts
// the time after which they are killed.
func (l *leaving) signal(sig syscall.Signal) {
	switch {
	case l.job != nil:
		if l.job.interrupts(sig) {
			l.kill.asks(l.s.StopTimeout)
			l.send(sig)
		}
	case IsStop(sig):
		again := l.s.stopsAgain(sig)
		l.kill.asks(l.s.StopTimeout)
		if again {
			l.send(sig)
		}
	default:
		l.s.note(sig)
	}
}

func (l *leaving) send(sig syscall.Signal) {
	if err := l.sweep.Signal(sig); err != nil {
		l.s.undelivered(l.index, sig, err)
	}
}

func (l *leaving) show(left []Leftover) {
	if !slices.Equal(left, l.s.state.Left) {
		l.s.state.Left = left
		l.s.publish()
	}
}

// end gives how many there were; whose says who left them behind.
func (l *leaving) end(whose string) (ended int, err error) {
	ended, err = l.sweep.Ended()
	if err != nil {
		return 0, failf(CodeMismatch, "leftover processes of %s cannot be ended", whose).because(err).
			safe("nothing more was started").next("end them, and start again")
	}
	if ended > 0 {
		l.s.state.Leftovers += uint64(ended)
		l.s.publish()
		l.s.Log.Warn("leftover processes ended", slog.Int("version", l.index), slog.Int("count", ended))
	}
	return ended, nil
}

func inProcesses(left []Leftover) string {
	var names []string
	for _, p := range left[:min(len(left), leftoversNamed)] {
		names = append(names, fmt.Sprintf("%d (%s) for %s", p.Pid, p.Command, time.Since(p.Since).Round(time.Second)))
	}
	if more := len(left) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}
