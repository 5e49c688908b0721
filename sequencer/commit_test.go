package sequencer

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// committing is a sequence at version 0 that has done nothing but commit.
func committing(t *testing.T, storage string) (*sequence, *world) {
	t.Helper()
	w := newWorld(t)
	w.store.storage = storage
	s := newSequence(w.prepared())
	s.storage = storage
	s.record = record{stamp: stampOf(w.plan, 0, "")}.followed(w.plan)
	return s, w
}

func TestStampIsWaitedForAndTheCheckpointFollows(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		release := make(chan struct{})
		var slow sync.Once
		w.store.failCheckpoint = func(int) error { slow.Do(func() { w.store.mu.Unlock(); <-release; w.store.mu.Lock() }); return nil }
		require.NoError(t, s.commit(s.record.running(w.plan, 20, "sha"), "safe"))
		assert.Equal(t, []string{"v0 stop 20"}, w.store.story)
		assert.Equal(t, "sha", s.record.stamp.BinarySHA256)
		assert.Equal(t, s.record.stamp, *w.store.stamp, "it is the one on disk, with its time")
		assert.False(t, s.record.stamp.UpdatedAt.IsZero())
		assert.Equal(t, s.record.stamp, s.state.Stamp)
		assert.Nil(t, w.store.checkpoint, "the checkpoint keeps nobody waiting")
		close(release)
		s.follower.finish()
		require.NotNil(t, w.store.checkpoint)
		assert.True(t, w.store.checkpoint.Stamped)
		assert.Nil(t, w.store.checkpoint.Stamp)
		assert.Equal(t, "sha", w.store.checkpoint.BinarySHA256)
	})
}

func TestStampIsWrittenOnlyWhereItIsAnotherOne(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		require.NoError(t, s.commit(s.record, "safe"))
		require.NoError(t, s.commit(s.record.confirmed(w.plan, 7, "sha"), "safe"))
		s.follower.finish()
		assert.Len(t, w.store.story, 1)
		assert.Equal(t, new(uint64(7)), w.store.checkpoint.Height, "the checkpoint has followed all the same")
		assert.EqualValues(t, 1+w.store.checkpoints, s.follower.counted().Done, "each durable write is counted")
	})
}

func TestStampThatCannotBeWrittenChangesNothing(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		require.NoError(t, s.commit(s.record, "safe"))
		before := s.record
		w.store.failStamp = failing(1)
		err := s.commit(s.record.entered(w.plan, 2, "sha2", ""), "nothing is lost")
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, CodeCheckpointNotWritable, f.Code)
		assert.Equal(t, "nothing is lost", f.Safe)
		require.ErrorIs(t, err, errFull)
		assert.Equal(t, before, s.record, "nothing is assigned when the write failed")
		assert.Equal(t, before.stamp, s.state.Stamp)
		require.NotNil(t, s.state.Failure)
		assert.False(t, s.stamped, "it is not known which one is on disk")

		require.NoError(t, s.commit(s.record, "safe"))
		assert.Equal(t, []string{"v0 stop 20", "v0 stop 20"}, w.store.story, "so the same one is written again")
		s.follower.finish()
		assert.Equal(t, 0, w.store.checkpoint.VersionIndex)
		assert.EqualValues(t, 1, s.follower.counted().Failed)
	})
}

func TestWhereNoConfigNamesTheDirectoryTheCheckpointIsWaitedForAndHasTheStamp(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "")
		require.NoError(t, s.commit(s.record.running(w.plan, 20, "sha"), "safe"))
		require.NotNil(t, w.store.checkpoint)
		assert.False(t, w.store.checkpoint.Stamped)
		assert.Equal(t, s.record.stamp, *w.store.checkpoint.Stamp)
		assert.Empty(t, w.store.story, "no stamp is written anywhere else")
		before := s.record
		w.store.failCheckpoint = func(int) error { return errFull }
		require.ErrorIs(t, s.commit(s.record.entered(w.plan, 2, "sha2", ""), "safe"), errFull)
		assert.Equal(t, before, s.record)
		s.follower.finish()
	})
}

func TestBothFilesAreWaitedForAtTheStart(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		w.store.failCheckpoint = failing(0)
		require.ErrorIs(t, s.commitAndWait(s.record, "safe"), errFull)
		require.NoError(t, s.commitAndWait(s.record, "safe"))
		require.NotNil(t, w.store.checkpoint)
		assert.False(t, w.store.checkpoint.UpdatedAt.IsZero())
		assert.True(t, s.stamped)
		s.follower.finish()
	})
}

