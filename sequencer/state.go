package sequencer

import (
	"maps"
	"math"
	"slices"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Phase is what a run does at one moment.
type Phase string

// The phases of a run, in the order of a version's life.
const (
	// PhasePreparing: plan, files and record are being checked; nothing was started.
	PhasePreparing Phase = "preparing"
	// PhaseAsking: the node was started with an impossible start height, to give the height of its state.
	PhaseAsking Phase = "asking"
	// PhaseMigrating: a migration runs.
	PhaseMigrating Phase = "migrating"
	// PhaseStarting: the node was started and has not reported a height yet.
	PhaseStarting Phase = "starting"
	// PhaseRunning: the node has reported a height.
	PhaseRunning Phase = "running"
	// PhaseHandingOver: one process has ended and what follows was not started yet.
	PhaseHandingOver Phase = "handing_over"
	// PhaseFinished: the last version is complete.
	PhaseFinished Phase = "finished"
	// PhaseFailed: the run has failed and is about to end.
	PhaseFailed Phase = "failed"
)

// Phases lists every phase of a State, in the order of a version's life.
func Phases() []Phase {
	return []Phase{
		PhasePreparing, PhaseAsking, PhaseMigrating, PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseFinished, PhaseFailed,
	}
}

// Reading is one height that a node reported.
type Reading struct {
	// Height is in blocks, soft-confirmed: it runs ahead of the durable height.
	Height uint64
	// At is when it was read.
	At time.Time
}

// State is what there is to know about a run at one moment. A State that was handed out is never changed: every change
// makes a new one. Its counters are those of this run.
type State struct {
	Phase Phase
	// Since is when the phase began.
	Since time.Time
	// Stopping: a stop signal was received.
	Stopping bool
	// Record is the checkpoint, which is durable a moment later; Stamp is the stamp, which is durable.
	Record checkpoint.Checkpoint
	Stamp  checkpoint.Stamp
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
	// Questions are those that were put to nodes.
	Questions QuestionCount
	// CannotBeAsked: the node of this version gives no answer, so that a person has to say that it is complete.
	CannotBeAsked bool
	// Queries counts the readings of the height over HTTP, QueryFailures those without a useful answer.
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
	// Version is the index of the version to which it belongs.
	Version   int
	Migration bool
	// Asked: the node was started to give its height, and not to run.
	Asked     bool
	StartedAt time.Time
	// Stranger: another process answered on the node's port before it was started, and is not believed.
	Stranger bool
}

// ExitCount is a kind of exit. Nodes that were only asked are not counted.
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
	// Took is all of it, Asked the part in which the node of the version before was asked for its height.
	Took, Asked time.Duration
}

// QuestionCount counts the questions that were put to nodes.
type QuestionCount struct {
	// Asked are all of them, Answered those that were answered; Took is the time of all of them, from start to end.
	Asked, Answered uint64
	Took            time.Duration
}

// WriteCount counts the writes of stamp and checkpoint.
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
func (s *sequence) publish() {
	s.state.Writes = s.follower.counted()
	s.Observe(s.state)
}

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
		over := HandOver{Version: p.Version, Took: time.Since(s.left), Asked: s.askedFor}
		s.state.HandOvers = append(slices.Clone(s.state.HandOvers), over)
		s.left = time.Time{}
	}
	switch {
	case p.Migration:
		s.state.Migrations = append(slices.Clone(s.state.Migrations), MigrationRun{Version: p.Version, StartedAt: p.StartedAt})
	case !p.Asked:
		s.state.Starts = counted(s.state.Starts, p.Version)
	}
	s.enter(phase)
}

// exited notes the end of the process.
func (s *sequence) exited(exit Exit) {
	p := s.state.Process
	if !p.Asked {
		s.exitedAt, s.askedFor = time.Now(), 0 // a question belongs to what follows an exit
		s.state.Exits = counted(s.state.Exits, ExitCount{p.Migration, exit.Status()})
	}
	if p.Migration {
		runs := slices.Clone(s.state.Migrations)
		last := &runs[len(runs)-1]
		last.Took, last.Exit = time.Since(last.StartedAt), exit
		s.state.Migrations = runs
	}
	s.state.Process = ProcessState{}
	s.enter(PhaseHandingOver)
}

// asked notes a question.
func (s *sequence) asked(took time.Duration, known bool) {
	s.state.Questions.Asked++
	s.state.Questions.Took += took
	s.askedFor += took
	if known {
		s.state.Questions.Answered++
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
