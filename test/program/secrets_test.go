package program

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/test/ports"
)

// secret is what somebody put in the wrong place. It is near to no name of ours.
const secret = "s3cretS3cret"

// mistake is a secret in the wrong place.
type mistake struct {
	// spoil changes the files of a chain that is otherwise good; nil for none.
	spoil func(c *chain)
	// args come after those that name config and checkpoint, env before all.
	args, env []string
}

// mistakes are all places in which a person can put a secret by mistake, but for the names of files.
func mistakes() map[string]mistake {
	all := map[string]mistake{
		"a flag":                {args: []string{"--" + secret}},
		"a flag with a value":   {args: []string{"--token=" + secret}},
		"letters":               {args: []string{"-x" + secret}},
		"a flag without a name": {args: []string{"--=" + secret}},
		"a word":                {args: []string{secret}},
		"a value":               {args: []string{"--stop-timeout", secret}},
		"a number":              {args: []string{"--height-slack=" + secret}},
		"a switch":              {args: []string{"--no-checkpoint-file=" + secret}},
		"a choice":              {args: []string{"--log-level", secret}},
		"an address":            {args: []string{"--listen", secret}},
		"a variable":            {env: []string{"ENTRYPOINT_RESTARTS=" + secret}},
		"a variable of ours that is none": {
			env: []string{"ENTRYPOINT_" + secret + "=1", "ENTRYPOINT_RESTART=" + secret}, args: []string{"--when-finished=" + secret},
		},
	}
	for _, text := range []string{
		"token = %s", "token = \"%s", "token = %s\"", "%s", "[%s", "%[1]s = 1\n%[1]s = 2", "token = 1%s", "token = '''%s", "token = [\"%s\"", "token = \"\\%s\"", "token = 2020-%s",
	} {
		all["TOML: "+text] = mistake{spoil: func(c *chain) { appendTo(c, c.config(0), "\n"+fmt.Sprintf(text, secret)+"\n") }}
	}
	for _, text := range []string{
		"[runner.http_config]\nbind_port = \"%s\"", "[runner.http_config]\nbind_port = 1\nbind_host = \"%s\"", "runner = \"%s\"", "storage = \"%s\"", "[storage]\npath = [\"%s\"]",
	} {
		all["TOML: "+text] = mistake{spoil: func(c *chain) { c.must(os.WriteFile(c.config(0), fmt.Appendf(nil, text, secret), 0o644)) }}
	}
	for _, keys := range []map[string]any{
		{secret: 1},
		{"stop_height": secret},
		{"start_height": []string{secret}},
		{"args": secret},
		{"args": []any{secret, 1}},
		{"env": []string{"TOKEN=" + secret}},
		{"env": map[string]any{"TOKEN=" + secret: ""}, "args": 1},
		{"env": map[string]any{secret: 1}},
		{"env": map[string]any{"TOKEN": []string{secret}}},
		{"env": map[string]any{"TOKEN": secret}, "ask": 1},
		{"on_interrupted_migration": secret},
		{"api_path": secret},
		{"ask": secret},
		{"name": []string{secret}},
		{"rollup_binary": []string{secret}},
	} {
		all[fmt.Sprint("plan: ", keys)] = mistake{spoil: func(c *chain) { c.versions[0].keys = keys; c.writeManager() }}
	}
	for _, text := range []string{"%s", "[]%s", "{\"%s\": 1}", "\"%s\"", "[{\"%[1]s\": 1, \"%[1]s\": 2}]", "[\"%s\"]", "[{\"env\": {\"%[1]s\": \"1\", \"%[1]s\": \"2\"}}]"} {
		all["plan: "+text] = mistake{spoil: func(c *chain) { c.must(os.WriteFile(c.manager, fmt.Appendf(nil, text, secret), 0o644)) }}
	}
	for _, text := range []string{"%s", "{}%s", "{\"%s\": 1}", "{\"schema\": \"%s\"}", "{\"labels\": {\"%[1]s\": 1, \"%[1]s\": 2}}", "\"%s\""} {
		all["manifest: "+text] = mistake{args: []string{"--manifest", "m.json"}, spoil: func(c *chain) {
			c.must(os.WriteFile(filepath.Join(c.dir, "m.json"), fmt.Appendf(nil, text, secret), 0o644))
		}}
	}
	for _, text := range []string{"%s", "{}%s", "{\"version_index\": \"%s\", \"binary_path\": \"x\"}", "{\"version_index\": 0, \"binary_path\": \"x\", \"updated_at\": \"%s\"}", "\"%s\""} {
		all["checkpoint: "+text] = mistake{spoil: func(c *chain) { c.must(os.WriteFile(c.checkpoint, fmt.Appendf(nil, text, secret), 0o644)) }}
	}
	return all
}

