package program

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// Nodes that do not behave: what they leave behind, that they stop themselves, what they do to their descriptors.

// forged is a refusal that, if it were believed to be that of version 1, would have version 0 run again.
const forged = "Error: The requested start_at_rollup_height: 11, is different than expected height 6"

func leaves(traits ...string) func(*mockrollup.Mock) {
	return func(m *mockrollup.Mock) { m.Leftover, m.LeftoverSays = traits, forged }
}

// Whatever a version leaves behind, nothing of it is alive when the migration starts.
func TestHostileLeftoversAreGoneWhenTheMigrationStarts(t *testing.T) {
	t.Parallel()
	all := []string{
		mockrollup.LeftoverIgnoresStops, mockrollup.LeftoverSetsid, mockrollup.LeftoverDoubleFork,
		mockrollup.LeftoverHoldsStderr, mockrollup.LeftoverForks,
	}
	test := func(name string, asFirst bool, traits ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			versions := migratingChain()
			versions[0].faults = leaves(traits...)
			c := newChain(t, versions...)
			if asFirst {
				needNamespaces(t)
				c.stage, c.asFirst = &stage{Proc: true}, true
			}
			upgradeOverLeftovers(c)
		})
	}
	for _, trait := range all {
		test(trait, false, trait)
	}
	test("all at once", false, all...)
	test("all at once below process 1", true, all...)
}

func upgradeOverLeftovers(c *chain) {
	c.t.Helper()
	g := gatedMigration(c, 1)
	var migration *waiting
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start("--leftover-timeout", "1s")), events: []event{on("height known", "version=0")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "the migration is at the gate", do: do(heights(10, 10), func(c *chain) {
				c.await("the leftover", func() bool { return c.program.log.has(on("leftover processes ended")) })
				migration = g.await()
				processes := c.processes() // without waiting: what is alive now works beside the migration
				if len(processes) != 1 || !strings.Contains(fmt.Sprint(processes), c.migration(1)) {
					c.fatalf("beside the migration there are processes: %v", processes)
				}
			}),
			events: []event{on("leftover processes ended"), on("version completed", "version=0"), on("migration started")},
			trace:  upgraded[1:3],
		},
		phase{
			name: "v1", do: do(func(*chain) { migration.pass() }, heights(20, 20)), events: []event{on("version started", "version=2")},
			trace: []string{
				"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20", "exit v1 0 at 20",
				"asked v1 at 20", "start v2 start=21",
			},
			checkpoint: "2 running 0@10 1@20",
		},
		phase{
			name: "stop", do: do(heights(23, 23), func(c *chain) { c.awaitSoft(23) }, send(syscall.SIGTERM)), events: stopped, exit: exits(0),
			trace: []string{"signal v2 terminated", "exit v2 0 at 23"}, state: "23 version 1 migrated@10",
			allows: []string{"leftover processes still run", "killing leftover processes"},
		},
	)
}

// A leftover that writes refusals to the stderr it holds is not believed to be the next version.
func TestHostileLeftoversRefusalIsNoEvidenceOfTheNextVersion(t *testing.T) {
	t.Parallel()
	c := newChain(t,
		version{stop: 10, faults: leaves(mockrollup.LeftoverSetsid, mockrollup.LeftoverDoubleFork, mockrollup.LeftoverHoldsStderr)},
		version{stop: 20, faults: func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.ExitCode = 13, "durable", 101 }}, version{},
	)
	c.run(
		phase{
			name: "v0", do: do(heights(5, 5), start(), func(c *chain) {
				c.await("the leftover to write", func() bool { return strings.Contains(c.program.log.nodes(), forged) })
			}),
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "v1 crashes", do: heights(15, 13), events: []event{on("leftover processes ended"), on("version started", "version=1")},
			exit: exits(101), says: []string{"version 1", "its node exited 101"},
			trace: []string{
				"exit v0 0 at 10", "asked v0 at 10", "start v1 start=11 stop=20", "exit v1 101 at 13",
			},
			checkpoint: "1 running 0@10",
		},
	)
	assert.Contains(t, quoted(t, c), "mock fault")
	assert.NotContains(t, quoted(t, c), forged, "quoted as version 1's")
}

// quoted is the stderr that the failure of the ended program quotes.
func quoted(t *testing.T, c *chain) string {
	t.Helper()
	for text := range strings.Lines(c.lastLog) {
		line := &logLine{}
		if json.Unmarshal([]byte(text), &line.fields) == nil && line.text("msg") == "run failed" {
			return line.text("stderr")
		}
	}
	t.Fatalf("the log has no failure:\n%s", c.lastLog)
	return ""
}

