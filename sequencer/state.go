package sequencer

import (
	"maps"
	"math"
	"slices"
	"syscall"
	"time"
)

// These phases are those of a State alone: a checkpoint is never in one of them.
const (
	// PhasePreparing: plan, files and checkpoint are being checked; nothing was started.
	PhasePreparing Phase = "preparing"
	// PhaseStarting: the node was started and has not told a height yet.
	PhaseStarting Phase = "starting"
	// PhaseVerifying: the node was started once more, to prove that its stop height is reached, and has not told a height.
	PhaseVerifying Phase = "verifying"
	// PhaseHandingOver: one process has ended and what follows was not started yet.
	PhaseHandingOver Phase = "handing_over"
	// PhaseFailed: the run has failed and is about to end.
	PhaseFailed Phase = "failed"
)

// Phases lists every phase of a State, in the order of a version's life.
func Phases() []Phase {
	return []Phase{
		PhasePreparing, PhaseMigrating, PhaseStarting, PhaseRunning, PhaseVerifying, PhaseFinishingPrevious,
		PhaseHandingOver, PhaseFinished, PhaseFailed,
	}
}

// State is what there is to know about a run at one moment. A State that was handed out is never changed: every change
// makes a new one. Its counters are those of this run.
type State struct {
	Phase Phase
	// Since is when the phase began.
	Since time.Time
	// Stopping: a stop signal was received.
	Stopping bool
	// Record is the checkpoint, as far as it is durable.
	Record Checkpoint
	// Process is the node or migration that runs now; its Pid is 0 where there is none.
	Process ProcessState
	// Height is the newest reading of the node that runs now, nil before the first; RoseAt is when a height was first read
	// that was higher than the one before.
	Height *Reading
	RoseAt time.Time
	// Rate is how fast the height rises, in blocks per second, smoothed over about half a minute; 0 where it is not known.
	Rate float64
	// Starts counts the starts of nodes, by version.
	Starts map[int]uint64
	// Exits counts how processes have ended.
	Exits map[ExitCount]uint64
	// Signals counts what was sent to nodes and migrations.
	Signals map[syscall.Signal]uint64
	// Leftovers counts the processes that nodes have left behind and that were ended.
	Leftovers uint64
	// Migrations are those that were started, oldest first; the last one may still run.
	Migrations []MigrationRun
	// HandOvers are the transitions, oldest first.
	HandOvers []HandOver
	Writes    WriteCount
	// Queries counts the questions for the height, QueryFailures those without a useful answer.
	Queries, QueryFailures uint64
	// Preflight is what was found the last time, by version, and under WholePlan what concerns all of them.
	Preflight map[int]Preflight
	// Failure is what went wrong last, nil for nothing; with PhaseFailed it is why the run ends.
	Failure *Failure
	// FailedAt is when.
	FailedAt time.Time
}

// ProcessState is the process that works on the state.
type ProcessState struct {
	Pid int
	// Version is the index of the version to which it belongs: below that of the record while the version before runs on.
	Version   int
	Migration bool
	StartedAt time.Time
	// Stranger: somebody else answered on the node's port before it was started, and is not believed.
	Stranger bool
}

// ExitCount is a kind of exit.
type ExitCount struct {
	Migration bool
	// Code is as a shell has it: 128+n for a process that was killed by signal n.
	Code int
}

// MigrationRun is one run of a migration.
type MigrationRun struct {
	Version   int
	StartedAt time.Time
	// Took is how long it ran; 0 while it runs. Exit is valid after that.
	Took time.Duration
	Exit Exit
}

// HandOver is a transition to a version: from the exit of the last process of the version before to the start of what
// follows, which is a migration or the node.
type HandOver struct {
	Version int
	Took    time.Duration
}

// WriteCount counts the writes of the checkpoint.
type WriteCount struct {
	// Done and Took are of those that became durable.
	Done   uint64
	Took   time.Duration
	Failed uint64
}

// Preflight is what a preflight of a version has found.
type Preflight struct {
	At       time.Time
	Findings []Finding
}

