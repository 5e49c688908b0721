package simulation

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"rollup-entrypoint/sequencer"
)

// world is everything but the sequence. All of it is guarded by mu: the events of the world, the run and the reader of
// heights are goroutines of their own, though only one of them is awake at any instant that matters.
type world struct {
	mu  sync.Mutex
	rng *rand.Rand
	// queries decides about the answers to height queries. It is apart from rng because a query begins at the same
	// instant as something that the run does.
	queries *rand.Rand
	began   time.Time
	// over ends the life: no event has an effect any more.
	over bool

	plan      *sequencer.Plan
	habits    []habits // of each version
	chain     chain
	options   lifeOptions
	disk      disk
	state     state
	good      state // the operator's newest snapshot of the state, taken when all was well
	volume    volume
	snapshot  *snapshot // the operator's snapshot of the whole volume
	processes []*process
	pids      int
	// e is the entrypoint that runs now, or ran last.
	e    *entrypoint
	runs int
	// full is until when the disk has no room.
	full time.Time
	// goal: nothing is left to do in this life.
	goal bool

	// budget is how many faults are left, heat how likely each is.
	budget int
	heat   float64
	counts [faultCount]int

	record    bool
	log       []string
	violation *violation
	// steps counts all steps of all runs.
	steps int
}

// lifeOptions are what the operator chose for the whole life.
type lifeOptions struct {
	slack            *uint64
	stopTimeout      time.Duration
	waitWhenFinished bool
	// withoutCheckpoint is given up when a failure says so.
	withoutCheckpoint bool
}

// habits are what never changes about the node and the migration of a version.
type habits struct {
	startup  time.Duration
	resync   uint64 // blocks per second
	hangs    bool   // queries hang during start-up; otherwise the connection is refused
	noHTTP   bool
	stopLast bool // the start height is checked before the stop height

	migration  time.Duration
	idempotent bool
}

// volume is what is known about the volume since it was last put in order by hand.
type volume struct {
	// recorded: the completion of the version's migration was durably recorded. begun: it was executed.
	recorded, begun []bool
	// version is the newest version that was durably recorded.
	version int
	// tampered: somebody changed the checkpoint or the state behind our back; overran: a node went past its stop height.
	tampered, overran bool
}

func newVolume(versions int) volume {
	return volume{recorded: make([]bool, versions), begun: make([]bool, versions)}
}

// snapshot is a consistent copy of the volume.
type snapshot struct {
	state  state
	disk   []byte
	volume volume
}

// after has f happen d from now, on an instant of its own.
func (w *world) after(d time.Duration, f func()) {
	w.exactly(max(d, 0)+time.Duration(1+w.rng.Int64N(999_983)), f)
}

// exactly is after without jitter.
func (w *world) exactly(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.over {
			return
		}
		f()
		w.check()
	})
}

// between draws a duration, short ones as likely as long ones: the logarithm is even.
func (w *world) between(low, high time.Duration) time.Duration {
	return logEven(w.rng, low, high)
}

func logEven(rng *rand.Rand, low, high time.Duration) time.Duration {
	ratio := float64(high) / float64(low)
	return time.Duration(float64(low) * math.Pow(ratio, rng.Float64()))
}

func (w *world) logf(format string, args ...any) {
	if !w.record {
		return
	}
	at := time.Since(w.began)
	durable, soft := w.heights()
	checkpoint := "none"
	if c := w.disk.read(); c != nil {
		checkpoint = fmt.Sprintf("v%d %s", c.VersionIndex, c.Phase)
		if c.Started {
			checkpoint += " started"
		}
		if c.MigrationCompleted {
			checkpoint += " migrated"
		}
	} else if w.disk.visible != nil {
		checkpoint = "unreadable"
	}
	w.log = append(w.log, fmt.Sprintf("%15.9f  durable %-3d soft %-3d  [%s]  %s", at.Seconds(), durable, soft, checkpoint, fmt.Sprintf(format, args...)))
}

// heights are the durable and the soft one now.
func (w *world) heights() (durable, soft uint64) {
	w.sync()
	durable, soft = w.state.height, w.state.height
	for _, p := range w.processes {
		if p.accepted {
			soft = p.soft(time.Now())
		}
	}
	return durable, soft
}

// sync brings the durable state to now.
func (w *world) sync() {
	now := time.Now()
	for _, p := range w.processes {
		if p.accepted {
			w.state.advance(p.durable(now), p.version)
			w.volume.overran = w.volume.overran || (p.stop > 0 && w.state.height > p.stop)
		}
	}
}

// powerCut takes the current from everything.
func (w *world) powerCut() {
	w.kill("power cut")
	if w.disk.powerCut(w.rng.IntN(2) == 0) {
		w.count(powerCutLostRename)
		w.logf("the power cut lost the last rename")
	}
}

// kill ends the entrypoint, and all its processes with it: those of process 1 by the kernel, others by their
// parent-death signal. It does not end the goroutine of the run, see entrypoint.enter.
func (w *world) kill(why string) {
	e := w.e
	if e.dead || e.returned {
		return
	}
	w.logf("%s: the entrypoint and all its processes die", why)
	e.die()
}

func (e *entrypoint) die() {
	w := e.w
	e.dead = true
	for len(w.processes) > 0 {
		w.processes[0].killedWithParent()
	}
	// Whatever the run waits for ends, and the next call that it makes ends its goroutine.
	close(e.signals)
	for _, p := range e.started {
		p.tell()
	}
}