// frozen waits until v0 has stopped itself.
func frozen(c *chain) {
	c.t.Helper()
	pid := c.nodeProcess()
	c.await("the node to stop itself", func() bool {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(text), ") ")
		return strings.HasPrefix(rest, "T")
	})
}

func freezes(m *mockrollup.Mock) { m.FreezeAt = 5 }

// A stopped process sees a stop signal only when it is continued.
func TestHostileNodeThatStoppedItselfCanBeStopped(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: freezes}, version{stop: 20, migrates: true}, version{})
	c.run(
		phase{name: "v0 stops itself", do: do(heights(5, 3), start(), frozen), trace: []string{"start v0 stop=10"}},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), allows: []string{"height unknown"},
			trace: []string{"signal v0 terminated", "exit v0 0 at 3"}, state: "3 version 0",
		},
		restarted(append([]string{"asked v0 at 3"}, upgraded...)...),
	)
}

func TestHostileNodeThatStoppedItselfIsKilledByTheStopTimeout(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.FreezeAt, m.IgnoreSigterm = 5, true }}, version{})
	c.run(
		phase{name: "v0 stops itself", do: do(heights(5, 3), start("--stop-timeout", "300ms"), frozen), trace: []string{"start v0 stop=10"}},
		phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(137), allows: []string{"height unknown"},
			events: []event{on("stop requested"), on("killing the node", "version=0"), on("signal forwarded", "signal=SIGKILL")},
			says:   []string{"version 0 was asked to stop", "killed by SIGKILL"}, trace: []string{"signal v0 terminated"},
		},
	)
}

// Only a stop continues it: the person who stopped the node may want to look at it.
func TestHostileNodeThatStoppedItselfIsContinuedByAStopOrByCONT(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: freezes}, version{})
	c.run(
		phase{name: "v0 stops itself", do: do(heights(5, 3), start(), frozen), trace: []string{"start v0 stop=10"}},
		phase{
			name: "WINCH", do: send(syscall.SIGWINCH), events: []event{on("signal forwarded", "signal=SIGWINCH")},
		},
		phase{
			name: "CONT", do: do(frozen, heights(10, 10), send(syscall.SIGCONT)),
			events: []event{on("signal forwarded", "signal=SIGCONT"), on("version started", "version=1")},
			trace:  []string{"exit v0 0 at 10", "asked v0 at 10", "start v1 start=11"},
		},
		phase{
			name: "stop", do: do(heights(13, 13), func(c *chain) { c.awaitSoft(13) }, send(syscall.SIGTERM)),
			allows: []string{"height unknown"}, events: stopped, exit: exits(0),
			trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
		},
	)
}

// What a node does to its descriptors hides neither its end nor what it said before.
func TestHostileNodeThatClosedItsDescriptorsIsSeenToEnd(t *testing.T) {
	t.Parallel()
	for _, stdio := range []string{"close-stderr", "close", "close-all", "redirect-stderr"} {
		t.Run(stdio, func(t *testing.T) {
			t.Parallel()
			closes := func(m *mockrollup.Mock) { m.Stdio = stdio }
			c := newChain(t, version{stop: 10, faults: closes}, version{stop: 20, migrates: true, faults: func(m *mockrollup.Mock) {
				m.Stdio, m.CrashAt, m.CrashOn, m.ExitCode = stdio, 13, "durable", 42
			}}, version{})
			c.run(phase{name: "v0", do: do(heights(5, 5), start(), func(c *chain) { c.awaitSoft(5) }), trace: []string{"start v0 stop=10"}})
			expectDescriptors(c, stdio)
			code, _, errs := c.command("-c", c.manager, "-f", c.checkpoint)
			assert.Equal(t, 74, code, "the lock is held all the same: %s", errs)
			c.run(phase{
				name: "v1 crashes", do: heights(15, 13), exit: exits(42), says: []string{"version 1", "its node exited 42"},
				events:     []event{on("migration finished"), on("version exited", "version=1")},
				trace:      append(upgraded[1:7:7], "exit v1 42 at 13"),
				checkpoint: "1 running migrated 0@10",
			})
			assert.Contains(t, quoted(t, c), "stdio: "+stdio)
			assert.NotContains(t, quoted(t, c), "mock fault", "it was said after the pipe was closed")
			if text, err := os.ReadFile(filepath.Join(c.state, "stderr.log")); stdio == "redirect-stderr" {
				require.NoError(t, err)
				assert.Contains(t, string(text), "mock fault", "the crash went to the file")
			}
		})
	}
}

