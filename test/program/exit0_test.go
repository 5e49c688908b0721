package program

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"rollup-entrypoint/internal/mockrollup"
)

// Exit 0 has three meanings: complete, stopped, and "start me again": a replica that has become leader. Which one it is
// the node says when it is asked.

func leaderAt(height uint64) func(*mockrollup.Mock) {
	return func(m *mockrollup.Mock) { m.Role, m.LeaderRestartAt = "replica", height }
}

// toV1 is the rest of the trace of a chain of plainChain or migratingChain, from the exit of v0 at its stop height.
func toV1(migrates bool) []string {
	if migrates {
		return upgraded[1:]
	}
	return []string{"exit v0 0 at 10", "asked v0 at 10", "start v1 start=11 stop=20"}
}

func TestLeaderIsRestartedInPlaceAndContinues(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		restart, durable uint64
		migrates         bool
	}{{3, 2, false}, {3, 2, true}, {9, 6, false}, {9, 6, true}, {10, 8, false}, {10, 8, true}} {
		t.Run(fmt.Sprintf("at %d migrates=%v", test.restart, test.migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10, faults: leaderAt(test.restart)}, version{stop: 20, migrates: test.migrates}, version{})
			c.run(
				phase{
					name: "run", do: do(heights(test.durable, test.durable), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"},
					state: fmt.Sprintf("%d version 0", test.durable),
				},
				phase{
					name: "it becomes leader", do: heights(test.restart, test.durable),
					events: []event{
						on("version exited", "stop_requested=false"), on("height confirmed", "version=0", fmt.Sprintf("height=%d", test.durable)),
						on("restarting the node in place", "version=0", "restarts=1"), on("version started", "version=0", "asserts_start_height=false"),
					},
					trace:      []string{fmt.Sprintf("exit v0 0 at %d", test.durable), fmt.Sprintf("asked v0 at %d", test.durable), "start v0 stop=10"},
					checkpoint: "0 running", stamp: "0 to 10", state: fmt.Sprintf("%d version 0", test.durable),
				},
				phase{
					name: "complete", do: heights(13, 13),
					events: []event{on("version completed", "version=0", "proof=durable height"), on("height known", "version=1")},
					trace:  toV1(test.migrates), checkpoint: "1 running ?migrated 0@10",
				},
			)
		})
	}
}

// The height that the node reports is soft-confirmed: at its stop height there it may be killed, and nothing is lost.
func TestLeaderRestartAtTheStopHeightSurvivesAKill(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: leaderAt(10)}, version{stop: 20}, version{})
	c.run(
		phase{name: "run", do: do(heights(9, 8), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "8 version 0"},
		phase{
			name: "it becomes leader", do: heights(10, 8), events: []event{on("restarting the node in place", "version=0")},
			trace: []string{"exit v0 0 at 8", "asked v0 at 8", "start v0 stop=10"}, checkpoint: "0 running", state: "8 version 0",
		},
		phase{
			name: "killed there", do: send(syscall.SIGKILL), exit: exits(137), checkpoint: "0 running", stamp: "0 to 10",
			trace: []string{"?signal v0 terminated", "?exit v0 0 at 8"},
		},
		phase{
			name: "restart", do: start(), events: []event{on("height confirmed", "height=8"), on("version started", "version=0")},
			trace: []string{"asked v0 at 8", "start v0 stop=10"}, state: "8 version 0",
		},
		phase{
			name: "complete", do: heights(13, 13), events: []event{on("height known", "version=1")},
			trace: toV1(false), checkpoint: "1 running 0@10", state: "13 version 0",
		},
	)
}

