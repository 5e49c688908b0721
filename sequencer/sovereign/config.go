package sovereign

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Config is what we need of a node's TOML config. All other keys belong to the node and are not looked at.
type Config struct {
	// Host is the IP address on which to ask the node: runner.http_config.bind_host, or the loopback address where
	// that is absent or unspecified (0.0.0.0, ::).
	Host string
	// Port is runner.http_config.bind_port, 1 to 65535.
	Port int
	// Storage is storage.path as it stands in the file, empty where it is absent. A relative path belongs to the
	// working directory of the node.
	Storage string
}

// configFile has pointers so that an absent key can be told from a zero.
type configFile struct {
	Runner struct {
		HTTP struct {
			Host *string `toml:"bind_host"`
			Port *int64  `toml:"bind_port"`
		} `toml:"http_config"`
	} `toml:"runner"`
	Storage struct {
		Path string `toml:"path"`
	} `toml:"storage"`
}

// ReadConfig reads the node config at path. The error names the file, the key and, for bad TOML, the line.
func ReadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the node config: %w", err)
	}
	cfg, err := ParseConfig(string(text))
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// ParseConfig parses the text of a node config.
func ParseConfig(text string) (Config, error) {
	var file configFile
	if _, err := toml.Decode(text, &file); err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			line, column := position(text, parse.Position.Start)
			return Config{}, fmt.Errorf("line %d, column %d: not valid TOML: %s", line, column, parse.Message)
		}
		return Config{}, fmt.Errorf("not a node config: %w", err)
	}
	cfg := Config{Storage: file.Storage.Path}
	port := file.Runner.HTTP.Port
	switch {
	case port == nil:
		return Config{}, errors.New("runner.http_config.bind_port is missing: the height of the node is asked on that port")
	case *port < 1 || *port > 65535:
		return Config{}, fmt.Errorf("runner.http_config.bind_port is %d, want 1 to 65535", *port)
	}
	cfg.Port = int(*port)
	host, err := askHost(file.Runner.HTTP.Host)
	if err != nil {
		return Config{}, err
	}
	cfg.Host = host
	return cfg, nil
}

// position gives the line and column of a byte of text, as an editor counts them. Those of the TOML library are off at
// the start and the end of a line.
func position(text string, start int) (line, column int) {
	text = strings.TrimPrefix(text, "\uFEFF") // which the library does not count
	before := text[:max(0, min(start, len(text)))]
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// askHost turns the address on which the node listens into one on which it can be asked.
func askHost(bind *string) (string, error) {
	if bind == nil || *bind == "" || *bind == "localhost" {
		return "127.0.0.1", nil
	}
	addr, err := netip.ParseAddr(*bind)
	if err != nil || addr.Zone() != "" {
		return "", fmt.Errorf("runner.http_config.bind_host is %q, want an IP address", *bind)
	}
	v4 := addr.Unmap() // ::ffff:0.0.0.0 is as unspecified as 0.0.0.0
	if !v4.IsUnspecified() {
		return addr.String(), nil
	}
	if v4.Is4() {
		return "127.0.0.1", nil
	}
	return "::1", nil
}

// Address is the host and port to ask, ready for a dialer.
func (c Config) Address() string {
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}

// StorageEmpty reports whether the node would find no state: the directory is absent or has no entry but the
// lost+found of a fresh file system and those that ignore tells. known is false where the config has no storage.path or the directory cannot be
// read, and then nothing may be concluded.
func (c Config) StorageEmpty(ignore func(name string) bool) (empty, known bool) {
	if c.Storage == "" {
		return false, false
	}
	entries, err := os.ReadDir(c.Storage)
	if errors.Is(err, os.ErrNotExist) {
		return true, true
	}
	if err != nil {
		return false, false
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && !ignore(e.Name()) {
			return false, true
		}
	}
	return true, true
}

// StorageDir is the absolute storage.path, for messages; empty where the config has none.
func (c Config) StorageDir() string {
	if c.Storage == "" {
		return ""
	}
	abs, err := filepath.Abs(c.Storage)
	if err != nil {
		return c.Storage
	}
	return abs
}
