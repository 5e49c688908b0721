package program

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
)

// One test for each thing that sov-rollup-manager gets wrong, named after what is right, in the order of that list.

// plainChain has three versions without a migration, the last one without end.
func plainChain() []version { return []version{{stop: 10}, {stop: 20}, {}} }

// migratingChain is the same with a migration to the second version.
func migratingChain() []version { return []version{{stop: 10}, {stop: 20, migrates: true}, {}} }

// stopped is what a stop that went well has in the log.
var stopped = []event{on("stop requested", "signal=SIGTERM"), on("version exited", "stop_requested=true"), on("stopped")}

// 1.
func TestRestartInMidVersionDoesNotAssertStartHeight(t *testing.T) {
	t.Parallel()
	newChain(t, plainChain()...).run(
		phase{
			name: "up to the middle of v1", do: do(heights(13, 13), start()),
			events: []event{
				on("no checkpoint found"), on("version started", "version=0", "asserts_start_height=false"),
				on("version completed", "version=0", "height=10"),
				on("version started", "version=1", "asserts_start_height=true"), on("height known", "version=1"),
			},
			trace: []string{
				"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 start=11 stop=20",
			},
			checkpoint: "1 running 0@10", state: "13 version 0",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped,
			trace: []string{"signal v1 terminated", "exit v1 0 at 13"}, exit: exits(0),
			checkpoint: "1 running 0@10", state: "13 version 0",
		},
		phase{
			name: "restart", do: do(heights(15, 15), start()),
			events: []event{
				on("checkpoint found", "version=1", "phase=running"),
				on("version started", "version=1", "asserts_start_height=false"), on("height known"),
			},
			trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running 0@10", state: "15 version 0",
		},
		phase{
			name: "on to v2", do: heights(25, 25),
			events: []event{on("version completed", "version=1", "height=20"), on("version started", "version=2"), on("height known")},
			trace: []string{
				"exit v1 0 at 20", "asked v1 at 20", "start v2 start=21",
			},
			checkpoint: "2 running 0@10 1@20", state: "25 version 0",
		},
		phase{
			name: "stop in v2", do: send(syscall.SIGTERM), events: stopped,
			trace: []string{"signal v2 terminated", "exit v2 0 at 25"}, exit: exits(0),
		},
		phase{
			name: "restart in v2", do: start(), events: []event{on("height known", "version=2")},
			trace: []string{"asked v2 at 25", "start v2"}, state: "25 version 0",
		},
	)
}

// Whether a start height is asserted is a matter of the durable height, and not of what was read over HTTP.
func TestRestartBeforeTheFirstReadingFindsItsWay(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, faults: func(m *mockrollup.Mock) { m.HTTP = "off" }}, version{})
	c.run(
		phase{
			name: "v1 that never reports a height", do: do(heights(13, 13), start()),
			events: []event{on("version started", "version=1")},
			trace: []string{
				"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 start=11 stop=20",
			},
			checkpoint: "1 running 0@10", state: "13 version 0",
		},
		phase{
			name: "killed", do: send(syscall.SIGKILL), exit: exits(137), trace: []string{"?signal v1 terminated", "?exit v1 0 at 13"},
		},
		phase{
			name: "restart", do: start(),
			events: []event{on("height confirmed", "version=1", "height=13"), on("version started", "version=1", "asserts_start_height=false")},
			trace:  []string{"asked v1 at 13", "start v1 stop=20"},
		},
		phase{
			name: "on to v2", do: heights(20, 20), events: []event{on("version started", "version=2")},
			trace: []string{"exit v1 0 at 20", "asked v1 at 20", "start v2 start=21"},
		},
	)
}

