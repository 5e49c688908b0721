package status

import (
	"fmt"
	"time"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// UndoPoint is the copy of the state from before a version, or another binary of the same version, touched it. Version
// is that of the copied state, For the one that was about to touch it.
type UndoPoint struct {
	Directory       string                `json:"directory"`
	VersionIndex    int                   `json:"version_index"`
	Version         string                `json:"version"`
	ForVersionIndex int                   `json:"for_version_index"`
	ForVersion      string                `json:"for_version"`
	Height          *uint64               `json:"height"`
	Method          checkpoint.UndoMethod `json:"method"`
	Bytes           int64                 `json:"bytes"`
	CreatedAt       time.Time             `json:"created_at"`
}

// Copying is how far the copy is that becomes the undo point.
type Copying struct {
	Method     checkpoint.UndoMethod `json:"method"`
	DoneBytes  int64                 `json:"done_bytes"`
	TotalBytes int64                 `json:"total_bytes"`
	BegunAt    time.Time             `json:"begun_at"`
	ETASeconds *float64              `json:"eta_seconds"`
}

// Hook is the hook that runs before a version is entered.
type Hook struct {
	VersionIndex int       `json:"version_index"`
	Version      string    `json:"version"`
	Pid          int       `json:"pid"`
	StartedAt    time.Time `json:"started_at"`
}

func undoPoint(state *sequencer.State) *UndoPoint {
	p := state.UndoPoint
	if p == nil {
		return nil
	}
	return &UndoPoint{p.Path, p.Stamp.VersionIndex, p.Stamp.Name, p.To.VersionIndex, p.To.Name, p.Height, p.Method, p.Bytes, p.CreatedAt.UTC()}
}

func copying(state *sequencer.State, now time.Time) *Copying {
	p := state.Copying
	if p == nil {
		return nil
	}
	c := &Copying{p.Method, p.Done, p.Total, p.Since.UTC(), nil}
	if p.Done > 0 {
		left := now.Sub(p.Since).Seconds() * float64(max(p.Total-p.Done, 0)) / float64(p.Done)
		c.ETASeconds = &left
	}
	return c
}

func (s *Status) hook(state *sequencer.State) *Hook {
	p := state.Process
	if p.Pid == 0 || !p.Hook {
		return nil
	}
	return &Hook{p.Version, s.Plan.Versions[p.Version].Name, p.Pid, p.StartedAt.UTC()}
}

// viewUndo shows what holds the sequence, what is done before an upgrade, and how that can be undone.
func (r Report) viewUndo(v *view) {
	if r.HoldFile != nil {
		v.line("hold", "nothing follows while %s exists: 'entrypoint resume --hold-file %s' removes it", *r.HoldFile, sequencer.Quoted(*r.HoldFile))
	}
	if c := r.Copying; c != nil {
		left := ""
		if c.ETASeconds != nil {
			left = ", about " + duration(*c.ETASeconds) + " left"
		}
		v.line("copying", "%s of %s (%s)%s", plain.Bytes(c.DoneBytes), plain.Bytes(c.TotalBytes), c.Method, left)
	}
	if h := r.Hook; h != nil {
		v.line("hook", "before %s: pid %d, for %s", h.Version, h.Pid, since(h.StartedAt))
	}
	if p := r.UndoPoint; p != nil {
		height := ""
		if p.Height != nil {
			height = fmt.Sprintf(" at height %d", *p.Height)
		}
		v.line("undo", "%s%s, %s (%s), made %s: %s", p.Version, height, plain.Bytes(p.Bytes), p.Method, utc(p.CreatedAt), p.Directory)
	}
	if r.NoUndoPointBecause != "" {
		v.line("warning", "the last upgrade has no undo point: %s", r.NoUndoPointBecause)
	}
	if r.PutBack > 0 {
		v.line("warning", "an undo point was put back, times: %d", r.PutBack)
	}
}

func (m *moment) ofTheUndoPoint() []metric {
	made, point, copied, p := m.UndoPoint != nil, checkpoint.UndoPoint{}, m.Copying != nil, sequencer.UndoProgress{}
	if made {
		point = *m.UndoPoint
	}
	if copied {
		p = *m.Copying
	}
	var height uint64
	if point.Height != nil {
		height = *point.Height
	}
	return []metric{
		{"entrypoint_held", gauge, "1 while an operator holds the sequence: nothing is started.", one(truth(m.Phase == sequencer.PhaseHeld))},
		{"entrypoint_undo_point", gauge, "1 if there is an undo point.", one(truth(made))},
		{"entrypoint_undo_point_height_blocks", gauge, "Durable height of the state in the undo point, in blocks.", oneIf(point.Height != nil, float64(height))},
		{"entrypoint_undo_point_bytes", gauge, "Size of the files in the undo point.", oneIf(made, float64(point.Bytes))},
		{"entrypoint_undo_point_timestamp_seconds", gauge, "When the undo point was made, as a Unix time.", oneIf(made, unixTime(point.CreatedAt))},
		{"entrypoint_undo_copy_done_bytes", gauge, "How much of the state is copied so far; absent unless an undo point is being made.", oneIf(copied, float64(p.Done))},
		{"entrypoint_undo_copy_size_bytes", gauge, "How much there is to copy.", oneIf(copied, float64(p.Total))},
		{"entrypoint_undo_points_put_back_total", counter, "How often an undo point was put back because an upgrade failed.", one(float64(m.PutBack))},
		{"entrypoint_upgrade_without_undo_point", gauge, "1 if the last upgrade of this run has no undo point.", one(truth(m.NoUndoPoint != ""))},
	}
}
