package sequencer

import (
	"context"
	"errors"
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
	// silence is how long a node may report no height before that is worth a warning.
	silence = 30 * time.Second
	// rateWindow is how many readings the rate is computed from.
	rateWindow = 8
)

// watch reads the heights of one process, in a goroutine of its own, so that a query that hangs delays nothing else.
type watch struct {
	reader HeightReader
	stop   uint64 // blocks, 0 for none
	// looked is when it was last looked whether the node is up, and blind is set if nobody looked for long; mu guards them.
	looked time.Time
	blind  bool
	// eager: whether the node is up is to be seen soon. Only the goroutine that reads uses it.
	eager bool
	// readings wakes the run loop; only the newest reading waits in it.
	readings chan Reading
	// silent wakes the run loop when no heights come any more (true), and when they are back (false).
	silent chan bool
	// up wakes the run loop when a connection was accepted for the first time, if that is watched for.
	up chan struct{}
	// unanswered wakes the run loop after a query without a height.
	unanswered chan struct{}
	// queries counts the queries, failures those without a height.
	queries, failures atomic.Uint64

	mu     sync.Mutex
	recent []Reading // at most rateWindow, oldest first
}

// startWatch begins to read; it ends with ctx. eager: it is to be seen soon that the node is up, so that it may make
// blocks.
func startWatch(ctx context.Context, reader HeightReader, stop uint64, eager bool) *watch {
	w := &watch{reader: reader, stop: stop, eager: eager, looked: time.Now(), up: make(chan struct{}, 1), readings: make(chan Reading, 1), silent: make(chan bool, 1), unanswered: make(chan struct{}, 1)}
	go w.loop(ctx)
	return w
}

func (w *watch) loop(ctx context.Context) {
	heard, warned := time.Now(), false
	for {
		height, err := w.query(ctx)
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
				w.wake(ctx, false)
			}
		case !warned && now.Sub(heard) >= silence:
			warned = true
			w.wake(ctx, true)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.pause()):
		}
	}
}

// errNotUp says that no connection is accepted yet.
var errNotUp = errors.New("the node's port is closed")

// query asks for the height. As long as nobody has seen that the node is up, that comes first: a query can hang.
func (w *watch) query(ctx context.Context) (uint64, error) {
	if w.eager {
		up := w.reader.Answered()
		w.note(time.Now())
		if !up {
			return 0, errNotUp
		}
	}
	w.seen()
	return w.reader.Height(ctx) //nolint:wrapcheck // only whether there is one matters
}

// blindness is how long nobody may have looked whether a node is up for it to count as not seen up.
const blindness = 2 * time.Second

// note notes that it was looked at now whether the node is up, and reports whether nobody looked for long before.
func (w *watch) note(now time.Time) (blind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blind = w.blind || now.Sub(w.looked) > blindness
	w.looked = now
	return w.blind
}

// wasBlind reports whether the node, which has ended, could be up for long without being seen.
func (w *watch) wasBlind() bool { return w.note(time.Now()) }

// count counts a query, and wakes the run loop if it failed; a reading wakes it by itself.
func (w *watch) count(err error) {
	if errors.Is(err, errNotUp) { // nobody was asked
		return
	}
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

// seen wakes the run loop, once, for a node that is up.
func (w *watch) seen() {
	if w.eager {
		w.eager = false
		w.up <- struct{}{}
	}
}

// noteUp calls f if the node was seen up and nobody was told.
func (w *watch) noteUp(f func()) {
	select {
	case <-w.up:
		f()
	default:
	}
}

func (w *watch) wake(ctx context.Context, silent bool) {
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
	// A reading that was not yet taken is replaced, so that nothing waits here. Only this goroutine sends.
	select {
	case <-w.readings:
	default:
	}
	w.readings <- r
}

// newest gives the newest reading, nil for none, and the rate in blocks per second: the higher of the rates over the whole
// window and over its last step, because a resync speeds up suddenly.
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

// slope is the rise from a to b in blocks per second, 0 if there is none.
func slope(a, b Reading) float64 {
	elapsed := b.At.Sub(a.At).Seconds()
	if elapsed <= 0 || b.Height <= a.Height {
		return 0
	}
	return float64(b.Height-a.Height) / elapsed
}

// pause is how long to wait before the next reading: within bounds, a tenth of the time to the stop height, so that the
// last reading is close to it.
func (w *watch) pause() time.Duration {
	last, rate := w.newest()
	switch {
	case w.eager:
		return pollFast
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
