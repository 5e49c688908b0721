package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer"
)

// Config, files, checkpoint and state that do not fit together, and what may be told to the operator then.

// inV1 has the chain run to height 13, in v1, and stop there.
func inV1(c *chain) {
	c.t.Helper()
	trace := []string{"start v0 stop=10", "exit v0 0 at 10", "?start v0 stop=10", "?exit v0 101 at 10"}
	if c.versions[1].migrates {
		trace = append(trace, "start v1 migration", "exit v1 migration 0 at 10")
	}
	c.run(
		phase{
			name: "to v1", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")}, trace: append(trace, "start v1 start=11 stop=20"),
			checkpoint: "1 running started ?migrated 0@10", state: fmt.Sprintf("13 version %d ?migrated@10", c.versions[1].node.Mock.StateVersion),
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
		},
	)
}

// setCheckpoint writes the checkpoint by hand.
func setCheckpoint(record map[string]any) func(*chain) {
	return func(c *chain) {
		text, err := json.Marshal(record)
		require.NoError(c.t, err)
		require.NoError(c.t, os.WriteFile(c.checkpoint, text, 0o644))
	}
}

func TestEmptyStateWithALateCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"gone", "empty", "with lost+found"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, migratingChain()...)
			inV1(c)
			require.NoError(t, os.RemoveAll(c.state))
			switch how {
			case "empty":
				require.NoError(t, os.Mkdir(c.state, 0o755))
			case "with lost+found":
				require.NoError(t, os.MkdirAll(filepath.Join(c.state, "lost+found"), 0o755))
			}
			c.traced = 0
			before := readText(c.checkpoint)
			c.run(phase{
				name: "start", do: start(), exit: exits(78), state: "none",
				says: []string{"the checkpoint is at version 1", c.state, "is empty", "nothing was started", "mount or restore the state", "delete the checkpoint too"},
			})
			assert.Equal(t, before, readText(c.checkpoint))
			entries, err := os.ReadDir(c.state)
			assert.True(t, err != nil || len(entries) == 0 || entries[0].Name() == "lost+found", "nothing was written: %v", entries)
		})
	}
}

// adoptCommand is the command that a message tells.
var adoptCommand = regexp.MustCompile(`'entrypoint (checkpoint set [^']*)'`)

func TestStateWithoutACheckpointIsRefusedAndCanBeAdopted(t *testing.T) {
	t.Parallel()
	for _, migrates := range []bool{false, true} {
		t.Run(fmt.Sprintf("migrates=%v", migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{stop: 20, migrates: migrates, keys: map[string]any{"name": "second"}}, version{})
			inV1(c)
			require.NoError(t, os.Remove(c.checkpoint))
			var told string
			words := []string{"at height 13", `that height belongs to version 1 ("second")`, "entrypoint checkpoint set"}
			c.run(phase{
				name: "refused", do: do(start(), func(c *chain) {
					c.await("the end", c.program.ended)
					lines := c.program.log.all()
					told = adoptCommand.FindStringSubmatch(lines[len(lines)-1].text("error"))[1]
				}),
				exit: exits(78), says: words, trace: []string{"start v0 stop=10", "exit v0 101 at 13"},
				checkpoint: "0 running", state: fmt.Sprintf("13 version %d ?migrated@10", c.versions[1].node.Mock.StateVersion),
			})
			// As an image has it: the two files stand in the environment.
			c.env = []string{"ENTRYPOINT_CONFIG=" + c.manager, "ENTRYPOINT_CHECKPOINT_FILE=" + c.checkpoint}
			code, _, errs := c.command(strings.Fields(told)...)
			require.Zero(t, code, errs)
			c.run(
				phase{
					name: "adopted", do: start(), events: []event{on("checkpoint found", "version=1"), on("height known", "version=1")},
					trace:      []string{"start v1 start=11 stop=20", "exit v1 101 at 13", "start v1 stop=20"},
					checkpoint: "1 running started ?migrated", state: fmt.Sprintf("13 version %d ?migrated@10", c.versions[1].node.Mock.StateVersion),
				},
				phase{
					name: "on to v2", do: heights(23, 23), events: []event{on("height known", "version=2")},
					trace: []string{"exit v1 0 at 20", "?start v1 stop=20", "?exit v1 101 at 20", "start v2 start=21"},
				},
			)
		})
	}
}

