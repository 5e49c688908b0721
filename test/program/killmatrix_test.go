package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/ptrace"
)

// killMatrix, set to "all", has every point be tried; "N/ACTION" tries one. Otherwise it is a sample.
const killMatrix = "ENTRYPOINT_KILL_MATRIX"

// matrixSample is about how many lives a plain test has of each matrix.
const matrixSample = 20

// matrixActions are what is done at a point. Each gets the program at its stop, and the child that runs, or 0. It reports
// whether there was something to do it to.
var matrixActions = map[string]func(c *ptrace.Call, child int) bool{
	"kill":       func(c *ptrace.Call, _ int) bool { return c.Signal(unix.SIGKILL) == nil },
	"term":       func(c *ptrace.Call, _ int) bool { return c.Signal(unix.SIGTERM) == nil },
	"kill-child": func(c *ptrace.Call, child int) bool { return killChild(c.PID, child) },
	"kill-both": func(c *ptrace.Call, child int) bool {
		killChild(c.PID, child)
		return c.Signal(unix.SIGKILL) == nil
	},
}

// killChild kills the child of parent where it is alive. Its number may have been given away in the meantime: the
// descriptor holds on to one process, and that one is looked at before it is killed.
func killChild(parent, child int) bool {
	if child <= 0 {
		return false
	}
	fd, err := unix.PidfdOpen(child, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(parent) {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// matrixChain has three versions and a migration. Blocks come slowly enough for a height of each node to be read, and
// recorded, while it runs.
func matrixChain(t testing.TB) *chain {
	t.Helper()
	c := newChain(t, version{stop: 3}, version{stop: 6, migrates: true}, version{stop: 9})
	c.undo = "auto"
	for i := range c.versions {
		node := &c.versions[i].node
		node.Mock.DA = mockrollup.DAConfig{File: filepath.Join(c.dir, "da.json"), BlockTime: 120 * time.Millisecond}
		node.Mock.Migration.Idempotent, node.Mock.Migration.Sleep = true, 20*time.Millisecond
		c.writeConfig(i)
	}
	return c
}

// matrixPoint counts the points of a run, and acts at one of them.
type matrixPoint struct {
	volume string
	want   int // the ordinal to act at, 0 for none
	act    func(*ptrace.Call, int) bool
	seen   int
	what   string // the point acted at
	acted  bool   // there was something to act on
	child  int
	// withChild are the points at which a child runs.
	withChild []int
}

var startsAndWaits = []string{"clone", "clone3", "vfork", "pipe2", "wait4", "waitid", "kill", "pidfd_send_signal", "exit_group"}

// hook is called at every stop.
func (m *matrixPoint) hook(c *ptrace.Call) {
	if !m.interesting(c) {
		return
	}
	m.follow(c)
	if m.seen++; m.child != 0 {
		m.withChild = append(m.withChild, m.seen)
	}
	if m.seen != m.want {
		return
	}
	m.what = fmt.Sprintf("%s, exit %v, result %d", c.Name(), c.Exit, c.Result)
	m.acted = m.act(c, m.child)
}

// interesting reports whether the call touches the checkpoint's directory, a start or a wait.
func (m *matrixPoint) interesting(c *ptrace.Call) bool {
	name, path := c.Name(), ""
	switch name {
	case "clone":
		return c.Args[0]&unix.CLONE_THREAD == 0
	case "openat", "unlinkat", "renameat", "renameat2":
		path, _ = c.Path(0, 1)
	case "write", "pwrite64", "fsync", "fchmod", "flock", "ftruncate", "close":
		path, _ = c.File(0)
	default:
		return slices.Contains(startsAndWaits, name)
	}
	return strings.HasPrefix(path, m.volume)
}

// follow knows the child that runs: the last one started, until it is reaped.
func (m *matrixPoint) follow(c *ptrace.Call) {
	if !c.Exit || c.Result < 0 {
		return
	}
	switch c.Name() {
	case "clone", "clone3", "vfork":
		m.child = int(c.Result)
	case "wait4":
		if m.child != 0 && int(c.Result) == m.child {
			m.child = 0
		}
	case "waitid": // with WNOWAIT it only looks
		if c.Args[0] == unix.P_PID && int(c.Args[1]) == m.child && c.Args[3]&unix.WNOWAIT == 0 {
			m.child = 0
		}
	}
}

// startTraced starts the program under the tracer.
func (c *chain) startTraced(hook func(*ptrace.Call)) {
	c.t.Helper()
	read, write, err := os.Pipe()
	require.NoError(c.t, err)
	cmd := exec.Command(programs.entrypoint, "-c", c.manager, "-f", c.checkpoint)
	cmd.Dir, cmd.Env, cmd.Stderr = c.dir, c.environment(), write
	p := &program{cmd: cmd, log: &logBook{}, stderr: read, done: make(chan struct{})}
	process, err := ptrace.Start(cmd, hook)
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		c.t.Skip("ptrace(2) is not permitted here: ", err)
	}
	require.NoError(c.t, err)
	require.NoError(c.t, write.Close())
	c.program, c.programs = p, append(c.programs, p)
	go func() {
		defer close(p.done)
		p.log.read(read)
		status, err := process.Wait()
		p.tracedStatus, p.tracedErr = &status, err
	}()
}

// matrixEnd is what must be the same whatever happened.
func matrixEnd(c *chain) string {
	state, err := mockrollup.ReadState(c.state)
	require.NoError(c.t, err)
	return fmt.Sprintf("%s %v %v, checkpoint %s, stamp %s", state.StateRoot, state.History, state.Migrations, c.checkpointInWords(), c.stampInWords())
}

// toTheEnd starts the program again, undisturbed: once is enough. It puts the undo point back where a migration was
// interrupted, and only there.
func (c *chain) toTheEnd() {
	c.t.Helper()
	c.program = nil
	c.await("no process is left over", func() bool { return len(c.processes()) == 0 })
	interrupted := strings.Contains(c.stampInWords(), "migrating")
	c.start()
	c.await("the end", c.program.ended)
	require.Zero(c.t, c.program.code(), "%s: restarted:\n%s", c.phase, c.program.log.text())
	require.True(c.t, strings.HasPrefix(c.checkpointInWords(), "2 finished"), "%s: %s", c.phase, c.checkpointInWords())
	undone := strings.Contains(c.program.log.text(), "migration was interrupted")
	assert.Equal(c.t, interrupted, undone, "%s: a migration was interrupted, and the version is entered anew", c.phase)
}

// awaitTraced waits for the end of a traced run, which takes many times as long as one that is not.
func (c *chain) awaitTraced() {
	c.t.Helper()
	select {
	case <-c.program.done:
	case <-time.After(6 * deadline):
		c.fatalf("waited in vain for the end of the disturbed run")
	}
}

// tally counts the lives of one action.
type tally struct{ lives, differed, notReached, noChild atomic.Int32 }

// tallies prints what became of the lives.
func tallies(t *testing.T, order []string, all map[string]*tally) {
	t.Helper()
	t.Logf("%-22s %6s %9s %12s %15s", "action", "lives", "differed", "not reached", "no child there")
	for _, name := range order {
		a := all[name]
		t.Logf("%-22s %6d %9d %12d %15d", name, a.lives.Load(), a.differed.Load(), a.notReached.Load(), a.noChild.Load())
		// A height that was read in one run, and recorded, may not be read in another: that is a fifth of all points.
		assert.LessOrEqual(t, a.notReached.Load()*4, a.lives.Load()+8, "lives that ended before their point: %s", name)
	}
}

// chosen reports whether the nth of all lives is lived: all, the one that the environment names, or a sample.
func chosen(name string, n, all int) bool {
	one := os.Getenv(killMatrix)
	switch {
	case one == "all":
		return true
	case one != "":
		return one == name
	}
	sample := matrixSample
	if raceEnabled {
		sample = matrixSample / 4 // each stop of a program that was built with the race detector is dear
	}
	// Odd, so that a stride meets each action.
	return n%(all/sample|1) == 0
}

// The program, its child or both are killed, or the program is stopped, at a system call that touches the checkpoint, a
// start or a wait: after a restart everything is as if nothing had happened.
func TestKilledAtAnySystemCallTheChainBecomesTheSame(t *testing.T) {
	calm := matrixChain(t)
	record := &matrixPoint{volume: filepath.Dir(calm.checkpoint)}
	calm.startTraced(record.hook)
	calm.await("the end", calm.program.ended)
	require.NoError(t, calm.program.tracedErr)
	require.Zero(t, calm.program.code(), calm.program.log.text())
	points, want, began := record.seen, matrixEnd(calm), time.Now()
	names := []string{"kill", "term", "kill-child", "kill-both"}
	all := map[string]*tally{}
	for _, name := range names {
		all[name] = &tally{}
	}
	t.Run("points", func(t *testing.T) {
		for n := range points * len(names) {
			ordinal, action := n/len(names)+1, names[n%len(names)]
			name := strconv.Itoa(ordinal) + "/" + action
			if action == "kill-child" && !slices.Contains(record.withChild, ordinal) {
				all[action].noChild.Add(1)
				continue
			}
			if !chosen(name, n, points*len(names)) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				disturbedLife(t, ordinal, action, want, all[action])
			})
		}
	})
	t.Logf("%d points, a child at %d of them, in %s", points, len(record.withChild), time.Since(began).Round(time.Second))
	tallies(t, names, all)
}

