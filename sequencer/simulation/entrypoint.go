package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

// entrypoint is one run of the sequence, and all that it sees of the world: it is its Processes, SignalSource, Files,
// Store, HeightReader and log.
//
// The run calls it from one goroutine. Each call, and each step of a write, is a step at which the entrypoint can be
// killed: the call then never returns but ends the goroutine, which also runs what the sequence has deferred.
type entrypoint struct {
	w       *world
	dead    bool
	steps   int
	started []*process
	current *process
	// busy: the run is inside a call that takes time, so it is in no select.
	busy    bool
	signals chan syscall.Signal
	pending []syscall.Signal // sent to us and not yet taken
	ended   chan struct{}
	err     error
	// returned: Run returned; otherwise it was killed.
	returned bool
	// finished: it said that the last version is complete.
	finished bool

	// What is to happen at which step; -1 for never.
	killAt, cutAt, signalAt int

	// What is wrong for as long as this run lasts.
	missing      int // the version whose files are missing, -1 for none
	missingLate  bool
	unreadable   int // the version whose config cannot be read, -1 for none
	stranger     bool
	strangerBind bool

	// What happened, as the invariants need it.
	stopAt         time.Time // the first stop signal arrived
	stopArrived    bool
	stopsTaken     int  // how many the sequence has taken
	stopWasVisible bool // the sequence has looked for signals after one had arrived
	last           *process
	lastAfterStop  bool // the last exit came after a stop signal
	startCode      int
	saveFailed     bool
	loadFailed     bool
	sweepFailed    bool
	haltExpected   bool
}

func (w *world) newEntrypoint() *entrypoint {
	e := &entrypoint{
		w: w, signals: make(chan syscall.Signal), ended: make(chan struct{}), killAt: -1, cutAt: -1, signalAt: -1, missing: -1, unreadable: -1,
	}
	w.e = e
	return e
}

func (e *entrypoint) options() sequencer.Options {
	w := e.w
	o := sequencer.Options{
		Plan: w.plan, Store: e, Processes: e, Signals: e, Files: e, Log: slog.New(logHandler{e}),
		Slack: w.options.slack, StopTimeout: w.options.stopTimeout, WaitWhenFinished: w.options.waitWhenFinished,
	}
	if w.options.withoutCheckpoint {
		o.Store = nil
	}
	o.Heights = e.heights
	return o
}

// run is the goroutine of the run.
func (e *entrypoint) run() {
	defer close(e.ended)
	err := sequencer.Run(e.options())
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if !e.dead {
		e.err, e.returned = err, true
	}
}

// enter begins a call of the run: it locks the world, unless the entrypoint is dead or dies here.
func (e *entrypoint) enter(what string) {
	e.w.mu.Lock()
	alive := false
	defer func() {
		if !alive {
			e.w.mu.Unlock()
		}
	}()
	e.step(what)
	alive = true
}

// step is a point at which the entrypoint can die inside a call, whose deferred leave unlocks the world.
func (e *entrypoint) step(what string) {
	e.endIfDead()
	w := e.w
	n := e.steps
	e.steps++
	w.steps++
	switch n {
	case e.killAt:
		w.count(killAtStep)
		w.kill("killed at: " + what)
	case e.cutAt:
		w.count(powerCutAtStep)
		w.logf("at: %s", what)
		w.powerCut()
	case e.signalAt:
		w.count(signalAtStep)
		e.arrive(w.anySignal(), "at: "+what)
	}
	e.endIfDead()
}

func (e *entrypoint) endIfDead() {
	if e.dead {
		runtime.Goexit()
	}
}

func (e *entrypoint) leave() {
	e.w.check()
	e.w.mu.Unlock()
}

// takes lets time pass inside a call. Events of the world happen meanwhile, and the entrypoint may be dead after it.
func (e *entrypoint) takes(d time.Duration) {
	w := e.w
	d += time.Duration(1 + w.rng.Int64N(999_983))
	e.busy = true
	w.mu.Unlock()
	time.Sleep(d)
	w.mu.Lock()
	e.busy = false
	e.endIfDead()
}

