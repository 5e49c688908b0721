package simulation

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

// process is a node, a migration, or what one of them left behind.
type process struct {
	w       *world
	e       *entrypoint
	pid     int
	release int
	// migrates: it is a migration and no node. orphan: it is a leftover, dies is how long it takes over SIGTERM.
	migrates       bool
	orphan         bool
	dies           time.Duration
	stdout, stderr io.Writer // stdout is nil for one that is not read
	env            []string
	// alive until it is dead. told: the entrypoint has reaped it.
	alive, told bool
	asked       bool // it got a stop signal
	done        chan struct{}
	exit        sequencer.Exit
	ends        []func() // run at its death

	// Of a node.
	start, stop uint64 // as on the command line
	question    bool   // start is impossible: it is only asked for its height
	base        uint64 // the durable height that it opened
	readyAt     time.Time
	ready       bool // it has its signal handler and answers
	accepted    bool // its checks are passed: it works on the state from now on
	refusing    bool // it writes why it ends
	closing     bool // its HTTP server is closed
	queries     int  // open ones
	held        bool // it only waits for these
	overruns    bool
	ignoresTerm bool
	leaves      bool
	shutdown    time.Duration
	answers     answer // what it says instead of heights, once ready
	answersTill time.Time
	behind      uint64 // how many blocks its heights are too low, now and then
	// frozen: it makes no more soft heights after this instant; durable ones only if finishing.
	frozen    bool
	frozenAt  time.Time
	finishing bool

	// Of a migration.
	touched, completed bool
}

// answer is what comes of a height query.
type answer int

const (
	answerHeight answer = iota
	answerRefused
	answerHangs
	answerNull
	answerGarbage
)

// exec starts a program of the plan.
func (w *world) exec(e *entrypoint, c sequencer.Command) *process {
	w.pids++
	p := &process{
		w: w, e: e, pid: 100 + w.pids, release: releaseOf(c.Path), stdout: c.Stdout, stderr: c.Stderr, env: c.Env, alive: true, done: make(chan struct{}),
		migrates: strings.HasSuffix(c.Path, "/migration"),
	}
	w.processes = append(w.processes, p)
	if w.record {
		w.logf("process %d: %s %s", p.pid, c.Path, strings.Join(c.Args, " "))
	}
	w.checkOwner(p)
	if p.migrates {
		w.checkKnown(p)
		w.state.begun[p.release]++
		p.migrate()
		return p
	}
	for i := 2; i+1 < len(c.Args); i += 2 {
		n, _ := strconv.ParseUint(c.Args[i+1], 10, 64)
		switch c.Args[i] {
		case "--start-at-rollup-height":
			p.start = n
		case "--stop-at-rollup-height":
			p.stop = n
		}
	}
	w.checkHeights(p)
	w.checkBinary(p)
	if p.question = p.start >= firstNonce; p.question {
		w.count(questionAsked)
		w.nonces = append(w.nonces, p.start)
	}
	w.checkRestarts(p)
	w.checkKnown(p)
	p.live()
	return p
}

// Pid implements sequencer.Process.
func (p *process) Pid() int { return p.pid }

// Done implements sequencer.Process. The sequence asks for it at the begin of each wait.
func (p *process) Done() <-chan struct{} {
	p.e.enter("wait for the process")
	defer p.e.leave()
	if !p.alive && !p.told {
		p.w.exactly(2*p.w.soon()-1, func() { // see Signals
			if !p.e.busy {
				p.tell()
			}
		})
	}
	return p.done
}

// Exit implements sequencer.Process.
func (p *process) Exit() sequencer.Exit { return p.exit }

// Signal implements sequencer.Process.
func (p *process) Signal(sig syscall.Signal) error {
	p.e.enter("signal to a process")
	defer p.e.leave()
	if !p.alive {
		return errors.New("process already finished")
	}
	p.w.logf("process %d gets %s", p.pid, sig)
	p.w.checkSignal(p, sig)
	p.asked = p.asked || isStop(sig)
	p.receive(sig)
	return nil
}

