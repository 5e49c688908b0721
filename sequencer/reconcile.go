package sequencer

import (
	"fmt"
	"log/slog"

	"rollup-entrypoint/sequencer/checkpoint"
)

// settled is what follows from plan, checkpoint, stamp and state before anything is started.
type settled struct {
	record record
	// notes are for the log, in order.
	notes []note
	// keep: before the checkpoint is corrected, a copy of the file is kept beside it.
	keep bool
}

// note is a line of the log.
type note struct {
	level   slog.Level
	message string
	detail  string
}

func (s *settled) note(level slog.Level, message, format string, args ...any) {
	s.notes = append(s.notes, note{level, message, fmt.Sprintf(format, args...)})
}

// reconcile says which version the state belongs to: the table "Whose state is it?" of docs/how-an-upgrade-is-decided.md, row by row.
// It is a pure function except for digest, which gives the SHA-256 of version i's binary. The error is a *Failure.
func reconcile(plan *Plan, found checkpoint.Found, digest func(i int) (string, error)) (settled, error) {
	c, stamp := found.Checkpoint, found.Stamp
	if found.Storage == "" && c != nil {
		stamp = c.Stamp
	}
	switch {
	case found.Storage == "" && c != nil && c.Stamped:
		return settled{}, storageUnknown(plan, c)
	case c == nil && found.State == checkpoint.StateUnknown:
		return fresh(plan, nil), nil // as for the reference: no checkpoint is a new chain
	case found.State == checkpoint.StateNone:
		return reconcileNoState(plan, found)
	case stamp != nil && c != nil && found.Storage != "" && contradicts(plan, c, stamp):
		return settled{}, otherProgram(plan, c, stamp)
	case stamp != nil:
		return followStamp(plan, c, stamp)
	case c == nil && plan.Last() == 0:
		s := fresh(plan, nil)
		s.record.stamp.StopHeight = 0 // nobody knows what its node was started with
		return s, nil
	case c == nil:
		return settled{}, nobodysState(plan, found.Storage)
	case c.Stamped:
		return settled{}, otherState(plan, c, found.Storage)
	case c.Stamp != nil: // it was kept in the checkpoint while no config named the directory
		return followStamp(plan, c, c.Stamp)
	}
	return adoptCheckpoint(plan, c, digest)
}

// fresh is a state that version 0 has made or is about to make.
func fresh(plan *Plan, old *checkpoint.Checkpoint) settled {
	var r record
	if old != nil {
		r.checkpoint.Answers = old.Answers
	}
	r.stamp = stampOf(plan, 0, "")
	return settled{record: r.followed(plan)}
}

// reconcileNoState is for a directory without a state.
func reconcileNoState(plan *Plan, found checkpoint.Found) (settled, error) {
	c, stamp := found.Checkpoint, found.Stamp
	first := c == nil || c.VersionIndex == 0 && c.Height == nil
	switch {
	case stamp == nil && first && (c == nil || !c.Stamped && c.Phase != checkpoint.PhaseFinished):
		return fresh(plan, c), nil
	case stamp != nil && first && find(plan, *stamp) == 0 && stamp.Migration == "":
		return followStamp(plan, c, stamp) // a node that failed before its genesis
	}
	return settled{}, stateGone(found)
}

// contradicts reports whether a program that does not know the stamp continued from it and wrote the checkpoint.
func contradicts(plan *Plan, c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) bool {
	if c.Stamped {
		return false
	}
	at, migration := meaningOf(plan, c)
	onlyStampBegun := stamp.Migration == checkpoint.MigrationBegun && migration != checkpoint.MigrationBegun
	return at > stamp.VersionIndex || at == stamp.VersionIndex && onlyStampBegun
}

