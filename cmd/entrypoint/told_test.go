package main_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/status"
)

// A node that was started to verify ran on, from 8 to 10, and exits 0 there: it has made progress.
func TestVerificationThatRanOnIsVerifiedAgain(t *testing.T) {
	t.Parallel()
	served(t, version{stop: 10, faults: leaderAt(8)}, version{stop: 20, migrates: true}, version{}).run(
		phase{name: "run", do: do(heights(7, 6), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "it becomes leader", do: heights(8, 6), events: []event{on("version exited", "decision=verify"), on("height known", "version=0")},
			trace: []string{"exit v0 0 at 6", "start v0 stop=10"},
		},
		phase{
			name: "complete", do: do(func(c *chain) {
				// Without it there is no progress between the two exits.
				c.awaitStatus("the node to be seen beyond its first exit", func(r status.Report) bool { return r.Height != nil && r.Height.Blocks == 8 })
			}, heights(13, 13)), events: []event{on("height known", "version=1")},
			trace: upgraded[1:], state: "13 version 1 migrated@10",
		},
	)
}

// Otherwise the last words of a node that dies in the middle of a line would share their line with our next one, which
// would be no JSON then.
func TestOurLinesBeginALineOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{})
	require.NoError(t, os.Remove(c.binary(0)))
	require.NoError(t, writeExecutable(c.binary(0), []byte("#!/bin/sh\nprintf 'no end of line' >&2\nexit 3\n")))
	c.run(phase{name: "run", do: start(), exit: exits(3), events: []event{on("version started"), on("version exited", "decision=failed")}})
}

func TestCommandWorksAsItIsTold(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	require.NoError(t, os.Remove(c.checkpoint))
	c.run(phase{name: "refused", do: start(), exit: exits(78), trace: []string{"start v0 stop=10", "exit v0 101 at 13"}, says: []string{"height 13"}})
	told := adoptCommand.FindStringSubmatch(c.lastLog)[1]
	code, _, errs := c.command(strings.Fields(told)...)
	assert.Zero(t, code, errs)
}
