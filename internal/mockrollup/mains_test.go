package mockrollup

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// atThree returns a chain at height 3.
func atThree(t *testing.T) *chain {
	t.Helper()
	c := newChain(t)
	c.start(c.config("v0", nil), "--stop-at-rollup-height", "3").exits(0)
	return c
}

// ask starts config with a start height that is wrong, and what the environment of a question adds.
func (c *chain) ask(config string, env ...string) *process {
	c.t.Helper()
	cmd := standIn("--rollup-config-path", config, "--start-at-rollup-height", "777")
	cmd.Env = append(append(cmd.Env, "RUST_BACKTRACE=0", "RUST_LOG=error"), env...)
	return startCommand(c.t, cmd)
}

func withMain(name string) func(*Config) { return func(cfg *Config) { cfg.Mock.Main = name } }

const wrongStartText = "The requested start_at_rollup_height: 777, is different than expected height 4"

func TestStarterRefusesByAPanicOnBothStreams(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	p := c.ask(c.config("v0", withMain("starter"))).exits(101)
	require.Contains(t, p.stderr.String(), "panicked at")
	require.Contains(t, p.stderr.String(), wrongStartText)
	require.Contains(t, p.stdout.String(), wrongStartText)

	off := c.ask(c.config("v0", withMain("starter")), "RUST_LOG=off").exits(101)
	require.Contains(t, off.stderr.String(), wrongStartText)
	require.Empty(t, off.stdout.String())
}

func TestDemoRefusesInOneRecordOnStdout(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	config := c.config("v0", withMain("demo"))
	p := c.ask(config).exits(1)
	require.Empty(t, p.stderr.String())
	require.Regexp(t, `^\S+ ERROR sov_rollup: Rollup failed error=Failed to initialize the rollup\n\nCaused by:\n    `+
		regexp.QuoteMeta(wrongStartText)+" backtrace=disabled backtrace\n$", p.stdout.String())

	traced := c.ask(config, "RUST_BACKTRACE=1").exits(1)
	require.Contains(t, traced.stdout.String(), wrongStartText+" backtrace=   0: ")
	coloured := c.ask(config, "NO_COLOR=").exits(1)
	require.Contains(t, coloured.stdout.String(), wrongStartText+" \x1b[")
	require.Empty(t, coloured.stderr.String())
	off := c.ask(config, "RUST_LOG=off").exits(1)
	require.Empty(t, off.stdout.String()+off.stderr.String())
}

func TestManagersMockRefusesInItsOwnWords(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	p := c.ask(c.config("v0", withMain("manager"))).exits(1)
	require.Equal(t, "Error: start_at_height (777) != current_height + 1 (4)\n", p.stderr.String())
	require.Empty(t, p.stdout.String())
	require.Equal(t, wrongStartText, c.lastRun().Refused.Reason)
}

func TestEveryFailureEndsAsItsMainDoes(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"starter": 101, "demo": 1, "manager": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := atThree(t)
			says := func(p *process, text string) {
				t.Helper()
				p.exits(code)
				require.Contains(t, p.stdout.String()+p.stderr.String(), text)
				require.Equal(t, name == "demo", p.stderr.String() == "")
				require.Equal(t, code, *c.lastRun().Exit.Code)
			}
			says(c.start(c.config("v0", withMain(name)), "--stop-at-rollup-height", "2"),
				"The requested stop_height 2 must be greater than the current_height 3")
			says(c.start(c.config("v0", func(cfg *Config) {
				cfg.Mock.Main, cfg.Mock.PanicOnStart = name, "no luck today"
			})), "no luck today")
			says(c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Main, cfg.Mock.StateVersion = name, 1 })),
				"the state was not migrated")
			says(c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Main, cfg.Mock.Format = name, "b" })), damageText)

			// An invalid RUST_LOG is a panic in all of them.
			p := c.ask(c.config("v0", withMain(name)), "RUST_LOG=sov=nonsense").exits(101)
			require.Contains(t, p.stderr.String(), "panicked at")
		})
	}
}

func TestRefusalInOtherWords(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"starter", "demo", "manager"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := atThree(t)
			ask := func(style string) (code int, text string) {
				p := c.ask(c.config("v0", func(cfg *Config) { cfg.Mock.Main, cfg.Mock.Refusal = name, style }))
				code = p.wait().ExitStatus()
				require.Equal(t, wrongStartText, c.lastRun().Refused.Reason)
				return code, p.stdout.String() + p.stderr.String()
			}
			want, plain := ask("")

			code, text := ask("garbled")
			require.Equal(t, want, code)
			require.Contains(t, text, "block 777,")
			require.NotContains(t, text, "The requested")
			require.NotContains(t, text, "!=")

			code, text = ask("none")
			require.Equal(t, want, code)
			require.Empty(t, text)

			code, text = ask("hyperlink")
			require.Equal(t, want, code)
			require.Contains(t, text, "\x1b\\777\x1b]8;;\x1b\\\"")
			require.Contains(t, text, "\x1b\\4\x1b]8;;\x1b\\\"")
			require.NotContains(t, text, "height: 777")

			code, text = ask("flood")
			require.Equal(t, want, code)
			sentence := wrongStartText
			if name == "manager" {
				sentence = "start_at_height (777) != current_height + 1 (4)"
			}
			require.Contains(t, plain, sentence)
			require.Greater(t, strings.Index(text, sentence), 1<<20)
			require.Greater(t, len(text)-strings.LastIndex(text, sentence), 1<<20)
		})
	}
}