// followStamp takes the stamp as the truth, and has the checkpoint follow it.
func followStamp(plan *Plan, c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) (settled, error) {
	j := find(plan, *stamp)
	if j < 0 {
		return settled{}, unknownVersion(plan, *stamp)
	}
	s := settled{record: record{stamp: *stamp}}
	if c == nil {
		s.record = s.record.followed(plan)
		return s, nil
	}
	s.record.checkpoint = c.Clone()
	if j != stamp.VersionIndex {
		s.record.checkpoint.History = nil // its indexes are those of another plan
	}
	s.record = s.record.forgotten(j + 1)
	// Like the stamp, the checkpoint has the indexes of the plan that it was written with.
	at, migration := meaningOf(plan, c)
	switch was := stamp.VersionIndex; {
	case at == was && migration == stamp.Migration:
	case at == was-1, at == was && stamp.Migration == checkpoint.MigrationCompleted && migration == checkpoint.MigrationBegun:
		s.note(slog.LevelInfo, "checkpoint was interrupted", "it now follows the stamp of the state, which is at %s", plan.Label(j))
		if entry, known := c.Entry(was - 1); j > 0 && (!known || entry.CompletedAt.IsZero()) {
			s.record = s.record.completedEarlier(plan, j-1, stamp)
		}
	default:
		s.keep = true
		s.record = s.record.forgotten(j)
		why := "one of the two was restored"
		if at == was+1 {
			why = "an undo point was put back and the run ended before the checkpoint followed, or one of the two was restored"
		}
		s.note(slog.LevelWarn, "checkpoint corrected",
			"it was at version %d%s, but the stamp of the state says %s%s: %s, and the stamp takes precedence",
			at, inWords(migration), plan.Label(j), inWords(stamp.Migration), why)
	}
	s.record = s.record.followed(plan)
	return s, nil
}

// completedEarlier notes that version i was complete before the stamp was written.
func (r record) completedEarlier(plan *Plan, i int, stamp *checkpoint.Stamp) record {
	entry := r.entry(plan, i)
	entry.StopHeight, entry.Proof, entry.CompletedAt = plan.Versions[i].Stop, checkpoint.ProofDurable, stamp.UpdatedAt
	return r.with(entry)
}

// meaningOf is the version whose format the state has by a checkpoint, and what the checkpoint says about the migration
// of that version, in the words of a stamp.
func meaningOf(plan *Plan, c *checkpoint.Checkpoint) (i int, m checkpoint.Migration) {
	i = c.VersionIndex
	due := c.Phase == checkpoint.PhaseMigrating && c.Started != nil && !*c.Started
	switch {
	case i > 0 && (due || c.Phase == checkpoint.PhaseFinishingPrevious):
		// Written by an earlier version of this program: the version was entered, and nothing of it was started.
		if i--; i <= plan.Last() && plan.Versions[i].Migration != "" {
			m = checkpoint.MigrationCompleted
		}
	case c.MigrationCompleted:
		m = checkpoint.MigrationCompleted
	case c.Phase == checkpoint.PhaseMigrating && !due:
		m = checkpoint.MigrationBegun
	}
	return i, m
}

func inWords(m checkpoint.Migration) string {
	if m == "" {
		return ""
	}
	return ", its migration " + string(m)
}

// adoptCheckpoint stamps a state that has no stamp yet, by a checkpoint of sov-rollup-manager or of an earlier version
// of this program. If that does not prove which version the state belongs to, nothing is stamped.
func adoptCheckpoint(plan *Plan, c *checkpoint.Checkpoint, digest func(i int) (string, error)) (settled, error) {
	if c.VersionIndex > plan.Last() {
		return settled{}, beyondPlan(plan, c)
	}
	v := plan.Versions[c.VersionIndex]
	if c.BinaryPath != v.Binary && !v.Retired { // a retired version has no path, and is refused by name
		if sum, err := digest(c.VersionIndex); err != nil || c.BinarySHA256 == "" || sum != c.BinarySHA256 {
			return settled{}, otherBinary(plan, c)
		}
	}
	reference := c.Phase == ""
	switch {
	case reference && v.Migration != "" && !c.MigrationCompleted:
		return settled{}, migrationUnknown(plan, c)
	case softHandOver(c):
		return settled{}, handOverUnproven(plan, c)
	}
	i, migration := meaningOf(plan, c)
	r := record{checkpoint: c.Clone()}.forgotten(i + 1)
	r.stamp = stampOf(plan, i, "")
	r.stamp.Migration = migration
	r.stamp.StopHeight = 0 // nobody knows what its node was started with
	if i == c.VersionIndex {
		r.stamp.BinarySHA256 = c.BinarySHA256
	}
	s := settled{record: r.followed(plan), keep: true}
	s.note(slog.LevelInfo, "state stamped", "by the checkpoint, it belongs to %s%s", plan.Label(i), inWords(migration))
	return s, nil
}

// softHandOver reports whether an earlier version of this program handed over on a height that it had read over HTTP,
// and the next version's node was never seen running. Nothing says whether it touched the state.
func softHandOver(c *checkpoint.Checkpoint) bool {
	if c.Started == nil || *c.Started || c.Phase != checkpoint.PhaseRunning || c.VersionIndex == 0 || c.MigrationCompleted {
		return false
	}
	entry, known := c.Entry(c.VersionIndex - 1)
	return known && (entry.Proof == checkpoint.ProofHeight || entry.Proof == checkpoint.ProofSlack)
}
