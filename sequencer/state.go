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
	// PhasePreparing: plan, files and record are being checked, and nothing was started.
	PhasePreparing Phase = "preparing"
	// PhaseAsking: the node was started with an impossible start height, to give the height of its state.
	PhaseAsking Phase = "asking"
	// PhaseHeld: an operator holds the sequence, and no process has the state open.
	PhaseHeld Phase = "held"
	// PhaseCopying: the state is being copied, so that the upgrade can be undone.
	PhaseCopying Phase = "copying"
	// PhaseHook: the hook before an upgrade runs.
	PhaseHook Phase = "hook"
	// PhaseMigrating: a migration runs.
	PhaseMigrating Phase = "migrating"
	// PhaseStarting: the node was started and has not reported a height yet.
	PhaseStarting Phase = "starting"
	// PhaseRunning: the node has reported a height.
	PhaseRunning Phase = "running"
	// PhaseHandingOver: one process has ended and the next one was not started yet.
	PhaseHandingOver Phase = "handing_over"
	// PhaseFinished: the last version is complete, or the one that an emergency stop ends.
	PhaseFinished Phase = "finished"
	// PhaseFailed: the run has failed and is about to end.
	PhaseFailed Phase = "failed"
)

// Phases lists every phase of a State, in the order of a version's life.
func Phases() []Phase {
	return []Phase{
		PhasePreparing, PhaseAsking, PhaseHeld, PhaseCopying, PhaseHook, PhaseMigrating, PhaseStarting, PhaseRunning, PhaseHandingOver, PhaseFinished, PhaseFailed,
	}
}

// Reading is one height that a node reported.
type Reading struct {
	// Height is in blocks, soft-confirmed: it runs ahead of the durable height.
	Height uint64
	// At is when it was read.
	At time.Time
}

// State is all that is known about a run at one moment. A State that was handed out is never changed: every change
// makes a new one. Its counters are those of this run.
type State struct {
	Phase Phase
	// Since is when the phase began.
	Since time.Time
	// Stopping: a stop signal was received.
	Stopping bool
	// Record is the checkpoint, which is durable a moment later; Stamp is the stamp, which is durable. Until a start has
	// written them, they are what it will write.
	Record checkpoint.Checkpoint
	Stamp  checkpoint.Stamp
	// Process is the node or migration that runs now; its Pid is 0 if there is none.
	Process ProcessState
	// Height is the newest reading of the node that runs now, nil before the first. RoseAt is when a reading was last
	// higher than the one before it.
	Height *Reading
	RoseAt time.Time
	// Rate is how fast the height rises, in blocks per second, smoothed over about half a minute; 0 if it is not known.
	Rate float64
	// Starts counts the starts of nodes, by version.
	Starts map[int]uint64
	// Exits counts how processes have ended.
	Exits map[ExitCount]uint64
	// Signals counts what was sent to nodes and migrations.
	Signals map[syscall.Signal]uint64
	// Undelivered counts the signals that the kernel refused to deliver to them.
	Undelivered map[syscall.Signal]uint64
	// Left are the leftover processes of the last node or migration that the run waits for now. Leftovers counts those
	// that have ended.
	Left      []Leftover
	Leftovers uint64
	// Migrations are those that were started, oldest first; the last one may still run.
	Migrations []MigrationRun
	// HandOvers are the transitions, oldest first.
	HandOvers []HandOver
	Writes    WriteCount
	// Questions counts the starts of nodes that were only asked for their height.
	Questions QuestionCount
	// CannotBeAsked: the node of this version gives no answer, so a person has to say when it is complete.
	CannotBeAsked bool
	// DamageReported: the node said that its state is damaged, in this run or in an earlier one, and has reported no
	// height since.
	DamageReported bool
	// Queries counts the readings of the height over HTTP, QueryFailures those without a useful answer.
	Queries, QueryFailures uint64
	// Preflight is what the last inspection has found, by version, and under WholePlan what concerns all of them.
	Preflight map[int]Preflight
	// HoldFile is the file whose removal ends the hold; empty if there is none.
	HoldFile string
	// UndoPoint is the undo point that is there; nil for none.
	UndoPoint *checkpoint.UndoPoint
	// Copying is how far the copy is that becomes the undo point; nil while none is being made.
	Copying *UndoProgress
	// NoUndoPoint is why the last upgrade has no undo point; empty if it has one, or there was no upgrade yet.
	NoUndoPoint string
	// PutBack counts how often an undo point was put back.
	PutBack uint64
	// Failure is what went wrong last, nil for nothing; in PhaseFailed it is why the run ends.
	Failure *Failure
	// FailedAt is when.
	FailedAt time.Time
}

