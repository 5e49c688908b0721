package program

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
	"rollup-entrypoint/sequencer/checkpoint"
)

// Config, files, checkpoint and state that are inconsistent, and what the operator may be advised then.

// inV1 has the chain run to height 13, in v1, and stop there.
func inV1(c *chain) {
	c.t.Helper()
	c.run(
		phase{
			name: "to v1", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
			trace:      append([]string{"start v0 stop=10"}, toV1(c.versions[1].migrates)...),
			checkpoint: "1 running ?migrated 0@10", stamp: "1 from 11 to 20 ?migrated", state: c.at13(),
		},
		phase{
			name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0),
			trace: []string{"signal v1 terminated", "exit v1 0 at 13"},
		},
	)
}

// at13 is the state at height 13, in v1.
func (c *chain) at13() string {
	return fmt.Sprintf("13 version %d ?migrated@10", c.versions[1].node.Mock.StateVersion)
}

// setCheckpoint writes the checkpoint by hand.
func setCheckpoint(record map[string]any) func(*chain) {
	return func(c *chain) {
		text, err := json.Marshal(record)
		require.NoError(c.t, err)
		require.NoError(c.t, os.WriteFile(c.checkpoint, text, 0o644))
	}
}

func (c *chain) stampFile() string { return filepath.Join(c.state, checkpoint.StampFile) }

func withoutStamp(c *chain) { require.NoError(c.t, os.Remove(c.stampFile())) }

func withoutCheckpoint(c *chain) { require.NoError(c.t, os.Remove(c.checkpoint)) }

func TestEmptyStateWithALateCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"gone", "empty", "with lost+found", "with its stamp alone"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, migratingChain()...)
			inV1(c)
			stamp := readText(c.stampFile())
			require.NoError(t, os.RemoveAll(c.state))
			switch how {
			case "empty":
				require.NoError(t, os.Mkdir(c.state, 0o755))
			case "with lost+found":
				require.NoError(t, os.MkdirAll(filepath.Join(c.state, "lost+found"), 0o755))
			case "with its stamp alone":
				require.NoError(t, os.Mkdir(c.state, 0o755))
				require.NoError(t, os.WriteFile(c.stampFile(), []byte(stamp), 0o644))
			}
			before := readText(c.checkpoint)
			entries, _ := os.ReadDir(c.state)
			c.run(phase{
				name: "start", do: start(), exit: exits(78), state: "none", cause: "state_gone",
				says: []string{c.state, "nothing was started", "mount the state, or restore it", "--version 0 --force"},
			})
			assert.Equal(t, before, readText(c.checkpoint))
			after, _ := os.ReadDir(c.state)
			assert.Equal(t, len(entries), len(after), "nothing was written: %v", after)

			c.doAs("--version 0 --force")
			c.run(phase{
				name: "from genesis again", do: start(), events: []event{on("height known", "version=1")}, trace: upgraded,
				checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
			})
		})
	}
}

// remedyCommand is a command that a failure names.
var remedyCommand = regexp.MustCompile(`'entrypoint (checkpoint set [^']*)'`)

// remedies are the commands that the failure of the last program names.
func (c *chain) remedies() (commands []string) {
	_, failure, _ := strings.Cut(c.lastLog, `"msg":"run failed"`)
	for _, found := range remedyCommand.FindAllStringSubmatch(failure, -1) {
		commands = append(commands, found[1])
	}
	return commands
}

// doAs runs the command among the remedies of the last failure that ends with these flags.
func (c *chain) doAs(flags string) {
	c.t.Helper()
	for _, command := range c.remedies() {
		if strings.HasSuffix(command, flags) {
			code, _, errs := c.command(strings.Fields(command)...)
			require.Zero(c.t, code, errs)
			return
		}
	}
	c.fatalf("no remedy ends with %q: %q", flags, c.remedies())
}

