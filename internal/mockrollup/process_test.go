package mockrollup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/ports"
)

// runAsProgram makes the test binary be mock-rollup. So the children of a -race test are race-tested as well.
const runAsProgram = "MOCKROLLUP_TEST_RUN"

// noRaceSleep keeps a race-tested program from sleeping for a second at its exit.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

// deadline bounds each wait. It is only met by what is broken, so it may be long.
const deadline = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		os.Exit(Main(os.Args, OSStdio()))
	}
	os.Exit(m.Run())
}

// output collects what a process writes, and can be read while it does.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// process is a started program.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout output
	stderr output
	done   chan struct{}
}

// startCommand starts cmd as its own process group, which dies with the test.
func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		if p.alive() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		<-p.done
	})
	return p
}

// standIn is the command that runs the stand-in with args.
func standIn(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), runAsProgram+"=1", noRaceSleep, "NO_COLOR=1", "RUST_LOG=")
	return cmd
}

func run(t *testing.T, args ...string) *process { return startCommand(t, standIn(args...)) }

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait returns how the process ended.
func (p *process) wait() syscall.WaitStatus {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(deadline):
		require.FailNow(p.t, "the process does not end", "stdout:\n%s\nstderr:\n%s", &p.stdout, &p.stderr)
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(p.t, ok)
	return status
}

func (p *process) exits(code int) *process {
	p.t.Helper()
	status := p.wait()
	require.True(p.t, status.Exited() && status.ExitStatus() == code,
		"want exit %d, got %s\nstdout:\n%s\nstderr:\n%s", code, p.cmd.ProcessState, &p.stdout, &p.stderr)
	return p
}

func (p *process) diesBy(sig syscall.Signal) {
	p.t.Helper()
	status := p.wait()
	require.True(p.t, status.Signaled() && status.Signal() == sig,
		"want death by %s, got %s\nstderr:\n%s", sig, p.cmd.ProcessState, &p.stderr)
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(sig))
}

func (p *process) prints(text string) {
	p.t.Helper()
	p.until("prints "+text, func() bool { return strings.Contains(p.stdout.String(), text) })
}

// until waits for something that the process does.
func (p *process) until(what string, seen func() bool) {
	p.t.Helper()
	if !eventually(seen, p.done) {
		end := "it runs"
		select {
		case <-p.done:
			end = p.cmd.ProcessState.String()
		default:
		}
		require.FailNow(p.t, "the process never "+what, "%s\nstdout:\n%s\nstderr:\n%s", end, &p.stdout, &p.stderr)
	}
}

// eventually looks again and again until seen, or until shortly after done, or the deadline.
func eventually(seen func() bool, done <-chan struct{}) bool {
	limit := time.After(deadline)
	look := time.NewTicker(3 * time.Millisecond)
	defer look.Stop()
	for {
		if seen() {
			return true
		}
		select {
		case <-limit:
			return false
		case <-done:
			return seen()
		case <-look.C:
		}
	}
}

// chain is a rollup of one test: a folder with state, DA clock and configs.
type chain struct {
	t    *testing.T
	dir  string
	port uint16
}

func newChain(t *testing.T) *chain {
	t.Helper()
	port := ports.Hold(t)
	return &chain{t: t, dir: t.TempDir(), port: port}
}

func (c *chain) state() string { return filepath.Join(c.dir, "state") }

// config writes the config of a version and returns its path. Blocks are fast and nothing is synced.
func (c *chain) config(name string, change func(*Config)) string {
	c.t.Helper()
	cfg := NewConfig(c.state(), filepath.Join(c.dir, "da.json"), c.port)
	cfg.Mock.Label, cfg.Mock.Fsync, cfg.Mock.Startup = name, false, time.Millisecond
	cfg.Mock.DA.BlockTime = 20 * time.Millisecond
	if change != nil {
		change(&cfg)
	}
	path := filepath.Join(c.dir, name+".toml")
	require.NoError(c.t, WriteConfig(path, cfg))
	return path
}

// start starts a node on config with further arguments.
func (c *chain) start(config string, args ...string) *process {
	c.t.Helper()
	return run(c.t, append([]string{"--rollup-config-path", config}, args...)...)
}

func (c *chain) read() State {
	c.t.Helper()
	state, err := ReadState(c.state())
	require.NoError(c.t, err)
	return state
}

func (c *chain) journal() []Entry {
	c.t.Helper()
	entries, err := ReadJournal(c.state())
	require.NoError(c.t, err)
	return entries
}

// ready waits until the node's signal handler is installed.
func (c *chain) ready(p *process) {
	c.t.Helper()
	p.prints("Rollup started")
}

// get asks port once, on a connection of its own.
func get(port uint16, route string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", port, route), nil)
	if err != nil {
		return 0, "", err
	}
	request.Close = true
	response, err := (&http.Client{Transport: &http.Transport{Proxy: nil}}).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

const heightsPath = "/modules/chain-state/state/current-heights"

// softHeight returns the height that the API shows, or 0.
func softHeight(port uint16) uint64 {
	_, body, err := get(port, heightsPath)
	if err != nil {
		return 0
	}
	type heights struct{ Value []uint64 }
	var answer struct {
		heights
		Data heights
	}
	if json.Unmarshal([]byte(body), &answer) != nil {
		return 0
	}
	for _, value := range [][]uint64{answer.Value, answer.Data.Value} {
		if len(value) > 0 {
			return value[0]
		}
	}
	return 0
}

func refused(port uint16) bool {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// hang sends a request that is not answered, and returns what ended it.
func (c *chain) hang(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", c.port))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: node\r\n\r\n", heightsPath); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
