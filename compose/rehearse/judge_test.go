package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rehearsalOf is one of nodes that nobody has started.
func rehearsalOf(nodes ...*node) *rehearsal {
	r := newRehearsal(&network{nodes: nodes, stall: time.Millisecond}, settings{}, &report{}, io.Discard)
	r.versions = threeVersions()
	return r
}

func failedNode(t *testing.T, service string) *node {
	t.Helper()
	n := newNode(service, ports{})
	_, isEvent := n.seen.line(epoch, `{"time":"2026-05-04T12:00:00Z","msg":"run failed","version":1,"exit_code":101,"error":"version 1: the node exited 101; safe"}`)
	require.True(t, isEvent)
	return n
}

// A node may fail after nobody waits for it any more, or without having been touched.
func TestStepWithANodeThatFailedUnnoticedHasNotPassed(t *testing.T) {
	healthy, broken := newNode("a", ports{}), failedNode(t, "b")
	r := rehearsalOf(healthy, broken)
	s := r.step(stepLive)
	require.NoError(t, r.settle(t.Context(), s, nil, []*node{healthy}))
	require.Equal(t, passed, s.Result)
	s = r.step(stepResync)
	require.NoError(t, r.settle(t.Context(), s, nil, []*node{healthy, broken}))
	require.Equal(t, failed, s.Result)
	require.Equal(t, "b: exited 101: version 1: the node exited 101", s.Failures[0].Sentence)
}

func TestNodeWhoseStateIsDamagedIsCountedApartFromOtherFailures(t *testing.T) {
	healthy, broken, damaged := newNode("a", ports{}), failedNode(t, "b"), newNode("c", ports{})
	damaged.seen = logged(t, configured+`
1 !rehearsal: killed
2 version configured :"version":0
3 run failed :"version":0 | "exit_code":101 | "cause":"state_damaged" | "error":"version 0: its node exited 101; safe" | "stderr":"Error: Fix didn't help"
4 version configured :"version":0
5 run failed :"version":0 | "exit_code":101 | "cause":"state_damaged" | "error":"version 0: its node exited 101; safe"
`)
	damaged.seen.node = "c"
	r := rehearsalOf(healthy, broken, damaged)
	s := r.step(stepResync)
	require.NoError(t, r.settle(t.Context(), s, nil, r.nodes))
	require.Equal(t, failed, s.Result)
	require.Equal(t, []damageReport{{Node: "c", Version: number(0), Killed: true}}, s.Damaged, "once, however often it was started again")
	require.Len(t, s.Failures, 2)
	require.Equal(t, "c: its state is damaged after a SIGKILL by the rehearsal: exited 101: version 0: its node exited 101: Fix didn't help",
		s.Failures[1].Sentence)
}

func TestDamageIsNotBlamedOnAKillThatCameLaterOrNever(t *testing.T) {
	for text, killed := range map[string]bool{
		``: false,
		`1 run failed :"exit_code":137 | "error":"the node was killed"`: true,
		`1 run failed :"exit_code":101 | "error":"a panic"`:             false,
		`1 !rehearsal: stopped`:                                         false,
		`9 !rehearsal: killed`:                                          false,
	} {
		seen := logged(t, text+"\n"+`5 run failed :"exit_code":101 | "cause":"state_damaged" | "error":"x"`)
		require.Equal(t, killed, seen.damage().Killed, text)
	}
	require.Nil(t, logged(t, `1 run failed :"exit_code":101 | "error":"a panic"`).damage())
}

func TestStepThatWasCutShortHasNotPassed(t *testing.T) {
	r := rehearsalOf(newNode("a", ports{}))
	over, cancel := context.WithCancelCause(t.Context())
	cancel(errTimeout)
	s := r.step(stepSnapshot)
	require.NoError(t, r.settle(over, s, nil, r.nodes))
	require.Equal(t, failed, s.Result)
	require.Equal(t, "--timeout was exceeded, before everything was compared", s.Failures[0].Sentence)

	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(nil)
	s = r.step(stepLate)
	require.Error(t, r.settle(interrupted, s, nil, r.nodes))
	require.Equal(t, notReached, s.Result)
}

// ledger is the API of a node that reports the roots of some slots.
func ledger(t *testing.T, service string, roots map[uint64]string) *node {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slot, err := strconv.ParseUint(strings.TrimPrefix(r.URL.Path, "/ledger/slots/"), 10, 64)
		root, found := roots[slot]
		if err != nil || !found {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"number": slot, "state_root": root})
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	port, err := strconv.Atoi(at.Port())
	require.NoError(t, err)
	n := newNode(service, ports{api: port})
	n.highest = 90
	n.heights.learn(90, 90)
	return n
}

