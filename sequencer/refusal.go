package sequencer

import (
	"errors"
	"fmt"
	"syscall"

	"rollup-entrypoint/sequencer/checkpoint"
)

// untouched is what is safe when a run ends before its first start.
const untouched = "nothing was started and the state was not touched"

// findLast is what to do before one of the commands that follow is run.
const findLast = "find in the log what ran last on this state, and run the command that is true"

// Unreadable is the failure (65) for a checkpoint or stamp that cannot be read. path is the checkpoint, empty for none;
// beside is what can be read of the other one.
func Unreadable(plan *Plan, path string, err error, beside checkpoint.Found) *Failure {
	f := failf(CodeCheckpointUnreadable, "checkpoint or stamp cannot be read").because(err).
		safe("nothing was started, and neither the state nor the file was changed")
	var file *checkpoint.UnreadableError
	isStamp := errors.As(err, &file) && file.Stamp
	switch {
	case errors.Is(err, checkpoint.ErrNoFile) && !isStamp:
		return f.next("mount the directory that holds the checkpoint, and name a file in it")
	case errors.As(err, new(syscall.Errno)):
		return f.next("make it readable for the user that the entrypoint runs as, or repair the volume, and start again")
	case errors.Is(err, checkpoint.ErrNoFile):
		return f.next("move it away, and start again")
	case !isStamp && beside.Stamp != nil:
		return f.next("move the checkpoint away and start again: the stamp of the state, which names %s, takes precedence", label(beside.Stamp.VersionIndex, beside.Stamp.Name))
	}
	if c := beside.Checkpoint; c != nil && c.Phase == checkpoint.PhaseMigrating && c.VersionIndex <= plan.Last() {
		return f.halfMigrated(plan, c).withFiles(plan, path)
	}
	return f.next("restore the state from a snapshot; or find in the log which version ran last on it, and run only that version's command: a wrong one destroys the state").
		remedy(eachVersion(plan, "it belongs to ", isStamp)...).withFiles(plan, path)
}

// halfMigrated says what to do with a state whose stamp is lost while the checkpoint says that a migration began.
func (f *Failure) halfMigrated(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	i := c.VersionIndex
	return f.next("the checkpoint says that the migration of %s began, so the state may be half migrated: restore the state from before the migration, as a whole directory", plan.Label(i)).
		remedy(Remedy{When: "the log shows that this migration did complete on this state", Version: i, Migrated: plan.Versions[i].Migration != "", Force: true})
}

// unusable is the end for a plan whose files have problems, before anything was started.
func unusable(problems Problems) *Failure {
	return mismatch(FilesInvalid, "files that the plan names cannot be used").because(problems).
		safe("nothing was started").next("fix these files, or rebuild the image with them, and start again")
}

func storageUnknown(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	return mismatch(StorageUnknown, "the checkpoint, at version %d, follows a stamp in the state, but the node configs of %s no longer say where the state is", c.VersionIndex, plan.File).
		safe(untouched).next("put storage.path back into the node configs")
}

// stateGone is the end for a record without its state: a node would commit a new genesis in the empty directory.
func stateGone(found checkpoint.Found) *Failure {
	var at string
	if found.Stamp != nil {
		at = "the stamp names " + label(found.Stamp.VersionIndex, found.Stamp.Name)
	} else {
		at = fmt.Sprintf("the checkpoint is at version %d", found.Checkpoint.VersionIndex)
	}
	return mismatch(StateGone, "%s, but there is no state in %s: it is gone, not mounted, or was moved away", at, found.Storage).
		safe("nothing was started").next("mount the state, or restore it as a whole directory").
		remedy(Remedy{When: "you want to sync the chain from genesis again, which needs every version in the image", Version: 0, Force: true})
}

// otherProgram is for a checkpoint that is ahead of the stamp and does not know it.
func otherProgram(plan *Plan, c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) *Failure {
	f := mismatch(OtherProgram, "another program continued from the stamp of the state, at %s%s, and wrote the checkpoint, at version %d",
		label(stamp.VersionIndex, stamp.Name), inWords(stamp.Migration), c.VersionIndex).safe(untouched)
	if c.VersionIndex > plan.Last() {
		return f.next("start with a plan that has version %d, or restore the state with its stamp and move the checkpoint away", c.VersionIndex)
	}
	if stamp.Migration == checkpoint.MigrationBegun {
		f.next("if the migration was interrupted halfway, restore the state from before it")
	} else if j := find(plan, *stamp); j >= 0 && j < c.VersionIndex-1 && (stamp.Migration != "") == (plan.Versions[j].Migration != "") {
		f = f.remedy(Remedy{When: "the state was restored after that, with its stamp", Version: j, Migrated: stamp.Migration != ""})
	}
	return f.remedy(bothWays(plan, c.VersionIndex, true)...)
}

