package sequencer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/sovereign"
)

// runVersion runs the version of the record until it is complete, and hands over.
func (s *sequence) runVersion() error {
	i := s.record.VersionIndex
	proof, err := s.complete(i, i > 0 && !s.record.Started)
	if err != nil {
		return err
	}
	return s.handOver(proof)
}

// complete runs the node of version i until its stop height is reached, as often as that takes. assert has it assert
// its start height at the first start.
func (s *sequence) complete(i int, assert bool) (Proof, error) {
	var verify verification
	verifying := false
	for {
		run, err := s.runNode(i, assert, s.phaseOf(i, verifying))
		if err != nil {
			return "", err
		}
		d := Decide(run.evidence)
		if d.Height > 0 {
			s.height = &d.Height
		}
		s.Log.Info("version exited", slog.Int("version", i), slog.String("decision", d.Action.String()), slog.String("reason", d.Reason))
		switch d.Action {
		case Complete:
			return d.Proof, nil
		case Stopped:
			if s.arrived == i && i > 0 && d.Height >= s.Plan.Versions[i].Start {
				_ = s.recordOverrun(i) // it has logged why not
			}
			return "", s.stopped(i, run, d)
		case Verify:
			s.seen(i)
			if !verify.again(run.evidence) {
				return "", s.failure(i, run, Decision{Action: Fail, Code: CodeEarlyExit, Cause: ExitedEarly, Reason: d.Reason + ", again without progress"})
			}
			assert, verifying = false, true
			s.Log.Info("verifying the stop height", slog.Int("version", i), slog.Uint64("stop_height", s.Plan.Versions[i].Stop),
				slog.String("detail", "the node is started once more; that it refuses its stop height as reached is the proof, and no error; otherwise it runs on"))
		case StartWithoutAssertion:
			if s.arrived == i {
				return "", s.foundOverrun(i, run, d.Reason)
			}
			assert = false
		case FinishPrevious:
			if !s.canFinishPrevious(i, d.Height) {
				return "", s.failure(i, run, Decision{Action: Fail, Code: CodeMismatch, Cause: StateBelow, Height: d.Height, Reason: d.Reason})
			}
			if err := s.beginFinishPrevious(d.Height); err != nil {
				return "", err
			}
			if err := s.finishPrevious(); err != nil {
				return "", err
			}
		case Fail:
			return "", s.failure(i, run, d)
		}
	}
}

// phaseOf is what a start of version i's node means to an observer.
func (s *sequence) phaseOf(i int, verifying bool) Phase {
	switch {
	case i < s.record.VersionIndex && s.record.Phase == PhaseFinishingPrevious:
		return PhaseFinishingPrevious
	case verifying || i < s.record.VersionIndex:
		return PhaseVerifying
	}
	return PhaseStarting
}

// verification counts the starts that were made to verify a stop height.
type verification struct {
	tries int // since the last progress
	last  uint64
}

// blindVerifications is how often a node is started to verify while its heights do not tell whether it makes progress.
const blindVerifications = 3

// again reports whether a node that exited 0 may be started to verify: once, and again after each progress.
func (v *verification) again(e Evidence) bool {
	allowed := 1
	if e.Last == nil || e.RateUnknown {
		allowed = blindVerifications
	}
	if e.Last != nil {
		if e.Rose || e.Last.Height > v.last {
			v.tries = 0
		}
		v.last = e.Last.Height
	}
	v.tries++
	return v.tries <= allowed
}

// seen notes that the version of the record has run under our eyes, so that it is known what its state went through.
func (s *sequence) seen(i int) {
	if i == s.record.VersionIndex {
		s.record.Started = true
	}
}

// canFinishPrevious reports whether version i-1 may run on because the state is at height, below version i: only where
// that height is one of its own, never across a migration, and not when it has proven its stop height in this run. Under
// a later checkpoint, which was set by hand then, it may not: nothing would tell whose blocks those are.
func (s *sequence) canFinishPrevious(i int, height uint64) bool {
	return i > 0 && i == s.record.VersionIndex && s.Plan.Versions[i].Migration == "" && !s.record.MigrationCompleted && height+1 >= s.Plan.Versions[i-1].Start && !s.previousProven
}

