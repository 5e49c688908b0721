package mockrollup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests of this file say how a node behaves. They run on the stand-in, and on a real node too where the
// environment names one:
//
//	ROLLUP_BINARY   the node
//	ROLLUP_CONFIG   its config, in which {storage}, {port} and {dir} are replaced
//	ROLLUP_GENESIS  its genesis, optional
//
// They use nothing that only the stand-in has. A real node must start at genesis and make blocks by itself.

// subject is a node under test with a chain of its own.
type subject struct {
	*chain
	binary  string
	genesis string
	path    string
	env     []string
}

// eachNode runs test on the stand-in and, if there is one, on the real node.
func eachNode(t *testing.T, test func(*testing.T, *subject)) {
	t.Parallel()
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		c := newChain(t)
		test(t, &subject{chain: c, binary: os.Args[0], path: c.config("v0", nil), env: []string{runAsProgram + "=1", noRaceSleep}})
	})
	binary := os.Getenv("ROLLUP_BINARY")
	if binary == "" {
		return
	}
	t.Run("real", func(t *testing.T) {
		c := newChain(t)
		template, err := os.ReadFile(os.Getenv("ROLLUP_CONFIG"))
		require.NoError(t, err, "ROLLUP_CONFIG must name the config of ROLLUP_BINARY")
		config := strings.NewReplacer("{storage}", c.state(), "{port}", strconv.Itoa(int(c.port)), "{dir}", c.dir).
			Replace(string(template))
		path := filepath.Join(c.dir, "config.toml")
		require.NoError(t, os.WriteFile(path, []byte(config), 0o644))
		test(t, &subject{chain: c, binary: binary, path: path, genesis: os.Getenv("ROLLUP_GENESIS")})
	})
}

func (s *subject) command(args ...string) *exec.Cmd {
	all := []string{"--rollup-config-path", s.path}
	if s.genesis != "" {
		all = append(all, "--genesis-path", s.genesis)
	}
	cmd := exec.Command(s.binary, append(all, args...)...)
	cmd.Env = append(append(os.Environ(), "NO_COLOR=1", "RUST_LOG=info"), s.env...)
	return cmd
}

func (s *subject) run(args ...string) *process {
	s.t.Helper()
	return startCommand(s.t, s.command(args...))
}

// running starts a node and waits until it makes blocks: only then its signal handler is sure to be installed.
func (s *subject) running(args ...string) *process {
	s.t.Helper()
	p := s.run(args...)
	p.until("makes a block", func() bool { return softHeight(s.port) > 0 })
	return p
}

// keep opens a connection and keeps it after one answer.
func (s *subject) keep(p *process) net.Conn {
	s.t.Helper()
	var conn net.Conn
	p.until("answers", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			return false
		}
		conn = c
		return true
	})
	s.t.Cleanup(func() { _ = conn.Close() })
	_, err := fmt.Fprintf(conn, "GET /healthcheck HTTP/1.1\r\nHost: node\r\n\r\n")
	require.NoError(s.t, err)
	require.NoError(s.t, conn.SetReadDeadline(time.Now().Add(deadline)))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, response.StatusCode)
	return conn
}

func TestStopHeightIsCommittedThenTheNodeExitsZero(t *testing.T) {
	eachNode(t, func(_ *testing.T, node *subject) {
		node.run("--stop-at-rollup-height", "3").exits(0)
		// The refusal names the durable height.
		again := node.run("--stop-at-rollup-height", "3").exits(101)
		require.Contains(node.t, again.stderr.String(),
			"The requested stop_height 3 must be greater than the current_height 3")
	})
}

func TestStopBelowTheCommittedHeightIsRefused(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		node.run("--stop-at-rollup-height", "3").exits(0)
		again := node.run("--stop-at-rollup-height", "2").exits(101)
		require.Contains(t, again.stderr.String(),
			"The requested stop_height 2 must be greater than the current_height 3")
	})
}

func TestStartAtAnyButTheNextHeightIsRefused(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		node.run("--start-at-rollup-height", "1", "--stop-at-rollup-height", "3").exits(0)
		for _, start := range []string{"3", "5"} {
			p := node.run("--start-at-rollup-height", start).exits(101)
			require.Contains(t, p.stderr.String(),
				"The requested start_at_rollup_height: "+start+", is different than expected height 4")
		}
	})
}

func TestStartAtTheNextHeightContinues(t *testing.T) {
	eachNode(t, func(_ *testing.T, node *subject) {
		node.run("--stop-at-rollup-height", "3").exits(0)
		node.run("--start-at-rollup-height", "4", "--stop-at-rollup-height", "5").exits(0)
	})
}

