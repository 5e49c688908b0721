package program

import (
	"encoding/json"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// plan runs `entrypoint plan`, which must exit with 0, and gives what it printed.
func (c *chain) plan(args ...string) string {
	c.t.Helper()
	code, stdout, stderr := c.command(append([]string{"plan", "-c", c.manager}, args...)...)
	require.Zero(c.t, code, "%s%s", stdout, stderr)
	return stdout
}

func TestPlanSaysWhereTheSequenceIsAndWhatTheNextStartDoes(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true})
	alone := c.plan()
	assert.Contains(t, alone, "version:    0 (v0), from genesis to 10\n")
	assert.Contains(t, alone, " --start-at-rollup-height 11 --stop-at-rollup-height 20\n")
	assert.Contains(t, alone, "\nmigration:  ")
	assert.NotContains(t, alone, "next start")
	assert.NoFileExists(t, c.checkpoint)

	assert.Contains(t, c.plan("-f", c.checkpoint), "next start: runs v0\n")
	c.run(
		phase{name: "v0", do: do(heights(3, 3), start()), trace: []string{"start v0 stop=10"}, events: []event{on("height known")}, state: "3 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}},
	)
	before := c.plan("-f", c.checkpoint)
	assert.Contains(t, before, alone, "the plan is the same")
	assert.Contains(t, before, "next start: asks v0 for the height of the state, and continues from there\n")
	asked := c.plan("-f", c.checkpoint, "--ask")
	assert.Contains(t, asked, "\nheight:     3\nnext start: runs v0\n")

	setHeight(10)(c)
	var report struct {
		Versions []struct {
			Node struct{ Argv []string }
		}
		Record struct {
			Stamp struct {
				Name string
			}
		}
		Answer struct {
			Height *uint64
			Next   struct{ Text string } `json:"next_start"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(c.plan("-f", c.checkpoint, "--ask", "--json")), &report))
	require.Len(t, report.Versions, 2)
	assert.Equal(t, "--stop-at-rollup-height", report.Versions[1].Node.Argv[len(report.Versions[1].Node.Argv)-2])
	assert.Equal(t, "v0", report.Record.Stamp.Name)
	require.NotNil(t, report.Answer.Height)
	assert.EqualValues(t, 10, *report.Answer.Height)
	assert.Equal(t, "runs the migration of v1, then its node", report.Answer.Next.Text)
}