// beginFinishPrevious records that the version before the record's is about to run on from height, where it was not
// complete.
func (s *sequence) beginFinishPrevious(height uint64) error {
	i := s.record.VersionIndex
	s.Log.Warn("previous version was not complete", slog.Int("version", i-1),
		slog.Uint64("height", height), slog.Uint64("stop_height", s.Plan.Versions[i-1].Stop))
	return s.reopenPrevious()
}

// reopenPrevious records that the version before the record's did not end at its stop height after all, and that the
// blocks that there are, or will be, are its own. Without that a restart would take them for the record's version's.
func (s *sequence) reopenPrevious() error {
	i := s.record.VersionIndex
	s.record.forget(i - 1)
	s.record.Phase, s.record.Started = PhaseFinishingPrevious, false
	return s.save(fmt.Sprintf("nothing of %s was done", s.Plan.label(i)))
}

// foundOverrun ends a run in which the node of version i, started for the first time, found blocks beyond the stop height
// of the version before. The next start must find the same.
func (s *sequence) foundOverrun(i int, run *nodeRun, reason string) error {
	f := s.overrunUnseen(i, run, reason)
	if err := s.recordOverrun(i); err != nil {
		f.Next = "BEFORE anything is started again, " + f.Next
		f.Err = err
	}
	return f
}

// recordOverrun makes durable that there are blocks of version i-1 beyond its stop height. Across a migration there can be
// none: it proves the durable height first.
func (s *sequence) recordOverrun(i int) error {
	if i != s.record.VersionIndex || s.Plan.Versions[i].Migration != "" || s.record.MigrationCompleted {
		return nil
	}
	err := s.reopenPrevious()
	if err != nil {
		s.Log.Warn("checkpoint not written", slog.Int("version", i), slog.String("error", err.Error()))
	}
	return err
}

// finishPrevious has the version before the record's run on until it has proven its stop height, and records that. The
// checkpoint stays at the record's version: it never goes back.
func (s *sequence) finishPrevious() error {
	i := s.record.VersionIndex
	s.arrived = i
	s.Log.Info("previous version runs on", slog.Int("version", i-1), slog.Uint64("stop_height", s.Plan.Versions[i-1].Stop))
	if err := s.completePrevious(i, false); err != nil {
		return err
	}
	s.previousProven = true
	s.record.Phase, s.next = PhaseRunning, NextRun
	return s.save(fmt.Sprintf("%s is complete and nothing of %s was started", s.Plan.label(i-1), s.Plan.label(i)))
}

// completePrevious has version i-1, under the checkpoint of version i, run to its stop height and prove it. assert has it
// assert its start height.
func (s *sequence) completePrevious(i int, assert bool) error {
	if problems := s.Files.Check(s.Plan, i-1); len(problems) > 0 {
		return failf(CodeMismatch, "%s needs %s to prove its stop height first", s.Plan.label(i), s.Plan.label(i-1)).
			because(problems).safe("nothing else was started").next("put the files of %s back and start again", s.Plan.label(i-1))
	}
	if problems := s.verify(i - 1); len(problems) > 0 {
		return failf(CodeMismatch, "%s needs %s to prove its stop height first, and that is not what it is to be", s.Plan.label(i), s.Plan.label(i-1)).
			because(problems).safe("nothing else was started").next("put the right files of %s back and start again", s.Plan.label(i-1))
	}
	// Without a digest the history only tells less.
	digest, _ := s.Files.Digest(s.Plan.Versions[i-1].Binary)
	proof, err := s.complete(i-1, assert)
	if err != nil {
		return err
	}
	s.record.History = append(s.record.clone().History, s.ended(i-1, digest, proof))
	return nil
}

// String names an action in the log.
func (a Action) String() string {
	names := map[Action]string{
		Complete: "complete", Stopped: "stopped as asked", Verify: "verify", Fail: "failed",
		StartWithoutAssertion: "start without start height", FinishPrevious: "finish the previous version",
	}
	return names[a]
}

