package sequencer

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readerFunc is a HeightReader that is one function.
type readerFunc func(ctx context.Context) (uint64, error)

func (f readerFunc) Height(ctx context.Context) (uint64, error) { return f(ctx) }
func (readerFunc) Answered() bool                               { return false }

var errNoAnswer = errors.New("connection refused")

// chainAt gives the height of a chain that makes so many blocks a second since now.
func chainAt(from uint64, rate float64) readerFunc {
	began := time.Now()
	return func(context.Context) (uint64, error) {
		return from + uint64(rate*time.Since(began).Seconds()), nil
	}
}

// heightsAt is a watch that has read heights at the given seconds.
func heightsAt(stop uint64, read ...[2]float64) *watch {
	w := &watch{stop: stop, readings: make(chan Reading, 1)}
	began := time.Now()
	for _, at := range read {
		w.add(Reading{uint64(at[1]), began.Add(time.Duration(at[0] * float64(time.Second)))})
	}
	return w
}

func TestPauseIsATenthOfTheTimeToTheStopHeightWithinBounds(t *testing.T) {
	for _, test := range []struct {
		name  string
		watch *watch
		want  time.Duration
	}{
		{"no height yet", heightsAt(100), pollDefault},
		{"no height yet, no stop height", heightsAt(0), pollDefault},
		{"no stop height", heightsAt(0, [2]float64{0, 10}, [2]float64{1, 20}), pollSlow},
		{"one height gives no rate", heightsAt(100, [2]float64{0, 10}), pollDefault},
		{"an idle chain", heightsAt(100, [2]float64{0, 10}, [2]float64{9, 10}), pollDefault},
		{"a height that falls", heightsAt(100, [2]float64{0, 10}, [2]float64{1, 5}), pollDefault},
		{"at the stop height", heightsAt(100, [2]float64{0, 99}, [2]float64{1, 100}), pollDefault},
		{"past the stop height", heightsAt(100, [2]float64{0, 99}, [2]float64{1, 101}), pollDefault},
		{"five seconds away", heightsAt(100, [2]float64{0, 40}, [2]float64{1, 50}, [2]float64{2, 60}), 400 * time.Millisecond},
		{"just within the upper bound", heightsAt(110, [2]float64{0, 0}, [2]float64{1, 10}), time.Second},
		{"far away", heightsAt(1e6, [2]float64{0, 0}, [2]float64{1, 10}), pollSlow},
		{"further away than a Duration holds", heightsAt(1e12, [2]float64{0, 0}, [2]float64{1, 1}), pollSlow},
		{"as far away as can be", heightsAt(math.MaxUint64-1, [2]float64{0, 0}, [2]float64{3600, 1}), pollSlow},
		{"very near", heightsAt(100, [2]float64{0, 0}, [2]float64{1, 99}), pollFast},
		{"in a resync", heightsAt(1e4, [2]float64{0, 0}, [2]float64{1, 5e3}), 100 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.InDelta(t, test.want.Seconds(), test.watch.pause().Seconds(), 1e-6)
		})
	}
}

func TestRateIsTheFasterOfTheWindowAndItsLastStep(t *testing.T) {
	for _, test := range []struct {
		name    string
		heights [][2]float64 // seconds, height
		height  uint64
		rate    float64
	}{
		{"one height", [][2]float64{{0, 7}}, 7, 0},
		{"steady", [][2]float64{{0, 0}, {1, 10}, {2, 20}}, 20, 10},
		{"speeding up", [][2]float64{{0, 0}, {1, 10}, {2, 1010}}, 1010, 1000},
		{"slowing down", [][2]float64{{0, 0}, {1, 1000}, {2, 1000}}, 1000, 500},
		{"falling", [][2]float64{{0, 10}, {1, 5}}, 5, 0},
		{"two at one moment", [][2]float64{{1, 5}, {1, 10}}, 10, 0},
		{"what is older than the window is forgotten", [][2]float64{
			{0, 0}, {1, 1e6}, {2, 1e6}, {3, 1e6}, {4, 1e6}, {5, 1e6}, {6, 1e6}, {7, 1e6}, {8, 1e6},
		}, 1e6, 0},
		{"what is as old as the window counts", [][2]float64{
			{0, 0}, {1, 700}, {2, 700}, {3, 700}, {4, 700}, {5, 700}, {6, 700}, {7, 700},
		}, 700, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			last, rate := heightsAt(0, test.heights...).newest()
			require.NotNil(t, last)
			assert.Equal(t, test.height, last.Height)
			assert.InDelta(t, test.rate, rate, 1e-6)
		})
	}
	t.Run("none", func(t *testing.T) {
		last, rate := (&watch{}).newest()
		assert.Nil(t, last)
		assert.Zero(t, rate)
	})
}

