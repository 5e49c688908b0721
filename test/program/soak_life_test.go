package program

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// runLives lets chains live one after the other until the time is over.
func runLives(t *testing.T, length time.Duration, seed uint64) {
	t.Helper()
	total := &livesTotal{codes: map[int]int{}}
	for end := time.Now().Add(length); total.lives == 0 || time.Now().Before(end); seed++ {
		lived := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { newLife(t, seed, total).run() })
		if !lived {
			t.Errorf("repeat this life with: go test ./test/program -run TestSoak/lives -soak 1s -soak-seed %d", seed)
		}
		total.lives++
	}
	t.Log(total)
}

// livesTotal counts what happened in all lives.
type livesTotal struct {
	lives, versions, migrations, runs    int
	killed, stopped, nodesKilled, starts int
	codes                                map[int]int // how often a run ended with each
}

func (l *livesTotal) String() string {
	var codes []string
	for _, code := range slices.Sorted(maps.Keys(l.codes)) {
		codes = append(codes, fmt.Sprintf("%d: %d", code, l.codes[code]))
	}
	return fmt.Sprintf("\n%d lives, %d versions, %d migrations, %d runs of the entrypoint, %d processes started by it\n"+
		"%d kills of the entrypoint, %d stop signals, %d signals to a node or a migration\nexit codes: %s",
		l.lives, l.versions, l.migrations, l.runs, l.starts, l.killed, l.stopped, l.nodesKilled, strings.Join(codes, ", "))
}

// life is one chain from its genesis to the end of its last version.
type life struct {
	*chain
	random *rand.Rand
	total  *livesTotal
	seen   lifeSoFar
}

func newLife(t *testing.T, seed uint64, total *livesTotal) *life {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	var versions []version
	var height uint64
	for i := range 1 + random.IntN(4) {
		from := height + 1
		height += 20 + random.Uint64N(60)
		versions = append(versions, version{
			stop: height, migrates: i > 0 && random.IntN(2) == 0,
			faults: func(m *mockrollup.Mock) { drawFaults(random, m, from, height) },
		})
	}
	l := &life{chain: newChain(t, versions...), random: random, total: total}
	for i := range l.versions {
		da := &l.versions[i].node.Mock.DA
		da.Address, da.File = "", filepath.Join(l.dir, "da.json")
		l.writeConfig(i)
	}
	if random.IntN(2) == 0 {
		l.stage, l.asFirst = &stage{Proc: true}, true
	}
	return l
}

// oneIn is true once in n times.
func oneIn(n int, random *rand.Rand) bool { return random.IntN(n) == 0 }

// drawFaults gives the node of a version its habits. Nothing among them needs an operator.
func drawFaults(random *rand.Rand, m *mockrollup.Mock, from, stop uint64) {
	within := func() uint64 { return from + random.Uint64N(stop-from+1) }
	m.Startup = time.Duration(random.Int64N(int64(300 * time.Millisecond)))
	m.Migration.Idempotent, m.Migration.Sleep = true, time.Duration(random.Int64N(int64(200*time.Millisecond)))
	if oneIn(2, random) {
		m.StartupHTTP = "hang"
	}
	if oneIn(2, random) {
		m.HTTP = []string{"hang", "null", "garbage", "500", "off"}[random.IntN(5)]
	}
	if oneIn(4, random) {
		m.HTTPLate = time.Duration(random.Int64N(int64(time.Second)))
	}
	if oneIn(3, random) {
		m.LeaderRestartAt = within()
	}
	if oneIn(3, random) {
		m.CrashAt, m.CrashOnce = within(), true
		m.CrashOn = []string{"soft", "durable"}[random.IntN(2)]
		m.CrashSignal = []string{"", "", "SIGSEGV", "SIGABRT", "SIGKILL"}[random.IntN(5)]
	}
	if oneIn(3, random) {
		m.SlowShutdown = time.Duration(random.Int64N(int64(300 * time.Millisecond)))
	}
	if oneIn(4, random) {
		m.OrphansPerBlock = 1
	}
	if oneIn(4, random) {
		m.StderrFlood = random.IntN(30_000)
	}
	m.IgnoreSigterm = oneIn(8, random)
}

// run starts the entrypoint again and again, as an orchestrator does, until the last version is done. First some runs
// are disturbed; then only the faults of the nodes are left, each of which comes once.
func (l *life) run() {
	l.t.Helper()
	disturbed := l.random.IntN(7)
	for n := range disturbed + 3*len(l.versions) + 5 {
		l.phase = fmt.Sprintf("run %d", n)
		l.start("--stop-timeout", "2s")
		l.total.runs++
		killed := n < disturbed && l.disturb()
		l.awaitEnd()
		l.expectDocumentedEnd(killed)
		l.program = nil
		l.seen.check(l.chain)
		if found, err := checkpoint.Read(l.checkpoint, ""); err == nil && found.Checkpoint != nil && found.Checkpoint.Phase == checkpoint.PhaseFinished {
			l.expectUndisturbedState()
			return
		}
	}
	l.fatalf("the sequence is not finished: %s, %s", l.checkpointInWords(), l.stateInWords())
}

