package mockrollup

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"
)

// Config is the part of a rollup's TOML file that the stand-in reads. It ignores sections that only a real node knows.
// In [mock], an unknown key is an error, because a test with a misspelled fault would otherwise pass.
type Config struct {
	Storage Storage `toml:"storage"`
	Runner  Runner  `toml:"runner"`
	Mock    Mock    `toml:"mock"`
}

// Storage says where the state is. A relative path is relative to the working directory of the process.
type Storage struct {
	Path string `toml:"path"`
}

// Runner holds the [runner] section.
type Runner struct {
	HTTP HTTPConfig `toml:"http_config"`
}

// HTTPConfig is the address of the API. With port 0 the kernel chooses one, which the log names.
type HTTPConfig struct {
	BindHost string `toml:"bind_host"`
	BindPort uint16 `toml:"bind_port"`
}

// Mock is how stand-ins differ: the version that each plays, and its faults.
type Mock struct {
	// Label names this version in the journal and in the state; default: the name of the config file's folder.
	Label string `toml:"label,omitempty"`
	// StateVersion is the layout of the state that this binary needs.
	StateVersion uint64 `toml:"state_version"`
	// Salt goes into each state root, so that two runtimes disagree.
	Salt string `toml:"salt,omitempty"`
	// Format is the layout of the databases. A node damages a state of another format for good as soon as it opens it,
	// whatever heights its command line has; a migration carries the state over. Versions without it share one.
	Format string `toml:"format,omitempty"`
	// Main is the program around the node: "starter", "demo" or "manager". It decides how a failure ends and where its
	// text goes, see mains.
	Main string `toml:"main"`
	// AcceptFlags are more flags of this version, each with one value.
	AcceptFlags []string `toml:"accept_flags,omitempty"`
	// Role is "leader", "replica", or "auto": the DA server's election decides, in which the node is called NodeID
	// (default: the name of the host).
	Role   string `toml:"role"`
	NodeID string `toml:"node_id,omitempty"`
	// HeightsShape is "value" or, as older versions answer, "data".
	HeightsShape string `toml:"heights_shape"`
	// APIPath is the prefix of all routes, as in "/v1".
	APIPath string `toml:"api_path,omitempty"`
	// Startup is how long the start takes, from the height checks to the signal handler.
	Startup time.Duration `toml:"startup"`
	// StartupHTTP is what a client gets in the meantime: "refused" or "hang".
	StartupHTTP string `toml:"startup_http"`
	// ResyncRate is how many blocks a second a node processes when it is behind.
	ResyncRate uint64 `toml:"resync_rate"`
	// Fsync makes each commit survive a power cut. Off, tests are faster.
	Fsync bool `toml:"fsync"`
	// Journal is "events", "heights" (each commit, too) or "off". JournalDir is its folder instead of the state's:
	// there it outlives a state that is wiped or restored, and a start that fails before it opens the state leaves no
	// state folder behind.
	Journal    string `toml:"journal"`
	JournalDir string `toml:"journal_dir,omitempty"`
	// LogEvery logs only every Nth height, without its root; 0 logs every commit with its root.
	LogEvery uint64 `toml:"log_every,omitzero"`
	// IOUring makes the start fail if io_uring is denied, as that of a real node does.
	IOUring bool `toml:"io_uring,omitempty"`
	// PinnedCache writes evm_pinned_cache.json beside the config, as some versions do, which fail if the folder is
	// read-only.
	PinnedCache bool `toml:"pinned_cache,omitempty"`

	// Refusal is how the node rejects a wrong --start-at-rollup-height: "" as its main does, "late" (after
	// RefusalDelay), "garbled" (in other words), "none" (silently), "flood" (inside two MiB of backtrace), "hyperlink"
	// (the numbers are links in quotes), "exit2" (it does not know the flag) or "ignore" (it runs).
	Refusal      string        `toml:"refusal,omitempty"`
	RefusalDelay time.Duration `toml:"refusal_delay,omitzero"`
	// LeaderExitAtStart is how many starts exit 0 before the height checks, as a replica does that becomes leader.
	LeaderExitAtStart int `toml:"leader_exit_at_start,omitzero"`
	// Quote is a text that somebody else got into the log: it is on both streams at the start, while the node runs, and
	// in every panic.
	Quote string `toml:"quote,omitempty"`
	// DamageOnKill makes a commit two steps with CommitWindow between them: a node that is killed in between leaves a
	// damaged state. TornGenesis does the same to the genesis.
	DamageOnKill bool          `toml:"damage_on_kill,omitempty"`
	TornGenesis  bool          `toml:"torn_genesis,omitempty"`
	CommitWindow time.Duration `toml:"commit_window,omitzero"`
	// DamageRate is the share of commits after which, until the next one, a kill leaves a damaged state.
	// ResyncDamageRate is the same for a node that is catching up. With real nodes, 7 of 113 and 14 of 40 kills did.
	DamageRate       float64 `toml:"damage_rate,omitzero"`
	ResyncDamageRate float64 `toml:"resync_damage_rate,omitzero"`
	// Wrapper starts the node as the child of a script: "shell" dies of a signal without passing it on;
	// "close-descriptors" does the same, after it has closed the descriptors that it inherited.
	Wrapper string `toml:"wrapper,omitempty"`
	// Threads is how many idle threads start at the end of the start. User, unless 0, is the user of the node from then
	// on.
	Threads int `toml:"threads,omitzero"`
	User    int `toml:"user,omitzero"`
	// LeaderRestartAt exits 0 at that soft height, once, as a replica does that became leader.
	LeaderRestartAt uint64 `toml:"leader_restart_at,omitzero"`
	// CrashAt ends the process immediately at that height, with ExitCode or, if given, by CrashSignal. CrashOn says
	// which height counts: "soft" or "durable" (just after its commit).
	CrashAt     uint64 `toml:"crash_at,omitzero"`
	CrashOn     string `toml:"crash_on,omitempty"`
	ExitCode    int    `toml:"exit_code"`
	CrashSignal string `toml:"crash_signal,omitempty"`
	CrashOnce   bool   `toml:"crash_once,omitempty"`
	// ExitEarlyAt exits 0 at that soft height, each time.
	ExitEarlyAt uint64 `toml:"exit_early_at,omitzero"`
	// Overrun runs past the stop height.
	Overrun bool `toml:"overrun,omitempty"`
	// IgnoreSigterm ignores every signal that would stop the node.
	IgnoreSigterm bool `toml:"ignore_sigterm,omitempty"`
	// SlowShutdown is the time between the end of the HTTP server and the exit.
	SlowShutdown time.Duration `toml:"slow_shutdown,omitzero"`
	// HTTP is "ok", "hang", "null", "garbage", "500" or "off".
	HTTP string `toml:"http"`
	// HTTPLate is how long after the start-up the port opens.
	HTTPLate time.Duration `toml:"http_late,omitzero"`
	// OrphansPerBlock is how many daemons each block leaves behind for PID 1 to reap.
	OrphansPerBlock int `toml:"orphans_per_block,omitzero"`
	// FreezeAt makes the node stop itself (SIGSTOP) at that soft height, once.
	FreezeAt uint64 `toml:"freeze_at,omitzero"`
	// Leftover has the traits of a process that the node leaves behind; see LeftoverIgnoresStops and those after it.
	// LeftoverSays is the line that it keeps writing if it holds stderr. LeftoverLife is how long it lives, 0 means
	// forever.
	Leftover     []string      `toml:"leftover,omitempty"`
	LeftoverSays string        `toml:"leftover_says,omitempty"`
	LeftoverLife time.Duration `toml:"leftover_life,omitzero"`
	// Stdio is what the node does to its descriptors at the end of its start: "close-stderr", "close" (the first
	// three), "close-all" (also an inherited lock), "redirect-stderr" (to stderr.log in the state folder) or "nonblock"
	// (O_NONBLOCK on stdout and stderr, for everyone who shares them).
	Stdio string `toml:"stdio,omitempty"`
	// StderrFlood is how many bytes each block writes to stderr.
	StderrFlood int `toml:"stderr_flood,omitzero"`
	// PanicOnStart panics with that text before anything is opened.
	PanicOnStart string `toml:"panic_on_start,omitempty"`

	DA        DAConfig        `toml:"da"`
	Migration MigrationConfig `toml:"migration,omitempty"`
}

