package program

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
)

// A stop in each step of an upgrade: what it leaves, and that the next start continues from there.

// upgraded are the lines that follow from the start of v0 until v1 has started.
var upgraded = []string{
	"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10",
	"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20",
}

// restarted is the phase after a stop: on to v1, in which the same is true wherever the stop was.
func restarted(trace ...string) phase {
	return phase{
		name: "restart", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")}, trace: trace,
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	}
}

func TestStopBeforeTheFirstStart(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "while the files are checked", do: stopAtRead(configOf(0), (*chain).isLocked), exit: exits(0), events: []event{on("stopped")},
			checkpoint: "none", stamp: "none", state: "none",
		},
		phase{
			name: "just before v0 is started", do: stopAtRead(configOf(0), func(c *chain) bool { return c.checkpointInWords() == "0 running" }),
			exit: exits(0), events: []event{on("stopped")}, checkpoint: "0 running", stamp: "0 to 10", state: "none",
		},
		restarted(upgraded...),
	)
}

// isLocked reports whether the program has come to take its lock.
func (c *chain) isLocked() bool {
	_, err := os.Stat(c.checkpoint + ".lock")
	return err == nil
}

// deadLock locks the checkpoint as a node does that has outlived its entrypoint. The node ends when the test wants it to.
func deadLock(c *chain) (node int, end func()) {
	c.t.Helper()
	host, err := os.Hostname()
	require.NoError(c.t, err)
	text, err := json.Marshal(map[string]any{"pid": 1 << 22, "host": host}) // PID_MAX_LIMIT of the kernel: no process ever has it
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(c.checkpoint+".lock", text, 0o644))
	lock, err := os.OpenFile(c.checkpoint+".lock", os.O_RDWR, 0)
	require.NoError(c.t, err)
	defer lock.Close()
	require.NoError(c.t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	cat := exec.Command("cat")
	cat.ExtraFiles = []*os.File{lock}
	stdin, err := cat.StdinPipe()
	require.NoError(c.t, err)
	require.NoError(c.t, cat.Start())
	end = sync.OnceFunc(func() { _, _ = stdin.Close(), cat.Wait() })
	c.t.Cleanup(end)
	return cat.Process.Pid, end
}

// awaitLockTried waits until the program has opened the lock.
func (c *chain) awaitLockTried() {
	c.t.Helper()
	c.await("the program to try the lock", func() bool {
		return len(c.program.log.all()) >= len(c.versions) // "version configured", once each, comes just before
	})
}

func TestStopWhileALockIsAwaited(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	_, end := deadLock(c)
	c.run(
		phase{
			name: "stop", do: do(start(), (*chain).awaitLockTried, send(syscall.SIGTERM)), allows: []string{awaitedEvent},
			exit: exits(0), checkpoint: "none", state: "none",
		},
		phase{name: "the node of the dead one ends", do: func(*chain) { end() }},
		restarted(upgraded...),
	)
}

// awaitedEvent is logged while a lock is awaited.
const awaitedEvent = "waiting for what a dead entrypoint left running"

func TestNodeOfADeadEntrypointIsNamedAndAwaited(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	node, end := deadLock(c)
	named := on(awaitedEvent, fmt.Sprintf("pids=[%d]", node), "commands=[cat]", "file="+c.checkpoint+".lock")
	c.run(
		phase{
			name: "locked", do: do(heights(3, 3), start(), func(c *chain) { c.await("the node to be named", func() bool { return c.program.log.has(named) }) }),
			events: []event{named}, state: "none",
		},
		phase{
			name: "a hangup", do: do(send(syscall.SIGHUP)), state: "none",
			events: []event{on("signal dropped while no node runs", "signal=SIGHUP")},
		},
		phase{
			name: "released", do: func(*chain) { end() }, events: []event{on("height known")}, trace: []string{"start v0 stop=10"},
		},
	)
}

// A node has no handler yet while it starts up, and is killed by the stop: it has changed nothing, and that is no failure.
func TestStopWhileTheNodeStartsUp(t *testing.T) {
	t.Parallel()
	slow := func(n *mockrollup.Config) { n.Mock.Startup = time.Hour }
	fast := func(n *mockrollup.Config) { n.Mock.Startup = time.Millisecond }
	killed := []event{on("stop requested"), on("signal forwarded"), on("version exited", "exit~killed by SIGTERM", "stop_requested=true"), on("stopped")}
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "v0 starts up", do: do(configure(0, slow), start()), events: []event{on("version started", "version=0")},
			trace: []string{"start v0 stop=10"}, checkpoint: "0 running",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), events: killed, checkpoint: "0 running", stamp: "0 to 10"},
		phase{
			name: "v1 starts up", do: do(configure(0, fast), configure(1, slow), heights(13, 13), start()),
			events: []event{on("version started", "version=1", "asserts_start_height=true")},
			trace:  append([]string{"?asked v0 at 0"}, upgraded...), checkpoint: "1 running migrated 0@10", state: "10 version 1 migrated@10",
		},
		phase{
			name: "stop v1", do: send(syscall.SIGTERM), exit: exits(0), events: killed,
			checkpoint: "1 running migrated 0@10", state: "10 version 1 migrated@10",
		},
		phase{name: "v1 becomes faster", do: configure(1, fast)},
		restarted(upgraded[5:]...),
	)
}

