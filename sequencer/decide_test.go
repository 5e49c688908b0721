package sequencer

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/sovereign"
)

// Version 1 of the tests makes the heights from decideStart to decideStop.
const (
	decideStart = 101
	decideStop  = 200
)

func exited(code int) Exit             { return Exit{Code: code} }
func killedBy(sig syscall.Signal) Exit { return Exit{Signal: sig} }
func atHeight(h uint64) *Reading       { return &Reading{Height: h} }
func slackOf(n uint64) *uint64         { return &n }
func stopRefused(requested, current uint64) *sovereign.Refusal {
	return &sovereign.Refusal{Kind: sovereign.StopRefused, Requested: requested, Current: current}
}

// startRefused has the height as the node words it: the one that it would process next.
func startRefused(requested, expected uint64) *sovereign.Refusal {
	return &sovereign.Refusal{Kind: sovereign.StartRefused, Requested: requested, Current: expected - 1}
}

// node is the evidence of version 1, with its start height asserted, changed by each of change.
func node(exit Exit, change ...func(*Evidence)) Evidence {
	e := Evidence{Exit: exit, Start: decideStart, Stop: decideStop}
	for _, f := range change {
		f(&e)
	}
	return e
}

func readOnce(e *Evidence)                         { e.RateUnknown = true }
func asked(e *Evidence)                            { e.StopRequested = true }
func endless(e *Evidence)                          { e.Stop = 0 }
func unasserted(e *Evidence)                       { e.Start = 0 }
func migratesOn(e *Evidence)                       { e.ProofNeeded = true }
func told(h uint64) func(*Evidence)                { return func(e *Evidence) { e.Last = atHeight(h) } }
func stopsAt(h uint64) func(*Evidence)             { return func(e *Evidence) { e.Stop = h } }
func slack(n uint64) func(*Evidence)               { return func(e *Evidence) { e.Slack = slackOf(n) } }
func refused(r *sovereign.Refusal) func(*Evidence) { return func(e *Evidence) { e.Refusal = r } }
func rising(rate float64, age time.Duration) func(*Evidence) {
	return func(e *Evidence) { e.Rate, e.Age = rate, age }
}

