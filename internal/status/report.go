package status

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// Report is the answer of /status. Its keys are stable: keys may be added, and none is removed. What is not known is
// null. Heights are in blocks, durations in seconds. Role is that of the node, "leader" or "replica".
type Report struct {
	Entrypoint      Program         `json:"entrypoint"`
	Phase           sequencer.Phase `json:"phase"`
	PhaseSince      time.Time       `json:"phase_since"`
	Stopping        bool            `json:"stopping"`
	Alive           bool            `json:"alive"`
	NotAliveBecause string          `json:"not_alive_because"`
	Ready           bool            `json:"ready"`
	NotReadyBecause string          `json:"not_ready_because"`
	Role            *string         `json:"role"`
	VersionIndex    int             `json:"version_index"`
	Version         string          `json:"version"`
	BinarySHA256    *string         `json:"binary_sha256"`
	Height          *Height         `json:"height"`
	// DurableHeight is the durable height that a node gave last: while a node runs the state is higher.
	DurableHeight   *uint64  `json:"durable_height"`
	BlocksPerSecond *float64 `json:"blocks_per_second"`
	NextUpgrade     *Upgrade `json:"next_upgrade"`
	// EmergencyStop is the --stop-height at which the plan ends before its own end.
	EmergencyStop *uint64     `json:"emergency_stop"`
	Versions      []Version   `json:"versions"`
	Node          *Node       `json:"node"`
	Restarts      uint64      `json:"restarts"`
	Migrations    []Migration `json:"migrations"`
	LastFailure   *Problem    `json:"last_failure"`
	// PlanOutdated: the plan on disk is not the one that this run has read, or cannot be read any more.
	PlanOutdated  bool       `json:"plan_outdated"`
	CannotBeAsked bool       `json:"cannot_be_asked"`
	StateDamaged  bool       `json:"state_damaged"`
	HoldFile      *string    `json:"hold_file"`
	Hook          *Hook      `json:"hook"`
	Copying       *Copying   `json:"copying"`
	UndoPoint     *UndoPoint `json:"undo_point"`
	// NoUndoPointBecause is why the last upgrade has no undo point; empty if it has one, or there was no upgrade yet.
	NoUndoPointBecause string           `json:"no_undo_point_because"`
	PutBack            uint64           `json:"undo_points_put_back"`
	Leftovers          []Leftover       `json:"leftovers"`
	Undelivered        []Undelivered    `json:"signals_undelivered"`
	Stamp              *Stamp           `json:"stamp"`
	Instance           *string          `json:"instance"`
	Checkpoint         *CheckpointState `json:"checkpoint"`
	PreviousRun        *PreviousRun     `json:"previous_run"`
}

// Program is this program.
type Program struct {
	Version   string    `json:"version"`
	Host      string    `json:"host"`
	Pid       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
}

// Height is the newest soft-confirmed height of the node that runs.
type Height struct {
	Blocks     uint64    `json:"blocks"`
	ReadAt     time.Time `json:"read_at"`
	AgeSeconds float64   `json:"age_seconds"`
	RoseAt     time.Time `json:"rose_at"`
}

// Upgrade is what comes after the stop height of the running version. VersionIndex is null if nothing follows that: it is
// the last version, or the emergency stop.
type Upgrade struct {
	VersionIndex    *int       `json:"version_index"`
	Version         string     `json:"version"`
	StopHeight      uint64     `json:"stop_height"`
	RemainingBlocks *uint64    `json:"remaining_blocks"`
	ETASeconds      *float64   `json:"eta_seconds"`
	ETAAt           *time.Time `json:"eta_at"`
	Migration       bool       `json:"migration"`
	Hook            bool       `json:"hook"`
	Preflight       *Preflight `json:"preflight"`
}

// Preflight is what the last preflight of a version found. Problems is empty if it found none.
type Preflight struct {
	CheckedAt time.Time `json:"checked_at"`
	Problems  []string  `json:"problems"`
}

