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
// request. If they differ, it refuses with a text that names both. So we ask it with a start height that no chain has.
// The number is new each time: no text that somebody got into a log, a transaction or a database before can contain it.

// nonceBits are the random bits of a nonce. The bit above them is always set, so that no chain ever gets there.
const nonceBits = 62

// randomNonce is the default of Options.Nonce.
func randomNonce() uint64 {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	return 1<<nonceBits | binary.BigEndian.Uint64(random[:])>>(64-nonceBits)
}

const (
	// questionNote is how long a question may take before that is logged. We wait for its end all the same.
	questionNote = 30 * time.Second
	// portPoll is how often we look whether a node that is asked has opened its port.
	portPoll = 100 * time.Millisecond
)

// question is one start of a node that is asked for its height.
type question struct {
	child
	said *sovereign.Question
	tail tail
	// cameUp: it accepted a connection. stranger: another process did so before it was started.
	cameUp, stranger bool
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
		exit, answer := q.process.Exit(), q.said.Answer()
		if q.mayHaveRun() {
			s.undo.mayHaveBlocks, s.undo.target = true, checkpoint.UndoTarget{} // a copy from before it is none of this state
			if err := s.noteEnd(j, nil); err != nil {
				return err
			}
		}
		switch { // the table of docs/how-an-upgrade-is-decided.md, row by row
		case s.stopRequested(): // a refusal is what it was started for
			return s.stoppedProcess(j, Exit{Signal: exit.Signal}, q.kill.fired(), &q.tail)
		case answer.Known:
			return s.answered(j, answer.Height)
		case q.cameUp:
			return s.cameUp(j, q)
		case exit.Status() == 0: // a replica that won the leadership
			if err := s.countRestart(j, "was asked for its height and exited 0"); err != nil {
				return err
			}
		case exit.Signal == 0 && (exit.Code == 2 || answer.Echoed) && !answer.Contradicts && !q.answeredBefore():
			return s.cannotBeAsked(j, "it gave no known answer: "+exit.String())
		default:
			return s.undone(j, exit, s.noAnswer(j, q))
		}
	}
}

// mayHaveRun reports whether the node may have made blocks in place of an answer: it came up, or another process on its
// port would have hidden that, or it exited 0, and may have been at its stop height before anybody saw that it was up.
func (q *question) mayHaveRun() bool {
	return q.cameUp || q.process.Exit().Status() == 0 || q.stranger && !q.said.Answer().Known
}

// noAnswer is the end for a node that failed when it was asked.
func (s *sequence) noAnswer(j int, q *question) error {
	s.stranger = q.stranger
	f := s.nodeFailed(j, "its node was asked for its height and "+q.process.Exit().String(), q.process.Exit(), &q.tail)
	if f.Cause == "" && !q.answeredBefore() {
		f.Next += fmt.Sprintf("; if it does not know --start-at-rollup-height, add \"ask\": false to the version in %s", s.Plan.File)
	}
	return f
}

// lookAgain looks at the stamp and the state before a node is asked: another state may have been put there.
func (s *sequence) lookAgain(j int) error {
	if s.storage == "" {
		return nil
	}
	found, err := fromDisk(s, s.Store.LoadState)
	if err != nil {
		return Unreadable(s.Plan, s.Checkpoint, err, checkpoint.Found{Checkpoint: &s.record.checkpoint})
	}
	gone := found.State == checkpoint.StateNone
	switch {
	case gone && (found.Stamp == nil || s.record.checkpoint.Height != nil): // a node that fails before its genesis leaves our stamp, and had no height
		return stateGone(checkpoint.Found{Stamp: &s.record.stamp, Storage: s.storage})
	case found.Stamp == nil:
		return mismatch(OtherState, "the stamp in %s, which this run wrote for %s, is gone: it was removed, or another state was put in its place", s.storage, s.Plan.Label(j)).
			safe("nothing was started on it").next("restore the state with its stamp, as a whole directory")
	case !found.Stamp.Same(s.record.stamp):
		return s.otherStamp(j, found.Stamp)
	case gone:
		s.durable = Durable{Knowledge: NoState}
	}
	return nil
}

// otherStamp is the end of a run that finds another stamp than the one it wrote for version j.
func (s *sequence) otherStamp(j int, now *checkpoint.Stamp) error {
	return mismatch(OtherState, "the stamp in %s names %s now, and is not the one that this run wrote for %s: another state was put in its place during the run",
		s.storage, label(now.VersionIndex, now.Name), s.Plan.Label(j)).
		safe("nothing was started on it").
		next("if that is the state that you want, as a whole directory, start again: its stamp takes precedence; if only the stamp was changed, restore the state first")
}

