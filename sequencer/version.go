package sequencer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// runVersion runs the node of the step's version once. It returns nil if the next step is to ask the node what it has
// done.
func (s *sequence) runVersion(step Step) error {
	j, v := step.Version, s.Plan.Versions[step.Version]
	s.completed, s.undo.target = -1, checkpoint.UndoTarget{}
	if s.again != "" {
		if err := s.countRestart(j, s.again); err != nil {
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
	s.undo.watched = s.mayPutBack()
	if err := s.commit(s.record.running(s.Plan, v.Stop, digest), "the node was not started"); err != nil {
		return err
	}
	before := s.durable
	run, err := s.runNode(step)
	if err != nil && run != nil { // something of it is left
		return err
	}
	noted := s.noteEnd(j, run)
	if err != nil {
		return err
	}
	s.durable = Durable{}
	exit := run.process.Exit()
	s.Log.Info("version exited", slog.Int("version", j), slog.String("exit", exit.String()+s.lastReported()), slog.Bool("stop_requested", s.stopping))
	switch {
	case s.stopRequested() && (exit.Status() == 0 || s.stopAt.Sub(s.exitedAt) < stopAgainAfter): // a stop that came much later is not the reason
		return s.stoppedProcess(j, exit, run.kill.fired(), run.stderr)
	case exit.Signal == 0 && exit.Code == 0, run.alarmed && exit.Signal == syscall.SIGTERM:
		s.again, s.ended = run.mayContinue(), run
		return noted // a node that could not be asked before is asked again, too: it may only have failed
	case before.Knowledge == CannotBeAsked && !s.mayPutBackOlder(j) && v.Stop > 0 && run.first == nil && !run.complains():
		return s.mayBeComplete(j, "failed to start ("+exit.String()+")", run.stderr)
	}
	return s.runFailed(j, run, before)
}

// runFailed is the end for a node of version j that failed. before is what was known of the height when it was started.
func (s *sequence) runFailed(j int, run *nodeRun, before Durable) error {
	exit := run.process.Exit()
	f := s.nodeFailed(j, "its node "+exit.String()+s.lastReported(), exit, run.stderr)
	if s.mayPutBack() {
		made, err := s.mayHaveMadeBlocks(j, before)
		switch {
		case made:
			s.undo.mayHaveBlocks = true
			_ = s.noteEnd(j, nil) // the run ends with what the node did
		case err != nil && !s.stopRequested(): // the next start asks
			return f
		}
	}
	return s.undone(j, exit, f)
}

// mayContinue says how the node ended, for the log of its restart in place.
func (n *nodeRun) mayContinue() string {
	if n.alarmed {
		return fmt.Sprintf("was stopped because it reported a height above its stop height %d", n.version.Stop)
	}
	return "exited 0"
}

// complains reports whether the node said what is wrong with its state.
func (n *nodeRun) complains() bool {
	complaint, _ := sovereign.FindComplaint(n.stderr.lastLines(stderrLines))
	return complaint != 0
}

// afterExitZero looks at the last height that a node reported which cannot be asked and has just exited 0.
func (s *sequence) afterExitZero(j int) error {
	v, run := s.Plan.Versions[j], s.ended
	s.ended = nil
	if run == nil || v.Stop == 0 || run.last == nil {
		return nil
	}
	if run.last.Height > v.Stop { // it may only make more of these blocks
		return s.mayBeComplete(j, fmt.Sprintf("reported height %d, above its stop height %d", run.last.Height, v.Stop), run.stderr)
	}
	if s.Slack != nil && run.last.Height >= v.Stop-min(*s.Slack, v.Stop) {
		s.Log.Warn("complete by the height slack", slog.Int("version", j), slog.Uint64("height", run.last.Height), slog.Uint64("stop_height", v.Stop))
		s.bySlack, s.durable = true, Durable{Knowledge: CannotBeAsked}
		return s.commit(s.record.completeByWord(s.Plan), "nothing of a later version was started")
	}
	if run.last.Height == v.Stop {
		return s.mayBeComplete(j, fmt.Sprintf("exited 0 and reported its stop height %d", v.Stop), run.stderr)
	}
	return nil
}

// nodeRun is one run of a node, from its start to its end.
type nodeRun struct {
	child
	version Version
	watch   *watch
	stderr  *tail
	began   time.Time
	// first and last are the first and the last height that it reported, nil for none.
	first, last *Reading
	// alarmed: it reported a height above its stop height, and was stopped.
	alarmed bool
	// pace smooths the rate of its height.
	pace pace
	// queries and failures are how many questions of the watch have been counted.
	queries, failures uint64
	// inspected delivers what inspections in the background have found.
	inspected chan inspected
	// inspecting: the next version is being inspected because its upgrade is near. nextPreflight is when that is due
	// again.
	inspecting    atomic.Bool
	nextPreflight time.Time
	// ctx ends with the node: an inspection in the background is then cut short, so that it does not delay the next start.
	ctx context.Context //nolint:containedctx // it is the life of what the struct stands for
}

// reader gives the reader of the heights of version i's node.
func (s *sequence) reader(i int) (HeightReader, error) {
	reader, err := s.Heights(s.Plan.Versions[i])
	if err != nil {
		return nil, mismatch(FilesInvalid, "%s cannot be watched", s.Plan.Label(i)).because(err).
			safe("it was not started").next("fix its node config and start again")
	}
	return reader, nil
}

// runNode runs the node of the step's version once. It returns when the node has ended and no leftover process of it
// lives.
func (s *sequence) runNode(step Step) (*nodeRun, error) {
	i, v := step.Version, s.Plan.Versions[step.Version]
	s.at, s.height = &i, nil
	reader, err := s.reader(i)
	if err != nil {
		return nil, err
	}
	n := &nodeRun{child: child{s: s, index: i}, version: v, stderr: &tail{}, inspected: make(chan inspected)}
	if s.stranger = reader.Answered(); s.stranger { // nobody would see that it is up
		s.undo.mayHaveBlocks = true
	}
	if err := n.start(step.Start); err != nil {
		return nil, err
	}
	var cancel context.CancelFunc
	n.ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	n.watch = &watch{}
	if s.stranger {
		s.Log.Warn("height unknown", slog.Int("version", i), slog.String("detail", "another process answered on the node's port before the node was started, so heights from that port are ignored"))
	} else {
		n.watch = startWatch(n.ctx, reader, v.Stop, s.record.stamp.Entered)
	}
	n.loop()
	s.exited(n.process.Exit())
	if n.last, _ = n.watch.newest(); n.last != nil {
		s.height = &n.last.Height
	}
	err = s.sweep(i, n.kill)
	// Not before: what a wrapper has left behind may be the real node, which comes up and makes blocks meanwhile.
	n.watch.noteUp(func() { s.undo.mayHaveBlocks = true })
	return n, err
}

func (n *nodeRun) start(from uint64) error {
	s, v := n.s, n.version
	args := sovereign.NodeArgs(v.Config, from, v.Stop, slices.Concat(v.Args, s.NodeArgs)...)
	process, err := s.start(n.index, "node", Command{Path: v.Binary, Args: args, Env: v.Env, Stderr: io.MultiWriter(n.stderr, s.Stderr)})
	if err != nil {
		return err
	}
	n.process, n.began, s.again = process, time.Now(), ""
	s.began(ProcessState{Pid: process.Pid(), Version: n.index, Stranger: s.stranger}, PhaseStarting)
	s.Log.Info("version started", slog.Int("version", n.index), slog.String("name", v.Name), slog.Int("pid", process.Pid()),
		slog.Bool("asserts_start_height", from > 0), slog.Uint64("start_height", v.Start), slog.Uint64("stop_height", v.Stop))
	return nil
}

// loop waits for the end of the node. It never blocks on the node, the network or a reader of our output.
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
		case <-n.watch.up:
			n.s.seenUp()
		case <-n.watch.unanswered:
			n.countQueries()
			n.s.publish()
		case r := <-n.inspected:
			n.s.preflightDone(r.version, r.found)
		case silent := <-n.watch.silent:
			if silent {
				n.s.Log.Warn("height unknown", slog.Int("version", n.index), slog.Float64("seconds", silence.Seconds()))
			} else {
				n.s.Log.Info("height known again", slog.Int("version", n.index))
			}
		case <-n.kill.C:
			n.s.Log.Warn("killing the node", slog.Int("version", n.index), slog.Int("pid", n.process.Pid()))
			n.killOverdue()
		}
	}
}

// signal passes a signal on to the node's process group.
func (n *nodeRun) signal(sig syscall.Signal) {
	if sig == 0 {
		return
	}
	if IsStop(sig) {
		n.s.requestStop(sig)
		n.kill.asks(n.s.StopTimeout)
	}
	n.forward(sig)
}

// reading looks at a height. It is soft-confirmed, so it decides nothing; above the stop height it is an alarm.
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
		n.stop(syscall.SIGTERM)
	}
}
