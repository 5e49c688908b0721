package sequencer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// HeightReader reads the height of the node that runs now. sovereign.Client is the real one.
type HeightReader interface {
	// Height gives the soft-confirmed rollup height, in blocks. It must end on its own after about a second.
	Height(ctx context.Context) (uint64, error)
	// Answered reports whether a connection to the node's port is accepted now.
	Answered() bool
}

const (
	// pollDefault is the pause between two readings while nothing better is known; pollFast and pollSlow bound it.
	pollDefault = 200 * time.Millisecond
	pollFast    = 20 * time.Millisecond
	pollSlow    = time.Second
	// silence is how long a node may tell no height before that is worth a warning.
	silence = 30 * time.Second
	// rateWindow is how many readings the rate is taken over.
	rateWindow = 8
)

// watch reads the heights of one process, in a goroutine of its own: a query that hangs delays nothing else.
type watch struct {
	reader HeightReader
	stop   uint64 // blocks, 0 for none
	// readings wakes the run loop; only the newest reading waits in it.
	readings chan Reading
	// silent and heard wake the run loop when the heights cease to come, and when they are back.
	silent chan bool
	// unanswered wakes the run loop after a question without a height.
	unanswered chan struct{}
	// queries counts the questions, failures those without a height.
	queries, failures atomic.Uint64

	mu     sync.Mutex
	recent []Reading // at most rateWindow, oldest first
}

// startWatch begins to read; it ends with ctx.
func startWatch(ctx context.Context, reader HeightReader, stop uint64) *watch {
	w := &watch{reader: reader, stop: stop, readings: make(chan Reading, 1), silent: make(chan bool, 1), unanswered: make(chan struct{}, 1)}
	go w.loop(ctx)
	return w
}

func (w *watch) loop(ctx context.Context) {
	heard, warned := time.Now(), false
	for {
		height, err := w.reader.Height(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		w.count(err)
		switch {
		case err == nil:
			heard = now
			w.add(Reading{height, now})
			if warned {
				warned = false
				w.tell(ctx, false)
			}
		case !warned && now.Sub(heard) >= silence:
			warned = true
			w.tell(ctx, true)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.pause()):
		}
	}
}

// count counts a question, and tells of one in vain; a reading tells of itself.
func (w *watch) count(err error) {
	w.queries.Add(1)
	if err == nil {
		return
	}
	w.failures.Add(1)
	select {
	case w.unanswered <- struct{}{}:
	default:
	}
}

func (w *watch) tell(ctx context.Context, silent bool) {
	select {
	case w.silent <- silent:
	case <-ctx.Done():
	}
}

func (w *watch) add(r Reading) {
	w.mu.Lock()
	w.recent = append(w.recent, r)
	if len(w.recent) > rateWindow {
		w.recent = append(w.recent[:0], w.recent[1:]...)
	}
	w.mu.Unlock()
	// A reading that was not yet taken is replaced, never waited for. Only this goroutine sends.
	select {
	case <-w.readings:
	default:
	}
	w.readings <- r
}

// last gives the newest reading, nil for none.
func (w *watch) last() *Reading {
	newest, _ := w.newest()
	return newest
}

// newest gives the newest reading, nil for none, and the rate in blocks per second: the faster one of the whole window and
// of its last step, because a resync speeds up suddenly.
func (w *watch) newest() (newest *Reading, rate float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.recent)
	if n == 0 {
		return nil, 0
	}
	r := w.recent[n-1]
	if n > 1 {
		rate = max(slope(w.recent[0], r), slope(w.recent[n-2], r))
	}
	return &r, rate
}

// slope is the rise from a to b in blocks per second, 0 where there is none.
func slope(a, b Reading) float64 {
	elapsed := b.At.Sub(a.At).Seconds()
	if elapsed <= 0 || b.Height <= a.Height {
		return 0
	}
	return float64(b.Height-a.Height) / elapsed
}

// pause is how long to wait for the next reading: a tenth of the time to the stop height, so that the last reading
// before it is near, within bounds.
func (w *watch) pause() time.Duration {
	last, rate := w.newest()
	switch {
	case last == nil:
		return pollDefault
	case w.stop == 0:
		return pollSlow
	case last.Height >= w.stop:
		// The node now waits for finality, and its server for open connections.
		return pollDefault
	case rate == 0:
		return pollDefault
	}
	// Bounded before it becomes a Duration: the time to a stop height that is far away does not fit into one.
	tenth := float64(w.stop-last.Height) / rate / 10
	return max(time.Duration(min(tenth, pollSlow.Seconds())*float64(time.Second)), pollFast)
}
