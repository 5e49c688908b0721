package simulation

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// world is everything but the sequence. All of it is guarded by mu: the events of the world, the run, its follower and
// the reader of heights are goroutines of their own, though only one of them is awake at any instant that matters.
type world struct {
	mu  sync.Mutex
	rng *rand.Rand
	// queries decides about the answers to height queries. It is apart from rng because a query begins at the same
	// instant as something that the run does.
	queries *rand.Rand
	seed    uint64
	began   time.Time
	// over ends the life: no event has an effect any more.
	over bool

	plan *sequencer.Plan
	// former is the plan as it was before somebody broke it, nil if nobody has.
	former   *sequencer.Plan
	releases []*release
	chain    chain
	options  lifeOptions
	disk     checkpointFile
	state    state
	good     state // the operator's newest snapshot of the state, taken when all was well
	volume   volume
	snapshot *snapshot // the operator's snapshot of the whole volume
	undo     undoDisk
	hold     *hold // nil for none
	// retired are the versions that were retired, as they were before.
	retired   []sequencer.Version
	processes []*process
	pids      int
	// nonces are the impossible start heights so far. An attacker reads the log, and so knows all but the newest.
	nonces []uint64
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

// lifeOptions are what the operator chose for the whole life, and what kind of life it is.
type lifeOptions struct {
	slack            *uint64
	restarts         int
	stopTimeout      time.Duration
	leftoverTimeout  time.Duration
	preflightBefore  time.Duration
	waitWhenFinished bool
	// withoutCheckpoint: the stamp alone is the record. nameless: no config says where the state is.
	withoutCheckpoint, nameless bool
	// process1: the entrypoint is process 1. attacked: somebody writes refusals into the logs.
	process1, attacked bool
	// undo: undo points are made. copies: the file system has no reflinks.
	undo, copies bool
}

// volume is what is known about the volume beside what is on it.
type volume struct {
	// version is the newest place in the plan that a stamp had; somebody may set it back.
	version int
	// stamped: the state has a stamp, since something was started on it.
	stamped bool
	// foreign: another program continued from the checkpoint, or the stamp is lost, and the operator has not said yet
	// whose the state is. Nobody could know it from the disk if the rest was lost, too.
	foreign bool
	// restored: somebody restored the state or the checkpoint alone, and all that follows has to happen by itself.
	restored bool
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
	stamp := "none"
	switch s := w.stamp(); {
	case s != nil:
		stamp = fmt.Sprintf("%s %s", s.Name, s.Migration)
	case w.state.stamp.visible != nil:
		stamp = "unreadable"
	}
	c := "none"
	if found := w.checkpoint(); found != nil {
		c = fmt.Sprintf("%d %s", found.VersionIndex, found.Phase)
	} else if w.disk.visible != nil {
		c = "unreadable"
	}
	w.log = append(w.log, fmt.Sprintf("%15.9f  durable %-3d soft %-3d  [stamp %s, checkpoint %s]  %s", at.Seconds(), durable, soft, stamp, c, fmt.Sprintf(format, args...)))
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
			w.state.advance(p.durable(now), p.release)
			w.checkBlocks(p)
		}
	}
}

// index is the place of a release in the plan, -1 if it is in it no more.
func (w *world) index(release int) int {
	for i, v := range w.plan.Versions {
		if binaryOf(v) == release {
			return i
		}
	}
	return -1
}

// release is that of the version at place i of the plan.
func (w *world) release(i int) int { return binaryOf(w.plan.Versions[i]) }

// binaryOf is the release that a version runs. One that is retired has no binary.
func binaryOf(v sequencer.Version) int {
	if v.Retired {
		return meant(v)
	}
	return releaseOf(v.Binary)
}

// meant is the release that a version of the plan should run, whatever its binary is: it never changes its name.
func meant(v sequencer.Version) int { return int(v.Name[1] - '0') }

// meantBy is the same of a stamp.
func meantBy(s *checkpoint.Stamp) int { return int(s.Name[1] - '0') }

// releaseOf gives the release to which a program of the plan belongs: "/v3/node", "/v3/migration".
func releaseOf(path string) int { return int(path[2] - '0') }

// stampedAs is the place in the plan of the version that a stamp names, -1 for none.
func (w *world) stampedAs(s *checkpoint.Stamp) int {
	for i, v := range w.plan.Versions {
		if s != nil && v.Start == s.StartHeight && v.Name == s.Name {
			return i
		}
	}
	return -1
}

// digest is that of a release's binary, which a patch release changes.
func (w *world) digest(release int) string {
	return fmt.Sprintf("sha of release %d, patch %d", release, w.releases[release].patch)
}

// powerCut takes the current from everything.
func (w *world) powerCut() {
	w.logf("power cut")
	w.e.die(true)
	w.undo.powerCut(w.rng.IntN(2) == 0)
	lost := w.disk.powerCut(w.rng.IntN(2) == 0)
	if w.state.stamp.powerCut(w.rng.IntN(2) == 0) || lost {
		w.count(powerCutLostRename)
		w.logf("the power cut lost the last rename")
		w.state.hooked = w.state.hooked && w.stamp() != nil && w.stamp().Hook
	}
	if w.state.powerCut(w.rng.IntN(3)) {
		w.count(powerCutLostMigration)
		w.logf("the power cut lost what the migration wrote: %s", &w.state)
	}
}

// kill ends the entrypoint. As process 1 it takes all processes along; otherwise they keep running. It does not end the
// goroutine of the run, see entrypoint.enter.
func (w *world) kill(why string) {
	if e := w.e; !e.dead && !e.returned {
		w.logf("%s: the entrypoint dies", why)
		e.die(false)
	}
}

// die is the end of the entrypoint, or, after that, of what it has left running. all: nothing survives it.
func (e *entrypoint) die(all bool) {
	w, first := e.w, !e.dead
	e.dead = true
	for _, p := range slices.Clone(w.processes) {
		if all || w.options.process1 {
			p.killedWithParent()
		} else {
			p.losesParent()
		}
	}
	if !first {
		return
	}
	// Whatever the run waits for ends, and the next call that it makes ends its goroutine.
	close(e.signals)
	if e.sweeping != nil {
		e.sweeping.notify()
	}
	for _, p := range e.started {
		p.notify()
	}
}
