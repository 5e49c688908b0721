package sequencer

import (
	"log/slog"
	"sync"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// commit makes the next record durable first, and takes it over after that, so that there is never anything to undo. The
// stamp is waited for; the checkpoint follows and keeps nobody waiting. safe says what is not lost where the write fails.
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

// commitAndWait is commit, and waits for the checkpoint too. Where no config says where the state is the checkpoint has the
// stamp in it.
func (s *sequence) commitAndWait(next record, safe string) error {
	if s.storage == "" {
		stamp := next.stamp
		next.checkpoint.Stamp, next.checkpoint.Stamped = &stamp, false
	} else if err := s.writeStamp(&next, safe); err != nil {
		return err
	}
	next.checkpoint.UpdatedAt = recordTime()
	began := time.Now()
	err := s.Store.SaveCheckpoint(next.checkpoint)
	s.follower.count(began, err)
	if err != nil {
		return s.notWritable(err, safe)
	}
	s.take(next)
	return nil
}

// writeStamp writes the stamp if it is another one than on disk.
func (s *sequence) writeStamp(next *record, safe string) error {
	next.checkpoint.Stamp, next.checkpoint.Stamped = nil, true
	if s.stamped && sameStamp(next.stamp, s.record.stamp) {
		return nil
	}
	next.stamp.UpdatedAt = recordTime()
	began := time.Now()
	err := s.Store.SaveStamp(next.stamp)
	s.follower.count(began, err)
	if err != nil {
		s.stamped = false // it is the old or the new one
		return s.notWritable(err, safe)
	}
	s.stamped = true
	return nil
}

// take has next be the record from now on, and gives its checkpoint.
func (s *sequence) take(next record) checkpoint.Checkpoint {
	next.checkpoint.UpdatedAt = recordTime()
	s.record = next
	s.state.Record, s.state.Stamp = next.checkpoint.Clone(), next.stamp
	s.publish()
	return next.checkpoint.Clone()
}

// notWritable is the end for a record that cannot be written.
func (s *sequence) notWritable(err error, safe string) *Failure {
	f := failf(CodeCheckpointNotWritable, "the record of the sequence cannot be written").because(err).
		safe(safe).next("make the volume writable, with free space, and start again")
	s.failed(f)
	s.publish()
	return f
}

// retryCheckpoint is how long after a write of the checkpoint that failed it is tried again.
const retryCheckpoint = 30 * time.Second

// follower writes the checkpoint behind the stamp, in a goroutine of its own. Only the newest one waits to be written.
type follower struct {
	store Store
	log   *slog.Logger
	// next has the newest checkpoint that is not yet being written; it is closed at the end.
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

// follow has the checkpoint written, instead of one that still waits. It does not wait.
func (f *follower) follow(c checkpoint.Checkpoint) {
	select {
	case <-f.next:
	default:
	}
	f.next <- c
}

// finish waits until the newest checkpoint was written, or could not be. It may be called again.
func (f *follower) finish() {
	f.once.Do(func() { close(f.next) })
	<-f.done
}

func (f *follower) run() {
	defer close(f.done)
	for c := range f.next {
		for !f.write(c) {
			// A newer one, or the end, comes before the next try.
			newer, open, waited := f.wait()
			if !open {
				f.write(c) // once more, at the end
				return
			}
			if !waited {
				c = newer
			}
		}
	}
}

// wait waits for the next try, or for a newer checkpoint.
func (f *follower) wait() (newer checkpoint.Checkpoint, open, waited bool) {
	select {
	case newer, open = <-f.next:
		return newer, open, false
	case <-time.After(retryCheckpoint):
		return newer, true, true
	}
}

// write reports whether the checkpoint is durable. It is not what anything is decided from, so a failure is a warning.
func (f *follower) write(c checkpoint.Checkpoint) bool {
	began := time.Now()
	err := f.store.SaveCheckpoint(c)
	f.count(began, err)
	if err != nil {
		f.log.Warn("checkpoint not written", slog.Int("version", c.VersionIndex), slog.String("error", err.Error()),
			slog.String("detail", "the stamp of the state is right, and the checkpoint follows it later"))
	}
	return err == nil
}

// count counts a write of either file.
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

// counted gives the counts so far.
func (f *follower) counted() WriteCount {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}