// 2.
func TestCrashBetweenCompletionAndCheckpointContinues(t *testing.T) {
	t.Parallel()
	for _, next := range []version{{stop: 20}, {stop: 20, migrates: true}} {
		t.Run(fmt.Sprintf("migrates=%v", next.migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, next, version{})
			then := []string{"asked v0 at 10"}
			words, state := "1 running 0@10", "13 version 0"
			if next.migrates {
				then = append(then, "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10")
				words, state = "1 running migrated 0@10", "13 version 1 migrated@10"
			}
			// The program looks at v1's files between v0's last exit and the write.
			g := newGate(c, ownBinary(1)(c))
			c.run(
				phase{
					name: "v0 has completed", do: do(heights(10, 10), start("--preflight-before=0"), func(c *chain) { g.awaitAfter(func() bool { return journalled("asked v0 at 10")(c) }) }),
					events:     []event{on("version completed", "version=0")},
					trace:      []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10"},
					checkpoint: "0 running", state: "10 version 0",
				},
				phase{name: "crash", do: send(syscall.SIGKILL), exit: exits(137), checkpoint: "0 running", stamp: "0 to 10"},
				phase{
					name: "restart", do: do(func(*chain) { g.open() }, heights(13, 13), start()),
					events: []event{
						on("height confirmed", "version=0", "height=10"), on("version completed", "version=0", "proof=durable height"), on("height known", "version=1"),
					},
					trace: append(then, "start v1 start=11 stop=20"), checkpoint: words, state: state,
				},
			)
		})
	}
}

// 3.
func TestSIGTERMNearStopHeightIsNotCompletion(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "two blocks below the stop height", do: do(heights(8, 8), start()), events: []event{on("height known", "height=8")},
			trace: []string{"start v0 stop=10"}, checkpoint: "0 running", state: "8 version 0",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v0 terminated", "exit v0 0 at 8"}, checkpoint: "0 running", state: "8 version 0",
		},
		phase{
			name: "at the stop height, which is not final", do: do(heights(10, 8), start(), func(c *chain) { c.awaitSoft(10) }),
			events: []event{on("height known", "version=0")}, trace: []string{"asked v0 at 8", "start v0 stop=10"}, state: "8 version 0",
		},
		phase{
			name: "stop there", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v0 terminated", "exit v0 0 at 8"}, checkpoint: "0 running", state: "8 version 0",
		},
		phase{
			name: "restart", do: do(heights(12, 12), start()), events: []event{on("height known", "version=1")},
			trace: []string{
				"asked v0 at 8", "start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10",
				"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20",
			},
			checkpoint: "1 running migrated 0@10", state: "12 version 1 migrated@10",
		},
	)
}

// 4.
func TestFastResyncCompletesWithoutAReading(t *testing.T) {
	t.Parallel()
	fast := func(m *mockrollup.Mock) { m.ResyncRate, m.HTTP = 1_000_000, "null" }
	c := newChain(t, version{stop: 200, faults: fast}, version{stop: 400, migrates: true, faults: fast},
		version{stop: 410, migrates: true, faults: fast}, version{migrates: true})
	through := phase{
		name: "from genesis", do: do(heights(500, 500), start()), events: []event{on("height known", "version=3")},
		trace: []string{
			"start v0 stop=200", "exit v0 0 at 200", "asked v0 at 200",
			"start v1 migration", "exit v1 migration 0 at 200", "asked v1 at 200", "start v1 start=201 stop=400", "exit v1 0 at 400",
			"asked v1 at 400",
			"start v2 migration", "exit v2 migration 0 at 400", "asked v2 at 400", "start v2 start=401 stop=410", "exit v2 0 at 410",
			"asked v2 at 410",
			"start v3 migration", "exit v3 migration 0 at 410", "asked v3 at 410", "start v3 start=411",
		},
		checkpoint: "3 running migrated 0@200 1@400 2@410",
		state:      "500 version 3 migrated@200 migrated@400 migrated@410",
	}
	stop := phase{name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v3 terminated", "exit v3 0 at 500"}}
	c.run(through, stop)
	before, err := mockrollup.ReadState(c.state)
	require.NoError(t, err)

	require.NoError(t, os.RemoveAll(c.state))
	require.NoError(t, os.Remove(c.checkpoint))
	c.run(through, stop)
	after, err := mockrollup.ReadState(c.state)
	require.NoError(t, err)
	assert.Equal(t, before.StateRoot, after.StateRoot)
}

// 5.
func TestStopExitsZero(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			newChain(t, plainChain()...).run(
				phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
				phase{
					name: "stop", do: send(sig), exit: exits(0), checkpoint: "0 running", state: "3 version 0",
					events: []event{on("stop requested", "signal="+unix.SignalName(sig)), on("signal forwarded"), on("stopped")},
					trace:  []string{"signal v0 " + sig.String(), "exit v0 0 at 3"},
				},
			)
		})
	}
}