// handOver records that the version is complete and moves to the next one. It is the only place where the version
// changes, and one durable write.
func (s *sequence) handOver(proof Proof) error {
	i := s.record.VersionIndex
	v := s.Plan.Versions[i]
	after := s.record.clone()
	after.History = append(after.History, s.ended(i, s.record.BinarySHA256, proof))
	s.Log.Info("version completed", slog.Int("version", i), slog.Uint64("height", v.Stop), slog.String("proof", string(proof)))
	if i == s.Plan.Last() {
		after.Phase = PhaseFinished
		s.record, s.next = after, NextFinished
		return s.save(fmt.Sprintf("%s is complete at height %d and the state is safe", s.Plan.label(i), v.Stop))
	}
	next := s.Plan.Versions[i+1]
	if next.Migration != "" && i == 0 && !s.record.Started {
		return s.unknownMigration(v.Stop)
	}
	if problems := s.Files.Check(s.Plan, i+1); len(problems) > 0 {
		return s.cannotFollow(i, problems)
	}
	if problems := s.verify(i + 1); len(problems) > 0 {
		return s.cannotFollow(i, problems)
	}
	after.VersionIndex, after.BinaryPath, after.BinarySHA256 = i+1, next.Binary, ""
	after.Started, after.MigrationCompleted = false, false
	after.Phase, s.next = PhaseRunning, NextRun
	if next.Migration != "" {
		after.Phase, s.next = PhaseMigrating, NextMigrate
	}
	if err := s.addDigest(&after); err != nil {
		return err
	}
	s.record, s.arrived, s.previousProven = after, i+1, false
	s.left = s.exitedAt
	return s.save(fmt.Sprintf("%s is complete at height %d and nothing of %s was started", s.Plan.label(i), v.Stop, s.Plan.label(i+1)))
}

// cannotFollow is the end of a run whose version i is complete, while the files of the next one are not in order.
func (s *sequence) cannotFollow(i int, problems Problems) error {
	return failf(CodeMismatch, "%s is complete at height %d, but %s cannot follow", s.Plan.label(i), s.Plan.Versions[i].Stop, s.Plan.label(i+1)).
		because(problems).safe("nothing of it was started and the checkpoint is unchanged").next("mend its files and start again")
}

// ended is the history's entry for version i, which has ended now. digest may be empty.
func (s *sequence) ended(i int, digest string, proof Proof) Completed {
	v := s.Plan.Versions[i]
	return Completed{
		VersionIndex: i, Name: v.Name, BinaryPath: v.Binary, BinarySHA256: digest, StopHeight: v.Stop, Proof: proof, CompletedAt: recordTime(),
	}
}

// nodeRun is one node process, from its start to its end.
type nodeRun struct {
	s        *sequence
	index    int
	version  Version
	assert   bool
	phase    Phase
	process  Process
	watch    *watch
	stderr   *tail
	first    *Reading // the first height that it told
	evidence Evidence
	// stranger: somebody else answers on the node's port.
	stranger bool
	// doomed is why we end it ourselves, nil where we do not.
	doomed *Failure
	// kill fires when SIGKILL is due.
	kill    <-chan time.Time
	killDue time.Time
	// pace smooths the rate of its height.
	pace pace
	// queries and failures are how many questions of the watch have been counted.
	queries, failures uint64
	// preflight delivers what a preflight of the next version has found, nil while there is none; nextPreflight is when
	// another one is due.
	preflight     <-chan preflights
	nextPreflight time.Time
	// later delivers what was found of the later versions, one after the other.
	later <-chan preflights
	// examine is a preflight of a later version with all of its files compared; it takes long, and is cut short when the
	// node has ended: whoever waits for the next version then shall not wait for that.
	examine func(i int) []Finding
	// nextRecord is when a failed write of "started" is tried again.
	nextRecord time.Time
}

