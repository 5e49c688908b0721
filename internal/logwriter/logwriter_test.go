package logwriter

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
)

// reader is what is at the other end: it takes a piece whenever it is allowed to.
type reader struct {
	mu      sync.Mutex
	got     bytes.Buffer
	allowed chan struct{} // nil: always
	err     error
	takes   int // with err: how many bytes of each piece are taken all the same
	tries   int
}

func (r *reader) Write(p []byte) (int, error) {
	if r.allowed != nil {
		<-r.allowed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	if r.err != nil {
		n, _ := r.got.Write(p[:min(r.takes, len(p))])
		return n, r.err
	}
	return r.got.Write(p)
}

// fail has each later write fail; nil: none.
func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *reader) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.String()
}

func (r *reader) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.Len()
}

// bubble runs a test in fake time. The writer's goroutine never ends by itself, so it is ended with the test. A slow
// reader only takes what the test allows.
func bubble(t *testing.T, slow bool, f func(r *reader, w *Writer)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		r := &reader{}
		if slow {
			r.allowed = make(chan struct{})
		}
		w := New(r)
		f(r, w)
		if slow {
			close(r.allowed)
		}
		w.Flush(time.Second)
		close(w.wake)
	})
}

func TestEverythingArrivesInOrder(t *testing.T) {
	bubble(t, false, func(r *reader, w *Writer) {
		var want strings.Builder
		for range 10_000 {
			line := strings.Repeat("x", want.Len()%97) + "\n"
			want.WriteString(line)
			n, err := w.Write([]byte(line))
			assert.Equal(t, len(line), n)
			assert.NoError(t, err)
		}
		w.Flush(time.Second)
		assert.Equal(t, want.String(), r.text())
	})
}

func TestSlowReaderGetsEverything(t *testing.T) {
	bubble(t, true, func(r *reader, w *Writer) {
		done := make(chan struct{})
		line := bytes.Repeat([]byte("x"), 1000)
		const lines = 3 * queueSize / 1000
		go func() {
			for range lines {
				_, _ = w.Write(line)
			}
			close(done)
		}()
		for r.size() < lines*1000 {
			time.Sleep(stuckAfter / 2)
			r.allowed <- struct{}{}
			synctest.Wait()
		}
		<-done
		assert.False(t, strings.Contains(r.text(), "dropped"))
	})
}

func TestStuckReaderHoldsUpWritersOnlyOnce(t *testing.T) {
	bubble(t, true, func(r *reader, w *Writer) {
		full := bytes.Repeat([]byte("x"), queueSize)
		_, _ = w.Write(full)
		synctest.Wait() // a piece has left the queue, for the reader to take
		_, _ = w.Write(full[:piece])
		began := time.Now()
		_, _ = w.Write([]byte("lost\n"))
		assert.Equal(t, stuckAfter, time.Since(began))
		_, _ = w.Write([]byte("lost too\n"))
		w.Flush(time.Second)
		assert.Equal(t, stuckAfter+time.Second, time.Since(began), "the second one does not wait, and Flush gives up")

		done := make(chan struct{})
		go func() {
			for {
				select {
				case r.allowed <- struct{}{}:
				case <-done:
					return
				}
			}
		}()
		w.Flush(time.Second)
		_, _ = w.Write([]byte("back\n"))
		w.Flush(time.Second)
		_, after, _ := strings.Cut(r.text(), "\n") // a megabyte is no good message
		assert.Equal(t, "[14 bytes of log were dropped: they could not be written]\nback\n", after)
		close(done)
		synctest.Wait()
	})
}

// A reader that was stuck and is back is no different from one that was never stuck.
func TestReaderThatIsBackIsWaitedForAgain(t *testing.T) {
	bubble(t, true, func(r *reader, w *Writer) {
		full := bytes.Repeat([]byte("x"), queueSize)
		for range 2 {
			_, _ = w.Write(full)
			synctest.Wait() // a piece has left the queue, for the reader to take
			_, _ = w.Write(full[:piece])
			began := time.Now()
			_, _ = w.Write([]byte("lost\n"))
			assert.Equal(t, stuckAfter, time.Since(began))
			for range queueSize/piece + 2 { // the last one is the note
				r.allowed <- struct{}{}
			}
			synctest.Wait()
		}
	})
}

