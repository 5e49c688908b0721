package ptrace_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/test/ptrace"
)

// deadline bounds every wait for something that must happen. It is only met by what is broken.
const deadline = 30 * time.Second

// programVariable has the test binary be the program that is traced.
const programVariable = "PTRACE_TEST_PROGRAM"

// These are as many threads and calls as the program "calls" has.
const threads, callsEach = 8, 200

func TestMain(m *testing.M) {
	if name := os.Getenv(programVariable); name != "" {
		if err := programs[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var programs = map[string]func() error{
	"calls":   callsProgram,
	"child":   func() error { pgids(callsEach); return nil },
	"files":   filesProgram,
	"signals": signalsProgram,
}

// callsProgram makes the same call from many threads at once, and starts processes that make it, too.
func callsProgram() error {
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			runtime.LockOSThread()
			pgids(callsEach)
		})
	}
	for range 3 {
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), programVariable+"=child")
		if err := child.Run(); err != nil {
			return err
		}
	}
	busy()
	all.Wait()
	return nil
}

// pgids makes n calls that nothing else in a Go program makes.
func pgids(n int) {
	for range n {
		_, _ = unix.Getpgid(0)
	}
}

// busy has the Go runtime preempt a goroutine that never calls anything, by SIGURG.
func busy() {
	done := make(chan struct{})
	go func() {
		for range 5 {
			runtime.GC()
		}
		close(done)
	}()
	for sum := 0; ; sum++ {
		if sum%1000000 != 0 {
			continue
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// filesProgram writes a file twice, and renames it, whatever fails; its output says what did.
func filesProgram() error {
	file, err := os.Create("before")
	if err != nil {
		return err
	}
	for range 2 {
		if _, err := file.WriteString("x"); err != nil {
			fmt.Println(err)
		}
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename("before", "after"); err != nil {
		fmt.Println(err)
	}
	return nil
}

// signalsProgram reports the signals that it gets until it gets SIGTERM.
func signalsProgram() error {
	caught := make(chan os.Signal, 10)
	signal.Notify(caught, unix.SIGTERM, unix.SIGCONT, unix.SIGCHLD)
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), programVariable+"=child")
	if err := child.Run(); err != nil {
		return err
	}
	for sig := range caught {
		fmt.Println(sig)
		if sig == unix.SIGTERM {
			break
		}
	}
	return nil
}

// traced is a program that runs under the tracer, in a directory of its own.
type traced struct {
	t       *testing.T
	dir     string
	process *ptrace.Process
}

func start(t *testing.T, name string, hook func(*ptrace.Call)) *traced {
	t.Helper()
	p := &traced{t: t, dir: t.TempDir()}
	out, err := os.Create(filepath.Join(p.dir, "out"))
	require.NoError(t, err)
	defer out.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = append(os.Environ(), programVariable+"="+name, "GOCOVERDIR="+p.dir)
	p.process, err = ptrace.Start(cmd, hook)
	require.NoError(t, err)
	return p
}

// end waits for the end of the program.
func (p *traced) end() syscall.WaitStatus {
	p.t.Helper()
	select {
	case <-p.process.Done():
	case <-time.After(deadline):
		_ = unix.Kill(p.process.PID, unix.SIGKILL)
		p.t.Fatalf("the program does not end; it wrote:\n%s", p.output())
	}
	status, err := p.process.Wait()
	require.NoError(p.t, err, p.output())
	return status
}

func (p *traced) output() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "out"))
	require.NoError(p.t, err)
	return string(text)
}

func (p *traced) has(file string) bool {
	_, err := os.Stat(filepath.Join(p.dir, file))
	return err == nil
}

func TestEveryCallOfEveryThreadIsSeenOnce(t *testing.T) {
	for range 3 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			entries, exits, stops := map[int]int{}, map[int]int{}, 0
			inside := map[int]string{}
			p := start(t, "calls", func(c *ptrace.Call) {
				stops++
				assert.Equal(t, stops, c.Ordinal)
				if c.Exit && inside[c.TID] != "" {
					assert.Equal(t, inside[c.TID], c.Name(), "the exit is that of the entry before")
				}
				inside[c.TID] = ""
				if !c.Exit {
					inside[c.TID] = c.Name()
				}
				switch {
				case c.Name() != "getpgid":
				case c.Exit:
					assert.EqualValues(t, c.PID, c.Result)
					exits[c.TID]++
				default:
					assert.Zero(t, c.Args[0])
					entries[c.TID]++
				}
			})
			assert.Zero(t, p.end())
			assert.Len(t, entries, threads, "one for each thread, and none for the children")
			for tid, n := range entries {
				assert.Equal(t, callsEach, n, "thread %d", tid)
			}
			assert.Equal(t, entries, exits)
		})
	}
}

