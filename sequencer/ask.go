package sequencer

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// A Sovereign node checks its start height against the durable height of its state before it makes a block or serves a
// request, and refuses with a text that names both. So it is asked with a start height that no chain has. The number is new
// each time: no text that somebody got into a log, a transaction or a database before can contain it.

// nonceBits are the random bits of a nonce. The highest one is always set, so that no chain is ever there.
const nonceBits = 62

// randomNonce is the default of Options.Nonce.
func randomNonce() uint64 {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	return 1<<nonceBits | binary.BigEndian.Uint64(random[:])>>(64-nonceBits)
}

const (
	// questionNote is how long a question may take before that is logged; it is waited for all the same.
	questionNote = 30 * time.Second
	// portPoll is how often it is looked whether a node that is asked has opened its port.
	portPoll = 100 * time.Millisecond
)

// question is one start of a node that is asked for its height.
type question struct {
	s       *sequence
	index   int
	process Process
	said    *sovereign.Question
	tail    *tail
	// cameUp: it accepted a connection. stranger: somebody else did so before it was started.
	cameUp, stranger bool
	kill             killTimer
}

// ask finds out the durable height of the state from the node of version j.
func (s *sequence) ask(j int) error {
	if err := s.lookAgain(j); err != nil || s.durable.Knowledge != NotAsked {
		return err
	}
	if s.Plan.Versions[j].NeverAsk {
		return s.cannotBeAsked(j, "the plan says so")
	}
	if stamp := s.record.stamp; stamp.Complete && stamp.StopHeight != s.Plan.Versions[j].Stop {
		if err := s.commit(s.record.wordDropped(s.Plan), "nothing was started"); err != nil {
			return err
		}
	}
	for {
		q, err := s.askOnce(j)
		if err != nil {
			return err
		}
		switch m := q.meaning(); {
		case s.stopRequested():
			// A refusal is what it was started for.
			return s.stoppedProcess(j, Exit{Signal: q.process.Exit().Signal}, q.tail)
		case m == answered:
			return s.answered(j, q.said.Answer().Height)
		case m == unaskable:
			return s.cannotBeAsked(j, "it gave no answer that is known: "+q.process.Exit().String())
		case m == up:
			return s.cameUp(j, q)
		case m == silent:
			return s.noAnswer(j, q)
		}
		if err := s.countRestart(j, "was asked for its height and exited 0"); err != nil {
			return err
		}
	}
}

// noAnswer is the end for a node that failed when it was asked.
func (s *sequence) noAnswer(j int, q *question) error {
	s.stranger = q.stranger
	f := s.nodeFailed(j, "its node was asked for its height and "+q.process.Exit().String(), q.process.Exit(), q.tail.lastLines(stderrLines))
	if f.Cause == "" && !q.answeredBefore() {
		f.Next += fmt.Sprintf("; if it does not know --start-at-rollup-height, add \"ask\": false to the version in %s", s.Plan.File)
	}
	return f
}

// lookAgain looks at the stamp and the state before a node is asked: another one may have been put there.
func (s *sequence) lookAgain(j int) error {
	if s.storage == "" {
		return nil
	}
	found, err := s.Store.LoadState()
	if err != nil {
		return unreadable(s.Plan, err, checkpoint.Found{Checkpoint: &s.record.checkpoint})
	}
	gone := found.State == checkpoint.StateNone
	switch {
	case gone && (found.Stamp == nil || s.record.checkpoint.Height != nil): // a node that fails before its genesis leaves our stamp, and had no height
		return stateGone(checkpoint.Found{Stamp: &s.record.stamp, Storage: s.storage})
	case found.Stamp == nil:
		return mismatch(OtherState, "the stamp in %s, which this run wrote for %s, is gone: it was removed, or another state was put there", s.storage, s.Plan.Label(j)).
			safe("nothing was started on it").next("restore the state with its stamp, as a whole directory")
	case !sameStamp(*found.Stamp, s.record.stamp):
		return mismatch(OtherState, "the stamp in %s, now of %s, is not the one that this run wrote for %s: another state was put there while it ran",
			s.storage, label(found.Stamp.VersionIndex, found.Stamp.Name), s.Plan.Label(j)).
			safe("nothing was started on it").
			next("if that is the state that is meant, as a whole directory, start again, and its stamp counts; if only the stamp was changed, restore the state first")
	case gone:
		s.durable = Durable{Knowledge: NoState}
	}
	return nil
}

