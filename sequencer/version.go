package sequencer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/sovereign"
)

// runVersion runs the node of the step's version once, and gives nil where what it has done is to be asked and decided.
func (s *sequence) runVersion(step Step) error {
	j, v := step.Version, s.Plan.Versions[step.Version]
	if s.again {
		if err := s.countRestart(j, "exited 0"); err != nil {
			return err
		}
	}
	digest, err := s.sameBinary(j)
	if err != nil {
		return err
	}
	if err := s.sameStorage(j); err != nil {
		return err
	}
	if err := s.commit(s.record.running(s.Plan, v.Stop, digest), "the node was not started"); err != nil {
		return err
	}
	cannotBeAsked := s.durable.Knowledge == CannotBeAsked
	run, err := s.runNode(step)
	if err != nil {
		return err
	}
	s.durable = Durable{}
	exit := run.process.Exit()
	s.Log.Info("version exited", slog.Int("version", j), slog.String("exit", exit.String()+s.lastReported()), slog.Bool("stop_requested", s.stopping))
	switch {
	case s.stopRequested():
		return s.stoppedProcess(j, exit, run.stderr)
	case exit.Signal == 0 && exit.Code == 0, run.alarmed && exit.Signal == syscall.SIGTERM:
		s.again, s.ended = true, run
		return nil // also a node that could not be asked before is asked again: it may only have failed
	case cannotBeAsked && v.Stop > 0 && run.first == nil && !run.complains():
		return s.mayBeComplete(j, "failed to start ("+exit.String()+")", run.stderr.lastLines(stderrLines))
	}
	return s.nodeFailed(j, "its node "+exit.String()+s.lastReported(), exit, run.stderr.lastLines(stderrLines))
}

// complains reports whether the node says what is wrong with its state.
func (n *nodeRun) complains() bool {
	complaint, _ := sovereign.FindComplaint(n.stderr.lastLines(stderrLines))
	return complaint != 0
}

// afterExitZero looks at what a node that cannot be asked last reported, if it has just exited 0.
func (s *sequence) afterExitZero(j int) error {
	v, run := s.Plan.Versions[j], s.ended
	s.ended = nil
	if run == nil || v.Stop == 0 || run.last == nil {
		return nil
	}
	if run.last.Height > v.Stop { // it may only make more of these blocks
		return s.mayBeComplete(j, fmt.Sprintf("reported height %d, above its stop height %d", run.last.Height, v.Stop), run.stderr.lastLines(stderrLines))
	}
	if s.Slack != nil && run.last.Height >= v.Stop-min(*s.Slack, v.Stop) {
		s.Log.Warn("complete by the height slack", slog.Int("version", j), slog.Uint64("height", run.last.Height), slog.Uint64("stop_height", v.Stop))
		s.bySlack, s.durable = true, Durable{Knowledge: CannotBeAsked}
		return s.commit(s.record.completeByWord(s.Plan), "nothing of a later version was started")
	}
	if run.last.Height == v.Stop {
		return s.mayBeComplete(j, fmt.Sprintf("exited 0 and reported its stop height %d", v.Stop), run.stderr.lastLines(stderrLines))
	}
	return nil
}

// nodeRun is one node process, from its start to its end.
type nodeRun struct {
	s       *sequence
	index   int
	version Version
	process Process
	watch   *watch
	stderr  *tail
	// first and last are heights that it reported, nil for none.
	first, last *Reading
	// alarmed: it reported a height above its stop height, and was stopped.
	alarmed bool
	kill    killTimer
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
}

// reader gives the reader of the heights of version i's node.
func (s *sequence) reader(i int) (HeightReader, error) {
	reader, err := s.Heights(s.Plan.Versions[i])
	if err != nil {
		return nil, mismatch(FilesInvalid, "%s cannot be watched", s.Plan.Label(i)).because(err).
			safe("it was not started").next("fix its config and start again")
	}
	return reader, nil
}