// at has do called at the nth stop of that kind at the call, counted from 1.
func at(name string, exit bool, n int, do func(*ptrace.Call)) func(*ptrace.Call) {
	return func(c *ptrace.Call) {
		if c.Name() != name || c.Exit != exit {
			return
		}
		if n--; n == 0 {
			do(c)
		}
	}
}

// rename is what package os uses on every machine.
const rename = "renameat"

func TestKilledAtItsEntryACallIsNotMade(t *testing.T) {
	t.Parallel()
	p := start(t, "files", at(rename, false, 1, func(c *ptrace.Call) { assert.NoError(t, c.Signal(unix.SIGKILL)) }))
	status := p.end()
	require.True(t, status.Signaled())
	assert.Equal(t, unix.SIGKILL, status.Signal())
	assert.True(t, p.has("before"))
	assert.False(t, p.has("after"))
}

func TestKilledAtItsExitACallWasMade(t *testing.T) {
	t.Parallel()
	p := start(t, "files", at(rename, true, 1, func(c *ptrace.Call) { assert.NoError(t, c.Signal(unix.SIGKILL)) }))
	status := p.end()
	require.True(t, status.Signaled())
	assert.Equal(t, unix.SIGKILL, status.Signal())
	assert.False(t, p.has("before"))
	assert.True(t, p.has("after"))
}

func TestFailedCallIsNotMade(t *testing.T) {
	t.Parallel()
	var failed syscall.Errno
	p := start(t, "files", func(c *ptrace.Call) {
		if c.Name() != rename {
			return
		}
		if c.Exit {
			failed = c.Errno()
			return
		}
		from, err := c.Path(0, 1)
		assert.NoError(t, err)
		assert.True(t, strings.HasSuffix(from, "/before"), from)
		c.Fail(unix.EROFS)
	})
	assert.Zero(t, p.end())
	assert.Equal(t, unix.EROFS, failed)
	assert.Contains(t, p.output(), "read-only file system")
	assert.True(t, p.has("before"))
	assert.False(t, p.has("after"))
}

func TestOnlyThatCallFails(t *testing.T) {
	t.Parallel()
	writes := 0
	p := start(t, "files", func(c *ptrace.Call) {
		if c.Name() != "write" || c.Exit {
			return
		}
		if file, err := c.File(0); err != nil || !strings.HasSuffix(file, "/before") {
			return
		}
		if writes++; writes == 2 {
			c.Fail(unix.ENOSPC)
		}
	})
	assert.Zero(t, p.end())
	assert.Equal(t, 2, writes)
	assert.Equal(t, "write before: no space left on device\n", p.output())
	text, err := os.ReadFile(filepath.Join(p.dir, "after"))
	require.NoError(t, err)
	assert.Equal(t, "x", string(text))
}

func TestSignalsPassThrough(t *testing.T) {
	t.Parallel()
	p := start(t, "signals", func(*ptrace.Call) {})
	p.await("the child", func() bool { return strings.Contains(p.output(), "child exited") })
	assert.Equal(t, "child exited\n", p.output(), "the start left no trace")
	require.NoError(t, unix.Kill(p.process.PID, unix.SIGSTOP))
	p.await("the stop", p.isStopped)
	require.NoError(t, unix.Kill(p.process.PID, unix.SIGCONT))
	p.await("SIGCONT", func() bool { return strings.Contains(p.output(), "continued") })
	assert.False(t, p.isStopped())
	require.NoError(t, unix.Kill(p.process.PID, unix.SIGTERM))
	assert.Zero(t, p.end())
	assert.Equal(t, "child exited\ncontinued\nterminated\n", p.output())
}

// await waits until f is true.
func (p *traced) await(what string, f func() bool) {
	p.t.Helper()
	for end := time.Now().Add(deadline); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain for %s; the program wrote:\n%s", what, p.output())
		}
	}
}

// isStopped reports whether all threads stand still. One that waits for its tracer looks the same for a moment, so it
// is looked at twice with some time for a thread that only passes by.
func (p *traced) isStopped() bool {
	for range 3 {
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.process.PID))
		require.NoError(p.t, err)
		for _, state := range states {
			text, _ := os.ReadFile(state)
			_, rest, _ := strings.Cut(string(text), ") ")
			if !strings.HasPrefix(rest, "t") && !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

func TestProgramThatDoesNotExistIsAnError(t *testing.T) {
	t.Parallel()
	_, err := ptrace.Start(exec.Command("/does/not/exist"), func(*ptrace.Call) {})
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.Contains(t, err.Error(), "cannot trace /does/not/exist")
}
