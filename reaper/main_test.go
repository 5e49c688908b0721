package reaper

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// patience bounds every wait for an event. It is never reached in a test that passes.
const patience = 60 * time.Second

// The test binary is also the programs that the tests start: with REAPER_ROLE it plays one of these, and with
// REAPER_INIT it runs tests as process 1 of a new process namespace.
var roles = map[string]func(){}

// ignoredAtStart is the set of signals that were ignored when the test began, as /proc/self/status has it.
var ignoredAtStart = statusField("self", "SigIgn")

func TestMain(m *testing.M) {
	if role := os.Getenv("REAPER_ROLE"); role != "" {
		os.Unsetenv("REAPER_ROLE")
		roles[role]()
		os.Exit(0)
	}
	if os.Getenv("REAPER_INIT") != "" {
		must(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(unix.Mount("proc", "/proc", "proc", 0, ""))
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // for the processes that we start: the default is a second each
	os.Exit(m.Run())
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "test process:", err)
		os.Exit(99)
	}
}

// runAsInit runs the calling test once more, as process 1 of a new process namespace, and returns true there. What that
// one prints is logged.
func runAsInit(t *testing.T, flags ...string) bool {
	t.Helper()
	if os.Getenv("REAPER_INIT") != "" {
		require.Equal(t, 1, os.Getpid())
		return true
	}
	timeout := time.Duration(0) // none
	if deadline, ok := t.Deadline(); ok {
		timeout = max(time.Until(deadline)-patience/10, time.Second) // so that it prints its goroutines, and not we ours
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"-test.run=^" + t.Name() + "$", "-test.timeout=" + timeout.String()}, flags...)...)
	cmd.Env = append(os.Environ(), "REAPER_INIT=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		missing(t, "cannot make a process namespace: %v", err)
	}
	require.NoError(t, err, "as process 1:\n%s", out)
	t.Logf("as process 1:\n%s", out)
	return false
}

// missing skips a test for which the machine lacks something. In CI nothing may be lacking.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("in CI this test must run: "+format, args...)
	}
	t.Skipf(format, args...)
}

// newReaper returns a Reaper of this test. At the test's end all that it started is ended.
func newReaper(t *testing.T, o Options) *Reaper {
	t.Helper()
	if o.Inbox == nil {
		o.Inbox = catch(nil) // SIGCHLD alone
		t.Cleanup(func() { _ = o.Inbox.Close() })
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		for pid := range r.running() {
			_ = unix.Kill(-pid, unix.SIGKILL)
		}
		sweepAway(t, r)
		r.Close()
	})
	return r
}

// quiet are the options of a Reaper that logs nothing.
func quiet(inbox *Inbox) Options { return Options{Inbox: inbox, Log: slog.New(slog.DiscardHandler)} }

// startWith starts a process whose stdin is a file.
func startWith(t *testing.T, r *Reaper, stdin *os.File, cmd Command) *Child {
	t.Helper()
	defer setStdin(stdin)()
	return start(t, r, cmd)
}

// setStdin gives this process another stdin, which those that it starts inherit, until undo is called.
func setStdin(file *os.File) (undo func()) {
	before := os.Stdin
	os.Stdin = file
	return func() { os.Stdin = before }
}

// newInbox catches all signals until the test's end.
func newInbox(t *testing.T) *Inbox {
	b := CatchSignals()
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

// shell returns a command that runs a script.
func shell(script string, args ...string) Command {
	return Command{Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "sh"}, args...)}
}

// actor returns a command that runs this binary in one of its roles.
func actor(role string) Command {
	return Command{Path: "/proc/self/exe", Args: []string{role}, Env: append(os.Environ(), "REAPER_ROLE="+role)}
}

func start(t *testing.T, r *Reaper, cmd Command) *Child {
	t.Helper()
	c, err := r.Start(cmd)
	require.NoError(t, err)
	return c
}

// await waits for an event.
func await[T any](t *testing.T, events <-chan T, what string) T {
	t.Helper()
	select {
	case event := <-events:
		return event
	case <-time.After(patience):
		require.FailNow(t, "timed out", "waiting for %s", what)
		panic("unreachable")
	}
}

// exitOf waits for the end of a child.
func exitOf(t *testing.T, c *Child) Exit {
	t.Helper()
	await(t, c.Done(), "the end of the child")
	return c.Exit()
}

// eventually waits until the kernel shows something of which it sends no event.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			require.FailNow(t, "timed out", "waiting for: %s", what)
		}
	}
}

// state returns the state letter of a process, 0 if it is gone.
func state(pid int) byte {
	p, _ := procfs.Read(procfs.Root, pid)
	return p.State
}

// isAlive reports whether a process exists and is no zombie.
func isAlive(pid int) bool {
	p, err := procfs.Read(procfs.Root, pid)
	return err == nil && p.Alive()
}

// statusField returns a hexadecimal field of /proc/PID/status.
func statusField(pid, field string) uint64 {
	data, _ := os.ReadFile(filepath.Join("/proc", pid, "status"))
	return findField(string(data), field)
}

func findField(status, field string) uint64 {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return n
		}
	}
	return 0
}

// pipe returns what a child is to write to, and the lines that it writes.
func pipe(t *testing.T) (w *os.File, lines <-chan string) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return w, linesOf(r)
}

func linesOf(r io.Reader) <-chan string {
	lines := make(chan string, 10000)
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	return lines
}

// output runs a command to its end and returns what it wrote to stdout.
func output(t *testing.T, r *Reaper, cmd Command) string {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	require.NoError(t, err)
	defer out.Close()
	cmd.Stdout = out
	require.Equal(t, Exit{}, exitOf(t, start(t, r, cmd)))
	data, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return string(data)
}

// number reads a line with a number.
func number(t *testing.T, lines <-chan string) int {
	t.Helper()
	n, err := strconv.Atoi(await(t, lines, "a number"))
	require.NoError(t, err)
	return n
}

// buffer is a bytes.Buffer for several goroutines. It announces each write.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{}
}

func newBuffer() *buffer { return &buffer{written: make(chan struct{}, 1)} }

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.written <- struct{}{}:
	default:
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// awaitText waits until the buffer holds text.
func (b *buffer) awaitText(t *testing.T, text string) {
	t.Helper()
	for !strings.Contains(b.String(), text) {
		await(t, b.written, strconv.Quote(text))
	}
}

// forever waits to be killed. An empty select would do, but for the runtime, which calls that a deadlock.
func forever() {
	for {
		_ = unix.Pause()
	}
}
