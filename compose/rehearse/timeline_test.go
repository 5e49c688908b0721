package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var epoch = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

// logged makes a timeline of lines such as `3.5 version started version=1 height=4`: seconds, the event and its keys. A
// line that begins with ! is what the rehearsal did, and one with > is the node's own.
func logged(t *testing.T, text string) *timeline {
	t.Helper()
	seen := newTimeline("replica-0")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		stamp, rest, _ := strings.Cut(line, " ")
		var seconds float64
		_, err := fmt.Sscan(stamp, &seconds)
		require.NoError(t, err, line)
		if own, did := strings.CutPrefix(rest, "!"); did {
			seen.add(event{Time: at(seconds), Name: own})
			continue
		}
		if own, plain := strings.CutPrefix(rest, ">"); plain {
			seen.line(at(seconds), own)
			continue
		}
		name, keys, _ := strings.Cut(rest, " :")
		json := fmt.Sprintf(`{"time":%q,"level":"INFO","msg":%q`, at(seconds).Format(time.RFC3339Nano), name)
		for _, key := range strings.Split(keys, " | ") {
			if key = strings.TrimSpace(key); key != "" {
				json += "," + key
			}
		}
		_, isEvent := seen.line(at(seconds), json+"}")
		require.True(t, isEvent, json+"}")
	}
	return seen
}

const configured = `
0 version configured :"version":0 | "name":"v0" | "binary":"/v0/rollup" | "start_height":0 | "stop_height":40
0 version configured :"version":1 | "name":"v1" | "binary":"/v1/rollup" | "start_height":41 | "stop_height":0
`

func TestPlanIsReadFromTheLog(t *testing.T) {
	stop := uint64(40)
	require.Equal(t, []versionReport{
		{Version: 0, Name: "v0", Binary: "/v0/rollup", StopHeight: &stop},
		{Version: 1, Name: "v1", Binary: "/v1/rollup", StartHeight: 41},
	}, logged(t, configured+configured).plan())
}

func TestDowntimeIsFromTheFirstExitToTheNextVersionsHeight(t *testing.T) {
	seen := logged(t, configured+`
1 version started :"version":0
2 height known :"version":0 | "height":3
10 version exited :"version":0 | "exit":"exited 0"
10.4 height confirmed :"version":0 | "height":40
10.4 version completed :"version":0 | "height":40
10.5 migration started :"version":1
12.5 migration finished :"version":1 | "exit_code":0
12.75 version started :"version":1
13.5 height known :"version":1 | "height":40
`)
	upgrades := seen.upgrades()
	require.Len(t, upgrades, 1)
	require.Equal(t, at(10), upgrades[0].At)
	require.InDelta(t, 2.75, upgrades[0].HandOverSeconds, 0.001)
	require.InDelta(t, 3.5, *upgrades[0].DowntimeSeconds, 0.001)
	require.Equal(t, map[int]span{0: {3, 40}, 1: {40, 40}}, seen.heights)
}

func TestNodeThatIsRestartedInPlaceWasNotDownUntilTheUpgrade(t *testing.T) {
	upgrades := logged(t, configured+`
1 version started :"version":0
2 height known :"version":0 | "height":3
5 version exited :"version":0 | "exit":"exited 0"
5.1 height confirmed :"version":0 | "height":31
5.1 restarting the node in place :"version":0 | "restarts":1
5.1 version started :"version":0
5.5 height known :"version":0 | "height":33
10 version exited :"version":0 | "exit":"exited 0"
10.5 version started :"version":1
`).upgrades()
	require.Len(t, upgrades, 1)
	require.InDelta(t, 0.5, upgrades[0].HandOverSeconds, 0.001)
	require.Nil(t, upgrades[0].DowntimeSeconds, "no height yet")
}

func TestDowntimeOfAKilledNodeBeginsWithTheKill(t *testing.T) {
	seen := logged(t, configured+`
1 version started :"version":0
2 height known :"version":0 | "height":3
10 !rehearsal: killed
11 version configured :"version":0
11.5 height confirmed :"version":0 | "height":40
12 version started :"version":1
13 height known :"version":1 | "height":40
`)
	require.InDelta(t, 2, seen.upgrades()[0].HandOverSeconds, 0.001)
	require.Equal(t, []restartReport{{At: at(11), Cause: "SIGKILL by the rehearsal", Expected: true}}, seen.restarts())
	require.Nil(t, seen.trouble())
}

func TestVersionWithoutAHeightHasNoDowntime(t *testing.T) {
	upgrades := logged(t, `
1 version started :"version":0
2 version exited :"version":0
3 version started :"version":1
4 version exited :"version":1
5 version started :"version":2
6 height known :"version":2 | "height":80
`).upgrades()
	require.Len(t, upgrades, 2)
	require.Nil(t, upgrades[0].DowntimeSeconds)
	require.InDelta(t, 4, *upgrades[1].DowntimeSeconds, 0.001, "the node was down all that time")
}

