package sequencer

import (
	"fmt"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/sovereign"
)

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code, 0 to 255, of a process that ended by itself.
	Code int
	// Signal is the signal that killed the process, 0 for none.
	Signal syscall.Signal
	// OutOfMemory: Signal is SIGKILL, and the kernel killed for want of memory in our container while the process ran.
	OutOfMemory bool
}

// Status is the code that a shell gives: Code, or 128 plus the signal.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

// String is for messages.
func (e Exit) String() string {
	switch {
	case e.OutOfMemory:
		return "was killed by " + signalName(e.Signal) + ", by the kernel's out-of-memory killer"
	case e.Signal != 0:
		return "was killed by " + signalName(e.Signal)
	}
	return fmt.Sprintf("exited %d", e.Code)
}

// Reading is one height that a node told.
type Reading struct {
	// Height is in blocks, soft-confirmed: it runs ahead of the durable height.
	Height uint64
	// At is when it was read.
	At time.Time
}

// plausibleSlack is how far below the stop height, in blocks, a last reading may lie for a node to have reached it
// since: a margin for what a slow poll misses, the same that sov-rollup-manager takes for proof.
const plausibleSlack = 10

// Evidence is all that is known at the exit of a node.
type Evidence struct {
	Exit Exit
	// StopRequested: a stop signal had been received before the exit was noticed.
	StopRequested bool
	// Start and Stop are the version's heights in blocks, 0 for none.
	Start, Stop uint64
	// Last is the last height that this process told, nil where it told none.
	Last *Reading
	// Rate is how fast the height rose, in blocks per second, and Age how old the last reading is. RateUnknown: there was
	// only one reading, as in a resync that took no longer than that.
	Rate        float64
	RateUnknown bool
	Age         time.Duration
	// Rose: the height rose while this process ran.
	Rose bool
	// Refusal is what the node said on stderr, nil where it refused nothing.
	Refusal *sovereign.Refusal
	// Slack is the operator's --height-slack in blocks, nil where it was not given.
	Slack *uint64
	// ProofNeeded: what follows checks no height itself, because it is a migration, or because nothing follows.
	ProofNeeded bool
}

// Action is what follows the exit of a node.
type Action int

const (
	// Complete: the stop height is reached. Proof says how that is known.
	Complete Action = iota + 1
	// Stopped: the node ended as it was asked to.
	Stopped
	// Verify: the stop height may have been reached; start the node again with it, and without a start height. It then
	// either refuses, which proves it, or runs on.
	Verify
	// StartWithoutAssertion: the state is in the middle of this version; start again without a start height.
	StartWithoutAssertion
	// FinishPrevious: the state is still below this version's start height; the previous version has to run on.
	FinishPrevious
	// Fail: end with Code.
	Fail
)

// Cause is why a run fails. It is not told by the exit code, which may be the node's own.
type Cause int

const (
	// NodeFailed: the node ended by a code or a signal of its own.
	NodeFailed Cause = iota
	// ExitedEarly: the node exited 0 and its stop height is not proven. Starting again is safe.
	ExitedEarly
	// StateBeyond: the durable height is above the version's stop height.
	StateBeyond
	// StateBelow: the durable height is below the version's start height.
	StateBelow
	// Overran: the node itself was seen above its stop height.
	Overran
)

// Decision is what Decide says.
type Decision struct {
	Action Action
	// Proof is set with Complete.
	Proof Proof
	// Code is the exit code, with Stopped and Fail.
	Code int
	// Cause is set with Fail.
	Cause Cause
	// Height is the durable height that a refusal told, in blocks; 0 otherwise.
	Height uint64
	// Reason is what happened, for the log and the failure.
	Reason string
}