// runNode runs the node of version i once, and gives all that is known when it has ended and nothing of it is left.
// phase is what its start means to an observer.
func (s *sequence) runNode(i int, assert bool, phase Phase) (*nodeRun, error) {
	v := s.Plan.Versions[i]
	s.at = &i
	reader, err := s.Heights(v)
	if err != nil {
		return nil, failf(CodeMismatch, "%s cannot be watched", s.Plan.label(i)).because(err).
			safe("it was not started").next("mend its config and start again")
	}
	n := &nodeRun{s: s, index: i, version: v, assert: assert, phase: phase, stderr: &tail{}, stranger: reader.Answered()}
	if s.stopRequested() {
		return nil, errStopped
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n.examine = func(i int) []Finding {
		found := s.Preflight(i)
		if s.Verify != nil {
			found = slices.Concat(found, s.Verify(ctx, i, true))
		}
		return found
	}
	if n.stranger {
		// Whoever answers there is not our node: its heights would be taken for evidence.
		s.Log.Warn("height unknown", slog.Int("version", i), slog.String("detail", "another process answered on the node's port before the node was started; its heights are not believed"))
		n.watch = &watch{}
	} else {
		n.watch = startWatch(ctx, reader, v.Stop)
	}
	n.loop()
	s.exited(n.process.Exit())
	n.collect()
	if err := s.sweep(); err != nil {
		return nil, err
	}
	if n.doomed != nil {
		n.doomed.Stderr = n.stderr.lastLines(stderrLines)
		return nil, n.doomed
	}
	return n, nil
}

func (n *nodeRun) start() error {
	s, v := n.s, n.version
	var from uint64
	if n.assert {
		from = v.Start
	}
	extra := append(append([]string{}, v.Args...), s.NodeArgs...)
	args := sovereign.NodeArgs(v.Config, from, v.Stop, extra...)
	process, err := s.Processes.Start(Command{Path: v.Binary, Args: args, Env: v.Env, Stderr: io.MultiWriter(n.stderr, s.Stderr)})
	if err != nil {
		return s.startFailure(n.index, "node", err)
	}
	n.process = process
	s.began(ProcessState{Pid: process.Pid(), Version: n.index, Stranger: n.stranger}, n.phase)
	s.Log.Info("version started", slog.Int("version", n.index), slog.String("name", v.Name), slog.Int("pid", process.Pid()),
		slog.Bool("asserts_start_height", n.assert), slog.Uint64("start_height", v.Start), slog.Uint64("stop_height", v.Stop))
	for _, sig := range s.held {
		n.forward(sig)
	}
	s.held = nil
	return nil
}

// loop waits for the end of the node. Nothing in it can block on the node, the network or a reader of our output.
func (n *nodeRun) loop() {
	for {
		select {
		case <-n.process.Done():
			return
		case sig := <-n.s.Signals.Signals():
			n.signal(sig)
		case r := <-n.watch.readings:
			n.observe(r)
			n.reading(r)
		case <-n.watch.unanswered:
			n.countQueries()
			n.s.publish()
		case found := <-n.preflight:
			n.preflight = nil
			n.examined(found)
		case found := <-n.later:
			n.examined(found)
		case silent := <-n.watch.silent:
			if silent {
				n.s.Log.Warn("height unknown", slog.Int("version", n.index), slog.Float64("seconds", silence.Seconds()))
			} else {
				n.s.Log.Info("height known again", slog.Int("version", n.index))
			}
		case <-n.kill:
			n.kill = nil
			n.s.Log.Warn("killing the node", slog.Int("version", n.index), slog.Int("pid", n.process.Pid()))
			n.forward(syscall.SIGKILL)
		}
	}
}

// signal passes a signal on to the node's process group.
func (n *nodeRun) signal(sig syscall.Signal) {
	if IsStop(sig) {
		n.s.requestStop(sig)
		if n.s.StopTimeout > 0 {
			n.killAfter(n.s.StopTimeout)
		}
	}
	n.forward(sig)
}

func (n *nodeRun) forward(sig syscall.Signal) {
	if err := n.process.Signal(sig); err != nil {
		n.s.Log.Debug("signal not delivered", slog.Int("version", n.index), slog.String("signal", signalName(sig)), slog.String("error", err.Error()))
		return
	}
	n.s.state.Signals = counted(n.s.state.Signals, sig)
	n.s.publish()
	n.s.Log.Info("signal forwarded", slog.Int("version", n.index), slog.String("signal", signalName(sig)))
}

// reading looks at a height: is the state where the checkpoint says, and not past the stop height?
func (n *nodeRun) reading(r Reading) {
	v, label := n.version, n.s.Plan.label(n.index)
	if n.first == nil {
		n.first = &r
		if v.Start > 0 && r.Height < v.Start-1 {
			n.end(failf(CodeMismatch, "%s starts at height %d, but its node is at height %d", label, v.Start, r.Height).
				safe("the node was stopped").
				next("restore the state that belongs to the checkpoint, or, to sync again from genesis, delete both"))
			return
		}
		n.s.Log.Info("height known", slog.Int("version", n.index), slog.Uint64("height", r.Height))
		n.readAhead()
	}
	if v.Stop > 0 && r.Height > v.Stop {
		n.end(failf(CodeMismatch, "the node of %s ran past its stop height %d, to height %d", label, v.Stop, r.Height).
			safe("it was stopped and no later version was started").
			next("find out why the node did not stop there; the state above height %d was made by the wrong version and is to be restored from before", v.Stop))
		return
	}
	n.recordStarted(r.At)
}

// recordStarted notes, once, that the node has accepted its start height. A failure to write that does not stop a node
// that runs well: without the note the next start asserts the start height again, is refused, and goes on without.
func (n *nodeRun) recordStarted(now time.Time) {
	s := n.s
	if n.doomed != nil || s.record.Started || s.record.VersionIndex != n.index || now.Before(n.nextRecord) {
		return
	}
	s.record.Started = true
	if err := s.save(""); err != nil {
		s.record.Started = false
		n.nextRecord = now.Add(silence)
		s.Log.Warn("checkpoint not written", slog.Int("version", n.index), slog.String("error", err.Error()))
	}
}

// end stops the node for a reason of ours.
func (n *nodeRun) end(why *Failure) {
	if n.doomed != nil {
		return
	}
	n.doomed = why
	n.s.failed(why)
	n.s.publish()
	n.s.Log.Error("stopping the node", slog.Int("version", n.index), slog.String("reason", why.What))
	n.forward(syscall.SIGTERM)
	n.killAfter(grace)
}

// killAfter has SIGKILL sent after limit, unless it is due earlier already.
func (n *nodeRun) killAfter(limit time.Duration) {
	due := time.Now().Add(limit)
	if n.kill != nil && !due.Before(n.killDue) {
		return
	}
	n.kill, n.killDue = time.After(limit), due
}

// collect gathers the evidence, at once after the exit.
func (n *nodeRun) collect() {
	n.s.stopRequested() // a stop signal that came with the exit counts
	e := Evidence{
		Exit: n.process.Exit(), StopRequested: n.s.stopping, Stop: n.version.Stop, Slack: n.s.Slack,
		ProofNeeded: n.index == n.s.Plan.Last() || n.s.Plan.Versions[n.index+1].Migration != "",
	}
	if n.s.record.Phase == PhaseFinishingPrevious && n.index < n.s.record.VersionIndex {
		// It counted as complete before and was not: now only the durable height counts.
		e.ProofNeeded, e.Slack = true, nil
	}
	if n.assert {
		e.Start = n.version.Start
	}
	var known bool
	if e.Last, e.Rate, known = n.watch.last(); e.Last != nil {
		e.RateUnknown = !known
		e.Age = time.Since(e.Last.At)
		n.s.height = &e.Last.Height
		e.Rose = n.first != nil && e.Last.Height > n.first.Height
	}
	if e.Exit.Code != 0 { // only then a refusal is looked at, and the search is not for nothing
		if refusal, ok := sovereign.ParseRefusal(n.stderr.bytes()); ok {
			e.Refusal = &refusal
		}
	}
	n.evidence = e
}

// sweep ends what the last process left behind, before anything else may start.
func (s *sequence) sweep() error {
	limit := grace
	if s.stopping && s.StopTimeout > 0 {
		limit = min(limit, s.StopTimeout)
	}
	ended, err := s.Processes.Sweep(limit)
	if err != nil {
		return failf(CodeMismatch, "processes that the node left behind cannot be ended").because(err).
			safe("nothing more was started").next("end them, and start again")
	}
	if ended > 0 {
		s.state.Leftovers += uint64(ended)
		s.publish()
		s.Log.Warn("leftover processes ended", slog.Int("count", ended))
	}
	return nil
}

// startFailure is the end for a program that the kernel does not execute.
func (s *sequence) startFailure(i int, what string, err error) error {
	code := CodeNotExecutable
	var start *StartError
	if errors.As(err, &start) {
		code = start.Code
	}
	return failf(code, "the %s of %s cannot be started", what, s.Plan.label(i)).because(err).
		safe("it was not started and the checkpoint is right").next("mend the file and start again")
}
