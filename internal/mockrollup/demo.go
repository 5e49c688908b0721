package mockrollup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
)

// manifestVersion is one entry of manager.json.
type manifestVersion struct {
	RollupBinary  string `json:"rollup_binary"`
	ConfigPath    string `json:"config_path"`
	MigrationPath string `json:"migration_path,omitempty"`
	StartHeight   uint64 `json:"start_height,omitempty"`
	StopHeight    uint64 `json:"stop_height,omitempty"`
}

// demoVersion is how the versions of the demo differ.
type demoVersion struct {
	name         string
	stateVersion uint64
	start, stop  uint64
	migrates     bool
}

// v2 shares v1's state version and format: an upgrade that changes the rules but not the layout needs no migration.
var demoVersions = []demoVersion{
	{name: "v0", stateVersion: 0, stop: 20},
	{name: "v1", stateVersion: 1, start: 21, stop: 40, migrates: true},
	{name: "v2", stateVersion: 1, start: 41},
}

func demoMain(args []string, stdio Stdio) int {
	flags := pflag.NewFlagSet("mock-rollup demo", pflag.ContinueOnError)
	dir := flags.String("dir", "", "`FOLDER` to write the chain to")
	blockTime := flags.Duration("block-time", 250*time.Millisecond, "`TIME` between two blocks")
	port := flags.Uint16("port", 0, "the API's `PORT` (default: a free one)")
	if code, ok := parseArgs(flags, args, stdio); !ok {
		return code
	}
	if code, ok := required(flags, stdio, "dir"); !ok {
		return code
	}
	err := WriteDemo(*dir, *blockTime, *port)
	if err == nil {
		err = explainDemo(*dir, stdio.Out)
	}
	if err != nil {
		fmt.Fprintf(stdio.Err, "error: %s\n", err)
		return exitMigration
	}
	return exitOK
}

// WriteDemo writes a chain of three versions to dir: manager.json, and a folder for each version with its binary (a
// copy of the running program) and its config. It does not change an existing demo, and refuses a folder with other
// content. Port 0 chooses a free one.
func WriteDemo(dir string, blockTime time.Duration, port uint16) error {
	if blockTime < time.Millisecond {
		return fmt.Errorf("--block-time %s must be at least 1ms", blockTime)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("cannot resolve %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "manager.json")); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the folder %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty and has no manager.json: choose another folder, or empty it", dir)
	}
	if port == 0 {
		if port, err = freePort(); err != nil {
			return err
		}
	}
	return writeDemo(dir, blockTime, port)
}

// writeDemo writes manager.json last: with it the demo is complete.
func writeDemo(dir string, blockTime time.Duration, port uint16) error {
	var manifest []manifestVersion
	for _, version := range demoVersions {
		entry, err := version.write(dir, blockTime, port)
		if err != nil {
			return fmt.Errorf("cannot write the demo's %s: %w", version.name, err)
		}
		manifest = append(manifest, entry)
	}
	text, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode manager.json: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "manager.json"), append(text, '\n'), 0o644)
}

func (v demoVersion) write(dir string, blockTime time.Duration, port uint16) (manifestVersion, error) {
	folder := filepath.Join(dir, v.name)
	entry := manifestVersion{
		RollupBinary: filepath.Join(folder, "rollup"), ConfigPath: filepath.Join(folder, "config.toml"),
		StartHeight: v.start, StopHeight: v.stop,
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return entry, err
	}
	cfg := NewConfig(filepath.Join(dir, "state"), filepath.Join(dir, "da.json"), port)
	cfg.Mock.Label, cfg.Mock.StateVersion, cfg.Mock.DA.BlockTime = v.name, v.stateVersion, blockTime
	cfg.Mock.Format = fmt.Sprintf("format-%d", v.stateVersion)
	cfg.Mock.LogEvery = 10 // so that the interesting lines are not lost
	if err := WriteConfig(entry.ConfigPath, cfg); err != nil {
		return entry, err
	}
	if err := copySelf(entry.RollupBinary, v.name); err != nil {
		return entry, err
	}
	if !v.migrates {
		return entry, nil
	}
	entry.MigrationPath = filepath.Join(folder, "migration")
	return entry, os.Link(entry.RollupBinary, entry.MigrationPath)
}

// copySelf copies the running program to path and appends tag. Trailing bytes do not matter to the loader, but give
// each version its own digest, as real versions have.
func copySelf(path, tag string) error {
	source, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, copyErr := io.Copy(target, source)
	_, tagErr := fmt.Fprintf(target, "mock-rollup demo %s\n", tag)
	return errors.Join(copyErr, tagErr, target.Close())
}

// Ports are chosen below the kernel's range for outgoing connections, because the demo's port must still be free at
// each later start.
const (
	firstPort = 20000
	portCount = 12000
)

// portOffset advances with each choice, so that a process never chooses the same port twice in a row.
var portOffset atomic.Uint32

func init() { portOffset.Store(rand.Uint32N(portCount)) }

func freePort() (uint16, error) {
	var err error
	for range portCount {
		port := uint16(firstPort + portOffset.Add(1)%portCount)
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("cannot find a free port: %w", err)
}

func explainDemo(dir string, out io.Writer) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("cannot resolve %s: %w", dir, err)
	}
	cfg, err := LoadConfig(filepath.Join(dir, "v0", "config.toml"))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `Created a chain of three versions in %s:
  manager.json            the versions: v0 up to height 20, v1 up to 40, then v2
  v0/ v1/ v2/             each with a binary (rollup) and config.toml; v1 also with a migration
  state/                  the state they share, created by the first start (see: mock-rollup inspect --dir %[1]s/state)
  da.json                 the chain's clock, created by the first start: a block every %[2]s
API: http://127.0.0.1:%[3]d/modules/chain-state/state/current-heights/
To start over, remove state/, da.json and the checkpoint together.

In the log of the entrypoint (the node's own lines begin with a date), watch for:
  version started       v0, at height 0
  height confirmed      after its exit, v0 was asked for its durable height: 20
  version completed     v0 is complete, so the migration of v1 may run
  migration finished    from now on the state is v1's; the migration never runs again
  version started       v1, from height 21; at height 40, v2 follows immediately, without a migration
`, dir, cfg.Mock.DA.BlockTime, cfg.Runner.HTTP.BindPort)
	return nil
}