// disturb does something at a random moment, and reports whether that was to kill the entrypoint.
func (l *life) disturb() (killed bool) {
	l.t.Helper()
	stops := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT}
	moment := time.Duration(l.random.Int64N(int64(3 * time.Second)))
	what, which := l.random.IntN(5), l.random.IntN(len(stops))
	if what > 1 {
		// Who gets a signal before it has caught it dies of it: the Go runtime, not the entrypoint.
		l.await("the first line of log", func() bool { return l.program.ended() || len(l.program.log.all()) > 0 })
	}
	select {
	case <-l.program.done:
		return false
	case <-time.After(moment):
	}
	switch what {
	case 0, 1:
		l.total.killed++
		_ = l.program.cmd.Process.Kill()
		return true
	case 2:
		l.total.stopped++
		_ = l.program.cmd.Process.Signal(stops[which])
	case 3:
		l.total.stopped += 2
		_ = l.program.cmd.Process.Signal(syscall.SIGTERM)
		_ = l.program.cmd.Process.Signal(stops[which])
	case 4:
		l.signalWorker([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP}[which])
	}
	return false
}

// signalWorker sends a signal to the node or the migration, whichever runs.
func (l *life) signalWorker(sig syscall.Signal) {
	for pid, line := range l.processes() {
		if strings.Contains(line, "--rollup-config-path") {
			l.total.nodesKilled++
			_ = unix.Kill(pid, sig)
		}
	}
}

// expectDocumentedEnd looks at the exit of the entrypoint and at what is left.
func (l *life) expectDocumentedEnd(killed bool) {
	l.t.Helper()
	code := l.program.code()
	l.total.codes[code]++
	if killed && l.program.signalled() {
		l.await("every process to be dead with the entrypoint", func() bool { return len(l.processes()) == 0 })
		return
	}
	if left := l.processes(); len(left) > 0 {
		l.fatalf("processes are left over: %v", left)
	}
	if l.program.signalled() {
		l.fatalf("the entrypoint was killed by %s", l.program.status().Signal())
	}
	if files := l.leftoverFiles(); len(files) > 0 {
		l.fatalf("files are left over beside the checkpoint: %v", files)
	}
	// A node's own codes, an early exit, and the signals by which nodes die here, or are killed after the stop timeout.
	// 2 is what the Go runtime makes of a SIGQUIT before the stand-in, or its migration, has come to handle it.
	documented := []int{
		2, 101, sequencer.CodeEarlyExit,
		128 + int(syscall.SIGHUP), 128 + int(syscall.SIGKILL), 128 + int(syscall.SIGABRT), 128 + int(syscall.SIGSEGV),
		128 + int(syscall.SIGTERM), 128 + int(syscall.SIGINT), 128 + int(syscall.SIGQUIT),
	}
	if code == 0 {
		return
	}
	if !slices.Contains(documented, code) {
		l.fatalf("exit code %d does not fit anything that happened", code)
	}
	l.expectReason(code, "", nil)
}

// expectUndisturbedState compares the state with what the versions make of it without any fault.
func (l *life) expectUndisturbedState() {
	l.t.Helper()
	have, err := mockrollup.ReadState(l.state)
	require.NoError(l.t, err)
	first := l.versions[0].node.Mock
	want := mockrollup.GenesisState(first.StateVersion, first.Label, first.Salt)
	want.Format = l.versions[len(l.versions)-1].node.Mock.Format
	want.History = nil
	for _, v := range l.versions {
		mock := v.node.Mock
		if v.migrates {
			want.StateRoot = mockrollup.MigratedRoot(want.StateRoot, want.StateVersion, mock.StateVersion)
			want.Migrations = append(want.Migrations, mockrollup.MigrationRecord{Height: want.Height, From: want.StateVersion, To: mock.StateVersion, By: mock.Label})
			want.StateVersion = mock.StateVersion
		}
		want.History = append(want.History, mockrollup.Segment{From: v.start, To: v.stop, BinaryVersion: mock.StateVersion, DiskVersion: mock.StateVersion, By: mock.Label})
		for want.Height < v.stop {
			want.Height++
			want.StateRoot = mockrollup.NextRoot(want.StateRoot, want.Height, mock.StateVersion, mock.Salt)
		}
		want.WrittenBy = mock.Label
	}
	assert.Equal(l.t, want, have, "each height was written by its version, and each migration ran once")
	entries, err := l.journal()
	require.NoError(l.t, err)
	l.total.versions += len(l.versions)
	l.total.migrations += len(have.Migrations)
	l.total.starts += len(mockrollup.Runs(entries))
}