// Version is one version of the plan. BinarySHA256 comes from the record, not from the file that is there now. State is
// "completed", "current" or "upcoming". Migration is "none", "due", "running", "begun" (its end is not recorded) or
// "completed".
type Version struct {
	VersionIndex         int              `json:"version_index"`
	Version              string           `json:"version"`
	State                string           `json:"state"`
	StartHeight          uint64           `json:"start_height"`
	StopHeight           *uint64          `json:"stop_height"`
	Binary               string           `json:"binary"`
	BinarySHA256         *string          `json:"binary_sha256"`
	Migration            string           `json:"migration"`
	MigrationBegunAt     *time.Time       `json:"migration_begun_at"`
	MigrationCompletedAt *time.Time       `json:"migration_completed_at"`
	MigrationRuns        int              `json:"migration_runs"`
	CompletedAt          *time.Time       `json:"completed_at"`
	Proof                checkpoint.Proof `json:"proof"`
}

// Node is the node process. Asked: it was started only to report its durable height. OpenFiles is how many files it may
// have open.
type Node struct {
	VersionIndex int       `json:"version_index"`
	Pid          int       `json:"pid"`
	StartedAt    time.Time `json:"started_at"`
	Starts       uint64    `json:"starts"`
	Asked        bool      `json:"asked"`
	OpenFiles    *uint64   `json:"open_files"`
}

// Leftover is a process that an earlier node, migration or entrypoint left behind. Nothing starts until it has ended.
type Leftover struct {
	Pid     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
}

// Undelivered is how often the kernel refused to deliver a signal.
type Undelivered struct {
	Signal string `json:"signal"`
	Count  uint64 `json:"count"`
}

// Migration is one run of a migration. Exit is empty while it runs.
type Migration struct {
	VersionIndex int       `json:"version_index"`
	StartedAt    time.Time `json:"started_at"`
	Seconds      float64   `json:"seconds"`
	Exit         string    `json:"exit"`
}

// Problem is something that went wrong. Cause is for programs. It is empty if the exit code says everything.
type Problem struct {
	At    time.Time       `json:"at"`
	Text  string          `json:"text"`
	Cause sequencer.Cause `json:"cause"`
}

// Stamp says which version's format the state has. It repeats the stamp in the storage directory.
type Stamp struct {
	VersionIndex int                  `json:"version_index"`
	Version      string               `json:"version"`
	StartHeight  uint64               `json:"start_height"`
	StopHeight   *uint64              `json:"stop_height"`
	Migration    checkpoint.Migration `json:"migration"`
	Hook         bool                 `json:"hook"`
	UndoPoint    *string              `json:"undo_point"`
	Entered      bool                 `json:"entered"`
	Complete     bool                 `json:"complete"`
	UpdatedAt    *time.Time           `json:"updated_at"`
}

// CheckpointState says where the record is kept.
type CheckpointState struct {
	File      string     `json:"file"`
	UpdatedAt *time.Time `json:"updated_at"`
}

// PreviousRun is the run before. EndedAt and ExitCode are null if it ended without a word, as when it was killed. Text is
// why it failed, or what is known of such an end, at most 1000 bytes; empty for exit code 0.
type PreviousRun struct {
	BeganAt  time.Time       `json:"began_at"`
	EndedAt  *time.Time      `json:"ended_at"`
	ExitCode *int            `json:"exit_code"`
	Cause    sequencer.Cause `json:"cause"`
	Text     string          `json:"text"`
}

// previousTextLimit is the length of a PreviousRun's text, in bytes.
const previousTextLimit = 1000