// Start implements sequencer.Processes.
func (e *entrypoint) Start(c sequencer.Command) (sequencer.Process, error) {
	w := e.w
	w.mu.Lock()
	defer e.leave()
	e.endIfDead()
	w.checkStart(e, c)
	e.step("before the start of " + c.Path)
	if w.fault(startRefused, .01) {
		e.startCode = []int{sequencer.CodeNotExecutable, sequencer.CodeNotFound}[w.rng.IntN(2)]
		w.logf("%s cannot be executed", c.Path)
		return nil, &sequencer.StartError{Code: e.startCode, Err: errors.New("fork/exec: resource temporarily unavailable")}
	}
	p := w.exec(e, c)
	e.started, e.current = append(e.started, p), p
	e.step("after the start of " + c.Path)
	if w.rng.IntN(4) == 0 {
		e.takes(w.between(100*time.Microsecond, 20*time.Millisecond))
	}
	return p, nil
}

// Sweep implements sequencer.Processes.
func (e *entrypoint) Sweep(grace time.Duration) (int, error) {
	e.enter("sweep")
	defer e.leave()
	w := e.w
	if len(w.processes) == 0 {
		return 0, nil
	}
	left := w.processes[0]
	if w.fault(sweepFails, .05) {
		e.sweepFailed = true
		return 0, fmt.Errorf("cannot end process %d, which was left behind: operation not permitted", left.pid)
	}
	e.takes(min(left.dies, grace))
	w.logf("process %d, which was left behind, ends", left.pid)
	left.remove()
	e.step("after the sweep")
	return 1, nil
}

// Signals implements sequencer.SignalSource.
func (e *entrypoint) Signals() <-chan syscall.Signal {
	e.enter("wait")
	defer e.leave()
	if len(e.pending) > 0 {
		// Never at the instant at which the select begins, nor with the end of a process: Go would choose at random.
		e.w.exactly(2*e.w.soon(), e.flush)
	}
	return e.signals
}

// soon is 1 to 4 ns.
func (w *world) soon() time.Duration { return time.Duration(1 + w.rng.IntN(4)) }

// TryTake implements sequencer.SignalSource.
func (e *entrypoint) TryTake() (syscall.Signal, bool) {
	e.enter("look for signals")
	defer e.leave()
	e.stopWasVisible = e.stopArrived
	if len(e.pending) == 0 {
		return 0, false
	}
	return e.take(), true
}

func (e *entrypoint) take() syscall.Signal {
	sig := e.pending[0]
	e.pending = e.pending[1:]
	if isStop(sig) {
		e.stopsTaken++
	}
	return sig
}

// arrive is a signal to the entrypoint.
func (e *entrypoint) arrive(sig syscall.Signal, why string) {
	w := e.w
	w.logf("signal %s to the entrypoint, %s", sig, why)
	if isStop(sig) {
		w.checkStopArrives(e.current)
		w.count(stopSignal)
		if e.stopArrived {
			w.count(secondStop)
		} else {
			e.stopArrived, e.stopAt = true, time.Now()
			w.checkStopTimeout(e.current)
			w.after(w.between(20*time.Second, 90*time.Second), func() {
				if w.e == e && !e.dead && !e.returned {
					w.count(orchestratorKill)
					w.kill("did not stop in time")
				}
			})
		}
	} else {
		w.count(otherSignal)
	}
	if !slices.Contains(e.pending, sig) { // as the kernel does with pending signals
		e.pending = append(e.pending, sig)
	}
	e.flush()
}

// flush hands the oldest signal to the run if that waits for one.
func (e *entrypoint) flush() {
	if e.dead || e.busy || len(e.pending) == 0 {
		return
	}
	select {
	case e.signals <- e.pending[0]:
		e.take()
	default:
	}
}

func isStop(sig syscall.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
}

// anySignal draws a signal; TERM is what orchestrators send.
func (w *world) anySignal() syscall.Signal {
	all := []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1}
	return all[w.rng.IntN(len(all))]
}

