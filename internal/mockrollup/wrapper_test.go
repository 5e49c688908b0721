package mockrollup

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestNodeKilledAtTheRateOfDamageLeavesADamagedState(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.DamageRate, cfg.Mock.ResyncDamageRate = 1, 1 })
	stopped := c.start(config)
	c.committing(stopped)
	stopped.signal(syscall.SIGTERM)
	stopped.exits(0)
	require.NoFileExists(t, filepath.Join(c.state(), committingFile))

	killed := c.start(config)
	c.committing(killed)
	killed.signal(syscall.SIGKILL)
	killed.diesBy(syscall.SIGKILL)
	c.start(config).exits(101)
	c.destroyed(config)
}

func TestRateOfDamageIsAnotherInAResync(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.start(c.config("first", nil), "--stop-at-rollup-height", "1").exits(0) // the chain begins
	require.Eventually(t, func() bool { return chainAge(t, c) > 40*20*time.Millisecond }, deadline, time.Millisecond)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.ResyncDamageRate, cfg.Mock.ResyncRate = 1, 50 })
	p := c.start(config)
	c.committing(p)
	p.signal(syscall.SIGKILL)
	p.diesBy(syscall.SIGKILL)
	c.start(config).exits(101)
	c.destroyed(config)
}

// chainAge is how old the DA chain is.
func chainAge(t *testing.T, c *chain) time.Duration {
	t.Helper()
	info, err := os.Stat(filepath.Join(c.dir, "da.json"))
	require.NoError(t, err)
	return time.Since(info.ModTime())
}

func TestNodeBehindAShellOutlivesIt(t *testing.T) {
	t.Parallel()
	for wrapper, inherits := range map[string]bool{wrapperShell: true, wrapperCloses: false} {
		t.Run(wrapper, func(t *testing.T) {
			t.Parallel()
			c := newChain(t)
			config := c.config("v0", func(cfg *Config) { cfg.Mock.Wrapper = wrapper })
			inherited, err := os.Create(filepath.Join(c.dir, "checkpoint.json.lock"))
			require.NoError(t, err)
			defer inherited.Close()
			cmd := standIn("--rollup-config-path", config)
			cmd.ExtraFiles = []*os.File{inherited}
			p := startCommand(t, cmd)
			c.ready(p)
			node := c.lastRun().Start.PID
			require.NotEqual(t, p.cmd.Process.Pid, node)
			p.signal(syscall.SIGTERM)
			require.Eventually(t, func() bool { return unix.Kill(p.cmd.Process.Pid, 0) != nil || !p.alive() }, deadline, time.Millisecond)
			require.NoError(t, unix.Kill(node, 0), "the node has got no signal")
			target, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(node), "fd", "3"))
			require.Equal(t, inherits, target == inherited.Name(), target)
			require.NoError(t, unix.Kill(node, unix.SIGTERM))
			require.Eventually(t, func() bool { return c.lastRun().Exit != nil }, deadline, time.Millisecond)
			require.Zero(t, *c.lastRun().Exit.Code)
		})
	}
}

func TestWrapperEndsAsItsNodeDoes(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	wrapped := func(cfg *Config) { cfg.Mock.Wrapper = wrapperShell }
	c.start(c.config("v0", wrapped), "--stop-at-rollup-height", "2").exits(0)
	c.start(c.config("v0", wrapped), "--start-at-rollup-height", "9").exits(101)
	killed := c.config("killed", func(cfg *Config) { wrapped(cfg); cfg.Mock.CrashAt, cfg.Mock.CrashSignal = 4, "SIGKILL" })
	c.start(killed).exits(137)
}

func TestNodeHasAsManyThreadsAsAsked(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Threads = 68 }))
	c.ready(p)
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "task"))
	require.NoError(t, err)
	require.Greater(t, len(tasks), 68)
}

func TestNodeThatChangesItsUserContinues(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("only root can change the user")
		}
		t.Skip("only root can change the user")
	}
	c := newChain(t)
	require.NoError(t, os.Chmod(filepath.Dir(c.dir), 0o755))
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.User = 65534 }))
	c.ready(p)
	height := c.read().Height
	p.until("makes blocks", func() bool { return c.read().Height > height })
	var status unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid)), &status))
	require.Equal(t, uint32(65534), status.Uid)
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

func TestNodeMakesTheStreamsOfOthersNonBlocking(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	defer write.Close()
	_ = write.Fd() // it is a blocking one now
	cmd := standIn("--rollup-config-path", c.config("v0", func(cfg *Config) { cfg.Mock.Stdio = stdioNonblock }), "--stop-at-rollup-height", "2")
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = write, &p.stderr
	require.NoError(t, cmd.Start())
	go func() { _ = cmd.Wait(); close(p.done) }()
	p.exits(0)
	raw, err := write.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { // Fd would make it a blocking one again
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK)
	}))
}
