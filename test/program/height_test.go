package program

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// height runs `entrypoint height`, which must exit with code, and gives what it printed.
func (c *chain) height(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	got, stdout, stderr := c.command(append([]string{"height", "-c", c.manager, "-f", c.checkpoint}, args...)...)
	require.Equal(c.t, code, got, "%s%s", stdout, stderr)
	return stdout, stderr
}

func TestHeightIsThatOfTheStoppedNodeAndSaysWhatTheNextStartDoes(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true})
	out, _ := c.height(0)
	assert.Equal(t, "height:     none: there is no state yet\nstamp:      version 0 (v0), from genesis to 10\nnext start: runs v0\n", out)
	c.run(
		phase{name: "v0", do: do(heights(3, 3), start()), trace: []string{"start v0 stop=10"}, events: []event{on("height known")}, state: "3 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}},
	)
	out, errs := c.height(0)
	assert.Equal(t, "height:     3\nstamp:      version 0 (v0), from genesis to 10\nnext start: runs v0\n", out)
	assert.NotContains(t, errs, "start_at_rollup_height", "what the node says is not shown")

	out, _ = c.height(0, "--json")
	var answer struct {
		Height *uint64
		Stamp  struct {
			VersionIndex int `json:"version_index"`
			Name         string
		}
		NextStart struct {
			Action  string
			Version int `json:"version_index"`
			Text    string
		} `json:"next_start"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &answer))
	require.NotNil(t, answer.Height)
	assert.EqualValues(t, 3, *answer.Height)
	assert.Equal(t, "v0", answer.Stamp.Name)
	assert.Equal(t, "run", answer.NextStart.Action)
	assert.Equal(t, "runs v0", answer.NextStart.Text)

	setHeight(10)(c)
	out, _ = c.height(0)
	assert.Contains(t, out, "height:     10\n")
	assert.Contains(t, out, "next start: runs the migration of v1, then its node\n")
	c.expectTrace([]string{"asked v0 at 3", "asked v0 at 3", "asked v0 at 10"}, false)

	c.run(phase{
		name: "to the end", do: do(heights(30, 30), start()), exit: exits(0), state: "20 version 1 migrated@10",
		trace: []string{
			"asked v0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20", "exit v1 0 at 20", "asked v1 at 20",
		},
	})
	out, _ = c.height(0)
	assert.Equal(t, "height:     20\nstamp:      version 1 (v1), from height 11 to 20, migration completed\nnext start: starts nothing: v1, the last version, is complete\n", out)
}

func TestHeightOfAStateThatAPlanComesTooLateForIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	c.versions[1].stop, c.versions[2].start = 12, 13
	c.writeManager()
	_, errs := c.height(78)
	assert.Contains(t, errs, "above the stop height 12, which was deployed only after it had passed")
	// The checkpoint has the height of the answer, so check knows it without asking.
	code, out, _ := c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, 78, code)
	assert.Contains(t, out, "too late: ")
}

func TestHeightOfANodeThatRunsIsNotAsked(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	c.run(phase{name: "run", do: do(heights(3, 3), start()), trace: []string{"start v0 stop=10"}, events: []event{on("height known")}})
	_, errs := c.height(74)
	assert.Contains(t, errs, "locked by the entrypoint with pid ")
	c.expectTrace(nil, false)
}

func TestHeightOfANodeThatIsNotToBeAskedIsNotKnown(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, keys: map[string]any{"ask": false}}, version{})
	inV1(c)
	out, errs := c.height(0)
	assert.Equal(t, "height:     unknown: the node cannot be asked\nstamp:      version 1 (v1), from height 11 to 20\nnext start: runs v1\n", out)
	assert.Contains(t, errs, "node cannot be asked")
	out, _ = c.height(0, "--json")
	assert.Contains(t, out, "\"height\": null")
}

// A node that gives no answer ends `height` with its own code, and with its last words.
func TestHeightOfANodeThatFailsShowsWhatItSaid(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	configure(1, func(n *mockrollup.Config) { n.Mock.PanicOnStart = "the DA is gone" })(c)
	out, errs := c.height(101)
	assert.Empty(t, out)
	assert.Contains(t, errs, "its node was asked for its height and exited 101")
	_, last, found := strings.Cut(errs, "\nstderr:\n")
	require.True(t, found, errs)
	assert.Contains(t, last, "the DA is gone")
}

// A program that waits for a height must not take a stop for an answer.
func TestStopWhileTheHeightIsAskedForIsNoAnswer(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	configure(1, func(n *mockrollup.Config) { n.Mock.Refusal, n.Mock.RefusalDelay = "late", time.Hour })(c)
	c.startWith("height", "-c", c.manager, "-f", c.checkpoint)
	c.await("the question", func() bool { trace := c.trace(); return trace[len(trace)-1] == "asking v1" })
	send(syscall.SIGTERM)(c)
	c.awaitExit(75)
	assert.Contains(t, c.program.log.text(), "a stop signal came before the node reported its height")
	c.program = nil
	assert.Empty(t, c.processes())
}

// The manifest is compared before a node is asked: the one of another release destroys a state by opening it.
func TestHeightIsNotAskedOfANodeThatIsNotTheOneOfTheManifest(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10}, version{})
	c.run(
		phase{name: "v0", do: do(heights(3, 3), start()), trace: []string{"start v0 stop=10"}, events: []event{on("height known")}, state: "3 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}},
	)
	c.replace(c.binary(0), tampered(c.bytes(c.binary(0))))
	_, errs := c.height(78, "--manifest", c.manifest())
	assert.Contains(t, errs, "version 0 does not match the manifest")
	c.expectTrace(nil, false)
}
