package sequencer

import (
	"errors"
	"fmt"
	"syscall"

	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// stderrLines is how many of the last lines of a process a failure quotes.
const stderrLines = 10

// moreMemory is what helps where the kernel killed because the container ran out of memory.
const moreMemory = "give the container a higher memory limit, or the machine more memory"

// untouched is what is safe where a run ends before its first start.
const untouched = "nothing was started and the state was not touched"

// bothWays are the two commands for a state of which nobody knows whether version i has begun to work on it: each says
// what has to be true for it.
func bothWays(p *Plan, i int, force bool) []Remedy {
	v := p.Versions[i]
	it := Remedy{Version: i, Migrated: v.Migration != "", Force: force, When: fmt.Sprintf("the node of %s was started on this state before", p.Label(i))}
	if v.Migration != "" {
		it.When = fmt.Sprintf("the migration of %s has completed on this state", p.Label(i))
	}
	if i == 0 {
		return []Remedy{it}
	}
	before := Remedy{Version: i - 1, Migrated: p.Versions[i-1].Migration != "", Force: force}
	before.When = fmt.Sprintf("the node of %s ran last on this state, and nothing of %s was ever started on it", p.Label(i-1), p.Label(i))
	return []Remedy{it, before}
}

// Unreadable is the failure (65) for a record that cannot be read. path is the checkpoint, empty for none; beside is what
// can be read of it.
func Unreadable(plan *Plan, path string, err error, beside checkpoint.Found) error {
	return unreadable(plan, err, beside).withFiles(plan.File, path)
}

// unreadable is the end for a checkpoint or stamp that cannot be read. beside is what can be read of the other one.
func unreadable(plan *Plan, err error, beside checkpoint.Found) *Failure {
	f := failf(CodeCheckpointUnreadable, "the record of the sequence cannot be read").because(err).
		safe(untouched + ", and the file was left as it is")
	var file *checkpoint.UnreadableError
	isStamp := errors.As(err, &file) && file.Stamp
	switch {
	case errors.Is(err, checkpoint.ErrNoFile) && !isStamp:
		return f.next("mount the directory that holds the checkpoint, and name a file in it")
	case errors.As(err, new(syscall.Errno)):
		return f.next("make it readable for the user who runs this, or repair the volume, and start again")
	case errors.Is(err, checkpoint.ErrNoFile):
		return f.next("move it away, and start again")
	case !isStamp && beside.Stamp != nil:
		return f.next("move the checkpoint away and start again: the stamp of the state, which is that of %s, counts", label(beside.Stamp.VersionIndex, beside.Stamp.Name))
	}
	if c := beside.Checkpoint; c != nil && c.Phase == checkpoint.PhaseMigrating && c.VersionIndex <= plan.Last() {
		return f.halfMigrated(plan, c)
	}
	return f.next("find out which version the state belongs to: restore it, or look into the log for the version that ran last on it").
		remedy(eachVersion(plan, "it belongs to ", isStamp)...)
}

// halfMigrated is what to do with a state whose stamp is lost while the checkpoint says that a migration was begun.
func (f *Failure) halfMigrated(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	i := c.VersionIndex
	return f.next("the checkpoint says that the migration of %s was begun: the state may be half migrated; restore it from before the migration, as a whole directory", plan.Label(i)).
		remedy(Remedy{When: "the log shows that this migration did complete on this state", Version: i, Migrated: plan.Versions[i].Migration != "", Force: true})
}

// eachVersion are the commands for a state that can be that of any version; when begins their conditions.
func eachVersion(plan *Plan, when string, force bool) []Remedy {
	var all []Remedy
	for i, v := range plan.Versions {
		r := Remedy{When: when + plan.Label(i), Version: i, Migrated: v.Migration != "", Force: force}
		if r.Migrated {
			r.When += " and its migration has completed"
		}
		all = append(all, r)
	}
	return all
}

// unusable is the end for a plan whose files have problems, before anything was started.
func unusable(problems Problems) *Failure {
	return mismatch(FilesInvalid, "files of the plan cannot be used").because(problems).
		safe("nothing was started").next("fix them and start again")
}

func storageUnknown(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	return mismatch(StorageUnknown, "the checkpoint, at version %d, follows a stamp in the state, but no config in %s says any more where the state is", c.VersionIndex, plan.File).
		safe(untouched).next("put storage.path back into the configs of the versions")
}

// stateGone is the end for a record without its state: a node would commit a new genesis in the empty directory.
func stateGone(found checkpoint.Found) *Failure {
	at := "the record"
	switch {
	case found.Stamp != nil:
		at = "the stamp, of " + label(found.Stamp.VersionIndex, found.Stamp.Name) + ","
	case found.Checkpoint != nil:
		at = fmt.Sprintf("the checkpoint, at version %d,", found.Checkpoint.VersionIndex)
	}
	return mismatch(StateGone, "%s is about a state, but the directory %s has none: it is gone, not mounted, or was moved away", at, found.Storage).
		safe("nothing was started").next("mount or restore the state, as a whole directory").
		remedy(Remedy{When: "the chain is to be synced again from genesis, which needs every version in the image", Version: 0, Force: true})
}

// otherProgram is for a checkpoint that is ahead of the stamp and does not know it.
func otherProgram(plan *Plan, c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) *Failure {
	f := mismatch(OtherProgram, "the checkpoint, at version %d, was written by another program, which continued from the stamp of the state, at %s%s",
		c.VersionIndex, label(stamp.VersionIndex, stamp.Name), inWords(stamp.Migration)).safe(untouched)
	if c.VersionIndex > plan.Last() {
		return f.next("start with the config that has version %d, or restore the state with its stamp and move the checkpoint away", c.VersionIndex)
	}
	if stamp.Migration == checkpoint.MigrationBegun {
		return f.next("restore the state from before the migration if that was left half done").
			remedy(bothWays(plan, c.VersionIndex, true)...)
	}
	if j := find(plan, *stamp); j >= 0 && j < c.VersionIndex-1 && (stamp.Migration != "") == (plan.Versions[j].Migration != "") {
		f = f.remedy(Remedy{When: "the state was restored since, with its stamp", Version: j, Migrated: stamp.Migration != ""})
	}
	return f.remedy(bothWays(plan, c.VersionIndex, true)...)
}

// nobodysState is for a state without a word about it: a node of the wrong version would destroy it.
func nobodysState(plan *Plan, dir string) *Failure {
	return mismatch(OwnerUnknown, "there is a state in %s, and neither a checkpoint nor a stamp says which version made it: the node of a wrong one would destroy it", dir).
		safe(untouched).next("find out which version ran last on this state").remedy(eachVersion(plan, "it was ", false)...)
}

func otherState(plan *Plan, c *checkpoint.Checkpoint, dir string) *Failure {
	f := mismatch(OtherState, "the checkpoint, at version %d, belongs to a state with a stamp, and the state in %s has none: it is another one, or it has lost its stamp", c.VersionIndex, dir).
		safe(untouched)
	if c.Phase == checkpoint.PhaseMigrating && c.VersionIndex <= plan.Last() {
		return f.halfMigrated(plan, c)
	}
	return f.next("restore the state with its %s, or find out which version ran last on this one", checkpoint.StampFile).
		remedy(eachVersion(plan, "it was ", false)...)
}

// unknownVersion is for a plan that has lost the version of the stamp, or has moved its start height.
func unknownVersion(plan *Plan, stamp checkpoint.Stamp) *Failure {
	f := mismatch(VersionUnknown, "the state is that of version %d (%q), which starts at height %d, and %s has no version of that name with that start height",
		stamp.VersionIndex, stamp.Name, stamp.StartHeight, plan.File).
		safe(untouched).next("put the version back into the config as it was; the node of any other one would destroy the state")
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
		safe(untouched).next("start with the config that has version %d; the state cannot go back to an older version", c.VersionIndex)
}

func otherBinary(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	i := c.VersionIndex
	f := mismatch(OwnerUnknown, "the checkpoint is at %s with the binary %s, but %s has %s there, and nothing shows that it is the same one",
		plan.Label(i), c.BinaryPath, plan.File, plan.Versions[i].Binary).safe(untouched)
	for j, v := range plan.Versions {
		if v.Binary == c.BinaryPath {
			return f.next("that binary is now version %d: if versions were inserted or removed, put them back as they were", j)
		}
	}
	return f.remedy(bothWays(plan, i, false)...)
}

func migrationUnknown(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	return mismatch(OwnerUnknown, "the checkpoint, as sov-rollup-manager writes it, does not say whether the migration of %s completed", plan.Label(c.VersionIndex)).
		safe(untouched).next("if the migration was left half done, restore the state from before it").
		remedy(bothWays(plan, c.VersionIndex, false)...)
}

func handOverUnproven(plan *Plan, c *checkpoint.Checkpoint) *Failure {
	i := c.VersionIndex
	return mismatch(OwnerUnknown, "the checkpoint is at %s, but it was written before %s had proved its stop height, and the node of %s was never seen up",
		plan.Label(i), plan.Label(i-1), plan.Label(i)).safe(untouched).remedy(bothWays(plan, i, false)...)
}

// refusal words a step that refuses to start anything.
func (s *sequence) refusal(step Step) *Failure {
	if step.Version < 0 {
		return unknownVersion(s.Plan, s.record.stamp)
	}
	j, v := step.Version, s.Plan.Versions[step.Version]
	name := s.Plan.Label(j)
	switch step.Cause { //nolint:exhaustive // the others are no steps
	case MigrationVanished:
		return mismatch(step.Cause, "the migration of %s was interrupted, but %s has none for it any more", name, s.Plan.File).
			safe("nothing was started, and the state may be half migrated").next("put migration_path back, or restore the state from before the migration")
	case MigrationInterrupted:
		return mismatch(step.Cause, "the migration of %s was begun and is not recorded as completed, and on_interrupted_migration is %q", name, Halt).
			safe("nothing was started, and the state may be half migrated").next("restore the state from before the migration, as a whole directory, and start again").
			remedy(Remedy{When: "the log shows that this migration did complete on this state", Version: j, Migrated: true, Force: true})
	case MigrationSkipped:
		return mismatch(step.Cause, "%s has a migration in %s, but it was started without one on this state", name, s.Plan.File).
			safe(untouched).next("remove migration_path if that is right").remedy(bothWays(s.Plan, j, true)...)
	case StateGone:
		return stateGone(checkpoint.Found{Stamp: &s.record.stamp, Storage: s.storage})
	case TooLate:
		return s.tooLate(j)
	case Overrun:
		return mismatch(step.Cause, "%s was started with the stop height %d and ran past it: its state is at height %d", name, s.record.stamp.StopHeight, s.durable.Height).
			safe("no later version was started").
			next("restore the state from before height %d: the blocks above it were made by the wrong version; then find out why the node did not stop there", v.Stop+1)
	}
	return mismatch(step.Cause, "the state is at height %d, below height %d where %s, which made it, starts", s.durable.Height, v.Start, name).
		safe("nothing else was started").next("restore the heights of the plan: %s has start_height %d, and this state does not agree with it", s.Plan.File, v.Start)
}

// tooLate is for an image that was deployed after its stop height had passed.
func (s *sequence) tooLate(j int) *Failure {
	v := s.Plan.Versions[j]
	return mismatch(TooLate, "too late: this plan was deployed after height %d, the stop height of %s, had passed: its state is at height %d",
		v.Stop, s.Plan.Label(j), s.durable.Height).
		safe("no later version was started, and the state was not touched").
		next("the blocks above height %d were made by the wrong version, so no later version may build on them: restore the state from before height %d, or, if the network as a whole forks later, set a stop_height of at least %d in %s",
			v.Stop, v.Stop+1, s.durable.Height, s.Plan.File)
}

// mayBeComplete is the end for a node that cannot be asked: only a person can say whether it is at its stop height.
func (s *sequence) mayBeComplete(j int, what string, said string) *Failure {
	v := s.Plan.Versions[j]
	f := mismatch(NotAnswered, "%s %s, and its node cannot be asked for its height", s.Plan.Label(j), what).
		safe("nothing of a later version was started").
		next("read what the node wrote: if something else is wrong, fix that and start again; --height-slack counts exit 0 near the stop height as complete").
		remedy(Remedy{When: fmt.Sprintf("its log shows that height %d is committed and nothing above it", v.Stop), Version: j, Migrated: v.Migration != "", Complete: true})
	f.Stderr = said
	return f
}

// nodeFailed words the end of a node of version i that exited with a code of its own, or was killed: what says how.
func (s *sequence) nodeFailed(i int, what string, exit Exit, said string) *Failure {
	f := failf(exit.Status(), "%s: %s", s.Plan.Label(i), what)
	f.Stderr = said
	if complaint, sentence := sovereign.FindComplaint(said); complaint != 0 {
		return s.complains(f, complaint, sentence)
	}
	f.safe("the record is right, and nothing of another version was started")
	switch {
	case exit.OutOfMemory:
		f.next(moreMemory + "; then start again")
	case exit.Signal == syscall.SIGKILL:
		f.next("start again; if nobody killed the node, look for the out-of-memory killer in the kernel log or the container's state")
	case s.stranger:
		f.next("end the other process that answers on the port of runner.http_config in %s, or give the node a port of its own", s.Plan.Versions[i].Config)
	default:
		f.next("read what the node wrote last; the next start continues with %s", s.Plan.Label(i))
	}
	return f
}

// complains puts into words what a node said of its state: text may choose words, never actions.
func (s *sequence) complains(f *Failure, complaint sovereign.Complaint, sentence string) *Failure {
	if complaint == sovereign.NotMigrated {
		f.Cause = NotMigrated
		f.What += fmt.Sprintf("; it says that its state was not migrated (%q)", sentence)
		return f.safe("nothing of another version was started").
			next("if this version needs a migration, add migration_path to it in %s; if it has one, the wrong program may be configured as the migration", s.Plan.File)
	}
	f.Cause = StateDamaged
	f.What += fmt.Sprintf("; it says that its state is damaged (%q)", sentence)
	return f.safe("nothing of another version was started, and starting again does no further harm").
		next("restore the state from a snapshot, as a whole directory, or sync again from genesis: a node that was killed while it committed, or a state that another version opened, ends like this and does not heal")
}

// lastReported says in words which height the last node reported.
func (s *sequence) lastReported() string {
	if s.height == nil {
		return " (it reported no height)"
	}
	return fmt.Sprintf(" (last height reported: %d)", *s.height)
}

// cannotEnter is the end of a run whose version before i is complete, while the files of version i are not usable.
func (s *sequence) cannotEnter(i int, problems Problems) error {
	return mismatch(FilesInvalid, "%s is complete at height %d, but %s cannot be started", s.Plan.Label(i-1), s.Plan.Versions[i-1].Stop, s.Plan.Label(i)).
		because(problems).safe("nothing of it was started and the record is unchanged").next("fix its files and start again")
}

// startFailure is the end for a program that the kernel does not execute.
func (s *sequence) startFailure(i int, what string, err error) error {
	code := CodeNotExecutable
	var start *StartError
	if errors.As(err, &start) {
		code = start.Code
	}
	next := "fix the file and start again"
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM) {
		code, next = CodeEarlyExit, "start again: the machine, or the limits of the container, had no process or no memory left"
	}
	return failf(code, "the %s of %s cannot be started", what, s.Plan.Label(i)).because(err).
		safe("it was not started and the record is right").next("%s", next)
}

// migrationFailure words the end of a migration that did not complete.
func (s *sequence) migrationFailure(i int, exit Exit, said string) error {
	f := failf(exit.Status(), "the migration of %s %s", s.Plan.Label(i), exit).
		safe("no node was started on the state, which may be half migrated")
	f.Stderr = said
	look := "read what it wrote on stderr"
	if exit.OutOfMemory {
		look = moreMemory
	}
	if s.Plan.Versions[i].OnInterrupted == Halt {
		return f.next("%s; the next start halts, as on_interrupted_migration says, until the state from before the migration is restored", look)
	}
	return f.next("%s; the next start runs it again: if it does not survive that, restore the state from before the migration first", look)
}