// meaning of a question's end.
type meaning int

const (
	answered  meaning = iota + 1 // it gave its height
	unaskable                    // it does not know the flag, or answers in words that are not known
	up                           // it came up, whatever its start height
	early                        // exit 0: a replica that won the leadership
	silent                       // anything else
)

// meaning says what came of the question: the table of docs/guarantees.md, row by row.
func (q *question) meaning() meaning {
	exit, answer := q.process.Exit(), q.said.Answer()
	switch {
	case answer.Known:
		return answered
	case q.cameUp:
		return up
	case exit.Signal == 0 && exit.Code == 0:
		return early
	case !q.answeredBefore() && exit.Signal == 0 && !answer.Contradicts && (exit.Code == 2 || answer.Echoed):
		return unaskable
	}
	return silent
}

// answeredBefore: this binary has given an answer before, so it can be asked.
func (q *question) answeredBefore() bool {
	return slices.Contains(q.s.record.checkpoint.Answers, q.s.first[q.s.Plan.Versions[q.index].Binary])
}

// askOnce starts the node of version j with a nonce, and waits for its end.
func (s *sequence) askOnce(j int) (*question, error) {
	v := s.Plan.Versions[j]
	s.at = &j
	reader, err := s.reader(j)
	if err != nil {
		return nil, err
	}
	if _, err := s.sameBinary(j); err != nil {
		return nil, err
	}
	if err := s.sameStorage(j); err != nil {
		return nil, err
	}
	nonce := s.Nonce()
	q := &question{s: s, index: j, said: sovereign.NewQuestion(nonce), tail: &tail{}, stranger: reader.Answered()}
	if s.stopRequested() {
		return nil, errStopped
	}
	args := sovereign.NodeArgs(v.Config, nonce, v.Stop, slices.Concat(v.Args, s.NodeArgs)...)
	q.process, err = s.Processes.Start(Command{
		Path: v.Binary, Args: args, Env: slices.Concat(v.Env, sovereign.QuestionEnv()),
		Stdout: io.MultiWriter(q.tail, q.said.Stdout()), Stderr: io.MultiWriter(q.tail, q.said.Stderr()),
	})
	if err != nil {
		return nil, s.startFailure(j, "node", err)
	}
	s.began(ProcessState{Pid: q.process.Pid(), Version: j, Asked: true}, PhaseAsking)
	began := time.Now()
	q.wait(reader)
	s.exited(q.process.Exit())
	s.asked(time.Since(began), q.said.Answer().Known)
	s.Log.Debug("question ended", slog.Int("version", j), slog.String("exit", q.process.Exit().String()), slog.Float64("seconds", time.Since(began).Seconds()),
		slog.String("said", q.tail.lastLines(stderrLines)))
	return q, s.sweep()
}

// wait waits for the end of the node. A node that comes up gets SIGTERM: it must not make blocks by a start height that is
// wrong.
func (q *question) wait(reader HeightReader) {
	port, note := time.NewTicker(portPoll), time.After(questionNote)
	defer port.Stop()
	for {
		select {
		case <-q.process.Done():
			return
		case sig := <-q.s.Signals.Signals():
			q.signal(sig)
		case <-port.C:
			if !q.stranger && !q.cameUp && reader.Answered() {
				q.cameUp = true
				q.s.Log.Error("stopping the node", slog.Int("version", q.index), slog.String("reason", "it was asked with an impossible start height, and came up"))
				q.forward(syscall.SIGTERM)
			}
		case <-note:
			q.s.Log.Warn("question takes long", slog.Int("version", q.index), slog.Int("pid", q.process.Pid()), slog.Float64("seconds", questionNote.Seconds()),
				slog.String("detail", "the node is asked for the height of its state, and has not answered yet"))
		case <-q.kill.C:
			q.kill.C = nil
			q.forward(syscall.SIGKILL)
		}
	}
}