// 6.
func TestSignalsBeforeTheFirstStartPreventIt(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	g := newGate(c, c.manager)
	c.run(
		phase{
			name: "stop while the config is read", exit: exits(0), checkpoint: "none", state: "none", events: []event{on("stopped")},
			do: do(start(), func(c *chain) {
				reader := g.await()
				c.sendAndSettle(syscall.SIGTERM)
				reader.pass()
			}),
		},
		phase{
			name: "restart", do: do(func(*chain) { g.open() }, heights(3, 3), start()), events: []event{on("height known")},
			trace: []string{"start v0 stop=10"},
		},
	)
}

// It would kill a node in its start-up.
func TestSignalBeforeTheFirstStartDoesNotReachTheNode(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	g := newGate(c, c.manager)
	c.run(
		phase{
			name: "SIGHUP while the config is read", trace: []string{"start v0 stop=10"}, state: "3 version 0",
			events: []event{on("signal dropped while no node runs", "signal=SIGHUP"), on("height known", "version=0")},
			do: do(heights(3, 3), start(), func(c *chain) {
				reader := g.await()
				c.sendAndSettle(syscall.SIGHUP)
				reader.pass()
				g.open()
			}),
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"},
		},
	)
}

// gatedMigration replaces the migration of version i by a script that waits at a gate, and then becomes the migration.
func gatedMigration(c *chain, i int) *fifo {
	real := filepath.Join(c.folder(i), "migration-of-the-state")
	require.NoError(c.t, os.Rename(c.migration(i), real))
	file := filepath.Join(c.folder(i), "gate")
	script := fmt.Sprintf("#!/bin/sh\nread -r _ < '%s'\nexec '%s' \"$@\"\n", file, real)
	require.NoError(c.t, writeExecutable(c.migration(i), []byte(script)))
	return newFIFO(c, file)
}

// 6.
func TestMigrationIsNotInterruptedByTheFirstStopSignal(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	g := gatedMigration(c, 1)
	var held *waiting
	c.run(
		phase{
			name: "the migration runs", do: do(heights(13, 13), start(), func(*chain) { held = g.await() }),
			events:     []event{on("migration started", "version=1")},
			trace:      []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10"},
			checkpoint: "1 migrating 0@10", state: "10 version 0",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM),
			events: []event{on("stop requested", "signal=SIGTERM"), on("the migration is not interrupted")}, state: "10 version 0",
		},
		phase{
			name: "the migration ends", do: func(*chain) { held.pass() }, exit: exits(0),
			events:     []event{on("migration finished", "version=1", "exit=exited 0"), on("stopped")},
			trace:      []string{"start v1 migration", "exit v1 migration 0 at 10"},
			checkpoint: "1 running migrated 0@10", state: "10 version 1 migrated@10",
		},
		phase{
			name: "restart", do: start(), events: []event{on("version started", "version=1", "asserts_start_height=true"), on("height known")},
			trace: []string{"asked v1 at 10", "start v1 start=11 stop=20"}, state: "13 version 1 migrated@10",
		},
	)
}