func TestRestartWithoutAStartHeightContinues(t *testing.T) {
	eachNode(t, func(_ *testing.T, node *subject) {
		node.run("--stop-at-rollup-height", "3").exits(0)
		node.run("--stop-at-rollup-height", "5").exits(0)
	})
}

func TestEmptyStateTakesGenesisBeforeALateStartIsRefused(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		p := node.run("--start-at-rollup-height", "21").exits(101)
		require.Contains(t, p.stderr.String(),
			"The requested start_at_rollup_height: 21, is different than expected height 1")
		left, err := os.ReadDir(node.state())
		require.NoError(t, err)
		require.NotEmpty(t, left)
	})
}

func TestUnknownFlagExitsTwo(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		p := node.run("--no-such-flag", "x").exits(2)
		require.Contains(t, p.stderr.String(), "no-such-flag")
	})
}

func TestMissingConfigExits101(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		require.NoError(t, os.Remove(node.path))
		require.NotEmpty(t, node.run().exits(101).stderr.String())
	})
}

func TestInvalidRustLogExits101(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		cmd := node.command()
		cmd.Env = append(cmd.Env, "RUST_LOG=sov=nonsense")
		require.NotEmpty(t, startCommand(t, cmd).exits(101).stderr.String())
	})
}

func TestStopSignalsExitZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			eachNode(t, func(_ *testing.T, node *subject) {
				p := node.running()
				p.signal(sig)
				p.exits(0)
			})
		})
	}
}

func TestStopSignalWithAStopHeightAheadExitsZeroToo(t *testing.T) {
	eachNode(t, func(_ *testing.T, node *subject) {
		p := node.running("--stop-at-rollup-height", "1000000")
		p.signal(syscall.SIGTERM)
		p.exits(0)
		node.run("--stop-at-rollup-height", "0").exits(101)
	})
}

func TestHangupKills(t *testing.T) {
	eachNode(t, func(_ *testing.T, node *subject) {
		p := node.running()
		p.signal(syscall.SIGHUP)
		p.diesBy(syscall.SIGHUP)
	})
}

func TestKeptConnectionHoldsTheExitAndASecondSignalIsIgnored(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		p := node.running()
		conn := node.keep(p)
		p.signal(syscall.SIGTERM)
		p.until("closes its port", func() bool { return refused(node.port) })
		p.signal(syscall.SIGTERM)
		p.signal(syscall.SIGINT)
		require.True(t, p.alive())
		require.NoError(t, conn.Close())
		p.exits(0)
	})
}

func TestServerClosesBeforeTheExitAtTheStopHeight(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		p := node.run("--stop-at-rollup-height", "20")
		conn := node.keep(p)
		p.until("closes its port", func() bool { return refused(node.port) })
		require.True(t, p.alive(), "the port closed, the connection is open: the process must wait")
		require.NoError(t, conn.Close())
		p.exits(0)
	})
}

func TestRoutesAnswerWithAndWithoutTrailingSlash(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		node.running()
		for _, slash := range []string{"", "/"} {
			ask := func(route string) (int, map[string]any) {
				status, body, err := get(node.port, route+slash)
				require.NoError(t, err, route+slash)
				var answer map[string]any
				_ = json.Unmarshal([]byte(body), &answer)
				return status, answer
			}
			status, body, err := get(node.port, "/healthcheck"+slash)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, "ok", strings.Trim(body, "\"\n"))

			_, answer := ask("/rollup/sync-status")
			require.True(t, answer["synced"] != nil || answer["syncing"] != nil, answer)
			_, answer = ask("/rollup/schema")
			require.Contains(t, answer, "chain_hash")
			status, _ = ask("/sequencer/ready")
			require.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable}, status)
			for _, route := range []string{"/ledger/slots/latest", "/ledger/slots/finalized"} {
				_, answer = ask(route)
				require.Subset(t, keys(answer), []string{"number", "hash", "state_root"}, route)
			}
			status, _ = ask(heightsPath)
			require.Equal(t, http.StatusOK, status)
		}
		require.Positive(t, softHeight(node.port))
	})
}

func keys(m map[string]any) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	return names
}

func TestSecondProcessOnTheVolumeFails(t *testing.T) {
	eachNode(t, func(t *testing.T, node *subject) {
		first := node.running()
		require.NotEmpty(t, node.run().exits(101).stderr.String())
		require.True(t, first.alive())
	})
}
