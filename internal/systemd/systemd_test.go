package systemd

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
)

// deadline is for what a test waits for. Only a failing test reaches it.
const deadline = time.Minute

// manager is the service manager's end of a socket.
type manager struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func listen(t *testing.T, path string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &manager{t, path, conn}
}

func listenInFolder(t *testing.T) *manager {
	t.Helper()
	return listen(t, filepath.Join(t.TempDir(), "notify"))
}

// next waits for the next message.
func (m *manager) next() string {
	m.t.Helper()
	buffer := make([]byte, 4096)
	require.NoError(m.t, m.conn.SetReadDeadline(time.Now().Add(deadline)))
	n, err := m.conn.Read(buffer)
	require.NoError(m.t, err)
	return string(buffer[:n])
}

// until waits for a message with this line, and gives all lines that came up to it.
func (m *manager) until(line string) (lines []string) {
	m.t.Helper()
	for {
		got := strings.Split(strings.TrimSuffix(m.next(), "\n"), "\n")
		lines = append(lines, got...)
		for _, l := range got {
			if l == line {
				return lines
			}
		}
	}
}

// run is what a notifier of a test depends on.
type run struct {
	*Notifier
	line, dead atomic.Value
	pulse      chan syscall.Signal
	mu         sync.Mutex
	log        bytes.Buffer
}

// Write takes the log.
func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *run) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

func start(t *testing.T, socket Socket) *run {
	t.Helper()
	r := &run{pulse: make(chan syscall.Signal)}
	r.line.Store("preparing")
	r.dead.Store("")
	text := func(v *atomic.Value) func() string { return func() string { s, _ := v.Load().(string); return s } }
	r.Notifier = Start(Options{
		Socket: socket, Pulse: r.pulse, Line: text(&r.line), NotAlive: text(&r.dead), Log: slog.New(slog.NewTextHandler(r, nil)),
	})
	return r
}

// takePulses takes each pulse, as the loop of the sequence does, until the test ends.
func (r *run) takePulses(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case <-r.pulse:
			case <-done:
				return
			}
		}
	}()
}

func (r *run) enters(phase sequencer.Phase, line string) {
	r.line.Store(line)
	r.Observe(sequencer.State{Phase: phase})
}

func TestVariablesOfSystemdAreTakenOutOfTheEnvironment(t *testing.T) {
	for _, test := range []struct {
		usec, pid string
		watchdog  time.Duration
	}{
		{"3000000", fmt.Sprint(os.Getpid()), 3 * time.Second},
		{"3000000", "", 3 * time.Second},
		{"3000000", "1", 0}, // it is for another process
		{"", "", 0},
		{"soon", "", 0},
		{"18446744073709551615", "", 0},
	} {
		t.Setenv("NOTIFY_SOCKET", "@name")
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		assert.Equal(t, Socket{Path: "@name", Watchdog: test.watchdog}, Take())
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			_, there := os.LookupEnv(name)
			assert.False(t, there, name)
		}
	}
	assert.Equal(t, Socket{}, Take())
}

func TestReadyOnceTheSequenceRuns(t *testing.T) {
	for kind, path := range map[string]string{
		"path": filepath.Join(t.TempDir(), "notify"), "abstract": fmt.Sprintf("@rollup-entrypoint-test-%d", os.Getpid()),
	} {
		t.Run(kind, func(t *testing.T) {
			m := listen(t, path)
			r := start(t, Socket{Path: path})
			r.enters(sequencer.PhasePreparing, "still preparing")
			r.enters(sequencer.PhaseMigrating, "a long migration")
			lines := m.until("STATUS=a long migration")
			assert.Equal(t, "READY=1", lines[len(lines)-2], "%q", lines)
			r.enters(sequencer.PhaseRunning, "v1 runs\nat height 7")
			assert.Equal(t, "STATUS=v1 runs at height 7\n", m.next(), "once is enough")
			r.Stop()
		})
	}
}

func TestNotReadyIfNothingWasStarted(t *testing.T) {
	m := listenInFolder(t)
	r := start(t, Socket{Path: m.path})
	r.enters(sequencer.PhaseFailed, "failed")
	r.Stop()
	assert.Equal(t, "STATUS=failed\n", m.next())
}

// The end of a run that had nothing to do comes at once, and without READY it would be a failure to systemd.
func TestLastStateIsSentBeforeTheEnd(t *testing.T) {
	m := listenInFolder(t)
	r := start(t, Socket{Path: m.path})
	r.enters(sequencer.PhaseFinished, "finished")
	r.Stop()
	assert.Contains(t, m.until("STATUS=finished"), "READY=1")
}

