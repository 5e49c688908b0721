package sovereign

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"rollup-entrypoint/internal/regularfile"
)

// Config is what we need from a node's TOML config. We do not look at any other key.
type Config struct {
	// Hosts are the IP addresses at which to ask the node, the likeliest first: runner.http_config.bind_host, or loopback
	// addresses if that is absent or unspecified (0.0.0.0, ::).
	Hosts []string
	// Port is runner.http_config.bind_port, 1 to 65535.
	Port int
	// Storage is storage.path as it is in the file, empty if absent. A relative path is relative to the node's working
	// directory.
	Storage string
}

// configLimit bounds how much is read as a config, in bytes.
const configLimit = 16 << 20

// The keys that we look at.
const (
	keyStorage = "storage.path"
	keyHost    = "runner.http_config.bind_host"
	keyPort    = "runner.http_config.bind_port"
)

// configFile has pointers so that an absent key differs from a zero.
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

// ReadConfig reads the node config at path. The error names the file, the key and, for bad TOML, the line. It quotes
// nothing from the file, because a node config has secrets.
func ReadConfig(path string) (Config, error) {
	text, err := regularfile.Read(path, configLimit)
	if err != nil {
		return Config{}, fmt.Errorf("cannot read the node config: %w", err)
	}
	cfg, err := parseConfig(string(text))
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

func parseConfig(text string) (Config, error) {
	var file configFile
	meta, err := toml.Decode(text, &file)
	if err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			// Its message would quote the text.
			line, column := position(text, parse.Position.Start)
			return Config{}, fmt.Errorf("line %d, column %d: not valid TOML: look for a string without quotes, a missing bracket, a number that is too large, or a duplicate key", line, column)
		}
		return Config{}, fmt.Errorf("not a node config: %w", err)
	}
	for _, key := range meta.Keys() {
		for _, ours := range []string{"storage", keyStorage, "runner", "runner.http_config", keyHost, keyPort} {
			if is := key.String(); is != ours && strings.EqualFold(is, ours) {
				// The TOML library takes one for the other, but the node does not.
				return Config{}, fmt.Errorf("%s is spelt %s, but a node only knows %s", ours, is, ours)
			}
		}
	}
	cfg := Config{Storage: file.Storage.Path}
	port := file.Runner.HTTP.Port
	switch {
	case port == nil:
		return Config{}, errors.New(keyPort + " is missing: the node is asked for its height on that port")
	case *port < 1 || *port > 65535:
		return Config{}, errors.New(keyPort + " is out of range, want 1 to 65535")
	}
	cfg.Port = int(*port)
	hosts, err := hostsToAsk(file.Runner.HTTP.Host)
	if err != nil {
		return Config{}, err
	}
	cfg.Hosts = hosts
	return cfg, nil
}

// position gives the line and column of a byte of text, as an editor counts them. The TOML library's are off at the
// start and the end of a line.
func position(text string, start int) (line, column int) {
	text = strings.TrimPrefix(text, "\uFEFF") // which the library does not count
	before := text[:max(0, min(start, len(text)))]
	return 1 + strings.Count(before, "\n"), 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// hostsToAsk turns the address on which the node listens into those at which it can be asked. A node that listens on ::
// can also be asked over IPv4, and on a machine without IPv6 only over IPv4.
func hostsToAsk(bind *string) ([]string, error) {
	if bind == nil || *bind == "" || *bind == "localhost" {
		return []string{"127.0.0.1"}, nil
	}
	addr, err := netip.ParseAddr(*bind)
	if err != nil || addr.Zone() != "" {
		return nil, errors.New(keyHost + " is not an IP address")
	}
	v4 := addr.Unmap() // ::ffff:0.0.0.0 is as unspecified as 0.0.0.0
	if !v4.IsUnspecified() {
		return []string{addr.String()}, nil
	}
	if v4.Is4() {
		return []string{"127.0.0.1"}, nil
	}
	return []string{"::1", "127.0.0.1"}, nil
}

// addresses returns the hosts with the port, ready for a dialer.
func (c Config) addresses() []string {
	addresses := make([]string, len(c.Hosts))
	for i, host := range c.Hosts {
		addresses[i] = net.JoinHostPort(host, strconv.Itoa(c.Port))
	}
	return addresses
}

// StorageDir is the absolute storage.path; empty if the config has none.
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
