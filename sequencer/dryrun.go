package sequencer

import (
	"errors"
	"fmt"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// DryRunReport is what a dry run of a migration has shown.
type DryRunReport struct {
	// Version is the index of the version whose migration it is; 0 if a stop request came before the dry run.
	Version int
	// Exit is how the migration ended, and Took how long it ran.
	Exit Exit
	Took time.Duration
	// Text is what it wrote on stdout: the end of it, if that is long.
	Text string
	// Method is how the state was copied before, and Bytes the size of its files.
	Method checkpoint.UndoMethod
	Bytes  int64
	// Aside is the directory with the state that the dry run has worked on. It is not needed any more.
	Aside string
}

// dryRunSuffix marks the name of the version in that of the undo point. No more than a mark: the stamp decides.
const dryRunSuffix = ".dry-run"

// DryRun runs the migration of the version after the stamped one with --dry-run, on a state that no node works on. A
// migration that ignores --dry-run rewrites the state, so an undo point is made first, and is always put back after.
// If that is prevented by a kill, the next start does it: the stamp says that a migration was begun.
func DryRun(o Options) (DryRunReport, error) {
	s := newSequence(o)
	defer s.follower.finish()
	report, err := s.dryRun()
	if err = s.end(err); err != nil {
		return DryRunReport{}, err
	}
	return report, nil
}

func (s *sequence) dryRun() (DryRunReport, error) {
	i, digest, err := s.prepareDryRun()
	if err != nil {
		return DryRunReport{}, err
	}
	if err := s.copyForDryRun(i, digest); err != nil {
		return DryRunReport{}, err
	}
	point := s.undo.point
	r := DryRunReport{Version: i, Method: point.Method, Bytes: point.Bytes}
	alive, err := s.migrateDry(i, digest, &r)
	if alive { // it may still write to the state
		return DryRunReport{}, s.dryRunLeft(err, point)
	}
	if r.Aside, err = s.putBackDry(i, err); err == nil {
		err = s.sameStorage(i) // the stamp of this state was looked at, and no other one
	}
	if err != nil {
		return DryRunReport{}, err
	}
	return r, nil
}

// prepareDryRun does what precedes a start, and gives the version whose migration comes next, and its digest. It refuses
// before anything is changed.
func (s *sequence) prepareDryRun() (i int, digest string, err error) {
	if err := s.prepare(FilesOnly); err != nil {
		return 0, "", err
	}
	i = s.record.stamp.VersionIndex + 1
	if f := s.noDryRun(i); f != nil {
		return 0, "", f
	}
	s.at = &i
	if problems := s.compare(i); len(problems) > 0 {
		return 0, "", mismatch(FilesInvalid, "the migration of %s cannot be run", s.Plan.Label(i)).because(problems).safe(untouched).next("fix its files and run this again")
	}
	if s.stopRequested() {
		return 0, "", errStopped
	}
	if digest, err = s.sameBinary(i); err != nil {
		return 0, "", err
	}
	if err := s.sameStorage(i); err != nil {
		return 0, "", err
	}
	return i, digest, s.settle()
}

// noDryRun says why the migration of version i cannot be tried on this state now.
func (s *sequence) noDryRun(i int) *Failure {
	step := Next(s.Plan, s.record.stamp, s.durable, s.mayPutBack())
	if step.Action == Refuse {
		return s.refusal(step)
	}
	at, what, next := s.Plan.Label(i-1), "", ""
	switch {
	case s.durable.Knowledge == NoState:
		what, next = "there is no state in "+s.storage, "run it on a state of the version before the migration"
	case step.Action != AskVersion:
		what, next = "a migration of "+at+" was begun and is not recorded as completed", "start the entrypoint to finish that, or to put the undo point back"
	case i > s.Plan.Last():
		what, next = "the state is at "+at+", the last version of "+s.Plan.File, "add the next version, with its migration_path, to the plan"
	case s.Plan.Versions[i].Migration == "":
		what = "the state is at " + at + ", and the next one, " + s.Plan.Label(i) + ", has no migration"
		next = "there is nothing to try; a later migration can only be tried on a state of the version before it"
	case s.Undo == nil || s.storage == "":
		what, next = "no copy of the state can be made, because no node config says where it is", "set storage.path in the node configs"
	case s.undo.point != nil:
		what = "it needs a copy of the state, which would replace the undo point " + s.undo.point.Path
		next = "if you will not go back to that one, run 'entrypoint undo --drop' and then this again"
	default:
		return nil
	}
	return failf(CodeMismatch, "no dry run: %s", what).safe(untouched).next("%s", next)
}

// copyForDryRun makes the undo point for a dry run of the migration of version i.
func (s *sequence) copyForDryRun(i int, digest string) error {
	v := s.Plan.Versions[i]
	to := checkpoint.UndoTarget{VersionIndex: i, Name: v.Name + dryRunSuffix, StartHeight: v.Start, BinarySHA256: digest}
	p := checkpoint.UndoPoint{Stamp: s.record.stamp, To: to}
	if text, err := checkpoint.Encode(s.record.checkpoint); err == nil {
		p.Checkpoint = string(text)
	}
	s.undo = undo{target: to}
	err := s.makeUndoPoint(i, p)
	var f *Failure
	switch {
	case errors.As(err, new(*NoUndoPointError)):
		return failf(CodeMismatch, "no dry run: it needs a copy of the state, and none can be made here").because(err).safe(untouched).
			next("name another directory with --undo-dir, or try the migration on a copy of the volume")
	case errors.As(err, &f):
		f.Next = "make the volume writable, with enough free space, or try the migration on a copy of the volume"
	}
	return err
}

// migrateDry runs the migration of version i with --dry-run. The error says that it was not executed or had to be
// interrupted; alive, that what it has started may still run.
func (s *sequence) migrateDry(i int, digest string, r *DryRunReport) (alive bool, err error) {
	begun := s.record.migrationBegun(s.Plan, i, digest, s.undo.id())
	begun.stamp.DryRun = true
	// The checkpoint does not follow: whatever happens from here on, the state is what it was.
	if err := s.writeStamp(&begun, "the dry run was not started"); err != nil {
		return false, err
	}
	s.record.stamp = begun.stamp
	var out tail
	c := s.migration(i)
	c.Args, c.Stdout = append(c.Args, sovereign.DryRun), &out
	began := time.Now()
	m := &job{child: child{s: s, index: i}}
	err = m.run(c)
	r.Took, r.Text = time.Since(began), string(out.bytes())
	if m.process != nil {
		r.Exit = m.process.Exit()
	}
	return m.alive, err
}

// putBackDry puts the undo point back after a dry run of the migration of version i, which ended with failed.
func (s *sequence) putBackDry(i int, failed error) (aside string, err error) {
	point := s.undo.point
	if aside, err = s.exchange(); err == nil {
		var f *Failure
		if errors.As(failed, &f) {
			f.Safe = "the undo point was put back, so the state is what it was before the dry run"
		}
		return aside, failed
	}
	return "", failf(CodeCheckpointNotWritable, "the dry run of the migration of %s has ended, and the undo point %s cannot be put back", s.Plan.Label(i), point.Path).
		because(errors.Join(err, failed)).safe("the state from before the dry run is whole, in the undo point").
		next("make the volume writable and start the entrypoint: the next start puts the undo point back")
}

// dryRunLeft is the end for a dry run that has left processes behind.
func (s *sequence) dryRunLeft(err error, point *checkpoint.UndoPoint) error {
	var f *Failure
	if !errors.As(err, &f) {
		return err
	}
	return f.safe(fmt.Sprintf("the state from before the dry run is whole, in the undo point %s", point.Path)).
		next("wait until these processes have ended, or end them: the next start of the entrypoint waits for them, and puts the undo point back. Make the migration wait for everything that it starts")
}
