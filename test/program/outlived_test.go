package program

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
)

// An entrypoint that is not process 1 is killed, and what it has started outlives it: a killed node is a damaged one, so
// that gets SIGTERM and its time, and a migration runs to its end. The next entrypoint waits.

// holdExit keeps a connection to the node's API, for the end of which a node waits at its own end, however long it takes.
func (c *chain) holdExit() (letGo func()) {
	c.t.Helper()
	var conn net.Conn
	c.await("the node's API", func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
		return err == nil
	})
	c.t.Cleanup(func() { _ = conn.Close() })
	// Only a connection that was accepted holds anything.
	_, err := conn.Write([]byte("GET /healthcheck HTTP/1.1\r\nHost: node\r\n\r\n"))
	require.NoError(c.t, err)
	_, err = bufio.NewReader(conn).ReadString('\n')
	require.NoError(c.t, err)
	return func() { require.NoError(c.t, conn.Close()) }
}

// killProgram kills the entrypoint alone.
func (c *chain) killProgram() {
	c.t.Helper()
	require.NoError(c.t, c.program.cmd.Process.Kill())
	<-c.program.done
	c.lastLog, c.program = c.program.log.text(), nil
}

// killAll kills the entrypoint, and then what it has started.
func (c *chain) killAll() {
	c.t.Helper()
	c.killProgram()
	c.await("all to be dead", func() bool {
		for pid := range c.processes() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return len(c.processes()) == 0
	})
}

// awaitJournalled waits until the journal has this line.
func (c *chain) awaitJournalled(line string) {
	c.t.Helper()
	c.await(line, func() bool { return journalled(line)(c) })
}

// awaitNumber waits for a line of our log that has a number as a word of its own, and gives its name.
func (c *chain) awaitNumber(number int) string {
	c.t.Helper()
	word := regexp.MustCompile(`\b` + strconv.Itoa(number) + `\b`)
	var name string
	c.await(fmt.Sprintf("a line with %d", number), func() bool {
		for _, line := range c.program.log.all() {
			if word.MatchString(line.raw) {
				line.expected = true
				name = line.text("msg")
				return true
			}
		}
		if c.program.ended() {
			c.fatalf("the program ended with code %d without a line with %d:\n%s", c.program.code(), number, c.program.log.text())
		}
		return false
	})
	return name
}

// expectWaiting makes certain that the program waits for the process with that pid, and has started nothing.
func (c *chain) expectWaiting(pid int) {
	c.t.Helper()
	c.awaitNumber(pid)
	assert.NoError(c.t, unix.Kill(pid, 0), "what is waited for lives")
	for _, line := range c.program.log.all() {
		assert.NotContains(c.t, line.text("msg"), "started", "nothing may be started beside it: %s", line.raw)
	}
}

// killedAndNodeHeld kills the entrypoint. Its node gets SIGTERM, and does not end before letGo is called.
func killedAndNodeHeld(letGo *func(), pid *int) phase {
	return phase{name: "killed", do: func(c *chain) {
		*letGo, *pid = c.holdExit(), c.nodeProcess()
		c.killProgram()
		c.awaitJournalled("signal v0 terminated")
	}, trace: []string{"signal v0 terminated"}}
}

func TestNodeOfAKilledEntrypointIsAskedToStopAndAwaited(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	var letGo func()
	var pid int
	c.run(
		inV0(),
		killedAndNodeHeld(&letGo, &pid),
		phase{
			name: "the next one waits", do: do(start(), func(c *chain) { c.expectWaiting(pid) }),
			checkpoint: "0 running", stamp: "0 to 10", state: "3 version 0",
		},
		phase{
			name: "and takes over", do: func(*chain) { letGo() }, events: []event{on("height known", "version=0")},
			trace: []string{"exit v0 0 at 3", "asked v0 at 3", "start v0 stop=10"},
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v0 terminated", "exit v0 0 at 3"}, state: "3 version 0",
		},
	)
}

func TestMigrationOfAKilledEntrypointRunsToItsEndAndIsAwaited(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Idempotent = true })(c)
	g := gatedMigration(c, 1)
	var held *waiting
	var pid int
	c.run(
		phase{
			name: "in the migration", do: do(heights(13, 13), start(), func(*chain) { held = g.await() }),
			events: []event{on("migration started", "version=1")}, trace: upgraded[:3],
		},
		phase{name: "killed", do: func(c *chain) {
			pid = c.nodeProcess()
			c.killProgram()
			g.open() // the second run must not wait
		}, stamp: "1 from 11 to 20 migrating", state: "10 version 0"},
		phase{
			name: "the next one waits", do: do(start(), func(c *chain) { c.expectWaiting(pid) }),
			stamp: "1 from 11 to 20 migrating", state: "10 version 0",
		},
		phase{
			name: "and takes over", do: func(*chain) { held.pass() },
			events: []event{on("interrupted migration is run again", "version=1"), on("height known", "version=1")},
			trace:  append(upgraded[3:5:5], upgraded[3:]...),
			stamp:  "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
		},
		stopInV1(),
	)
}

