package program

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
)

// pidsGroup is a control group with a limit for processes and threads.
type pidsGroup struct{ dir string }

// newPidsGroup makes one, of version 1 or 2, whichever is there.
func newPidsGroup(t *testing.T) pidsGroup {
	t.Helper()
	var problems []string
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir, err := os.MkdirTemp(root, "rollup-entrypoint-test-")
		if err == nil {
			if _, err = os.Stat(filepath.Join(dir, "pids.max")); err == nil {
				t.Cleanup(func() { removeGroup(t, dir) })
				return pidsGroup{dir}
			}
			_ = unix.Rmdir(dir)
		}
		problems = append(problems, err.Error())
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs root and a control group for pids, and CI must have them: %v", problems)
	}
	t.Skipf("needs root and a control group for pids: %v", problems)
	return pidsGroup{}
}

// removeGroup waits for its last process to be reaped.
func removeGroup(t *testing.T, dir string) {
	t.Helper()
	var err error
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = unix.Rmdir(dir); err == nil {
			return
		}
	}
	t.Errorf("cannot remove %s: %s", dir, err)
}

func (g pidsGroup) limit(t *testing.T, n int) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "pids.max"), []byte(strconv.Itoa(n)), 0o644))
}

// current is how many processes and threads are in it.
func (g pidsGroup) current(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(readText(filepath.Join(g.dir, "pids.current"))))
	require.NoError(t, err)
	return n
}

// scraped has 40 clients at once ask for everything, again and again, until the program ends.
func scraped(c *chain) (stop func()) {
	quit := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 40 {
		route := []string{"/metrics", "/status", "/readyz", "/healthz", "/"}[i%5]
		clients.Go(func() {
			client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			for {
				select {
				case <-quit:
					return
				default:
				}
				if resp, err := client.Get("http://" + c.statusAddress + route); err == nil {
					_ = resp.Body.Close()
				} else {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	return func() { close(quit); clients.Wait() }
}

// untilEnded waits until the program has ended, or f holds.
func (c *chain) untilEnded(what string, f func() bool) {
	c.t.Helper()
	c.await(what, func() bool { return c.program.ended() || f() })
}

func (c *chain) started(i int) func() bool {
	return func() bool { return c.program.log.has(on("version started", fmt.Sprintf("version=%d", i))) }
}

// limitedLife starts the program, has it run, hand over, migrate, ask and stop, as far as it comes, and gives its exit code and the
// last line of its own log. Whatever a limit does to its nodes, it ends with a word.
func limitedLife(c *chain) (code int, last *logLine) {
	c.t.Helper()
	c.da.set(5, 5)
	c.start("--restarts=1")
	p := c.program
	stop := scraped(c)
	defer stop()
	c.untilEnded("v0", c.started(0))
	c.da.set(10, 10)
	c.untilEnded("v1", c.started(1))
	c.da.set(20, 20)
	c.untilEnded("v2", c.started(2))
	if !p.ended() {
		require.NoError(c.t, p.cmd.Process.Signal(syscall.SIGTERM))
	}
	c.await("the end", p.ended)
	c.program = nil
	if lines := p.log.all(); len(lines) > 0 {
		last = lines[len(lines)-1]
	}
	if last == nil || !slices.Contains([]string{"run failed", "stopped", "sequence finished"}, last.text("msg")) {
		c.fatalf("it ended with code %d and without a word:\n%s", p.code(), p.log.text())
	}
	return p.code(), last
}

// At no limit for processes does the Go runtime abort the program: it needs no thread after its start. Below a limit at
// which it can start it says so.
func TestHostilePidsLimitNeverAbortsTheProgram(t *testing.T) {
	t.Parallel()
	newPidsGroup(t) // or it is skipped
	refused, ran := 0, 0
	for limit := 64; limit >= 10; limit-- {
		t.Run(strconv.Itoa(limit), func(t *testing.T) {
			g := newPidsGroup(t)
			c := served(t, migratingChain()...)
			c.stage = &stage{Group: g.dir}
			g.limit(t, limit)
			code, last := limitedLife(c)
			if strings.Contains(last.text("error"), "there is no room for our own threads") {
				refused++
				assert.Equal(t, sequencer.CodeEarlyExit, code)
				assert.Contains(t, last.text("error"), fmt.Sprintf("out of processes (pids limit %d)", limit))
				return
			}
			ran++
			t.Logf("limit %d: exit code %d: %s", limit, code, last.raw)
			assert.Zero(t, refused, "it started at a lower limit than one at which it did not")
		})
	}
	t.Logf("%d limits let it start, %d did not", ran, refused)
	assert.Positive(t, ran)
	assert.Positive(t, refused)
}

// standInThreads is what a stand-in node may need beside those that it has: it is a Go program, too, and no subject here.
const standInThreads = 12

// With next to nothing left of the limit, at each moment of a life, it makes not one thread more than it had at its start.
func TestHostileNodeThatTakesAllProcessesNeverAbortsTheProgram(t *testing.T) {
	t.Parallel()
	g := newPidsGroup(t)
	c := served(t, migratingChain()...)
	c.stage = &stage{Group: g.dir}
	g.limit(t, 1000)
	c.da.set(5, 5)
	c.start()
	p := c.program
	stop := scraped(c)
	defer stop()
	c.await("v0", c.started(0))
	before := threadsOf(p)
	for i := range 3 {
		c.untilEnded("the version", c.started(i))
		g.limit(t, g.current(t)+standInThreads)
		for range 50 {
			_, _ = c.client().Report(t.Context())
		}
		assert.Equal(t, before, threadsOf(p), "threads in version %d", i)
		if i < 2 {
			c.da.set(uint64(10*(i+1)), uint64(10*(i+1)))
		}
	}
	require.False(t, p.ended())
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	c.awaitExit(0)
	c.program = nil
}

// threadsOf counts the threads of the program.
func threadsOf(p *program) int {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid))
	return len(tasks)
}