// Report describes the run as it is now. It asks the node whether it is ready.
func (s *Status) Report(ctx context.Context) Report {
	state, now := s.state.Load(), time.Now()
	i := state.Record.VersionIndex
	r := Report{
		Entrypoint: Program{s.Version, s.host, os.Getpid(), s.started.UTC()},
		Phase:      state.Phase, PhaseSince: state.Since.UTC(), Stopping: state.Stopping,
		VersionIndex: i, Version: s.Plan.Versions[i].Name, BinarySHA256: orNull(state.Record.BinarySHA256),
		DurableHeight: state.Record.Height, BlocksPerSecond: orNull(state.Rate),
		NextUpgrade: s.upgrade(state, now), EmergencyStop: orNull(s.Plan.Brake), Node: s.node(state), Restarts: restarts(state), Migrations: migrations(state, now),
		PlanOutdated: s.planOutdated.Load(), CannotBeAsked: state.CannotBeAsked, StateDamaged: state.DamageReported, HoldFile: orNull(state.HoldFile), Hook: s.hook(state), Copying: copying(state, now), UndoPoint: undoPoint(state), NoUndoPointBecause: state.NoUndoPoint, PutBack: state.PutBack,
		Leftovers: leftovers(state), Undelivered: undelivered(state),
		Stamp: stamp(state), Instance: orNull(s.instance()), Checkpoint: s.checkpoint(state),
		PreviousRun: previousRun(s.before.Load()),
	}
	r.NotAliveBecause = s.notAlive(state, now)
	role, why := s.ready(ctx, state, roleAny)
	r.NotReadyBecause, r.Role = why, orNull(role)
	r.Alive, r.Ready = r.NotAliveBecause == "", r.NotReadyBecause == ""
	if h := state.Height; h != nil {
		r.Height = &Height{h.Height, h.At.UTC(), now.Sub(h.At).Seconds(), state.RoseAt.UTC()}
	}
	if f := state.Failure; f != nil {
		r.LastFailure = &Problem{state.FailedAt.UTC(), f.Error(), f.Cause}
	}
	for j := range s.Plan.Versions {
		r.Versions = append(r.Versions, s.version(state, j))
	}
	return r
}

func (s *Status) upgrade(state *sequencer.State, now time.Time) *Upgrade {
	i := state.Record.VersionIndex
	stop := s.Plan.Versions[i].Stop
	if stop == 0 || state.Record.Phase == checkpoint.PhaseFinished {
		return nil
	}
	u := &Upgrade{StopHeight: stop}
	if blocks, eta, known := state.UntilUpgrade(s.Plan); known {
		u.RemainingBlocks = &blocks
		if eta >= 0 {
			seconds, at := eta.Seconds(), now.Add(eta).UTC()
			u.ETASeconds, u.ETAAt = &seconds, &at
		}
	}
	if i >= s.Plan.End() {
		return u
	}
	next := i + 1
	v := s.Plan.Versions[next]
	u.VersionIndex, u.Version, u.Migration, u.Hook = &next, v.Name, v.Migration != "", len(v.Before) > 0
	if p, done := state.Preflight[next]; done {
		u.Preflight = &Preflight{CheckedAt: p.At.UTC(), Problems: []string{}}
		for _, f := range upgradeFindings(state) {
			u.Preflight.Problems = append(u.Preflight.Problems, f.Text(s.Plan))
		}
	}
	return u
}

// upgradeFindings are what the last preflights found that the next version would meet.
func upgradeFindings(state *sequencer.State) []sequencer.Finding {
	return slices.Concat(state.Preflight[state.Record.VersionIndex+1].Findings, state.Preflight[sequencer.WholePlan].Findings)
}

func (s *Status) version(state *sequencer.State, j int) Version {
	v, record := s.Plan.Versions[j], &state.Record
	entry, known := record.Entry(j)
	out := Version{
		VersionIndex: j, Version: v.Name, State: "upcoming", StartHeight: v.Start, StopHeight: orNull(v.Stop), Binary: v.Binary,
		BinarySHA256: orNull(entry.BinarySHA256), Migration: "none", CompletedAt: instant(entry.CompletedAt), Proof: entry.Proof,
	}
	switch {
	case j < record.VersionIndex, known && !entry.CompletedAt.IsZero():
		out.State = "completed"
	case j == record.VersionIndex:
		out.State = "current"
	}
	if v.Migration != "" {
		out.Migration = migrationOf(state, j)
	}
	if m := entry.Migration; m != nil {
		out.MigrationBegunAt, out.MigrationCompletedAt, out.MigrationRuns = instant(m.BegunAt), instant(m.CompletedAt), m.Runs
	}
	if j == record.VersionIndex {
		out.BinarySHA256 = orNull(record.BinarySHA256)
	}
	return out
}