func appendTo(c *chain, file, text string) {
	c.must(os.WriteFile(file, []byte(readText(file)+text), 0o644))
}

// More people see a log, or the status of a pod, than may know what is in a config.
func TestSecretInTheWrongPlaceIsShownNowhere(t *testing.T) {
	t.Parallel()
	for name, m := range mistakes() {
		// The name is part of the names of the files.
		t.Run(strings.ReplaceAll(name, secret, "SECRET"), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{})
			if m.spoil != nil {
				m.spoil(c)
			}
			termination := filepath.Join(c.dir, "termination")
			c.env = append(c.env, append(m.env, "ENTRYPOINT_TERMINATION_LOG="+termination)...)
			for _, command := range [][]string{{"run"}, {"check"}, {"checkpoint", "show"}} {
				args := append(append(command, "-c", c.manager, "-f", c.checkpoint), m.args...)
				code, stdout, stderr := c.command(args...)
				assert.NotContains(t, stdout+stderr, secret, command)
				if command[0] == "run" {
					require.NotZero(t, code, "the mistake was not noticed")
					require.NotEmpty(t, stderr)
				}
			}
			text := readText(termination)
			assert.True(t, strings.HasPrefix(text, "entrypoint: exit code "), text)
			assert.NotContains(t, text, secret)
		})
	}
}

// What is in its right place is passed on, and shown nowhere either.
func TestArgumentsAndEnvironmentOfANodeAreShownNowhere(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 100, keys: map[string]any{"env": map[string]string{"TOKEN": secret}, "args": []string{"--genesis-path", secret}}}, version{})
	c.must(os.WriteFile(filepath.Join(c.dir, secret), []byte("{}"), 0o644))
	c.statusAddress = fmt.Sprintf("127.0.0.1:%d", ports.Hold(t))
	c.start("--log-level=debug", "--stall-timeout=1h")
	c.awaitEvent(on("version started"))
	for _, route := range []string{"/status", "/metrics", "/"} {
		assert.NotContains(t, c.get(route), secret, route)
	}
	_, stdout, stderr := c.command("status", "--listen", c.statusAddress)
	assert.NotContains(t, stdout+stderr, secret)
	_, stdout, stderr = c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.NotContains(t, stdout+stderr, secret)
	send(unix.SIGTERM)(c)
	c.awaitExit(0)
	assert.NotContains(t, c.lastLog, secret)
}

// A reader of a FIFO without a writer waits forever, and takes no notice of TERM.
func TestFIFOInPlaceOfAFileIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	fifo := func(path func(c *chain) string) func(c *chain) {
		return func(c *chain) {
			_ = os.Remove(path(c))
			c.must(unix.Mkfifo(path(c), 0o755))
		}
	}
	at := func(name string) func(c *chain) string {
		return func(c *chain) string { return filepath.Join(c.dir, name) }
	}
	for name, m := range map[string]mistake{
		"the plan": {spoil: fifo(at("manager.json"))},
		"a config": {spoil: fifo(func(c *chain) string { return c.config(0) })},
		"a binary": {spoil: fifo(func(c *chain) string { return c.binary(0) })},
		"a genesis": {spoil: func(c *chain) {
			fifo(at("genesis"))(c)
			c.versions[0].keys = map[string]any{"args": []string{"--genesis-path=genesis"}}
			c.writeManager()
		}},
		"the manifest": {spoil: fifo(at("m.json")), args: []string{"--manifest", "m.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{stop: 10}, version{})
			m.spoil(c)
			for _, command := range []string{"run", "check"} {
				done := make(chan struct{})
				go func() {
					defer close(done)
					code, stdout, stderr := c.command(append([]string{command, "-c", c.manager, "-f", c.checkpoint}, m.args...)...)
					assert.Equal(t, 78, code)
					assert.Contains(t, strings.Join(strings.Fields(stdout+stderr), " "), "it is a FIFO")
				}()
				select {
				case <-done:
				case <-time.After(deadline):
					t.Fatalf("%s hangs", command)
				}
			}
		})
	}
}
