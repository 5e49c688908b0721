package mockrollup

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReplicaThatWonLeadershipExitsZeroOnce(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Role, cfg.Mock.LeaderRestartAt = "replica", 5 })
	p := c.start(config, "--stop-at-rollup-height", "20").exits(0)
	require.Contains(t, p.stdout.String(), "Exiting to restart as leader")
	require.Less(t, c.read().Height, uint64(5))
	c.start(config, "--stop-at-rollup-height", "20").exits(0)
	require.Equal(t, uint64(20), c.read().Height)
}

func TestReplicaThatWonLeadershipAtTheStopHeightHasNotCommittedIt(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.LeaderRestartAt = 10 })
	c.start(config, "--stop-at-rollup-height", "10").exits(0)
	require.Less(t, c.read().Height, uint64(10))
	c.start(config, "--stop-at-rollup-height", "10").exits(0)
	require.Equal(t, uint64(10), c.read().Height)
}

func TestCrashAtASoftHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.CrashAt, cfg.Mock.ExitCode, cfg.Mock.CrashOnce = 5, 42, true })
	p := c.start(config, "--stop-at-rollup-height", "8").exits(42)
	require.Contains(t, p.stderr.String(), "panicked at")
	require.Less(t, c.read().Height, uint64(5))
	c.start(config, "--stop-at-rollup-height", "8").exits(0)
}

func TestCrashJustAfterTheCommitOfTheStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.CrashAt, cfg.Mock.CrashOn = 5, "durable" })
	c.start(config, "--stop-at-rollup-height", "5").exits(101)
	require.Equal(t, uint64(5), c.read().Height)
	c.start(config, "--stop-at-rollup-height", "5").exits(101)
	// The node is past the crash: the fault does not happen again.
	c.start(config, "--stop-at-rollup-height", "6").exits(0)
}

func TestCrashBySignal(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGABRT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			name := map[syscall.Signal]string{
				syscall.SIGKILL: "SIGKILL", syscall.SIGSEGV: "SIGSEGV", syscall.SIGABRT: "SIGABRT", syscall.SIGTERM: "SIGTERM",
			}[sig]
			config := c.config("v0", func(cfg *Config) { cfg.Mock.CrashAt, cfg.Mock.CrashSignal = 3, name })
			c.start(config).diesBy(sig)
			require.Equal(t, 128+int(sig), *Runs(c.journal())[0].Exit.Code)
		})
	}
}

func TestEarlyExitIsAnExitZeroBelowTheStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.ExitEarlyAt = 5 })
	c.start(config, "--stop-at-rollup-height", "20").exits(0)
	require.Less(t, c.read().Height, uint64(5))
}

func TestOverrunPassesTheStopHeight(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Overrun = true })
	p := c.start(config, "--stop-at-rollup-height", "5")
	p.until("passes the stop height", func() bool { return softHeight(c.port) > 8 })
}

func TestIgnoredStopSignalLeavesTheNodeRunning(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.IgnoreSigterm = true }))
	c.ready(p)
	p.signal(syscall.SIGTERM)
	p.prints("Signal ignored")
	height := softHeight(c.port)
	p.until("continues", func() bool { return softHeight(c.port) > height })
}

func TestSlowShutdownKeepsTheProcessAfterTheServer(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.SlowShutdown = time.Hour })
	p := c.start(config, "--stop-at-rollup-height", "3")
	p.prints("Shutting down")
	p.until("closes its port", func() bool { return refused(c.port) })
	p.signal(syscall.SIGTERM)
	require.True(t, p.alive())
	require.Equal(t, uint64(3), c.read().Height)
}