func TestHeightsAreReadMoreOftenAsTheStopHeightComesNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var read []time.Time
		chain := chainAt(0, 10)
		w := startWatch(ctx, readerFunc(func(ctx context.Context) (uint64, error) {
			read = append(read, time.Now())
			return chain(ctx)
		}), 1000, false)
		time.Sleep(99950 * time.Millisecond) // height 999
		synctest.Wait()
		shortest, longest := time.Hour, time.Duration(0)
		for i := 3; i < len(read); i++ {
			pause := read[i].Sub(read[i-1])
			shortest, longest = min(shortest, pause), max(longest, pause)
		}
		assert.Equal(t, pollSlow, longest)
		assert.Equal(t, pollFast, shortest)
		last, rate := w.newest()
		assert.EqualValues(t, 999, last.Height)
		assert.Greater(t, rate, 5.0)
		assert.Less(t, len(read), 300, "a thousand blocks do not need a thousand questions")
	})
}

func TestOnlyTheNewestReadingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := startWatch(ctx, chainAt(100, 10), 0, false)
		time.Sleep(time.Minute + time.Second/2) // nobody takes any: the readings continue
		synctest.Wait()
		last, _ := w.newest()
		select {
		case r := <-w.readings:
			assert.Equal(t, *last, r)
			assert.Greater(t, r.Height, uint64(650))
		default:
			assert.Fail(t, "no reading waits")
		}
		select {
		case r := <-w.readings:
			assert.Fail(t, "an old reading waited too", "%+v", r)
		default:
		}
	})
}

func TestSilenceIsReportedOnceAndSoIsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var answers atomic.Bool
		answers.Store(true)
		w := startWatch(ctx, readerFunc(func(context.Context) (uint64, error) {
			if answers.Load() {
				return 7, nil
			}
			return 0, errNoAnswer
		}), 0, false)
		reported := func() []bool {
			synctest.Wait()
			select {
			case silent := <-w.silent:
				return []bool{silent}
			default:
				return nil
			}
		}
		time.Sleep(time.Hour)
		require.Nil(t, reported(), "a node that answers is not silent")
		for range 2 { // it can happen again
			answers.Store(false)
			time.Sleep(silence - time.Second)
			require.Nil(t, reported(), "a moment of silence is nothing")
			time.Sleep(3 * time.Second)
			require.Equal(t, []bool{true}, reported())
			time.Sleep(time.Hour)
			require.Nil(t, reported(), "it is reported once")
			answers.Store(true)
			time.Sleep(2 * time.Second)
			require.Equal(t, []bool{false}, reported())
			time.Sleep(time.Hour)
			require.Nil(t, reported(), "its end is reported once")
		}
	})
}

func TestNodeThatNeverAnswersIsSilentAfterItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began := time.Now()
		w := startWatch(ctx, readerFunc(func(context.Context) (uint64, error) { return 0, errNoAnswer }), 100, false)
		assert.True(t, <-w.silent)
		assert.Equal(t, silence, time.Since(began))
		last, rate := w.newest()
		assert.Nil(t, last)
		assert.Zero(t, rate)
	})
}

func TestSilenceThatNobodyTakesDoesNotOutliveTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine is left blocked
		ctx, cancel := context.WithCancel(t.Context())
		startWatch(ctx, readerFunc(func(context.Context) (uint64, error) {
			if time.Now().Second() < 10 {
				return 7, nil
			}
			return 0, errNoAnswer
		}), 0, false)
		time.Sleep(time.Hour) // silent, known, silent: nobody takes what is reported
		cancel()
		synctest.Wait()
	})
}

func TestReaderThatHangsDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		answers := 3
		ended := false
		w := startWatch(ctx, readerFunc(func(ctx context.Context) (uint64, error) {
			if answers--; answers >= 0 {
				return uint64(10 - answers), nil
			}
			<-ctx.Done()
			ended = true
			return 99, nil // what comes after the end counts for nothing
		}), 0, false)
		time.Sleep(time.Hour)
		synctest.Wait()
		last, _ := w.newest() // does not wait for the reader
		require.NotNil(t, last)
		assert.EqualValues(t, 10, last.Height)
		assert.EqualValues(t, 10, (<-w.readings).Height)
		cancel()
		synctest.Wait()
		assert.True(t, ended, "the watch ends with its context")
		last, _ = w.newest()
		assert.EqualValues(t, 10, last.Height)
		assert.Empty(t, w.readings)
	})
}
