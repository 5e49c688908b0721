// Package logwriter writes logs to our stderr: one writer for our own lines and for what the node writes, which keeps
// their order and never blocks the program for long.
//
// The contract. If the reader of our stderr is slow, output waits in a queue, and when that is full writers wait. If
// the reader is stuck, so that it has taken nothing for five seconds, what does not fit into the queue is dropped,
// because a chain that stops for a full log pipe is worse than a gap in the log. If a write fails (the disk is full,
// the reader is gone) nobody waits, and it is tried again until it works: a disk is emptied, a pipe gets a new reader.
// Dropped output is counted, and reported in a line of its own as soon as writing works. An upgrade continues in each
// case.
package logwriter

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// queueSize is how many bytes may wait for the reader.
	queueSize = 1 << 20
	// stuckAfter is how long the reader may take nothing before it counts as stuck.
	stuckAfter = 5 * time.Second
	// piece is how many bytes are written at a time, so that a reader that takes a little counts as alive.
	piece = 4 << 10
	// retryAfter is the pause after a write that failed.
	retryAfter = time.Second
)

// Writer queues what is written to it, and writes it from a goroutine of its own. Use New.
type Writer struct {
	dst io.Writer

	mu      sync.Mutex
	queue   []byte
	midLine bool  // the queued text does not end with a line end
	busy    bool  // the goroutine has a piece that dst has not taken yet
	failing bool  // the last Write of dst failed
	stuck   bool  // dst has taken nothing for stuckAfter
	dropped int64 // bytes, since they were last reported
	wake    chan struct{}
	// moved is closed and replaced whenever dst has taken something, or has failed.
	moved chan struct{}
}

// New returns a Writer to dst. Its goroutine lives as long as the program.
func New(dst io.Writer) *Writer {
	w := &Writer{dst: dst, wake: make(chan struct{}, 1), moved: make(chan struct{})}
	go w.run()
	return w
}

// Lines gives a writer for our own whole lines: each begins a new line, even if the node has not ended its last one.
func (w *Writer) Lines() io.Writer { return lines{w} }

type lines struct{ w *Writer }

// Write implements io.Writer.
func (l lines) Write(p []byte) (int, error) { return l.w.write(p, true) }

// Write queues all of p. It waits for room, at most until the reader counts as stuck, and never fails: what cannot be
// queued is dropped and counted.
func (w *Writer) Write(p []byte) (int, error) { return w.write(p, false) }

func (w *Writer) write(p []byte, newLine bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.room(len(p)) {
		w.dropped += int64(len(p))
		return len(p), nil
	}
	if len(p) == 0 {
		return 0, nil
	}
	w.sayDropped()
	if newLine {
		w.endLine()
	}
	w.queue = append(w.queue, p...)
	w.midLine = p[len(p)-1] != '\n'
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

// sayDropped queues a line that says how much was dropped at this place. The mutex is held.
func (w *Writer) sayDropped() {
	if w.dropped == 0 {
		return
	}
	w.endLine()
	w.queue = fmt.Appendf(w.queue, "[%d bytes of log were dropped: they could not be written]\n", w.dropped)
	w.dropped = 0
}

// endLine ends an unfinished line. The mutex is held.
func (w *Writer) endLine() {
	if w.midLine {
		w.queue = append(w.queue, '\n')
		w.midLine = false
	}
}

// room waits until n more bytes fit. An empty queue takes any amount, unless writing fails. The mutex is held, except
// during the wait.
func (w *Writer) room(n int) bool {
	for len(w.queue)+n > queueSize && (len(w.queue) > 0 || w.failing) {
		if w.failing || w.stuck {
			return false
		}
		if !w.awaitMove(stuckAfter) {
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

func (w *Writer) run() {
	for range w.wake {
		for next := w.next(); len(next) > 0; next = w.next() {
			w.pass(next)
		}
	}
}

// next takes a piece from the queue; empty if there is none.
func (w *Writer) next() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.sayDropped() // perhaps nothing more is written
	}
	next := w.queue[:min(piece, len(w.queue))]
	w.queue = w.queue[len(next):]
	w.busy = len(next) > 0
	if !w.busy {
		w.queue = nil // otherwise the memory of a flood would be kept while the program is quiet
	}
	return next
}

// pass writes all of p, however long that takes.
func (w *Writer) pass(p []byte) {
	for {
		n, err := w.dst.Write(p)
		p = p[n:]
		w.note(n > 0, err)
		switch {
		case err == nil:
			return
		case errors.Is(err, unix.EAGAIN):
			w.awaitReader()
		default:
			time.Sleep(retryAfter)
		}
	}
}

// note records the result of one Write to dst. EAGAIN is not a failure: a process that shares our stderr has made it
// non-blocking, and its reader is slow.
func (w *Writer) note(taken bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failing = err != nil && !errors.Is(err, unix.EAGAIN)
	if err == nil {
		w.busy = false
	}
	if taken {
		w.stuck = false
	}
	if taken || w.failing {
		close(w.moved)
		w.moved = make(chan struct{})
	}
}

// awaitReader waits until dst takes something again, at most retryAfter.
func (w *Writer) awaitReader() {
	err := errors.ErrUnsupported
	if file, isFile := w.dst.(syscall.Conn); isFile {
		var raw syscall.RawConn
		raw, err = file.SyscallConn() // Fd would change the mode of what others share
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(retryAfter.Milliseconds()))
			})
		}
	}
	if err != nil {
		time.Sleep(retryAfter)
	}
}

// Flush waits until everything is written, at most limit, and not at all while writing fails.
func (w *Writer) Flush(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := time.Now().Add(limit)
	for !w.failing && (w.busy || len(w.queue) > 0) {
		if !w.awaitMove(time.Until(due)) {
			return
		}
	}
}
