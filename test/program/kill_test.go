package program

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
)

// killsSeed is set by the environment to repeat a run.
const killsSeed = "ENTRYPOINT_KILLS_SEED"

// clockChain has three versions and a migration, and blocks that come by the clock.
func clockChain(t *testing.T) *chain {
	t.Helper()
	const stop = 75
	c := newChain(t, version{stop: stop}, version{stop: 2 * stop, migrates: true}, version{stop: 3 * stop})
	for i := range c.versions {
		node := &c.versions[i].node
		node.Mock.DA = mockrollup.DAConfig{File: filepath.Join(c.dir, "da.json"), BlockTime: 20 * time.Millisecond, Finality: 2}
		node.Mock.Migration.Idempotent, node.Mock.Migration.Sleep = true, 50*time.Millisecond
		c.writeConfig(i)
	}
	return c
}

// The program is killed again and again, at any moment of the chain's life: the state becomes what it would have been.
func TestKilledAtRandomMomentsTheChainBecomesTheSame(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(killsSeed); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("%s=%d", killsSeed, seed)
	random := rand.New(rand.NewPCG(seed, seed))
	const kills = 25

	c := clockChain(t)
	seen := lifeSoFar{}
	for i := range kills {
		c.phase = "kill " + strconv.Itoa(i)
		c.start()
		killSomewhen(c, random)
		c.await("the node to be dead too", func() bool { return len(c.processes()) == 0 })
		c.program = nil
		seen.check(c)
	}
	c.run(phase{
		name: "to the end", do: start(), exit: exits(0), events: []event{on("sequence finished", "version=2")},
		trace: c.rest(), checkpoint: "2 finished 0@75 1@150 2@225", state: "225 version 1 migrated@75",
		allows: []string{"interrupted migration is run again"},
	})

	calm := clockChain(t)
	require.NoError(t, os.Link(filepath.Join(c.dir, "da.json"), filepath.Join(calm.dir, "da.json")))
	calm.run(phase{
		name: "undisturbed", do: start(), exit: exits(0), events: []event{on("sequence finished", "version=2")}, trace: calm.rest(),
		checkpoint: "2 finished 0@75 1@150 2@225", state: "225 version 1 migrated@75",
	})
	have, err := mockrollup.ReadState(c.state)
	require.NoError(t, err)
	want, err := mockrollup.ReadState(calm.state)
	require.NoError(t, err)
	assert.Equal(t, want.StateRoot, have.StateRoot)
	assert.Equal(t, want.History, have.History, "each height was written by its version")
}

// rest allows anything in the trace.
func (c *chain) rest() []string { return []string{anything} }

// killSomewhen kills the program after some time, or after some lines of log, if it does not finish before.
func killSomewhen(c *chain, random *rand.Rand) {
	c.t.Helper()
	lines := 1 + random.IntN(40)
	timer := time.NewTimer(time.Duration(random.Int64N(int64(250 * time.Millisecond))))
	defer timer.Stop()
	if random.IntN(2) == 0 {
		lines = 1000
	}
	for len(c.program.log.all()) < lines {
		select {
		case <-c.program.done:
			if code := c.program.code(); code != 0 {
				c.fatalf("the program ended with code %d", code)
			}
			return
		case <-timer.C:
			lines = 0
		case <-time.After(time.Millisecond):
		}
	}
	_ = c.program.cmd.Process.Signal(syscall.SIGKILL)
	<-c.program.done
}

// lifeSoFar is what must never go back.
type lifeSoFar struct {
	version, migrations int
	height              uint64
}

func (l *lifeSoFar) check(c *chain) {
	c.t.Helper()
	found, err := checkpoint.Read(c.checkpoint, c.state)
	require.NoError(c.t, err, "a kill tears neither the checkpoint nor the stamp")
	state, stateErr := mockrollup.ReadState(c.state)
	if found.Stamp == nil || stateErr != nil {
		return // killed before the first start
	}
	at := found.Stamp.VersionIndex
	if at < l.version || state.Height < l.height || len(state.Migrations) < l.migrations {
		c.fatalf("it went back: %+v, then %s, %s", *l, c.stampInWords(), c.stateInWords())
	}
	if record := found.Checkpoint; record != nil && (record.VersionIndex > at || record.VersionIndex < at-1) {
		c.fatalf("the checkpoint does not follow the stamp: %s, %s", c.checkpointInWords(), c.stampInWords())
	}
	l.version, l.height, l.migrations = at, state.Height, len(state.Migrations)
	entries, err := c.journal()
	require.NoError(c.t, err)
	if overlap := mockrollup.Overlap(entries); overlap != nil {
		c.fatalf("two processes worked on the state at once: %+v\n%s", overlap, strings.Join(c.trace(), "\n"))
	}
	assert.True(c.t, slices.IsSortedFunc(state.History, func(a, b mockrollup.Segment) int { return strings.Compare(a.By, b.By) }))
}