// The same for a node that is being asked.
func TestStopWhileTheNodeIsAsked(t *testing.T) {
	t.Parallel()
	slow := func(n *mockrollup.Config) { n.Mock.Refusal, n.Mock.RefusalDelay = "late", time.Hour }
	fast := func(n *mockrollup.Config) { n.Mock.Refusal = "" }
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "v0 is complete", do: do(configure(0, slow), heights(10, 10), start()), trace: []string{"start v0 stop=10", "exit v0 0 at 10", "asking v0"},
			events: []event{on("version exited", "version=0", "stop_requested=false")}, checkpoint: "0 running", state: "10 version 0",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(0), events: []event{on("stop requested"), on("signal forwarded"), on("stopped")},
			checkpoint: "0 running", stamp: "0 to 10", state: "10 version 0",
		},
		phase{name: "it answers faster", do: configure(0, fast)},
		restarted(upgraded[2:]...),
	)
}

func TestStopOfARunningVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		soft, durable uint64
	}{
		{"far below the stop height", 2, 2},
		{"near the stop height", 9, 7},
		{"at the stop height, not final", 10, 8},
		{"at the stop height, nearly final", 10, 9},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, migratingChain()...)
			state := fmt.Sprintf("%d version 0", test.durable)
			c.run(
				phase{
					name: "run", do: do(heights(test.soft, test.durable), start(), func(c *chain) { c.awaitSoft(test.soft) }),
					events: []event{on("height known")}, trace: []string{"start v0 stop=10"},
					checkpoint: "0 running", state: state,
				},
				phase{
					name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
					trace:      []string{"signal v0 terminated", fmt.Sprintf("exit v0 0 at %d", test.durable)},
					checkpoint: "0 running", state: state,
				},
				restarted(append([]string{fmt.Sprintf("asked v0 at %d", test.durable)}, upgraded...)...),
			)
		})
	}
}

// The stop height is committed and the node shuts down already: it counts as stopped, and the next start proves the rest.
func TestStopWhileTheNodeShutsDownAtItsStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.versions[0].node.Mock.SlowShutdown = 2 * time.Second
	c.writeConfig(0)
	c.run(
		phase{
			name: "at the stop height", do: do(heights(10, 10), start()), trace: []string{"start v0 stop=10"},
			checkpoint: "0 running", state: "10 version 0",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"exit v0 0 at 10"},
			checkpoint: "0 running", state: "10 version 0",
		},
		restarted(upgraded[2:]...),
	)
}

// stopAtRead has the program started, and stopped when the file at path is read for the first time after a moment, which
// is known from files alone: the log comes later. There is no preflight but the first one: it would come at any time.
func stopAtRead(path func(c *chain) string, after func(c *chain) bool) func(*chain) {
	return func(c *chain) {
		reader := c.heldAtRead(path(c), after)
		c.sendAndSettle(syscall.SIGTERM)
		reader.pass()
		c.await("the end", c.program.ended)
	}
}

// heldAtRead has the program started, and wait when it reads the file at path for the first time after a moment.
func (c *chain) heldAtRead(path string, after func(c *chain) bool) *waiting {
	c.t.Helper()
	g := newGate(c, path)
	c.start("--preflight-before=0")
	reader := g.awaitAfter(func() bool { return after(c) })
	g.open()
	return reader
}

// journalled is the moment after which the journal has this line.
func journalled(line string) func(*chain) bool {
	return func(c *chain) bool { return slices.Contains(c.trace(), line) }
}

// ownBinary gives version i a binary that no other chain shares, since a gate holds all who open the file.
func ownBinary(i int) func(*chain) string {
	return func(c *chain) string {
		text, err := os.ReadFile(c.binary(i))
		require.NoError(c.t, err)
		require.NoError(c.t, writeExecutable(c.binary(i)+".new", text))
		require.NoError(c.t, os.Rename(c.binary(i)+".new", c.binary(i)))
		return c.binary(i)
	}
}

