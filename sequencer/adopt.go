package sequencer

import (
	"cmp"
	"errors"
	"fmt"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Word is what a person says about a state with `entrypoint checkpoint set`.
type Word struct {
	// Version is the index of the version whose format the state has.
	Version int
	// Migrated: the migration of that version has completed. Complete: the version is at its stop height.
	Migrated, Complete bool
	// Force makes the word override a stamp that says otherwise.
	Force bool
}

// Adopted is the record that follows from a person's word.
type Adopted struct {
	Stamp      checkpoint.Stamp
	Checkpoint checkpoint.Checkpoint
	// Changes says, one each, what differs from before.
	Changes []string
}

// Adopt gives the record for a person's word. found is what is on disk; what it says of earlier versions is kept.
// digest is the SHA-256 of the version's binary, and may be empty. The error is a *Failure (78).
func Adopt(plan *Plan, found checkpoint.Found, w Word, digest string) (Adopted, error) {
	before := found.Stamp
	if before == nil && found.Checkpoint != nil {
		before = found.Checkpoint.Stamp // as long as no config names the directory
	}
	if err := w.check(plan, found, before); err != nil {
		return Adopted{}, err
	}
	var r record
	if found.Checkpoint != nil {
		r.checkpoint = found.Checkpoint.Clone()
		r = r.forgotten(w.Version)
	}
	r.stamp = stampOf(plan, w.Version, digest)
	r.stamp.StopHeight = 0 // nobody knows what the node was last started with
	if before != nil && find(plan, *before) == w.Version {
		r.stamp.StopHeight = before.StopHeight
	}
	if w.Migrated {
		r.stamp.Migration = checkpoint.MigrationCompleted
	}
	r.stamp.UpdatedAt, r.checkpoint.UpdatedAt = recordTime(), recordTime()
	r = r.followed(plan)
	if w.Complete {
		r = r.completeByWord(plan)
	}
	r.checkpoint.Height = nil // the next answer gives it
	r.checkpoint.Stamped, r.checkpoint.Stamp = found.Storage != "", nil
	if found.Storage == "" {
		stamp := r.stamp
		r.checkpoint.Stamp = &stamp
	}
	return Adopted{r.stamp, r.checkpoint, changes(before, found.Checkpoint, r)}, nil
}

// check refuses a word that cannot be true, or that contradicts the stamp.
func (w Word) check(plan *Plan, found checkpoint.Found, before *checkpoint.Stamp) error {
	refuse := func(format string, args ...any) *Failure {
		return failf(CodeMismatch, format, args...).safe("nothing was changed")
	}
	if w.Version < 0 || w.Version > plan.Last() {
		return refuse("there is no version %d: %s has versions 0 to %d", w.Version, plan.File, plan.Last()).next("name one of these")
	}
	v, name := plan.Versions[w.Version], plan.Label(w.Version)
	switch {
	case v.Retired:
		return refuse("%s is retired: this image has no files of it", name).next("run this in the last image that has it, or name a later version")
	case w.Migrated && v.Migration == "":
		return refuse("%s has no migration in %s", name, plan.File).next("name the version that you mean, or omit --migrated")
	case !w.Migrated && v.Migration != "":
		return refuse("%s has a migration, and its node only works on a migrated state", name).
			next("add --migrated if that migration has completed on this state, or name the version before it, so that the migration runs at the stop height")
	case w.Complete && v.Stop == 0:
		return refuse("%s has no stop height in %s, so it cannot be complete", name, plan.File).next("omit --complete")
	case w.Complete && w.Version > plan.End(): // another version than the one that this height belongs to
		return refuse("%s starts at height %d, above --stop-height %d, so it cannot be complete there", name, v.Start, plan.Brake).
			next("name %s, which makes that height, or omit --stop-height", plan.Label(plan.End()))
	case found.State == checkpoint.StateNone && (w.Version > 0 || w.Complete):
		return refuse("there is no state in %s that could belong to %s", found.Storage, name).
			next("first mount the state, or restore it as a whole directory")
	case before == nil && !w.Force && w.half(found.Checkpoint):
		return refuse("the checkpoint says that the migration of version %d began, and the state has no stamp that says more", found.Checkpoint.VersionIndex).
			next("restore the state from before the migration, as a whole directory; only if you know that it is not half migrated, add --force")
	case before != nil && !w.Force && w.contradicts(plan, *before):
		return refuse("the stamp says that the state belongs to %s%s, not to %s%s", label(before.VersionIndex, before.Name), inWords(before.Migration), name, inWords(w.migration())).
			next("leave the stamp as it is: it was written before the version it names touched the state; only if you know that it is wrong, add --force")
	}
	return nil
}

// half reports whether, by the checkpoint, a migration began, so that the state may be half migrated.
func (w Word) half(c *checkpoint.Checkpoint) bool {
	return c != nil && c.Phase == checkpoint.PhaseMigrating && (c.Started == nil || *c.Started)
}

func (w Word) migration() checkpoint.Migration {
	if w.Migrated {
		return checkpoint.MigrationCompleted
	}
	return ""
}

// contradicts reports whether the stamp names another version, or says something else about its migration.
func (w Word) contradicts(plan *Plan, stamp checkpoint.Stamp) bool {
	return find(plan, stamp) != w.Version || stamp.Migration != w.migration()
}

// changes compares the record before with the one after.
func changes(stamp *checkpoint.Stamp, c *checkpoint.Checkpoint, after record) []string {
	var all []string
	add := func(what string, before, now any) {
		if before != now {
			all = append(all, fmt.Sprintf("%s: was %v, is %v", what, before, now))
		}
	}
	if stamp == nil {
		all = append(all, "stamp: there was none")
	} else {
		add("stamp: version", label(stamp.VersionIndex, stamp.Name), label(after.stamp.VersionIndex, after.stamp.Name))
		add("stamp: migration", cmp.Or(stamp.Migration, "none"), cmp.Or(after.stamp.Migration, "none"))
		add("stamp: complete", stamp.Complete, after.stamp.Complete)
	}
	if c != nil { // otherwise all of it is new
		add("checkpoint: version", c.VersionIndex, after.checkpoint.VersionIndex)
		add("checkpoint: migration completed", c.MigrationCompleted, after.checkpoint.MigrationCompleted)
	}
	return all
}

// Outlook is what the next start will make of a record, as far as that is known without asking the node.
type Outlook struct {
	// Differences says, one each, how checkpoint and stamp differ, and which of the two takes precedence.
	Differences []string
	// Step is what follows, usually AskVersion: what comes after that depends on the answer.
	Step Step
	// Refusal is the *Failure that would end the start; nil for none.
	Refusal error
}

// LookAhead gives the outlook for what is on disk. path is the checkpoint, empty for none; digest gives the SHA-256 of a version's binary.
func LookAhead(plan *Plan, path string, found checkpoint.Found, digest func(i int) (string, error)) Outlook {
	var f *Failure
	at, err := reconcile(plan, found, digest)
	if errors.As(err, &f) {
		return Outlook{Step: Step{Action: Refuse}, Refusal: f.withFiles(plan, path)}
	}
	var o Outlook
	if found.Checkpoint != nil && (found.Stamp != nil || found.Checkpoint.Stamp != nil) {
		for _, n := range at.notes {
			o.Differences = append(o.Differences, "the checkpoint differs from the stamp: "+n.detail)
		}
	}
	// The height in the checkpoint is an old one, so it says nothing about what a start does.
	var c Durable
	if found.State == checkpoint.StateNone {
		c.Knowledge = NoState
	}
	// Whether the undo point of the stamp is still there is seen at the start.
	if o.Step = Next(plan, at.record.stamp, c, at.record.stamp.UndoPoint != ""); o.Step.Action == Refuse {
		s := &sequence{Options: Options{Plan: plan}, record: at.record, storage: found.Storage, durable: c}
		o.Refusal = s.refusal(o.Step).withFiles(plan, path)
	}
	return o
}