// disturbedLife does the action at a point of one life.
func disturbedLife(t *testing.T, ordinal int, action, want string, count *tally) {
	t.Helper()
	c := countedLife(t, count)
	m := &matrixPoint{volume: filepath.Dir(c.checkpoint), want: ordinal, act: matrixActions[action]}
	c.runTraced(m.hook, func() string {
		return fmt.Sprintf("%s at point %d (%s); alone: %s=%d/%s", action, ordinal, m.what, killMatrix, ordinal, action)
	})
	switch {
	case m.what == "":
		count.notReached.Add(1)
	case !m.acted:
		count.noChild.Add(1)
	}
	m.checkEnd(c, action)
	c.toTheEnd()
	assertAsUndisturbed(c, func(end string) string { return end }, want)
}

// countedLife makes the chain of one more life.
func countedLife(t *testing.T, count *tally) *chain {
	t.Helper()
	count.lives.Add(1)
	t.Cleanup(func() {
		if t.Failed() {
			count.differed.Add(1)
		}
	})
	return matrixChain(t)
}

// runTraced runs the entrypoint under hook until it has ended. phase says afterwards what was done.
func (c *chain) runTraced(hook func(*ptrace.Call), phase func() string) {
	c.t.Helper()
	c.startTraced(hook)
	c.awaitTraced()
	c.phase = phase()
	require.NoError(c.t, c.program.tracedErr, c.phase)
}