func TestCheckpointThatCannotBeWrittenIsTriedAgainAfterHalfAMinute(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		var tries []time.Duration
		began := time.Now()
		w.store.failCheckpoint = func(n int) error {
			tries = append(tries, time.Since(began))
			if n < 3 {
				return errFull
			}
			return nil
		}
		require.NoError(t, s.commit(s.record, "safe"), "it stops nothing")
		time.Sleep(time.Hour)
		s.follower.finish()
		assert.Equal(t, []time.Duration{0, 30 * time.Second, time.Minute, 90 * time.Second}, tries)
		assert.NotNil(t, w.store.checkpoint)
		assert.Equal(t, 3, w.count("checkpoint not written"))
		assert.EqualValues(t, 3, s.follower.counted().Failed)
	})
}

func TestNewerCheckpointIsWrittenInPlaceOfOneThatWaits(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		release := make(chan struct{})
		var written []uint64
		follower := newFollower(storeFunc(func(c checkpoint.Checkpoint) error {
			<-release
			written = append(written, *c.Height)
			return nil
		}), nopLog())
		for height := range uint64(100) {
			follower.follow(checkpoint.Checkpoint{Height: &height}) // waits for nobody
			synctest.Wait()
		}
		close(release)
		follower.finish()
		assert.Equal(t, []uint64{0, 99}, written)
		s.follower.finish()
		assert.Empty(t, w.store.story)
	})
}

func TestNewerCheckpointDoesNotWaitForTheNextTry(t *testing.T) {
	lives(t, func(t *testing.T) {
		var tried []uint64
		began := time.Now()
		follower := newFollower(storeFunc(func(c checkpoint.Checkpoint) error {
			tried = append(tried, *c.Height)
			if *c.Height == 1 {
				return errFull
			}
			return nil
		}), nopLog())
		follower.follow(checkpoint.Checkpoint{Height: new(uint64(1))})
		time.Sleep(time.Second)
		follower.follow(checkpoint.Checkpoint{Height: new(uint64(2))})
		follower.finish()
		assert.Equal(t, []uint64{1, 2}, tried)
		assert.Equal(t, time.Second, time.Since(began))
	})
}

// A run that ends does not wait half a minute for a volume that is full; the stamp is right, and the next start follows
// it.
func TestEndDoesNotWaitForATryThatIsFarAway(t *testing.T) {
	lives(t, func(t *testing.T) {
		began := time.Now()
		follower := newFollower(storeFunc(func(checkpoint.Checkpoint) error { return errFull }), nopLog())
		follower.follow(checkpoint.Checkpoint{})
		synctest.Wait()
		follower.finish()
		assert.Zero(t, time.Since(began))
	})
}

func TestEndWaitsForTheNewestCheckpoint(t *testing.T) {
	lives(t, func(t *testing.T) {
		var written []uint64
		follower := newFollower(storeFunc(func(c checkpoint.Checkpoint) error {
			time.Sleep(time.Minute)
			written = append(written, *c.Height)
			return nil
		}), nopLog())
		for height := range uint64(5) {
			follower.follow(checkpoint.Checkpoint{Height: &height})
		}
		follower.finish()
		assert.Equal(t, uint64(4), written[len(written)-1])
		assert.True(t, slices.IsSorted(written))
	})
}

// storeFunc is a Store that only saves checkpoints.
type storeFunc func(c checkpoint.Checkpoint) error

func (storeFunc) Held() error                                    { return nil }
func (f storeFunc) SaveCheckpoint(c checkpoint.Checkpoint) error { return f(c) }
func (storeFunc) Load() (checkpoint.Found, error)                { return checkpoint.Found{}, nil }
func (storeFunc) LoadState() (checkpoint.Found, error)           { return checkpoint.Found{}, nil }
func (storeFunc) SaveStamp(checkpoint.Stamp) error               { return nil }
func (storeFunc) KeepCheckpoint() (string, error)                { return "", nil }
func (storeFunc) SyncState() error                               { return nil }

func TestHandOverWaitsForOneDurableWriteOnly(t *testing.T) {
	lives(t, func(t *testing.T) {
		s, w := committing(t, "/data/state")
		w.store.failCheckpoint = func(int) error { w.store.mu.Unlock(); time.Sleep(time.Hour); w.store.mu.Lock(); return nil }
		began := time.Now()
		next := s.record.completed(w.plan, checkpoint.ProofDurable).entered(w.plan, 2, "sha2", "")
		require.NoError(t, s.commit(next, "safe"))
		assert.Zero(t, time.Since(began))
		assert.Len(t, w.store.story, 1)
		s.follower.finish()
	})
}