// expectDescriptors makes certain that the node did what its script says.
func expectDescriptors(c *chain, stdio string) {
	c.t.Helper()
	folder := fmt.Sprintf("/proc/%d/fd", c.nodeProcess())
	c.await("the descriptors to change", func() bool {
		stderr, _ := os.Readlink(folder + "/2")
		return !strings.HasPrefix(stderr, "pipe:")
	})
	links, err := filepath.Glob(folder + "/*")
	require.NoError(c.t, err)
	var open []string
	for _, link := range links {
		target, _ := os.Readlink(link)
		open = append(open, target)
	}
	assert.Equal(c.t, stdio != "close-all", strings.Contains(strings.Join(open, " "), "checkpoint.json.lock"), open)
	assert.Equal(c.t, stdio == "redirect-stderr", strings.Contains(strings.Join(open, " "), "stderr.log"), open)
}

// besieged starts further entrypoints on the volume, every ten milliseconds, until stop is called. Each that is refused
// must say so; stop returns how many were, and those that were not. One that comes when the sequence is finished is neither:
// it rightly says so, starts nothing and exits 0.
func besieged(c *chain) (stop func() (refused int, others []string)) {
	quit, done := make(chan struct{}), make(chan struct{})
	var refused int
	var others []string
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		holder := fmt.Sprintf("locked by the entrypoint with pid %d", c.program.cmd.Process.Pid)
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			code, _, errs := c.command("-c", c.manager, "-f", c.checkpoint)
			switch {
			case code == 74 && strings.Contains(errs, holder):
				refused++
			case code == 0 && strings.Contains(errs, `"sequence finished"`) && !strings.Contains(errs, `"version started"`):
			default:
				others = append(others, fmt.Sprintf("exit code %d: %s", code, errs))
			}
		}
	}()
	return func() (int, []string) {
		close(quit)
		<-done
		return refused, others
	}
}

// Others that want the volume, all its life long, change nothing of it.
func TestHostileEntrypointsAreRefusedForAWholeLife(t *testing.T) {
	t.Parallel()
	calm, c := clockChain(t), clockChain(t)
	c.start()
	c.await("the lock to be taken", func() bool { return c.program.log.has(on("version started")) })
	stop := besieged(c)
	const finished = "2 finished 0@75 1@150 2@225"
	c.run(phase{
		name: "besieged", do: func(c *chain) {
			c.await("the version after the migration", func() bool { return c.program.log.has(on("version started", "version=1")) })
			refused, others := stop()
			t.Logf("%d starts were refused", refused)
			assert.Positive(t, refused)
			assert.Empty(t, others)
		},
		exit: exits(0), events: []event{on("sequence finished", "version=2")}, trace: c.rest(),
		checkpoint: finished, state: "225 version 1 migrated@75",
	})
	require.NoError(t, os.Link(filepath.Join(c.dir, "da.json"), filepath.Join(calm.dir, "da.json")))
	calm.run(phase{
		name: "undisturbed", do: start(), exit: exits(0), events: []event{on("sequence finished", "version=2")}, trace: calm.rest(),
		checkpoint: finished, state: "225 version 1 migrated@75",
	})
	have, err := mockrollup.ReadState(c.state)
	require.NoError(t, err)
	want, err := mockrollup.ReadState(calm.state)
	require.NoError(t, err)
	assert.Equal(t, want.StateRoot, have.StateRoot)
	assert.Equal(t, want.History, have.History)
}

// When the first one is killed exactly one of many others takes its place, and never are two nodes alive.
func TestHostileRivalsOfAKilledEntrypointYieldOneSuccessor(t *testing.T) {
	t.Parallel()
	c := clockChain(t)
	c.start()
	c.await("v0 to make blocks", func() bool { return c.program.log.has(on("height known")) })
	first := c.program
	var codes []int
	var worked int // of them have started something
	var mu sync.Mutex
	var rivals sync.WaitGroup
	for range 20 {
		rivals.Go(func() {
			for { // as its orchestrator would, until the chain is done
				code, _, errs := c.command("-c", c.manager, "-f", c.checkpoint)
				mu.Lock()
				codes = append(codes, code)
				if strings.Contains(errs, `"version started"`) {
					worked++
				}
				mu.Unlock()
				if code != 74 {
					return
				}
			}
		})
		time.Sleep(10 * time.Millisecond)
	}
	require.NoError(t, first.cmd.Process.Signal(syscall.SIGKILL))
	<-first.done
	c.program = nil
	rivals.Wait()
	refused := 0
	for _, code := range codes {
		if code == 74 {
			refused++
		} else {
			assert.Zero(t, code, "it took over, or came after the end")
		}
	}
	t.Logf("%d starts, %d refused", len(codes), refused)
	assert.Positive(t, refused)
	assert.Equal(t, 1, worked, "one took over")
	assert.Equal(t, "225 version 1 migrated@75", c.stateInWords())
	entries, err := c.journal()
	require.NoError(t, err)
	assert.Nil(t, mockrollup.Overlap(entries))
}