func (p *process) receive(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGKILL:
		p.die(sequencer.Exit{Signal: sig})
	case p.migrates || !isStop(sig):
		p.die(sequencer.Exit{Signal: sig})
	case !p.ready: // the handler is installed at the end of the start-up
		p.w.count(termWhileStarting)
		p.die(sequencer.Exit{Signal: sig})
	case p.ignoresTerm:
		p.w.count(nodeIgnoresTerm)
		p.probe()
	default:
		p.close("asked to stop")
	}
}

// die ends the process.
func (p *process) die(exit sequencer.Exit) {
	if !p.alive {
		return
	}
	w := p.w
	w.sync()
	p.exit = exit
	p.killed()
	p.remove()
	for _, f := range p.ends {
		f()
	}
	w.logf("process %d %s", p.pid, exit)
	p.e.last, p.e.lastAfterStop = p, p.e.stopArrived
	if exit.Status() == 0 && !p.migrates {
		p.e.zeros++
		if p.question {
			p.e.zeroAsked = p
		} else {
			p.e.zeroRun = p
		}
		w.disturbBetween(p)
	}
	if p.leaves && !p.e.dead {
		w.leaveBehind(p)
	}
	if !p.e.busy {
		p.tell()
	}
}

// killed damages the state of a node that was killed while it worked on it, sometimes.
func (p *process) killed() {
	w := p.w
	if p.exit.Signal == syscall.SIGKILL && p.accepted && w.options.killDamages && w.fault(stateDamaged, .3) {
		w.state.damaged = true
		w.logf("the state is damaged")
	}
}

// remove takes the process out of the world.
func (p *process) remove() {
	w := p.w
	p.alive, p.accepted = false, false
	for i, q := range w.processes {
		if q == p {
			w.processes = append(w.processes[:i:i], w.processes[i+1:]...)
			return
		}
	}
}

// tell has the entrypoint reap the process.
func (p *process) tell() {
	if !p.told {
		p.told = true
		close(p.done)
	}
}

func (p *process) killedWithParent() {
	p.w.sync()
	p.exit = sequencer.Exit{Signal: syscall.SIGKILL}
	p.killed()
	p.remove()
	for _, f := range p.ends {
		f()
	}
}

// leaveBehind leaves a process with the state open.
func (w *world) leaveBehind(parent *process) {
	w.pids++
	p := &process{w: w, e: parent.e, pid: 100 + w.pids, release: parent.release, orphan: true, alive: true, told: true, dies: w.between(time.Millisecond, time.Second)}
	if w.trait(leftoverStubborn, .3) {
		p.dies = time.Hour
	}
	w.processes = append(w.processes, p)
	w.logf("process %d is left behind", p.pid)
}

// later has f happen if the process is still alive then.
func (p *process) later(d time.Duration, f func()) {
	p.w.after(d, func() {
		if p.alive {
			f()
		}
	})
}

// live is the life of a node.
func (p *process) live() {
	w := p.w
	h := w.releases[p.release]
	p.overruns = p.stop > 0 && w.fault(overrun, .015)
	p.ignoresTerm = w.rng.IntN(12) == 0
	p.leaves = w.fault(leftover, .03)
	p.shutdown = w.between(100*time.Microsecond, 300*time.Millisecond)
	if w.trait(slowShutdown, .08) {
		p.shutdown = w.between(time.Second, time.Minute)
	}
	startup := h.startup
	if w.fault(slowStart, .01) {
		startup += w.between(10*time.Second, time.Minute)
	}
	open := min(startup/2, w.between(time.Millisecond, 50*time.Millisecond))
	p.readyAt = time.Now().Add(startup)
	p.drawAnswers(h)
	if w.trait(stderrNoise, .15) {
		p.writes("\x1b[33mWARN\x1b[0m the requested heights are as they are\nthread 'tokio' says: current_height must be greater\n")
	}
	p.attacked(startup)
	p.startsUp(open, startup)
}

