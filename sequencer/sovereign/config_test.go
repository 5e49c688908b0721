package sovereign

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// realConfig has what a node's config has around the values that we read.
const realConfig = `# The config of a node.
[da]
rpc_url = "ws://localhost:26658"
namespaces = ["a", "b"]

[storage]
path = "rollup-state"
user_commit_concurrency = 1

[runner]
da_polling_interval_ms = 10_000
genesis_height = 3

[runner.http_config]
bind_host = "0.0.0.0"
bind_port = 12346
public_address = "http://localhost:12346"

[monitoring]
telegraf_address = "udp://127.0.0.1:8094"

[sequencer.preferred.postgres]
connection_string = "postgres://user:secret@db/x"
`

func TestNodeConfigIsRead(t *testing.T) {
	const port = "[runner.http_config]\nbind_port = 12346\n"
	local := func(c Config) Config {
		c.Hosts, c.Port = []string{"127.0.0.1"}, 12346
		return c
	}
	for _, test := range []struct {
		name, text string
		want       Config
	}{
		{"a real one", realConfig, local(Config{Storage: "rollup-state"})},
		{"only the port", port, local(Config{})},
		{"dotted keys", "runner.http_config.bind_port = 12346\nstorage.path = '/mnt/state'", local(Config{Storage: "/mnt/state"})},
		{"inline tables", `runner = { http_config = { bind_port = 12_346, bind_host = "10.1.2.3" } }`, Config{Hosts: []string{"10.1.2.3"}, Port: 12346}},
		{"a hexadecimal port", "[runner.http_config]\nbind_port = 0x303A", local(Config{})},
		{"CR LF and a byte order mark", "\uFEFF[runner.http_config]\r\nbind_port = 12346\r\n", local(Config{})},
		{"the lowest port", "[runner.http_config]\nbind_port = 1", Config{Hosts: []string{"127.0.0.1"}, Port: 1}},
		{"the highest port", "[runner.http_config]\nbind_port = 65535", Config{Hosts: []string{"127.0.0.1"}, Port: 65535}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseConfig(test.text)
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestNodeIsAskedOnTheAddressItListensOn(t *testing.T) {
	const local = "127.0.0.1:12346"
	for _, test := range []struct {
		bind      string
		addresses []string
	}{
		{`"127.0.0.1"`, []string{local}},
		{`"0.0.0.0"`, []string{local}},
		{`""`, []string{local}},
		{`"localhost"`, []string{local}},
		{`"192.168.7.8"`, []string{"192.168.7.8:12346"}},
		{`"::"`, []string{"[::1]:12346", local}},
		{`"::1"`, []string{"[::1]:12346"}},
		{`"0:0:0:0:0:0:0:0"`, []string{"[::1]:12346", local}},
		{`"2001:DB8:0:0::1"`, []string{"[2001:db8::1]:12346"}},
		{`"::ffff:0.0.0.0"`, []string{local}},
		{`"::ffff:10.0.0.1"`, []string{"[::ffff:10.0.0.1]:12346"}},
	} {
		t.Run(test.bind, func(t *testing.T) {
			got, err := parseConfig("[runner.http_config]\nbind_port = 12346\nbind_host = " + test.bind)
			require.NoError(t, err)
			assert.Equal(t, test.addresses, got.addresses())
		})
	}
	for _, bind := range []string{"node.example", "127.0.0.1:12346", "[::1]", "10.0.0", "10.0.0.256", "010.0.0.1", "fe80::1%eth0", " 127.0.0.1"} {
		t.Run("refused: "+bind, func(t *testing.T) {
			_, err := parseConfig("[runner.http_config]\nbind_port = 12346\nbind_host = '" + bind + "'")
			assert.EqualError(t, err, "runner.http_config.bind_host is not an IP address")
		})
	}
}

func TestNodeConfigThatIsWrongIsRefusedWithTheKey(t *testing.T) {
	const missing = "runner.http_config.bind_port is missing: the node is asked for its height on that port"
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", missing},
		{"no port", "[runner.http_config]\nbind_host = '::1'", missing},
		{"a port in another table", "[http_config]\nbind_port = 12346", missing},
		{"port 0", "[runner.http_config]\nbind_port = 0", "runner.http_config.bind_port is out of range, want 1 to 65535"},
		{"port beyond the highest", "[runner.http_config]\nbind_port = 65536", "runner.http_config.bind_port is out of range, want 1 to 65535"},
		{"port that would wrap to a good one", "[runner.http_config]\nbind_port = 4294979642", "runner.http_config.bind_port is out of range, want 1 to 65535"},
		{"negative port", "[runner.http_config]\nbind_port = -1", "runner.http_config.bind_port is out of range, want 1 to 65535"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := parseConfig(test.text)
			require.EqualError(t, err, test.want)
			assert.Zero(t, cfg)
		})
	}
	for _, test := range []struct{ name, text, line, key string }{
		{"port as text", "[runner.http_config]\nbind_port = \"12346\"", "line 2", "runner.http_config.bind_port"},
		{"port with a fraction", "\n[runner.http_config]\nbind_port = 12346.0", "line 3", "runner.http_config.bind_port"},
		{"port as list", "[runner.http_config]\nbind_port = [12346]", "line 2", "runner.http_config.bind_port"},
		{"host as number", "[runner.http_config]\nbind_port = 1\nbind_host = 127", "line 3", "runner.http_config.bind_host"},
		{"storage path as number", "[storage]\npath = 7", "line 2", "storage.path"},
		{"runner as number", "runner = 7", "line 1", "runner"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := parseConfig(test.text)
			require.ErrorContains(t, err, "not a node config: ")
			require.ErrorContains(t, err, test.line)
			require.ErrorContains(t, err, `"`+test.key+`"`)
			assert.Zero(t, cfg)
		})
	}
}

