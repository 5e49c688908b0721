package program

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// foul is a name that moves the cursor, changes colours, reorders what is read, and is no UTF-8.
const foul = "v\x1b[2J\x1b]0;title\a\r\u009b31m\u202egnp\u2066\u200b\x7f\xff"

// expectPlain looks for what a terminal would obey.
func expectPlain(t *testing.T, what, text string) {
	t.Helper()
	assert.True(t, utf8.ValidString(text), "%s: %q", what, text)
	for _, r := range text {
		if r != '\n' && !unicode.IsGraphic(r) {
			t.Errorf("%s: %q in %q", what, r, text)
			return
		}
	}
}

// Row 22: whatever names the config, the record and the state have.
func TestOutputOfEachCommandEscapesWhatFilesSay(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	name := strings.ToValidUTF8(foul, "")
	for i := range c.versions {
		c.versions[i].keys = map[string]any{"name": name + string(rune('0'+i))}
	}
	c.writeManager()
	inV1(c)
	record := []string{"-c", c.manager, "-f", c.checkpoint}
	broken, torn := filepath.Join(c.dir, "broken.json"), filepath.Join(c.dir, "torn.json")
	require.NoError(t, os.WriteFile(broken, []byte(`[{"`+foul+`": "`+foul+`"}]`), 0o644))
	require.NoError(t, os.WriteFile(torn, []byte(`{"version_index": 1, "binary_path": "x", "phase": "`+foul+`"}`), 0o644))
	require.NoError(t, os.Remove(c.binary(2)))
	for _, args := range [][]string{
		append([]string{"checkpoint", "show"}, record...),
		append([]string{"checkpoint", "show", "--json"}, record...),
		{"checkpoint", "show", "-c", c.manager, "-f", torn},
		{"checkpoint", "show", "-c", broken, "-f", torn},
		append([]string{"checkpoint", "set", "--version", "1", "--migrated", "--dry-run"}, record...),
		append([]string{"checkpoint", "set", "--version", "1", "--migrated", "--dry-run", "--json"}, record...),
		append([]string{"checkpoint", "set", "--version", "0"}, record...),
		append([]string{"check"}, record...),
		append([]string{"check", "--json"}, record...),
		{"check", "-c", broken, "-f", torn},
		{"check", "-c", broken, "-f", torn, "--json"},
		append([]string{"height"}, record...),
		append([]string{"height", "--json"}, record...),
		append([]string{"reset", "--" + foul}, record...),
		append([]string{"reset"}, record...),
		append([]string{"reset", "--yes"}, record...),
		{foul},
	} {
		_, out, errs := c.command(args...)
		require.NotEmpty(t, out+errs, args)
		expectPlain(t, strings.Join(args, " "), out+errs)
		if strings.HasPrefix(out, "{") {
			assert.True(t, json.Valid([]byte(out)), out)
		}
	}
}

// Row 22: whatever a program answers that has taken our port.
func TestOutputOfStatusEscapesWhatTheNetworkSays(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(foul, 10_000)
	text, err := json.Marshal(map[string]any{
		"phase": foul, "version": long, "not_ready_because": long, "last_failure": map[string]any{"text": long},
		"next_upgrade": map[string]any{"stop_height": uint64(1<<64 - 1), "remaining_blocks": 5, "version": foul},
		"versions":     []any{map[string]any{"version": foul, "state": foul, "migration": foul, "proof": foul, "completed_at": "2026-01-01T00:00:00Z"}},
	})
	require.NoError(t, err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/status" {
			_, _ = w.Write(text)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(long))
	}))
	t.Cleanup(server.Close)
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("HTTP/1.1 " + foul + "\r\n\r\n"))
			conn.Close()
		}
	}))
	t.Cleanup(garbage.Close)
	c := newChain(t, version{})
	for _, address := range []string{server.Listener.Addr().String(), garbage.Listener.Addr().String(), foul} {
		for _, args := range [][]string{{"status"}, {"status", "--json"}, {"healthcheck"}, {"healthcheck", "--ready"}} {
			code, out, errs := c.command(append(args, "--listen", address)...)
			assert.Contains(t, []int{0, 1}, code, "no panic: %s", errs)
			expectPlain(t, strings.Join(args, " "), out+errs)
			if args[len(args)-1] != "--json" {
				assert.Less(t, len(out+errs), 1<<20)
			}
		}
	}
	code, out, errs := c.command("status", "--listen", server.Listener.Addr().String())
	require.Zero(t, code, errs)
	assert.Contains(t, out, "100 %")
}

// A dry run beside a run is refused, as the real thing would be.
func TestCheckpointSetDryRunSaysWhoHoldsTheLock(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}, state: "5 version 0"})
	before := c.volume()
	code, out, errs := c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "0", "--dry-run")
	assert.Equal(t, 74, code)
	assert.Empty(t, out)
	assert.Contains(t, errs, "is locked by the entrypoint with pid")
	assert.Equal(t, before, c.volume())
	c.run(phase{name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 5"}})
}
