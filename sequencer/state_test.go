package sequencer

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
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

// watched has the states of a world kept.
func watched(w *world) (*world, *observer) {
	o := &observer{}
	w.options.Observe = o.observe
	return w, o
}

func TestStateShowsTheWholeLife(t *testing.T) {
	lives(t, func(t *testing.T) {
		slowly := func(height uint64) func(*fakeProcess) {
			return func(p *fakeProcess) { time.Sleep(77 * time.Millisecond); answers(height)(p) }
		}
		w, o := watched(newWorld(
			t, act{v0, reaches(10, 20)}, act{askV0, slowly(20)}, act{m1, func(p *fakeProcess) { time.Sleep(time.Minute); p.exits(0) }},
			act{askV1, slowly(20)}, act{v1First, reaches(30, 40)}, act{askV1, slowly(40)}, act{v2First, stoppedAt(50)},
		))
		require.NoError(t, w.run())
		assert.Equal(t, []Phase{
			PhasePreparing, PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseAsking, PhaseHandingOver, PhaseMigrating, PhaseHandingOver,
			PhaseAsking, PhaseHandingOver, PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseAsking, PhaseHandingOver,
			PhaseStarting, PhaseRunning, PhaseHandingOver,
		}, o.phases())
		end := o.last()
		assert.True(t, end.Stopping)
		assert.Equal(t, 2, end.Record.VersionIndex)
		assert.Equal(t, *w.store.stamp, end.Stamp)
		assert.Equal(t, map[int]uint64{0: 1, 1: 1, 2: 1}, end.Starts, "a question is no start")
		assert.Equal(t, map[ExitCount]uint64{{Code: 0}: 3, {Migration: true}: 1}, end.Exits, "and its end no exit")
		assert.Equal(t, QuestionCount{Asked: 3, Answered: 3, Took: 3 * 77 * time.Millisecond}, end.Questions)
		assert.Equal(t, map[syscall.Signal]uint64{syscall.SIGTERM: 1}, end.Signals)
		require.Len(t, end.Migrations, 1)
		assert.Equal(t, time.Minute, end.Migrations[0].Took)
		assert.Equal(t, []HandOver{{1, 77 * time.Millisecond, 77 * time.Millisecond}, {2, 77 * time.Millisecond, 77 * time.Millisecond}}, end.HandOvers)
		assert.EqualValues(t, len(w.store.story)-1+w.store.checkpoints, end.Writes.Done, "all but the sync of the state")
		assert.Zero(t, end.Writes.Failed)
		assert.Nil(t, end.Failure)
		for i, s := range o.states {
			require.Equal(t, o.texts[i], fmt.Sprintf("%+v", s), "a state that was handed out has changed")
		}
	})
}

func TestStateShowsThatANodeIsAsked(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(worldAt(t, stamped(1), act{askV1, exits(101)}))
		w.fails(101)
		assert.True(t, slices.ContainsFunc(o.states, func(s State) bool {
			return s.Phase == PhaseAsking && s.Process.Asked && s.Process.Pid != 0 && s.Process.Version == 1
		}))
		assert.Equal(t, QuestionCount{Asked: 1}, o.last().Questions)
		assert.Empty(t, o.last().Exits)
	})
}

func TestStateHasTheHeightOfTheNodeThatRuns(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(oneVersion(t, act{v0, reaches(10, 20)}, act{askV0, answers(20)}))
		require.NoError(t, w.run())
		var seen []uint64
		for _, s := range o.states {
			if s.Height == nil {
				continue
			}
			if len(seen) == 0 || seen[len(seen)-1] != s.Height.Height {
				seen = append(seen, s.Height.Height)
			}
			assert.False(t, s.RoseAt.After(s.Height.At))
		}
		assert.Equal(t, []uint64{10, 20}, seen)
		assert.Equal(t, PhaseFinished, o.last().Phase)
		assert.Equal(t, checkpoint.PhaseFinished, o.last().Record.Phase)
		assert.Equal(t, new(uint64(20)), o.last().Record.Height)
	})
}

