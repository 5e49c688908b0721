package simulation

import (
	"time"

	"rollup-entrypoint/sequencer"
)

// migrate is the life of a migration.
func (p *process) migrate() {
	w := p.w
	h := w.releases[p.release]
	s := &w.state
	i := p.release
	open := w.between(100*time.Microsecond, 50*time.Millisecond)
	p.ends = append(p.ends, func() {
		switch {
		case p.death.Signal == 0:
		case p.completed:
			w.count(migrationKilledDone)
		case p.touched:
			w.count(migrationKilledHalf)
		default:
			w.count(migrationKilledClean)
		}
	})
	code := []int{1, 2, 42, 101}[w.rng.IntN(4)]
	if w.fault(migrationFailsClean, .05) {
		p.later(open, func() {
			p.writes("rollup-db-migration failed: cannot open the state\n")
			p.die(sequencer.Exit{Code: code})
		})
		return
	}
	half := w.fault(migrationFailsHalf, .05)
	p.later(open, p.opensToMigrate)
	work := w.between(h.migration/2, h.migration)
	p.leaves = w.fault(leftoverLeft, .03)
	if !half && w.trait(migrationWorker, .15) {
		work = p.leavesWorker(open, work, code)
	}
	p.later(open+2*time.Millisecond+work, func() {
		if half {
			p.writes("rollup-db-migration failed: no space left on device\n")
			p.die(sequencer.Exit{Code: code})
			return
		}
		p.completed = true
		s.half, s.format = -1, i
		s.migrated[i]++
		w.logf("process %d has rewritten the state", p.pid)
		w.disturbSoon(p.e, 50*time.Millisecond)
		p.later(w.between(10*time.Microsecond, 100*time.Millisecond), func() { p.die(sequencer.Exit{}) })
	})
}

// opensToMigrate is where a migration opens the state and begins to rewrite it.
func (p *process) opensToMigrate() {
	w, s, i := p.w, &p.w.state, p.release
	h := w.releases[i]
	again := s.half == i || s.format == i
	switch {
	case !s.exists || s.damaged:
		p.writes("rollup-db-migration failed: cannot open the state\n")
		p.die(sequencer.Exit{Code: 1})
		return
	case again && !h.idempotent:
		w.count(migrationRefusesAgain)
		p.writes("rollup-db-migration failed: the state was migrated before\n")
		p.die(sequencer.Exit{Code: 1})
		return
	case s.format == i:
		w.count(migrationRerun)
	case s.half == i:
		w.count(migrationResumed)
	}
	p.touched = true
	if s.format != i {
		if s.unsynced == nil {
			before := s.clone()
			s.unsynced = &before
		}
		s.half = i
	}
	w.logf("process %d rewrites the state", p.pid)
	w.disturbSoon(p.e, h.migration)
}

// leavesWorker has the migration end while one of its workers continues. It gives how long the work takes then.
func (p *process) leavesWorker(open, work time.Duration, code int) time.Duration {
	w, limit := p.w, p.w.options.leftoverTimeout
	exit := sequencer.Exit{}
	if w.rng.IntN(8) == 0 {
		exit.Code = code
	}
	ends := open + 2*time.Millisecond + time.Duration(w.rng.Int64N(int64(work)))
	p.later(ends, func() { p.outlives(exit) })
	alone := w.between(time.Millisecond, time.Minute)
	switch {
	case w.fault(workerLate, .2):
		alone = limit + w.between(time.Second, time.Hour)
	case limit > 0:
		alone = min(alone, limit/2)
	}
	return ends + alone
}
