package sequencer

import (
	"cmp"
	"slices"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// record is what is on disk: the stamp, from which everything is decided, and the checkpoint, which follows it. Its
// methods are all the transitions there are. Each gives the record to commit next.
type record struct {
	stamp      checkpoint.Stamp
	checkpoint checkpoint.Checkpoint
}

// recordTime is the present time, as the files have it.
func recordTime() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// stampOf is the stamp of version i, which is about to be started with its stop height.
func stampOf(plan *Plan, i int, digest string) checkpoint.Stamp {
	v := plan.Versions[i]
	return checkpoint.Stamp{VersionIndex: i, Name: v.Name, StartHeight: v.Start, StopHeight: v.Stop, BinarySHA256: digest}
}

// hookDone notes that the hook before the next version is done.
func (r record) hookDone(plan *Plan) record {
	r.stamp.Hook = true
	return r.followed(plan)
}

// entered hands the state over to version i, which has no migration. undo is the ID of the undo point, empty for none.
func (r record) entered(plan *Plan, i int, digest, undo string) record {
	r.stamp = stampOf(plan, i, digest)
	r.stamp.UndoPoint, r.stamp.Entered = undo, undo != ""
	return r.followed(plan)
}

// migrationBegun hands the state over to version i, whose migration is about to be executed.
func (r record) migrationBegun(plan *Plan, i int, digest, undo string) record {
	r = r.entered(plan, i, digest, undo)
	r.stamp.Migration = checkpoint.MigrationBegun
	return r.migrationRuns(plan, i)
}

// patched hands the state over to another binary of the stamped version. From then on it is not a new one any more: if
// it damages the state, no later undo point may be made of that.
func (r record) patched(plan *Plan, digest, undo string) record {
	r.stamp.Started = r.stamp.Started && r.stamp.UndoPoint == undo
	r.stamp.BinarySHA256, r.stamp.UndoPoint, r.stamp.Entered = digest, undo, undo != ""
	r.checkpoint.NodeUp = false
	return r.followed(plan)
}

// cameUp notes that a node of the stamped version may have made blocks.
func (r record) cameUp(plan *Plan) record {
	r.stamp.Entered, r.stamp.Started = false, false
	return r.followed(plan)
}

// neverUp notes that the last node of the stamped version has ended, and was not seen up.
func (r record) neverUp(plan *Plan) record {
	r.stamp.Started = false
	return r.followed(plan)
}

// putBack is the record of the state in the undo point, which is the state again.
func (r record) putBack(plan *Plan, point *checkpoint.UndoPoint) record {
	answers := r.checkpoint.Answers
	if c, err := checkpoint.Parse([]byte(point.Checkpoint)); err == nil {
		r.checkpoint = c
	} else {
		r = r.forgotten(r.stamp.VersionIndex)
	}
	r.checkpoint.Answers = answers
	r.stamp = point.Stamp
	return r.followed(plan)
}

// migrationRuns counts one more run of the migration of version i.
func (r record) migrationRuns(plan *Plan, i int) record {
	r = r.followed(plan)
	entry := r.entry(plan, i)
	runs := checkpoint.MigrationRecord{BegunAt: recordTime()}
	if entry.Migration != nil {
		runs = *entry.Migration
	}
	runs.Runs++
	entry.Migration = &runs
	return r.with(entry)
}

// migrationDone follows the migration of the stamped version.
func (r record) migrationDone(plan *Plan) record {
	r.stamp.Migration = checkpoint.MigrationCompleted
	r = r.followed(plan)
	entry := r.entry(plan, r.checkpoint.VersionIndex)
	done := checkpoint.MigrationRecord{Runs: 1}
	if entry.Migration != nil {
		done = *entry.Migration
	}
	done.CompletedAt = recordTime()
	entry.Migration = &done
	return r.with(entry)
}

// running precedes a start of the stamped version's node with the stop height stop, in blocks. A person's word that the
// version is complete does not hold after that, nor does its completion at a lower stop height.
func (r record) running(plan *Plan, stop uint64, digest string) record {
	r.stamp.StopHeight, r.stamp.BinarySHA256, r.stamp.Hook, r.stamp.Complete = stop, digest, false, false
	r.stamp.Started = r.stamp.Entered
	if entry, known := r.checkpoint.Entry(r.stamp.VersionIndex); known && !entry.CompletedAt.IsZero() {
		r = r.incomplete(entry)
	}
	return r.followed(plan)
}

// incomplete takes back that the entry's version is at its stop height.
func (r record) incomplete(entry checkpoint.Entry) record {
	entry.StopHeight, entry.Proof, entry.CompletedAt = 0, "", time.Time{}
	return r.with(entry)
}

// confirmed follows an answer of the stamped version's node: it is at height, in blocks, and its binary can be asked.
func (r record) confirmed(plan *Plan, height uint64, digest string) record {
	if entry, known := r.checkpoint.Entry(r.stamp.VersionIndex); known && height < entry.StopHeight {
		r = r.incomplete(entry) // it was complete, and then the state was restored
	}
	r.checkpoint.Height, r.checkpoint.DamageReported = &height, false
	if !slices.Contains(r.checkpoint.Answers, digest) && digest != "" {
		r.checkpoint.Answers = append(slices.Clone(r.checkpoint.Answers), digest)
	}
	return r.followed(plan)
}

// completed notes that the stamped version is at its stop height, and how we know.
func (r record) completed(plan *Plan, proof checkpoint.Proof) record {
	i := find(plan, r.stamp)
	entry, stop := r.entry(plan, i), plan.Versions[i].Stop
	if entry.StopHeight != stop || entry.CompletedAt.IsZero() { // otherwise a finished sequence was started again
		entry.StopHeight, entry.Proof, entry.CompletedAt = stop, proof, recordTime()
	}
	r.checkpoint.Phase = checkpoint.PhaseFinished // if there is no later version
	return r.with(entry).followed(plan)
}

// completeByWord takes a person's word, or that of --height-slack, that the stamped version is at its stop height.
func (r record) completeByWord(plan *Plan) record {
	r.stamp.StopHeight, r.stamp.Complete = plan.Versions[find(plan, r.stamp)].Stop, true
	return r.followed(plan)
}

// wordDropped precedes a question with another stop height than the one for which a person gave their word: a node that
// ignores its start height runs to it.
func (r record) wordDropped(plan *Plan) record {
	r.stamp.Complete = false
	return r.followed(plan)
}

// followed makes the checkpoint follow the stamp.
func (r record) followed(plan *Plan) record {
	i := find(plan, r.stamp)
	c, v := &r.checkpoint, plan.Versions[i]
	r.stamp.VersionIndex = i
	if c.VersionIndex != i { // they were those of another version
		c.Height, c.NodeUp = nil, false
	}
	c.VersionIndex, c.BinaryPath, c.BinarySHA256 = i, cmp.Or(v.Binary, c.BinaryPath), r.stamp.BinarySHA256 // a retired version has none
	c.MigrationCompleted = r.stamp.Migration == checkpoint.MigrationCompleted
	c.Started = nil
	entry, known := c.Entry(i)
	finished := known && !entry.CompletedAt.IsZero() && i >= plan.End() && entry.StopHeight == v.Stop
	switch {
	case r.stamp.Migration == checkpoint.MigrationBegun:
		c.Phase = checkpoint.PhaseMigrating
	case c.Phase != checkpoint.PhaseFinished || !finished:
		c.Phase = checkpoint.PhaseRunning
	}
	return r
}

// entry is the history's entry for version i, a new one if there is none.
func (r record) entry(plan *Plan, i int) checkpoint.Entry {
	v := plan.Versions[i]
	entry, _ := r.checkpoint.Entry(i)
	entry.VersionIndex, entry.Name, entry.BinaryPath = i, v.Name, v.Binary
	if i == r.stamp.VersionIndex {
		entry.BinarySHA256 = r.stamp.BinarySHA256
	}
	return entry
}

// with puts the entry into the history, in place of the former one of that version. A version is in it once.
func (r record) with(entry checkpoint.Entry) record {
	others := slices.DeleteFunc(slices.Clone(r.checkpoint.History), func(e checkpoint.Entry) bool { return e.VersionIndex == entry.VersionIndex })
	r.checkpoint.History = append(others, entry)
	return r
}

// forgotten drops version i and later ones from the history.
func (r record) forgotten(i int) record {
	r.checkpoint.History = slices.DeleteFunc(slices.Clone(r.checkpoint.History), func(e checkpoint.Entry) bool { return e.VersionIndex >= i })
	return r
}
