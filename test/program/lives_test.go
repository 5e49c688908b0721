package program

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
)

var (
	livesCount = flag.Int("lives", 8, "`NUMBER` of lives of TestHostileLives…")
	livesSeed  = flag.Uint64("lives-seed", 0, "`SEED` of the first life of TestHostileLives…, 0 for a new one; the next life has the next seed")
)

// A node that is killed leaves a damaged state here, as a real one may. The entrypoint, which is not process 1, is killed
// and stopped at random moments of all its versions, and started again at once, while what it had started may still run:
// no state is damaged, and each height is written by its version.
func TestHostileLivesOfKilledAndStoppedEntrypointsDamageNoState(t *testing.T) {
	t.Parallel()
	seed := *livesSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	total := &livesTotal{codes: map[int]int{}}
	var mu sync.Mutex
	t.Cleanup(func() { t.Log(total) })
	for i := range *livesCount {
		seed := seed + uint64(i)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			own := &livesTotal{codes: map[int]int{}}
			newFragileLife(t, seed, own).runFragile()
			mu.Lock()
			defer mu.Unlock()
			total.add(own)
		})
	}
}

func (l *livesTotal) add(more *livesTotal) {
	l.lives++
	l.versions, l.migrations, l.runs = l.versions+more.versions, l.migrations+more.migrations, l.runs+more.runs
	l.killed, l.stopped, l.starts = l.killed+more.killed, l.stopped+more.stopped, l.starts+more.starts
	for code, times := range more.codes {
		l.codes[code] += times
	}
}

// newFragileLife lays out two or three versions whose nodes are nearly always in the middle of a commit.
func newFragileLife(t *testing.T, seed uint64, total *livesTotal) *life {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	versions := []version{{}, {migrates: true}, {migrates: oneIn(2, random)}}[:2+random.IntN(2)]
	var height uint64
	for i := range versions {
		height += 15 + random.Uint64N(25)
		versions[i].stop = height
		versions[i].faults = func(m *mockrollup.Mock) {
			m.DamageOnKill, m.CommitWindow = true, 15*time.Millisecond
			m.Startup = time.Duration(random.Int64N(int64(100 * time.Millisecond)))
			m.SlowShutdown = time.Duration(random.Int64N(int64(200 * time.Millisecond)))
			m.Migration.Idempotent, m.Migration.Sleep = true, time.Duration(random.Int64N(int64(300*time.Millisecond)))
			if oneIn(3, random) {
				m.StartupHTTP, m.HTTP = "hang", "hang"
			}
		}
	}
	l := &life{chain: newChain(t, versions...), random: random, total: total}
	for i := range l.versions {
		da := &l.versions[i].node.Mock.DA
		da.Address, da.File = "", l.dir+"/da.json"
		l.writeConfig(i)
	}
	return l
}

// runFragile starts the entrypoint again and again until the last version is done, and disturbs its first runs.
func (l *life) runFragile() {
	l.t.Helper()
	for n, disturbed := 0, 4+l.random.IntN(8); ; n++ {
		l.phase = fmt.Sprintf("run %d", n)
		l.start()
		l.total.runs++
		if n < disturbed {
			l.killOrStop()
		}
		l.awaitEnd()
		code := l.program.code()
		l.total.codes[code]++
		l.expectFragileEnd(code, n < disturbed)
		l.program = nil
		l.expectNoDamage()
		if code == 0 && l.isFinished() {
			break
		}
		if n >= disturbed {
			l.fatalf("the undisturbed run did not come to the end: %s, %s", l.checkpointInWords(), l.stateInWords())
		}
	}
	l.seen.check(l.chain)
	l.expectUndisturbedState()
}

// killOrStop does one of the two after a moment, unless the program ends before.
func (l *life) killOrStop() {
	l.t.Helper()
	kills := l.random.IntN(3) > 0
	moment := time.Duration(l.random.Int64N(int64(700 * time.Millisecond)))
	if !kills {
		// Before it has caught the signal the Go runtime would die of it.
		l.await("the first line of log", func() bool { return l.program.ended() || len(l.program.log.all()) > 0 })
	}
	select {
	case <-l.program.done:
		return
	case <-time.After(moment):
	}
	if kills {
		l.total.killed++
		_ = l.program.cmd.Process.Kill()
		return
	}
	l.total.stopped++
	// Not SIGQUIT: before the stand-in has caught it, the Go runtime dies of it with a code of its own.
	_ = l.program.cmd.Process.Signal([]syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[l.random.IntN(2)])
}

// expectFragileEnd finds every end that nobody asked for: nothing fails here of itself.
func (l *life) expectFragileEnd(code int, disturbed bool) {
	l.t.Helper()
	if code != 0 && (!disturbed || !l.program.signalled()) {
		l.fatalf("exit code %d:\n%s", code, l.program.log.text())
	}
}

// expectNoDamage looks at the journal, to which a node writes that it has found its state damaged.
func (l *life) expectNoDamage() {
	l.t.Helper()
	entries, err := l.journal()
	require.NoError(l.t, err)
	for _, e := range entries {
		if e.Event == mockrollup.EventDamaged {
			l.fatalf("the state is damaged: %s\n%s", e.Reason, strings.Join(l.trace(), "\n"))
		}
	}
	if overlap := mockrollup.Overlap(entries); overlap != nil {
		l.fatalf("two processes worked on the state at once: %+v\n%s", overlap, strings.Join(l.trace(), "\n"))
	}
}

func (l *life) isFinished() bool {
	found, err := checkpoint.Read(l.checkpoint, "")
	return err == nil && found.Checkpoint != nil && found.Checkpoint.Phase == checkpoint.PhaseFinished
}
