package sequencer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// undo is what a run knows of the undo point.
type undo struct {
	// point is the one on disk; nil for none.
	point *checkpoint.UndoPoint
	// target is for what it was made since the last process worked on the state; zero for nothing.
	target checkpoint.UndoTarget
	// mayHaveBlocks: a node was seen up that may have made blocks since, whether that could be recorded or not.
	mayHaveBlocks bool
	// watched: this run has started all nodes whose end the stamp does not have.
	watched bool
}

// id is that of the undo point that was made for what is about to touch the state; empty for none.
func (u *undo) id() string {
	if u.point == nil || u.target == (checkpoint.UndoTarget{}) {
		return ""
	}
	return u.point.ID
}

// findUndoPoint looks which undo point is there. What a kill left half done is finished or forgotten.
func (s *sequence) findUndoPoint() error {
	if s.Undo == nil {
		return nil
	}
	point, err := fromDisk(s, s.Undo.Find)
	if err != nil {
		return failf(CodeCheckpointUnreadable, "the undo point cannot be read, or not be finished").because(err).
			safe("nothing was started").next("make the volume writable, or, if its description is torn, remove it with 'entrypoint undo --drop'; then start again")
	}
	s.undo.point, s.state.UndoPoint = point, point
	return nil
}

// pointIsOfStamp reports whether the undo point was made for the version that the stamp names, and no node of that version is
// known to have been up since.
func (s *sequence) pointIsOfStamp() bool {
	stamp, point := s.record.stamp, s.undo.point
	return point != nil && !s.undo.mayHaveBlocks && stamp.Entered && stamp.UndoPoint == point.ID
}

// mayPutBack reports whether the undo point can be put back without losing a block. It cannot if an earlier run was killed
// while its node ran: nobody knows whether that was up.
func (s *sequence) mayPutBack() bool {
	if !s.pointIsOfStamp() || s.record.stamp.Started && !s.undo.watched {
		return false
	}
	i := find(s.Plan, s.undo.point.Stamp)
	return i >= 0 && !s.Plan.Versions[i].Retired // with a retired version nothing could follow
}

// mayPutBackOlder is mayPutBack for a state that was made by an earlier version than j, so that j cannot be complete.
func (s *sequence) mayPutBackOlder(j int) bool {
	return s.mayPutBack() && find(s.Plan, s.undo.point.Stamp) < j
}

// copyNote is how often a copy of the state is logged.
const copyNote = 30 * time.Second

// copyBefore makes the undo point, a copy of the state, before version i, or another binary of it, touches that. If none
// is to be had here, the upgrade goes on without one.
func (s *sequence) copyBefore(i int, digest string) error {
	v := s.Plan.Versions[i]
	to := checkpoint.UndoTarget{VersionIndex: i, Name: v.Name, StartHeight: v.Start, BinarySHA256: digest}
	if s.Undo == nil || s.undo.target == to {
		return nil
	}
	s.undo.target, s.undo.mayHaveBlocks, s.undo.watched = to, false, false
	if s.storage == "" {
		return s.noUndoPoint(i, "no node config says where the state is")
	}
	err := s.makeUndoPoint(i, s.undoPoint(to))
	var none *NoUndoPointError
	switch {
	case !errors.As(err, &none):
		return err
	case none.Unwanted:
		s.undo.point = nil // what is there is that of an earlier upgrade
		return nil
	}
	return errors.Join(s.findUndoPoint(), s.noUndoPoint(i, none.Why))
}

// makeUndoPoint makes the undo point that p describes. The error is a *NoUndoPointError, errStopped, or a *Failure.
func (s *sequence) makeUndoPoint(i int, p checkpoint.UndoPoint) error {
	point, err := s.copyState(i, p)
	switch {
	case errors.As(err, new(*NoUndoPointError)):
		return err
	case err != nil && s.stopRequested():
		return errStopped
	case err != nil:
		return failf(CodeCheckpointNotWritable, "the undo point before %s cannot be made", s.Plan.Label(i)).because(err).
			safe(fmt.Sprintf("nothing of %s was started, and the state was not changed", s.Plan.Label(i))).next("make the volume writable, with enough free space, or give up the undo point with --undo off; then start again")
	}
	s.undo.point, s.state.UndoPoint, s.state.NoUndoPoint = &point, &point, ""
	s.publish()
	s.Log.Info("undo point made", slog.Int("version", i), slog.String("path", point.Path), slog.String("method", string(point.Method)), slog.Int64("bytes", point.Bytes))
	return nil
}

// noUndoPoint says loudly that the upgrade to version i cannot be undone.
func (s *sequence) noUndoPoint(i int, why string) error {
	s.undo.point = nil
	s.state.NoUndoPoint = why
	s.publish()
	s.Log.Warn("no undo point", slog.Int("version", i), slog.String("reason", why))
	return nil
}

