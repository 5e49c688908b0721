package program

import (
	"encoding/json"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// Without a checkpoint file the stamp in the state is the record.

func startWithoutCheckpoint(c *chain) { c.startWith("-c", c.manager, "--no-checkpoint-file") }

func TestRunWithoutACheckpointContinuesWhereTheStampIs(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "upgrade", do: do(heights(13, 13), startWithoutCheckpoint), events: []event{on("height known", "version=1")},
			trace: upgraded, checkpoint: "none", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		},
		stopInV1(),
		phase{
			name: "restart", do: startWithoutCheckpoint, events: []event{on("stamp found", "version=1"), on("height known", "version=1")},
			trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "none",
		},
	)
	assert.NoFileExists(t, c.checkpoint+".lock")
}

// A kill at any moment of a life without a checkpoint loses nothing either.
func TestKilledWithoutACheckpointTheChainBecomesTheSame(t *testing.T) {
	t.Parallel()
	c := clockChain(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		startWithoutCheckpoint(c)
		killSomewhen(c, random)
		c.await("the node to be dead too", func() bool { return len(c.processes()) == 0 })
		c.program = nil
	}
	c.run(phase{
		name: "to the end", do: startWithoutCheckpoint, exit: exits(0), events: []event{on("sequence finished", "version=2")}, trace: c.rest(),
		checkpoint: "none", stamp: "2 from 151 to 225", state: "225 version 1 migrated@75", allows: []string{"interrupted migration is run again"},
	})
	c.expectBlocks(segment{"v0", 75}, segment{"v1", 150}, segment{"v2", 225})
}

func TestRunWithoutAnyRecordIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	withoutStoragePath(c)
	c.run(phase{
		name: "start", do: startWithoutCheckpoint, exit: exits(78), cause: "storage_unknown",
		says: []string{"the stamp in the state is the only record", "nothing was started", "storage.path", "--checkpoint-file"},
	})
}

func TestStateWithoutAStampIsRefusedWithoutACheckpoint(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	withoutStamp(c)
	c.run(phase{
		name: "start", do: startWithoutCheckpoint, exit: exits(78), cause: "owner_unknown", stamp: "none", state: "13 version 1 migrated@10",
		says: []string{"nothing was started", "--no-checkpoint-file --version 1 --migrated"},
	})
	c.doAs("--version 1 --migrated")
	c.run(phase{
		name: "adopted", do: startWithoutCheckpoint, events: []event{on("height known", "version=1")}, trace: []string{"asked v1 at 13", "start v1 stop=20"},
		stamp: "1 from 11 to 20 migrated",
	})
}

// heightOf is what 'entrypoint height --json' says.
func (c *chain) heightOf(args ...string) (code int, answer struct {
	Height *uint64 `json:"height"`
	Next   struct {
		Text string `json:"text"`
	} `json:"next_start"`
}, errs string,
) {
	c.t.Helper()
	code, out, errs := c.command(append([]string{"height", "-c", c.manager, "-f", c.checkpoint, "--json"}, args...)...)
	if code == 0 {
		require.NoError(c.t, json.Unmarshal([]byte(out), &answer), out)
	}
	return code, answer, errs
}

func (c *chain) expectHeight(height int, next string) {
	c.t.Helper()
	code, answer, errs := c.heightOf()
	require.Zero(c.t, code, errs)
	have := -1
	if answer.Height != nil {
		have = int(*answer.Height)
	}
	assert.Equal(c.t, height, have)
	assert.Equal(c.t, next, answer.Next.Text)
}

func TestHeightOfAStoppedState(t *testing.T) {
	t.Parallel()
	stop := phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{anything}}
	t.Run("of each version", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true}, version{stop: 30})
		c.expectHeight(-1, "runs v0")
		c.run(
			phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
			stop,
		)
		c.expectHeight(5, "runs v0")
		setHeight(10)(c)
		c.expectHeight(10, "runs the migration of v1, then its node")
		code, out, errs := c.command("height", "-c", c.manager, "-f", c.checkpoint)
		assert.Zero(t, code, errs)
		assert.Contains(t, out, "10\n")
		assert.Contains(t, out, "version 0 (v0)")
		c.run(
			phase{name: "v1", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")}, trace: []string{anything}, state: "13 version 1 migrated@10"},
			stop,
		)
		c.expectHeight(13, "runs v1")
		setHeight(20)(c)
		c.expectHeight(20, "runs v2")
		c.run(phase{name: "to the end", do: do(heights(33, 33), start()), exit: exits(0), trace: []string{anything}, state: "30 version 1 migrated@10"})
		c.expectHeight(30, "starts nothing: v2, the last version, is complete")
	})
	t.Run("just entered", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, plainChain()...)
		c.run(phase{
			name: "stop", do: do(heights(10, 10), stopAtRead(configOf(1), stampedAsV1)), exit: exits(0), trace: upgraded[:3], checkpoint: "1 running 0@10",
		})
		c.expectHeight(10, "runs v1 from its start height 11")
	})
	t.Run("in a migration", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, migratingChain()...)
		inMigration(c)
		c.expectHeight(-1, "runs the interrupted migration of v1 again")
	})
	t.Run("of a node that cannot be asked", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, version{stop: 10, faults: refuses("garbled")}, version{})
		inV0Stopped(c)
		c.expectHeight(-1, "runs v0")
	})
}

func TestHeightIsRefusedWithItsReason(t *testing.T) {
	t.Parallel()
	t.Run("of nobody's state", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, migratingChain()...)
		inV1(c)
		do(withoutStamp, withoutCheckpoint)(c)
		code, _, errs := c.heightOf()
		assert.Equal(t, 78, code)
		assert.Contains(t, errs, "neither a checkpoint nor a stamp")
	})
	t.Run("beside a running entrypoint", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, version{})
		atHeight3(c)
		code, _, errs := c.heightOf()
		assert.Equal(t, 74, code)
		assert.Contains(t, errs, "stop the other process first")
	})
	t.Run("with a state that the plan does not agree with", func(t *testing.T) {
		t.Parallel()
		c := newChain(t, migratingChain()...)
		inV1(c)
		setHeight(4)(c)
		code, _, errs := c.heightOf()
		assert.Equal(t, 78, code)
		assert.Contains(t, errs, "the state is at height 4")
		entries, err := c.journal()
		require.NoError(t, err)
		runs := mockrollup.Runs(entries)
		assert.True(t, isQuestion(runs[len(runs)-1].Start.Args))
	})
}