func TestCheckpointOfTheReferenceIsAccepted(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	c.run(phase{
		name: "two keys", do: do(setCheckpoint(map[string]any{"version_index": 1, "binary_path": c.binary(1)}), start()),
		events:     []event{on("height known", "version=1")},
		trace:      []string{"start v1 start=11 stop=20", "exit v1 101 at 13", "start v1 stop=20"},
		checkpoint: "1 running started", state: "13 version 0",
	})
}

// The reference does not record migrations: to guess would run one twice, or never.
func TestCheckpointOfTheReferenceHaltsBeforeAMigration(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	reference := map[string]any{"version_index": 1, "binary_path": c.binary(1)}
	c.run(phase{
		name: "two keys", do: do(setCheckpoint(reference), start()), exit: exits(78), checkpoint: "1", state: "13 version 1 migrated@10",
		says: []string{"does not say whether the migration of version 1 completed", "nothing was started", " --version 1 --migrated'"},
	})
	code, out, errs := c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "1", "--migrated")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "version:")
	c.run(phase{
		name: "told", do: start(), events: []event{on("height known", "version=1")},
		trace:      []string{"start v1 start=11 stop=20", "exit v1 101 at 13", "start v1 stop=20"},
		checkpoint: "1 running started migrated", state: "13 version 1 migrated@10",
	})
}

// A checkpoint that is set by hand is not taken on trust: the version before proves its stop height, or runs on to it.
func TestMigrationThatWasSetByHandWaitsForTheStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	code, _, errs := c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "1")
	require.Zero(t, code, errs)
	c.run(
		phase{
			name: "start", do: start(), events: []event{on("proving the stop height before the migration", "version=0"), on("version started", "version=0")},
			trace: []string{"start v0 stop=10"}, checkpoint: "1 migrating", state: "5 version 0",
		},
		phase{
			name: "the stop height", do: heights(13, 13), events: []event{on("migration started"), on("height known", "version=1")}, orchestrated: true,
			trace: upgraded[1:], checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		},
	)
}

func TestMovedBinaryIsAccepted(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	moved := filepath.Join(c.folder(1), "renamed")
	require.NoError(t, os.Rename(c.binary(1), moved))
	c.versions[1].keys = map[string]any{"rollup_binary": moved}
	c.writeManager()
	c.run(phase{
		name: "start", do: start(), events: []event{on("binary moved", "from="+c.binary(1), "to="+moved), on("height known", "version=1")},
		trace: []string{"start v1 stop=20"}, checkpoint: "1 running started 0@10",
	})
	assert.Contains(t, readText(c.checkpoint), moved)
}

func TestOtherBinaryIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		binary string
		says   string
	}{
		"unknown":             {programs.nodes[3], "its content differs too"},
		"of another version":  {"", "versions were inserted or removed"},
		"a version was added": {"inserted", "versions were inserted or removed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			inV1(c)
			switch test.binary {
			case "": // v1 and v2 have changed places
				c.versions[1].keys = map[string]any{"rollup_binary": c.binary(2)}
				c.versions[2].keys = map[string]any{"rollup_binary": c.binary(1)}
			case "inserted": // v1 is now version 2
				other := filepath.Join(c.dir, "other")
				c.install(programs.nodes[3], other)
				c.versions[1].keys = map[string]any{"rollup_binary": other}
				c.versions[2].keys = map[string]any{"rollup_binary": c.binary(1)}
			default:
				other := filepath.Join(c.dir, "other")
				c.install(test.binary, other)
				c.versions[1].keys = map[string]any{"rollup_binary": other}
			}
			c.writeManager()
			c.run(phase{
				name: "start", do: start(), exit: exits(78), checkpoint: "1 running started 0@10",
				says: []string{"the checkpoint is at version 1 with the binary " + c.binary(1), test.says, "nothing was started"},
			})
		})
	}
}

// A bug fix release at the same path is common.
func TestBinaryReplacedInPlaceIsRunLoudly(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	require.NoError(t, os.Remove(c.binary(1)))
	c.install(programs.nodes[3], c.binary(1))
	c.run(phase{
		name: "start", do: start(), events: []event{on("binary changed", "binary="+c.binary(1)), on("height known", "version=1")},
		trace: []string{"start v1 stop=20"}, checkpoint: "1 running started 0@10",
	})
}

func TestCheckpointBeyondTheConfigIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	c.versions = c.versions[:1]
	c.writeManager()
	c.run(phase{
		name: "start", do: start(), exit: exits(78), checkpoint: "1 running started 0@10",
		says: []string{"the checkpoint is at version 1", "has only versions 0 to 0", "nothing was started"},
	})
}

func TestStateBelowTheVersionIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	// A backup of v1's first days, migrated, but from before its start: only its own check can find out.
	state, err := mockrollup.ReadState(c.state)
	require.NoError(t, err)
	state.Height = 4
	text, err := json.Marshal(state)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(c.state, "state.json"), text, 0o644))
	c.da.set(4, 4)
	c.run(phase{
		name: "start", do: start(), exit: exits(78), trace: []string{"start v1 stop=20", "signal v1 terminated", "exit v1 0 at 4"},
		events: []event{on("stopping the node", "reason~starts at height 11, but its node is at height 4")},
		says:   []string{"version 1 starts at height 11, but its node is at height 4", "restore the state"},
	})
}

func TestReadOnlyVolumeIsRefusedBeforeAnyStart(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	c := newChain(t, plainChain()...)
	c.stage = &stage{ReadOnly: filepath.Dir(c.checkpoint)}
	c.run(phase{
		name: "start", do: start(), exit: exits(74), checkpoint: "none", state: "none",
		says: []string{"the checkpoint cannot be used", "read-only file system", "nothing was started"},
	})
}

func TestFullVolumeIsRefusedBeforeAnyStart(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	c := newChain(t, plainChain()...)
	full := filepath.Join(c.dir, "full")
	require.NoError(t, os.Mkdir(full, 0o755))
	c.checkpoint = filepath.Join(full, "checkpoint.json")
	c.stage = &stage{Tmpfs: full, Full: true}
	c.run(phase{
		name: "start", do: start(), exit: exits(74), state: "none",
		says: []string{"the checkpoint", "no space left on device", "nothing was started"},
	})
}

func TestUpgradeGoesOnWithoutHTTP(t *testing.T) {
	t.Parallel()
	for _, http := range []string{"off", "500", "garbage", "null"} {
		t.Run(http, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.HTTP = http }}, version{stop: 20, migrates: true}, version{})
			c.run(phase{
				name: "upgrade", do: do(heights(13, 13), start()),
				events: []event{on("version exited", "decision=verify", "reason~it never told a height"), on("height known", "version=1")},
				trace:  upgraded, checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
			})
		})
	}
}

func TestUpgradeGoesOnWhenNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.StderrFlood = 10_000 }}, version{stop: 20, migrates: true}, version{})
	c.run(
		phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "the reader goes", do: do(func(c *chain) { require.NoError(t, c.program.stderr.Close()) }, heights(13, 13)),
			trace: upgraded[1:], checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		},
		phase{name: "stop", do: func(c *chain) {
			send(syscall.SIGTERM)(c)
			c.awaitExit(0)
			assert.Empty(t, c.processes())
			c.program = nil
		}, trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
	)
}

func TestUpgradeGoesOnWhenTheReaderOfTheLogIsStuck(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.StderrFlood = 300_000 }}, version{stop: 20, migrates: true}, version{})
	c.deaf = make(chan struct{})
	hear := sync.OnceFunc(func() { close(c.deaf) })
	t.Cleanup(hear)
	c.run(
		phase{
			name: "upgrade", do: do(heights(13, 13), start()), trace: upgraded,
			checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		},
		phase{
			name: "the reader wakes up", do: func(c *chain) {
				hear()
				// What was dropped is told with what is written next: a line for each signal that the node does not mind.
				c.await("the note about what was dropped", func() bool {
					require.NoError(t, c.program.cmd.Process.Signal(syscall.SIGWINCH))
					return strings.Contains(c.program.log.nodes(), "bytes of log were dropped")
				})
			},
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), exit: exits(0),
			trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
		},
	)
}

func TestInterruptedMigrationIsRunAgain(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	halfWay(c, true)
	c.run(phase{
		name: "restart", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Sleep = 0 }), start()),
		events:     []event{on("interrupted migration is run again", "version=1"), on("height known", "version=1")},
		trace:      []string{"start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11 stop=20"},
		checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
	})
}

