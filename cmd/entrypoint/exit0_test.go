package main_test

import (
	"fmt"
	"syscall"
	"testing"

	"rollup-entrypoint/internal/mockrollup"
)

// Exit 0 has three meanings: complete, stopped, and "start me again": a replica that has become leader.

func leaderAt(height uint64) func(*mockrollup.Mock) {
	return func(m *mockrollup.Mock) { m.Role, m.LeaderRestartAt = "replica", height }
}

// mute is a node that tells no height itself, so that the test decides what is read: see told.
func mute(faults func(*mockrollup.Mock)) func(*mockrollup.Mock) {
	return func(m *mockrollup.Mock) { faults(m); m.HTTP = "off" }
}

// told has the node that was just started tell height n times. The first n-1 readings have arrived for certain then.
func told(height, n uint64) func(*chain) {
	return func(c *chain) {
		c.t.Helper()
		c.awaitEvent(on("version started"))
		s := serveHeights(c, height)
		c.awaitEvent(on("height known", fmt.Sprintf("height=%d", height)))
		c.await("the height to be read", func() bool { return s.asked.Load() >= n })
		s.close()
	}
}

func TestLeaderRestartFarBelowTheStopHeightIsLeftToTheOrchestrator(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 100, faults: mute(leaderAt(20))}, version{migrates: true})
	c.run(
		phase{name: "run", do: do(heights(15, 15), start(), told(15, 3)), trace: []string{"start v0 stop=100"}},
		phase{
			name: "it becomes leader", do: heights(21, 15), exit: exits(75), trace: []string{"exit v0 0 at 15"},
			says:       []string{"version 0: the node exited 0 before its stop height 100", "nothing of a later version was started", "start again"},
			checkpoint: "0 running started", state: "15 version 0",
		},
		phase{
			name: "the orchestrator starts it again", do: do(heights(103, 103), start()), events: []event{on("height known", "version=1")},
			trace: []string{
				"start v0 stop=100", "exit v0 0 at 100", "start v0 stop=100", "exit v0 101 at 100",
				"start v1 migration", "exit v1 migration 0 at 100", "start v1 start=101",
			},
			state: "103 version 1 migrated@100",
		},
	)
}

func TestLeaderRestartNearTheStopHeightIsVerifiedAndRunsOn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		restart  uint64
		migrates bool
	}{{8, false}, {8, true}, {9, false}, {9, true}} {
		t.Run(fmt.Sprintf("at %d migrates=%v", test.restart, test.migrates), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10, faults: leaderAt(test.restart)}, version{migrates: test.migrates})
			last := []string{"exit v0 0 at 10", "?start v0 stop=10", "?exit v0 101 at 10", "start v1 start=11"}
			state := "12 version 0"
			if test.migrates {
				state = "12 version 1 migrated@10"
				last = []string{
					"exit v0 0 at 10", "start v0 stop=10", "exit v0 101 at 10", "start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11",
				}
			}
			c.run(
				phase{name: "run", do: do(heights(7, 6), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
				phase{
					name: "it becomes leader", do: heights(test.restart, 6),
					events: []event{on("version exited", "decision=verify"), on("height known", "version=0")},
					trace:  []string{"exit v0 0 at 6", "start v0 stop=10"}, state: "6 version 0",
				},
				phase{
					name: "complete", do: heights(12, 12), events: []event{on("height known", "version=1")}, trace: last, state: state,
					orchestrated: true,
				},
			)
		})
	}
}

// The node is at its stop height, exits 0, and the height is not committed: the one case in which the height that was
// read last deceives.
func TestLeaderRestartAtTheStopHeightIsNoCompletionWhereAMigrationFollows(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: leaderAt(10)}, version{stop: 20, migrates: true}, version{})
	c.run(
		phase{name: "run", do: do(heights(9, 8), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "it becomes leader", do: heights(10, 8),
			events: []event{on("version exited", "decision=verify"), on("height known", "version=0")},
			trace:  []string{"exit v0 0 at 8", "start v0 stop=10"}, checkpoint: "0 running started", state: "8 version 0",
		},
		phase{
			name: "final", do: heights(13, 13), orchestrated: true, events: []event{on("height known", "version=1")},
			trace: []string{
				"exit v0 0 at 10", "start v0 stop=10", "exit v0 101 at 10", "start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11 stop=20",
			},
			checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		},
	)
}

// deceived has v0 exit 0 at soft height 10 and durable height 8, after height 10 was read for certain.
func deceived() phase {
	return phase{
		name:  "height 10 is read",
		do:    do(heights(9, 8), start(), told(10, 1)),
		trace: []string{"start v0 stop=10"}, checkpoint: "0 running started", state: "8 version 0",
	}
}