func configOf(i int) func(*chain) string { return func(c *chain) string { return c.config(i) } }

func TestStopBeforeTheQuestion(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "stop", do: do(heights(10, 10), stopAtRead(configOf(0), journalled("exit v0 0 at 10"))), exit: exits(0),
			events: []event{on("version exited", "version=0"), on("stop requested"), on("stopped")},
			trace:  upgraded[:2], checkpoint: "0 running", stamp: "0 to 10", state: "10 version 0",
		},
		restarted(upgraded[2:]...),
	)
}

func TestStopInTheHandOver(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "stop", do: do(heights(10, 10), stopAtRead(ownBinary(1), journalled("asked v0 at 10"))), exit: exits(0),
			events: []event{on("version completed", "version=0"), on("stop requested"), on("stopped")},
			trace:  upgraded[:3],
			// Nothing is written that says that the migration was begun.
			checkpoint: "0 running", stamp: "0 to 10", state: "10 version 0",
		},
		restarted(upgraded[2:]...),
	)
}

func stampedAsV1(c *chain) bool { return strings.HasPrefix(c.stampInWords(), "1 ") }

func TestStopBetweenHandOverAndStart(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	c.run(
		phase{
			name: "stop", do: do(heights(10, 10), stopAtRead(configOf(1), stampedAsV1)), exit: exits(0),
			events: []event{on("version completed", "version=0"), on("stop requested"), on("stopped")},
			trace:  upgraded[:3], checkpoint: "1 running 0@10", stamp: "1 from 11 to 20", state: "10 version 0",
		},
		phase{
			name: "restart", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
			trace: []string{"asked v1 at 10", "start v1 start=11 stop=20"}, checkpoint: "1 running 0@10", state: "13 version 0",
		},
	)
}

// The migration itself is in TestMigrationIsNotInterruptedByTheFirstStopSignal; this is the moment after it.
func TestStopBetweenMigrationAndStart(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "stop", do: do(heights(10, 10), stopAtRead(configOf(1), journalled("exit v1 migration 0 at 10"))), exit: exits(0),
			events: []event{on("migration finished"), on("stop requested"), on("stopped")}, trace: upgraded[:5],
			checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "10 version 1 migrated@10",
		},
		restarted(upgraded[5:]...),
	)
}

func TestStopReachesALateVersionOnce(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "v2", do: do(heights(23, 23), start()), events: []event{on("height known", "version=2")},
			trace: append(upgraded[:7:7], "exit v1 0 at 20", "asked v1 at 20", "start v2 start=21"),
			state: "23 version 1 migrated@10",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v2 terminated", "exit v2 0 at 23"}, checkpoint: "2 running 0@10 1@20",
		},
	)
}

// A node that ignores its stop and ends at the stop height later is stopped, whatever its height says.
func TestExitAtTheStopHeightAfterAStopIsNotCompletion(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.IgnoreSigterm = true }}, version{stop: 20, migrates: true}, version{})
	c.run(
		phase{name: "run", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{name: "stop", do: send(syscall.SIGTERM), events: []event{on("signal forwarded")}, trace: []string{"signal v0 terminated"}},
		phase{
			name: "the stop height", do: heights(10, 10), exit: exits(0), events: []event{on("version exited", "stop_requested=true"), on("stopped")},
			trace: []string{"exit v0 0 at 10"}, checkpoint: "0 running", state: "10 version 0",
		},
		restarted(upgraded[2:]...),
	)
}

// Nobody outlives process 1, whatever it is doing: the kernel ends its whole namespace.
func TestNodeAndMigrationDieWithProcess1(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	c := newChain(t, migratingChain()...)
	c.stage, c.asFirst = &stage{Proc: true}, true
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Idempotent = true })(c)
	g := gatedMigration(c, 1)
	c.run(
		phase{name: "v0", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{name: "killed", do: send(syscall.SIGKILL), exit: exits(137)},
		phase{
			name: "migration", do: do(heights(13, 13), start(), func(*chain) { g.await() }), events: []event{on("migration started")},
			trace: append([]string{"asked v0 at 3"}, upgraded[:3]...),
		},
		phase{name: "killed in the migration", do: send(syscall.SIGKILL), exit: exits(137), stamp: "1 from 11 to 20 migrating"},
		phase{name: "the gate opens", do: func(*chain) {
			g.open()
			assert.Empty(t, c.processes())
		}},
		restarted(upgraded[3:]...).with(
			on("interrupted migration is run again")),
	)
}

// with adds an event before the others.
func (p phase) with(e event) phase {
	p.events = append([]event{e}, p.events...)
	return p
}