// startsUp is the start-up of a node, and what may go wrong in it.
func (p *process) startsUp(open, startup time.Duration) {
	w, h := p.w, p.w.releases[p.release]
	switch {
	case p.question && h.asked == unknownFlag:
		p.later(time.Millisecond, func() {
			p.writes("error: unexpected argument '--start-at-rollup-height' found\n")
			p.die(sequencer.Exit{Code: 2})
		})
		return
	case w.fault(nodeCrashStarting, .03):
		code := h.tongue.code
		if w.rng.IntN(6) == 0 {
			code = 2 // as for a flag that is not known
		}
		p.later(time.Duration(w.rng.Int64N(int64(startup)+1)), func() {
			if !p.refusing {
				p.writes("cannot connect to the DA layer\n")
				p.die(sequencer.Exit{Code: code})
			}
		})
	case w.fault(leaderBeforeCheck, .03):
		p.later(open-1, func() {
			w.logf("process %d won the leadership", p.pid)
			p.die(sequencer.Exit{})
		})
		return
	case w.fault(nodeHangsStarting, .01):
		p.probe()
		return
	}
	p.later(open, p.open)
	p.later(startup, p.becomeReady)
}

// drawAnswers draws what a node says over HTTP.
func (p *process) drawAnswers(h *release) {
	w := p.w
	switch r := w.rng.IntN(100); {
	case h.noHTTP:
		w.count(httpAbsent)
		p.answers, p.answersTill = answerRefused, p.readyAt.Add(1000*time.Hour)
	case r < 10:
		w.count(httpNull)
		p.answers, p.answersTill = answerNull, p.readyAt.Add(w.between(10*time.Millisecond, 5*time.Second))
	case r < 14:
		w.count(httpGarbage)
		p.answers, p.answersTill = answerGarbage, p.readyAt.Add(w.between(10*time.Millisecond, time.Minute))
	case r < 22:
		w.count(httpBehind)
		p.behind = 1 + w.rng.Uint64N(20)
	case r < 26:
		w.count(httpHangs)
		p.answers, p.answersTill = answerHangs, p.readyAt.Add(w.between(10*time.Millisecond, time.Minute))
	}
}

// open is where a node opens the state and checks the heights on its command line.
func (p *process) open() {
	w, s := p.w, &p.w.state
	if !s.exists {
		// Committed before any check: this is how a late version spoils an empty volume.
		s.exists, s.format = true, p.release
		w.logf("process %d commits the genesis", p.pid)
	}
	switch why := w.notOf(p.release, s); {
	case s.damaged:
		w.count(damageSeen)
		p.panics(p.damageText())
		return
	case why != "": // checkOwner has seen it
		s.damaged = true
		w.logf("process %d destroys the state: %s", p.pid, why)
		p.panics(p.damageText())
		return
	}
	s.format = p.release
	current, h := s.height, w.releases[p.release]
	wrongStart := p.start > 0 && p.start != current+1 && (!p.question || h.asked != ignored)
	wrongStop := p.stop > 0 && p.stop <= current
	switch {
	case wrongStart:
		w.count(refusedStart)
		p.refuses(p.startRefusal(current + 1))
		return
	case wrongStop:
		f := refusedStop
		if current > p.stop {
			f = refusedStopBeyond
		}
		w.count(f)
		p.refuses(stopRefusal(p.stop, current))
		return
	}
	p.base = current
	w.checkAccepted(p)
	p.accepted = true
	w.keepGood()
}