// A replica may win the leadership before it has looked at any height: it has confirmed nothing then.
func TestExitBeforeTheHeightCheckKeepsTheStartHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 20}, version{faults: func(m *mockrollup.Mock) { m.Role, m.LeaderExitAtStart = "replica", 2 }})
	c.run(phase{
		name: "v1 exits 0 twice", do: do(heights(25, 25), start()),
		events: []event{
			on("version started", "version=1", "asserts_start_height=true"), on("version exited", "version=1"),
			on("restarting the node in place", "version=1"), on("height confirmed", "version=1", "height=20"),
			on("version started", "version=1", "asserts_start_height=true"), on("height known", "version=1"),
		},
		trace: []string{
			"start v0 stop=20", "exit v0 0 at 20", "asked v0 at 20",
			"start v1 start=21", "exit v1 0 at 20", "asked v1, exit 0 at 20", "asked v1 at 20", "start v1 start=21",
		},
		checkpoint: "1 running 0@20", state: "25 version 0",
	})
}

// v0 exits 0 with its stop height reported but not committed, and v1 would exit 0 before it looks at a height: the life in
// which v1 once made the last blocks of v0.
func TestNextVersionMakesNoBlocksOfTheOneBefore(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 20, faults: leaderAt(20)}, version{stop: 30, faults: func(m *mockrollup.Mock) { m.LeaderExitAtStart = 1 }})
	c.run(
		phase{name: "run", do: do(heights(19, 17), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=20"}, state: "17 version 0"},
		phase{
			name: "it becomes leader", do: heights(20, 17), events: []event{on("restarting the node in place", "version=0")},
			trace: []string{"exit v0 0 at 17", "asked v0 at 17", "start v0 stop=20"}, stamp: "0 to 20", state: "17 version 0",
		},
		phase{
			name: "to the end", do: heights(33, 33), exit: exits(0), events: []event{on("sequence finished")},
			trace: []string{
				"exit v0 0 at 20", "asked v0 at 20", "start v1 start=21 stop=30", "exit v1 0 at 20", "asked v1 at 20",
				"start v1 start=21 stop=30", "exit v1 0 at 30", "asked v1 at 30",
			},
			checkpoint: "1 finished 0@20 1@30", state: "30 version 0",
		},
	)
	c.expectBlocks(segment{"v0", 20}, segment{"v1", 30})
}

// segment says which version made the blocks up to which height.
type segment struct {
	by string
	to uint64
}

// expectBlocks compares who made which blocks.
func (c *chain) expectBlocks(want ...segment) {
	c.t.Helper()
	state, err := mockrollup.ReadState(c.state)
	if err != nil {
		c.fatalf("%s", err)
	}
	var have []segment
	for _, s := range state.History {
		have = append(have, segment{s.By, s.To})
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		c.fatalf("blocks were made by %v, want %v", have, want)
	}
}

func TestNodeThatExitsZeroAgainAndAgainIsLeftToTheOrchestrator(t *testing.T) {
	t.Parallel()
	early := func(m *mockrollup.Mock) { m.ExitEarlyAt = 20 }
	c := newChain(t, version{stop: 100, faults: early}, version{})
	once := []string{"exit v0 0 at 15", "asked v0 at 15"}
	again := append([]string{"start v0 stop=100"}, once...)
	failed := phase{
		name: "restarted twice", do: heights(20, 15), exit: exits(75), trace: slices.Concat(once, again, again), cause: "early_exits",
		says:       []string{"version 0", "exited 0", "2 times", "nothing of a later version was started", "start again"},
		checkpoint: "0 running", stamp: "0 to 100", state: "15 version 0",
	}
	running := phase{name: "run", do: do(heights(15, 15), start("--restarts=2")), trace: []string{"start v0 stop=100"}, state: "15 version 0"}
	c.run(running, failed)
	running.trace = []string{"asked v0 at 15", "start v0 stop=100"}
	c.run(running, failed)
}

func TestNoRestartInPlaceWhereNoneIsAllowed(t *testing.T) {
	t.Parallel()
	newChain(t, version{stop: 100, faults: leaderAt(5)}, version{}).run(
		phase{name: "run", do: do(heights(3, 3), start("--restarts=0")), trace: []string{"start v0 stop=100"}, state: "3 version 0"},
		phase{
			name: "it becomes leader", do: heights(5, 3), exit: exits(75), trace: []string{"exit v0 0 at 3", "asked v0 at 3"},
			cause: "early_exits", checkpoint: "0 running",
		},
	)
}

func TestExitZeroWithoutAStopHeightIsARestartInPlace(t *testing.T) {
	t.Parallel()
	newChain(t, version{faults: leaderAt(5)}).run(
		phase{name: "run", do: do(heights(3, 3), start()), trace: []string{"start v0"}, state: "3 version 0"},
		phase{
			name: "it becomes leader", do: heights(5, 3), events: []event{on("restarting the node in place"), on("height known", "version=0")},
			trace: []string{"exit v0 0 at 3", "asked v0 at 3", "start v0"}, checkpoint: "0 running", stamp: "0",
		},
	)
}

// A soft height above the stop height is an alarm. The durable one decides what becomes of it.
func TestNodePastItsStopHeightIsStopped(t *testing.T) {
	t.Parallel()
	overrun := func(m *mockrollup.Mock) { m.Overrun = true }
	c := newChain(t, version{stop: 10, faults: overrun}, version{migrates: true})
	c.run(
		phase{name: "run", do: do(heights(9, 9), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "9 version 0"},
		phase{
			name: "past the stop height, soft", do: heights(12, 9),
			events: []event{
				on("stopping the node", "reason~height 12, above its stop height 10"), on("height confirmed", "height=9"),
				on("restarting the node in place", "version=0"), on("version started", "version=0"),
				on("stopping the node", "reason~height 12, above its stop height 10"),
			},
			trace:      []string{"signal v0 terminated", "exit v0 0 at 9", "asked v0 at 9", "start v0 stop=10", anything},
			checkpoint: "0 running", stamp: "0 to 10", state: "9 version 0",
		},
		phase{
			name: "past it, committed", do: heights(12, 12), exit: exits(78), trace: []string{anything}, cause: "overrun",
			says:       []string{"ran past it", "at height 12", "no later version was started", "made by the wrong version"},
			allows:     []string{"stopping the node"},
			checkpoint: "0 running", stamp: "0 to 10", state: "12 version 0",
		},
		phase{
			name: "again", do: start(), exit: exits(78), trace: []string{"asked v0 at 12"}, cause: "overrun",
			says: []string{"ran past it", "made by the wrong version"}, checkpoint: "0 running", stamp: "0 to 10", state: "12 version 0",
		},
	)
	c.saysNothingOf("checkpoint set")
}

// The reference's rule is for nodes that cannot be asked; see asking_test.go.
func TestHeightSlackMeansNothingForANodeThatCanBeAsked(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: leaderAt(8)}, version{stop: 20, migrates: true}, version{})
	c.run(
		phase{
			name: "run", do: do(heights(7, 7), start("--height-slack", "5")), events: []event{on("height known")}, trace: []string{"start v0 stop=10"},
			state: "7 version 0",
		},
		phase{
			name: "it becomes leader", do: heights(8, 7), events: []event{on("restarting the node in place")},
			trace: []string{"exit v0 0 at 7", "asked v0 at 7", "start v0 stop=10"}, checkpoint: "0 running", state: "7 version 0",
		},
		phase{
			name: "complete", do: heights(13, 13), events: []event{on("height known", "version=1")}, trace: upgraded[1:],
			checkpoint: "1 running migrated 0@10", state: "13 version 1 migrated@10",
		},
	)
}

func TestEmptyDASlotsDoNotAdvanceTheHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "run", do: do(heights(9, 9), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "9 version 0"},
		phase{name: "nothing happens", checkpoint: "0 running", state: "9 version 0"},
		phase{
			name: "the block comes", do: heights(10, 10), events: []event{on("height known", "version=1")},
			trace: upgraded[1:], state: "10 version 1 migrated@10",
		},
	)
}