// Check implements sequencer.Files.
func (e *entrypoint) Check(plan *sequencer.Plan, i int) sequencer.Problems {
	e.enter("check of the files")
	defer e.leave()
	if e.isMissing(i) {
		return sequencer.Problems{fmt.Sprintf("version %d: rollup_binary: %s: no such file", i, plan.Versions[i].Binary)}
	}
	return nil
}

// isMissing: the files of version i are not there now.
func (e *entrypoint) isMissing(i int) bool {
	return i == e.missing && (!e.missingLate || len(e.started) > 0)
}

// Digest implements sequencer.Files. It is also called beside the run, to read the next version ahead: that is no step.
func (e *entrypoint) Digest(binary string) (string, error) {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if ahead := e.current != nil && e.current.alive; !ahead {
		e.step("digest")
		if w.rng.IntN(10) == 0 {
			e.takes(w.between(time.Millisecond, 2*time.Second))
		}
	}
	return "sha of " + binary, nil
}

// EmptyState implements sequencer.Files.
func (e *entrypoint) EmptyState(string) (string, bool) {
	e.enter("look at the state")
	defer e.leave()
	return "/data/state", !e.w.state.exists
}

// Load implements sequencer.Store.
func (e *entrypoint) Load() (sequencer.Checkpoint, bool, error) {
	e.enter("load")
	defer e.leave()
	w := e.w
	if w.fault(loadFails, .02) {
		e.loadFailed = true
		return sequencer.Checkpoint{}, false, errors.New("cannot read the checkpoint: input/output error")
	}
	c, err := w.disk.load()
	if c == nil {
		e.loadFailed = err != nil
		return sequencer.Checkpoint{}, false, err
	}
	return *c, true, nil
}

// Save implements sequencer.Store, in the steps of FileStore.
func (e *entrypoint) Save(c sequencer.Checkpoint) error {
	e.enter("save: before the temporary file")
	defer e.leave()
	w := e.w
	pause := w.rng.IntN(8)
	fails := func(what fault) error {
		if w.fault(what, .008) {
			return e.saveFails("input/output error")
		}
		return nil
	}
	if w.fault(diskFull, .01) {
		w.full = time.Now().Add(w.between(100*time.Millisecond, 30*time.Second))
		w.logf("the disk is full for %s", time.Until(w.full).Round(time.Millisecond))
	}
	if time.Now().Before(w.full) {
		return e.saveFails("no space left on device")
	}
	text, err := sequencer.EncodeCheckpoint(c)
	if err != nil {
		return err //nolint:wrapcheck // as FileStore does
	}
	if err := fails(diskTempFails); err != nil {
		return err
	}
	e.saveTakes(pause == 0)
	e.step("save: temporary file written")
	if err := fails(diskSyncFails); err != nil {
		return err
	}
	e.saveTakes(pause == 1)
	e.step("save: temporary file synced")
	if err := fails(diskRenameFails); err != nil {
		return err
	}
	w.disk.visible = text
	w.checkSave(c)
	e.saveTakes(pause == 2)
	e.step("save: renamed")
	if err := fails(diskDirSyncFails); err != nil {
		return err
	}
	e.saveTakes(pause == 3)
	w.disk.durable = text
	w.saved(c)
	e.step("save: directory synced")
	return nil
}

func (e *entrypoint) saveFails(why string) error {
	e.saveFailed = true
	e.w.logf("save fails: %s", why)
	return errors.New(why)
}

// saveTakes lets the disk take its time, sometimes a lot of it.
func (e *entrypoint) saveTakes(now bool) {
	if !now {
		return
	}
	limit := 10 * time.Millisecond
	if e.w.trait(diskSlow, .05) {
		limit = 5 * time.Second
	}
	e.takes(e.w.between(50*time.Microsecond, limit))
}

// heights gives the reader for the node of a version.
func (e *entrypoint) heights(v sequencer.Version) (sequencer.HeightReader, error) {
	e.enter("height reader")
	defer e.leave()
	i := e.w.versionOf(v.Binary)
	if i == e.unreadable {
		return nil, errors.New("cannot read the node config: permission denied")
	}
	return &reader{e: e}, nil
}