// The life that once destroyed a state: version 0 was started on that of v1.
func TestStateOfALateVersionWithoutACheckpointIsContinuedByItsStamp(t *testing.T) {
	t.Parallel()
	for _, migrates := range []bool{false, true} {
		t.Run(fmt.Sprintf("migrates=%v", migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{stop: 20, migrates: migrates}, version{})
			inV1(c)
			withoutCheckpoint(c)
			c.run(phase{
				name: "start", do: start(), events: []event{on("no checkpoint found"), on("stamp found", "version=1"), on("height known", "version=1")},
				trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running ?migrated", stamp: "1 from 11 to 20 ?migrated", state: c.at13(),
			})
		})
	}
}

func TestStateWithoutAnyRecordIsRefusedAndCanBeAdopted(t *testing.T) {
	t.Parallel()
	for _, migrates := range []bool{false, true} {
		t.Run(fmt.Sprintf("migrates=%v", migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{stop: 20, migrates: migrates, keys: map[string]any{"name": "second"}}, version{})
			inV1(c)
			do(withoutCheckpoint, withoutStamp)(c)
			c.run(phase{
				name: "refused", do: start(), exit: exits(78), cause: "owner_unknown", checkpoint: "none", stamp: "none", state: c.at13(),
				says: []string{c.state, "neither a checkpoint nor a stamp", `version "second" (index 1)`, "nothing was started"},
			})
			assert.Len(t, c.remedies(), 3, "one for each version")
			flags := "--version 1"
			if migrates {
				flags += " --migrated"
			}
			c.doAs(flags)
			c.run(
				phase{
					name: "adopted", do: start(), events: []event{on("stamp found", "version=1"), on("height known", "version=1")},
					trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running ?migrated", state: c.at13(),
				},
				phase{
					name: "on to v2", do: heights(23, 23), events: []event{on("height known", "version=2")},
					trace: []string{"exit v1 0 at 20", "asked v1 at 20", "start v2 start=21"},
				},
			)
		})
	}
}

func TestStateOfAPlanWithOneVersionNeedsNoRecord(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{})
	running := phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0"}}
	stop := phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}}
	c.run(running, stop)
	do(withoutCheckpoint, withoutStamp)(c)
	running.trace = []string{"asked v0 at 3", "start v0"}
	c.run(running, stop)
}

// A state that has no stamp cannot be the one whose stamp the checkpoint has followed.
func TestStateOfSomebodyElseUnderOurCheckpointIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	withoutStamp(c)
	c.run(phase{
		name: "start", do: start(), exit: exits(78), cause: "other_state", says: []string{"it is a different state", "nothing was started"},
		checkpoint: "1 running migrated 0@10", stamp: "none", state: "13 version 1 migrated@10",
	})
	assert.Len(t, c.remedies(), 3)
}

func TestCheckpointOfTheReferenceIsAccepted(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	withoutStamp(c)
	c.run(phase{
		name: "two keys", do: do(setCheckpoint(map[string]any{"version_index": 1, "binary_path": c.binary(1)}), start()),
		events: []event{on("state stamped"), on("old checkpoint kept"), on("height known", "version=1")},
		trace:  []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running", stamp: "1 from 11 to 20", state: "13 version 0",
	})
}

// The reference does not record migrations: to guess would run one twice, or never.
func TestCheckpointOfTheReferenceHaltsBeforeAMigration(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	withoutStamp(c)
	c.run(phase{
		name: "two keys", do: do(setCheckpoint(map[string]any{"version_index": 1, "binary_path": c.binary(1)}), start()), exit: exits(78), cause: "owner_unknown",
		checkpoint: "1", stamp: "none", state: "13 version 1 migrated@10",
		says: []string{"does not say whether the migration of version 1 completed", "nothing was started", " --version 1 --migrated'", " --version 0'"},
	})
	c.doAs("--version 1 --migrated")
	c.run(phase{
		name: "set by hand", do: start(), events: []event{on("height known", "version=1")}, trace: []string{"asked v1 at 13", "start v1 stop=20"},
		checkpoint: "1 running migrated", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	})
}

