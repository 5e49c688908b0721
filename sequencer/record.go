package sequencer

import (
	"slices"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// record is what is on disk: the stamp, from which everything is decided, and the checkpoint, which follows it. Its
// methods are the transitions, all there are; each gives the record that is to be committed next.
type record struct {
	stamp      checkpoint.Stamp
	checkpoint checkpoint.Checkpoint
}

// recordTime is now, as the files have it.
func recordTime() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// stampOf is the stamp of version i, about to be started with its stop height.
func stampOf(plan *Plan, i int, digest string) checkpoint.Stamp {
	v := plan.Versions[i]
	return checkpoint.Stamp{VersionIndex: i, Name: v.Name, StartHeight: v.Start, StopHeight: v.Stop, BinarySHA256: digest}
}

// sameStamp compares two stamps. The time zone in which one was written says nothing.
func sameStamp(a, b checkpoint.Stamp) bool {
	a.UpdatedAt, b.UpdatedAt = a.UpdatedAt.UTC(), b.UpdatedAt.UTC()
	return a == b
}

// entered passes the state on to version i, which has no migration.
func (r record) entered(plan *Plan, i int, digest string) record {
	r.stamp = stampOf(plan, i, digest)
	return r.followed(plan)
}

// migrationBegun passes the state on to version i, whose migration is about to be executed.
func (r record) migrationBegun(plan *Plan, i int, digest string) record {
	r.stamp = stampOf(plan, i, digest)
	r.stamp.Migration = checkpoint.MigrationBegun
	return r.migrationRuns(plan, i)
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

// migrationDone is after the migration of the stamped version.
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

// running is before a start of the stamped version's node with stop, in blocks. Nobody's word that it is complete holds
// after that, and it is not complete any more where it was at a lower stop height.
func (r record) running(plan *Plan, stop uint64, digest string) record {
	r.stamp.StopHeight, r.stamp.BinarySHA256, r.stamp.Hook, r.stamp.Complete = stop, digest, false, false
	if entry, known := r.checkpoint.Entry(r.stamp.VersionIndex); known && !entry.CompletedAt.IsZero() {
		r = r.incomplete(entry)
	}
	return r.followed(plan)
}

// incomplete takes back that the version of the entry is at its stop height.
func (r record) incomplete(entry checkpoint.Entry) record {
	entry.StopHeight, entry.Proof, entry.CompletedAt = 0, "", time.Time{}
	return r.with(entry)
}

// confirmed is after an answer of the stamped version's node: it is at height, in blocks, and its binary can be asked.
func (r record) confirmed(plan *Plan, height uint64, digest string) record {
	if entry, known := r.checkpoint.Entry(r.stamp.VersionIndex); known && height < entry.StopHeight {
		r = r.incomplete(entry) // it was, and then the state was restored
	}
	r.checkpoint.Height = &height
	if !slices.Contains(r.checkpoint.Answers, digest) && digest != "" {
		r.checkpoint.Answers = append(slices.Clone(r.checkpoint.Answers), digest)
	}
	return r.followed(plan)
}

// completed notes that the stamped version is at its stop height, and how that is known.
func (r record) completed(plan *Plan, proof checkpoint.Proof) record {
	i := find(plan, r.stamp)
	entry, stop := r.entry(plan, i), plan.Versions[i].Stop
	if entry.StopHeight != stop || entry.CompletedAt.IsZero() { // else a finished sequence was started again
		entry.StopHeight, entry.Proof, entry.CompletedAt = stop, proof, recordTime()
	}
	r.checkpoint.Phase = checkpoint.PhaseFinished // if there is no later version
	return r.with(entry).followed(plan)
}

// completeByWord takes a person's word that the stamped version is at its stop height: given directly, or by
// --height-slack.
func (r record) completeByWord(plan *Plan) record {
	r.stamp.StopHeight, r.stamp.Complete = plan.Versions[find(plan, r.stamp)].Stop, true
	return r.followed(plan)
}

// wordDropped is before the node is asked with another stop height than the one that a person's word was given for: a node
// that does not look at its start height runs to it.
func (r record) wordDropped(plan *Plan) record {
	r.stamp.Complete = false
	return r.followed(plan)
}

// followed brings the checkpoint into line with the stamp.
func (r record) followed(plan *Plan) record {
	i := find(plan, r.stamp)
	c, v := &r.checkpoint, plan.Versions[i]
	r.stamp.VersionIndex = i
	if c.VersionIndex != i {
		c.Height = nil // it was that of another version
	}
	c.VersionIndex, c.BinaryPath, c.BinarySHA256 = i, v.Binary, r.stamp.BinarySHA256
	c.MigrationCompleted = r.stamp.Migration == checkpoint.MigrationCompleted
	c.Started = nil
	entry, known := c.Entry(i)
	finished := known && !entry.CompletedAt.IsZero() && i == plan.Last() && entry.StopHeight == v.Stop
	switch {
	case r.stamp.Migration == checkpoint.MigrationBegun:
		c.Phase = checkpoint.PhaseMigrating
	case c.Phase != checkpoint.PhaseFinished || !finished:
		c.Phase = checkpoint.PhaseRunning
	}
	return r
}

// entry is the history's entry for version i, made where there is none.
func (r record) entry(plan *Plan, i int) checkpoint.Entry {
	v := plan.Versions[i]
	entry, _ := r.checkpoint.Entry(i)
	entry.VersionIndex, entry.Name, entry.BinaryPath = i, v.Name, v.Binary
	if i == r.stamp.VersionIndex {
		entry.BinarySHA256 = r.stamp.BinarySHA256
	}
	return entry
}

// with has the entry in the history, in the place of the one of that version. A version is in it once.
func (r record) with(entry checkpoint.Entry) record {
	others := slices.DeleteFunc(slices.Clone(r.checkpoint.History), func(e checkpoint.Entry) bool { return e.VersionIndex == entry.VersionIndex })
	r.checkpoint.History = append(others, entry)
	return r
}

// forgotten drops what the history has of version i and later ones.
func (r record) forgotten(i int) record {
	r.checkpoint.History = slices.DeleteFunc(slices.Clone(r.checkpoint.History), func(e checkpoint.Entry) bool { return e.VersionIndex >= i })
	return r
}