func TestStateCountsQueriesInVain(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(newWorld(t, act{v0, func(p *fakeProcess) {
			time.Sleep(pollDefault*5 + pollDefault/2)
			p.at(7)
			p.exits(3)
		}}))
		w.fails(3)
		assert.EqualValues(t, 6, o.last().QueryFailures)
		assert.Greater(t, o.last().Queries, o.last().QueryFailures)
	})
}

func TestStateShowsWhyTheRunFailed(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(newWorld(t, act{v0, exits(3)}))
		f := w.fails(3)
		assert.Equal(t, PhaseFailed, o.last().Phase)
		assert.Equal(t, f, o.last().Failure)
	})
}

func TestStateShowsOnlyWhatIsDurable(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(worldAt(t, stamped(1), act{askV1, answers(40)}))
		w.store.failStamp = failing(1)
		f := w.fails(CodeCheckpointNotWritable)
		assert.EqualValues(t, 1, o.last().Writes.Failed)
		assert.Equal(t, f, o.last().Failure)
		assert.Equal(t, 1, o.last().Stamp.VersionIndex)
		assert.Equal(t, 1, o.last().Record.VersionIndex)
	})
}

func TestPreflightErrorsStartNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w, o := watched(newWorld(t))
		w.files.preflight = func(i int) []Finding {
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
		assert.Contains(t, w.log.String(), "the volume is nearly full")
		assert.Len(t, o.last().Preflight, 1+3)
	})
}

func TestNextVersionIsLookedAtAgainAsItsUpgradeComesNear(t *testing.T) {
	lives(t, func(t *testing.T) {
		found := []Finding{{1, SeverityError, "the library libz.so.1 is not there any more", "put it back"}}
		var mu sync.Mutex // a preflight of an upgrade runs in a goroutine of its own
		var asked []int
		w, o := watched(newWorld(t, act{v0, func(p *fakeProcess) {
			for h := uint64(1); h <= 20; h++ { // a block each two seconds
				p.at(h)
			}
			p.exits(0)
		}}, act{askV0, answers(20)}, act{m1, exits(4)}))
		w.options.PreflightBefore = 12 * time.Second
		w.files.preflight = func(i int) []Finding {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, i)
			if len(asked) > 6 && i == 1 {
				return found
			}
			return nil
		}
		w.fails(4)
		assert.Equal(t, []int{WholePlan, 0, 1, 2}, asked[:4], "at the start")
		assert.Equal(t, []int{1, 2}, asked[4:6], "when the node is up")
		assert.GreaterOrEqual(t, len(asked), 6+2*4, "each second of the last twelve there is another one due")
		for i := 6; i < len(asked); i += 2 {
			assert.Equal(t, []int{WholePlan, 1}, asked[i:i+2])
		}
		assert.Equal(t, found, o.last().Preflight[1].Findings)
		assert.Equal(t, 1, w.count("preflight problem"), "what stays is logged once")
	})
}

func TestPreflightThatHangsHoldsUpNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls atomic.Int32
		w := newWorld(t, act{v0, reaches(10, 15, 18, 20)}, act{askV0, answers(20)}, act{m1, exits(4)})
		w.options.PreflightBefore = time.Hour
		w.files.preflight = func(int) []Finding {
			if calls.Add(1) > 4 {
				<-release
			}
			return nil
		}
		w.fails(4)
		assert.EqualValues(t, 4+2, calls.Load(), "one when the node is up, and one before the upgrade: one that hangs is not followed by another one")
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
		{"of another version than the one that runs", State{Height: &Reading{Height: 10}, Rate: 1, Record: checkpoint.Checkpoint{VersionIndex: 1}, Process: ProcessState{Pid: 1}}, 0, -1, false},
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
	assert.Len(t, seen, 11)
}