func TestLeaderRestartAtTheStopHeightIsHealedByTheNextVersion(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: mute(leaderAt(10))}, version{stop: 20}, version{})
	c.run(
		deceived(),
		phase{
			name: "it becomes leader", do: heights(10, 8),
			events: []event{
				on("version exited", "version=0", "decision=complete"), on("version completed", "version=0", "proof=last height read"),
				on("version exited", "version=1", "decision=finish the previous version", "reason~the state is at height 8"),
				on("previous version was not complete", "version=0", "height=8"),
			},
			trace: []string{"exit v0 0 at 8", "start v1 start=11 stop=20", "exit v1 101 at 8", "start v0 stop=10"},
			// The checkpoint never goes back.
			checkpoint: "1 finishing_previous", state: "8 version 0",
		},
		phase{
			name: "killed there", do: send(syscall.SIGKILL), exit: exits(137), checkpoint: "1 finishing_previous",
		},
		phase{
			name: "restart", do: start(), events: []event{on("previous version runs on", "version=0", "stop_height=10"), on("version started", "version=0")},
			trace: []string{"start v0 stop=10"}, state: "8 version 0",
		},
		phase{
			name: "final", do: heights(13, 13), orchestrated: true, events: []event{on("height known", "version=1")},
			trace:      []string{"exit v0 0 at 10", "start v0 stop=10", "exit v0 101 at 10", "start v1 start=11 stop=20"},
			checkpoint: "1 running started 0@10", state: "13 version 0",
		},
	)
}

func TestHeightReadAtTheStopHeightIsNoProofWhereAMigrationFollows(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: mute(leaderAt(10))}, version{stop: 20, migrates: true}, version{})
	c.run(
		deceived(),
		phase{
			name: "it becomes leader", do: heights(10, 8),
			events: []event{on("version exited", "decision=verify"), on("version started", "version=0")},
			trace:  []string{"exit v0 0 at 8", "start v0 stop=10"}, checkpoint: "0 running started", state: "8 version 0",
		},
		phase{
			name: "final", do: heights(13, 13), orchestrated: true, events: []event{on("height known", "version=1")},
			trace: []string{
				"exit v0 0 at 10", "start v0 stop=10", "exit v0 101 at 10", "start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11 stop=20",
			},
			checkpoint: "1 running started migrated 0@10", state: "13 version 1 migrated@10",
		},
	)
}

func TestExitFarBelowTheStopHeightFailsEachTime(t *testing.T) {
	t.Parallel()
	early := mute(func(m *mockrollup.Mock) { m.ExitEarlyAt = 20 })
	c := newChain(t, version{stop: 100, faults: early}, version{})
	failed := phase{
		name: "early exit", do: heights(20, 15), exit: exits(75), trace: []string{"exit v0 0 at 15"},
		says:       []string{"before its stop height 100", "last height read: 15"},
		checkpoint: "0 running started", state: "15 version 0",
	}
	again := phase{name: "run", do: do(heights(15, 15), start(), told(15, 3)), trace: []string{"start v0 stop=100"}}
	c.run(again, failed, again, failed)
}

// One reading makes no rate: a resync of which only the first height was seen may well be complete.
func TestResyncWithOneReadingIsVerified(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 200, faults: mute(func(m *mockrollup.Mock) { m.ResyncRate = 1_000_000 })}, version{migrates: true})
	c.run(phase{
		name: "resync", do: do(start(), toldOnce(1), heights(203, 203)),
		events: []event{on("version exited", "decision=verify", "reason~last height read: 1,"), on("height known", "version=1")},
		trace: []string{
			"start v0 stop=200", "exit v0 0 at 200", "start v0 stop=200", "exit v0 101 at 200",
			"start v1 migration", "exit v1 migration 0 at 200", "start v1 start=201",
		},
		state: "203 version 1 migrated@200",
	})
}

// toldOnce has the node that was just started tell height once, and no more.
func toldOnce(height uint64) func(*chain) {
	return func(c *chain) {
		c.t.Helper()
		c.awaitEvent(on("version started"))
		s := serveHeights(c, height)
		s.once.Store(true)
		c.awaitEvent(on("height known", fmt.Sprintf("height=%d", height)))
		s.close()
	}
}

