package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/internal/ptrace"
)

// killMatrix, set to "all", has every point be tried; "N/ACTION" tries one. Otherwise it is a sample.
const killMatrix = "ENTRYPOINT_KILL_MATRIX"

// matrixSample is about how many points a plain test tries.
const matrixSample = 40

// matrixActions are what is done at a point. Each gets the program at its stop, and the child that it waits for, or 0.
var matrixActions = map[string]func(c *ptrace.Call, child int){
	"kill":       func(c *ptrace.Call, _ int) { _ = c.Signal(unix.SIGKILL) },
	"term":       func(c *ptrace.Call, _ int) { _ = c.Signal(unix.SIGTERM) },
	"kill-child": func(_ *ptrace.Call, child int) { killChild(child) },
	"kill-both":  func(c *ptrace.Call, child int) { _ = c.Signal(unix.SIGKILL); killChild(child) },
}

func killChild(child int) {
	if child > 0 {
		_ = unix.Kill(child, unix.SIGKILL)
	}
}

// matrixChain has three versions, each of a few blocks that are there from the beginning, and a migration.
func matrixChain(t testing.TB) *chain {
	t.Helper()
	c := newChain(t, version{stop: 3}, version{stop: 6, migrates: true}, version{stop: 9})
	for i := range c.versions {
		node := &c.versions[i].node
		node.Mock.DA = mockrollup.DAConfig{File: filepath.Join(c.dir, "da.json"), BlockTime: time.Millisecond}
		node.Mock.Migration.Idempotent = true
		c.writeConfig(i)
	}
	past := fmt.Sprintf(`{"genesis_unix_ms": %d, "block_ms": 1}`, time.Now().Add(-time.Hour).UnixMilli())
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "da.json"), []byte(past), 0o644))
	return c
}

// matrixPoint counts the points of a run, and acts at one of them.
type matrixPoint struct {
	volume string
	want   int // the ordinal to act at, 0 for none
	act    func(*ptrace.Call, int)
	seen   int
	what   string // the point acted at
	child  int
}

var startsAndWaits = []string{"clone", "clone3", "vfork", "pipe2", "wait4", "waitid", "kill", "pidfd_send_signal", "exit_group"}

// hook is called at every stop.
func (m *matrixPoint) hook(c *ptrace.Call) {
	if !m.interesting(c) {
		return
	}
	m.follow(c)
	if m.seen++; m.seen != m.want {
		return
	}
	m.what = fmt.Sprintf("%s, exit %v, result %d", c.Name(), c.Exit, c.Result)
	m.act(c, m.child)
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
	if !c.Exit || c.Result <= 0 {
		return
	}
	switch c.Name() {
	case "clone", "clone3", "vfork":
		m.child = int(c.Result)
	case "wait4":
		if int(c.Result) == m.child {
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
	require.NoError(c.t, err)
	require.NoError(c.t, write.Close())
	c.program = p
	go func() {
		defer close(p.done)
		p.log.read(read)
		status, _ := process.Wait()
		p.tracedStatus = &status
	}()
}

// matrixEnd is what must be the same whatever happened.
func matrixEnd(c *chain) string {
	state, err := mockrollup.ReadState(c.state)
	require.NoError(c.t, err)
	return fmt.Sprintf("%s %v %v %s", state.StateRoot, state.History, state.Migrations, c.checkpointInWords())
}

// toTheEnd restarts the program until it has finished.
func (c *chain) toTheEnd() {
	c.t.Helper()
	for range 10 {
		c.program = nil
		c.await("no process is left over", func() bool { return len(c.processes()) == 0 })
		c.start()
		c.await("the end", c.program.ended)
		if strings.HasPrefix(c.checkpointInWords(), "2 finished") && c.program.code() == 0 {
			return
		}
	}
	c.fatalf("it did not finish in ten starts:\n%s", c.program.log.text())
}

// The program, its child or both are killed, or the program is stopped, at a system call that touches the checkpoint, a
// start or a wait: after restarts everything is as if nothing had happened.
func TestKilledAtAnySystemCallTheChainBecomesTheSame(t *testing.T) {
	calm := matrixChain(t)
	record := &matrixPoint{volume: filepath.Dir(calm.checkpoint)}
	calm.startTraced(record.hook)
	calm.await("the end", calm.program.ended)
	require.Zero(t, calm.program.code(), calm.program.log.text())
	points, want := record.seen, matrixEnd(calm)
	names := []string{"kill", "term", "kill-child", "kill-both"}
	stride, one := max(1, points*len(names)/matrixSample), os.Getenv(killMatrix)
	if one == "all" {
		stride = 1
	}
	var lives, missed atomic.Int32
	t.Run("points", func(t *testing.T) {
		for n := range points * len(names) {
			name := strconv.Itoa(n/len(names)+1) + "/" + names[n%len(names)]
			if strings.Contains(one, "/") && name != one || !strings.Contains(one, "/") && n*7%(points*len(names))%stride != 0 {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				lives.Add(1)
				if !disturbedLife(t, n/len(names)+1, names[n%len(names)], want) {
					missed.Add(1)
				}
			})
		}
	})
	t.Logf("%d points, %d lives, %d of them ended before their point", points, lives.Load(), missed.Load())
	assert.LessOrEqual(t, missed.Load()*10, lives.Load(), "lives that ended before their point")
}

// disturbedLife reports whether the point was reached.
func disturbedLife(t *testing.T, ordinal int, action, want string) bool {
	t.Helper()
	c := matrixChain(t)
	m := &matrixPoint{volume: filepath.Dir(c.checkpoint), want: ordinal, act: matrixActions[action]}
	c.startTraced(m.hook)
	c.await("the end of the disturbed run", c.program.ended)
	c.phase = fmt.Sprintf("%s at point %d (%s); alone: %s=%d/%s", action, ordinal, m.what, killMatrix, ordinal, action)
	codes := []int{0, 128 + int(syscall.SIGKILL), 128 + int(syscall.SIGTERM)}
	if code := c.program.code(); !slices.Contains(codes, code) {
		c.fatalf("exit code %d:\n%s", code, c.program.log.text())
	}
	c.toTheEnd()
	assert.Equal(t, want, matrixEnd(c), c.phase)
	assert.Empty(t, c.leftoverFiles(), c.phase)
	entries, err := c.journal()
	require.NoError(t, err, c.phase)
	assert.Nil(t, mockrollup.Overlap(entries), c.phase)
	return m.what != ""
}
