package sequencer

import (
	"fmt"
	"log/slog"
)

// enterVersion hands the state over to version i: the version before is durable at its stop height, and nothing of it
// is left. This is the only place where the version changes. Without a migration it is one durable write. It returns nil
// without that if it waited for something: then the next step is decided anew.
func (s *sequence) enterVersion(i int) error {
	v := s.Plan.Versions[i]
	if s.completed != i-1 { // it comes here again after a hold and after a hook
		s.completed = i - 1
		s.Log.Info("version completed", slog.Int("version", i-1), slog.Uint64("height", s.Plan.Versions[i-1].Stop), slog.String("proof", string(s.proof())))
	}
	if waited, err := s.waitBefore(i); waited || err != nil {
		return err
	}
	digest, err := s.readyToEnter(i)
	if err == nil {
		err = s.copyBefore(i, digest)
	}
	if err != nil {
		return err
	}
	if len(v.Before) > 0 && !s.record.stamp.Hook {
		return s.runHook(i)
	}
	if s.held(v.Name) { // it was placed during the copy or the hook
		return nil
	}
	// What was compared, hashed and copied since the question may have taken long, and the stamp is about to be replaced.
	if err := s.lookAgain(i - 1); err != nil || s.durable.Knowledge == NoState {
		return err
	}
	if s.stopRequested() {
		return errStopped
	}
	s.again, s.left = "", s.exitedAt
	done := s.record.completed(s.Plan, s.proof())
	s.bySlack = false
	if s.durable.Knowledge == CannotBeAsked { // that was the node of the version before; this one has its own
		s.durable, s.state.CannotBeAsked = Durable{}, false
	}
	if v.Migration == "" {
		safe := fmt.Sprintf("%s is complete and nothing of %s was started", s.Plan.Label(i-1), s.Plan.Label(i))
		return s.commit(done.entered(s.Plan, i, digest, s.undo.id()), safe)
	}
	s.at = &i
	return s.beginMigration(i, done.migrationBegun(s.Plan, i, digest, s.undo.id()))
}

// readyToEnter gives the digest of version i's binary, if its files are as they must be.
func (s *sequence) readyToEnter(i int) (digest string, err error) {
	if problems := s.compare(i); len(problems) > 0 {
		return "", s.cannotEnter(i, problems)
	}
	if digest, err = s.sameBinary(i); err != nil {
		return "", err
	}
	return digest, s.sameStorage(i)
}

// cannotEnter is the end of a run whose version before i is complete, but the files of version i are unusable.
func (s *sequence) cannotEnter(i int, problems Problems) error {
	return mismatch(FilesInvalid, "%s is complete at height %d, but %s cannot be started", s.Plan.Label(i-1), s.Plan.Versions[i-1].Stop, s.Plan.Label(i)).
		because(problems).safe(fmt.Sprintf("nothing of %s was started, and stamp and checkpoint are unchanged", s.Plan.Label(i))).next("fix its files and start again")
}