// assertAsUndisturbed compares the end with that of an undisturbed life, in what of gives of it.
func assertAsUndisturbed(c *chain, of func(end string) string, want string) {
	c.t.Helper()
	assert.Equal(c.t, of(want), of(matrixEnd(c)), c.phase)
	assert.Empty(c.t, c.leftoverFiles(), c.phase)
	entries, err := c.journal()
	require.NoError(c.t, err, c.phase)
	assert.Nil(c.t, mockrollup.Overlap(entries), c.phase)
}

// checkEnd judges how the disturbed run ended.
func (m *matrixPoint) checkEnd(c *chain, action string) {
	c.t.Helper()
	code, log := c.program.code(), c.program.log.text()
	want := 128 + int(unix.SIGKILL)
	switch {
	case !m.acted:
		want = 0
	case action == "term" && code != 0:
		// Killed by it: the program before it had its handlers, or a node in its start-up.
		want = 128 + int(unix.SIGTERM)
		if !c.program.signalled() {
			assert.Contains(c.t, log, "was asked to stop, and", c.phase)
		}
	case action == "term", action == "kill-child" && code == 0:
		// A child that was ending by itself when it was killed: nothing was killed then, and the log has no kill.
		want = 0
		assert.NotContains(c.t, log, "SIGKILL", c.phase)
	}
	if code != want {
		c.fatalf("exit code %d, not %d:\n%s", code, want, log)
	}
}