// Without a height nobody knows whether there is progress. Verifications would never end.
func TestEarlyExitWithoutAHeightIsVerifiedThreeTimes(t *testing.T) {
	t.Parallel()
	early := func(m *mockrollup.Mock) { m.ExitEarlyAt, m.HTTP = 5, "off" }
	newChain(t, version{stop: 100, faults: early}, version{}).run(phase{
		name: "run", do: do(heights(5, 0), start()), exit: exits(75),
		events: []event{on("verifying the stop height"), on("version exited", "decision=verify")},
		trace: []string{
			"start v0 stop=100", "exit v0 0 at 0", "start v0 stop=100", "exit v0 0 at 0",
			"start v0 stop=100", "exit v0 0 at 0", "start v0 stop=100", "exit v0 0 at 0",
		},
		says: []string{"again without progress"}, checkpoint: "0 running started",
	})
}

func TestExitZeroWithoutAStopHeightFails(t *testing.T) {
	t.Parallel()
	early := func(m *mockrollup.Mock) { m.ExitEarlyAt = 5 }
	newChain(t, version{faults: early}).run(phase{
		name: "run", do: do(heights(5, 3), start()), exit: exits(75), trace: []string{"start v0", "exit v0 0 at 0"},
		says: []string{"exited 0 although it has no stop height"}, checkpoint: "0 running started",
	})
}

func TestNodePastItsStopHeightIsStopped(t *testing.T) {
	t.Parallel()
	overrun := func(m *mockrollup.Mock) { m.Overrun = true }
	c := newChain(t, version{stop: 10, faults: overrun}, version{migrates: true})
	c.run(
		phase{name: "run", do: do(heights(9, 9), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "past the stop height", do: heights(12, 9), exit: exits(78),
			events:     []event{on("stopping the node", "reason~ran past its stop height 10, to height 12")},
			trace:      []string{"signal v0 terminated", "exit v0 0 at 9"},
			says:       []string{"version 0 ran past its stop height 10, to height 12", "no later version was started"},
			checkpoint: "0 running started", state: "9 version 0",
		},
	)
}

// The reference's literal rule, for those who ask for it: nothing is verified.
func TestHeightSlackCompletesWithoutVerification(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "run", do: do(heights(7, 7), start("--height-slack", "5")), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "complete", do: heights(10, 10),
			events:     []event{on("version completed", "proof=height slack"), on("height known", "version=1")},
			trace:      []string{"exit v0 0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "start v1 start=11 stop=20"},
			checkpoint: "1 running started migrated 0@10", state: "10 version 1 migrated@10",
		},
	)
}

func TestHeightSlackTakesAnEarlyExitForCompletion(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: leaderAt(8)}, version{stop: 20}, version{})
	c.run(
		phase{name: "run", do: do(heights(7, 7), start("--height-slack", "5")), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "it becomes leader", do: heights(8, 7),
			events: []event{
				on("version completed", "proof=height slack"), on("version started", "version=1", "asserts_start_height=true"),
				on("previous version was not complete", "height=7"),
			},
			trace:      []string{"exit v0 0 at 7", "start v1 start=11 stop=20", "exit v1 101 at 7", "start v0 stop=10"},
			checkpoint: "1 finishing_previous", state: "7 version 0",
		},
		phase{
			name: "v0 runs on", do: heights(13, 13), events: []event{on("height known", "version=1")},
			trace: []string{"exit v0 0 at 10", "start v0 stop=10", "exit v0 101 at 10", "start v1 start=11 stop=20"},
			state: "13 version 0",
		},
	)
}

// With a migration that rule destroys the state, as it does in the reference. Here the next version's start finds out.
func TestHeightSlackBeforeAMigrationIsNotTakenOnTrustByTheNextVersion(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 10, faults: leaderAt(8)}, version{stop: 20, migrates: true}, version{})
	c.run(
		phase{name: "run", do: do(heights(7, 7), start("--height-slack", "5")), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}},
		phase{
			name: "it becomes leader", do: heights(8, 7), exit: exits(78),
			trace: []string{
				"exit v0 0 at 7", "start v1 migration", "exit v1 migration 0 at 7", "start v1 start=11 stop=20", "exit v1 101 at 7",
			},
			says:       []string{"the state is at height 7", "start_height 11"},
			checkpoint: "1 running migrated 0@10", state: "7 version 1 migrated@7",
		},
	)
}

func TestEmptyDASlotsDoNotAdvanceTheHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(
		phase{name: "run", do: do(heights(9, 9), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "9 version 0"},
		phase{name: "nothing happens", checkpoint: "0 running started", state: "9 version 0"},
		phase{
			name: "the block comes", do: heights(10, 10), events: []event{on("height known", "version=1")},
			trace: upgraded[1:], state: "10 version 1 migrated@10",
		},
	)
}