func TestDecideFollowsTheTableRowByRow(t *testing.T) {
	complete := func(p Proof) Decision { return Decision{Action: Complete, Proof: p} }
	fail := func(code int) Decision { return Decision{Action: Fail, Code: code, Cause: NodeFailed} }
	early := Decision{Action: Fail, Code: 75, Cause: ExitedEarly}
	overran := Decision{Action: Fail, Code: 78, Cause: Overran}
	beyond := Decision{Action: Fail, Code: 78, Cause: StateBeyond}
	at := func(d Decision, height uint64) Decision { d.Height = height; return d }
	stopped, verify := Decision{Action: Stopped}, Decision{Action: Verify}
	again, previous := Decision{Action: StartWithoutAssertion}, Decision{Action: FinishPrevious}

	for _, test := range []struct {
		name     string
		evidence Evidence
		want     Decision // without Reason
		reason   string   // the whole of it, where not empty
	}{
		// Exit 0, nobody asked, at the stop height.
		{"0 at the stop height is complete", node(exited(0), told(200)), complete(ProofHeight), "the node exited 0 at its stop height"},
		{"0 at the stop height of version 0 is complete", node(exited(0), unasserted, told(200)), complete(ProofHeight), ""},
		{"0 at a stop height of 1 is complete", node(exited(0), unasserted, stopsAt(1), told(1)), complete(ProofHeight), ""},
		{"0 at the stop height is only verified where a migration follows", node(exited(0), told(200), migratesOn), verify, "the node exited 0 and may have reached its stop height (last height read: 200, 0s before)"},
		{"0 past the stop height", node(exited(0), told(201)), overran, "the node ran past its stop height 200 (last height read: 201, 0s before)"},
		{"0 past the stop height, a migration follows", node(exited(0), told(201), migratesOn), overran, ""},

		// Exit 0, nobody asked, the stop height is plausible.
		{"0 and never a height", node(exited(0)), verify, "the node exited 0 and may have reached its stop height (it never told a height)"},
		{"0 and never a height, a migration follows", node(exited(0), migratesOn), verify, ""},
		{"0 one block before", node(exited(0), told(199)), verify, ""},
		{"0 ten blocks before", node(exited(0), told(190)), verify, ""},
		{"0 ten blocks before, a migration follows", node(exited(0), told(190), migratesOn), verify, ""},
		{"0 eleven blocks before", node(exited(0), told(189)), early, "the node exited 0 before its stop height 200 (last height read: 189, 0s before)"},
		{"0 below ten with a stop height of ten", node(exited(0), unasserted, stopsAt(10), told(0)), verify, ""},
		{"0 in a resync that can have reached it at twice the rate", node(exited(0), told(100), rising(100, 500*time.Millisecond)), verify, ""},
		{"0 in a resync that can just not have reached it", node(exited(0), told(100), rising(99, 500*time.Millisecond)), early, "the node exited 0 before its stop height 200 (last height read: 100, 500ms before)"},
		{"0 long after a height that did not rise", node(exited(0), told(100), rising(0, time.Hour)), early, ""},
		{"0 at once after a height that rose fast", node(exited(0), told(100), rising(1e6, 0)), early, ""},
		{"0 a little below a stop height at the end of the numbers", node(exited(0), stopsAt(1<<64-2), told(1<<64-7)), verify, ""},

		{"0 after only one reading, which makes no rate", node(exited(0), told(100), readOnce), verify, ""},
		{"0 after only one reading, a migration follows", node(exited(0), told(0), readOnce, migratesOn), verify, ""},
		{"0 after only one reading, past the stop height", node(exited(0), told(201), readOnce), overran, ""},
		{"0 after only one reading, at the stop height", node(exited(0), told(200), readOnce), complete(ProofHeight), ""},

		// Exit 0, nobody asked, below.
		{"0 far below", node(exited(0), told(120)), early, ""},
		{"0 far below, a migration follows", node(exited(0), told(120), migratesOn), early, ""},
		{"0 at genesis", node(exited(0), unasserted, told(0)), early, ""},
		{"0 without a stop height", node(exited(0), endless, told(500)), early, "the node exited 0 although it has no stop height (last height read: 500, 0s before)"},
		{"0 without a stop height and never a height", node(exited(0), endless), early, ""},
		{"0 without a stop height with slack", node(exited(0), endless, told(500), slack(1000)), early, ""},

		// Exit 0 after a stop was requested.
		{"0 as asked", node(exited(0), asked, told(150)), stopped, "the node stopped as asked (last height read: 150, 0s before)"},
		{"0 as asked at the stop height", node(exited(0), asked, told(200)), stopped, ""},
		{"0 as asked past the stop height", node(exited(0), asked, told(201)), stopped, ""},
		{"0 as asked within the slack", node(exited(0), asked, told(195), slack(10)), stopped, ""},
		{"0 as asked and never a height", node(exited(0), asked), stopped, ""},
		{"0 as asked without a stop height", node(exited(0), asked, endless), stopped, ""},
		{"0 as asked, a migration follows", node(exited(0), asked, told(200), migratesOn), stopped, ""},

		// The reference's slack.
		{"slack: within", node(exited(0), told(190), slack(10)), complete(ProofSlack), "the node exited 0 within 10 blocks of its stop height 200 (last height read: 190, 0s before)"},
		{"slack: one below", node(exited(0), told(189), slack(10)), early, ""},
		{"slack: one below, but plausible", node(exited(0), told(194), slack(5)), verify, ""},
		{"slack: a migration follows", node(exited(0), told(195), slack(10), migratesOn), complete(ProofSlack), ""},
		{"slack 0: at the stop height", node(exited(0), told(200), slack(0)), complete(ProofSlack), ""},
		{"slack 0: at the stop height, a migration follows", node(exited(0), told(200), slack(0), migratesOn), complete(ProofSlack), ""},
		{"slack 0: one below is only plausible", node(exited(0), told(199), slack(0)), verify, ""},
		{"slack: as large as the stop height", node(exited(0), told(0), slack(200)), complete(ProofSlack), ""},
		{"slack: larger than the stop height", node(exited(0), told(0), slack(201)), complete(ProofSlack), ""},
		{"slack: the largest number", node(exited(0), told(0), slack(1<<64-1)), complete(ProofSlack), ""},
		{"slack: past the stop height", node(exited(0), told(201), slack(10)), overran, ""},
		{"slack: never a height", node(exited(0), slack(10)), verify, ""},
		{"slack: not for another exit", node(exited(1), told(200), slack(10)), fail(1), ""},

		// Stop height refused.
		{"stop refused at the stop height is durable", node(exited(101), refused(stopRefused(200, 200))), at(complete(ProofDurable), 200), "the node refused to start: the state is at height 200"},
		{"stop refused at the stop height, also as asked", node(exited(101), asked, refused(stopRefused(200, 200))), at(complete(ProofDurable), 200), ""},
		{"stop refused at the stop height, a migration follows", node(exited(101), migratesOn, refused(stopRefused(200, 200))), at(complete(ProofDurable), 200), ""},
		{"stop refused at the stop height, any code", node(exited(1), refused(stopRefused(200, 200))), at(complete(ProofDurable), 200), ""},
		{"stop refused at the stop height which the node also told", node(exited(101), told(200), refused(stopRefused(200, 200))), at(complete(ProofDurable), 200), ""},
		{"stop refused beyond it", node(exited(101), refused(stopRefused(200, 250))), at(beyond, 250), "the node refused to start: the state is at height 250"},
		{"stop refused beyond it, as asked", node(exited(101), asked, refused(stopRefused(200, 250))), at(beyond, 250), ""},
		{"stop refused below it contradicts itself", node(exited(101), refused(stopRefused(200, 150))), fail(101), ""},
		{"stop refused of another height", node(exited(101), refused(stopRefused(300, 300))), fail(101), "the node exited 101 (it never told a height)"},
		{"stop refused of a version without one", node(exited(101), endless, refused(stopRefused(0, 0))), fail(101), ""},
		{"stop refused beyond genesis of a version without one", node(exited(101), endless, refused(stopRefused(0, 250))), fail(101), ""},
		{"stop refused of a version without one, quoted", node(exited(101), endless, refused(stopRefused(200, 200))), fail(101), ""},
		{"stop refused contradicts a lower height read", node(exited(101), told(150), refused(stopRefused(200, 200))), fail(101), "the node exited 101 (last height read: 150, 0s before)"},
		{"stop refused contradicts a higher height read", node(exited(101), told(201), refused(stopRefused(200, 200))), fail(101), ""},
		{"stop refused in a node that exits 0 is only a text", node(exited(0), told(150), refused(stopRefused(200, 200))), early, ""},
		{"stop refused in a node that exits 0 unread is only a text", node(exited(0), refused(stopRefused(200, 200))), verify, ""},
		{"stop refused in a node that was killed is only a text", node(killedBy(syscall.SIGKILL), refused(stopRefused(200, 200))), fail(137), ""},

		// Start height refused.
		{"start refused in the middle", node(exited(101), refused(startRefused(101, 150))), at(again, 149), "the node refused to start: the state is at height 149"},
		{"start refused just after the first block", node(exited(101), refused(startRefused(101, 102))), at(again, 101), ""},
		{"start refused at the stop height", node(exited(101), refused(startRefused(101, 201))), at(again, 200), ""},
		{"start refused beyond the stop height", node(exited(101), refused(startRefused(101, 202))), at(beyond, 201), ""},
		{"start refused beyond the stop height, as asked", node(exited(101), asked, refused(startRefused(101, 202))), at(beyond, 201), ""},
		{"start refused without a stop height", node(exited(101), endless, refused(startRefused(101, 9999))), at(again, 9998), ""},
		{"start refused below the start height", node(exited(101), refused(startRefused(101, 100))), at(previous, 99), "the node refused to start: the state is at height 99"},
		{"start refused at genesis", node(exited(101), refused(startRefused(101, 1))), at(previous, 0), ""},
		{"start refused at the expected height contradicts itself", node(exited(101), refused(startRefused(101, 101))), fail(101), ""},
		{"start refused in the middle, as asked, starts nothing", node(exited(101), asked, refused(startRefused(101, 150))), at(stopped, 149), ""},
		{"start refused below, as asked, starts nothing", node(exited(101), asked, refused(startRefused(101, 50))), at(stopped, 49), ""},
		{"start refused of another height", node(exited(101), refused(startRefused(300, 150))), fail(101), ""},
		{"start refused that was not asserted", node(exited(101), unasserted, refused(startRefused(101, 150))), fail(101), ""},
		{"start refused of height 0 that was not asserted", node(exited(101), unasserted, refused(startRefused(0, 150))), fail(101), ""},
		{"start refused contradicts a height read", node(exited(101), told(160), refused(startRefused(101, 150))), fail(101), ""},
		{"start refused in a node that was killed is only a text", node(killedBy(syscall.SIGSEGV), refused(startRefused(101, 150))), fail(139), ""},
		{"a refusal of no kind", node(exited(101), refused(&sovereign.Refusal{Requested: 200, Current: 200})), fail(101), ""},

		// Codes and signals.
		{"a panic", node(exited(101), told(150)), fail(101), ""},
		{"a panic at the stop height is no success", node(exited(101), told(200)), fail(101), ""},
		{"bad arguments", node(exited(2)), fail(2), "the node exited 2 (it never told a height)"},
		{"the largest code", node(exited(255)), fail(255), ""},
		{"a code after a stop was asked is a failure", node(exited(1), asked), fail(1), ""},
		{"a code without a stop height", node(exited(1), endless), fail(1), ""},
		{"killed", node(killedBy(syscall.SIGKILL), told(150)), fail(137), "the node was killed by SIGKILL (last height read: 150, 0s before)"},
		{"killed at the stop height is no success", node(killedBy(syscall.SIGKILL), told(200)), fail(137), ""},
		{"killed within the slack is no success", node(killedBy(syscall.SIGKILL), told(200), slack(10)), fail(137), ""},
		{"terminated although nobody asked", node(killedBy(syscall.SIGTERM)), fail(143), ""},
		{"terminated as asked, during start-up", node(killedBy(syscall.SIGTERM), asked), Decision{Action: Stopped, Code: 143}, "the node was killed by SIGTERM (it never told a height)"},
		{"killed as asked", node(killedBy(syscall.SIGKILL), asked), Decision{Action: Stopped, Code: 137}, ""},
		{"killed by another signal after a stop was asked", node(killedBy(syscall.SIGHUP), asked), Decision{Action: Stopped, Code: 129}, ""},
		{"killed by a real-time signal", node(killedBy(34)), fail(162), "the node was killed by signal 34 (it never told a height)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Decide(test.evidence)
			assert.NotEmpty(t, got.Reason)
			if test.reason != "" {
				assert.Equal(t, test.reason, got.Reason)
			}
			got.Reason = ""
			assert.Equal(t, test.want, got, "%+v", test.evidence)
		})
	}
}