// instant is nil for the zero time.
func instant(t time.Time) *time.Time { return orNull(t.UTC()) }

// orNull is nil for the zero value.
func orNull[T comparable](value T) *T {
	var none T
	if value == none {
		return nil
	}
	return &value
}

// migrationOf gives the state of the migration of version j, which has one.
func migrationOf(state *sequencer.State, j int) string {
	record := &state.Record
	switch {
	case state.Process.Migration && state.Process.Version == j:
		return "running"
	case j < record.VersionIndex, j == record.VersionIndex && record.MigrationCompleted:
		return "completed"
	case j == record.VersionIndex && record.Phase == checkpoint.PhaseMigrating:
		return "begun"
	}
	return "due"
}

func (s *Status) node(state *sequencer.State) *Node {
	p := state.Process
	if p.Pid == 0 || p.Migration || p.Hook {
		return nil
	}
	return &Node{p.Version, p.Pid, p.StartedAt.UTC(), state.Starts[p.Version], p.Asked, orNull(s.OpenFiles(p.Pid))}
}

func leftovers(state *sequencer.State) []Leftover {
	all := []Leftover{}
	for _, l := range state.Left {
		all = append(all, Leftover{l.Pid, l.Command, l.Since.UTC()})
	}
	return all
}

func undelivered(state *sequencer.State) []Undelivered {
	all := []Undelivered{}
	for _, sig := range slices.Sorted(maps.Keys(state.Undelivered)) {
		all = append(all, Undelivered{signalLabel(sig), state.Undelivered[sig]})
	}
	return all
}

// restarts is how often a node was started again in this run, for any reason.
func restarts(state *sequencer.State) uint64 {
	var again uint64
	for _, starts := range state.Starts {
		again += starts - 1
	}
	return again
}

func migrations(state *sequencer.State, now time.Time) []Migration {
	all := []Migration{}
	for i, run := range state.Migrations {
		m := Migration{run.Version, run.StartedAt.UTC(), run.Took.Seconds(), run.Exit.String()}
		if state.Process.Migration && i == len(state.Migrations)-1 {
			m.Seconds, m.Exit = now.Sub(run.StartedAt).Seconds(), ""
		}
		all = append(all, m)
	}
	return all
}

func (s *Status) checkpoint(state *sequencer.State) *CheckpointState {
	if s.Checkpoint == "" {
		return nil
	}
	return &CheckpointState{s.Checkpoint, instant(state.Record.UpdatedAt)}
}

func previousRun(r *checkpoint.LastRun) *PreviousRun {
	if r == nil {
		return nil
	}
	p := &PreviousRun{BeganAt: r.BeganAt, EndedAt: r.EndedAt, ExitCode: r.ExitCode, Text: r.Unended}
	if f := r.Failure; f != nil {
		p.Cause, p.Text = sequencer.Cause(f.Cause), strings.Join(slices.DeleteFunc([]string{f.What, f.Error, f.Safe, f.Next}, func(part string) bool { return part == "" }), "; ")
	}
	p.Text = plain.Cut(p.Text, previousTextLimit)
	return p
}

// stamp is nil until the stamp is written.
func stamp(state *sequencer.State) *Stamp {
	s := state.Stamp
	if s == (checkpoint.Stamp{}) {
		return nil
	}
	return &Stamp{s.VersionIndex, s.Name, s.StartHeight, orNull(s.StopHeight), s.Migration, s.Hook, orNull(s.UndoPoint), s.Entered, s.Complete, instant(s.UpdatedAt)}
}