// UntilUpgrade is how many blocks are left to the stop height, and how long that takes at the present rate. known is
// false without a stop height or a height. eta is negative where no rate is known.
func (s State) UntilUpgrade(plan *Plan) (blocks uint64, eta time.Duration, known bool) {
	stop := plan.Versions[s.Record.VersionIndex].Stop
	if s.Height == nil || stop == 0 || s.Process.Version != s.Record.VersionIndex {
		return 0, -1, false
	}
	blocks = stop - min(s.Height.Height, stop)
	if s.Rate <= 0 {
		return blocks, -1, true
	}
	seconds := min(float64(blocks)/s.Rate, float64(math.MaxInt64)/float64(time.Second)/2)
	return blocks, time.Duration(seconds * float64(time.Second)), true
}

// paceWindow is over how many seconds the rate of a State is smoothed: what is older counts ever less.
const paceWindow = 30

// pace smooths the rate of the height. The zero value is ready, for one process: a pause between two is no slowness.
type pace struct {
	last            *Reading
	blocks, seconds float64
}

// add takes a reading and gives the rate in blocks per second, 0 while it is not known.
func (p *pace) add(r Reading) float64 {
	if p.last != nil && r.At.After(p.last.At) {
		elapsed := r.At.Sub(p.last.At).Seconds()
		fade := math.Exp(-elapsed / paceWindow)
		p.blocks = p.blocks*fade + float64(r.Height-min(r.Height, p.last.Height))
		p.seconds = p.seconds*fade + elapsed
	}
	p.last = &r
	if p.seconds < 1 {
		return 0
	}
	return p.blocks / p.seconds
}

// publish hands out the state as it is now.
func (s *sequence) publish() { s.Observe(s.state) }

// enter begins a phase.
func (s *sequence) enter(phase Phase) {
	s.state.Phase, s.state.Since = phase, time.Now()
	s.publish()
}

// began notes that a process was started, and with it a transition is over.
func (s *sequence) began(p ProcessState, phase Phase) {
	p.StartedAt = time.Now()
	s.state.Process, s.state.Height, s.state.Rate, s.state.RoseAt = p, nil, 0, time.Time{}
	if !s.left.IsZero() {
		over := HandOver{Version: s.record.VersionIndex, Took: time.Since(s.left)}
		s.state.HandOvers = append(slices.Clone(s.state.HandOvers), over)
		s.left = time.Time{}
	}
	if p.Migration {
		s.state.Migrations = append(slices.Clone(s.state.Migrations), MigrationRun{Version: p.Version, StartedAt: p.StartedAt})
	} else {
		s.state.Starts = counted(s.state.Starts, p.Version)
	}
	s.enter(phase)
}

// exited notes the end of the process.
func (s *sequence) exited(exit Exit) {
	p := s.state.Process
	s.exitedAt = time.Now()
	s.state.Exits = counted(s.state.Exits, ExitCount{p.Migration, exit.Status()})
	if p.Migration {
		runs := slices.Clone(s.state.Migrations)
		last := &runs[len(runs)-1]
		last.Took, last.Exit = time.Since(last.StartedAt), exit
		s.state.Migrations = runs
	}
	s.state.Process = ProcessState{}
	s.enter(PhaseHandingOver)
}

// wrote notes a write of the checkpoint.
func (s *sequence) wrote(began time.Time, err error) {
	if err != nil {
		s.state.Writes.Failed++
	} else {
		s.state.Writes.Done++
		s.state.Writes.Took += time.Since(began)
		s.state.Record = s.record.clone()
	}
	s.publish()
}

// failed notes what went wrong. The last one is shown.
func (s *sequence) failed(f *Failure) {
	told := *f // it may still be worded further, and what was handed out must not change
	s.state.Failure, s.state.FailedAt = &told, time.Now()
}

// counted gives a copy of counts with one more of key: what was handed out must not change.
func counted[K comparable](counts map[K]uint64, key K) map[K]uint64 {
	after := maps.Clone(counts)
	if after == nil {
		after = map[K]uint64{}
	}
	after[key]++
	return after
}
