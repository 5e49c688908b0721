package dockertest_test

import (
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// longLine is longer than the 16 KiB at which the engine breaks a line into parts.
var longLine = strings.Repeat("0123456789abcdef", 4096)

// longWinded is a node that writes a long line to each output and fails.
const longWinded = `#!/usr/bin/perl
$| = 1;
print "out ", "0123456789abcdef" x 4096, "\n";
print STDERR "err ", "0123456789abcdef" x 4096, "\n";
exit 3;
`

func TestLogDriversChangeNothing(t *testing.T) {
	t.Parallel()
	node := rollup(t, []version{{node: longWinded}})
	for _, driver := range []string{"json-file", "local", "none"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			c := dockertest.Create(t, append([]string{"--log-driver", driver}, node...)...)
			attached := dockertest.TryDocker(t, "start", "-a", c.Name)
			assert.Equal(t, 3, attached.Code)
			// The engine mixes the parts of long lines of both outputs, so each is looked at alone.
			results := map[string]dockertest.Result{"attached": attached}
			if driver != "none" {
				results["docker logs"] = dockertest.TryDocker(t, "logs", c.Name)
			}
			for name, result := range results {
				assert.True(t, hasLine(result.Out, "out "+longLine, driver), name)
				assert.True(t, hasLine(result.Err, "err "+longLine, driver), name)
				assert.Contains(t, result.Err, `"msg":"run failed","exit_code":3`, name)
			}
		})
	}
}

// hasLine reports whether text has the line. The log driver "local", at least that of Docker 20.10, drops the end of a
// line that it has stored in parts.
func hasLine(text, line, driver string) bool {
	if driver == "local" {
		return strings.Contains(text, line)
	}
	return slices.Contains(strings.Split(text, "\n"), line)
}

// An attached docker command that reads nothing blocks the engine, and with it every program that writes. The
// entrypoint drops further output after five seconds. The node writes to standard error, which passes through the
// entrypoint; standard output goes directly from the node to the engine.
func TestBlockedReaderOfTheLogDoesNotStopTheChain(t *testing.T) {
	t.Parallel()
	flood := func(m *mockrollup.Mock) { m.StderrFlood = 1 << 20 }
	c := dockertest.Create(t, rollup(t, []version{{stop: 8, faults: flood}, {stop: 16, migrates: true, faults: flood}}, "--when-finished", "wait")...)
	c.Start()
	reader := exec.Command("docker", "attach", "--no-stdin", "--sig-proxy=false", c.Name)
	// Nothing reads this pipe.
	_, err := reader.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, reader.Start())
	stop := sync.OnceFunc(func() { _ = reader.Process.Kill(); _ = reader.Wait() })
	t.Cleanup(stop)
	eventually(t, "the end of the sequence", func() bool {
		return strings.Contains(c.Exec("cat", "/data/checkpoint.json").Out, `"phase": "finished"`)
	})
	assert.Equal(t, upgraded, lives(t, c))
	stop() // the engine does not end a container before its reader
	c.Stop()
	assert.Zero(t, c.WaitExit())
}