func chainOf(last uint64, changed ...uint64) map[uint64]string {
	roots := map[uint64]string{}
	for slot := uint64(1); slot <= last; slot++ {
		roots[slot] = "root"
	}
	for _, slot := range changed {
		roots[slot] = "other"
	}
	return roots
}

func TestRootThatIsNotReportedAtAStopHeightIsAFailure(t *testing.T) {
	silent := chainOf(90)
	delete(silent, 41)
	r := rehearsalOf(ledger(t, "a", chainOf(90)), ledger(t, "b", silent))
	_, _, err := r.compare(t.Context(), r.step(stepLive), r.nodes, nil)
	require.EqualError(t, err, "b does not report its state root at height 41 (/ledger/slots/41), so it was not compared")

	delete(silent, 7)
	silent[41] = "root"
	s := r.step(stepLive)
	_, _, err = r.compare(t.Context(), s, r.nodes, nil)
	require.NoError(t, err)
	require.Empty(t, s.Failures)
	require.Equal(t, []string{"b reported its state root at 89 of 90 slots"}, s.Notes)
}

func TestStepIsComparedWithAnEarlierOneAtEachOfItsSlots(t *testing.T) {
	// So long that not every slot is compared.
	const last = 20_011
	before := rootTable{}
	for _, slot := range []uint64{1, 40, 41, 80, 81, 12_345, 19_999} {
		before.put(slot, "a", "root")
	}
	r := rehearsalOf(ledger(t, "a", chainOf(last, 12_345)), ledger(t, "b", chainOf(last, 12_345)))
	for _, n := range r.nodes {
		n.highest = last
	}
	s := r.step(stepResync)
	_, _, err := r.compare(t.Context(), s, r.nodes, before)
	require.NoError(t, err)
	require.Len(t, s.Failures, 1)
	require.Equal(t, "state roots diverge from height 12345, in version 2 (v2): live upgrade differs from the others", s.Failures[0].Sentence)
}

func TestBystanderThatDivergesFailsTheStepThatIsAboutIt(t *testing.T) {
	a, b, c := ledger(t, "a", chainOf(90)), ledger(t, "b", chainOf(90)), ledger(t, "c", chainOf(90, 90))
	r := rehearsalOf(a, b, c)
	table, heights, err := r.gather(t.Context(), r.nodes, nil)
	require.NoError(t, err)
	r.judge(t.Context(), r.step(stepKill), r.nodes, table, heights, []*node{a})
	require.Empty(t, r.step(stepKill).Failures)
	r.judge(t.Context(), r.step(stepStop), r.nodes, table, heights, []*node{b, c})
	require.Contains(t, r.step(stepStop).Failures[0].Sentence, "c differs from the others")
}

func TestLoadThatEndsByItselfIsAFailure(t *testing.T) {
	for command, why := range map[string]string{
		"echo no key >&2; exit 3": "SIGTERM: exit status 3: no key",
		"true":                    ": exit status 0",
		"no-such-command-here":    ": exit status 127",
	} {
		r := rehearsalOf()
		l := &load{network: r.network, command: command}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); l.send(ctx) }()
		require.Eventually(t, func() bool { return l.broken.Load() != nil }, time.Minute, time.Millisecond, command)
		cancel()
		<-ended
		require.Contains(t, *l.broken.Load(), why, command)
	}
}

func TestLinesOfTwoStreamsAreReadWhateverTheirOrder(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\necho '2026-05-04T12:00:01Z old'\necho '2026-05-04T12:00:03Z later'\necho '2026-05-04T12:00:02Z earlier'\n"
	require.NoError(t, os.WriteFile(filepath.Join(bin, "docker"), []byte(script), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	var seen []string
	since := (&engine{}).follow(t.Context(), "id", epoch.Add(time.Second), func(_ time.Time, text string) { seen = append(seen, text) })
	require.Equal(t, []string{"later", "earlier"}, seen)
	require.Equal(t, epoch.Add(3*time.Second), since)
}

func TestEventThatQuotesTheNodeIsThatEvent(t *testing.T) {
	e, isEvent := parseLine(epoch, `{"time":"2026-05-04T12:00:00Z","msg":"run failed","exit_code":75,"stderr":"Exiting to restart as leader"}`)
	require.True(t, isEvent)
	require.Equal(t, "run failed", e.Name)
	e, isEvent = parseLine(epoch, "INFO Exiting to restart as leader height=12")
	require.True(t, isEvent)
	require.Equal(t, becameLeader, e.Name)
	_, isEvent = parseLine(epoch, "INFO height=12")
	require.False(t, isEvent)
}
