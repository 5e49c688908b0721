package program

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// A node says at which height its state is when it rejects a start height that cannot be right: in the words and on the
// stream of its main, which nobody else can forge.

func mainOf(program, refusal string) func(*mockrollup.Mock) {
	return func(m *mockrollup.Mock) { m.Main, m.Refusal = program, refusal }
}

func TestNodeOfEachMainIsAsked(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"starter", "demo", "manager"} {
		for _, refusal := range []string{"", "flood", "hyperlink"} {
			t.Run(program+" "+refusal, func(t *testing.T) {
				t.Parallel()
				faults := mainOf(program, refusal)
				c := newChain(t, version{stop: 10, faults: faults}, version{stop: 20, migrates: true, faults: faults}, version{faults: faults})
				c.run(
					phase{
						name: "to v1", do: do(heights(13, 13), start()), events: []event{on("height confirmed", "version=0", "height=10"), on("height known", "version=1")},
						trace: upgraded, checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
					},
					phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 13"}},
				)
				assert.NotContains(t, c.lastLog, "expected height", "a question is not in the log")
				c.run(phase{
					name: "restart", do: do(heights(25, 25), start()), events: []event{on("height known", "version=2")},
					trace: []string{"asked v1 at 13", "start v1 stop=20", "exit v1 0 at 20", "asked v1 at 20", "start v2 start=21"},
				})
			})
		}
	}
}

// forgeries are sentences that somebody got into the log of a node, for instance by the memo of a transaction. Each would
// end a version, or set it back, if it were believed.
const forgeries = "The requested stop_height 20 must be greater than the current_height 20\n" +
	"The requested start_at_rollup_height: 21, is different than expected height 11\n" +
	"The requested start_at_rollup_height: 4611686018427387905, is different than expected height 21\n" +
	"start_at_height (4611686018427387905) != current_height + 1 (21)"

func TestQuotedRefusalsOfACrashingNodeAreNoEvidence(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"starter", "demo", "manager"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			crashAt := func(height uint64) func(m *mockrollup.Mock) {
				return func(m *mockrollup.Mock) {
					m.Main, m.Quote, m.CrashAt, m.CrashOn, m.CrashOnce, m.ExitCode = program, forgeries, height, "durable", true, 101
				}
			}
			c := newChain(t, version{stop: 20, faults: crashAt(12)}, version{migrates: true, faults: crashAt(25)})
			c.run(
				phase{
					name: "v0 crashes at 12 of 20", do: do(heights(12, 12), start()), exit: exits(101), trace: []string{"start v0 stop=20", "exit v0 101 at 12"},
					says: []string{"version 0", "exited 101"}, checkpoint: "0 running", stamp: "0 to 20", state: "12 version 0",
				},
				phase{
					name: "v1 crashes at 25", do: do(heights(25, 25), start()), exit: exits(101),
					trace: []string{
						"asked v0 at 12", "start v0 stop=20", "exit v0 0 at 20", "asked v0 at 20",
						"start v1 migration", "exit v1 migration 0 at 20", "asked v1 at 20", "start v1 start=21", "exit v1 101 at 25",
					},
					says: []string{"version 1", "exited 101"}, checkpoint: "1 running migrated 0@20", stamp: "1 from 21 migrated", state: "25 version 1 migrated@20",
				},
				phase{
					name: "v1 continues", do: do(heights(30, 30), start()), trace: []string{"asked v1 at 25", "start v1"},
					checkpoint: "1 running migrated 0@20", stamp: "1 from 21 migrated", state: "30 version 1 migrated@20",
				},
			)
			c.expectBlocks(segment{"v0", 20}, segment{"v1", 30})
		})
	}
}

// unaskable are the ways in which a node gives no answer that we know.
var unaskable = []string{"exit2", "garbled"}

func refuses(how string) func(*mockrollup.Mock) { return func(m *mockrollup.Mock) { m.Refusal = how } }

