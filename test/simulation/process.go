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
	"rollup-entrypoint/sequencer/checkpoint"
)

// process is a node, a migration, or what one of them left behind.
type process struct {
	w       *world
	e       *entrypoint
	pid     int
	release int
	// migrates: it is a migration, or was left behind by one. plain is set for a leftover that does not work on the state.
	migrates       bool
	plain          *leftover
	startedAt      time.Time
	stdout, stderr io.Writer // stdout is nil for one that is not read
	env            []string
	// alive until it is dead. over: what the entrypoint started has ended, at overAt, with that exit; what is alive still
	// was left behind. notified: the entrypoint has reaped it.
	alive, over, notified bool
	overAt                time.Time
	done                  chan struct{}
	exit, death           sequencer.Exit
	// asked: it got a stop signal. passedAt is when the entrypoint passed one on, or stopped it for what it did.
	asked    bool
	passedAt time.Time
	foreign  bool     // it has changed its user, and we may not signal it
	ends     []func() // run at its death

	// Of a node.
	start, stop uint64 // as on the command line
	question    bool   // start is impossible: it is only asked for its height
	base        uint64 // the durable height that it opened
	readyAt     time.Time
	ready       bool // it has its signal handler and answers
	accepted    bool // its checks are passed: it works on the state from now on
	refusing    bool // it writes why it ends
	closing     bool // its HTTP server is closed, since closedAt
	closedAt    time.Time
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

	// hook: it is a hook, which is treated like a migration but does not work on the state. startedStamp is the stamp at its start.
	hook         bool
	startedStamp checkpoint.Stamp

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
		migrates: strings.HasSuffix(c.Path, "/migration") || strings.HasSuffix(c.Path, "/hook"), hook: strings.HasSuffix(c.Path, "/hook"), startedAt: time.Now(),
	}
	if s := w.stamp(); s != nil {
		p.startedStamp = *s
	}
	if p.migrates != c.Migration {
		w.violate(documentedEnd, "%s is started, and whether it is a migration is said to be %t", c.Path, c.Migration)
	}
	w.processes = append(w.processes, p)
	if w.record {
		w.logf("process %d: %s %s", p.pid, c.Path, strings.Join(c.Args, " "))
	}
	w.checkOwner(p)
	if p.hook {
		p.hooked()
		return p
	}
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
	if p.over && !p.notified {
		p.w.exactly(2*p.w.soon()-1, func() { // see Signals
			if !p.e.busy {
				p.notify()
			}
		})
	}
	return p.done
}

// Exit implements sequencer.Process.
func (p *process) Exit() sequencer.Exit {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.e.endIfDead()
	return p.exit
}

// Signal implements sequencer.Process.
func (p *process) Signal(sig syscall.Signal) error {
	p.e.enter("signal to a process")
	defer p.e.leave()
	if p.over {
		return errors.New("process already finished")
	}
	p.w.logf("process %d gets %s", p.pid, sig)
	p.w.checkSignal(p, sig)
	if isStop(sig) && p.passedAt.IsZero() {
		p.passedAt = time.Now()
	}
	if !p.gets(sig) {
		return syscall.EPERM
	}
	return nil
}

// gets is a signal to the process and all of its group. It reports whether the kernel delivers it.
func (p *process) gets(sig syscall.Signal) bool {
	if isStop(sig) {
		p.asked = true
	}
	if p.foreign {
		p.w.count(notDelivered)
		return false
	}
	if p.behindShell() && isStop(sig) && p.ready {
		p.outlives(sequencer.Exit{Signal: sig})
	}
	p.receive(sig)
	return true
}

// behindShell: a script started the node, which dies of a signal without a word to the node.
func (p *process) behindShell() bool {
	return !p.migrates && !p.over && p.w.releases[p.release].shell
}

// bySignal is how the process ends whose node dies of a signal that nobody else gets.
func (p *process) bySignal(sig syscall.Signal) sequencer.Exit {
	if p.behindShell() {
		return sequencer.Exit{Code: 128 + int(sig)}
	}
	return sequencer.Exit{Signal: sig}
}