// 7.
func TestSIGINTAndSIGHUPReachTheNode(t *testing.T) {
	t.Parallel()
	running := phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}}
	t.Run("SIGINT", func(t *testing.T) {
		t.Parallel()
		newChain(t, plainChain()...).run(running, phase{
			name: "SIGINT", do: send(syscall.SIGINT), exit: exits(0), trace: []string{"signal v0 interrupt", "exit v0 0 at 3"},
		})
	})
	t.Run("SIGHUP", func(t *testing.T) {
		t.Parallel()
		newChain(t, plainChain()...).run(running, phase{
			name: "SIGHUP", do: send(syscall.SIGHUP), exit: exits(129), says: []string{"was killed by SIGHUP"},
			checkpoint: "0 running", state: "3 version 0",
		})
	})
}

// 8.
func TestHangingHTTPDelaysNeitherSignalNorExit(t *testing.T) {
	t.Parallel()
	hang := func(m *mockrollup.Mock) { m.HTTP = "hang" }
	c := newChain(t, version{stop: 10, faults: hang}, version{migrates: true, faults: hang})
	c.run(
		phase{
			name: "upgrade", do: do(heights(13, 13), start()), events: []event{on("version started", "version=1")},
			trace: []string{
				"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10",
				"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11",
			},
			checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
		},
	)
}

// 9.
func TestStopTimeoutKills(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.IgnoreSigterm = true }}, version{})
	c.run(
		phase{
			name: "run", do: do(heights(3, 3), start("--stop-timeout", "300ms")), events: []event{on("height known")},
			trace: []string{"start v0 stop=10"},
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(137), trace: []string{"signal v0 terminated"},
			events:     []event{on("stop requested"), on("killing the node", "version=0"), on("signal forwarded", "signal=SIGKILL")},
			says:       []string{"version 0 was asked to stop", "killed by SIGKILL"},
			checkpoint: "0 running", state: "3 version 0",
		},
	)
}

// 10.
func TestDeathBySignalIs128PlusN(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGABRT} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			code := 128 + int(sig)
			crash := func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.CrashSignal = 5, "durable", unix.SignalName(sig) }
			newChain(t, version{stop: 10, faults: crash}, version{}).run(phase{
				name: "crash", do: do(heights(6, 6), start()), exit: exits(code),
				events: []event{on("version exited", "stop_requested=false")},
				trace:  []string{"start v0 stop=10", fmt.Sprintf("exit v0 %d at 5", code)},
				says:   []string{"version 0", "was killed by " + unix.SignalName(sig)},
				state:  "5 version 0",
			})
		})
	}
}

func TestExitCodeOfTheNodeIsOurs(t *testing.T) {
	t.Parallel()
	for _, code := range []int{1, 2, 42, 101, 255} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			crash := func(m *mockrollup.Mock) { m.CrashAt, m.ExitCode = 5, code }
			newChain(t, version{stop: 10, faults: crash}, version{}).run(phase{
				name: "crash", do: do(heights(6, 0), start()), exit: exits(code),
				trace: []string{"start v0 stop=10", fmt.Sprintf("exit v0 %d at 0", code)},
				says:  []string{fmt.Sprintf("version 0: its node exited %d", code)},
			})
		})
	}
}

// 10.
func TestMigrationFailureCodeIsOurs(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{migrates: true, faults: func(m *mockrollup.Mock) { m.Migration.Exit = 7 }})
	c.run(
		phase{
			name: "the migration fails", do: do(heights(13, 13), start()), exit: exits(7),
			events: []event{on("migration started", "version=1"), on("migration finished", "exit=exited 7")},
			trace: []string{
				"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10",
				"start v1 migration", "exit v1 migration 7 at 10",
			},
			says:       []string{"the migration of version 1 exited 7", "no node was started"},
			checkpoint: "1 migrating 0@10", state: "10 version 0",
		},
		phase{
			name: "fixed", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Exit = 0 }), start()),
			events:     []event{on("interrupted migration is run again"), on("height known", "version=1")},
			trace:      []string{"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11"},
			checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
		},
	)
}

