package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

// entrypoint is one run of the sequence, and all that it sees of the world: it is its Processes, SignalSource,
// Store, HeightReader and log.
//
// The run calls it from one goroutine. Each call, and each step of a write, is a step at which the entrypoint can be
// killed: the call then never returns but ends the goroutine, which also runs what the sequence has deferred. What the
// run does beside that in goroutines of its own (the follower, preflights) first waits for an instant of its own.
type entrypoint struct {
	w       *world
	dead    bool
	steps   int
	started []*process
	current *process
	// sweeping is the last wait for leftovers.
	sweeping *sweep
	// busy: the run is inside a call that takes time, so it is in no select.
	busy bool
	// writing: the run waits for a write of the stamp, in a select that takes nothing but signals.
	writing bool
	signals chan syscall.Signal
	pending []syscall.Signal // sent to us and not yet taken
	// arrived is when each signal came last.
	arrived map[syscall.Signal]time.Time
	ended   chan struct{}
	err     error
	// returned: Run returned; otherwise it was killed.
	returned bool
	// onlyAsks: it is 'entrypoint height', and report is what it found.
	onlyAsks bool
	report   sequencer.Report
	beganAt  time.Time
	// isHeld: the sequence said that it is held.
	isHeld bool
	// noUndo: no undo point was to be had. hasPutBack: one was put back.
	noUndo     bool
	hasPutBack bool
	undoUnread bool // the undo point could not be read, once
	// finished: it said that the last version is complete.
	finished bool
	// follows: all later writes of the checkpoint are those of the follower, which draws its own instants from own.
	follows bool
	own     *rand.Rand

	// What is to happen at which step; -1 for never.
	killAt, cutAt, signalAt int

	// What is wrong for as long as this run lasts.
	missing      int // the version whose files are missing, -1 for none
	missingLate  bool
	missingFor   sequencer.Depth // the least depth by which that is seen
	warned       bool            // a preflight finds something harmless
	unreadable   int             // the version whose config cannot be read, -1 for none
	stranger     bool
	strangerBind bool
	gone         bool // the record speaks of a state, and there is none
	forgotten    bool // no config says where the state is, though it was known before

	events
}

// events are what happened in a run, as the invariants need it.
type events struct {
	stopAt         time.Time // the first stop signal arrived
	stopTakenAt    time.Time // the sequence took it
	stopArrived    bool
	stopsTaken     int  // how many the sequence has taken
	stopWasVisible bool // the sequence has looked for signals after one had arrived
	last           *process
	lastRun        *process // the last one that was not only asked
	lastAfterStop  bool     // the last exit came after a stop signal
	known          bool     // the height was asked, and nothing has run since
	alarmed        bool     // a node reported a height above its stop height
	zeros          int      // how often a node exited 0
	// zeroRun and zeroAsked are the processes that exited 0 last and were not started again; restarts is when others were.
	zeroRun, zeroAsked *process
	restarts           []time.Time
	// digests are the newest that were computed, first those of the first start.
	digests, first [mostReleases]string
	startCode      int
	saveFailed     bool
	loadFailed     bool
	sweepFailed    bool
	lockLost       bool // somebody removed the lock file, at lockLostAt
	lockLostAt     time.Time
	short          time.Time          // until when no process can be started
	replaced       bool               // a binary was replaced
	elsewhere      bool               // the configs lead to another directory
	begunBefore    bool               // a migration was recorded as begun when the run began
	swapped        bool               // the state was replaced
	cannotAsk      [mostReleases]bool // whose node could not be asked
	cameUp         bool               // a node came up that was asked
}

func (w *world) newEntrypoint() *entrypoint {
	e := &entrypoint{
		w: w, signals: make(chan syscall.Signal), arrived: map[syscall.Signal]time.Time{}, ended: make(chan struct{}), killAt: -1, cutAt: -1, signalAt: -1, missing: -1, unreadable: -1,
		beganAt: time.Now(), own: rand.New(rand.NewPCG(w.seed, uint64(1000+w.runs))),
	}
	w.e = e
	return e
}

func (e *entrypoint) options() sequencer.Options {
	w := e.w
	o := sequencer.Options{
		Plan: w.plan, Store: e, Processes: e, Signals: e, Inspection: inspection{e}, Heights: e.heights, Log: slog.New(logHandler{e}),
		Checkpoint: checkpointName, Slack: w.options.slack, Restarts: w.options.restarts, StopTimeout: w.options.stopTimeout,
		LeftoverTimeout: w.options.leftoverTimeout,
		PreflightBefore: w.options.preflightBefore, WaitWhenFinished: w.options.waitWhenFinished,
		Nonce: e.nonce,
	}
	if w.options.withoutCheckpoint {
		o.Checkpoint = ""
	}
	if w.options.undo {
		o.Undo = undoStore{e}
	}
	if !e.onlyAsks {
		o.Hold = holdFile{e}
	}
	return o
}