// DAConfig says which chain of data-availability blocks the node follows: a file that several nodes share, or the
// address of `mock-rollup da`. Block time, finality and empty slots matter only to the node that creates the file.
// WhenAway is what a start does while the server does not answer: with "" it continues and makes no blocks; "wait" and
// "fail" happen before the state is opened, as in a real node.
type DAConfig struct {
	File       string        `toml:"file,omitempty"`
	Address    string        `toml:"address,omitempty"`
	BlockTime  time.Duration `toml:"block_time"`
	Finality   uint64        `toml:"finality"`
	EmptyEvery uint64        `toml:"empty_every"`
	WhenAway   string        `toml:"when_away,omitempty"`
}

// MigrationConfig configures `mock-rollup migrate`, whose flags override it.
type MigrationConfig struct {
	Idempotent bool          `toml:"idempotent,omitempty"`
	Sleep      time.Duration `toml:"sleep,omitzero"`
	// Worker, unless 0, lets a leftover process do the second half of the rewrite, that long after the first, while the
	// migration itself exits 0 immediately.
	Worker time.Duration `toml:"worker,omitzero"`
	// Exit, unless 0, makes the migration exit with that code before it touches the state.
	Exit int `toml:"exit,omitzero"`
	// To replaces the state version to migrate to.
	To *uint64 `toml:"to,omitempty"`
	// IgnoresDryRun makes --dry-run do what a run without it does.
	IgnoresDryRun bool `toml:"ignores_dry_run,omitempty"`
	// Requires, unless empty, is a NAME=VALUE pair without which the migration refuses to run: in an argument --set or in the
	// environment.
	Requires string `toml:"requires,omitempty"`
}

