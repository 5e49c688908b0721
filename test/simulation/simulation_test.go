package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seedFlag     = flag.Int64("seed", -1, "live this one life and print its event log")
	livesFlag    = flag.Int("lives", 0, "how many lives")
	durationFlag = flag.Duration("duration", 0, "live as many lives as fit into this time")
	firstFlag    = flag.Uint64("first", 1, "the first seed")
)

// allFaultsFrom is how many lives make it certain that each fault has fired.
const allFaultsFrom = 100_000

// inBubble lives one life.
func inBubble(t *testing.T, seed uint64, record bool) (l life) {
	synctest.Test(t, func(*testing.T) { l = live(seed, record) })
	return l
}

func TestSimulation(t *testing.T) {
	if *seedFlag >= 0 {
		l := inBubble(t, uint64(*seedFlag), true)
		t.Logf("seed %d, %d runs, %s:\n%s", l.seed, l.runs, l.took.Round(time.Millisecond), strings.Join(l.log, "\n"))
		if l.violation != nil {
			t.Errorf("seed %d: %s", l.seed, l.violation)
		}
		return
	}
	lives, deadline := *livesFlag, time.Time{}
	switch {
	case *durationFlag > 0:
		deadline = time.Now().Add(*durationFlag)
	case lives == 0:
		lives = 2000
	}
	// Garbage is a fifth of the work at the default, and there is no memory to save.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	total := &tally{}
	began := time.Now()
	t.Run("lives", func(t *testing.T) {
		var next, broken atomic.Uint64
		for n := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				mine := &tally{}
				defer total.add(mine)
				for broken.Load() < 5 {
					i := next.Add(1) - 1
					if (lives > 0 && i >= uint64(lives)) || (!deadline.IsZero() && time.Now().After(deadline)) {
						return
					}
					l := inBubble(t, *firstFlag+i, false)
					mine.life(&l)
					if l.violation != nil {
						broken.Add(1)
						report(t, l)
					}
				}
			})
		}
	})
	total.print(t, time.Since(began))
	if total.lives < allFaultsFrom || t.Failed() {
		return
	}
	for f := range faultCount {
		if total.counts[f] == 0 {
			t.Errorf("never happened: %s", f)
		}
	}
}

// report lives a broken life again, for its event log.
func report(t *testing.T, l life) {
	again := inBubble(t, l.seed, true)
	text := "the event log is of another life: the seed does not replay"
	if again.violation != nil && *again.violation == *l.violation {
		text = "event log"
	}
	t.Errorf("seed %d: %s\n%s:\n%s\nreplay with: go test ./test/simulation -run Simulation -seed %d -v",
		l.seed, l.violation, text, strings.Join(again.log, "\n"), l.seed)
}

func TestSeedsReplayExactly(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		a, b := inBubble(t, seed, true), inBubble(t, seed, true)
		for i := range max(len(a.log), len(b.log)) {
			if i >= len(a.log) || i >= len(b.log) || a.log[i] != b.log[i] {
				t.Fatalf("seed %d replays differently from line %d on:\n%s\n---\n%s", seed, i, tail(a.log, i), tail(b.log, i))
			}
		}
	}
}

func tail(log []string, i int) string {
	return strings.Join(log[max(0, min(i-5, len(log))):min(len(log), i+5)], "\n")
}