// describeEvidence is for failures: the pointers of an Evidence print as addresses.
func describeEvidence(e Evidence) string {
	text := fmt.Sprintf("%s, asked %t, start %d, stop %d, rate %g, age %s, rose %t, proof needed %t",
		e.Exit, e.StopRequested, e.Start, e.Stop, e.Rate, e.Age, e.Rose, e.ProofNeeded)
	if e.Last != nil {
		text += fmt.Sprintf(", last %d", e.Last.Height)
	}
	if e.Slack != nil {
		text += fmt.Sprintf(", slack %d", *e.Slack)
	}
	if e.Refusal != nil {
		text += fmt.Sprintf(", refusal %+v", *e.Refusal)
	}
	return text
}

// everyEvidence calls f with the cross product of all values that can change a decision.
func everyEvidence(f func(Evidence)) {
	type speed struct {
		rate float64
		age  time.Duration
	}
	lasts := []*Reading{nil}
	for _, h := range []uint64{0, 49, 100, 149, 189, 190, 199, 200, 201, 250} {
		lasts = append(lasts, atHeight(h))
	}
	refusals := []*sovereign.Refusal{
		nil,
		stopRefused(200, 200), stopRefused(200, 250), stopRefused(200, 149), stopRefused(999, 999), stopRefused(0, 0),
		startRefused(101, 101), startRefused(101, 150), startRefused(101, 201), startRefused(101, 202), startRefused(101, 50),
		startRefused(101, 1), startRefused(77, 150), startRefused(0, 150),
	}
	exits := []Exit{exited(0), exited(1), exited(75), exited(101), exited(255), killedBy(syscall.SIGTERM), killedBy(syscall.SIGKILL)}
	for _, exit := range exits {
		for _, last := range lasts {
			for _, refusal := range refusals {
				for _, slack := range []*uint64{nil, slackOf(0), slackOf(10), slackOf(1000)} {
					for _, speed := range []speed{{0, 0}, {1000, time.Second}} {
						for bits := range 64 {
							e := Evidence{Exit: exit, Last: last, Refusal: refusal, Slack: slack, Rate: speed.rate, Age: speed.age}
							e.StopRequested, e.ProofNeeded, e.Rose = bits&1 != 0, bits&2 != 0, bits&4 != 0
							e.RateUnknown = bits&32 != 0
							if bits&8 != 0 {
								e.Start = decideStart
							}
							if bits&16 != 0 {
								e.Stop = decideStop
							}
							f(e)
						}
					}
				}
			}
		}
	}
}