func (p *process) receive(sig syscall.Signal) {
	switch {
	case !p.alive:
	case sig == syscall.SIGKILL:
		p.die(sequencer.Exit{Signal: sig})
	case p.plain != nil && p.plain.stubborn:
	case p.plain != nil:
		p.later(p.plain.dies, func() { p.die(sequencer.Exit{Signal: sig}) })
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

// die ends the process, with all that is left of it.
func (p *process) die(exit sequencer.Exit) {
	if !p.alive {
		return
	}
	w := p.w
	p.vanishes(exit)
	w.logf("process %d %s", p.pid, exit)
	if !p.over {
		p.over, p.exit = true, exit
		p.ended()
	}
	if p.leaves || p.plain != nil && p.plain.forks {
		w.leaveBehind(p)
	}
	p.e.swept()
}

// vanishes takes the process out of the world by that death.
func (p *process) vanishes(death sequencer.Exit) {
	p.w.sync()
	p.death = death
	if death.Signal == syscall.SIGKILL || death.Code == 128+int(syscall.SIGKILL) {
		p.killed()
	}
	p.remove()
	for _, f := range p.ends {
		f()
	}
}

// ended is the end of the process that the entrypoint started.
func (p *process) ended() {
	e := p.e
	p.overAt = time.Now()
	e.last, e.lastAfterStop = p, e.stopArrived
	if !p.question {
		e.lastRun = p
	}
	if p.exit.Status() == 0 && !p.migrates {
		e.zeros++
		if p.question {
			e.zeroAsked = p
		} else {
			e.zeroRun = p
		}
		p.w.disturbBetween(p)
	} else if e.alarmed && p.exit.Signal == syscall.SIGTERM && !p.migrates { // a shell that we stopped counts like exit 0
		e.zeros++
	}
	if !e.busy && !e.writing {
		p.notify()
	}
}

// killed damages the state of a node that was killed while it worked on it, as often as real nodes do: 7 of 113 states
// while it makes its blocks, 14 of 40 in a resync.
func (p *process) killed() {
	w := p.w
	if !p.accepted || !p.ready {
		return
	}
	w.count(nodeKilled)
	f, chance := stateDamaged, 7./113
	if goal := min(w.chain.head(time.Now()), orForever(p.stop)); p.soft(time.Now())+5 < goal {
		f, chance = stateDamagedInResync, 14./40
	}
	if w.fault(f, chance/w.heat) {
		w.state.damaged = true
		w.logf("the state is damaged")
	}
}

// remove takes the process out of the world.
func (p *process) remove() {
	w := p.w
	if p.ready && p.plain == nil && !p.migrates {
		w.state.upFor = max(w.state.upFor, p.upUntil().Sub(p.readyAt))
	}
	p.alive, p.accepted = false, false
	for i, q := range w.processes {
		if q == p {
			w.processes = append(w.processes[:i:i], w.processes[i+1:]...)
			return
		}
	}
}

// notify has the entrypoint reap the process.
func (p *process) notify() {
	if !p.notified {
		p.notified = true
		close(p.done)
	}
}

// killedWithParent is the death with process 1, or with the power.
func (p *process) killedWithParent() {
	p.vanishes(sequencer.Exit{Signal: syscall.SIGKILL})
	p.over = true
}

// losesParent is the death of an entrypoint that is not process 1: a node gets SIGTERM from the kernel, and nothing
// else gets anything.
func (p *process) losesParent() {
	w := p.w
	switch {
	case p.over:
		w.count(leftoverOutlives)
	case p.migrates:
		w.count(migrationOutlives)
	case p.foreign || w.releases[p.release].clearsDeath:
		w.count(deathSignalCleared)
	case p.behindShell():
		w.count(shellDies)
		p.outlives(sequencer.Exit{Signal: syscall.SIGTERM})
	default:
		w.count(nodeOutlives)
		p.asked = true
		p.receive(syscall.SIGTERM)
	}
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
	p.leaves = w.fault(leftoverLeft, .03)
	p.foreign = w.fault(nodeForeign, .01)
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
	case h.broken:
		p.later(open/2, func() {
			p.writes("a shared library is missing\n")
			p.die(sequencer.Exit{Code: h.tongue.code})
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
	case w.releases[p.release].bad && s.format != p.release && s.height > 0:
		s.damaged = true
		w.count(badReleaseOpens)
		w.logf("process %d cannot read the format of release %d, and destroys the state", p.pid, s.format)
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
		w.state.madeAsked = true
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
			p.die(p.bySignal([]syscall.Signal{syscall.SIGSEGV, syscall.SIGABRT}[w.rng.IntN(2)]))
		})
	case w.fault(nodeOutOfMemory, .02):
		p.later(soon, func() { p.die(p.bySignal(syscall.SIGKILL)) })
	case p.behindShell() && w.fault(shellKilled, .1):
		p.later(soon, func() {
			if !p.over {
				p.outlives(sequencer.Exit{Signal: syscall.SIGKILL})
			}
		})
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
		if !p.e.dead {
			p.w.count(probeStop)
			p.e.arrive(syscall.SIGTERM, "no progress")
		}
	})
}

// reachGoal ends a life whose last version has no end, once it runs.
func (p *process) reachGoal(now time.Time) {
	w := p.w
	if w.index(p.release) != w.plan.Last() || p.stop > 0 || p.question {
		return
	}
	p.later(p.durableAt(p.base+3).Sub(now), func() {
		if p.frozen || p.closing || p.over || p.e.dead || w.goal {
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
	p.closing, p.closedAt = true, time.Now()
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

// queryEnds lets a node continue that waits for its last client.
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

// soft is the soft-confirmed height, which a node reports, durable the committed one.
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

// isUp: a connection to its port is accepted.
func (p *process) isUp() bool {
	return p.serves() || p.accepted && !p.closing && p.w.releases[p.release].hangs
}

// upUntil is until when it served: its end, or when it began to close.
func (p *process) upUntil() time.Time {
	if p.closing {
		return p.closedAt
	}
	return time.Now()
}

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
		return 0, errors.New("the answer is not JSON, or has an unknown shape")
	case answer == answerHangs:
		return 0, context.DeadlineExceeded
	}
	return 0, errRefused
}

// reports notes what a node reported.
func (p *process) reports(height uint64) uint64 {
	if p.behind > 0 && p.w.queries.IntN(2) == 0 {
		height -= min(height, p.behind)
	}
	if p.stop > 0 && height > p.stop && !p.e.alarmed {
		p.e.alarmed = true
		p.later(20*time.Second, func() { p.w.checkAlarm(p) })
	}
	return height
}
