package program

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/test/ports"
)

const (
	// soakBlocks is how many blocks each version makes. With more of them a node that gets no processor for a while, and then
	// catches up faster than its height is read, would end the run with 75, as documented.
	soakBlocks  = 10
	soakOrphans = 40 // of each block, in a version that makes orphans
	// judgeFrom is the shortest soak whose samples say anything: free memory is given back once a minute, and on a busy
	// machine it takes the runtime longer than a short soak to start the threads that it keeps, and the next sample may
	// come before the dead of the last one are reaped.
	judgeFrom = 2 * time.Minute
	// spareDescriptors is how many more are open at one moment than at another: pipes of a node, a connection.
	spareDescriptors = 4
	// hangUpFrom is how long a block must take for a moment in which its node is surely neither starting nor ending.
	hangUpFrom = 700 * time.Millisecond
)

// habit is what the node of a version does, and its wrapper before it.
type habit struct {
	wrapper  string
	faults   func(m *mockrollup.Mock, stop uint64)
	migrates bool
	// silent: the height is not to be had from this node.
	silent, orphans bool
}

func answers(how string) habit {
	return habit{silent: true, faults: func(m *mockrollup.Mock, _ uint64) { m.HTTP = how }}
}

// habits come one after the other, again and again, so that each quarter of a long soak has the same mixture.
var habits = []habit{
	{},
	{orphans: true, faults: func(m *mockrollup.Mock, _ uint64) { m.OrphansPerBlock = soakOrphans }},
	{migrates: true},
	{faults: func(m *mockrollup.Mock, stop uint64) { m.LeaderRestartAt = stop - 6 }},
	answers("null"),
	{wrapper: "for i in 1 2 3; do head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; done\n"},
	answers("hang"),
	{wrapper: "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done\n"},
	{faults: func(m *mockrollup.Mock, _ uint64) { m.StderrFlood = 200_000 }},
	answers("garbage"),
	{migrates: true, faults: func(m *mockrollup.Mock, _ uint64) {
		m.Startup, m.StartupHTTP, m.SlowShutdown = 500*time.Millisecond, "hang", 500*time.Millisecond
	}},
	answers("500"),
	answers("off"),
}

// marathon is one entrypoint, process 1 of its namespace, from the first version of a long plan to somewhere in it.
type marathon struct {
	*chain
	random *rand.Rand
	length time.Duration
	block  time.Duration

	began   time.Time
	samples []sample
	signals int
	// dead are the zombies of the last sample.
	dead []string
	// What was read from its stderr: bytes, and how often that was stalled; and the last of our own lines.
	read, stalls atomic.Int64
	last         logBook
}

// newMarathon lays out more versions than fit into the time.
func newMarathon(t *testing.T, length time.Duration, seed uint64) *marathon {
	t.Helper()
	period := min(max(length/16, time.Second), 10*time.Second)
	m := &marathon{random: rand.New(rand.NewPCG(seed, 1)), length: length, block: period / soakBlocks}
	var versions []version
	for i := range int(3*length/(2*period)) + len(habits) {
		stop, h := soakBlocks*uint64(i+1), habits[i%len(habits)]
		v := version{stop: stop, migrates: h.migrates}
		if h.faults != nil {
			v.faults = func(mock *mockrollup.Mock) { h.faults(mock, stop) }
		}
		versions = append(versions, v)
	}
	m.chain = newChain(t, versions...)
	m.statusAddress = fmt.Sprintf("127.0.0.1:%d", ports.Hold(t))
	m.stage, m.asFirst, m.listen = &stage{Proc: true}, true, m.readStalling
	for i := range m.versions {
		da := &m.versions[i].node.Mock.DA
		da.Address, da.File, da.BlockTime = "", filepath.Join(m.dir, "da.json"), m.block
		m.writeConfig(i)
		m.wrap(m.binary(i), habits[i%len(habits)].wrapper)
	}
	return m
}

