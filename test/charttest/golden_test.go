package charttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLint(t *testing.T) {
	for _, file := range valueFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			out, err := helm(t, "lint", chart, "--strict", "--kube-version", versions[1], "-f", file)
			require.NoError(t, err, out)
		})
	}
}

func TestGolden(t *testing.T) {
	for _, file := range valueFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			have, err := templateOf(t, chart, "-f", file)
			require.NoError(t, err)
			golden := filepath.Join("testdata/golden", filepath.Base(file))
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(have), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), have, "if it is meant so, run: CHART_TESTS=1 go test ./test/charttest -run Golden -update")
		})
	}
}

// monitoring are the values that make what Prometheus Operator and Grafana read. The files in them are not golden.
const monitoring = "metrics: {serviceMonitor: {enabled: true}, prometheusRule: {enabled: true, labels: {a: b}}, dashboard: {enabled: true}}"

func TestObjectsAreValidInTheOldestAndTheNewestKubernetes(t *testing.T) {
	for _, version := range versions {
		for _, file := range append(valueFiles(t), valuesFile(t, monitoring)) {
			t.Run(version+" "+filepath.Base(file), func(t *testing.T) {
				t.Parallel()
				text, err := template(t, "--kube-version", version, "-f", file)
				require.NoError(t, err)
				out, err := kubeconform(t, version, text)
				require.NoError(t, err, out)
			})
		}
	}
}

// A schema that accepts everything would never fail.
func TestObjectsWithWrongKeysAreInvalid(t *testing.T) {
	text, err := template(t, "-f", valuesFile(t, monitoring))
	require.NoError(t, err)
	for right, wrong := range map[string]string{
		"terminationGracePeriodSeconds: 315": "terminationGracePeriodSecond: 315",
		"whenScaled: Retain":                 "whenScaled: 7",
		"publishNotReadyAddresses: true":     "publishNotReady: true",
		"scrapeTimeout: 10s":                 "scrapeTimeouts: 10s",
		"cpu: \"1\"":                         "cpu: [1]",
	} {
		require.Contains(t, text, right)
		for _, version := range versions {
			out, err := kubeconform(t, version, strings.ReplaceAll(text, right, wrong))
			assert.Error(t, err, "%s %s: %s", version, wrong, out)
		}
	}
}

func kubeconform(t *testing.T, version, text string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("kubeconform")
	require.NoError(t, err, "install it with: make chart-tools")
	cmd := exec.Command(path, "-strict", "-summary",
		"-schema-location", "testdata/schemas/v"+version+"/{{.ResourceKind}}{{.KindSuffix}}.json",
		"-schema-location", "testdata/schemas/operator/{{.ResourceKind}}{{.KindSuffix}}.json")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A rollout that only a new chart causes would stop nodes for nothing.
func TestNewChartVersionChangesNoPod(t *testing.T) {
	newer := filepath.Join(t.TempDir(), "rollup")
	require.NoError(t, os.CopyFS(newer, os.DirFS(chart)))
	path := filepath.Join(newer, "Chart.yaml")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	text := regexp.MustCompile(`(?m)^(version|appVersion): .*`).ReplaceAllString(string(before), "$1: 99.0.0")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	for _, file := range valueFiles(t) {
		old, err := templateOf(t, chart, "-f", file)
		require.NoError(t, err)
		have, err := templateOf(t, newer, "-f", file)
		require.NoError(t, err)
		require.NotEqual(t, old, have, "the version was changed, and no object has it")
		oldSets, haveSets := parse(t, old).kind("StatefulSet"), parse(t, have).kind("StatefulSet")
		require.Len(t, oldSets, 2)
		for i := range oldSets {
			assert.Equal(t, oldSets[i]["spec"], haveSets[i]["spec"], file)
		}
	}
}