// signal takes a signal while the node is asked: a stop is passed on, anything else is for the node that runs later.
func (q *question) signal(sig syscall.Signal) {
	q.s.note(sig)
	if !IsStop(sig) {
		return
	}
	if q.s.StopTimeout > 0 {
		q.kill.after(q.s.StopTimeout)
	}
	q.forward(sig)
}

func (q *question) forward(sig syscall.Signal) { q.s.forward(q.process, q.index, sig) }

// answered takes the answer.
func (s *sequence) answered(j int, height uint64) error {
	s.durable, s.state.CannotBeAsked = Durable{Knowledge: Asked, Height: height}, false
	s.height, s.ended = &height, nil
	s.Log.Info("height confirmed", slog.Int("version", j), slog.Uint64("height", height))
	return s.commit(s.record.confirmed(s.Plan, height, s.first[s.Plan.Versions[j].Binary]), "nothing was started")
}

// cannotBeAsked notes loudly that the completion of version j will be a person's word.
func (s *sequence) cannotBeAsked(j int, why string) error {
	s.durable = Durable{Knowledge: CannotBeAsked}
	s.state.CannotBeAsked = true
	s.publish()
	s.Log.Warn("node cannot be asked", slog.Int("version", j), slog.String("reason", why),
		slog.String("detail", "it runs without a start height, and at its stop height a person has to say that it is complete"))
	return s.afterExitZero(j)
}

// cameUp is the end for a node that does not check its start height.
func (s *sequence) cameUp(j int, q *question) error {
	f := mismatch(CameUp, "the node of %s was asked with an impossible start height, and came up all the same", s.Plan.Label(j)).
		safe("it was stopped, and nothing of another version was started").
		next("if it is known that this node does not check its start height, add \"ask\": false to the version in %s", s.Plan.File)
	f.Stderr = q.tail.lastLines(stderrLines)
	return f
}

// restartWindow is the time in which restarts in place are counted.
const restartWindow = 10 * time.Minute

// countRestart allows one more start in place of the node of version j, or ends the run.
func (s *sequence) countRestart(j int, what string) error {
	now := time.Now()
	s.restarts = slices.DeleteFunc(s.restarts, func(at time.Time) bool { return now.Sub(at) > restartWindow })
	if len(s.restarts) < s.Restarts {
		s.restarts = append(s.restarts, now)
		s.Log.Info("restarting the node in place", slog.Int("version", j), slog.String("reason", "it "+what), slog.Int("restarts", len(s.restarts)))
		return nil
	}
	at := ""
	if s.durable.Knowledge == Asked {
		at = fmt.Sprintf(" at height %d", s.durable.Height)
	}
	f := failf(CodeEarlyExit, "the node of %s %s%s, and was started again in place %d times within %s",
		s.Plan.Label(j), what, at, len(s.restarts), restartWindow)
	f.Cause = EarlyExits
	return f.safe("nothing of a later version was started and the record is right").
		next("start again; if nobody asked the node to stop, look in its log for the reason")
}

// stoppedProcess is the end of a run whose process had ended after a stop was requested: no failure, unless the process
// failed or something else than the stop killed it.
func (s *sequence) stoppedProcess(j int, exit Exit, said *tail) error {
	if exit.Signal == 0 && exit.Code == 0 || IsStop(exit.Signal) {
		return errStopped
	}
	f := failf(exit.Status(), "%s was asked to stop, and its node %s%s", s.Plan.Label(j), exit, s.lastReported()).
		safe("nothing was started after that, and the record is right").next("start again when you want to")
	f.Stderr = said.lastLines(stderrLines)
	return f
}