func TestFailureQuotesTheLastLinesOfStderr(t *testing.T) {
	t.Parallel()
	panics := func(m *mockrollup.Mock) { m.PanicOnStart = "the genesis is not what it was" }
	c := newChain(t, version{faults: panics})
	c.start()
	c.await("the end", c.program.ended)
	lines := c.program.log.all()
	last := lines[len(lines)-1]
	assert.Contains(t, last.text("stderr"), "the genesis is not what it was")
	assert.Contains(t, c.program.log.nodes(), "the genesis is not what it was", "it passes through as well")
	assert.Equal(t, 101, c.program.code())
}

// 11.
func TestTornCheckpointIsRefusedWithRepair(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty":   "",
		"torn":    `{"version_index": 1, "binary_pa`,
		"zeros":   strings.Repeat("\x00", 100),
		"foreign": `{"height": 3}`,
		"twice":   `{"version_index":0,"binary_path":"b"}{"version_index":1,"binary_path":"b"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			require.NoError(t, os.WriteFile(c.checkpoint, []byte(text), 0o644))
			c.run(phase{
				name: "start", do: do(heights(3, 3), start()), exit: exits(65), state: "none",
				says: []string{c.checkpoint, "nothing was started", "entrypoint checkpoint set -c " + c.manager + " -f " + c.checkpoint + " --version 0"},
			})
			have, err := os.ReadFile(c.checkpoint)
			require.NoError(t, err)
			assert.Equal(t, text, string(have), "it is left as it is")
			// The repair that the failure names.
			code, _, errs := c.command("checkpoint", "set", "--version", "0", "-c", c.manager, "-f", c.checkpoint)
			require.Zero(t, code, errs)
			c.run(phase{name: "repaired", do: start(), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}})
		})
	}
}

// A chain may be taken over from the reference, and back: it reads two keys of the checkpoint and ignores the others.
func TestCheckpointIsOneOfTheReferenceToo(t *testing.T) {
	t.Parallel()
	for _, migrates := range []bool{false, true} {
		t.Run(fmt.Sprintf("migrates=%v", migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{stop: 20}, version{migrates: migrates})
			inV1(c)
			var keys struct {
				VersionIndex *int    `json:"version_index"`
				BinaryPath   *string `json:"binary_path"`
			}
			require.NoError(t, json.Unmarshal([]byte(readText(c.checkpoint)), &keys))
			require.NotNil(t, keys.VersionIndex)
			require.NotNil(t, keys.BinaryPath)
			assert.Equal(t, 1, *keys.VersionIndex)
			assert.Equal(t, c.binary(1), *keys.BinaryPath)

			// The reference continued from there. Its checkpoint does not say whether it started anything of v2 on the state.
			c.run(phase{
				name: "back again", do: do(setCheckpoint(map[string]any{"version_index": 2, "binary_path": c.binary(2)}), start()),
				exit: exits(78), cause: "other_program", checkpoint: "2", stamp: "1 from 11 to 20", state: "13 version 0",
			})
			it := " --version 2 --force"
			if migrates {
				it = " --version 2 --migrated --force"
			}
			commands := c.remedies()
			require.Len(t, commands, 2)
			assert.True(t, strings.HasSuffix(commands[0], it), commands[0])
			c.doAs(" --version 1 --force")
			c.run(phase{
				name: "set by hand", do: start(), events: []event{on("height known", "version=1")}, trace: []string{"asked v1 at 13", "start v1 stop=20"},
				checkpoint: "1 running", stamp: "1 from 11 to 20", state: "13 version 0",
			})
		})
	}
}

// 12.
func TestFinishedSequenceRestartsToExitZero(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20})
	c.run(
		phase{
			name: "to the end", do: do(heights(30, 30), start()), exit: exits(0),
			events: []event{on("version completed", "version=0", "height=10"), on("sequence finished", "version=1", "height=20")},
			trace: []string{
				"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10",
				"start v1 start=11 stop=20", "exit v1 0 at 20", "asked v1 at 20",
			},
			checkpoint: "1 finished 0@10 1@20", state: "20 version 0",
		},
		phase{
			name: "restart", do: start(), exit: exits(0), events: []event{on("sequence finished", "version=1", "height=20")}, trace: []string{"asked v1 at 20"},
			checkpoint: "1 finished 0@10 1@20", state: "20 version 0",
		},
		phase{
			name: "restart to wait", do: start("--when-finished=wait"),
			events: []event{on("sequence finished"), on("waiting for a stop signal")}, trace: []string{"asked v1 at 20"},
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), events: []event{on("stop requested"), on("stopped")}},
	)
}

// 13.
func TestUnknownKeyIsRefusedBeforeAnyStart(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{keys: map[string]any{"migraton_path": "/somewhere"}})
	c.run(phase{
		name: "start", do: do(heights(13, 13), start()), exit: exits(78), checkpoint: "none", state: "none",
		says: []string{"version 1", `unknown key "migraton_path" (did you mean "migration_path"?)`, "nothing was started"},
	})
}

// 13.
func TestFilesOfAllVersionsAreCheckedBeforeAnyStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(c *chain)
		says  []string
	}{
		"binary is missing":        {func(c *chain) { _ = os.Remove(c.binary(2)) }, []string{"version 2", "rollup_binary", "no such file"}},
		"binary is a directory":    {func(c *chain) { _ = os.Remove(c.binary(2)); _ = os.Mkdir(c.binary(2), 0o755) }, []string{"is a directory"}},
		"binary is not executable": {func(c *chain) { replace(c, c.binary(2), "text", 0o644) }, []string{"version 2", "not executable"}},
		"migration is missing":     {func(c *chain) { _ = os.Remove(c.migration(1)) }, []string{"version 1", "migration_path"}},
		"config is missing":        {func(c *chain) { _ = os.Remove(c.config(2)) }, []string{"version 2", "config_path"}},
		"config is no TOML":        {func(c *chain) { replace(c, c.config(2), "[runner", 0o644) }, []string{"version 2", "not valid TOML"}},
		"config has no port":       {func(c *chain) { replace(c, c.config(2), "", 0o644) }, []string{"version 2", "bind_port is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, migratingChain()...)
			test.spoil(c)
			c.run(phase{
				name: "start", do: do(heights(13, 13), start()), exit: exits(78), checkpoint: "none", state: "none",
				says: append(test.says, "nothing was started"), events: []event{on("preflight problem", "severity=error")},
			})
		})
	}
}

// replace writes another file in the place of one, which may be a link.
func replace(c *chain, path, text string, mode os.FileMode) {
	_ = os.Remove(path)
	require.NoError(c.t, os.WriteFile(path, []byte(text), mode))
}

// 13.
func TestConfigMayBeAListOrAnObject(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	text, err := json.Marshal(map[string]any{"versions": c.entries()})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.manager, text, 0o644))
	c.run(phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}})
}

// 14.
func TestCompletedMigrationIsNeverRunAgain(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "to v1", do: do(heights(10, 10), start()), events: []event{on("version started", "version=1")},
			trace: []string{
				"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10",
				"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20",
			},
			checkpoint: "1 running migrated 0@10", state: "10 version 1 migrated@10",
		},
		phase{name: "crash", do: send(syscall.SIGKILL), exit: exits(137), trace: []string{"?signal v1 terminated", "?exit v1 0 at 10"}},
		phase{
			name: "restart before any block", do: start(), events: []event{on("version started", "asserts_start_height=true"), on("height known")},
			trace: []string{"asked v1 at 10", "start v1 start=11 stop=20"}, state: "10 version 1 migrated@10",
		},
		phase{name: "a block", do: heights(15, 15), state: "15 version 1 migrated@10"},
		phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(0), events: stopped, trace: []string{"signal v1 terminated", "exit v1 0 at 15"},
		},
		phase{
			name: "restart in the middle", do: start(), events: []event{on("height known", "version=1")},
			trace: []string{"asked v1 at 15", "start v1 stop=20"}, state: "15 version 1 migrated@10", checkpoint: "1 running migrated 0@10",
		},
	)
}

// 15.
func TestEachVersionHasItsOwnArgumentsAndEnvironment(t *testing.T) {
	t.Parallel()
	accepts := func(flags ...string) func(*mockrollup.Mock) {
		return func(m *mockrollup.Mock) { m.AcceptFlags = flags }
	}
	genesis := filepath.Join(t.TempDir(), "genesis.json")
	require.NoError(t, os.WriteFile(genesis, []byte("{}"), 0o644))
	c := newChain(t,
		version{stop: 10, faults: accepts("--metrics"), keys: map[string]any{
			"args": []string{"--metrics", "9845"}, "env": map[string]string{"SOV_TEST": "zero", "SOV_ONLY": "0"},
		}},
		version{stop: 20, migrates: true, faults: accepts("--oracle-config-path"), keys: map[string]any{
			"args": []string{"--oracle-config-path", "oracle.toml"}, "env": map[string]string{"SOV_TEST": "one"},
		}},
		version{},
	)
	c.env = []string{"SOV_TEST=ours"}
	g := gatedMigration(c, 1)
	var held *waiting
	environment := func(c *chain) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", c.nodeProcess()))
		require.NoError(t, err)
		var found []string
		for pair := range strings.SplitSeq(string(text), "\x00") {
			if strings.HasPrefix(pair, "SOV_") {
				found = append(found, pair)
			}
		}
		return strings.Join(found, " ")
	}
	c.run(
		phase{
			name: "v0", do: do(heights(3, 3), start("--", "--genesis-path", genesis)), events: []event{on("height known")},
			trace: []string{"start v0 stop=10 --metrics 9845 --genesis-path " + genesis},
		},
		phase{
			name: "migration", events: []event{on("migration started")},
			do: do(func(c *chain) { assert.Contains(t, environment(c), "SOV_ONLY=0 SOV_TEST=zero") }, heights(13, 13),
				func(*chain) { held = g.await() }),
			trace: []string{
				"exit v0 0 at 10", "asked v0 at 10",
			},
		},
		phase{
			name: "v1", events: []event{on("height known", "version=1")},
			do: func(c *chain) { assert.Contains(t, environment(c), "SOV_TEST=one"); held.pass() },
			trace: []string{
				"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10",
				"start v1 start=11 stop=20 --oracle-config-path oracle.toml --genesis-path " + genesis,
			},
		},
		phase{
			name: "v2", events: []event{on("height known", "version=2")},
			do: do(func(c *chain) {
				env := environment(c)
				assert.Contains(t, env, "SOV_TEST=one")
				assert.NotContains(t, env, "SOV_ONLY")
			}, heights(23, 23)),
			trace: []string{
				"exit v1 0 at 20", "asked v1 at 20",
				"start v2 start=21 --genesis-path " + genesis,
			},
		},
	)
	assert.Equal(t, "SOV_TEST=ours", environment(c))
}

// 15.
func TestNodeIsAskedAtTheAddressItListensOn(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	c.versions[0].node.Runner.HTTP.BindHost = "127.0.0.77"
	c.writeConfig(0)
	c.run(phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known", "height=3")}, trace: []string{"start v0 stop=10"}})
}

// heightsServer answers on a node's port in its place.
type heightsServer struct {
	server *http.Server
	height atomic.Uint64
	asked  atomic.Uint64
	once   atomic.Bool // answer one request only
	done   chan struct{}
}

func serveHeights(c *chain, height uint64) *heightsServer {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
	require.NoError(c.t, err)
	s := &heightsServer{done: make(chan struct{})}
	s.height.Store(height)
	s.server = &http.Server{ReadHeaderTimeout: deadline, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if s.asked.Load() > 0 && s.once.Load() {
			http.Error(w, "no more", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"value":[%d,%d]}`, s.height.Load(), s.height.Load())
		s.asked.Add(1)
	})}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener)
	}()
	c.t.Cleanup(s.close)
	return s
}

