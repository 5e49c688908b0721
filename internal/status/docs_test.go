package status

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

const statusPage = "../../docs/status.md"

func TestEveryMetricIsDocumented(t *testing.T) {
	const begin, end = "<!-- begin: written by go test ./internal/status -update -->\n", "<!-- end -->"
	text, err := os.ReadFile(statusPage)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(text), begin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found)
	var table strings.Builder
	table.WriteString("| metric | type | meaning |\n|---|---|---|\n")
	for _, m := range newStatus(running(), sovereign.Readiness{}).moment(t.Context()).metricTable() {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", m.name, m.kind, m.help)
	}
	want := before + begin + table.String() + end + after
	if *update {
		require.NoError(t, os.WriteFile(statusPage, []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(text), "go test ./internal/status -update writes it anew")
}

func TestEveryKeyOfTheReportIsDocumented(t *testing.T) {
	text, err := os.ReadFile(statusPage)
	require.NoError(t, err)
	for _, key := range keysOf(reflect.TypeFor[Report]()) {
		documented := strings.Contains(string(text), "`"+key+"`") || strings.Contains(string(text), "`."+key+"`") || strings.Contains(string(text), "."+key+"`")
		assert.True(t, documented, "%s is not in docs/status.md", key)
	}
}

// keysOf gives the JSON keys of a type and of what is in it.
func keysOf(of reflect.Type) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() {
		return nil
	}
	var keys []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		keys = append(append(keys, name), keysOf(field.Type)...)
	}
	return keys
}

func TestEveryPhaseIsDocumented(t *testing.T) {
	text, err := os.ReadFile(statusPage)
	require.NoError(t, err)
	for _, phase := range sequencer.Phases() {
		assert.Contains(t, string(text), "\n| `"+string(phase)+"` | ")
	}
}

var causeValue = regexp.MustCompile(`(?m)^\t\w+ +Cause = "([a-z_]+)"`)

func TestEveryCauseIsDocumented(t *testing.T) {
	code, err := os.ReadFile("../../sequencer/failure.go")
	require.NoError(t, err)
	page, err := os.ReadFile("../../docs/exit-codes.md")
	require.NoError(t, err)
	causes := causeValue.FindAllStringSubmatch(string(code), -1)
	require.NotEmpty(t, causes)
	for _, m := range causes {
		assert.Contains(t, string(page), "\n| `"+m[1]+"` | ")
	}
}

// promtool is the linter of Prometheus itself.
func TestMetricsAreAsPrometheusWantsThem(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is missing: install Debian's package prometheus")
		}
		t.Skip("promtool is missing: Debian's package prometheus has it")
	}
	states := map[string]sequencer.State{"running": running(), "nothing known": {Phase: sequencer.PhasePreparing}}
	for name, state := range states {
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(string(newStatus(state, sovereign.Readiness{}).metrics(t.Context())))
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", name, out)
		assert.Empty(t, string(out), name)
	}
}
