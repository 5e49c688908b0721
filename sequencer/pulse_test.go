package sequencer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A watchdog sees by a 0 in place of a signal that the loop is alive: it is taken wherever the loop waits.
func TestPulseIsTakenAtAnyTimeAndMeansNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		taken := func(p *fakeProcess) {
			p.w.signals <- 0
			time.Sleep(time.Minute)
			assert.Empty(t, p.w.signals, "it was not taken")
			assert.Empty(t, p.signals)
		}
		w := newWorld(t, act{v0, func(p *fakeProcess) { taken(p); p.at(20); p.exits(0) }},
			act{askV0, func(p *fakeProcess) { taken(p); answers(20)(p) }},
			act{m1, func(p *fakeProcess) { taken(p); p.exits(0) }},
			act{askV1, answers(20)}, act{v1First, func(p *fakeProcess) { taken(p); stoppedAt(25)(p) }})
		require.NoError(t, w.run())
		assert.Zero(t, w.count("signal dropped while no node runs"))
	})
}
