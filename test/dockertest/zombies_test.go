package dockertest_test

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// With --init the orphans still become children of the entrypoint, which is the nearer subreaper.
func TestNoZombieStaysInAContainer(t *testing.T) {
	t.Parallel()
	orphans := func(m *mockrollup.Mock) { m.OrphansPerBlock = 5 }
	versions := []version{{stop: 8, faults: orphans}, {stop: 16, migrates: true, faults: orphans}}
	for name, test := range map[string]struct {
		flags, left []string
	}{
		"as process 1": {nil, []string{"entrypoint"}},
		"with --init":  {[]string{"--init"}, []string{"docker-init", "entrypoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dockertest.Run(t, append(append(test.flags, "-p", "127.0.0.1::9848"), rollup(t, versions, "--listen", ":9848", "--when-finished", "wait")...)...)
			c.WaitEvent("waiting for a stop signal")
			assert.ElementsMatch(t, test.left, processes(t, c))
			assert.GreaterOrEqual(t, metric(t, c, "entrypoint_orphans_reaped_total"), 16*5, "five for each block")
		})
	}
}

// metric reads a metric without labels from port 9848 of a container.
func metric(t *testing.T, c *dockertest.Container, name string) int {
	t.Helper()
	answer, err := http.Get("http://" + c.Address("9848") + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(text)
	require.NotNil(t, found, "%s in\n%s", name, text)
	value, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	return value
}