// NewConfig returns the defaults, with the state in storage, the DA chain in the file daFile, and the API on port. Use
// it to make a Config: WriteConfig writes durations and counts even if they are zero.
func NewConfig(storage, daFile string, port uint16) Config {
	return Config{
		Storage: Storage{Path: storage},
		Runner:  Runner{HTTP: HTTPConfig{BindHost: "127.0.0.1", BindPort: port}},
		Mock: Mock{
			Role: roleLeader, Main: mainStarter, HeightsShape: "value", Startup: 150 * time.Millisecond, StartupHTTP: "refused",
			ResyncRate: 2000, Fsync: true, Journal: "events", HTTP: "ok", CrashOn: "soft", ExitCode: exitFailure,
			DA: DAConfig{File: daFile, BlockTime: 250 * time.Millisecond, Finality: 2},
		},
	}
}

// LoadConfig reads and checks the file at path.
func LoadConfig(path string) (Config, error) {
	cfg := NewConfig("", "", 12346)
	meta, err := toml.DecodeFile(path, &cfg)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the rollup config %s: %w", path, err)
	}
	for _, key := range meta.Undecoded() {
		if key[0] == "mock" {
			return Config{}, fmt.Errorf("%s: unknown key %q", path, key.String())
		}
	}
	if cfg.Mock.Label == "" {
		cfg.Mock.Label = folderName(path)
	}
	if err := cfg.check(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// WriteConfig writes cfg as TOML, for tests and the demo.
func WriteConfig(path string, cfg Config) error {
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(cfg); err != nil {
		return fmt.Errorf("cannot encode %s: %w", path, err)
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

func (c *Config) journalDir() string {
	if c.Mock.JournalDir != "" {
		return c.Mock.JournalDir
	}
	return c.Storage.Path
}

func folderName(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "unnamed"
	}
	return filepath.Base(filepath.Dir(abs))
}

func (c *Config) check() error {
	if c.Storage.Path == "" {
		return errors.New("storage.path is missing")
	}
	if _, err := netip.ParseAddr(c.Runner.HTTP.BindHost); err != nil {
		return fmt.Errorf("runner.http_config.bind_host must be an IP address: %w", err)
	}
	if c.Mock.Role == roleAuto && c.Mock.DA.Address == "" {
		return errors.New("mock.role is auto, and only the server at mock.da.address holds elections")
	}
	for _, check := range []func() error{c.Mock.checkWords, c.Mock.checkNumbers, c.Mock.DA.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Mock) checkWords() error {
	for _, key := range []struct {
		name, value string
		allowed     []string
	}{
		{"role", m.Role, []string{roleLeader, roleReplica, roleAuto}},
		{"main", m.Main, []string{mainStarter, mainDemo, mainManager}},
		{"refusal", m.Refusal, refusals},
		{"da.when_away", m.DA.WhenAway, []string{"", awayWait, awayFail}},
		{"heights_shape", m.HeightsShape, []string{"value", "data"}},
		{"startup_http", m.StartupHTTP, []string{"refused", "hang"}},
		{"journal", m.Journal, []string{"events", "heights", "off"}},
		{"crash_on", m.CrashOn, []string{"soft", "durable"}},
		{"stdio", m.Stdio, []string{"", stdioCloseStderr, stdioClose, stdioCloseAll, stdioRedirectStderr, stdioNonblock}},
		{"wrapper", m.Wrapper, []string{"", wrapperShell, wrapperCloses}},
		{"http", m.HTTP, []string{"ok", "hang", "null", "garbage", "500", "off"}},
	} {
		if !slices.Contains(key.allowed, key.value) {
			return fmt.Errorf("mock.%s is %q, must be one of: %s", key.name, key.value, strings.Join(key.allowed, ", "))
		}
	}
	if m.CrashSignal != "" && unix.SignalNum(m.CrashSignal) == 0 {
		return fmt.Errorf("mock.crash_signal %q is no signal (write it as SIGKILL)", m.CrashSignal)
	}
	for _, trait := range m.Leftover {
		if !slices.Contains(leftoverTraits, trait) {
			return fmt.Errorf("mock.leftover has %q, must be of: %s", trait, strings.Join(leftoverTraits, ", "))
		}
	}
	if path := m.APIPath; path != "" && (path[0] != '/' || strings.HasSuffix(path, "/")) {
		return fmt.Errorf("mock.api_path %q must begin with a slash and end without one", path)
	}
	for _, flag := range m.AcceptFlags {
		if name, dashes := strings.CutPrefix(flag, "--"); !dashes || name == "" {
			return fmt.Errorf("mock.accept_flags: %q must begin with --", flag)
		}
	}
	return nil
}

func (m *Mock) checkNumbers() error {
	if m.ResyncRate == 0 {
		return errors.New("mock.resync_rate must be at least 1")
	}
	if m.ExitCode < 0 || m.ExitCode > 255 {
		return fmt.Errorf("mock.exit_code %d is not in 0..255", m.ExitCode)
	}
	if m.OrphansPerBlock < 0 || m.StderrFlood < 0 || m.LeaderExitAtStart < 0 || m.Threads < 0 || m.User < 0 {
		return errors.New("mock.orphans_per_block, mock.stderr_flood, mock.leader_exit_at_start, mock.threads and mock.user cannot be negative")
	}
	if m.DamageRate < 0 || m.DamageRate > 1 || m.ResyncDamageRate < 0 || m.ResyncDamageRate > 1 {
		return errors.New("mock.damage_rate and mock.resync_damage_rate must be between 0 and 1")
	}
	return nil
}

func (d *DAConfig) check() error {
	if (d.File == "") == (d.Address == "") {
		return errors.New("exactly one of mock.da.file and mock.da.address must be set")
	}
	if d.BlockTime < time.Millisecond {
		return fmt.Errorf("mock.da.block_time %s must be at least 1ms", d.BlockTime)
	}
	return nil
}