// wrap puts a shell script in front of a node, as many images do. It has the node ignore what it does not handle.
func (m *marathon) wrap(binary, before string) {
	m.t.Helper()
	require.NoError(m.t, os.Rename(binary, binary+"-node"))
	script := fmt.Sprintf("#!/bin/sh\ntrap '' HUP USR1\n%sexec %s-node \"$@\"\n", before, binary)
	require.NoError(m.t, writeExecutable(binary, []byte(script)))
}

// run disturbs and samples the entrypoint until the time is over, stops it, and judges.
func (m *marathon) run() {
	m.t.Helper()
	m.start()
	m.await("the status to be served", func() bool {
		resp, err := http.Get("http://" + m.statusAddress + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	m.await("the first node to run", func() bool {
		_, err := mockrollup.ReadState(m.state)
		return err == nil
	})
	m.began = time.Now()
	m.samples = append(m.samples, m.sample())
	every := min(max(m.length/60, 200*time.Millisecond), 5*time.Second)
	sampling, signalling := time.NewTicker(every), time.NewTicker(700*time.Millisecond)
	defer sampling.Stop()
	defer signalling.Stop()
	for over := time.After(m.length); over != nil; {
		select {
		case <-over:
			over = nil
		case <-sampling.C:
			require.NotEmpty(m.t, m.metrics(), "it is scraped all the time")
			m.samples = append(m.samples, m.sample())
		case <-signalling.C:
			m.disturb()
		case <-m.program.done:
			m.fatalf("the entrypoint has ended with code %d:\n%s", m.program.code(), m.last.text())
		}
	}
	m.await("two versions to be complete", func() bool { return m.completed() >= 2 })
	m.awaitNoZombies()
	m.awaitDescriptors()
	m.stop()
	m.expectFlat()
	m.expectWholeState()
}

// disturb sends a signal that is forwarded and that nobody dies of.
func (m *marathon) disturb() {
	m.t.Helper()
	harmless := []syscall.Signal{syscall.SIGWINCH, syscall.SIGCONT}
	if m.nodeIsSettled() {
		harmless = append(harmless, syscall.SIGHUP, syscall.SIGUSR1)
	}
	send(harmless[m.random.IntN(len(harmless))])(m.chain)
	m.signals++
}

// nodeIsSettled reports whether a node runs that ignores SIGHUP and keeps running for some seconds: a shell that has not come
// to its trap would die of it.
func (m *marathon) nodeIsSettled() bool {
	if m.block < hangUpFrom {
		return false
	}
	state, stateErr := mockrollup.ReadState(m.state)
	da, daErr := mockrollup.OpenDAFile(filepath.Join(m.dir, "da.json"), mockrollup.DAParams{})
	if stateErr != nil || daErr != nil {
		return false
	}
	within, behind := state.Height%soakBlocks, da.At(time.Now()).CurrentSlot-state.Height
	return within > 1 && within < soakBlocks/2 && behind < soakBlocks/2 // one far behind would rush through its version
}

// completed is how many versions the checkpoint has as complete.
func (m *marathon) completed() int {
	found, err := checkpoint.Read(m.checkpoint, "")
	require.NoError(m.t, err)
	return len(completed(found.Checkpoint))
}

// readStalling reads the program's stderr as a log collector does that is sometimes slow and sometimes stuck.
func (m *marathon) readStalling(r io.Reader) {
	var line []byte
	buffer := make([]byte, 64<<10)
	next := time.Now().Add(m.length / 12)
	slowUntil := time.Time{}
	for {
		n, err := r.Read(buffer)
		m.read.Add(int64(n))
		line = m.note(line, buffer[:n])
		if err != nil {
			return
		}
		now := time.Now()
		switch {
		case now.After(next):
			m.stalls.Add(1)
			time.Sleep(min(m.length/60, 7*time.Second)) // at full length it counts as stuck
			next, slowUntil = now.Add(m.length/12), now.Add(min(m.length/30, 15*time.Second))
		case now.Before(slowUntil):
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// note keeps our own last lines of log. rest is what came after the last line end.
func (m *marathon) note(rest, text []byte) []byte {
	for {
		at := bytes.IndexByte(text, '\n')
		if at < 0 {
			break
		}
		if rest = append(rest, text[:at]...); bytes.HasPrefix(rest, []byte(`{"time":`)) {
			m.last.add(string(rest))
		}
		rest, text = rest[:0], text[at+1:]
	}
	m.last.keep(1000)
	if len(rest) > 64<<10 {
		return append(rest[:0], '-') // no line of ours is that long
	}
	return append(rest, text...)
}

// keep forgets all but the last n lines.
func (b *logBook) keep(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) > 2*n {
		b.lines = slices.Clone(b.lines[len(b.lines)-n:])
	}
	b.other = nil
}

// stop ends the marathon where it is.
func (m *marathon) stop() {
	m.t.Helper()
	send(syscall.SIGTERM)(m.chain)
	m.awaitEnd()
	// A node that is still starting is killed by the signal.
	if code := m.program.code(); m.program.signalled() || code != 0 && code != 128+int(syscall.SIGTERM) {
		m.fatalf("the entrypoint ended with code %d after SIGTERM:\n%s", code, m.last.text())
	}
	if left := m.processes(); len(left) > 0 {
		m.fatalf("processes are left over: %v", left)
	}
	if files := m.leftoverFiles(); len(files) > 0 {
		m.fatalf("files are left over beside the checkpoint: %v", files)
	}
	m.program = nil
}

// expectWholeState compares the state with what the versions so far make of it, and reports what happened.
func (m *marathon) expectWholeState() {
	m.t.Helper()
	state, err := mockrollup.ReadState(m.state)
	require.NoError(m.t, err)
	entries, err := m.journal()
	require.NoError(m.t, err)
	if overlap := mockrollup.Overlap(entries); overlap != nil {
		m.fatalf("two processes worked on the state at once: %+v", overlap)
	}
	var migrations, want []uint64
	for _, ran := range state.Migrations {
		migrations = append(migrations, ran.Height)
	}
	done, orphans := m.completed(), 0
	for i, v := range m.versions[:done+1] {
		if i < done {
			segment := state.History[i]
			assert.Equal(m.t, []uint64{v.start, v.stop}, []uint64{segment.From, segment.To}, "heights of %s", v.node.Mock.Label)
			assert.Equal(m.t, v.node.Mock.Label, segment.By)
		}
		if v.migrates && (i < done || len(migrations) > len(want)) {
			want = append(want, v.start-1)
		}
		if i < done && habits[i%len(habits)].orphans {
			orphans += soakBlocks * soakOrphans
		}
	}
	assert.Equal(m.t, want, migrations, "each migration ran once, at its height")
	m.t.Logf("\n%d hand-overs, %d migrations, %d processes started, %d orphans and more reaped, %d signals forwarded\n"+
		"%d MB of stderr read, with %d stalls; the checkpoint has %d bytes", done, len(migrations), len(mockrollup.Runs(entries)), orphans,
		m.signals, m.read.Load()>>20, m.stalls.Load(), len(readText(m.checkpoint)))
}

// sample is what /proc shows of the entrypoint at one moment.
type sample struct {
	at     time.Duration
	values [len(measures)]float64
}

// The measures of a sample, in the order of their rows.
const (
	memory = iota
	descriptors
	threads
	zombies
	processor
	switches
)

var measures = [...]string{"own memory (kB)", "descriptors", "threads", "zombies", "CPU (s)", "voluntary switches"}

func (m *marathon) sample() sample {
	m.t.Helper()
	pid := m.program.cmd.Process.Pid
	folder := fmt.Sprintf("/proc/%d/", pid)
	s := sample{at: time.Since(m.began)}
	for line := range strings.Lines(readText(folder + "status")) {
		name, value, _ := strings.Cut(line, ":")
		row := slices.Index([]string{memory: "RssAnon", threads: "Threads", switches: "voluntary_ctxt_switches"}, name)
		if row >= 0 {
			_, err := fmt.Sscan(value, &s.values[row])
			require.NoError(m.t, err)
		}
	}
	fds, err := os.ReadDir(folder + "fd")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		m.fatalf("the entrypoint has ended:\n%s", m.last.text())
	}
	require.NoError(m.t, err)
	s.values[descriptors] = float64(len(fds))
	// Every dead child is a zombie for a moment, on a busy machine for a longer one. What counts is who stays.
	before := m.dead
	m.dead = zombiesBelow(pid)
	for _, pid := range m.dead {
		if slices.Contains(before, pid) {
			s.values[zombies]++
		}
	}
	stat := readText(folder + "stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var user, system float64
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	require.NoError(m.t, err)
	s.values[processor] = (user + system) / 100 // USER_HZ
	return s
}

// awaitDescriptors waits until no more of them are open than at the beginning. One leaked at each hand-over would stay.
func (m *marathon) awaitDescriptors() {
	m.t.Helper()
	var now float64
	m.awaitOr("as few descriptors as at the beginning", func() bool {
		now = m.sample().values[descriptors]
		return now <= m.samples[0].values[descriptors]+spareDescriptors
	}, func() string { return fmt.Sprintf("%.0f are open, %.0f were", now, m.samples[0].values[descriptors]) })
}

// expectFlat compares the last quarter of the samples with the quarter after the warm-up, the first tenth.
func (m *marathon) expectFlat() {
	m.t.Helper()
	warm := m.samples[len(m.samples)/10:]
	quarter := max(len(warm)/4, 1)
	early, late := warm[:quarter], warm[len(warm)-quarter:]
	m.t.Log(m.table(early, late))
	if m.length < judgeFrom {
		return
	}
	for _, bound := range []struct {
		row  int
		more float64 // than in the early quarter
	}{{descriptors, 2}, {threads, 2}, {zombies, 0}} {
		assert.LessOrEqual(m.t, median(late, bound.row), median(early, bound.row)+bound.more, "the %s grow", measures[bound.row])
	}
	first := median(early, memory)
	rise := slopePerHour(warm) * (warm[len(warm)-1].at - warm[0].at).Hours()
	assert.LessOrEqual(m.t, median(late, memory), 1.15*first+256, "the memory grows")
	assert.LessOrEqual(m.t, rise, 0.15*first+256, "the memory has a rising trend")
}

func (m *marathon) table(early, late []sample) string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%d samples\tstart\tmin\tmedian\tmax\tend\tearly quarter\tlast quarter\t\n", len(m.samples))
	for row, name := range measures {
		values := column(m.samples, row)
		fmt.Fprintf(w, "%s", name)
		for _, value := range []float64{
			values[0], slices.Min(values), median(m.samples, row), slices.Max(values), values[len(values)-1], median(early, row), median(late, row),
		} {
			fmt.Fprintf(w, "\t%.6g", value)
		}
		fmt.Fprint(w, "\t\n")
	}
	_ = w.Flush() // to memory
	return table.String() + fmt.Sprintf("own memory after the warm-up, least squares: %+.0f kB an hour", slopePerHour(m.samples[len(m.samples)/10:]))
}

func column(samples []sample, row int) (values []float64) {
	for _, s := range samples {
		values = append(values, s.values[row])
	}
	return values
}

func median(samples []sample, row int) float64 {
	values := column(samples, row)
	slices.Sort(values)
	return values[len(values)/2]
}

// slopePerHour fits a line through the memory of the samples.
func slopePerHour(samples []sample) float64 {
	var n, x, y, xx, xy float64
	for _, s := range samples {
		hours, kB := s.at.Hours(), s.values[memory]
		n, x, y, xx, xy = n+1, x+hours, y+kB, xx+hours*hours, xy+hours*kB
	}
	return (n*xy - x*y) / (n*xx - x*x)
}
