package mockrollup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWrittenConfigIsReadBack(t *testing.T) {
	t.Parallel()
	to := uint64(0)
	want := NewConfig("state", "da.json", 12346)
	want.Mock.Label, want.Mock.AcceptFlags, want.Mock.Startup = "v1", []string{"--metrics"}, 0
	want.Mock.Fsync, want.Mock.DA.Finality = false, 0
	want.Mock.Main, want.Mock.Refusal, want.Mock.RefusalDelay = "demo", "late", time.Second
	want.Mock.Quote, want.Mock.APIPath = "\x1b[1m\"a memo\"\nof two lines", "/v1"
	want.Mock.DamageRate, want.Mock.ResyncDamageRate, want.Mock.Wrapper, want.Mock.Threads, want.Mock.User = .06, .35, "shell", 68, 7
	want.Mock.Migration = MigrationConfig{Idempotent: true, Sleep: time.Second, Worker: time.Minute, Exit: 3, To: &to}
	path := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, WriteConfig(path, want))
	got, err := LoadConfig(path)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestRealConfigNeedsOnlyADAFile(t *testing.T) {
	t.Parallel()
	path := writeText(t, `
[da]
rpc_url = "ws://localhost:26658"
[storage]
path = "rollup-state"
user_commit_concurrency = 1
[runner.http_config]
bind_host = "0.0.0.0"
bind_port = 12346
cors = "permissive"
[monitoring]
telegraf_address = "udp://127.0.0.1:8094"
[mock.da]
file = "da.json"
`)
	cfg, err := LoadConfig(path)
	require.NoError(t, err)
	want := NewConfig("rollup-state", "da.json", 12346)
	want.Runner.HTTP.BindHost = "0.0.0.0"
	want.Mock.Label = filepath.Base(filepath.Dir(path))
	require.Equal(t, want, cfg)
}

func TestConfigMistakesAreNamed(t *testing.T) {
	t.Parallel()
	const good = "[storage]\npath = \"s\"\n"
	const da = "[mock.da]\nfile = \"da.json\"\n"
	for text, want := range map[string]string{
		"":                                    "storage.path is missing",
		"storage = 1":                         "config.toml",
		good:                                  "mock.da.file and mock.da.address",
		good + da + "address = \"http://x\"":  "mock.da.file and mock.da.address",
		good + da + "block_tme = \"1s\"":      `unknown key "mock.da.block_tme"`,
		good + da + "block_time = \"0s\"":     "mock.da.block_time",
		good + da + "[mock]\ncrash_att = 3":   `unknown key "mock.crash_att"`,
		good + da + "[mock]\nhttp = \"slow\"": "mock.http",
		good + da + "[mock]\ncrash_signal = \"KILL\"":                 "mock.crash_signal",
		good + da + "[mock]\naccept_flags = [\"metrics\"]":            "mock.accept_flags",
		good + da + "[mock]\nleftover = [\"immortal\"]":               "mock.leftover",
		good + da + "[mock]\nstdio = \"shut\"":                        "mock.stdio",
		good + da + "[mock]\nmain = \"wrapper\"":                      "mock.main",
		good + da + "[mock]\nrefusal = \"shy\"":                       "mock.refusal",
		good + da + "[mock]\napi_path = \"v1\"":                       "mock.api_path",
		good + da + "[mock]\napi_path = \"/v1/\"":                     "mock.api_path",
		good + da + "[mock]\nleader_exit_at_start = -1":               "mock.leader_exit_at_start",
		good + da + "when_away = \"hope\"":                            "mock.da.when_away",
		good + da + "[mock]\nresync_rate = 0":                         "mock.resync_rate",
		good + da + "[mock]\nexit_code = 256":                         "mock.exit_code",
		good + da + "[mock]\nstderr_flood = -1":                       "mock.stderr_flood",
		good + da + "[runner.http_config]\nbind_host = \"localhost\"": "must be an IP address",
	} {
		_, err := LoadConfig(writeText(t, text))
		require.ErrorContains(t, err, want, text)
	}
}

func writeText(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}