func (s *heightsServer) close() {
	_ = s.server.Close()
	<-s.done
}

// 15.
func TestStrangerOnThePortIsNotBelieved(t *testing.T) {
	t.Parallel()
	for _, height := range []uint64{3, 10, 5000} {
		t.Run(fmt.Sprint(height), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.HTTP = "off" }}, version{migrates: true})
			stranger := serveHeights(c, height)
			c.run(
				phase{
					name: "run", do: do(heights(5, 5), start()), trace: []string{"start v0 stop=10"},
					events:     []event{on("height unknown", "detail~another process answered")},
					checkpoint: "0 running", state: "5 version 0",
				},
				phase{
					name: "complete", do: heights(13, 10),
					events: []event{
						on("version exited", "exit~it reported no height"), on("version completed", "version=0", "proof=durable height"), on("migration started"),
					},
					trace: []string{
						"exit v0 0 at 10", "asked v0 at 10",
						"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11",
						"exit v1 101 at 10", // the stranger has its port
					},
					exit:       exits(101),
					allows:     []string{"height unknown"},
					checkpoint: "1 running migrated 0@10", state: "10 version 1 migrated@10",
				},
			)
			assert.Zero(t, stranger.asked.Load())
		})
	}
}

// 16.
func TestSecondEntrypointIsRefusedWithTheHoldersPid(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	c.run(phase{
		name: "the first", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"},
		checkpoint: "0 running",
	})
	code, _, errs := c.command("-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, 74, code)
	assert.Contains(t, errs, fmt.Sprintf("locked by the entrypoint with pid %d", c.program.cmd.Process.Pid))
	assert.Contains(t, errs, "nothing was started")
	code, _, errs = c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "1")
	assert.Equal(t, 74, code)
	assert.Contains(t, errs, "nothing was changed")
	code, out, errs := c.command("checkpoint", "show", "-f", c.checkpoint)
	assert.Zero(t, code, errs)
	assert.Contains(t, out, "running")
	c.run(phase{
		name: "the first continues", do: heights(13, 13), events: []event{on("height known", "version=1")},
		trace: []string{"exit v0 0 at 10", "asked v0 at 10", "start v1 start=11 stop=20"},
	})
}