func TestStopRequestIsTold(t *testing.T) {
	m := listenInFolder(t)
	r := start(t, Socket{Path: m.path})
	r.line.Store("running (stop requested)")
	r.Observe(sequencer.State{Phase: sequencer.PhaseRunning, Stopping: true})
	assert.Equal(t, []string{"READY=1", "STOPPING=1", "STATUS=running (stop requested)"}, m.until("STATUS=running (stop requested)"))
	r.Stop()
}

// Heights change with each block.
func TestHeightIsToldNowAndThen(t *testing.T) {
	m := listenInFolder(t)
	r := start(t, Socket{Path: m.path, Watchdog: 20 * time.Millisecond})
	r.enters(sequencer.PhaseRunning, "height 1")
	m.until("STATUS=height 1")
	r.enters(sequencer.PhaseRunning, "height 2") // the phase is the same, so it waits for the next beat
	assert.Equal(t, "STATUS=height 2\n", m.next())
	r.Stop()
}

func TestSignOfLifeFollowsThePulseOfTheLoop(t *testing.T) {
	m := listenInFolder(t)
	r := start(t, Socket{Path: m.path, Watchdog: 20 * time.Millisecond})
	r.enters(sequencer.PhaseRunning, "1")
	m.until("STATUS=1")
	for i := range 5 { // the loop does not take a pulse, and everything else works
		r.enters(sequencer.PhaseRunning, fmt.Sprintf("round %d", i))
		require.Equal(t, fmt.Sprintf("STATUS=round %d\n", i), m.next())
	}
	<-r.pulse
	require.Equal(t, "WATCHDOG=1\n", m.next())
	<-r.pulse
	require.Equal(t, "WATCHDOG=1\n", m.next())

	r.dead.Store("no new height for an hour")
	<-r.pulse
	r.enters(sequencer.PhaseRunning, "2")
	require.Equal(t, "STATUS=2\n", m.next(), "as /healthz, the watchdog asks whether the run is alive")
	r.Stop()
}

func TestMoreTimeIsAskedForWhereOnlyWaitingHelps(t *testing.T) {
	node, migration, hook := sequencer.ProcessState{Pid: 7}, sequencer.ProcessState{Pid: 7, Migration: true}, sequencer.ProcessState{Pid: 7, Hook: true}
	for _, test := range []struct {
		name  string
		state sequencer.State
		more  bool
	}{
		{"what a dead entrypoint left running is waited for", sequencer.State{Phase: sequencer.PhasePreparing}, true},
		{"a migration", sequencer.State{Phase: sequencer.PhaseMigrating, Process: migration}, false},
		{"a migration that a stop waits for", sequencer.State{Phase: sequencer.PhaseMigrating, Process: migration, Stopping: true}, true},
		{"a hook that a stop waits for", sequencer.State{Phase: sequencer.PhaseHook, Process: hook, Stopping: true}, true},
		{"what a migration left behind", sequencer.State{Phase: sequencer.PhaseHandingOver, Stopping: true}, true},
		{"a node that stops", sequencer.State{Phase: sequencer.PhaseRunning, Process: node, Stopping: true}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := listenInFolder(t)
			r := start(t, Socket{Path: m.path, Watchdog: 20 * time.Millisecond})
			r.line.Store("told")
			r.Observe(test.state)
			m.until("STATUS=told")
			<-r.pulse
			lines := m.next()
			assert.Contains(t, lines, "WATCHDOG=1\n")
			assert.Equal(t, test.more, strings.Contains(lines, "EXTEND_TIMEOUT_USEC=120000000\n"), "%q", lines)
			r.Stop()
		})
	}
}

func TestSocketThatDoesNotWorkIsLoggedOnce(t *testing.T) {
	r := start(t, Socket{Path: filepath.Join(t.TempDir(), "nobody"), Watchdog: 10 * time.Millisecond})
	r.takePulses(t)
	for i := range 10 {
		r.enters(sequencer.Phases()[i], fmt.Sprint(i))
	}
	r.Stop()
	assert.Equal(t, 1, strings.Count(r.logged(), "systemd not notified"), r.logged())
	assert.Contains(t, r.logged(), "nobody")
}

func TestNothingIsSentWithoutASocket(t *testing.T) {
	r := start(t, Socket{})
	r.enters(sequencer.PhaseRunning, "1")
	r.enters(sequencer.PhaseRunning, "2") // and nothing waits
	r.Stop()
	assert.Empty(t, r.logged())
	assert.NoError(t, Socket{}.Send("READY=1"))
}
