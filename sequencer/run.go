package sequencer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer/checkpoint"
)

// errStopped ends a run that was asked to stop and has nothing more to say.
var errStopped = errors.New("stopped as asked")

// Run takes the rollup through the versions of the plan, from the version in its record on. It returns nil when the last
// version is complete, or when it was asked to stop and everything stopped well. Any other end is a *Failure. When it
// returns, no process that it started is alive, unless the Failure names leftover processes of a migration.
func Run(o Options) error {
	s := newSequence(o)
	// Also of a run whose goroutine ends in its middle. flush replaces the follower.
	defer func() { s.follower.finish() }()
	return s.end(s.run())
}

// Report is what is known of a state that no node works on, and what a start would do.
type Report struct {
	Stamp   checkpoint.Stamp
	Durable Durable
	Step    Step
}

// Ask does what Run does up to the first step, and returns that step instead of doing it: it asks the node of the stamped
// version for the height of the state. Like Run it stamps a state that has no stamp yet, if its version is proven.
func Ask(o Options) (Report, error) {
	s := newSequence(o)
	defer func() { s.follower.finish() }()
	s.asksOnly = true
	var step Step
	err := s.prepare(FilesOnly)
	if err == nil && s.durable.Knowledge != NoState { // without a state there is nothing to stamp, and nobody to ask
		err = s.settle()
	}
	if err == nil {
		step, err = s.decide()
	}
	if err = s.end(err); err != nil {
		return Report{}, err
	}
	return Report{Stamp: s.record.stamp, Durable: s.durable, Step: step}, nil
}

func newSequence(o Options) *sequence {
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Observe == nil {
		o.Observe = func(State) {}
	}
	if o.Nonce == nil {
		o.Nonce = randomNonce
	}
	s := &sequence{Options: o, first: map[string]string{}, completed: -1}
	s.follower = newFollower(o.Store, o.Log)
	s.enter(PhasePreparing)
	return s
}

// end waits until the checkpoint is written, and completes a failure.
func (s *sequence) end(err error) error {
	s.keepDamage(err)
	_ = s.onDisk(func() error { s.follower.finish(); return nil }) // a slow disk is named, and a signal is noted
	s.publish()
	for sig, times := range s.state.Undelivered {
		s.Log.Error("signals were not delivered", slog.String("signal", signalname.Of(sig)), slog.Uint64("times", times))
	}
	var f *Failure
	switch {
	case errors.Is(err, errStopped):
		s.Log.Info("stopped", slog.String("reason", "a stop signal was received"))
		return nil
	case errors.As(err, &f):
		f = f.withFiles(s.Plan, s.Checkpoint)
		if s.at != nil && *s.at <= s.Plan.Last() {
			v := s.Plan.Versions[*s.at]
			f.Version, f.Start, f.Stop, f.Height = s.at, v.Start, v.Stop, s.height
		}
		s.failed(f)
		s.enter(PhaseFailed)
	}
	return err
}

// keepDamage records in the checkpoint that the node called its state damaged, so that the next start shows it at once.
func (s *sequence) keepDamage(err error) {
	var f *Failure
	if !errors.As(err, &f) || f.Cause != StateDamaged || s.record.checkpoint.DamageReported || s.storage != "" && !s.stamped {
		return
	}
	next := s.record
	next.checkpoint.DamageReported = true
	_ = s.commit(next, "") // the run ends with what the node said, whether that can be recorded or not
}

// sequence is the state of one run. One goroutine does everything, except that others read heights, inspect files, and make
// the calls of the disk.
type sequence struct {
	Options
	record  record
	durable Durable
	// stamped: the record's stamp is on disk. storage is the directory of the state; if it is not known it is empty, and the
	// stamp is in the checkpoint.
	stamped  bool
	storage  string
	follower *follower
	// keep: the checkpoint is kept under another name before it is corrected.
	keep bool
	// at and height are for a failure: the version that the run is at, and the last height that is known.
	at     *int
	height *uint64
	undo   undo
	// asksOnly: it is Ask, which puts nothing back.
	asksOnly bool
	// completed is the version that was logged as complete; -1 for none.
	completed int
	// stranger: another process answered on the port of the last node before it was started.
	stranger bool
	// bySlack: the stamped version counts as complete by --height-slack.
	bySlack bool
	// restarts are the times of the latest restarts in place. again says why the next start is one; it is empty otherwise.
	restarts []time.Time
	again    string
	// ended is the last run of the stamped version's node, if it exited 0 and has not been asked since.
	ended *nodeRun
	// first has the digest of each binary that was started in this run.
	first map[string]string
	// stopping: a stop was requested, at stopAt.
	stopping bool
	stopAt   time.Time
	state    State
	// exitedAt is when the last process ended. left is when the last one of the version before ended, until the next version
	// has a process; zero otherwise.
	exitedAt, left time.Time
	// askedFor is how long nodes were asked since exitedAt.
	askedFor time.Duration
}