// The note about what was dropped begins a line, and what follows it begins another, whatever was queued before; it is
// written although nobody writes anything more.
func TestWhatWasDroppedIsSaidInALineOfItsOwn(t *testing.T) {
	for _, before := range []string{"whole line\n", "no end"} {
		bubble(t, false, func(r *reader, w *Writer) {
			r.fail(unix.ENOSPC)
			_, _ = w.Write([]byte(before))
			synctest.Wait()
			_, _ = w.Write(make([]byte, queueSize+1))
			r.fail(nil)
			w.Flush(time.Second) // it does not wait for what fails
			assert.Empty(t, r.text())
			time.Sleep(retryAfter)
			synctest.Wait()
			assert.Equal(t, strings.TrimSuffix(before, "\n")+"\n[1048577 bytes of log were dropped: they could not be written]\n", r.text())
			_, _ = w.Lines().Write([]byte("ours\n"))
			w.Flush(time.Second)
			assert.True(t, strings.HasSuffix(r.text(), "written]\nours\n"), r.text())
		})
	}
}

// A disk is emptied and a pipe gets a new reader; until then nobody is held up, and the memory is bounded.
func TestWriteThatFailsIsTriedAgainAndHoldsUpNothing(t *testing.T) {
	for _, err := range []error{unix.ENOSPC, unix.EIO, unix.EPIPE} {
		bubble(t, false, func(r *reader, w *Writer) {
			r.takes = 3
			r.fail(err)
			began := time.Now()
			for range 100 {
				n, err := w.Write(bytes.Repeat([]byte("x"), queueSize))
				assert.Equal(t, queueSize, n)
				assert.NoError(t, err)
				synctest.Wait()
			}
			w.Flush(time.Hour)
			assert.Zero(t, time.Since(began))
			assert.LessOrEqual(t, cap(w.queue), 2*queueSize)
			time.Sleep(10 * retryAfter)
			synctest.Wait()
			assert.Equal(t, 11, r.tries, "it is tried, and not all the time")
			r.fail(nil)
			time.Sleep(retryAfter)
			synctest.Wait() // the next try is due at this very instant
			_, _ = w.Write([]byte("back\n"))
			w.Flush(time.Second)
			queued := strings.Repeat("x", queueSize)
			assert.True(t, strings.HasPrefix(r.text(), queued), "the queue arrives whole")
			assert.Equal(t, fmt.Sprintf("\n[%d bytes of log were dropped: they could not be written]\nback\n", 99*queueSize), strings.TrimPrefix(r.text(), queued))
		})
	}
}

// EAGAIN is a slow reader, and no failure: writers wait as for any other.
func TestReaderOfANonBlockingPipeIsWaitedFor(t *testing.T) {
	bubble(t, false, func(r *reader, w *Writer) {
		r.takes = 1
		r.fail(unix.EAGAIN)
		_, _ = w.Write([]byte("piece by piece\n"))
		w.Flush(7 * retryAfter / 2)
		assert.Equal(t, "piec", r.text(), "Flush has waited")
		r.fail(nil)
		w.Flush(time.Minute)
		assert.Equal(t, "piece by piece\n", r.text())
	})
}

func TestOurLinesBeginALineOfTheirOwn(t *testing.T) {
	bubble(t, false, func(r *reader, w *Writer) {
		ours := w.Lines()
		for _, text := range []string{"whole\n", "no end"} {
			_, _ = w.Write([]byte(text))
			_, _ = ours.Write([]byte("ours\n"))
		}
		_, _ = ours.Write([]byte("ours\n"))
		w.Flush(time.Second)
		assert.Equal(t, "whole\nours\nno end\nours\nours\n", r.text())
	})
}

func TestLinesOfSeveralWritersStayWhole(t *testing.T) {
	bubble(t, false, func(r *reader, w *Writer) {
		var all sync.WaitGroup
		for _, letter := range []string{"a", "b", "c"} {
			all.Go(func() {
				for range 1000 {
					_, _ = w.Write([]byte(strings.Repeat(letter, 50) + "\n"))
				}
			})
		}
		all.Wait()
		w.Flush(time.Second)
		assert.Equal(t, 3000, strings.Count(r.text(), "\n"))
		for line := range strings.Lines(r.text()) {
			assert.Equal(t, strings.Repeat(line[:1], 50)+"\n", line)
		}
	})
}

func TestTheMemoryOfAFloodIsGivenBack(t *testing.T) {
	t.Parallel()
	bubble(t, true, func(r *reader, w *Writer) {
		for range queueSize / piece {
			_, _ = w.Write(bytes.Repeat([]byte("x"), piece))
		}
		for range queueSize / piece {
			r.allowed <- struct{}{}
		}
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		assert.Equal(t, queueSize, r.size())
		assert.Zero(t, cap(w.queue))
	})
}
