package simulation

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// tally sums up lives.
type tally struct {
	mu     sync.Mutex
	lives  int
	runs   int
	steps  int
	took   time.Duration
	counts [faultCount]int
	// in counts the lives in which something happened.
	in [faultCount]int
}

func (t *tally) life(l *life) {
	t.lives++
	t.runs += l.runs
	t.steps += l.steps
	t.took += l.took
	for f, n := range l.counts {
		t.counts[f] += n
		if n > 0 {
			t.in[f]++
		}
	}
}

func (t *tally) add(o *tally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lives += o.lives
	t.runs += o.runs
	t.steps += o.steps
	t.took += o.took
	for f := range faultCount {
		t.counts[f] += o.counts[f]
		t.in[f] += o.in[f]
	}
}

func (t *tally) print(test *testing.T, took time.Duration) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d lives in %s (%.0f a second), %d runs, %d steps, %s of simulated time\n",
		t.lives, took.Round(time.Millisecond), float64(t.lives)/took.Seconds(), t.runs, t.steps, t.took.Round(time.Hour))
	fmt.Fprintf(&b, "%10s %10s\n", "times", "lives")
	for f := range faultCount {
		fmt.Fprintf(&b, "%10d %10d  %s\n", t.counts[f], t.in[f], f)
	}
	test.Log(b.String())
}