// Decide says what the exit of a node means. It is a pure function, and the only place where that is decided.
//
// A node exits 0 for three reasons: its stop height is committed; it was asked to stop; it is a replica that became
// leader and wants to be started again. The last height read does not tell them apart for certain, because it is the
// soft-confirmed one. So it counts only where the next version's own start check would catch a mistake, before
// anything is written; where a migration or nothing follows, only a refusal that names the durable height does.
func Decide(e Evidence) Decision {
	if e.Exit.Signal == 0 && e.Exit.Code == 0 {
		return decideSuccess(e)
	}
	if d, refused := decideRefusal(e); refused {
		return d
	}
	reason := "the node " + e.Exit.String() + e.lastKnown()
	if e.Exit.Signal != 0 && e.StopRequested {
		return Decision{Action: Stopped, Code: e.Exit.Status(), Reason: reason}
	}
	return Decision{Action: Fail, Code: e.Exit.Status(), Reason: reason}
}

func decideSuccess(e Evidence) Decision {
	last := e.lastKnown()
	switch {
	case e.StopRequested:
		return Decision{Action: Stopped, Reason: "the node stopped as asked" + last}
	case e.Stop == 0:
		return Decision{Action: Fail, Code: CodeEarlyExit, Cause: ExitedEarly, Reason: "the node exited 0 although it has no stop height" + last}
	case e.Last != nil && e.Last.Height > e.Stop:
		return Decision{Action: Fail, Code: CodeMismatch, Cause: Overran, Reason: fmt.Sprintf("the node ran past its stop height %d%s", e.Stop, last)}
	case e.Slack != nil && e.Last != nil && e.Last.Height >= e.Stop-min(*e.Slack, e.Stop):
		return Decision{Action: Complete, Proof: ProofSlack, Reason: fmt.Sprintf("the node exited 0 within %d blocks of its stop height %d%s", *e.Slack, e.Stop, last)}
	case e.Last != nil && e.Last.Height == e.Stop && !e.ProofNeeded:
		return Decision{Action: Complete, Proof: ProofHeight, Reason: "the node exited 0 at its stop height"}
	case e.plausible():
		return Decision{Action: Verify, Reason: "the node exited 0 and may have reached its stop height" + last}
	}
	return Decision{Action: Fail, Code: CodeEarlyExit, Cause: ExitedEarly, Reason: fmt.Sprintf("the node exited 0 before its stop height %d%s", e.Stop, last)}
}

// plausible reports whether the node can have reached its stop height since the last reading.
func (e Evidence) plausible() bool {
	if e.Last == nil || e.RateUnknown || e.Last.Height+plausibleSlack >= e.Stop {
		return true
	}
	// Twice the rate: a resync is not steady.
	return float64(e.Last.Height)+2*e.Rate*e.Age.Seconds() >= float64(e.Stop)
}

// decideRefusal reads the one thing that proves a durable height. A text that contradicts the heights read from the
// same process is no refusal but a log line that quotes one.
func decideRefusal(e Evidence) (Decision, bool) {
	r := e.Refusal
	if r == nil || e.Exit.Signal != 0 || (e.Last != nil && e.Last.Height != r.Current) {
		return Decision{}, false
	}
	d := Decision{Height: r.Current, Reason: fmt.Sprintf("the node refused to start: the state is at height %d", r.Current)}
	switch {
	case r.Kind == sovereign.StopRefused && r.Requested == e.Stop && e.Stop > 0 && r.Current == e.Stop:
		d.Action, d.Proof = Complete, ProofDurable
	case r.Kind == sovereign.StopRefused && r.Requested == e.Stop && e.Stop > 0 && r.Current > e.Stop:
		d.Action, d.Code, d.Cause = Fail, CodeMismatch, StateBeyond
	case r.Kind != sovereign.StartRefused || r.Requested != e.Start || e.Start == 0:
		return Decision{}, false
	case r.Current+1 == e.Start: // refused although the height is the expected one
		return Decision{}, false
	case e.Stop > 0 && r.Current > e.Stop:
		d.Action, d.Code, d.Cause = Fail, CodeMismatch, StateBeyond
	case e.StopRequested: // what follows would be another start
		d.Action = Stopped
	case r.Current+1 < e.Start:
		d.Action = FinishPrevious
	default:
		d.Action = StartWithoutAssertion
	}
	return d, true
}

// lastKnown says in words which height was read last.
func (e Evidence) lastKnown() string {
	if e.Last == nil {
		return " (it never told a height)"
	}
	return fmt.Sprintf(" (last height read: %d, %s before)", e.Last.Height, e.Age.Round(time.Millisecond))
}
