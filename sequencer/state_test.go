package sequencer

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// observer keeps every state that it was handed, and a copy of it as it was then.
type observer struct {
	states []State
	texts  []string
}

func (o *observer) observe(s State) {
	o.states = append(o.states, s)
	o.texts = append(o.texts, fmt.Sprintf("%+v", s))
}

// phases are the phases in their order, each once as long as it lasts.
func (o *observer) phases() []Phase {
	var all []Phase
	var since time.Time
	for _, s := range o.states {
		if len(all) == 0 || s.Phase != all[len(all)-1] || !s.Since.Equal(since) {
			all = append(all, s.Phase)
		}
		since = s.Since
	}
	return all
}

func (o *observer) last() State { return o.states[len(o.states)-1] }

// watched is a world whose states are kept.
func watched(t *testing.T, acts ...act) (*world, *observer) {
	w, o := newWorld(t, acts...), &observer{}
	w.options.Observe = o.observe
	return w, o
}

// stoppedAt has the entrypoint asked to stop at the height.
func stoppedAt(height uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.at(height)
		p.w.signals <- syscall.SIGTERM
		p.gets(syscall.SIGTERM)
		p.exits(0)
	}
}

func TestStateTellsTheWholeLife(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(
			t, act{v0, reaches(10, 20)}, act{v0, refusesStop(20, 20)}, act{m1, func(p *fakeProcess) { time.Sleep(time.Minute); p.exits(0) }},
			act{v1First, reaches(30, 40)}, act{v2First, runsUntilStopped(50)},
		)
		w.acts[4].does = stoppedAt(50)
		require.NoError(t, w.run())
		assert.Equal(t, []Phase{
			PhasePreparing, PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseVerifying, PhaseHandingOver, PhaseMigrating,
			PhaseHandingOver, PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseStarting, PhaseRunning, PhaseHandingOver,
		}, o.phases())
		end := o.last()
		assert.True(t, end.Stopping)
		assert.Equal(t, 2, end.Record.VersionIndex)
		assert.Equal(t, map[int]uint64{0: 2, 1: 1, 2: 1}, end.Starts)
		assert.Equal(t, map[ExitCount]uint64{{Code: 0}: 3, {Code: 101}: 1, {Migration: true}: 1}, end.Exits)
		assert.Equal(t, map[syscall.Signal]uint64{syscall.SIGTERM: 1}, end.Signals)
		require.Len(t, end.Migrations, 1)
		assert.Equal(t, time.Minute, end.Migrations[0].Took)
		require.Len(t, end.HandOvers, 2)
		assert.Equal(t, []int{1, 2}, []int{end.HandOvers[0].Version, end.HandOvers[1].Version})
		assert.EqualValues(t, len(w.store.saved), end.Writes.Done)
		assert.Zero(t, end.Writes.Failed)
		assert.Nil(t, end.Failure)
		for i, s := range o.states {
			require.Equal(t, o.texts[i], fmt.Sprintf("%+v", s), "a state that was handed out has changed")
		}
	})
}

func TestStateHasTheHeightOfTheNodeThatRuns(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t, act{v0, reaches(10, 20)}, act{v0, refusesStop(20, 20)})
		w.plan.Versions = w.plan.Versions[:1]
		require.NoError(t, w.run())
		var seen []uint64
		for _, s := range o.states {
			if s.Height == nil {
				assert.Contains(t, []Phase{PhasePreparing, PhaseStarting, PhaseVerifying, PhaseHandingOver, PhaseFinished}, s.Phase)
				continue
			}
			if len(seen) == 0 || seen[len(seen)-1] != s.Height.Height {
				seen = append(seen, s.Height.Height)
			}
			assert.False(t, s.RoseAt.After(s.Height.At))
		}
		assert.Equal(t, []uint64{10, 20}, seen)
		assert.Equal(t, PhaseFinished, o.last().Phase)
		assert.Equal(t, PhaseFinished, o.last().Record.Phase)
	})
}