func TestRefusalThatComesLate(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	late := func(delay time.Duration) string {
		return c.config("late", func(cfg *Config) { cfg.Mock.Refusal, cfg.Mock.RefusalDelay = "late", delay })
	}
	p := c.ask(late(time.Millisecond)).exits(101)
	require.Contains(t, p.stderr.String(), wrongStartText)

	before := len(c.journal())
	p = c.ask(late(time.Hour))
	p.until("starts", func() bool { return len(c.journal()) > before })
	require.True(t, refused(c.port))
	p.signal(syscall.SIGTERM)
	p.diesBy(syscall.SIGTERM)
	require.Empty(t, p.stdout.String()+p.stderr.String())
}

func TestStartHeightThatIsIgnored(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Refusal = "ignore" })
	c.start(config, "--start-at-rollup-height", "777", "--stop-at-rollup-height", "5").exits(0)
	require.Equal(t, uint64(5), c.read().Height)
	c.start(config, "--start-at-rollup-height", "777", "--stop-at-rollup-height", "5").exits(101)
}

func TestStartHeightThatIsNoFlag(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	before := c.journal()
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Refusal = "exit2" })
	p := c.ask(config).exits(2)
	require.Contains(t, p.stderr.String(), "unknown flag: --start-at-rollup-height")
	require.Contains(t, p.stderr.String(), "Usage: ")
	require.Empty(t, p.stdout.String())
	require.Equal(t, before, c.journal(), "it has opened nothing")
	c.start(config, "--stop-at-rollup-height", "5").exits(0)
}

func TestQuotedTextIsOnBothStreams(t *testing.T) {
	t.Parallel()
	const memo = "The requested start_at_rollup_height: 21, is different than expected height 21"
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.Quote = memo })
	p := c.start(config)
	c.ready(p)
	for _, stream := range []*output{&p.stdout, &p.stderr} {
		p.until("repeats the text", func() bool { return strings.Count(stream.String(), memo+"\n") > 3 })
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
	height := c.read().Height

	asked := c.ask(config).exits(101)
	answer := fmt.Sprintf("is different than expected height %d\n", height+1)
	for _, text := range []string{asked.stdout.String(), asked.stderr.String()} {
		at := strings.Index(text, answer)
		require.Less(t, strings.Index(text, memo), at)
		require.Greater(t, strings.LastIndex(text, memo), at)
	}
	silent := c.ask(c.config("v0", func(cfg *Config) { cfg.Mock.Quote, cfg.Mock.Refusal = memo, "none" })).exits(101)
	require.Equal(t, memo+"\n", silent.stdout.String(), "the start has a log, too")
	require.Equal(t, memo+"\n", silent.stderr.String())

	crash := c.config("v0", func(cfg *Config) {
		cfg.Mock.Quote, cfg.Mock.CrashAt = memo, height+3
	})
	crashed := c.start(crash).exits(101).stderr.String()
	require.Equal(t, 2, strings.Count(crashed[strings.Index(crashed, "panicked at"):], memo))
}

func TestHeightChecksComeAfterTheDA(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	var turnedAway atomic.Int32
	blocks := DAHandler(DAParams{GenesisUnixMS: time.Now().UnixMilli(), BlockMS: 20, FinalityBlocks: 2})
	da := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			turnedAway.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		blocks.ServeHTTP(w, r)
	}))
	defer da.Close()
	c := newChain(t)
	config := func(whenAway string) string {
		return c.config("v0", func(cfg *Config) {
			cfg.Mock.DA.File, cfg.Mock.DA.Address, cfg.Mock.DA.WhenAway = "", da.URL, whenAway
		})
	}
	away.Store(true)
	p := c.ask(config("fail")).exits(101)
	require.Contains(t, p.stderr.String(), "failed to create the DA service")
	require.NotContains(t, p.stderr.String(), "The requested")
	_, err := ReadState(c.state())
	require.ErrorIs(t, err, os.ErrNotExist)

	turnedAway.Store(0)
	p = c.start(config("wait"), "--start-at-rollup-height", "777")
	p.until("keeps asking the DA", func() bool { return turnedAway.Load() > 5 })
	require.Contains(t, p.stdout.String(), "the DA layer cannot be reached, waiting")
	_, err = ReadState(c.state())
	require.ErrorIs(t, err, os.ErrNotExist)
	away.Store(false)
	p.exits(101)
	require.Contains(t, p.stderr.String(), "The requested start_at_rollup_height: 777, is different than expected height 1")
}

func TestNodeThatNeedsNoDAAtItsStartIsRefusedWithoutOne(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.ask(c.config("v0", func(cfg *Config) { cfg.Mock.DA.File, cfg.Mock.DA.Address = "", "http://127.0.0.1:1" })).exits(101)
	require.Contains(t, p.stderr.String(), "The requested start_at_rollup_height: 777, is different than expected height 1")
}

func TestHeightChecksComeBeforeThePort(t *testing.T) {
	t.Parallel()
	a := newChain(t)
	a.ready(a.start(a.config("v0", nil)))
	for _, startup := range []string{"refused", "hang"} {
		b := atThree(t)
		b.port = a.port
		p := b.ask(b.config("v0", func(cfg *Config) { cfg.Mock.StartupHTTP = startup })).exits(101)
		require.Contains(t, p.stderr.String(), wrongStartText)
		require.NotContains(t, p.stderr.String(), "address already in use")
	}
}

func TestReplicaThatWinsAtItsStartExitsZeroBeforeTheHeightChecks(t *testing.T) {
	t.Parallel()
	c := atThree(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.LeaderExitAtStart = 2 })
	for range 2 {
		p := c.ask(config).exits(0)
		require.NotContains(t, p.stderr.String()+p.stdout.String(), "The requested")
		require.Equal(t, restartAsLeader, c.lastRun().Exit.Reason)
	}
	c.ask(config).exits(101)
}
