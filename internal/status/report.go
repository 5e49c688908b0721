package status

import (
	"context"
	"os"
	"slices"
	"time"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// Report is the answer of /status. Its keys are stable: new ones may come, none goes. What is not known is null. Heights
// are in blocks, durations in seconds.
type Report struct {
	Entrypoint      Program          `json:"entrypoint"`
	Phase           sequencer.Phase  `json:"phase"`
	PhaseSince      time.Time        `json:"phase_since"`
	Stopping        bool             `json:"stopping"`
	Alive           bool             `json:"alive"`
	NotAliveBecause string           `json:"not_alive_because"`
	Ready           bool             `json:"ready"`
	NotReadyBecause string           `json:"not_ready_because"`
	VersionIndex    int              `json:"version_index"`
	Version         string           `json:"version"`
	BinarySHA256    *string          `json:"binary_sha256"`
	Height          *Height          `json:"height"`
	BlocksPerSecond *float64         `json:"blocks_per_second"`
	NextUpgrade     *Upgrade         `json:"next_upgrade"`
	Versions        []Version        `json:"versions"`
	Node            *Node            `json:"node"`
	Restarts        uint64           `json:"restarts"`
	Migrations      []Migration      `json:"migrations"`
	LastFailure     *Problem         `json:"last_failure"`
	CannotBeAsked   bool             `json:"cannot_be_asked"`
	Stamp           *Stamp           `json:"stamp"`
	Checkpoint      *CheckpointState `json:"checkpoint"`
}

// Program is this program.
type Program struct {
	Version   string    `json:"version"`
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

// Upgrade is what comes at the stop height of the version that runs. VersionIndex is null at the last version, which ends
// there.
type Upgrade struct {
	VersionIndex    *int       `json:"version_index"`
	Version         string     `json:"version"`
	StopHeight      uint64     `json:"stop_height"`
	RemainingBlocks *uint64    `json:"remaining_blocks"`
	ETASeconds      *float64   `json:"eta_seconds"`
	ETAAt           *time.Time `json:"eta_at"`
	Migration       bool       `json:"migration"`
	Preflight       *Preflight `json:"preflight"`
}

// Preflight is what the last preflight of a version found; no problems are an empty list.
type Preflight struct {
	CheckedAt time.Time `json:"checked_at"`
	Problems  []string  `json:"problems"`
}

// Version is one version of the plan. BinarySHA256 is that of the record, and not of the file that is there now; State is
// "completed", "current" or "upcoming"; Migration is "none", "due", "running", "begun" (and its end is not recorded) or
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

// Node is the node process. Asked: it was started to give the height of its state, and not to run.
type Node struct {
	VersionIndex int       `json:"version_index"`
	Pid          int       `json:"pid"`
	StartedAt    time.Time `json:"started_at"`
	Starts       uint64    `json:"starts"`
	Asked        bool      `json:"asked"`
}

// Migration is one run of a migration. Exit is empty while it runs.
type Migration struct {
	VersionIndex int       `json:"version_index"`
	StartedAt    time.Time `json:"started_at"`
	Seconds      float64   `json:"seconds"`
	Exit         string    `json:"exit"`
}

// Problem is something that went wrong. Cause is for programs, and empty where the exit code says it all.
type Problem struct {
	At    time.Time       `json:"at"`
	Text  string          `json:"text"`
	Cause sequencer.Cause `json:"cause"`
}

// Stamp says which version's format the state has, as the file beside it does.
type Stamp struct {
	VersionIndex int                  `json:"version_index"`
	Version      string               `json:"version"`
	StartHeight  uint64               `json:"start_height"`
	StopHeight   *uint64              `json:"stop_height"`
	Migration    checkpoint.Migration `json:"migration"`
	Complete     bool                 `json:"complete"`
	UpdatedAt    *time.Time           `json:"updated_at"`
}

// CheckpointState is where the record is kept.
type CheckpointState struct {
	File      string     `json:"file"`
	UpdatedAt *time.Time `json:"updated_at"`
}

// Report makes the report of this moment. It asks the node whether it is ready.
func (s *Status) Report(ctx context.Context) Report {
	state, now := s.state.Load(), time.Now()
	i := state.Record.VersionIndex
	r := Report{
		Entrypoint: Program{s.Version, os.Getpid(), s.started.UTC()},
		Phase:      state.Phase, PhaseSince: state.Since.UTC(), Stopping: state.Stopping,
		VersionIndex: i, Version: s.Plan.Versions[i].Name, BinarySHA256: digest(state.Record.BinarySHA256),
		NextUpgrade: s.upgrade(state, now), Node: node(state), Restarts: restarts(state), Migrations: migrations(state, now),
		CannotBeAsked: state.CannotBeAsked, Stamp: stamp(state), Checkpoint: s.checkpoint(state),
	}
	r.Alive, r.NotAliveBecause = s.alive(state, now)
	r.Ready, r.NotReadyBecause = s.ready(ctx, state, roleAny)
	if h := state.Height; h != nil {
		r.Height = &Height{h.Height, h.At.UTC(), now.Sub(h.At).Seconds(), state.RoseAt.UTC()}
	}
	if state.Rate > 0 {
		r.BlocksPerSecond = &state.Rate
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
	if i == s.Plan.Last() {
		return u
	}
	next := i + 1
	u.VersionIndex, u.Version, u.Migration = &next, s.Plan.Versions[next].Name, s.Plan.Versions[next].Migration != ""
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
	out := Version{VersionIndex: j, Version: v.Name, StartHeight: v.Start, Binary: v.Binary, State: "upcoming", Migration: "none"}
	if v.Stop > 0 {
		out.StopHeight = &v.Stop
	}
	entry, known := record.Entry(j)
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
	out.CompletedAt, out.Proof, out.BinarySHA256 = instant(entry.CompletedAt), entry.Proof, digest(entry.BinarySHA256)
	if j == record.VersionIndex {
		out.BinarySHA256 = digest(record.BinarySHA256)
	}
	return out
}

// instant is nil for none.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}

// digest is nil for none.
func digest(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// migrationOf says where the migration of version j is, which has one.
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

func node(state *sequencer.State) *Node {
	p := state.Process
	if p.Pid == 0 || p.Migration {
		return nil
	}
	return &Node{p.Version, p.Pid, p.StartedAt.UTC(), state.Starts[p.Version], p.Asked}
}

// restarts is how often a node was started again in this run, whatever for.
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

// stamp is nil until the stamp is written.
func stamp(state *sequencer.State) *Stamp {
	s := state.Stamp
	if s == (checkpoint.Stamp{}) {
		return nil
	}
	out := &Stamp{s.VersionIndex, s.Name, s.StartHeight, nil, s.Migration, s.Complete, instant(s.UpdatedAt)}
	if s.StopHeight > 0 {
		out.StopHeight = &s.StopHeight
	}
	return out
}
