package guards

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// graceSettings are the ways to set how long a stop may take; the group of each is the seconds. The entrypoint's own
// --stop-timeout is spelled like Docker's.
var graceSettings = map[string]*regexp.Regexp{
	"Docker, at the start":  regexp.MustCompile(`--stop-timeout[ =]"?(\d+\w*)`),
	"Docker, at the stop":   regexp.MustCompile(`docker stop (?:-t|--time|--timeout)[ =]?(\d+\w*)`),
	"Compose":               regexp.MustCompile(`stop_grace_period: *"?(\d+\w*)`),
	"Docker Swarm":          regexp.MustCompile(`--stop-grace-period[ =](\d+\w*)`),
	"Kubernetes":            regexp.MustCompile(`terminationGracePeriodSeconds: *(\d+\w*)`),
	"Nomad":                 regexp.MustCompile(`\bkill_timeout *= *"(\d+\w*)"`),
	"Nomad, of the machine": regexp.MustCompile(`max_kill_timeout *= *"(\d+\w*)"`),
	"systemd":               regexp.MustCompile(`TimeoutStopSec=(\d+\w*)`),
}

// detachedRun is a command that starts a container in the background.
var detachedRun = regexp.MustCompile(`docker run -d (?:[^\n\\]|\\\n)*`)

// A node that is killed because its grace period was too short may not be able to open its state again. People copy the
// settings that they find here.
func TestEachGracePeriodThatIsShippedOrDocumentedIsOf300Seconds(t *testing.T) {
	found := map[string]int{}
	shippedTexts(t, func(path, text string) {
		for name, setting := range graceSettings {
			for _, match := range setting.FindAllStringSubmatch(text, -1) {
				found[name]++
				assert.Equal(t, "300", strings.TrimSuffix(match[1], "s"), "%s: %s", path, match[0])
			}
		}
		for _, command := range detachedRun.FindAllString(text, -1) {
			assert.Contains(t, command, "--stop-timeout", path)
		}
	})
	for name := range graceSettings {
		assert.NotZero(t, found[name], "no text shows how to set it for %s", name)
	}
}

// shippedTexts calls see with each page, Dockerfile, Compose file and chart, but not with files for tests and programs.
func shippedTexts(t *testing.T, see func(path, text string)) {
	t.Helper()
	for _, dir := range []string{"README.md", "docs", "images", "compose", "charts", "systemd"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if os.IsNotExist(err) && path == filepath.Join(root, dir) {
				return nil
			}
			if err != nil || entry.IsDir() || filepath.Ext(path) == ".go" || strings.Contains(path, "/testdata/") {
				return err
			}
			text, err := os.ReadFile(path)
			if err == nil {
				see(path, string(text))
			}
			return err
		})
		require.NoError(t, err)
	}
}