// run is the goroutine of the run.
func (e *entrypoint) run() {
	defer close(e.ended)
	var err error
	var report sequencer.Report
	if e.onlyAsks {
		report, err = sequencer.Ask(e.options())
	} else {
		err = sequencer.Run(e.options())
	}
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if !e.dead {
		e.err, e.returned, e.report = err, true, report
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
	d += time.Duration(1 + e.w.rng.Int64N(999_983))
	e.busy = true
	e.passes(d)
	e.busy = false
	e.endIfDead()
}

// waits lets time pass in a call of the disk, which the run waits for in a select.
func (e *entrypoint) waits(d time.Duration) {
	e.passes(d + time.Duration(1+e.w.rng.Int64N(999_983)))
	e.endIfDead()
}

// onDisk begins a call of the disk. Such a call has a goroutine of its own, and it continues when the run has come to
// its select. That is never at the instant at which a signal is handed over, see Signals.
func (e *entrypoint) onDisk(what string) {
	time.Sleep(9 * time.Nanosecond)
	e.enter(what)
}

// passes lets time pass.
func (e *entrypoint) passes(d time.Duration) {
	e.w.mu.Unlock()
	time.Sleep(d)
	e.w.mu.Lock()
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
	if w.fault(startShort, .01) {
		e.short = time.Now().Add(w.between(time.Millisecond, 30*time.Second))
	}
	if time.Now().Before(e.short) {
		e.startCode = sequencer.CodeEarlyExit
		w.logf("%s cannot be started now", c.Path)
		return nil, &sequencer.StartError{Code: e.startCode, Passing: true, Err: errors.New("out of processes (pids limit 100)")}
	}
	p := w.exec(e, c)
	e.started, e.current = append(e.started, p), p
	e.step("after the start of " + c.Path)
	if w.rng.IntN(4) == 0 {
		e.takes(w.between(100*time.Microsecond, 20*time.Millisecond))
	}
	return p, nil
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
		if e.stopsTaken++; e.stopsTaken == 1 {
			e.stopTakenAt = time.Now()
		}
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
			if w.rng.IntN(4) == 0 { // Nomad, Compose and systemd with Podman send two
				w.after(w.between(10*time.Millisecond, 20*time.Second), func() {
					if w.e == e && !e.dead && !e.returned {
						e.arrive(sig, "again")
					}
				})
			}
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
	e.arrived[sig] = time.Now()
	w.after(15*time.Second, func() {
		if w.e == e && !e.dead && len(w.processes) > 0 && slices.Contains(e.pending, sig) && time.Since(e.arrived[sig]) >= 15*time.Second {
			w.violate(nothingAfterStop, "nobody has taken the signal %s that came 15 s ago", sig)
		}
	})
	if !slices.Contains(e.pending, sig) { // as the kernel does with pending signals
		e.pending = append(e.pending, sig)
	}
	if e.flush(); len(e.pending) > 0 { // nobody was in a select; see Signals
		w.exactly(2*w.soon(), e.flush)
	}
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

// logHandler has the log of the sequence in the log of the world. Each line is a step.
type logHandler struct{ e *entrypoint }

func (logHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h logHandler) WithAttrs([]slog.Attr) slog.Handler     { return h }
func (h logHandler) WithGroup(string) slog.Handler          { return h }
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	e, w := h.e, h.e.w
	if r.Message == "question takes long" {
		// It comes at the instant of a look at the port, and which is first is random.
		w.mu.Lock()
		defer w.mu.Unlock()
		w.count(questionTakesLong)
		return nil
	}
	e.enter(r.Message)
	defer e.leave()
	version := -1
	var b strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "version" {
			version = int(a.Value.Int64())
		}
		if w.record && a.Key != "seconds" { // depends on nothing but the clock
			fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
		}
		return true
	})
	w.logf("  log: %s%s", r.Message, &b)
	e.said(r.Message, version)
	return nil
}

// said looks at a line of the log.
func (e *entrypoint) said(message string, version int) {
	w := e.w
	if f, known := messages[message]; known {
		w.count(f)
	}
	switch message {
	case "height confirmed":
		e.known = true
	case "held":
		e.isHeld = true
	case "hold ended":
		e.isHeld = false
	case "next step":
		e.takes(0) // the follower has taken what it was given before there is more for it
	case "node cannot be asked":
		w.checkCannotBeAsked(e, version)
	case "sequence finished":
		e.finished = true
		w.checkFinished()
	case "complete by the height slack":
		w.completeBySlack()
	case "waiting for a stop signal":
		w.after(w.between(time.Millisecond, time.Minute), func() {
			if w.e == e && !e.dead {
				e.arrive(syscall.SIGTERM, "enough")
			}
		})
	}
}

// messages are the lines of the log that are counted.
var messages = map[string]fault{
	"height confirmed": heightConfirmed, "node cannot be asked": cannotBeAsked, "restarting the node in place": restartInPlace,
	"version completed": versionCompleted, "complete by the height slack": completeBySlack, "state stamped": stateStamped,
	"checkpoint was interrupted": checkpointInterrupted, "checkpoint corrected": checkpointCorrected, "old checkpoint kept": checkpointKept,
	"checkpoint not written": checkpointNotWritten, "record not written": recordNotWritten, "binary changed": binaryChanged,
	"interrupted migration is run again": migrationAgain, "preflight problem": preflightProblem, "waiting for a stop signal": finishedWaiting,
	"stopping the node": nodeStopped, "signal dropped while no node runs": signalDropped, "disk is slow": diskIsSlow, "start is tried again": startTriedAgain,
	"killing the node": nodeKilledByUs, "killing leftover processes": leftoverKilledByUs, "the migration is not interrupted": migrationSpared,
	"held": held, "undo point made": undoMade, "migration was interrupted": migrationUndone, "the hook is not interrupted": hookSpared,
	"state is being copied": copyTakesLong, "start would fail": heldStartWouldFail, "leftover processes still run": leftoverNamed, "signal not delivered": signalNotDelivered,
}