// becomeReady is the end of the start-up.
func (p *process) becomeReady() {
	w := p.w
	if p.refusing {
		return
	}
	if p.e.strangerBind {
		w.count(strangerTakesPort)
		p.panics("cannot bind: address already in use")
		return
	}
	p.ready = true
	now := time.Now()
	p.readyAt = now
	w.logf("process %d is ready", p.pid)
	if p.stop > 0 && !p.overruns {
		p.later(p.durableAt(p.stop).Sub(now), func() {
			if !p.closing && !p.frozen {
				p.close("stop height committed")
				w.disturbSoon(p.e, 2*p.shutdown+20*time.Millisecond)
			}
		})
		p.misbehaveAtStop(now)
	}
	if p.question {
		w.count(cameUpAsked)
		p.probe() // of a question that does not end: a stranger on the port hides that the node is up
	}
	p.misbehave()
	if p.overruns {
		p.later(p.durableAt(p.stop+1).Sub(now), func() { w.logf("process %d overruns", p.pid) })
		p.probe()
	}
	p.reachGoal(now)
}

// misbehaveAtStop is a replica that becomes leader between its soft stop height and the durable one.
func (p *process) misbehaveAtStop(now time.Time) {
	w := p.w
	soft, durable := p.softAt(p.stop), p.durableAt(p.stop)
	gap := durable.Sub(soft)
	if gap < 3*time.Millisecond || !w.fault(leaderRestartAtStop, .06) {
		return
	}
	p.later(soft.Sub(now)+time.Duration(w.rng.Int64N(int64(gap-2*time.Millisecond))), func() {
		if !p.closing {
			p.close("exiting to restart as leader")
		}
	})
}

// misbehave draws what goes wrong at any time.
func (p *process) misbehave() {
	w := p.w
	soon := w.between(time.Millisecond, 20*time.Second)
	if p.stop > 0 && w.rng.IntN(2) == 0 { // near the end
		if left := time.Until(p.durableAt(p.stop)); left > time.Millisecond {
			soon = time.Duration(w.rng.Int64N(int64(left)))
		}
	}
	switch {
	case w.fault(leaderRestart, .05):
		p.later(soon, func() {
			if !p.closing {
				p.close("exiting to restart as leader")
			}
		})
	case w.fault(nodeCrash, .04):
		p.later(soon, func() { p.panics("called `Option::unwrap()` on a `None` value") })
	case w.fault(nodeKilledBySignal, .02):
		p.later(soon, func() {
			p.die(sequencer.Exit{Signal: []syscall.Signal{syscall.SIGSEGV, syscall.SIGABRT}[w.rng.IntN(2)]})
		})
	case w.fault(nodeOutOfMemory, .02):
		p.later(soon, func() { p.die(sequencer.Exit{Signal: syscall.SIGKILL}) })
	case w.fault(nodeHangs, .02):
		p.later(soon, func() {
			if p.closing {
				return
			}
			p.freeze(false)
			if w.rng.IntN(2) == 0 {
				p.answers, p.answersTill = answerHangs, time.Now().Add(1000*time.Hour)
			}
			w.logf("process %d hangs", p.pid)
			p.probe()
		})
	}
}

// probe is the liveness probe, or the operator's eye: a node that makes no progress is stopped from outside.
func (p *process) probe() {
	p.later(p.w.between(5*time.Second, time.Minute), func() {
		p.w.count(probeStop)
		p.e.arrive(syscall.SIGTERM, "no progress")
	})
}

// reachGoal ends a life whose last version has no end, once it runs.
func (p *process) reachGoal(now time.Time) {
	w := p.w
	if w.index(p.release) != w.plan.Last() || p.stop > 0 || p.question {
		return
	}
	p.later(p.durableAt(p.base+3).Sub(now), func() {
		if p.frozen || p.closing || w.goal {
			return
		}
		w.goal = true
		w.count(endlessReached)
		w.logf("the last version runs")
		p.e.arrive(syscall.SIGTERM, "enough")
	})
}