// nobodysState is for a state without a record: a node of the wrong version would destroy it.
func nobodysState(plan *Plan, dir string) *Failure {
	return mismatch(OwnerUnknown, "there is a state in %s, but neither a checkpoint nor a stamp says which version made it, and the node of a wrong version would destroy it", dir).
		safe(untouched).next("find in the log which version ran last on this state, and run only its command: a wrong one destroys the state").remedy(eachVersion(plan, "it was ", false)...)
}

func otherState(plan *Plan, c *checkpoint.Checkpoint, dir string) *Failure {
	f := mismatch(OtherState, "the checkpoint, at version %d, belongs to a state with a stamp, but the state in %s has none: it is a different state, or it has lost its stamp", c.VersionIndex, dir).
		safe(untouched)
	if c.Phase == checkpoint.PhaseMigrating && c.VersionIndex <= plan.Last() {
		return f.halfMigrated(plan, c)
	}
	return f.next("restore the state with its %s; or find in the log which version ran last on this one, and run only its command: a wrong one destroys the state", checkpoint.StampFile).
		remedy(eachVersion(plan, "it was ", false)...)
}

// unknownVersion is for a plan that has lost the version of the stamp, or has moved its start height.
func unknownVersion(plan *Plan, stamp checkpoint.Stamp) *Failure {
	if stamp.IsHalfDeleted() {
		return mismatch(StateGone, "a reset was interrupted while it was deleting the state, and only a part of the state is left").
			safe("nothing was started on it").next("run 'entrypoint reset --delete' again to delete the rest")
	}
	if stamp.IsHalfPutBack() {
		return mismatch(StateGone, "an undo point was being put back, and that was interrupted, so only a part of the state is in its place").
			safe("nothing was started on it, and the undo point has the rest").next("start the entrypoint with the same --undo-dir, which finishes it")
	}
	f := mismatch(VersionUnknown, "the state belongs to version %q (index %d), which starts at height %d, but %s has no version with that name and start height",
		stamp.Name, stamp.VersionIndex, stamp.StartHeight, plan.File).
		safe(untouched).next("put that version back into the plan as it was; the node of any other version would destroy the state")
	for i, v := range plan.Versions {
		same := i > 0 && v.Start == stamp.StartHeight && (stamp.Migration != "") == (v.Migration != "")
		if same && stamp.Migration != checkpoint.MigrationBegun {
			f = f.remedy(Remedy{When: "it is the same version under another name, now " + plan.Label(i), Version: i, Migrated: v.Migration != "", Force: true})
		}
	}
	return f
}

func beyondPlan(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	return mismatch(VersionUnknown, "the checkpoint is at version %d, but %s has only versions 0 to %d", c.VersionIndex, plan.File, plan.Last()).
		safe(untouched).next("start with a plan that has version %d; the state cannot go back to an older version", c.VersionIndex)
}

func otherBinary(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	i := c.VersionIndex
	f := mismatch(OwnerUnknown, "the checkpoint is at %s with the binary %s, but %s has %s for it, and nothing shows that they are the same",
		plan.Label(i), c.BinaryPath, plan.File, plan.Versions[i].Binary).safe(untouched)
	for j, v := range plan.Versions {
		if v.Binary == c.BinaryPath {
			return f.next("that binary now belongs to version %d: if versions were inserted or removed, put them back as they were", j)
		}
	}
	return f.next(findLast).remedy(bothWays(plan, i, false)...)
}

func migrationUnknown(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	return mismatch(OwnerUnknown, "the checkpoint, as sov-rollup-manager writes it, does not say whether the migration of %s completed", plan.Label(c.VersionIndex)).
		safe(untouched).next("if the migration was interrupted halfway, restore the state from before it").
		remedy(bothWays(plan, c.VersionIndex, false)...)
}

func handOverUnproven(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	i := c.VersionIndex
	return mismatch(OwnerUnknown, "the checkpoint is at %s, but it was written before the stop height of %s was confirmed, and the node of %s was never seen running",
		plan.Label(i), plan.Label(i-1), plan.Label(i)).safe(untouched).next(findLast).remedy(bothWays(plan, i, false)...)
}

// retired is the end for a state that needs a version whose files are no longer in the image.
func (s *sequence) retired(j int) *Failure {
	v := s.Plan.Versions[j]
	image := "an image that still has it"
	if v.LastImage != "" {
		image = "the last image that has it, " + v.LastImage + ","
	}
	f := mismatch(Retired, "the state needs %s, which is retired: this image has no files of it", s.Plan.Label(j)).safe(untouched)
	if s.durable.Knowledge == NoState {
		f.What = fmt.Sprintf("there is no state, and %s, which makes the first blocks, is retired: this image has no files of it", s.Plan.Label(j))
	}
	return f.next("run %s up to height %d, or restore a snapshot of a later version as a whole directory", image, v.Stop)
}