func TestBadTOMLIsReportedWhereItStands(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		// The library begins what follows a value with the space before it.
		{"in a line", "[runner.http_config]\nbind_port = 12346 x", "line 2, column 18: "},
		{"at the start of a line", "x = 1\n= 2", "line 2, column 1: "},
		{"at the end of a line", "[runner\n[storage]", "line 1, column 8: "},
		{"at the start of the file", "= 1", "line 1, column 1: "},
		{"at the end of the file", "a = ", "line 1, column 4: "},
		{"an unterminated string", "a = 1\nx = \"open\ny = 1\n", "line 2, column 10: "},
		{"a key twice", "a = 1\na = 2\n", "line 2, column 1: "},
		{"after CR LF", "x = 1\r\n\r\n  y z = 1\r\n", "line 3, column 5: "},
		{"after multi-byte text", "x = 1\n\"日本é\" = \"日本\" z", "line 2, column 13: "},
		{"after a byte order mark", "\uFEFFx = 1\ny = ]", "line 2, column 5: "},
		{"a number that is too large", "[runner.http_config]\nbind_port=99999999999999999999", "line 2, column 11: "},
		{"JSON", `{"runner": {}}`, "line 1, column 1: "},
		{"a program", "\x7fELF\x02\x01\x01\x00\x00", "line 1, column 1: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig(test.text)
			require.ErrorContains(t, err, "not valid TOML: ")
			assert.Equal(t, test.want, err.Error()[:min(len(test.want), len(err.Error()))], "%s", err)
		})
	}
}

// The library quotes the line that it cannot read.
func TestErrorOfANodeConfigHasNoTextOfIt(t *testing.T) {
	const secret, port = "s3cret", "[runner.http_config]\nbind_port = 12346\n"
	for _, text := range []string{
		"token = s3cret", "token = \"s3cret", "token = s3cret\"", "s3cret", "[s3cret", "s3cret = 1\ns3cret = 2", "a = 1\n[a.s3cret]\nb = 2", "token = 1s3cret", "token = 2020-s3cret",
		"token = \x27\x27\x27s3cret", "token = [\"s3cret\"", "token = \"\\s3cret\"", "token = { s3cret }", "token = trues3cret",
		port + "bind_host = \"s3cret\"", port + "bind_host = s3cret", "[runner.http_config]\nbind_port = \"s3cret\"", "[runner.http_config]\nbind_port = s3cret",
		"runner = \"s3cret\"", "storage = \"s3cret\"\n" + port, "[storage]\npath = [\"s3cret\"]\n" + port, "[storage.path]\ns3cret = 1\n" + port,
	} {
		t.Run(text, func(t *testing.T) {
			_, err := parseConfig(text)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), secret)
			if !strings.HasPrefix(err.Error(), "runner.http_config.bind_host is not") {
				assert.Contains(t, err.Error(), "line ")
			}
		})
	}
}

func TestReadConfigNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	_, err := ReadConfig(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "cannot read the node config: open "+path+": no such file or directory")

	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o644))
	_, err = ReadConfig(fifo)
	require.EqualError(t, err, "cannot read the node config: open "+fifo+": it is a FIFO, want a regular file")

	require.NoError(t, os.WriteFile(path, []byte("[runner]\n"), 0o600))
	_, err = ReadConfig(path)
	require.EqualError(t, err, path+": runner.http_config.bind_port is missing: the node is asked for its height on that port")

	require.NoError(t, os.WriteFile(path, []byte(realConfig), 0o600))
	cfg, err := ReadConfig(path)
	require.NoError(t, err)
	assert.Equal(t, Config{Hosts: []string{"127.0.0.1"}, Port: 12346, Storage: "rollup-state"}, cfg)
}

func TestStorageDirIsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for storage, want := range map[string]string{
		"/mnt/state": "/mnt/state", "state": dir + "/state", "./link/": dir + "/link", "../state": filepath.Dir(dir) + "/state", "": "",
	} {
		assert.Equal(t, want, Config{Storage: storage}.StorageDir(), storage)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{
		"", realConfig, "[runner\n", "runner.http_config.bind_port = 1", "\uFEFFa = \"\xff\"", "a=\x00",
		"[runner.http_config]\r\nbind_port = 99999\r\nbind_host = \"::\"", "[[runner]]\nx = 2020-13-45",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := parseConfig(text)
		if err != nil {
			if cfg.Hosts != nil || cfg.Port != 0 || cfg.Storage != "" {
				t.Fatalf("%+v with error %v", cfg, err)
			}
			if line, _, at := cutPosition(err); at && (line < 1 || line > 1+strings.Count(text, "\n")) {
				t.Fatalf("%v, in a text of %d lines", err, 1+strings.Count(text, "\n"))
			}
			return
		}
		checkAgainstTable(t, cfg, text)
		if cfg.Port < 1 || cfg.Port > 65535 {
			t.Fatalf("port %d", cfg.Port)
		}
		for i, address := range cfg.addresses() {
			if ip := net.ParseIP(cfg.Hosts[i]); ip == nil || ip.IsUnspecified() {
				t.Fatalf("host %q", cfg.Hosts[i])
			}
			host, port, err := net.SplitHostPort(address)
			if err != nil || host != cfg.Hosts[i] || port != strconv.Itoa(cfg.Port) {
				t.Fatalf("address %q of %+v: %v", address, cfg, err)
			}
		}
	})
}

// cutPosition takes the place out of an error that names one.
func cutPosition(err error) (line, column int, found bool) {
	n, _ := fmt.Sscanf(err.Error(), "line %d, column %d:", &line, &column)
	return line, column, n == 2
}

// checkAgainstTable compares a config with the TOML text read without any type.
func checkAgainstTable(t *testing.T, cfg Config, text string) {
	t.Helper()
	var table map[string]any
	if _, err := toml.Decode(text, &table); err != nil {
		t.Fatalf("%+v was read of what is no TOML: %v", cfg, err)
	}
	find := func(path ...string) []any {
		found := []any{table}
		for _, key := range path {
			var next []any
			for _, v := range found {
				inner, _ := v.(map[string]any)
				for name, v := range inner {
					if strings.EqualFold(name, key) { // the library does not mind the case of keys
						next = append(next, v)
					}
				}
			}
			found = next
		}
		return found
	}
	if ports := find("runner", "http_config", "bind_port"); !slices.Contains(ports, any(int64(cfg.Port))) {
		t.Fatalf("port %d was read, and there is %v", cfg.Port, ports)
	}
	if paths := find("storage", "path"); cfg.Storage != "" && !slices.Contains(paths, any(cfg.Storage)) {
		t.Fatalf("storage %q was read, and there is %q", cfg.Storage, paths)
	}
	hosts := find("runner", "http_config", "bind_host")
	if len(cfg.Hosts) == 0 {
		t.Fatal("no host")
	}
	for _, host := range cfg.Hosts {
		loopback := host == "127.0.0.1" || host == "::1"
		same := func(v any) bool { bind, ok := v.(string); return ok && net.ParseIP(bind).Equal(net.ParseIP(host)) }
		if !loopback && !slices.ContainsFunc(hosts, same) {
			t.Fatalf("host %q was read, and there is %q", host, hosts)
		}
	}
}

// The node knows only one spelling, and the TOML library takes any for it.
func TestKeysInOtherLettersAreRefused(t *testing.T) {
	const port = "[runner.http_config]\nbind_port = 12346\n"
	for text, want := range map[string]string{
		"[storage]\nPath = \"/a\"\npath = \"/b\"\n" + port: "storage.path is spelt storage.Path, but a node only knows storage.path",
		"[Storage]\npath = \"/a\"\n" + port:                "storage is spelt Storage, but a node only knows storage",
		"[runner.http_config]\nBIND_PORT = 1\n":            "runner.http_config.bind_port is spelt runner.http_config.BIND_PORT, but a node only knows runner.http_config.bind_port",
	} {
		_, err := parseConfig(text)
		assert.EqualError(t, err, want)
	}
}