// runNode runs the node of the step's version once, and gives all that is known when it has ended and nothing of it is
// left.
func (s *sequence) runNode(step Step) (*nodeRun, error) {
	i, v := step.Version, s.Plan.Versions[step.Version]
	s.at, s.height = &i, nil
	reader, err := s.reader(i)
	if err != nil {
		return nil, err
	}
	n := &nodeRun{s: s, index: i, version: v, stderr: &tail{}}
	s.stranger = reader.Answered()
	if s.stopRequested() {
		return nil, errStopped
	}
	if err := n.start(step.Start); err != nil {
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
	n.watch = &watch{}
	if s.stranger {
		s.Log.Warn("height unknown", slog.Int("version", i), slog.String("detail", "another process answered on the node's port before the node was started; its heights are not believed"))
	} else {
		n.watch = startWatch(ctx, reader, v.Stop)
	}
	n.loop()
	s.exited(n.process.Exit())
	if n.last = n.watch.last(); n.last != nil {
		s.height = &n.last.Height
	}
	return n, s.sweep()
}

func (n *nodeRun) start(from uint64) error {
	s, v := n.s, n.version
	args := sovereign.NodeArgs(v.Config, from, v.Stop, slices.Concat(v.Args, s.NodeArgs)...)
	process, err := s.Processes.Start(Command{Path: v.Binary, Args: args, Env: v.Env, Stderr: io.MultiWriter(n.stderr, s.Stderr)})
	if err != nil {
		return s.startFailure(n.index, "node", err)
	}
	n.process, s.again = process, false
	s.began(ProcessState{Pid: process.Pid(), Version: n.index, Stranger: s.stranger}, PhaseStarting)
	s.Log.Info("version started", slog.Int("version", n.index), slog.String("name", v.Name), slog.Int("pid", process.Pid()),
		slog.Bool("asserts_start_height", from > 0), slog.Uint64("start_height", v.Start), slog.Uint64("stop_height", v.Stop))
	for _, sig := range s.held {
		s.forward(process, n.index, sig)
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
		case <-n.kill.C:
			n.kill.C = nil
			n.s.Log.Warn("killing the node", slog.Int("version", n.index), slog.Int("pid", n.process.Pid()))
			n.s.forward(n.process, n.index, syscall.SIGKILL)
		}
	}
}

// signal passes a signal on to the node's process group.
func (n *nodeRun) signal(sig syscall.Signal) {
	if IsStop(sig) {
		n.s.requestStop(sig)
		if n.s.StopTimeout > 0 {
			n.kill.after(n.s.StopTimeout)
		}
	}
	n.s.forward(n.process, n.index, sig)
}

// forward passes a signal on to the process group of version i's process.
func (s *sequence) forward(p Process, i int, sig syscall.Signal) {
	if err := p.Signal(sig); err != nil {
		s.Log.Debug("signal not delivered", slog.Int("version", i), slog.String("signal", signalName(sig)), slog.String("error", err.Error()))
		return
	}
	s.state.Signals = counted(s.state.Signals, sig)
	s.publish()
	s.Log.Info("signal forwarded", slog.Int("version", i), slog.String("signal", signalName(sig)))
}

// reading looks at a height. It is soft, so it decides nothing; above the stop height it is an alarm. SIGKILL never follows:
// it can damage the state.
func (n *nodeRun) reading(r Reading) {
	if n.first == nil {
		n.first = &r
		n.s.Log.Info("height known", slog.Int("version", n.index), slog.Uint64("height", r.Height))
		n.readAhead()
	}
	if v := n.version; v.Stop > 0 && r.Height > v.Stop && !n.alarmed {
		n.alarmed = true
		n.s.Log.Error("stopping the node", slog.Int("version", n.index),
			slog.String("reason", fmt.Sprintf("it reported height %d, above its stop height %d", r.Height, v.Stop)))
		n.s.forward(n.process, n.index, syscall.SIGTERM)
	}
}

// killTimer fires when SIGKILL is due. The zero value never does.
type killTimer struct {
	C   <-chan time.Time
	due time.Time
}

// after has it fire after limit, unless it is due earlier already.
func (k *killTimer) after(limit time.Duration) {
	due := time.Now().Add(limit)
	if k.C == nil || due.Before(k.due) {
		k.C, k.due = time.After(limit), due
	}
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