// refusal words a step that refuses to start anything.
func (s *sequence) refusal(step Step) *Failure {
	if step.Version < 0 {
		return unknownVersion(s.Plan, s.record.stamp)
	}
	const halfMigrated = "nothing was started, and the state may be half migrated"
	j, v := step.Version, s.Plan.Versions[step.Version]
	name, file, height := s.Plan.Label(j), s.Plan.File, s.durable.Height
	switch step.Cause { //nolint:exhaustive // the others are no steps
	case Retired:
		return s.retired(j)
	case MigrationVanished:
		return mismatch(step.Cause, "the migration of %s was interrupted, but %s no longer has one for it", name, file).
			safe(halfMigrated).next("put migration_path back, or restore the state from before the migration")
	case MigrationInterrupted:
		if s.record.stamp.DryRun {
			return mismatch(step.Cause, "a dry run of the migration of %s was interrupted, and the undo point from before it is not found", name).
				safe(halfMigrated).next("name the directory of the undo point with --undo-dir, as for the dry run, and start again; if it is lost, restore the state from before the dry run, as a whole directory")
		}
		if s.record.stamp.UndoPoint != "" {
			return mismatch(step.Cause, "the migration of %s was interrupted, and the undo point from before it cannot be put back: it is not found, or %s does not have its version", name, file).
				safe(halfMigrated).next("name the directory of the undo point with --undo-dir, as before, and start again; if it is lost, restore the state from before the migration, or run 'entrypoint undo --drop': then on_interrupted_migration decides")
		}
		return mismatch(step.Cause, "the migration of %s began and is not recorded as completed, and on_interrupted_migration is %q", name, Halt).
			safe(halfMigrated).next("restore the state from before the migration, as a whole directory, and start again").
			remedy(Remedy{When: "the log shows that this migration did complete on this state", Version: j, Migrated: true, Force: true})
	case MigrationSkipped:
		return mismatch(step.Cause, "%s has a migration in %s, but it was started on this state without one", name, file).
			safe(untouched).next("if it needs no migration, remove migration_path").remedy(bothWays(s.Plan, j, true)...)
	case StateGone:
		return stateGone(checkpoint.Found{Stamp: &s.record.stamp, Storage: s.storage})
	case TooLate, Overrun:
		return s.tooHigh(step)
	}
	return mismatch(step.Cause, "the state is at height %d, but %s, which made it, starts at height %d", height, name, v.Start).
		safe("nothing else was started").next("correct start_height of %s in %s: it is %d, above this state", name, file, v.Start)
}

// tooHigh is the end for a state above the stop height of its version, or above the emergency stop.
func (s *sequence) tooHigh(step Step) *Failure {
	v, name, file, height := s.Plan.Versions[step.Version], s.Plan.Label(step.Version), s.Plan.File, s.durable.Height
	what := fmt.Sprintf("the state of %s is at height %d", name, height)
	if step.Cause == Overrun {
		what = fmt.Sprintf("%s was started with the stop height %d and ran past it: its state is at height %d", name, s.record.stamp.StopHeight, height)
	}
	least := ""
	switch n := s.Plan.Brake; {
	case v.Start > n && braked(s.Plan, step.Version):
		what, height = fmt.Sprintf("the state belongs to %s, which starts at height %d", name, v.Start), v.Start
		least = ", and not below the height of the state" // its node was not asked
		fallthrough
	case braked(s.Plan, step.Version):
		return mismatch(step.Cause, "%s, above --stop-height %d", what, n).safe("nothing else was started").
			next("remove --stop-height, or set it to %d or more%s: it takes no block back; to end the chain at height %d all the same, restore the state from before height %d, as a whole directory", height, least, n, n+1)
	case step.Cause == Overrun:
		return mismatch(step.Cause, "%s", what).safe("no later version was started").
			next("restore the state from before height %d: the blocks from there on were made by the wrong version; then find out why the node did not stop", v.Stop+1)
	}
	return mismatch(step.Cause, "too late: %s, above the stop height %d, which was deployed only after it had passed", what, v.Stop).
		safe("no later version was started, and the state was not touched").
		next("the blocks above height %d were made by the wrong version, so no later version may build on them: restore the state from before height %d, or, if the whole network can fork later, set a stop_height of at least %d in %s", v.Stop, v.Stop+1, height, file)
}