func TestStateCountsQueriesInVain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t, act{v0, func(p *fakeProcess) {
			time.Sleep(pollDefault*5 + pollDefault/2)
			p.at(7)
			p.exits(3)
		}})
		w.fails(3)
		assert.EqualValues(t, 6, o.last().QueryFailures)
		assert.Greater(t, o.last().Queries, o.last().QueryFailures)
	})
}

func TestStateTellsWhyTheRunFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t, act{v0, exits(3)})
		f := w.fails(3)
		assert.Equal(t, PhaseFailed, o.last().Phase)
		assert.Equal(t, f, o.last().Failure)
	})
}

func TestStateTellsOfAWriteThatFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t, act{v0, stoppedAt(10)})
		w.store.have = record(0, PhaseRunning, false)
		w.store.fail = func(n int) error {
			if n == 1 { // "started"
				return errors.New("no space left on device")
			}
			return nil
		}
		require.NoError(t, w.run())
		assert.EqualValues(t, 1, o.last().Writes.Failed)
		assert.Contains(t, o.last().Failure.Error(), "no space left on device")
		assert.False(t, o.last().Record.Started, "what is not durable is not shown")
	})
}

func TestOverrunIsInTheStateWhileTheNodeIsStopped(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t, act{v0, runsUntilStopped(25)})
		w.fails(CodeMismatch)
		for _, s := range o.states {
			if s.Process.Pid != 0 && s.Failure != nil {
				assert.Equal(t, uint64(25), s.Height.Height)
				return
			}
		}
		assert.Fail(t, "no state tells of the overrun before the node has ended")
	})
}

func TestPreviousVersionThatRunsOnIsAPhaseOfItsOwn(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t, act{v1First, refusesStart(21, 19)}, act{v0, reaches(20)}, act{v0, refusesStop(20, 20)}, act{v1First, reaches(40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.store.have = record(1, PhaseRunning, false)
		require.NoError(t, w.run())
		assert.Equal(t, []Phase{
			PhasePreparing, PhaseStarting, PhaseHandingOver, PhaseFinishingPrevious, PhaseHandingOver, PhaseFinishingPrevious, PhaseHandingOver,
			PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseVerifying, PhaseHandingOver, PhaseFinished,
		}, o.phases())
	})
}

func TestPreflightErrorsStartNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(t)
		w.options.Preflight = func(i int) []Finding {
			switch i {
			case WholePlan:
				return []Finding{{WholePlan, SeverityWarning, "the volume is nearly full", "make room"}, {2, SeverityError, "another storage", ""}}
			case 0:
				return nil
			}
			return []Finding{{i, SeverityError, "no loader", "put it in"}}
		}
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Error(), "version 1: no loader; put it in")
		assert.Contains(t, f.Error(), "version 2: no loader; put it in")
		assert.Contains(t, f.Error(), "version 2: another storage")
		assert.NotContains(t, f.Error(), "nearly full")
		assert.Contains(t, w.events(), "the volume is nearly full")
		assert.Len(t, o.last().Preflight, 1+3)
	})
}

func TestNextVersionIsLookedAtAgainAsItsUpgradeComesNear(t *testing.T) {
	lives(t, func(t *testing.T) {
		found := []Finding{{1, SeverityError, "the library libz.so.1 is not there any more", "put it back"}}
		var mu sync.Mutex // a preflight of an upgrade runs in a goroutine of its own
		var asked []int
		w, o := watched(t, act{v0, func(p *fakeProcess) {
			for h := uint64(1); h <= 20; h++ { // a block each two seconds
				p.at(h)
			}
			p.exits(0)
		}}, act{v0, refusesStop(20, 20)}, act{m1, exits(4)})
		w.options.PreflightBefore = 12 * time.Second
		w.options.Preflight = func(i int) []Finding {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, i)
			if len(asked) > 4 && i == 1 {
				return found
			}
			return nil
		}
		w.fails(4)
		assert.Equal(t, []int{WholePlan, 0, 1, 2}, asked[:4], "at the start")
		assert.GreaterOrEqual(t, len(asked), 4+2*4, "each second of the last twelve there is another one due")
		for i := 4; i < len(asked); i += 2 {
			assert.Equal(t, []int{WholePlan, 1}, asked[i:i+2])
		}
		assert.Equal(t, found, o.last().Preflight[1].Findings)
		assert.Equal(t, 1, strings.Count(w.events(), "preflight problem"), "what stays is told once")
	})
}

func TestPreflightThatHangsHoldsUpNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls atomic.Int32
		w, _ := watched(t, act{v0, reaches(10, 15, 18, 20)}, act{v0, refusesStop(20, 20)}, act{m1, exits(4)})
		w.options.PreflightBefore = time.Hour
		w.options.Preflight = func(int) []Finding {
			if calls.Add(1) > 4 {
				<-release
			}
			return nil
		}
		w.fails(4)
		assert.EqualValues(t, 5, calls.Load(), "one that hangs is not followed by another one")
		close(release)
	})
}

func TestPaceIsSmooth(t *testing.T) {
	at := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	var p pace
	rate := p.add(Reading{100, at})
	assert.Zero(t, rate, "one reading makes no rate")
	for i := range uint64(600) { // 4 blocks a second, read ten times a second
		at = at.Add(100 * time.Millisecond)
		rate = p.add(Reading{100 + 4*(i+1)/10, at})
	}
	assert.InDelta(t, 4, rate, 0.2)
	for range 10 { // ten seconds without a block
		at = at.Add(time.Second)
		rate = p.add(Reading{100 + 240, at})
	}
	assert.Greater(t, rate, 2.0, "a pause is no end")
	for range 600 {
		at = at.Add(time.Second)
		rate = p.add(Reading{100 + 240, at})
	}
	assert.Less(t, rate, 0.001)
	assert.GreaterOrEqual(t, p.add(Reading{0, at.Add(time.Second)}), 0.0, "a height that falls is no negative rate")
}

func TestTimeUntilTheUpgrade(t *testing.T) {
	plan := twoVersions()
	at := func(height uint64, rate float64) State {
		return State{Height: &Reading{Height: height}, Rate: rate, Process: ProcessState{Pid: 1}}
	}
	for _, test := range []struct {
		name   string
		state  State
		blocks uint64
		eta    time.Duration
		known  bool
	}{
		{"on the way", at(10, 2), 10, 5 * time.Second, true},
		{"at the stop height", at(20, 2), 0, 0, true},
		{"past it", at(25, 2), 0, 0, true},
		{"standing still", at(10, 0), 10, -1, true},
		{"without a height", State{}, 0, -1, false},
		{"hardly moving", at(0, 1e-300), 20, time.Duration(math.MaxInt64 / 2), true},
		{"while the version before runs on", State{Height: &Reading{Height: 10}, Rate: 1, Record: Checkpoint{VersionIndex: 1}, Process: ProcessState{Pid: 1}}, 0, -1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			blocks, eta, known := test.state.UntilUpgrade(plan)
			assert.Equal(t, test.blocks, blocks)
			assert.InDelta(t, float64(test.eta), float64(eta), float64(time.Second))
			assert.Equal(t, test.known, known)
		})
	}
	plan.Versions[0].Stop = 0
	_, _, known := at(10, 2).UntilUpgrade(plan)
	assert.False(t, known, "without a stop height there is no upgrade")
}

func TestPhasesAreListedOnce(t *testing.T) {
	seen := map[Phase]bool{}
	for _, p := range Phases() {
		assert.False(t, seen[p], p)
		seen[p] = true
	}
	assert.Len(t, seen, 9)
}