func TestHTTPFaults(t *testing.T) {
	t.Parallel()
	answers := func(status int, text string) func(*testing.T, *chain) {
		return func(t *testing.T, c *chain) {
			got, body, err := get(c.port, heightsPath)
			require.NoError(t, err)
			require.Equal(t, status, got)
			require.Contains(t, body, text)
		}
	}
	for mode, check := range map[string]func(*testing.T, *chain){
		"null":    answers(http.StatusOK, `{"value":null}`),
		"garbage": answers(http.StatusOK, "not a height"),
		"500":     answers(http.StatusInternalServerError, "error"),
		"off":     func(t *testing.T, c *chain) { require.True(t, refused(c.port)) },
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.HTTP = mode }))
			p.prints("Committed")
			check(t, c)
			p.signal(syscall.SIGTERM)
			p.exits(0)
		})
	}
}

func TestAPIUnderAPrefix(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.APIPath = "/v1" }))
	c.ready(p)
	for route, want := range map[string]int{
		"/v1/healthcheck": http.StatusOK, "/v1" + heightsPath + "/": http.StatusOK,
		"/healthcheck": http.StatusNotFound, heightsPath: http.StatusNotFound, "/v12/healthcheck": http.StatusNotFound,
	} {
		status, _, err := get(c.port, route)
		require.NoError(t, err, route)
		require.Equal(t, want, status, route)
	}
}

func TestAPIOnAllAddressesOfBothFamilies(t *testing.T) {
	t.Parallel()
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no IPv6 here:", err)
	}
	require.NoError(t, err, "CI must have an IPv6 loopback address")
	require.NoError(t, probe.Close())
	c := newChain(t)
	c.ready(c.start(c.config("v0", func(cfg *Config) { cfg.Runner.HTTP.BindHost = "::" })))
	for _, host := range []string{"[::1]", "127.0.0.1"} {
		response, err := http.Get(fmt.Sprintf("http://%s:%d/healthcheck", host, c.port))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
	}
}

func TestHangingRequestHoldsTheExit(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.HTTP = "hang" }))
	c.ready(p)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- c.hang(ctx) }()
	p.prints("Request hangs") // sent is not enough: a connection that was not accepted yet holds nothing
	p.signal(syscall.SIGTERM)
	p.until("closes its port", func() bool { return refused(c.port) })
	require.True(t, p.alive())
	cancel()
	require.Error(t, <-answered)
	p.exits(0)
}

func TestLateServerOpensAfterTheStart(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.HTTPLate = 300 * time.Millisecond }))
	p.prints("HTTP server listens")
	text := p.stdout.String()
	require.Less(t, strings.Index(text, "Rollup started"), strings.Index(text, "HTTP server listens"))
}

func TestOrphansAreLeftBehind(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.OrphansPerBlock = 2 })
	c.start(config, "--stop-at-rollup-height", "3").exits(0)
}

func TestStderrFloodIsOfTheGivenSize(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.StderrFlood = 1000 })
	p := c.start(config, "--stop-at-rollup-height", "3").exits(0)
	require.Len(t, p.stderr.String(), 3000)
}

func TestPanicOnStartExits101(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.PanicOnStart = "no luck today" })).exits(101)
	require.Contains(t, p.stderr.String(), "no luck today")
}

func TestIOUringIsProbed(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.IOUring = true }), "--stop-at-rollup-height", "1")
	if ring, err := ioUringSetup(); err != nil {
		p.exits(101)
		require.Contains(t, p.stderr.String(), "io_uring")
		return
	} else {
		require.NoError(t, syscall.Close(ring))
	}
	p.exits(0)
}

func TestPinnedCacheIsWrittenBesideTheConfig(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.start(c.config("v0", func(cfg *Config) { cfg.Mock.PinnedCache = true }), "--stop-at-rollup-height", "1").exits(0)
	_, err := os.Stat(filepath.Join(c.dir, "evm_pinned_cache.json"))
	require.NoError(t, err)
}

func TestResyncIsAsFastAsItsRate(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.ResyncRate = 1_000_000 })
	da := filepath.Join(c.dir, "da.json")
	_, err := OpenDAFile(da, DAParams{GenesisUnixMS: time.Now().Add(-time.Hour).UnixMilli(), BlockMS: 1, FinalityBlocks: 2})
	require.NoError(t, err)
	c.start(config, "--stop-at-rollup-height", "100000").exits(0)
	require.Equal(t, uint64(100000), c.read().Height)
}
