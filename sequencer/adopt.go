package sequencer

import (
	"fmt"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Word is what a person says of a state: 'entrypoint checkpoint set'.
type Word struct {
	// Version is the index of the version whose format the state has.
	Version int
	// Migrated: the migration of that version has completed. Complete: the version is at its stop height.
	Migrated, Complete bool
	// Force lets the word count against a stamp that says otherwise.
	Force bool
}

// Adopted is the record that a person's word gives.
type Adopted struct {
	Stamp      checkpoint.Stamp
	Checkpoint checkpoint.Checkpoint
	// Changes says what is another thing than before, one each, in words.
	Changes []string
}

// Adopt gives the record for a person's word. found is what is on disk so far; what it knows of earlier versions is kept.
// digest is the SHA-256 of the version's binary, and may be empty. The error is a *Failure (78); nothing is written here.
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
	r.stamp.StopHeight = 0 // what the node was last started with is not known
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
	case w.Migrated && v.Migration == "":
		return refuse("%s has no migration in %s", name, plan.File).next("look for the version that is meant, or leave --migrated out")
	case !w.Migrated && v.Migration != "":
		return refuse("%s has a migration, and its node works on a migrated state only", name).
			next("add --migrated if that migration has completed on this state, or name the version before, which has it run at its stop height")
	case w.Complete && v.Stop == 0:
		return refuse("%s has no stop height in %s, so it cannot be complete", name, plan.File).next("leave --complete out")
	case found.State == checkpoint.StateNone && (w.Version > 0 || w.Complete):
		return refuse("there is no state in %s that could be that of %s", found.Storage, name).
			next("mount or restore the state first, as a whole directory")
	case before == nil && !w.Force && w.half(found.Checkpoint):
		return refuse("the checkpoint says that the migration of version %d was begun, and the state has no stamp that says more", found.Checkpoint.VersionIndex).
			next("restore the state from before the migration, as a whole directory; only if you know that it is whole, add --force")
	case before != nil && !w.Force && w.contradicts(plan, *before):
		return refuse("the stamp of the state says that it is that of %s%s, not of %s%s", label(before.VersionIndex, before.Name), inWords(before.Migration), name, inWords(w.migration())).
			next("leave the stamp as it is: it was written before the version it names touched the state; only if you know that it is wrong, add --force")
	}
	return nil
}

// half: a migration was begun by the checkpoint, so the state may be half migrated.
func (w Word) half(c *checkpoint.Checkpoint) bool {
	return c != nil && c.Phase == checkpoint.PhaseMigrating && (c.Started == nil || *c.Started)
}

func (w Word) migration() checkpoint.Migration {
	if w.Migrated {
		return checkpoint.MigrationCompleted
	}
	return ""
}

// contradicts reports whether the stamp names another version, or another state of its migration.
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
		add("stamp: migration", orNothing(stamp.Migration), orNothing(after.stamp.Migration))
		add("stamp: complete", stamp.Complete, after.stamp.Complete)
	}
	if c != nil { // else all of it is new
		add("checkpoint: version", c.VersionIndex, after.checkpoint.VersionIndex)
		add("checkpoint: migration completed", c.MigrationCompleted, after.checkpoint.MigrationCompleted)
	}
	return all
}

func orNothing(m checkpoint.Migration) string {
	if m == "" {
		return "none"
	}
	return string(m)
}