// versionOf gives the version to which a program of the plan belongs: "/v3/node", "/v3/migration".
func (w *world) versionOf(path string) int { return int(path[2] - '0') }

// reader asks the node that runs for its height.
type reader struct{ e *entrypoint }

// Answered implements sequencer.HeightReader.
func (r *reader) Answered() bool {
	r.e.enter("look for strangers")
	defer r.e.leave()
	if r.e.w.rng.IntN(8) == 0 {
		r.e.takes(r.e.w.between(time.Millisecond, 100*time.Millisecond))
	}
	return r.e.stranger
}

var (
	errRefused   = errors.New("connection refused")
	errCancelled = errors.New("the query was cancelled")
)

// Height implements sequencer.HeightReader. It is called by a goroutine of its own.
func (r *reader) Height(ctx context.Context) (uint64, error) {
	e, w := r.e, r.e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	p := e.current
	if e.dead || p == nil {
		return 0, errRefused
	}
	rng := w.queries
	answer := p.query()
	if answer == answerRefused {
		return 0, errRefused // at once
	}
	d := logEven(rng, 20*time.Microsecond, 5*time.Millisecond)
	if rng.IntN(20) == 0 {
		d = logEven(rng, time.Millisecond, 900*time.Millisecond)
	}
	d += time.Duration(1 + rng.Int64N(9973))
	// The node answers at once and the answer is under way, or it answers late.
	early := rng.IntN(2) == 0
	var height uint64
	if early && answer == answerHeight {
		height = p.soft(time.Now())
	}
	p.queries++
	defer p.queryEnds()
	if answer == answerHangs {
		d = time.Second + time.Duration(rng.Int64N(9973))
	}
	if !sleepUnlocked(w, ctx, d) {
		return 0, errCancelled
	}
	// An answer that comes while the run is busy with a write waits, or there would be two things ready for its select.
	for e.busy && !e.dead {
		if !sleepUnlocked(w, ctx, time.Duration(1_000_000+rng.Int64N(9973))) {
			return 0, errCancelled
		}
	}
	switch {
	case answer == answerHeight && early:
		return height, nil
	case answer == answerHeight && p.alive && p.serves():
		return p.soft(time.Now()), nil
	case answer == answerNull:
		return 0, errors.New("the node has no height yet")
	case answer == answerGarbage:
		return 0, errors.New("the answer is not JSON of a known shape")
	case answer == answerHangs:
		return 0, context.DeadlineExceeded
	}
	return 0, errRefused
}

func sleepUnlocked(w *world, ctx context.Context, d time.Duration) bool {
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// logHandler has the log of the sequence in the log of the world. Each line is a step.
type logHandler struct{ e *entrypoint }

func (logHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h logHandler) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h logHandler) WithGroup(string) slog.Handler          { return h }
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	e := h.e
	e.finished = e.finished || r.Message == "sequence finished"
	e.enter(r.Message)
	defer e.leave()
	w := e.w
	if w.record {
		var b strings.Builder
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "seconds" { // depends on nothing but the clock
				return true
			}
			fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
			return true
		})
		w.logf("  log: %s%s", r.Message, &b)
	}
	switch r.Message {
	case "version exited":
		r.Attrs(func(a slog.Attr) bool {
			if f, ok := decisions[a.Value.String()]; ok && a.Key == "decision" {
				w.count(f)
			}
			return true
		})
	case "waiting for a stop signal":
		w.count(finishedWaiting)
		w.after(w.between(time.Millisecond, time.Minute), func() {
			if w.e == e && !e.dead {
				e.arrive(syscall.SIGTERM, "enough")
			}
		})
	}
	return nil
}

var decisions = map[string]fault{
	sequencer.Complete.String(): decideComplete, sequencer.Stopped.String(): decideStopped, sequencer.Verify.String(): decideVerify,
	sequencer.Fail.String(): decideFail, sequencer.StartWithoutAssertion.String(): decideWithoutAssertion,
	sequencer.FinishPrevious.String(): decideFinishPrevious,
}
