package sequencer

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

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
	// blocked, if not nil, is called when one at once begins to last.
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
			w, o := watched(newWorld(t))
			w.files.verify = c.verify
			f := w.fails(CodeMismatch)
			assert.Equal(t, FilesInvalid, f.Cause)
			require.ErrorContains(t, f, "/rollup has other bytes; copy it again; nothing was started; ")
			assert.Empty(t, w.store.story)
			assert.Zero(t, w.store.checkpoints)
			assert.Equal(t, []int{WholePlan, 0}, c.in(false))
			assert.Equal(t, []Finding{differs(i)}, o.last().Preflight[i].Findings)
			assert.Equal(t, 1, w.count("preflight problem"))
		}
	})
}

func TestWarningOfAComparisonIsBesideThoseOfThePreflight(t *testing.T) {
	lives(t, func(t *testing.T) {
		extra, other := Finding{0, SeverityWarning, "a new file", ""}, Finding{0, SeverityWarning, "an old library", ""}
		c := &comparer{}
		c.change(0, extra)
		w, o := watched(newWorld(t, act{v0, exits(5)}))
		w.files.verify = c.verify
		w.files.preflight = func(i int) []Finding {
			if i == 0 {
				return []Finding{other}
			}
			return nil
		}
		w.fails(5)
		assert.Equal(t, []Finding{other, extra}, o.last().Preflight[0].Findings)
	})
}

// Known long before, reported, and refused only when it is its turn.
func TestLaterVersionThatDiffersIsReportedWhileTheFirstRuns(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{}
		c.change(1, differs(1))
		w, o := watched(newWorld(t, act{v0, reaches(3, 20)}, act{askV0, answers(20)}).withPlan(twoVersions()))
		w.files.verify = c.verify
		f := w.fails(CodeMismatch)
		assert.Equal(t, FilesInvalid, f.Cause)
		require.ErrorContains(t, f, "version 1: /rollup has other bytes; copy it again")
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
		assert.Empty(t, w.store.checkpoint.History)
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
		w.files.verify = c.verify
		w.acts = []act{{v0, func(p *fakeProcess) {
			p.at(3)
			c.change(1, differs(1))
			p.at(20)
			p.exits(0)
		}}, {askV0, answers(20)}}
		w.failsBecause(FilesInvalid)
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
	})
}

func TestAllLaterVersionsAreComparedInTheBackground(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{}
		w, o := watched(newWorld(t, act{v0, reachesAndExits(5, 3)}))
		w.files.verify = c.verify
		w.fails(5)
		assert.Equal(t, []int{1, 2}, c.in(true))
		assert.Len(t, o.last().Preflight, 1+3)
	})
}

func TestStopCutsAComparisonShort(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{blocks: map[int]bool{0: true}}
		w := newWorld(t)
		w.files.verify = c.verify
		w.signals <- syscall.SIGHUP
		go func() { w.signals <- syscall.SIGTERM }()
		require.NoError(t, w.run())
		assert.Empty(t, w.store.story)
	})
}

// Nothing is lost: the next start asks, and compares before it starts anything.
func TestStopInAComparisonAtTheHandOverStartsNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		w := newWorld(t, act{v0, reaches(20)}, act{askV0, answers(20)}).withPlan(twoVersions())
		c := &comparer{blocks: map[int]bool{1: true}, blocked: func() { w.signals <- syscall.SIGTERM }}
		w.files.verify = c.verify
		require.NoError(t, w.run())
		assert.Equal(t, 0, w.store.stamp.VersionIndex)
		synctest.Wait() // the run does not wait for it
		assert.Equal(t, 1, c.cut)
	})
}

// The next version waits for nobody who has time.
func TestComparisonInTheBackgroundIsCutShortByTheEndOfTheNode(t *testing.T) {
	lives(t, func(t *testing.T) {
		c := &comparer{idlyBlocks: true}
		w := newWorld(t, act{v0, reaches(3, 20)}, act{askV0, answers(20)}, act{v1First, reaches(21, 40)}, act{askV1, answers(40)})
		w.plan = twoVersions()
		w.files.verify = c.verify
		require.NoError(t, w.run())
		assert.Equal(t, []int{WholePlan, 0, 1}, c.in(false))
		assert.Equal(t, 1, c.cut)
	})
}