func TestVersionThatWasCompleteBeforeItsHeightWasReadWasReached(t *testing.T) {
	seen := logged(t, configured+`
1 version completed :"version":0 | "height":40
6 height known :"version":2 | "height":80
`)
	require.True(t, seen.reached(1))
	require.True(t, seen.reached(2))
	require.False(t, seen.reached(3))
}

func TestLogThatComesLateIsPutInOrder(t *testing.T) {
	seen := newTimeline("a")
	seen.add(event{Time: at(5), Name: didKill})
	seen.add(event{Time: at(1), Name: "version configured", Version: new(int)})
	seen.add(event{Time: at(6), Name: "version configured", Version: new(int)})
	require.Equal(t, []restartReport{{At: at(6), Cause: "SIGKILL by the rehearsal", Expected: true}}, seen.restarts())
}

func TestKillBeforeTheFirstWordOfARunEndsThatRun(t *testing.T) {
	require.Equal(t, []restartReport{
		{At: at(4), Cause: "SIGTERM by the rehearsal", Expected: true},
		{At: at(5), Cause: "SIGKILL by the rehearsal", Expected: true},
	}, logged(t, configured+`
2 !rehearsal: stopped
3 !rehearsal: killed
4 version configured :"version":0
5 version configured :"version":0
`).restarts())
}

func TestRestartsSayWhatEndedTheRunBefore(t *testing.T) {
	restarts := logged(t, configured+`
1 >Exiting to restart as leader height=12
1.1 run failed :"exit_code":75 | "error":"version 0: the node exited 0 again and again; safe; next"
2 version configured :"version":0
3 run failed :"exit_code":75 | "error":"version 0: another reason; safe; next"
6 version configured :"version":0
7 !rehearsal: stopped
8 version configured :"version":0
9 run failed :"exit_code":101 | "error":"version 0: the node exited 101; safe; next"
10 version configured :"version":0
11 version configured :"version":0
`).restarts()
	require.Equal(t, []restartReport{
		{At: at(2), Cause: "the node became leader", Expected: true},
		{At: at(6), Cause: "exited 75: version 0: another reason", Expected: true},
		{At: at(8), Cause: "SIGTERM by the rehearsal", Expected: true},
		{At: at(10), Cause: "exited 101: version 0: the node exited 101"},
		{At: at(11), Cause: "the container ended silently"},
	}, restarts)
}

func TestFailureNamesTheCauseAndQuotesTheLogBeforeIt(t *testing.T) {
	seen := logged(t, configured+`
1 version started :"version":1
1.5 >something of the node
2 run failed :"exit_code":101 | "version":1 | "height":40 | "error":"version 1: the node exited 101; safe; next" | "stderr":"thread 'main' panicked\nError: the state was not migrated\nnote: run with RUST_BACKTRACE=1"
3 >after that
`)
	f := seen.trouble()
	require.Equal(t, "replica-0: exited 101: version 1: the node exited 101: the state was not migrated", f.Sentence)
	require.Equal(t, 101, *f.ExitCode)
	require.Equal(t, 1, *f.Version)
	require.Equal(t, uint64(40), *f.Height)
	require.Contains(t, f.Log[len(f.Log)-1], "run failed")
	require.Equal(t, "something of the node", f.Log[len(f.Log)-2])
}

func TestRunThatFailsAfterAStopIsAFailure(t *testing.T) {
	require.NotNil(t, logged(t, configured+`
1 !rehearsal: stopped
2 run failed :"exit_code":137 | "error":"x"`).trouble())
	require.Nil(t, logged(t, configured+`
1 !rehearsal: stopped
2 run failed :"exit_code":75 | "error":"x"`).trouble())
}

func TestContainerThatEndsWithoutAWordIsAFailure(t *testing.T) {
	seen := logged(t, configured)
	code := 137
	seen.add(event{Time: at(4), Name: endedMutely, ExitCode: &code, Error: "its container is exited (exit code 137)"})
	require.Equal(t, "replica-0: its container is exited (exit code 137)", seen.trouble().Sentence)
}

func TestCauseIsTheLineThatSaysWhy(t *testing.T) {
	for stderr, want := range map[string]string{
		"": "",
		"thread 'main' panicked\nError: no state\nnote: run":                        "no state",
		"rollup-db-migration failed: the state is half migrated to state_version 1": "the state is half migrated to state_version 1",
		"one\n\x1b[1;31mError:\x1b[0m \x1b[1mcoloured\x1b[0m\nnote: x":              "coloured",
		"one\ntwo\n\nnote: three":                                                   "two",
	} {
		require.Equal(t, want, cause(stderr), stderr)
	}
}

func TestLogIsBounded(t *testing.T) {
	seen := newTimeline("a")
	for i := range 3 * linesKept {
		seen.line(at(0), fmt.Sprint(i))
	}
	require.LessOrEqual(t, len(seen.lines), linesKept)
	require.Equal(t, fmt.Sprint(3*linesKept-1), seen.lines[len(seen.lines)-1])
	require.Len(t, seen.tail(time.Time{}), linesQuoted)
}