// The reference writes its checkpoint before it runs the migration, so its version may as well be the one before.
func TestCheckpointOfTheReferenceBeforeItsMigrationIsSetBack(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
	)
	setHeight(10)(c)
	withoutStamp(c)
	c.run(phase{
		name: "two keys", do: do(setCheckpoint(map[string]any{"version_index": 1, "binary_path": c.binary(1)}), start()), exit: exits(78), cause: "owner_unknown",
	})
	c.doAs("--version 0")
	c.run(phase{
		name: "set by hand", do: do(heights(13, 13), start()), events: []event{on("height known", "version=1")},
		trace:      upgraded[2:],
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	})
}

// A word that contradicts the stamp is not taken without --force: the stamp was written before the version touched the state.
func TestWordAgainstTheStampIsNotTaken(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	before, stamp := readText(c.checkpoint), readText(c.stampFile())
	code, _, errs := c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "0")
	assert.Equal(t, 78, code)
	assert.Contains(t, errs, "nothing was changed")
	assert.Equal(t, []string{before, stamp}, []string{readText(c.checkpoint), readText(c.stampFile())})
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
		name: "start", do: start(), events: []event{on("height known", "version=1")},
		trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running 0@10",
	})
	assert.Contains(t, readText(c.checkpoint), moved)
}

// Where there is no stamp yet, only the binary of the checkpoint says which version it means.
func TestCheckpointOfAnotherBinaryIsNotStamped(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		inserted bool
		says     string
	}{
		"unknown":             {false, "nothing shows that they are the same"},
		"a version was added": {true, "that binary now belongs to version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			inV1(c)
			withoutStamp(c)
			checkpointAt(1, map[string]any{"phase": "running", "started": true})(c) // as earlier versions of this program wrote it
			other := filepath.Join(c.dir, "other")
			c.install(programs.nodes[3], other)
			c.versions[1].keys = map[string]any{"rollup_binary": other}
			if test.inserted {
				c.versions[2].keys = map[string]any{"rollup_binary": c.binary(1)}
			}
			c.writeManager()
			c.run(phase{
				name: "start", do: start(), exit: exits(78), cause: "owner_unknown", checkpoint: "1 running unstamped", stamp: "none",
				says: []string{"the checkpoint is at version 1", c.binary(1), test.says, "nothing was started"},
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
	c.run(
		phase{
			name: "start", do: start(), events: []event{on("binary changed", "binary="+c.binary(1)), on("height known", "version=1")},
			trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running 0@10",
		},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
		phase{
			name: "again, without a warning", do: start(), events: []event{on("height known", "version=1")},
			trace: []string{"asked v1 at 13", "start v1 stop=20"},
		},
	)
	assert.False(t, c.program.log.has(on("binary changed")))
}

// A plan that has lost a version, at its end or at its beginning, starts nothing on the state of it.
func TestPlanWithoutTheVersionOfTheStateIsRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(c *chain)
		cause  string
	}{
		"the last ones are gone": {func(c *chain) { c.versions = c.versions[:1] }, "version_unknown"},
		"the first two are gone": {func(c *chain) {
			c.versions = c.versions[2:]
			c.versions[0].start = 0
			c.versions[0].keys = map[string]any{"rollup_binary": filepath.Join(c.dir, "v2", "rollup"), "config_path": filepath.Join(c.dir, "v2", "config.toml")}
		}, "version_unknown"},
		"it begins elsewhere": {func(c *chain) {
			c.versions[1].start = 12
			c.versions[0].stop = 11
		}, "version_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			inV1(c)
			test.change(c)
			c.writeManager()
			c.run(phase{
				name: "start", do: start(), exit: exits(78), cause: test.cause, checkpoint: "1 running 0@10", stamp: "1 from 11 to 20",
				says: []string{`version "v1" (index 1)`, "nothing was started"},
			})
		})
	}
}