// answeredBefore reports whether this binary has given an answer before, so that it can be asked.
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
	q := &question{child: child{s: s, index: j}, said: sovereign.NewQuestion(nonce), stranger: reader.Answered()}
	args := sovereign.NodeArgs(v.Config, nonce, v.Stop, slices.Concat(v.Args, s.NodeArgs)...)
	q.process, err = s.start(j, "node", Command{
		Path: v.Binary, Args: args, Env: slices.Concat(v.Env, sovereign.QuestionEnv()),
		Stdout: io.MultiWriter(&q.tail, q.said.Stdout()), Stderr: io.MultiWriter(&q.tail, q.said.Stderr()),
	})
	if err != nil {
		return nil, err
	}
	s.began(ProcessState{Pid: q.process.Pid(), Version: j, Asked: true}, PhaseAsking)
	began := time.Now()
	q.wait(reader)
	s.exited(q.process.Exit())
	s.asked(time.Since(began), q.said.Answer().Known)
	s.Log.Debug("question ended", slog.Int("version", j), slog.String("exit", q.process.Exit().String()), slog.Float64("seconds", time.Since(began).Seconds()),
		slog.String("said", q.tail.lastLines(stderrLines)))
	return q, s.sweep(j, q.kill)
}

// wait waits for the node's end. One that comes up gets SIGTERM: it must not make blocks from a wrong start height.
func (q *question) wait(reader HeightReader) {
	pause := portPoll
	if q.s.record.stamp.Entered { // whether it makes blocks decides what is undone
		pause = pollFast
	}
	port, note := time.NewTicker(pause), time.After(questionNote)
	defer port.Stop()
	for {
		select {
		case <-q.process.Done():
			return
		case sig := <-q.s.Signals.Signals():
			if q.s.note(sig); IsStop(sig) { // anything else is dropped
				q.stop(sig)
			}
		case <-port.C:
			if !q.stranger && !q.cameUp && reader.Answered() {
				q.cameUp = true
				q.s.Log.Error("stopping the node", slog.Int("version", q.index), slog.String("reason", "it was started only to report its height, and ran instead"))
				q.stop(syscall.SIGTERM)
			}
		case <-note:
			q.s.Log.Warn("question takes long", slog.Int("version", q.index), slog.Int("pid", q.process.Pid()), slog.Float64("seconds", questionNote.Seconds()),
				slog.String("detail", "the node is asked for the height of its state, and has not answered yet"))
		case <-q.kill.C:
			q.killOverdue()
		}
	}
}

func (s *sequence) answered(j int, height uint64) error {
	s.durable, s.state.CannotBeAsked = Durable{Knowledge: Asked, Height: height}, false
	s.height, s.ended = &height, nil
	r := s.record
	// A height that is not above that of the undo point proves nothing: what a node has served is durable only later.
	if point := s.undo.point; s.pointIsOfStamp() && point.Height != nil && height > *point.Height {
		s.undo.mayHaveBlocks, r = true, r.cameUp(s.Plan)
	}
	s.Log.Info("height confirmed", slog.Int("version", j), slog.Uint64("height", height))
	return s.commit(r.confirmed(s.Plan, height, s.first[s.Plan.Versions[j].Binary]), "nothing was started")
}

// cannotBeAsked says loudly that a person will have to say when version j is complete.
func (s *sequence) cannotBeAsked(j int, why string) error {
	s.durable = Durable{Knowledge: CannotBeAsked}
	s.state.CannotBeAsked = true
	s.publish()
	s.Log.Warn("node cannot be asked", slog.Int("version", j), slog.String("reason", why),
		slog.String("detail", "it runs without a start height, and at its stop height a person must say that it is complete"))
	return s.afterExitZero(j)
}

// cameUp is the end for a node that does not check its start height.
func (s *sequence) cameUp(j int, q *question) error {
	return mismatch(CameUp, "the node of %s was started only to report its height, with a start height that it should have refused, and ran instead", s.Plan.Label(j)).wrote(&q.tail).
		safe("it was stopped; it may have made blocks of its own version; nothing of another version was started").
		next("if it never checks its start height, add \"ask\": false to the version in %s; otherwise look in its log", s.Plan.File)
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
	return f.safe("nothing of a later version was started; stamp and checkpoint are correct").
		next("start again; if nobody asked the node to stop, look in its log for the reason")
}