// Leftover is a leftover process of a node or a migration.
type Leftover struct {
	Pid int
	// Command is its name, the comm of proc(5). Its arguments are not shown: they may be secret.
	Command string
	// Since is when it was first seen left behind.
	Since time.Time
}

// ProcessState is the process that works on the state.
type ProcessState struct {
	Pid int
	// Version is the index of the version to which it belongs.
	Version   int
	Migration bool
	// Hook: it is the hook before Version.
	Hook bool
	// Asked: the node was only started to give its height.
	Asked     bool
	StartedAt time.Time
	// Stranger: another process answered on the node's port before it was started, so heights are not read.
	Stranger bool
}

// ExitCount is a kind of exit. Nodes that were only asked are not counted.
type ExitCount struct {
	Migration, Hook bool
	// Code is as in a shell: 128+n for a process that was killed by signal n.
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

// QuestionCount counts the starts of nodes that were only asked for their height.
type QuestionCount struct {
	// Asked are all of them, Answered those that were answered. Took is how long all of them took, from start to end.
	Asked, Answered uint64
	Took            time.Duration
}

// WriteCount counts the writes of stamp and checkpoint.
type WriteCount struct {
	// Done is how many became durable, and Took how long these took.
	Done   uint64
	Took   time.Duration
	Failed uint64
}

// Preflight is what an inspection of a version has found.
type Preflight struct {
	At       time.Time
	Findings []Finding
}

// UntilUpgrade is how many blocks are left to the stop height, and how long they take at the present rate. known is
// false without a stop height or a height. eta is negative if the rate is not known.
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

// paceWindow is over how many seconds the rate of a State is smoothed: older readings count less and less.
const paceWindow = 30

// pace smooths the rate of the height. The zero value is ready. It is for one process: the pause between two processes
// is not slowness.
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

func (s *sequence) publish() {
	s.state.Writes = s.follower.counted()
	s.Observe(s.state)
}

func (s *sequence) enter(phase Phase) {
	s.state.Phase, s.state.Since = phase, time.Now()
	s.publish()
}

// began records the start of a process, which ends a hand-over.
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

func (s *sequence) exited(exit Exit) {
	p := s.state.Process
	if !p.Asked {
		s.exitedAt, s.askedFor = time.Now(), 0 // a question belongs to what follows an exit
		s.state.Exits = counted(s.state.Exits, ExitCount{p.Migration, p.Hook, exit.Status()})
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

func (s *sequence) asked(took time.Duration, known bool) {
	s.state.Questions.Asked++
	s.state.Questions.Took += took
	s.askedFor += took
	if known {
		s.state.Questions.Answered++
	}
	s.publish()
}

// failed records what went wrong. The last one is shown.
func (s *sequence) failed(f *Failure) {
	shown := *f // f may still get more words, and what was handed out must not change
	s.state.Failure, s.state.FailedAt = &shown, time.Now()
}

// counted gives a copy of counts with one more of key: what was handed out must not change.
func counted[K comparable](counts map[K]uint64, key K) map[K]uint64 {
	after := map[K]uint64{}
	maps.Copy(after, counts)
	after[key]++
	return after
}