// v2's state under a plan that has lost its first entry: v1 would have been the new version 0.
func TestPlanThatLostItsFirstEntryStartsNothing(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true}, version{migrates: true})
	c.run(
		phase{name: "to v2", do: do(heights(25, 25), start()), events: []event{on("height known", "version=2")}, trace: []string{anything}, state: "25 version 2 migrated@10 migrated@20"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v2 terminated", "exit v2 0 at 25"}},
	)
	entries := c.entries()[1:]
	delete(entries[0], "start_height")
	delete(entries[0], "migration_path")
	text, err := json.Marshal(entries)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(c.manager, text, 0o644))
	refused := phase{
		name: "start", do: start(), exit: exits(78), cause: "version_unknown", checkpoint: "2 running migrated 0@10 1@20", stamp: "2 from 21 migrated",
		state: "25 version 2 migrated@10 migrated@20", says: []string{`version "v2" (index 2)`, "nothing was started"},
	}
	c.run(refused, refused)
}

func TestStateBelowTheVersionIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	// A backup of v1's first days, migrated, but from before its start: only its own check can find out.
	setHeight(4)(c)
	c.run(phase{
		name: "start", do: do(heights(4, 4), start()), exit: exits(78), trace: []string{"asked v1 at 4"}, cause: "state_below",
		says: []string{"version 1", "the state is at height 4", "11", "nothing else was started"}, state: "4 version 1 migrated@10",
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
		says: []string{"no space left on device", "nothing was started"}, allows: []string{unrecordedEvent},
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
				events: []event{on("height confirmed", "version=0", "height=10"), on("version started", "version=1")},
				trace:  upgraded, checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
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
			trace: upgraded[1:], checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
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
			checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
		},
		phase{
			name: "the reader wakes up", do: func(c *chain) {
				hear()
				// What was dropped is reported with what is written next: a line for each signal that the node does not mind.
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
		trace:      upgraded[3:],
		checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
	})
}

func TestInterruptedMigrationThatMayNotBeRunAgainHalts(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20, migrates: true, keys: map[string]any{"on_interrupted_migration": "halt"}}, version{})
	halfWay(c, false)
	halted := phase{
		name: "restart", do: start(), exit: exits(78),
		cause:      "migration_interrupted",
		says:       []string{"the migration of version 1 began and is not recorded as completed", `on_interrupted_migration is "halt"`, "nothing was started"},
		checkpoint: "1 migrating 0@10", state: "10 version 0 half migrated",
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
		says:  []string{"the migration of version 1 exited 1"}, checkpoint: "1 migrating 0@10", state: "10 version 0 half migrated",
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
			trace:      upgraded[:4],
			checkpoint: "1 migrating 0@10", stamp: "1 from 11 to 20 migrating", state: "10 version 0 half migrated",
		},
		phase{name: "killed", do: (*chain).killAll, checkpoint: "1 migrating 0@10", state: "10 version 0 half migrated"},
	)
}

// Leftovers of a write that a kill interrupted are removed, and nothing else.
func TestLeftoverTemporaryFilesAreRemoved(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	other := filepath.Join(filepath.Dir(c.checkpoint), ".checkpoint.json20261130")
	for _, name := range []string{filepath.Join(filepath.Dir(c.checkpoint), ".checkpoint.json.1234567.tmp"), other} {
		require.NoError(t, os.WriteFile(name, nil, 0o644))
	}
	c.run(phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}})
	c.awaitEqual("leftover", other, true, func() string { return strings.Join(c.leftoverFiles(), " ") })
}

func TestCheckpointBehindALinkIsReplacedAndNotTheLink(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	link := filepath.Join(c.dir, "link.json")
	require.NoError(t, setAside(c.checkpoint, checkpoint.Checkpoint{BinaryPath: c.binary(0), Phase: checkpoint.PhaseRunning}))
	require.NoError(t, os.Symlink(c.checkpoint, link))
	c.run(phase{
		name: "run", do: do(heights(3, 3), func(c *chain) { c.startWith("-c", c.manager, "-f", link) }), events: []event{on("height known")},
		trace: []string{"start v0 stop=10"}, checkpoint: "0 running",
	})
	info, err := os.Lstat(link)
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeSymlink)
}

func setAside(path string, record checkpoint.Checkpoint) error {
	text, err := checkpoint.Encode(record)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
