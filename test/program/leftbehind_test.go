package program

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
)

// What a node or a migration leaves behind is waited for, and killed by nothing but a limit that somebody has set.

// leftoverProcess is the pid of what the stand-in has left behind.
func (c *chain) leftoverProcess() (pid int) {
	c.t.Helper()
	c.await("the leftover", func() bool {
		for at, line := range c.processes() {
			if strings.Contains(line, " leftover ") {
				pid = at
			}
		}
		return pid != 0
	})
	return pid
}

// stubborn leaves behind what only SIGKILL ends.
func stubborn() []version {
	versions := migratingChain()
	versions[0].faults = leaves(mockrollup.LeftoverIgnoresStops, mockrollup.LeftoverSetsid)
	return versions
}

func TestLeftoverWithoutALimitIsNamedAndNotKilled(t *testing.T) {
	t.Parallel()
	c := newChain(t, stubborn()...)
	var pid int
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start("--leftover-timeout", "0")), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "the hand-over waits", do: func(c *chain) {
				pid = c.leftoverProcess()
				c.da.set(13, 13)
				c.awaitEvent(on("leftover processes still run", "version=0", fmt.Sprintf("processes~%d (", pid)))
				assert.NoError(t, unix.Kill(pid, 0))
			}, trace: []string{"exit v0 0 at 10"}, checkpoint: "0 running", stamp: "0 to 10",
		},
		phase{
			name: "and continues", do: func(c *chain) { assert.NoError(t, unix.Kill(pid, unix.SIGKILL)) },
			events: []event{on("leftover processes ended", "version=0", "count=1"), on("height known", "version=1")},
			trace:  upgraded[2:], stamp: "1 from 11 to 20 migrated",
		},
		stopInV1(),
	)
	assert.NotContains(t, c.lastLog, "killing leftover processes")
}

func TestLeftoverOfAVersionThatExitedByItselfIsKilledByTheLeftoverTimeout(t *testing.T) {
	t.Parallel()
	c := newChain(t, stubborn()...)
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start("--leftover-timeout", "1s")), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "the leftover is killed", do: heights(13, 13), events: []event{
				on("killing leftover processes", "version=0", "processes~("), on("leftover processes ended", "version=0", "count=1"),
				on("height known", "version=1"),
			}, trace: upgraded[1:],
		},
		stopInV1("leftover processes still run"),
	)
}

func TestLeftoverAfterAStopIsKilledByTheStopTimeout(t *testing.T) {
	t.Parallel()
	c := newChain(t, stubborn()...)
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start("--leftover-timeout", "0", "--stop-timeout", "1s")), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "stop", do: do(func(c *chain) { c.leftoverProcess() }, send(syscall.SIGTERM)), exit: exits(0), events: []event{
				on("stop requested"), on("killing leftover processes", "version=0"), on("leftover processes ended", "version=0"), on("stopped"),
			}, trace: []string{"signal v0 terminated", "exit v0 0 at 5"}, allows: []string{"leftover processes still run"},
		},
	)
}

// Without a stop timeout nothing is killed after a stop either; a second stop signal is passed on to what is left.
func TestLeftoverAfterAStopWithoutALimitIsNotKilled(t *testing.T) {
	t.Parallel()
	c := newChain(t, stubborn()...)
	var pid int
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start("--leftover-timeout", "1s")), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "stop", do: func(c *chain) {
				pid = c.leftoverProcess()
				send(syscall.SIGTERM)(c)
				c.awaitEvent(on("leftover processes still run", fmt.Sprintf("processes~%d (", pid)))
				assert.NoError(t, unix.Kill(pid, 0))
			}, trace: []string{"signal v0 terminated", "exit v0 0 at 5"},
		},
		phase{
			name: "it ends", do: func(*chain) { assert.NoError(t, unix.Kill(pid, unix.SIGKILL)) }, exit: exits(0),
			events: []event{on("leftover processes ended", "count=1"), on("stopped")},
		},
	)
	assert.NotContains(t, c.lastLog, "killing leftover processes")
}

// behindShell replaces the node of version i by a script that does not become it.
func behindShell(c *chain, i int) {
	c.t.Helper()
	node := filepath.Join(c.folder(i), "real-node")
	require.NoError(c.t, os.Rename(c.binary(i), node))
	require.NoError(c.t, writeExecutable(c.binary(i), fmt.Appendf(nil, "#!/bin/sh\n%s \"$@\"\nexit $?\n", node)))
}

