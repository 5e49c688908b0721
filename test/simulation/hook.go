package simulation

import (
	"syscall"
	"time"

	"rollup-entrypoint/sequencer"
)

// hooked is the life of a hook.
func (p *process) hooked() {
	w := p.w
	w.count(hookRuns)
	took := w.between(100*time.Microsecond, 10*time.Second)
	exit := sequencer.Exit{}
	switch {
	case w.fault(hookFails, .1):
		exit.Code = []int{1, 2, 42, 101}[w.rng.IntN(4)]
	case w.fault(hookKilled, .03):
		exit.Signal = syscall.SIGKILL
	case w.fault(hookRestores, .05):
		p.later(took/2, p.restores)
	}
	p.leaves = w.fault(leftoverLeft, .05)
	w.disturbSoon(p.e, took)
	p.later(took, func() { p.die(exit) })
}

// restores has a hook put an older state in place.
func (p *process) restores() {
	w := p.w
	if w.snapshot == nil || w.options.nameless || w.former != nil || w.volume.foreign || w.options.slack != nil {
		return
	}
	w.state = w.snapshot.state.clone()
	p.e.swapped, w.volume.restored = true, false
	w.volume.version = max(0, w.stampedAs(w.stamp()))
	p.e.begunBefore = p.e.begunBefore || w.begun()
	w.logf("the hook restores the state: %s", &w.state)
}

// checkHook looks before the hook of version i is executed.
func (w *world) checkHook(i int) {
	s, stamp := &w.state, w.stamp()
	switch {
	case i == 0 || stamp == nil || w.stampedAs(stamp) != i-1:
		w.violate(hookOnce, "the hook before version %d is run, and the stamp does not name the version before", i)
	case !w.follows(i, s):
		w.violate(hookOnce, "the hook before version %d is run, and the state is: %s", i, s)
	case stamp.Hook || s.hooked:
		w.violate(hookOnce, "the hook before version %d is run, and was done before", i)
	}
}