func TestInterruptedMigrationThatMayNotBeRunAgainHalts(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true, keys: map[string]any{"on_interrupted_migration": "halt"}}, version{})
	halfWay(c, false)
	halted := phase{
		name: "restart", do: start(), exit: exits(78),
		says:       []string{"the migration of version 1 was begun and is not recorded as completed", `on_interrupted_migration is "halt"`, "nothing was started"},
		checkpoint: "1 migrating started 0@10", state: "10 version 0 half migrated",
	}
	c.run(halted, halted)
}

// A migration that fails in mid-rewrite, and does not survive a second run, says so at each start.
func TestMigrationThatCannotBeRunAgainFailsEachTime(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	halfWay(c, false)
	again := phase{
		name: "restart", do: start(), exit: exits(1), events: []event{on("interrupted migration is run again")},
		trace: []string{"start v1 migration", "exit v1 migration 1 at 10"},
		says:  []string{"the migration of version 1 exited 1"}, checkpoint: "1 migrating started 0@10", state: "10 version 0 half migrated",
	}
	c.run(again, again)
}

// halfWay kills the program when the migration of v1 has rewritten half of the state.
func halfWay(c *chain, idempotent bool) {
	c.t.Helper()
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Sleep, n.Mock.Migration.Idempotent = deadline, idempotent })(c)
	c.run(
		phase{
			name: "the migration is half done", do: do(heights(13, 13), start()), events: []event{on("migration started")},
			trace:      []string{"start v0 stop=10", "exit v0 0 at 10", "start v0 stop=10", "exit v0 101 at 10", "start v1 migration"},
			checkpoint: "1 migrating started 0@10", state: "10 version 0 half migrated",
		},
		phase{name: "killed", do: send(syscall.SIGKILL), exit: exits(137), checkpoint: "1 migrating started 0@10", state: "10 version 0 half migrated"},
	)
}

// Leftovers of a write that a kill interrupted are removed, and nothing else.
func TestLeftoverTemporaryFilesAreRemoved(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	other := filepath.Join(filepath.Dir(c.checkpoint), ".checkpoint.json-of-somebody")
	for _, name := range []string{filepath.Join(filepath.Dir(c.checkpoint), ".checkpoint.json1234567"), other} {
		require.NoError(t, os.WriteFile(name, nil, 0o644))
	}
	c.run(phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}})
	c.awaitEqual("leftover", other, true, func() string { return strings.Join(c.leftoverFiles(), " ") })
}

func TestCheckpointBehindALinkIsReplacedAndNotTheLink(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	link := filepath.Join(c.dir, "link.json")
	require.NoError(t, setAside(c.checkpoint, sequencer.Checkpoint{BinaryPath: c.binary(0), Phase: sequencer.PhaseRunning}))
	require.NoError(t, os.Symlink(c.checkpoint, link))
	c.run(phase{
		name: "run", do: do(heights(3, 3), func(c *chain) { c.startWith("-c", c.manager, "-f", link) }), events: []event{on("height known")},
		trace: []string{"start v0 stop=10"}, checkpoint: "0 running started",
	})
	info, err := os.Lstat(link)
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeSymlink)
}

func setAside(path string, record sequencer.Checkpoint) error {
	text, err := sequencer.EncodeCheckpoint(record)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func TestRunWithoutACheckpointBeginsAtVersion0(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{
			name: "upgrade", do: do(heights(13, 13), func(c *chain) { c.startWith("-c", c.manager, "--no-checkpoint-file") }),
			events: []event{on("no checkpoint is kept"), on("migrations are not recorded"), on("height known", "version=1")},
			trace:  upgraded, checkpoint: "none", state: "13 version 1 migrated@10",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
		phase{
			name: "restart", do: func(c *chain) { c.startWith("-c", c.manager, "--no-checkpoint-file") }, exit: exits(78),
			events: []event{on("migrations are not recorded")}, trace: []string{"start v0 stop=10", "exit v0 101 at 13"},
			says: []string{"at height 13", "belongs to version 1", "use a checkpoint file"}, state: "13 version 1 migrated@10",
		},
	)
	assert.NoFileExists(t, c.checkpoint+".lock")
}