func TestNodeThatCannotBeAskedIsCompleteByAPersonsWord(t *testing.T) {
	t.Parallel()
	for _, how := range append(unaskable, "ask is false") {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			v0 := version{stop: 10, faults: refuses(how)}
			if how == "ask is false" {
				v0 = version{stop: 10, keys: map[string]any{"ask": false}}
			}
			c := newChain(t, v0, version{stop: 20, migrates: true}, version{})
			c.run(
				phase{
					name: "in the middle", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"},
					state: "5 version 0",
				},
				phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}},
				phase{
					name: "restart", do: start(), events: []event{on("node cannot be asked", "version=0"), on("height known")},
					trace: []string{"?asked v0 at 5", "start v0 stop=10"}, checkpoint: "0 running", stamp: "0 to 10",
				},
				phase{
					name: "at its stop height", do: heights(10, 10), exit: exits(78), trace: []string{"exit v0 0 at 10", "?asked v0 at 10", "?start v0 stop=10", "?exit v0 101 at 10"},
					cause: "cannot_be_asked", says: []string{"version 0", "cannot be asked", "nothing of a later version was started", "--height-slack"},
					allows: []string{"node cannot be asked"}, checkpoint: "0 running", stamp: "0 to 10", state: "10 version 0",
				},
				phase{
					name: "nobody does anything", do: start(), exit: exits(78), trace: []string{"?asked v0 at 10", "start v0 stop=10", "exit v0 101 at 10"},
					cause: "cannot_be_asked", allows: []string{"node cannot be asked"}, checkpoint: "0 running", stamp: "0 to 10", state: "10 version 0",
				},
			)
			c.doAs("--version 0 --complete")
			c.run(phase{
				name: "complete", do: do(heights(13, 13), start()),
				events: []event{on("node cannot be asked"), on("version completed", "version=0", "proof=a person's word"), on("height known", "version=1")},
				trace:  append([]string{"?asked v0 at 10"}, upgraded[3:]...), checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated",
				state: "13 version 1 migrated@10",
			})
		})
	}
}

func TestHeightSlackCompletesANodeThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	for _, how := range unaskable {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10, faults: refuses(how)}, version{stop: 20, migrates: true}, version{})
			c.run(
				phase{name: "run", do: do(heights(8, 8), start("--height-slack=3")), events: []event{on("height known", "height=8")}, trace: []string{"start v0 stop=10"}},
				phase{
					name: "complete", do: heights(10, 10),
					events: []event{
						on("node cannot be asked"), on("complete by the height slack", "version=0"),
						on("version completed", "version=0", "proof=height slack"), on("version started", "version=1"),
					},
					trace: []string{
						"exit v0 0 at 10", "?asked v0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20",
					},
					checkpoint: "1 running migrated 0@10", state: "10 version 1 migrated@10",
				},
			)
		})
	}
}

// It exits 0 far from its stop height, as a replica that has become leader: by nobody's word is it complete.
func TestNodeThatCannotBeAskedIsRestartedInPlaceFarFromItsStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 100, faults: func(m *mockrollup.Mock) { leaderAt(15)(m); m.Refusal = "garbled" }}, version{})
	c.run(
		phase{name: "run", do: do(heights(12, 12), start("--height-slack=3")), events: []event{on("height known", "height=12")}, trace: []string{"start v0 stop=100"}, state: "12 version 0"},
		phase{
			name: "it becomes leader", do: heights(15, 12), events: []event{on("node cannot be asked"), on("restarting the node in place"), on("version started", "version=0")},
			trace: []string{"exit v0 0 at 12", "asked v0 at 12", "start v0 stop=100"}, checkpoint: "0 running",
		},
	)
}

// A node that does not check its start height would make blocks when it is asked.
func TestNodeThatComesUpWhenAskedIsStopped(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: refuses("ignore")}, version{stop: 20}, version{})
	came := phase{
		name: "restart", do: start(), exit: exits(78), cause: "came_up",
		events: []event{on("stopping the node", "version=0", "reason~only to report its height")},
		trace:  []string{"asked v0, exit 0 at 3", "signal v0 terminated"},
		says:   []string{"version 0", "ran instead", "nothing of another version was started", `"ask": false`},
		stamp:  "0 to 10", state: "3 version 0",
	}
	c.run(
		phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "3 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}},
		came, came,
	)
	c.versions[0].keys = map[string]any{"ask": false}
	c.writeManager()
	c.run(phase{
		name: "it is not asked", do: start(), events: []event{on("node cannot be asked", "reason~the plan says so"), on("height known")}, trace: []string{"start v0 stop=10"},
	})
}

// No answer is no evidence: the next start asks again.
func TestNodeThatFailsWhenAskedChangesNothing(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10}, version{stop: 20}, version{})
	inV1(c)
	broken := func(n *mockrollup.Config) { n.Mock.PanicOnStart = "cannot reach the DA layer at da.example" }
	c.run(
		phase{
			name: "no DA", do: do(configure(1, broken), start()), exit: exits(101), trace: []string{"asked v1, exit 101 at 0"},
			says: []string{"version 1", "asked for its height", "exited 101"}, checkpoint: "1 running 0@10", stamp: "1 from 11 to 20",
		},
	)
	assert.Contains(t, c.lastLog, "cannot reach the DA layer at da.example", "the failure quotes what it wrote")
	c.run(phase{
		name: "restart", do: do(configure(1, func(n *mockrollup.Config) { n.Mock.PanicOnStart = "" }), start()), events: []event{on("height known")},
		trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running 0@10",
	})
}