// undoPoint describes the copy that is about to be made of the state.
func (s *sequence) undoPoint(to checkpoint.UndoTarget) checkpoint.UndoPoint {
	p := checkpoint.UndoPoint{Stamp: s.record.stamp, To: to}
	r := s.record
	if entered := to.VersionIndex - 1; s.record.stamp.VersionIndex == entered {
		height := s.Plan.Versions[entered].Stop
		p.Height, r = &height, r.completed(s.Plan, s.proof())
	}
	if text, err := checkpoint.Encode(r.checkpoint); err == nil {
		p.Checkpoint = string(text)
	}
	return p
}

// copyState has the state copied, and takes signals meanwhile: a stop cuts the copy short.
func (s *sequence) copyState(i int, p checkpoint.UndoPoint) (checkpoint.UndoPoint, error) {
	if err := s.onDisk(s.Store.Held); err != nil {
		return p, err
	}
	if s.stopRequested() { // it came while files were compared, or with the locks: nothing below would see it again
		return p, errStopped
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type made struct {
		point checkpoint.UndoPoint
		err   error
	}
	done, progress := make(chan made, 1), make(chan UndoProgress, 1)
	go func() {
		point, err := s.Undo.Make(ctx, p, func(now UndoProgress) {
			select {
			case progress <- now:
			default: // the newest is not needed: another one follows
			}
		})
		done <- made{point, err}
	}()
	s.enter(PhaseCopying)
	note := time.NewTicker(copyNote)
	defer note.Stop()
	for {
		select {
		case m := <-done:
			s.state.Copying = nil
			s.enter(PhaseHandingOver)
			return m.point, m.err
		case now := <-progress:
			s.state.Copying = &now
			s.publish()
		case <-note.C:
			s.logCopying(i)
		case sig := <-s.Signals.Signals():
			if s.note(sig); s.stopping {
				cancel()
			}
		}
	}
}

func (s *sequence) logCopying(i int) {
	now := s.state.Copying
	if now == nil {
		return
	}
	seconds := time.Since(now.Since).Seconds()
	s.Log.Info("state is being copied", slog.Int("version", i), slog.Int64("done_bytes", now.Done), slog.Int64("bytes", now.Total), slog.Float64("seconds", seconds),
		slog.Float64("eta_seconds", seconds*float64(now.Total-now.Done)/float64(max(now.Done, 1))))
}

// seenUp notes that a node of the stamped version is up, so that it may make blocks. The stamp gets that once it has ended:
// nothing may hold up what it has to be sent. Until then the checkpoint has it.
func (s *sequence) seenUp() {
	s.undo.mayHaveBlocks = true
	next := s.record
	next.checkpoint.NodeUp = true
	s.follower.follow(s.take(next))
}

// noteEnd records, after the run of a node of version j, nil if there was none, whether one was seen up, which may have made
// blocks: then the undo point is only put back by hand. If that cannot be recorded, nothing is put back in this run.
func (s *sequence) noteEnd(j int, run *nodeRun) error {
	if run != nil && run.process.Exit().Status() == 0 {
		s.undo.mayHaveBlocks = true // it may have made all its blocks before anybody saw that it was up
	}
	if run != nil && !run.neverUp() {
		s.undo.watched = false
	}
	if !s.record.stamp.Entered || !s.undo.mayHaveBlocks && !s.undo.watched {
		return nil
	}
	next, known := s.record.neverUp(s.Plan), s.durable
	if s.undo.mayHaveBlocks {
		next = s.record.cameUp(s.Plan)
	}
	err := s.lookAgain(j)
	gone := s.durable.Knowledge == NoState
	if s.durable = known; err != nil || gone { // the next question says so
		return nil
	}
	if err := s.commit(next, "nothing was started after the node had ended"); err != nil {
		s.undo.mayHaveBlocks = true // the stamp on disk may be the old one or the new one
		return err
	}
	return nil
}

// undone completes a failure of version i, whose process ended so, and of which no process is left: if that can lose no
// block, the undo point is put back, and the next start enters the version anew.
func (s *sequence) undone(i int, exit Exit, err error) error {
	var f *Failure
	if !errors.As(err, &f) || s.asksOnly {
		return err
	}
	name := s.Plan.Label(i)
	switch {
	case !s.mayPutBack() && s.undo.point != nil && s.record.stamp.UndoPoint == s.undo.point.ID && (s.record.stamp.Entered || s.undo.mayHaveBlocks):
		f.Next += fmt.Sprintf("; 'entrypoint undo' puts back the state from before %s: that is not done by itself, because it is not known whether %s has made blocks since", name, name)
		return f
	case !s.mayPutBack():
		return err
	case s.stopRequested(): // the next start does it
		return f.next("start again when you want to: the next start puts the undo point back first, unless a node of %s reports a height of its own", name)
	}
	point := s.undo.point
	aside, err := s.putBack(i)
	if err != nil {
		f.Err = errors.Join(f.Err, fmt.Errorf("the undo point %s could not be put back: %w", point.Path, err))
		return f.safe("the state from before it is whole: it is in the undo point, or in its place already").
			next("make the volume writable and start again, or run 'entrypoint undo'")
	}
	f.Cause, f.Remedies = Undone, nil
	was := "the state from before it"
	if point.Stamp.VersionIndex != i && point.Height != nil {
		was = fmt.Sprintf("the state of %s at height %d", label(point.Stamp.VersionIndex, point.Stamp.Name), *point.Height)
	}
	first := "fix " + name
	switch {
	case exit.OutOfMemory:
		first = moreMemory
	case point.Stamp.VersionIndex == i:
		first = "put the former binary of " + name + " back, or fix the new one"
	}
	return f.safe(fmt.Sprintf("%s was put back from the undo point, and no block was lost; the failed state is kept as %s", was, aside)).
		next("%s, and start again: the next start enters %s anew", first, name)
}

// putBack makes the undo point the state again, and the record that of the undo point.
func (s *sequence) putBack(i int) (aside string, err error) {
	if aside, err = s.exchange(); err == nil || aside != "" {
		s.Log.Warn("undo point put back", slog.Int("version", i), slog.String("path", s.storage), slog.String("failed", aside))
	}
	return aside, err
}

// exchange is putBack where that is the normal course. If only the record was not written, it gives both.
func (s *sequence) exchange() (aside string, err error) {
	if err := s.stillOurs(); err != nil {
		return "", err
	}
	point := *s.undo.point
	aside, err = fromDisk(s, func() (string, error) { return s.Undo.PutBack(point) })
	if err != nil {
		return "", err
	}
	// The copy has that stamp, durably. From now on no other one may be written.
	s.record.stamp, s.stamped = point.Stamp, true
	s.undo, s.durable, s.ended = undo{}, Durable{}, nil
	s.state.UndoPoint = nil
	s.state.PutBack++
	// The lock went away with the directory that was the state.
	if err := s.onDisk(s.Store.Held); err != nil {
		return aside, s.notWritable(err, "the state is the one from the undo point")
	}
	return aside, s.commit(s.record.putBack(s.Plan, &point), "the state is the one from the undo point")
}

// stillOurs makes sure, before two directories are exchanged, that the locks are held, and that the state is the one that
// this run has worked on. A migration may have left it without a stamp, or with a torn one.
func (s *sequence) stillOurs() error {
	if err := s.onDisk(s.Store.Held); err != nil {
		return s.notWritable(err, "the undo point was not put back, and is kept")
	}
	found, err := fromDisk(s, s.Store.LoadState)
	if err == nil && found.Stamp != nil && !found.Stamp.Same(s.record.stamp) {
		return s.otherStamp(s.record.stamp.VersionIndex, found.Stamp)
	}
	return nil
}

// putBackInterrupted puts the undo point back because the migration of version i was interrupted in an earlier run.
func (s *sequence) putBackInterrupted(i int) error {
	detail := "the undo point from before it is put back, and the version is entered anew"
	if s.record.stamp.DryRun {
		detail = "it was a dry run: the undo point from before it is put back"
	}
	s.Log.Warn("migration was interrupted", slog.Int("version", i), slog.String("detail", detail))
	point := s.undo.point
	if _, err := s.putBack(i); err != nil {
		var f *Failure
		if errors.As(err, &f) {
			return f
		}
		return failf(CodeCheckpointNotWritable, "the migration of %s was interrupted, and the undo point %s cannot be put back", s.Plan.Label(i), point.Path).because(err).
			safe("nothing was started, and the state from before the migration is whole, in the undo point").next("make the volume writable and start again, or run 'entrypoint undo'")
	}
	return nil
}

// mayHaveMadeBlocks reports whether the node of version j, which was not seen up and has failed, may have made blocks all
// the same: it is asked once more. A node that cannot open the state any more gives no answer. The error says that it was
// not asked.
func (s *sequence) mayHaveMadeBlocks(j int, before Durable) (bool, error) {
	if before.Knowledge != Asked || s.Plan.Versions[j].NeverAsk { // nobody can say
		return true, nil
	}
	if err := s.lookAgain(j); err != nil { // never ask on a state whose stamp was not looked at
		return false, err
	}
	if s.durable.Knowledge == NoState {
		return true, nil
	}
	q, err := s.askOnce(j)
	switch {
	case err != nil:
		return false, err
	case s.stopRequested():
		return false, errStopped
	}
	answer := q.said.Answer()
	return q.mayHaveRun() || answer.Known && answer.Height > before.Height, nil
}

// briefly is how long a node may have run for it to count as never up: by then a real one has failed, or is up.
const briefly = 30 * time.Second

// neverUp reports whether this run of a node can count as one that was never up. A node that was killed, for instance
// because it ran out of memory, may have been up on another port than its config says.
func (n *nodeRun) neverUp() bool {
	return n.process.Exit().Signal != syscall.SIGKILL && !n.watch.wasBlind() && n.s.exitedAt.Sub(n.began) <= briefly
}