// A stop request ends the wait, and leaves what is waited for alone.
func TestStopWhileAnotherEntrypointsNodeIsAwaited(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	var letGo func()
	var pid int
	c.run(
		inV0(),
		killedAndNodeHeld(&letGo, &pid),
		phase{name: "the next one waits", do: do(start(), func(c *chain) {
			c.expectWaiting(pid)
			// A HUP is for a node, and there is none: kept for the next one it would kill that in its start-up.
			send(syscall.SIGHUP)(c)
		}), events: []event{on("signal dropped while no node runs", "signal=SIGHUP")}},
		phase{name: "stop", do: func(c *chain) {
			send(syscall.SIGTERM)(c)
			c.awaitExit(0)
			assert.Contains(t, c.processes(), pid, "it is not ours")
			c.program = nil
			letGo()
			c.await("the node's end", func() bool { return len(c.processes()) == 0 })
		}, trace: []string{"exit v0 0 at 3"}},
		phase{
			name: "restart", do: start(), events: []event{on("height known", "version=0")},
			trace: []string{"asked v0 at 3", "start v0 stop=10"},
		},
	)
}

// wrapped replaces the node of version i by a script that closes the descriptors it inherits, the locks among them, and
// has the real node as command.
func wrapped(c *chain, i int, command string) {
	c.t.Helper()
	node := filepath.Join(c.folder(i), "real-node")
	require.NoError(c.t, os.Rename(c.binary(i), node))
	script := "#!/bin/sh\nexec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-\n" + strings.ReplaceAll(command, "NODE", node+` "$@"`) + "\n"
	require.NoError(c.t, writeExecutable(c.binary(i), []byte(script)))
}

// The node has none of the locks any more, and it may not even have been asked to stop; the next one must wait all the same.
func TestNodeBehindAWrapperThatClosesDescriptorsIsAwaitedAfterAKill(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"the wrapper becomes the node":          "exec NODE",
		"the wrapper waits for the node":        "trap '' TERM\nNODE\nexit $?",
		"the wrapper dies of the kill and goes": "NODE\nexit $?",
		"it gets no signal at the kill":         "exec setpriv --pdeathsig clear -- NODE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			wrapped(c, 0, command)
			var letGo func()
			var node int
			c.run(
				phase{name: "v0", do: do(heights(3, 3), start()), events: []event{on("height known", "version=0")}, trace: []string{"start v0 stop=10"}},
				phase{name: "killed", do: func(c *chain) {
					letGo, node = c.holdExit(), c.realNode(0)
					c.killProgram()
					c.start()
					c.expectSomebodyAwaited()
					assert.NoError(t, unix.Kill(node, unix.SIGTERM)) // a second one is ignored
				}, trace: []string{"signal v0 terminated"}},
				phase{
					name: "the next one takes over", do: func(*chain) { letGo() }, events: []event{on("height known", "version=0")},
					trace: []string{"exit v0 0 at 3", "asked v0 at 3", "start v0 stop=10"},
				},
			)
		})
	}
}

// realNode is the pid of the node behind the wrapper of version i.
func (c *chain) realNode(i int) (node int) {
	c.t.Helper()
	c.await("the node behind the wrapper", func() bool {
		for pid := range c.processes() {
			if path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); path == filepath.Join(c.folder(i), "real-node") {
				node = pid
			}
		}
		return node != 0
	})
	return node
}

// expectSomebodyAwaited makes certain that the program names a process of this chain, and has started nothing.
func (c *chain) expectSomebodyAwaited() {
	c.t.Helper()
	c.await("a process to be waited for", func() bool {
		for _, line := range c.program.log.all() {
			if line.text("msg") == "version started" || c.program.ended() {
				c.fatalf("it does not wait: %s", c.program.log.text())
			}
			for pid := range c.processes() {
				if regexp.MustCompile(`\b` + strconv.Itoa(pid) + `\b`).MatchString(line.raw) {
					line.expected = true
					return true
				}
			}
		}
		return false
	})
}