// close is the graceful shutdown: first the server, then whatever it takes, then open queries are waited for.
func (p *process) close(why string) {
	if p.closing {
		return
	}
	w := p.w
	w.logf("process %d closes: %s", p.pid, why)
	if !p.frozen {
		p.freeze(w.rng.IntN(2) == 0)
	}
	p.closing = true
	p.later(p.shutdown, p.exitWhenDrained)
}

func (p *process) exitWhenDrained() {
	if p.queries > 0 {
		p.w.count(heldQuery)
		p.held = true
		return
	}
	p.die(sequencer.Exit{})
}

// queryEnds lets a node go on that waits for its last client.
func (p *process) queryEnds() {
	p.queries--
	if p.held && p.alive && p.queries == 0 {
		p.later(0, func() { p.die(sequencer.Exit{}) })
	}
}

// freeze stops the making of blocks; what is made already may still become durable.
func (p *process) freeze(finishing bool) {
	p.w.sync()
	p.frozen, p.frozenAt, p.finishing = true, time.Now(), finishing
}

// soft is the soft-confirmed height, which a node tells, durable the committed one.
func (p *process) soft(t time.Time) uint64 {
	if p.frozen && t.After(p.frozenAt) {
		t = p.frozenAt
	}
	if !p.ready || t.Before(p.readyAt) {
		return p.base
	}
	done := p.base + uint64(float64(p.w.releases[p.release].resync)*t.Sub(p.readyAt).Seconds())
	h := min(done, p.w.chain.head(t))
	if p.stop > 0 && !p.overruns {
		h = min(h, p.stop)
	}
	return max(h, p.base)
}

func (p *process) durable(t time.Time) uint64 {
	if p.frozen && !p.finishing && t.After(p.frozenAt) {
		t = p.frozenAt
	}
	return max(min(p.soft(t), p.w.chain.final(t)), p.base)
}

// processedAt is when the node has processed height, softAt when that is its soft height, durableAt its durable one.
func (p *process) processedAt(height uint64) time.Time {
	if height <= p.base {
		return p.readyAt
	}
	return p.readyAt.Add(time.Duration(float64(height-p.base)/float64(p.w.releases[p.release].resync)*float64(time.Second)) + time.Microsecond)
}

func (p *process) softAt(height uint64) time.Time {
	return latest(p.processedAt(height), p.w.chain.headAt(height))
}

func (p *process) durableAt(height uint64) time.Time {
	return latest(p.processedAt(height), p.w.chain.finalAt(height))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// query says what comes of a height query that begins now.
func (p *process) query() answer {
	w, now := p.w, time.Now()
	switch {
	case !p.alive || p.closing:
		return answerRefused
	case !p.ready && w.releases[p.release].hangs && p.accepted:
		return answerHangs
	case !p.ready:
		return answerRefused
	case p.answers != answerHeight && now.Before(p.answersTill):
		return p.answers
	}
	return answerHeight
}

func (p *process) serves() bool { return p.ready && !p.closing }

// answerTo gives the answer to a query that began earlier.
func (p *process) answerTo(answer answer, early bool, height uint64) (uint64, error) {
	switch {
	case answer == answerHeight && early:
		return p.reports(height), nil
	case answer == answerHeight && p.alive && p.serves():
		return p.reports(p.soft(time.Now())), nil
	case answer == answerNull:
		return 0, errors.New("the node has no height yet")
	case answer == answerGarbage:
		return 0, errors.New("the answer is not JSON of a known shape")
	case answer == answerHangs:
		return 0, context.DeadlineExceeded
	}
	return 0, errRefused
}

// reports notes what a node reported.
func (p *process) reports(height uint64) uint64 {
	if p.stop > 0 && height > p.stop && !p.e.alarmed {
		p.e.alarmed = true
		p.later(20*time.Second, func() { p.w.checkAlarm(p) })
	}
	if p.behind > 0 && p.w.queries.IntN(2) == 0 {
		return height - min(height, p.behind)
	}
	return height
}