// 16.
func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	orphans := func(m *mockrollup.Mock) { m.OrphansPerBlock = 2 }
	versions := []version{{stop: 10, faults: orphans}, {stop: 20, faults: orphans}, {faults: orphans}}
	through := func(c *chain) {
		for height := uint64(1); height <= 25; height++ {
			blocks := phase{name: fmt.Sprintf("height %d", height), do: heights(height, height), state: fmt.Sprintf("%d version 0", height)}
			switch height {
			case 1:
				blocks.do = do(heights(1, 1), start())
				blocks.trace = []string{"start v0 stop=10"}
			case 10:
				blocks.trace = []string{"exit v0 0 at 10", "asked v0 at 10", "start v1 start=11 stop=20"}
			case 20:
				blocks.trace = []string{"exit v1 0 at 20", "asked v1 at 20", "start v2 start=21"}
			}
			c.run(blocks)
		}
		c.run(phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(0), allows: []string{"leftover processes ended"},
			trace: []string{"?signal v2 terminated", "?exit v2 0 at 25"},
		})
	}
	t.Run("as a subreaper", func(t *testing.T) {
		t.Parallel()
		through(newChain(t, versions...))
	})
	t.Run("as process 1", func(t *testing.T) {
		t.Parallel()
		needNamespaces(t)
		c := newChain(t, versions...)
		c.stage, c.asFirst = &stage{Proc: true}, true
		through(c)
	})
}
