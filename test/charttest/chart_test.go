// Package charttest tests the chart charts/rollup with the programs helm and kubeconform, without a cluster: every key of
// its values, the objects that it makes of ten files of values, and what must not change them. 'make chart' runs the
// tests, after 'make chart-tools' has installed the programs.
package charttest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const (
	chart = "../../charts/rollup"
	// named are the values that every release has to give.
	named = "testdata/values/default.yaml"
)

// versions are the oldest and the newest version of Kubernetes that the chart supports: those of the schemas.
var versions = []string{"1.29", "1.37"}

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("CHART_TESTS") == "" {
		fmt.Println("these tests need helm and kubeconform; run: make chart")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type object = map[string]any

// helm runs a command of helm, and gives what it printed and its error, with what it wrote to stderr.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("helm")
	require.NoError(t, err, "install it with: make chart-tools")
	cmd := exec.Command(path, args...)
	// No settings, plugins and repositories of the person who runs this.
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=/dev/null")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), err
}

// template gives the manifests of a release named test, with the values of default.yaml and then those that args give.
func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return templateOf(t, chart, append([]string{"-f", named}, args...)...)
}

func templateOf(t *testing.T, chart string, args ...string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "test", chart, "--namespace", "chain", "--kube-version", versions[1]}, args...)...)
}

// render gives the objects of a release with the given values, which are YAML.
func render(t *testing.T, values string) objects {
	t.Helper()
	text, err := template(t, "-f", valuesFile(t, values))
	require.NoError(t, err)
	return parse(t, text)
}

func valuesFile(t *testing.T, values string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(path, []byte(values), 0o644))
	return path
}

// objects are the objects of a release.
type objects []object

func parse(t *testing.T, text string) (found objects) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return found
		}
		require.NoError(t, err, text)
		if o != nil {
			found = append(found, o)
		}
	}
}

// get gives the one object of this kind and name.
func (o objects) get(t *testing.T, kind, name string) object {
	t.Helper()
	var found object
	for _, each := range o {
		if each["kind"] == kind && at(each, "metadata", "name") == name {
			require.Nil(t, found, "%s %s is there twice", kind, name)
			found = each
		}
	}
	require.NotNil(t, found, "there is no %s %s", kind, name)
	return found
}

// kind gives the objects of a kind.
func (o objects) kind(kind string) (found objects) {
	for _, each := range o {
		if each["kind"] == kind {
			found = append(found, each)
		}
	}
	return found
}

// container gives the node's container in a set of the release: sequencer or replicas.
func (o objects) container(t *testing.T, set string) object {
	t.Helper()
	containers := at(o.get(t, "StatefulSet", "test-rollup-"+set), "spec", "template", "spec", "containers").([]any)
	require.Len(t, containers, 1)
	return containers[0].(object)
}

// at follows keys (string) and places (int) from a value; nil if there is no such.
func at(value any, path ...any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := value.(object)
			value = m[s]
		case int:
			list, _ := value.([]any)
			if s >= len(list) {
				return nil
			}
			value = list[s]
		}
	}
	return value
}

// valueFiles are the ten files of values.
func valueFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/values/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 10)
	return files
}

// podSpec gives the spec of the pods of an object; nil if it makes none.
func podSpec(o object) object {
	if o["kind"] == "Pod" {
		return o["spec"].(object)
	}
	spec, _ := at(o, "spec", "template", "spec").(object)
	return spec
}

// environment gives the variables of a container that have a value.
func environment(container object) map[string]string {
	found := map[string]string{}
	list, _ := container["env"].([]any)
	for _, variable := range list {
		name, value := at(variable, "name"), at(variable, "value")
		if value != nil {
			found[name.(string)] = value.(string)
		}
	}
	return found
}