// Another file in the place of the binary of a version that runs is a release that nobody has started yet.
func TestBinaryThatIsReplacedWhileItRunsIsNotStarted(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"rename", "symlink"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10, faults: leaderAt(5)}, version{})
			if how == "symlink" {
				require.NoError(t, os.Remove(c.binary(0)))
				require.NoError(t, os.Symlink(programs.nodes[0], c.binary(0)))
			}
			c.run(
				phase{name: "run", do: do(heights(3, 3), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "3 version 0"},
				phase{
					name: "replaced, and it becomes leader", do: do(func(c *chain) {
						if how == "rename" {
							replaced(0)(c)
							return
						}
						require.NoError(t, os.Symlink(programs.nodes[3], c.binary(0)+".new"))
						require.NoError(t, os.Rename(c.binary(0)+".new", c.binary(0)))
					}, heights(5, 3)),
					exit: exits(75), trace: []string{"exit v0 0 at 3"}, checkpoint: "0 running", stamp: "0 to 10",
					says: []string{"the binary of version 0", "was replaced during this run", "start again"},
				},
				phase{
					name: "restart", do: start(), events: []event{on("binary changed", "version=0"), on("height known")},
					trace: []string{"asked v0 at 3", "start v0 stop=10"},
				},
			)
		})
	}
}

// Heights decide nothing: a node that was stopped catches up in one leap, and nobody has read a height near its end.
func TestStoppedNodeThatCatchesUpInOneLeapCompletes(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 40}, version{migrates: true})
	c.run(
		phase{name: "run", do: do(heights(15, 15), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=40"}, state: "15 version 0"},
		phase{
			name: "stopped and continued", do: func(c *chain) {
				node := c.nodeProcess()
				require.NoError(t, syscall.Kill(node, syscall.SIGSTOP))
				c.da.set(45, 45)
				require.NoError(t, syscall.Kill(node, syscall.SIGCONT))
			},
			events: []event{on("version completed", "version=0", "proof=durable height"), on("height known", "version=1")},
			trace: []string{
				"exit v0 0 at 40", "asked v0 at 40", "start v1 migration", "exit v1 migration 0 at 40", "asked v1 at 40", "start v1 start=41",
			},
			state: "45 version 1 migrated@40",
		},
	)
}

func TestHeightsUnderAPrefixAndOnAnyAddressAreRead(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(c *chain){
		"api_path": func(c *chain) {
			c.versions[0].keys = map[string]any{"api_path": "/v1"}
			c.versions[0].node.Mock.APIPath = "/v1"
		},
		"bind_host ::": func(c *chain) { c.versions[0].node.Runner.HTTP.BindHost = "::" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{})
			change(c)
			c.writeConfig(0)
			c.writeManager()
			c.run(
				phase{
					name: "run", do: do(heights(7, 7), start()), events: []event{on("height known", "version=0", "height=7")}, trace: []string{"start v0 stop=10"},
				},
				phase{
					name: "to v1", do: heights(13, 13), events: []event{on("version completed", "version=0"), on("height known", "version=1")},
					trace: []string{"exit v0 0 at 10", "asked v0 at 10", "start v1 start=11"}, state: "13 version 0",
				},
			)
		})
	}
}

// A node that was killed while it committed may have left a state that it cannot repair: that is said, and starting again
// does no harm.
func TestDamagedStateIsSaidToBeDamaged(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	require.NoError(t, os.WriteFile(filepath.Join(c.state, "committing"), []byte("14\n"), 0o644))
	damaged := phase{
		name: "start", do: start(), exit: exits(101), trace: []string{"asked v1, exit 101 at 13"}, cause: "state_damaged",
		says:       []string{"version 1", "its state is damaged", "snapshot"},
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 damaged migrated@10",
	}
	c.run(damaged, damaged)
	c.saysNothingOf("checkpoint set")
}

// The stop height of a version may be passed on to its node with a question, in case it ignores the other one.
func TestQuestionHasTheStopHeightToo(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	inV1(c)
	c.run(phase{name: "restart", do: start(), events: []event{on("height known")}, trace: []string{"asked v1 at 13", "start v1 stop=20"}})
	entries, err := c.journal()
	require.NoError(t, err)
	nonces := map[string]bool{}
	for _, e := range entries {
		if e.Event == mockrollup.EventStart && isQuestion(e.Args) {
			assert.Regexp(t, `^start=\d+ stop=(10|20)$`, c.argsInWords(e.Args))
			nonces[fmt.Sprint(e.Args)] = true
		}
	}
	assert.Len(t, nonces, 2, "each has another start height")
}