func TestDecideKeepsItsPromisesForEveryEvidence(t *testing.T) {
	broken, seen := 0, map[Action]int{}
	everyEvidence(func(e Evidence) {
		d := Decide(e)
		seen[d.Action]++
		for _, promise := range brokenPromises(e, d) {
			if broken++; broken <= 10 {
				t.Errorf("%s\n  for:     %s\n  decided: %+v", promise, describeEvidence(e), d)
			}
		}
	})
	assert.Zero(t, broken, "broken promises")
	assert.NotZero(t, Complete, "a decision that nobody made is no success")
	for action := Complete; action <= Fail; action++ {
		assert.NotZero(t, seen[action], "the evidence never leads to %q", action)
	}
}

// brokenPromises checks a decision against rules that are worded without looking at how it is made.
func brokenPromises(e Evidence, d Decision) []string {
	var broken []string
	promise := func(text string, kept bool) {
		if !kept {
			broken = append(broken, text)
		}
	}
	implies := func(a, b bool) bool { return !a || b }
	is := func(a ...Action) bool {
		for _, action := range a {
			if d.Action == action {
				return true
			}
		}
		return false
	}
	zero := e.Exit == Exit{}
	killed := e.Exit.Signal != 0
	refusal := sovereign.Refusal{}
	if e.Refusal != nil {
		refusal = *e.Refusal
	}
	stopText, startText := refusal.Kind == sovereign.StopRefused, refusal.Kind == sovereign.StartRefused

	promise("an action is one of six", d.Action >= Complete && d.Action <= Fail)
	promise("a reason is one line", d.Reason != "" && !strings.Contains(d.Reason, "\n"))
	promise("a proof belongs to complete, and only there", (d.Proof != "") == is(Complete))

	promise("complete needs a stop height", implies(is(Complete), e.Stop > 0))
	promise("complete as asked only with durable proof", implies(is(Complete) && e.StopRequested, d.Proof == ProofDurable))
	promise("complete never past the stop height", implies(is(Complete) && e.Last != nil, e.Last == nil || e.Last.Height <= e.Stop))
	promise("durable proof is the node's own word", implies(d.Proof == ProofDurable,
		!zero && !killed && stopText && refusal.Requested == e.Stop && refusal.Current == e.Stop))
	promise("durable proof contradicts no height read", implies(d.Proof == ProofDurable && e.Last != nil, e.Last == nil || e.Last.Height == e.Stop))
	promise("a height read is proof only at the stop height", implies(d.Proof == ProofHeight, zero && e.Last != nil && e.Last.Height == e.Stop))
	promise("a height read is no proof where one is needed", implies(d.Proof == ProofHeight, !e.ProofNeeded))
	promise("slack counts only where it was given", implies(d.Proof == ProofSlack,
		zero && e.Slack != nil && e.Last != nil && e.Last.Height+*e.Slack >= e.Stop))

	promise("nothing is started after a stop was requested", implies(e.StopRequested, !is(Verify, StartWithoutAssertion, FinishPrevious)))
	promise("verify only after exit 0 with a stop height", implies(is(Verify), zero && e.Stop > 0))
	promise("verify never past the stop height", implies(is(Verify) && e.Last != nil, e.Last == nil || e.Last.Height <= e.Stop))
	promise("another start only after a refused start height", implies(is(StartWithoutAssertion, FinishPrevious),
		!zero && !killed && startText && e.Start > 0 && refusal.Requested == e.Start))
	promise("the version is started again only inside its heights", implies(is(StartWithoutAssertion),
		refusal.Current >= e.Start && (e.Stop == 0 || refusal.Current <= e.Stop)))
	promise("the previous version is finished only below", implies(is(FinishPrevious), refusal.Current+1 < e.Start))

	promise("stopped only when a stop was requested", implies(is(Stopped), e.StopRequested))
	promise("stopped has code 0, or the signal's", implies(is(Stopped), (killed && d.Code == e.Exit.Status()) || (!killed && d.Code == 0)))
	promise("exit 0 as asked is stopped", implies(zero && e.StopRequested, is(Stopped)))
	promise("death by signal as asked is stopped", implies(killed && e.StopRequested, is(Stopped)))
	promise("death by signal unasked is a failure", implies(killed && !e.StopRequested, is(Fail) && d.Code == 128+int(e.Exit.Signal)))
	promise("only a failure has a cause", implies(d.Cause != NodeFailed, is(Fail)))
	promise("exited early is 75, and only that", implies(is(Fail) && zero, (d.Code == CodeEarlyExit) == (d.Cause == ExitedEarly)))
	promise("overran is what a height read says", implies(d.Cause == Overran, zero && e.Last != nil && e.Last.Height > e.Stop))
	promise("the state is beyond where a refusal says so", (d.Cause == StateBeyond) == (is(Fail) && d.Height != 0))
	promise("the state below is not decided here", d.Cause != StateBelow)
	promise("a failure has a code", implies(is(Fail), d.Code != 0))
	promise("a failure after exit 0 is 75 or 78", implies(is(Fail) && zero, d.Code == CodeEarlyExit || d.Code == CodeMismatch))
	promise("a failure has the node's code, unless it refused", implies(is(Fail) && !zero && d.Height == 0, d.Code == e.Exit.Status()))
	promise("a refusal that fails is 78", implies(is(Fail) && d.Height != 0, d.Code == CodeMismatch && d.Height > e.Stop))
	promise("only stopped and failed have a code", implies(!is(Stopped, Fail), d.Code == 0))
	promise("a height is the refusal's", implies(d.Height != 0, e.Refusal != nil && d.Height == refusal.Current))
	return broken
}

func TestDecideNeedsNoHistory(t *testing.T) {
	everyEvidence(func(e Evidence) {
		other := e
		other.Rose = !e.Rose // it is for the caller, who counts verifications
		if first, second := Decide(e), Decide(other); first != second {
			t.Fatalf("decided differently for %s", describeEvidence(e))
		}
	})
}

func TestExitReadsAsAShellReportsIt(t *testing.T) {
	for _, test := range []struct {
		name   string
		exit   Exit
		status int
		text   string
	}{
		{"success", exited(0), 0, "exited 0"},
		{"code", exited(101), 101, "exited 101"},
		{"signal", killedBy(syscall.SIGTERM), 143, "was killed by SIGTERM"},
		{"a signal outranks a code", Exit{Code: 3, Signal: syscall.SIGKILL}, 137, "was killed by SIGKILL"},
		{"for want of memory", Exit{Signal: syscall.SIGKILL, OutOfMemory: true}, 137, "was killed by SIGKILL, by the kernel's out-of-memory killer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.status, test.exit.Status())
			require.Equal(t, test.text, test.exit.String())
		})
	}
}
