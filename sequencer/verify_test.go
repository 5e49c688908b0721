package sequencer

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// comparer is an Options.Verify that has its answers written down.
type comparer struct {
	mu sync.Mutex
	// found are the findings by version, blocks those whose comparison at once lasts until it is cut short.
	found  map[int][]Finding
	blocks map[int]bool
	// idlyBlocks: every comparison in the background lasts until it is cut short.
	idlyBlocks bool
	// blocked, where not nil, is called when one at once begins to last.
	blocked func()
	asked   []comparison
	cut     int
}

type comparison struct {
	version int
	idly    bool
}

func (c *comparer) verify(ctx context.Context, i int, idly bool) []Finding {
	c.mu.Lock()
	c.asked = append(c.asked, comparison{i, idly})
	found, block := c.found[i], c.blocks[i] && !idly || c.idlyBlocks && idly
	c.mu.Unlock()
	if block {
		if c.blocked != nil && !idly {
			c.blocked()
		}
		<-ctx.Done()
		c.mu.Lock()
		c.cut++
		c.mu.Unlock()
	}
	return found
}

func (c *comparer) change(i int, found ...Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.found == nil {
		c.found = map[int][]Finding{}
	}
	c.found[i] = found
}

// in gives what was asked at once, or idly, in order.
func (c *comparer) in(idly bool) (versions []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, asked := range c.asked {
		if asked.idly == idly {
			versions = append(versions, asked.version)
		}
	}
	return versions
}

func differs(i int) Finding {
	return Finding{i, SeverityError, "/rollup has other bytes", "copy it again"}
}

func TestVersionThatDiffersIsNotStarted(t *testing.T) {
	lives(t, func(t *testing.T) {
		for _, i := range []int{WholePlan, 0} {
			c := &comparer{}
			c.change(i, differs(i))
			w, o := watched(t)
			w.options.Verify = c.verify
			f := w.fails(CodeMismatch)
			assert.Contains(t, f.Error(), "version 0 is not what it is to be: ")
			assert.Contains(t, f.Error(), "/rollup has other bytes; copy it again; nothing was started; ")
			assert.Empty(t, w.store.saved)
			assert.Equal(t, []int{WholePlan, 0}, c.in(false))
			assert.Equal(t, []Finding{differs(i)}, o.last().Preflight[i].Findings)
			assert.Contains(t, w.events(), "preflight problem")
		}
	})
}

func TestWarningOfAComparisonStandsBesideThoseOfThePreflight(t *testing.T) {
	lives(t, func(t *testing.T) {
		extra, other := Finding{0, SeverityWarning, "a new file", ""}, Finding{0, SeverityWarning, "an old library", ""}
		c := &comparer{}
		c.change(0, extra)
		w, o := watched(t, act{v0, exits(5)})
		w.options.Verify = c.verify
		w.options.Preflight = func(i int) []Finding {
			if i == 0 {
				return []Finding{other}
			}
			return nil
		}
		w.fails(5)
		assert.Equal(t, []Finding{other, extra}, o.last().Preflight[0].Findings)
	})
}

// Known long before, told, and refused only when it is its turn.
func TestLaterVersionThatDiffersIsToldWhileTheFirstRuns(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{}
		c.change(1, differs(1))
		w, o := watched(t, act{v0, reaches(3, 20)})
		w.plan = twoVersions()
		w.options.Verify = c.verify
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Error(), "version 0 is complete at height 20, but version 1 cannot follow: version 1: /rollup has other bytes; copy it again; nothing of it was started and the checkpoint is unchanged; ")
		assert.Equal(t, 0, w.store.have.VersionIndex)
		assert.Empty(t, w.store.have.History)
		assert.Equal(t, []int{WholePlan, 0, 1}, c.in(false))
		assert.Equal(t, []int{1}, c.in(true))
		assert.True(t, slices.ContainsFunc(o.states, func(s State) bool {
			return s.Phase == PhaseRunning && len(s.Preflight[1].Findings) == 1
		}), "while v0 runs")
	})
}

func TestVersionIsComparedAgainBeforeTheHandOver(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{}
		w := newWorld(t)
		w.plan = twoVersions()
		w.options.Verify = c.verify
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(3)
			c.change(1, differs(1))
			p.at(20)
			p.exits(0)
		}}}
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Error(), "version 1 cannot follow")
		assert.Equal(t, 0, w.store.have.VersionIndex)
	})
}

func TestAllLaterVersionsAreComparedInTheBackground(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{}
		w, o := watched(t, act{v0, func(p *fakeProcess) { p.at(3); p.exits(5) }})
		w.options.Verify = c.verify
		w.fails(5)
		assert.Equal(t, []int{1, 2}, c.in(true))
		assert.Len(t, o.last().Preflight, 1+3)
	})
}

func TestStopCutsAComparisonShort(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{blocks: map[int]bool{0: true}}
		w := newWorld(t)
		w.options.Verify = c.verify
		w.signals <- syscall.SIGHUP
		go func() { w.signals <- syscall.SIGTERM }()
		require.NoError(t, w.run())
		assert.Empty(t, w.store.saved)
	})
}

// What is proven stays proven; the next start compares before it starts anything.
func TestStopInAComparisonAtTheHandOverKeepsTheHandOver(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t)
		c := &comparer{blocks: map[int]bool{1: true}, blocked: func() { w.signals <- syscall.SIGTERM }}
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(20)
			p.exits(0)
		}}}
		w.plan = twoVersions()
		w.options.Verify = c.verify
		require.NoError(t, w.run())
		assert.Equal(t, 1, w.store.have.VersionIndex)
		assert.Len(t, w.store.have.History, 1)
	})
}

// The next version waits for nobody who has time.
func TestComparisonInTheBackgroundIsCutShortByTheEndOfTheNode(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{idlyBlocks: true}
		w := newWorld(t, act{v0, reaches(3, 20)}, act{v1First, reaches(21, 40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.options.Verify = c.verify
		require.NoError(t, w.run())
		assert.Equal(t, []int{WholePlan, 0, 1}, c.in(false))
		assert.Equal(t, 1, c.cut)
	})
}

func TestPreviousVersionIsComparedBeforeItRunsOn(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{}
		c.change(0, differs(0))
		w := newWorld(t)
		w.plan = twoVersions()
		w.options.Verify = c.verify
		w.store.have = &Checkpoint{VersionIndex: 1, BinaryPath: "/v1", Phase: PhaseFinishingPrevious}
		f := w.fails(CodeMismatch)
		assert.Contains(t, f.Error(), "version 1 needs version 0 to prove its stop height first, and that is not what it is to be: version 0: /rollup has other bytes")
		assert.Equal(t, PhaseFinishingPrevious, w.store.have.Phase)
	})
}

func TestHistoryHasTheDigestOfEachVersion(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, refusesStop(20, 20)}, act{v1First, reaches(21, 40)}, act{v1Later, refusesStop(40, 40)})
		w.plan = twoVersions()
		w.store.have = &Checkpoint{VersionIndex: 1, BinaryPath: "/v1", Phase: PhaseFinishingPrevious}
		require.NoError(t, w.run())
		require.Len(t, w.store.have.History, 2)
		assert.Equal(t, "sha of /v0", w.store.have.History[0].BinarySHA256)
		assert.Equal(t, "sha of /v1", w.store.have.History[1].BinarySHA256)
	})
}
