package sequencer

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// commit makes the next record durable first and takes it over after that, so there is never anything to undo. It waits
// for the stamp; the checkpoint follows and keeps nobody waiting. safe says what is not lost if the write fails.
func (s *sequence) commit(next record, safe string) error {
	if s.storage == "" {
		return s.commitAndWait(next, safe)
	}
	if err := s.writeStamp(&next, safe); err != nil {
		return err
	}
	s.follower.follow(s.take(next))
	return nil
}

// commitAndWait is commit, and waits for the checkpoint too. If no config says where the state is, the checkpoint has
// the stamp in it.
func (s *sequence) commitAndWait(next record, safe string) error {
	if s.storage == "" {
		stamp := next.stamp
		next.checkpoint.Stamp, next.checkpoint.Stamped = &stamp, false
	} else if err := s.writeStamp(&next, safe); err != nil {
		return err
	}
	next.checkpoint.UpdatedAt = recordTime()
	if err := s.save(func() error { return s.Store.SaveCheckpoint(next.checkpoint) }, safe); err != nil {
		return err
	}
	s.take(next)
	return nil
}

// save makes a call that writes a file of the record.
func (s *sequence) save(call func() error, safe string) error {
	began := time.Now()
	err := s.onDisk(call)
	s.follower.count(began, err)
	if err != nil {
		return s.notWritable(err, safe)
	}
	return nil
}

// slowDisk is how long a call to the disk may take before that is logged, and how often.
const slowDisk = 15 * time.Second

// errCutShort is the end of a call to the disk that never returned.
var errCutShort = errors.New("the call was cut short")

// onDisk makes a call that a slow disk may hold up, in a goroutine of its own, and takes signals meanwhile: a stop is
// seen at once, even if it has to wait.
func (s *sequence) onDisk(call func() error) error {
	signals := s.Signals.Signals()
	done := make(chan error, 1)
	go func() {
		defer close(done)
		done <- call()
	}()
	began, slow := time.Now(), time.NewTicker(slowDisk)
	defer slow.Stop()
	for {
		select {
		case err, returned := <-done:
			if !returned {
				return errCutShort
			}
			return err
		case sig := <-signals:
			s.note(sig)
			signals = s.Signals.Signals()
		case <-slow.C:
			s.Log.Warn("disk is slow", slog.Float64("seconds", time.Since(began).Seconds()), slog.String("detail", "the record or the state is being read or written, and nothing is started until that has ended"))
		}
	}
}

// writeStamp writes the stamp if it differs from the one on disk.
func (s *sequence) writeStamp(next *record, safe string) error {
	next.checkpoint.Stamp, next.checkpoint.Stamped = nil, true
	if s.stamped && next.stamp.Same(s.record.stamp) {
		return nil
	}
	next.stamp.UpdatedAt = recordTime()
	err := s.save(func() error { return s.Store.SaveStamp(next.stamp) }, safe)
	s.stamped = err == nil // otherwise the file may have the old one or the new one
	return err
}

// take makes next the record, and gives its checkpoint.
func (s *sequence) take(next record) checkpoint.Checkpoint {
	next.checkpoint.UpdatedAt = recordTime()
	s.record = next
	s.show(next)
	return next.checkpoint.Clone()
}

// show makes the record a part of the state that others see.
func (s *sequence) show(r record) {
	s.state.Record, s.state.Stamp, s.state.DamageReported = r.checkpoint.Clone(), r.stamp, r.checkpoint.DamageReported
	s.publish()
}

// lockLost is what happened if a lock file is no longer the one that is locked. StopOther is what to do while another
// process works on the state.
const (
	lockLost  = "a lock of this run was removed or replaced, so another entrypoint can start on the same state"
	StopOther = "stop the other process first, with SIGTERM and up to 300 s, then start again; never run two: two nodes on one state destroy it"
)

// notWritable is the end for a record that cannot be written, or is not ours alone.
func (s *sequence) notWritable(err error, safe string) *Failure {
	f := failf(CodeCheckpointNotWritable, "checkpoint or stamp cannot be written").because(err).
		safe(safe).next("make the volume writable, with free space, and start again")
	switch {
	case errors.As(err, new(*checkpoint.LockLostError)):
		f.What, f.Next = lockLost, "check that no other entrypoint runs on this state, then start again; find what removes the lock file"
	case errors.As(err, new(*checkpoint.LockHeldError)):
		f.What, f.Next = "the state cannot be used", StopOther
	}
	s.failed(f)
	s.publish()
	return f
}

// fromDisk is onDisk for a call that reads something.
func fromDisk[T any](s *sequence, call func() (T, error)) (got T, err error) {
	err = s.onDisk(func() (err error) { got, err = call(); return err })
	return got, err
}

// retryCheckpoint is how long after a failed write of the checkpoint the next try comes.
const retryCheckpoint = 30 * time.Second

// follower writes the checkpoint after the stamp, in a goroutine of its own. Only the newest one waits to be written.
type follower struct {
	store Store
	log   *slog.Logger
	// next has the newest checkpoint, until it is being written; it is closed at the end.
	next chan checkpoint.Checkpoint
	done chan struct{}
	once sync.Once

	mu     sync.Mutex
	writes WriteCount
}

func newFollower(store Store, log *slog.Logger) *follower {
	f := &follower{store: store, log: log, next: make(chan checkpoint.Checkpoint, 1), done: make(chan struct{})}
	go f.run()
	return f
}

// follow has the checkpoint written, in place of one that still waits. It does not block.
func (f *follower) follow(c checkpoint.Checkpoint) {
	select {
	case <-f.next:
	default:
	}
	f.next <- c
}

// finish waits until the newest checkpoint was written, or could not be. It may be called more than once.
func (f *follower) finish() {
	f.once.Do(func() { close(f.next) })
	<-f.done
}

// flush waits until the checkpoint has followed, so that it can be read back.
func (s *sequence) flush() {
	_ = s.onDisk(func() error { s.follower.finish(); return nil })
	before := s.follower.counted()
	s.follower = newFollower(s.Store, s.Log)
	s.follower.writes = before
}

// run writes each checkpoint. One that cannot be written is tried again later and at the end, unless a newer one comes.
func (f *follower) run() {
	defer close(f.done)
	var c checkpoint.Checkpoint
	var retry <-chan time.Time // nil if c is durable
	for {
		select {
		case newer, open := <-f.next:
			if !open {
				if retry != nil {
					f.write(c)
				}
				return
			}
			c = newer
		case <-retry:
		}
		retry = nil
		if !f.write(c) {
			retry = time.After(retryCheckpoint)
		}
	}
}

// write reports whether the checkpoint is durable. Nothing is decided from it, so a failure is only a warning.
func (f *follower) write(c checkpoint.Checkpoint) bool {
	began := time.Now()
	err := f.store.SaveCheckpoint(c)
	f.count(began, err)
	if err != nil {
		detail := "the stamp of the state is correct, and the checkpoint will follow it"
		if errors.As(err, new(*checkpoint.LockLostError)) {
			detail = lockLost + ": make sure that nothing else is started; this run ends with 74 before its next start"
		}
		f.log.Warn("checkpoint not written", slog.Int("version", c.VersionIndex), slog.String("error", err.Error()), slog.String("detail", detail))
	}
	return err == nil
}

func (f *follower) count(began time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.writes.Failed++
		return
	}
	f.writes.Done++
	f.writes.Took += time.Since(began)
}

func (f *follower) counted() WriteCount {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}