// The shell dies of the signal that its whole group gets, and the node, which has it too, takes its time.
func TestNodeBehindAShellWithoutExecIsAwaitedAfterAStop(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	behindShell(c, 0)
	var letGo func()
	c.run(
		inV0(),
		phase{
			name: "stop", do: func(c *chain) {
				letGo = c.holdExit()
				node := c.realNode(0)
				send(syscall.SIGTERM)(c)
				c.awaitEvent(on("leftover processes still run", "version=0", fmt.Sprintf("processes~%d (", node)))
				assert.NoError(t, unix.Kill(node, 0))
			}, trace: []string{"signal v0 terminated"}, // once
		},
		phase{
			name: "it has stopped", do: func(*chain) { letGo() }, exit: exits(0), trace: []string{"exit v0 0 at 3"},
			events: []event{on("leftover processes ended", "version=0", "count=1"), on("stopped")}, state: "3 version 0",
		},
		phase{
			name: "restart", do: start(), events: []event{on("height known", "version=0")},
			trace: []string{"asked v0 at 3", "start v0 stop=10"},
		},
	)
}

func TestNodeBehindAShellWithoutExecGetsTheStopTimeout(t *testing.T) {
	t.Parallel()
	versions := migratingChain()
	versions[0].faults = func(m *mockrollup.Mock) { m.IgnoreSigterm = true }
	c := newChain(t, versions...)
	behindShell(c, 0)
	c.run(
		phase{
			name: "v0", do: do(heights(3, 3), start("--stop-timeout", "1s")), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated"},
			events: []event{on("stop requested"), on("killing leftover processes", "version=0"), on("leftover processes ended"), on("stopped")},
			allows: []string{"leftover processes still run"},
		},
	)
}

// workerOf has the migration of version i leave a worker behind, which works until it is let go.
func workerOf(c *chain, i int) (letGo func()) {
	c.t.Helper()
	real, file := filepath.Join(c.folder(i), "migration-of-the-state"), filepath.Join(c.dir, "worker-is-done")
	require.NoError(c.t, os.Rename(c.migration(i), real))
	script := fmt.Sprintf("#!/bin/sh\n(until [ -e %[1]s ]; do sleep 0.05; done; touch %[1]s.seen) &\n%[2]s \"$@\"\nexit $?\n", file, real)
	require.NoError(c.t, writeExecutable(c.migration(i), []byte(script)))
	return func() { require.NoError(c.t, os.WriteFile(file, nil, 0o600)) }
}

// A migration that exits 0 is complete when all that it has started has ended.
func TestMigrationIsCompleteWhenItsWorkersHaveEnded(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	letGo := workerOf(c, 1)
	c.run(
		phase{
			name: "the worker works", do: do(heights(13, 13), start()), events: []event{
				on("migration finished", "version=1", "exit_code=0"), on("leftover processes still run", "version=1", "processes~ ("),
			},
			trace: upgraded[:5], stamp: "1 from 11 to 20 migrating",
		},
		phase{
			name: "it has ended", do: func(*chain) { letGo() }, events: []event{on("leftover processes ended", "version=1"), on("height known", "version=1")},
			trace: upgraded[5:], stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
	assert.FileExists(t, filepath.Join(c.dir, "worker-is-done.seen"), "it was not interrupted")
	assert.NotContains(t, c.lastLog, "killing leftover processes")
}

func TestMigrationWhoseWorkersTakeTooLongStaysBegun(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Idempotent = true })(c)
	letGo := workerOf(c, 1)
	c.run(
		phase{name: "too long", do: func(c *chain) {
			c.da.set(13, 13)
			c.start("--leftover-timeout", "1s")
			c.awaitExit(78)
			c.expectReason(78, "workers_left", []string{"--leftover-timeout", "the migration is recorded as begun"})
			assert.NotEmpty(t, c.processes(), "the worker is not interrupted")
			c.program = nil
		}, trace: upgraded[:5], stamp: "1 from 11 to 20 migrating"},
		phase{
			name: "the next one waits for it", do: do(start(), (*chain).expectSomebodyAwaited, func(*chain) { letGo() }),
			events: []event{on("interrupted migration is run again", "version=1"), on("height known", "version=1")},
			trace:  upgraded[3:], stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
}

// As process 1 we take the worker with us.
func TestMigrationWhoseWorkersTakeTooLongStaysBegunBelowProcess1(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	c := newChain(t, migratingChain()...)
	c.stage, c.asFirst = &stage{Proc: true}, true
	workerOf(c, 1)
	c.run(phase{name: "too long", do: do(heights(13, 13), start("--leftover-timeout", "1s"), func(c *chain) {
		c.awaitExit(78)
		c.expectReason(78, "workers_left", []string{"the migration is recorded as begun"})
		c.program = nil
		c.await("the worker's end", func() bool { return len(c.processes()) == 0 })
	}), trace: upgraded[:5], stamp: "1 from 11 to 20 migrating"})
}
