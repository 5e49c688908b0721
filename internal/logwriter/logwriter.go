// Package logwriter is the way to our stderr for logs: one writer for our own lines and for what the node writes, which
// keeps their order and never holds up the program for long.
//
// The contract. Whoever reads our stderr may be slow: up to a limit everything waits in a queue, and then writers wait.
// Whoever reads may be stuck: when nothing has been taken for a while, what does not fit into the queue is dropped and
// counted, because a chain that stops for a full log pipe is worse than a gap in the log. Whoever reads may be gone
// (EPIPE): then everything is dropped. An upgrade goes on in each case.
package logwriter

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// queueSize is how many bytes may wait for the reader.
	queueSize = 1 << 20
	// stuckAfter is how long the reader may take nothing before it counts as stuck.
	stuckAfter = 5 * time.Second
	// piece is how many bytes are passed on at a time, so that a reader that takes a little counts as alive.
	piece = 4 << 10
)

// Writer queues what is written to it and passes it on from a goroutine of its own. Use New.
type Writer struct {
	dst io.Writer

	mu      sync.Mutex
	queue   []byte
	midLine bool  // what was queued last does not end a line
	busy    bool  // the goroutine is in a Write of dst
	broken  bool  // dst has failed: nobody reads any more
	stuck   bool  // nothing was taken for stuckAfter
	dropped int64 // bytes, since the last note about it
	wake    chan struct{}
	// moved is closed and replaced whenever dst has taken something.
	moved chan struct{}
}

// New returns a Writer to dst. Its goroutine lives as long as the program.
func New(dst io.Writer) *Writer {
	w := &Writer{dst: dst, wake: make(chan struct{}, 1), moved: make(chan struct{})}
	go w.run()
	return w
}

// Lines gives a writer for whole lines of our own: each begins a new line, also where the node has left one without end.
func (w *Writer) Lines() io.Writer { return lines{w} }

type lines struct{ w *Writer }

// Write implements io.Writer.
func (l lines) Write(p []byte) (int, error) { return l.w.write(p, true) }

// Write queues p as a whole. It waits for room, at most until the reader counts as stuck, and never fails: what cannot
// be queued is dropped and counted.
func (w *Writer) Write(p []byte) (int, error) { return w.write(p, false) }

func (w *Writer) write(p []byte, newLine bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.room(len(p)) {
		w.dropped += int64(len(p))
		return len(p), nil
	}
	if w.broken || len(p) == 0 {
		return len(p), nil
	}
	if w.dropped > 0 {
		w.queue = fmt.Appendf(w.queue, "\n[%d bytes of log were dropped: nobody was reading]\n", w.dropped)
		w.dropped, w.midLine = 0, false
	}
	if newLine && w.midLine {
		w.queue = append(w.queue, '\n')
	}
	w.queue = append(w.queue, p...)
	w.midLine = p[len(p)-1] != '\n'
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// room waits until n more bytes fit. An empty queue takes any amount. The mutex is held, except while waiting.
func (w *Writer) room(n int) bool {
	for !w.broken && len(w.queue) > 0 && len(w.queue)+n > queueSize {
		if w.stuck || !w.awaitMove(stuckAfter) {
			w.stuck = true
			return false
		}
	}
	return true
}

// awaitMove waits, without the mutex, until dst has taken something.
func (w *Writer) awaitMove(limit time.Duration) bool {
	moved := w.moved
	w.mu.Unlock()
	defer w.mu.Lock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-moved:
		return true
	case <-timer.C:
		return false
	}
}

// run passes the queue on, piece by piece.
func (w *Writer) run() {
	for range w.wake {
		for {
			w.mu.Lock()
			next := w.queue[:min(piece, len(w.queue))]
			w.queue = w.queue[len(next):]
			w.busy = len(next) > 0
			if !w.busy {
				w.queue = nil // what a flood took would stay with us for as long as the program is quiet
			}
			w.mu.Unlock()
			if len(next) == 0 {
				break
			}
			_, err := w.dst.Write(next)
			w.note(err)
		}
	}
}

// note records what became of one Write to dst.
func (w *Writer) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy, w.stuck = false, false
	if err != nil {
		w.broken = true
		w.queue = nil
	}
	close(w.moved)
	w.moved = make(chan struct{})
}

// Flush waits until everything is passed on, at most limit.
func (w *Writer) Flush(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := time.Now().Add(limit)
	for !w.broken && (w.busy || len(w.queue) > 0) {
		if !w.awaitMove(time.Until(due)) {
			return
		}
	}
}