// run decides what to do and does it, until there is nothing left to do.
func (s *sequence) run() error {
	if err := s.prepareUnheld(); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	for {
		step, err := s.decide()
		if err != nil {
			return err
		}
		switch step.Action { //nolint:exhaustive // decide does the others itself
		case Finish:
			return s.finish(step.Version)
		case RunVersion:
			err = s.runVersion(step)
		case EnterVersion:
			err = s.enterVersion(step.Version)
		case MigrateAgain:
			err = s.migrateAgain(step.Version)
		case PutBack:
			err = s.putBackInterrupted(step.Version)
		}
		if err != nil {
			return err
		}
	}
}

// decide gives the next step, and asks for the height of the state if that is needed.
func (s *sequence) decide() (Step, error) {
	for {
		if s.stopRequested() {
			return Step{}, errStopped
		}
		step := Next(s.Plan, s.record.stamp, s.durable, s.mayPutBack())
		if step.Version >= 0 {
			s.at = &step.Version
		}
		switch step.Action {
		case AskVersion:
			if err := s.ask(step.Version); err != nil {
				return Step{}, err
			}
		case Refuse:
			return Step{}, s.refusal(step)
		default:
			s.Log.Debug("next step", slog.String("action", string(step.Action)), slog.Int("version", step.Version))
			return step, nil
		}
	}
}

// prepare finds out which version the state belongs to, and that the plan can be run. It writes nothing.
func (s *sequence) prepare(depth Depth) error {
	if err := s.findUndoPoint(); err != nil {
		return err
	}
	found, err := fromDisk(s, s.Store.Load)
	if err != nil {
		return Unreadable(s.Plan, s.Checkpoint, err, found)
	}
	s.storage = found.Storage
	s.logFound(found)
	at, err := reconcile(s.Plan, found, s.Inspection.Digest)
	if err != nil {
		return err
	}
	for _, n := range at.notes {
		s.Log.Log(context.Background(), n.level, n.message, slog.String("detail", n.detail))
	}
	now := at.record.stamp.VersionIndex
	s.at = &now
	s.record = at.record
	if s.record.checkpoint.NodeUp { // an earlier run saw it, and was killed before the stamp had it
		s.record = s.record.cameUp(s.Plan)
	}
	if found.State == checkpoint.StateNone {
		s.durable = Durable{Knowledge: NoState}
	}
	s.show(s.record) // a hold may keep it from being written for days
	s.keep = at.keep
	if cause := excluded(s.Plan, now); cause != "" { // also for a new chain, which is not even stamped
		return s.refusal(Step{Action: Refuse, Version: now, Cause: cause})
	}
	return s.checkAll(now, depth)
}

// settle writes the record before the first process is started.
func (s *sequence) settle() error {
	if s.keep {
		kept, err := fromDisk(s, s.Store.KeepCheckpoint)
		if err != nil {
			return s.notWritable(err, untouched)
		}
		if kept != "" {
			s.Log.Info("old checkpoint kept", slog.String("file", kept))
		}
	}
	// Both files are written even if they are correct: a kill may have come between the rename and the fsync of the
	// directory, and then a power cut would bring the old stamp back. It also proves that the volume can be written before
	// anything depends on it.
	return s.commitAndWait(s.record, untouched)
}

func (s *sequence) logFound(found checkpoint.Found) {
	if c := found.Checkpoint; c != nil {
		s.Log.Info("checkpoint found", slog.Int("version", c.VersionIndex), slog.String("phase", string(c.Phase)), slog.String("binary", c.BinaryPath))
	} else {
		s.Log.Info("no checkpoint found")
	}
	if stamp := found.Stamp; stamp != nil {
		s.Log.Info("stamp found", slog.Int("version", stamp.VersionIndex), slog.String("name", stamp.Name), slog.String("migration", string(stamp.Migration)))
	}
}

func (s *sequence) finish(i int) error {
	if err := s.commit(s.record.completed(s.Plan, s.proof()), s.Plan.Label(i)+" is complete and the state is safe"); err != nil {
		return err
	}
	s.enter(PhaseFinished)
	s.Log.Info("sequence finished", finishedAttrs(s.Plan, i)...)
	if !s.WaitWhenFinished {
		return nil
	}
	s.Log.Info("waiting for a stop signal")
	for !s.stopping {
		s.note(<-s.Signals.Signals())
	}
	return errStopped
}

func finishedAttrs(plan *Plan, i int) []any {
	attrs := []any{slog.Int("version", i), slog.Uint64("height", plan.Versions[i].Stop)}
	if plan.Brake > 0 {
		attrs = append(attrs, slog.String("detail", fmt.Sprintf("stopped at --stop-height %d: nothing follows until the plan ends this version there", plan.Brake)))
	}
	return attrs
}

// proof is how it is known that the stamped version is complete.
func (s *sequence) proof() checkpoint.Proof {
	switch {
	case s.durable.Knowledge == Asked:
		return checkpoint.ProofDurable
	case s.bySlack:
		return checkpoint.ProofSlack
	}
	return checkpoint.ProofWord
}
