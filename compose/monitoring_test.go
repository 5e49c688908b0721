// Package compose has what runs beside the entrypoint: here the tests of its alerts and its dashboard, with the tools
// of Prometheus itself.
package compose

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/companion"
	"rollup-entrypoint/test/ports"
)

const (
	rulesFile     = "prometheus/rules.yml"
	rulesTestFile = "prometheus/rules_test.yml"
	dashboardFile = "grafana/dashboard.json"
	// deadline is only reached by a test that fails.
	deadline = time.Minute
)

// tool gives the path of a tool of Prometheus.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: install Debian's package prometheus", name)
		}
		t.Skipf("%s is missing: Debian's package prometheus has it", name)
	}
	return path
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(tool(t, "promtool"), args...)
	cmd.Dir = "prometheus"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestAlertsAreWhatTheirTestsWant(t *testing.T) {
	promtool(t, "check", "rules", "rules.yml")
	promtool(t, "test", "rules", "rules_test.yml")
}

var alertLine = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)

// An alert that never fires in a test may never fire at all, and one that always does is noise.
func TestEachAlertFiresInOneTestAndNotInAnother(t *testing.T) {
	tests := read(t, rulesTestFile)
	alerts := alertLine.FindAllStringSubmatch(read(t, rulesFile), -1)
	require.NotEmpty(t, alerts)
	for _, m := range alerts {
		assert.Contains(t, tests, "alertname: "+m[1]+"\n        exp_alerts:\n          - ", "%s fires in no test", m[1])
		assert.Contains(t, tests, "alertname: "+m[1]+"\n        exp_alerts: []", "%s has no near miss", m[1])
	}
}

func TestEachAlertIsDocumented(t *testing.T) {
	page := read(t, "../docs/monitoring.md")
	for _, m := range alertLine.FindAllStringSubmatch(read(t, rulesFile), -1) {
		assert.Contains(t, page, "\n| `"+m[1]+"` | ")
	}
}

var metricName = regexp.MustCompile(`\b(?:entrypoint|rollup)_[a-z_]+`)

// known are the metrics that the program has: those of the generated table.
func known(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:entrypoint|rollup)_[a-z_]+)` \\|").FindAllStringSubmatch(read(t, "../docs/status.md"), -1) {
		names = append(names, m[1], m[1]+"_sum", m[1]+"_count")
	}
	require.NotEmpty(t, names)
	return names
}

func TestAlertsAndDashboardUseMetricsThatThereAre(t *testing.T) {
	names := known(t)
	for _, file := range []string{rulesFile, rulesTestFile, dashboardFile} {
		used := metricName.FindAllString(read(t, file), -1)
		require.NotEmpty(t, used, file)
		for _, name := range used {
			assert.Contains(t, names, name, file)
		}
	}
}

// dashboard is what we look at of Grafana's format.
type dashboard struct {
	Annotations struct{ List []struct{ Expr string } }
	Panels      []struct {
		ID      int
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, RefID string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	require.NoError(t, json.Unmarshal([]byte(read(t, dashboardFile)), &d))
	require.NotEmpty(t, d.Panels)
	return d
}

func TestPanelsDoNotOverlap(t *testing.T) {
	taken := map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		assert.NotEmpty(t, p.Targets, p.Title)
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				assert.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

// Each query of the dashboard is asked of a real Prometheus over an hour of samples.
func TestEveryQueryOfTheDashboardHasAnAnswer(t *testing.T) {
	address := recorded(t)
	fill := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "5m")
	d := readDashboard(t)
	var queries []string
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	for _, query := range queries {
		values := evaluate(t, address, fill.Replace(query))
		assert.NotEmpty(t, values, query)
		for _, v := range values {
			assert.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s gives %v", query, v)
		}
	}
	for _, a := range d.Annotations.List {
		evaluate(t, address, fill.Replace(a.Expr)) // no upgrade within the last minute is no error
	}
	assert.Empty(t, evaluate(t, address, "entrypoint_no_such_metric"), "an unknown name has no answer")
}

// recorded gives the address of a Prometheus with an hour of samples of every metric.
func recorded(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	samples := filepath.Join(dir, "samples.txt")
	require.NoError(t, os.WriteFile(samples, []byte(anHour(t)), 0o644))
	out, err := exec.Command(tool(t, "promtool"), "tsdb", "create-blocks-from", "openmetrics", samples, filepath.Join(dir, "data")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, []byte("global: {}\n"), 0o644))
	address := fmt.Sprintf("127.0.0.1:%d", ports.Hold(t))
	cmd := exec.Command(tool(t, "prometheus"), "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address, "--log.level", "error")
	companion.Start(t, cmd)
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/-/ready")
		if err == nil {
			_ = resp.Body.Close()
		}
		if err == nil && resp.StatusCode == http.StatusOK {
			return address
		}
		require.True(t, time.Now().Before(end), "prometheus does not answer: %v", err)
	}
}

// anHour repeats a recorded scrape every 15 seconds for an hour until now, with counters that rise.
func anHour(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	now := time.Now().Unix()
	for line := range strings.Lines(read(t, "../internal/status/testdata/running.prom")) {
		line = strings.TrimSuffix(line, "\n")
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		labels = strings.TrimSuffix(`job="rollup",instance="node-0:9848",`+strings.TrimSuffix(labels, "}"), ",")
		value, err := strconv.ParseFloat(line[at+1:], 64)
		require.NoError(t, err, line)
		for step := range 240 {
			v := value
			if strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count") {
				v += float64(step)
			}
			fmt.Fprintf(&text, "%s{%s} %g %d\n", name, labels, v, now-3600+15*int64(step+1))
		}
	}
	return text.String() + "# EOF\n"
}

// evaluate gives the values of an instant query.
func evaluate(t *testing.T, address, query string) []float64 {
	t.Helper()
	resp, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	require.NoError(t, json.Unmarshal(body, &answer), "%s", body)
	require.Equal(t, "success", answer.Status, "%s: %s", query, answer.Error)
	var values []float64
	for _, series := range answer.Data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(series.Value[1]), 64)
		require.NoError(t, err)
		values = append(values, v)
	}
	return values
}
