// Package charts has the chart of a rollup, rollup/. Its tests here compare what is there twice; test/charttest tests
// what the chart makes.
package charts

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the copies and the generated part of the README")

// Helm reads no file outside of a chart, so the rules and the dashboard are in it as copies.
func TestCopiesAreTheirOriginals(t *testing.T) {
	for copied, original := range map[string]string{
		"rollup/files/rules.yml":      "../compose/prometheus/rules.yml",
		"rollup/files/dashboard.json": "../compose/grafana/dashboard.json",
	} {
		compare(t, copied, read(t, original))
	}
}

const (
	readme = "rollup/README.md"
	begin  = "<!-- begin: written by go test ./charts -update -->\n"
	end    = "<!-- end -->\n"
)

func TestReadmeHasTheValues(t *testing.T) {
	text := read(t, readme)
	before, rest, found := strings.Cut(text, begin)
	require.True(t, found)
	_, after, found := strings.Cut(rest, end)
	require.True(t, found)
	compare(t, readme, before+begin+valuesTable(t)+end+after)
}

// valuesTable has a row for each key of values.yaml, with its comment.
func valuesTable(t *testing.T) string {
	t.Helper()
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "rollup/values.yaml")), &document))
	var table strings.Builder
	table.WriteString("| key | default | meaning |\n|---|---|---|\n")
	writeRows(t, &table, document.Content[0], "")
	return table.String()
}

func writeRows(t *testing.T, table *strings.Builder, values *yaml.Node, prefix string) {
	t.Helper()
	for i := 0; i < len(values.Content); i += 2 {
		key, value := values.Content[i], values.Content[i+1]
		name, meaning := prefix+key.Value, comment(key)
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 {
			if meaning != "" {
				table.WriteString("| `" + name + "` | | " + meaning + " |\n")
			}
			writeRows(t, table, value, name+".")
			continue
		}
		assert.NotEmpty(t, meaning, "values.yaml: %s has no comment", name)
		value.HeadComment, value.LineComment, value.FootComment = "", "", ""
		text, err := yaml.Marshal(value)
		require.NoError(t, err)
		table.WriteString("| `" + name + "` | `" + strings.TrimSpace(string(text)) + "` | " + meaning + " |\n")
	}
}

// comment is the comment above a key, on one line.
func comment(key *yaml.Node) string {
	text := regexp.MustCompile(`(?m)^# ?`).ReplaceAllString(key.HeadComment, "")
	// A blank line ends the comment of the file.
	if i := strings.LastIndex(text, "\n\n"); i >= 0 {
		text = text[i:]
	}
	return strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
}

func TestAlertsOfKubernetesAreWhatTheirTestsWant(t *testing.T) {
	path, err := exec.LookPath("promtool")
	if err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "promtool is missing: install Debian's package prometheus")
		t.Skip("promtool is not installed")
	}
	for _, args := range [][]string{{"check", "rules", "../rollup/files/kubernetes-rules.yml"}, {"test", "rules", "kubernetes-rules_test.yml"}} {
		cmd := exec.Command(path, args...)
		cmd.Dir = "testdata"
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

func TestEachAlertOfKubernetesIsDocumented(t *testing.T) {
	page := read(t, "../docs/monitoring.md")
	alerts := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, "rollup/files/kubernetes-rules.yml"), -1)
	require.NotEmpty(t, alerts)
	for _, alert := range alerts {
		assert.Contains(t, page, "\n| `"+alert[1]+"` | ")
	}
}

func compare(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	assert.Equal(t, want, read(t, path), "run: go test ./charts -update")
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
