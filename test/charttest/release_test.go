package charttest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBudgetFromTwoPodsOn(t *testing.T) {
	for pods := range 4 {
		o := render(t, fmt.Sprintf("replicas: {replicaCount: %d}", pods)).kind("PodDisruptionBudget")
		if pods < 2 {
			assert.Empty(t, o, pods)
			continue
		}
		require.Len(t, o, 1)
		assert.Equal(t, 1, at(o[0], "spec", "maxUnavailable"))
		assert.Equal(t, "IfHealthyBudget", at(o[0], "spec", "unhealthyPodEvictionPolicy"))
		assert.Equal(t, "replicas", at(o[0], "spec", "selector", "matchLabels", "app.kubernetes.io/component"))
	}
	assert.Empty(t, render(t, "replicas: {replicaCount: 2}\npodDisruptionBudget: {enabled: false}").kind("PodDisruptionBudget"))
}

// Each Service, budget and policy has the pods of nodes, and never one that runs a command.
func TestSelectorsHaveThePodsOfNodes(t *testing.T) {
	o := render(t, "replicas: {replicaCount: 2}\nsequencer: {replicaCount: 0}\nnetworkPolicy: {enabled: true}\njob: {enabled: true, args: [height]}")
	labels := map[string]object{}
	for _, set := range []string{"sequencer", "replicas"} {
		labels[set] = at(o.get(t, "StatefulSet", "test-rollup-"+set), "spec", "template", "metadata", "labels").(object)
	}
	labels["job"] = at(o.get(t, "Job", "test-rollup-job-1"), "spec", "template", "metadata", "labels").(object)
	labels["check"] = at(o.get(t, "Job", "test-rollup-check-replicas"), "spec", "template", "metadata", "labels").(object)
	labels["test"] = at(o.get(t, "Pod", "test-rollup-test"), "metadata", "labels").(object)
	for _, c := range []struct {
		kind, name string
		path       []any
		want       string
	}{
		{"Service", "test-rollup", []any{"spec", "selector"}, "sequencer replicas"},
		{"Service", "test-rollup-headless", []any{"spec", "selector"}, "sequencer replicas"},
		{"Service", "test-rollup-sequencer", []any{"spec", "selector"}, "sequencer"},
		{"StatefulSet", "test-rollup-sequencer", []any{"spec", "selector", "matchLabels"}, "sequencer"},
		{"StatefulSet", "test-rollup-replicas", []any{"spec", "selector", "matchLabels"}, "replicas"},
		{"PodDisruptionBudget", "test-rollup-replicas", []any{"spec", "selector", "matchLabels"}, "replicas"},
		{"NetworkPolicy", "test-rollup", []any{"spec", "podSelector", "matchLabels"}, "sequencer replicas"},
		{"NetworkPolicy", "test-rollup", []any{"spec", "ingress", 1, "from", 0, "podSelector", "matchLabels"}, "sequencer replicas job check test"},
	} {
		selector := at(o.get(t, c.kind, c.name), c.path...).(object)
		var have []string
		for _, name := range []string{"sequencer", "replicas", "job", "check", "test"} {
			if selects(selector, labels[name]) {
				have = append(have, name)
			}
		}
		assert.Equal(t, c.want, strings.Join(have, " "), "%s %s", c.kind, c.name)
	}
}

func selects(selector, labels object) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

func TestServices(t *testing.T) {
	o := render(t, "service: {port: 80, ipFamilies: [IPv6], ipFamilyPolicy: SingleStack}")
	headless := o.get(t, "Service", "test-rollup-headless")
	assert.Equal(t, "None", at(headless, "spec", "clusterIP"))
	assert.Equal(t, true, at(headless, "spec", "publishNotReadyAddresses"))
	for _, set := range o.kind("StatefulSet") {
		assert.Equal(t, "test-rollup-headless", at(set, "spec", "serviceName"))
	}
	for _, service := range o.kind("Service") {
		assert.Equal(t, []any{"IPv6"}, at(service, "spec", "ipFamilies"))
		assert.Equal(t, "SingleStack", at(service, "spec", "ipFamilyPolicy"))
	}
	// A Service that may be open to the world has no status.
	for _, name := range []string{"test-rollup", "test-rollup-sequencer"} {
		service := o.get(t, "Service", name)
		assert.Equal(t, []any{object{"name": "api", "port": 80, "targetPort": "api", "protocol": "TCP"}}, at(service, "spec", "ports"))
		assert.NotContains(t, service["spec"], "publishNotReadyAddresses")
	}
}

// At the time of the hook, the objects of the new release are not there: no ConfigMap, no Secret and no account of it.
func TestCheckRunsBeforeTheUpgradeWithItsOwnCopies(t *testing.T) {
	o := render(t, `
replicas: {replicaCount: 2}
plan: {inline: '{"versions": []}'}
configs: {v0: {inline: "a = 1"}, v1: {secret: mine}}
stopHeight: 7
`)
	for _, each := range o {
		hook := at(each, "metadata", "annotations", "helm.sh/hook")
		isCheck := strings.Contains(at(each, "metadata", "name").(string), "-check")
		assert.Equal(t, isCheck, hook == "pre-upgrade", each)
	}
	assert.Equal(t, o.get(t, "ConfigMap", "test-rollup-plan")["data"], o.get(t, "ConfigMap", "test-rollup-check-plan")["data"])
	spec := podSpec(o.get(t, "Job", "test-rollup-check-replicas"))
	assert.NotContains(t, spec, "serviceAccountName")
	assert.Equal(t, "Never", spec["restartPolicy"])
	names := map[any]any{}
	for _, volume := range spec["volumes"].([]any) {
		for _, name := range []any{at(volume, "configMap", "name"), at(volume, "secret", "secretName")} {
			names[name] = at(volume, "name")
		}
	}
	assert.Contains(t, names, "test-rollup-check-plan")
	assert.Contains(t, names, "test-rollup-check-replicas-configs")
	assert.Contains(t, names, "mine")
	for i, container := range spec["containers"].([]any) {
		url := fmt.Sprintf("--running=http://test-rollup-replicas-%d.test-rollup-headless:9848", i)
		assert.Equal(t, []any{"check", url}, at(container, "args"))
		assert.Equal(t, "7", environment(container.(object))["ENTRYPOINT_STOP_HEIGHT"])
		assert.NotContains(t, at(container, "volumeMounts"), object{"name": "data", "persistentVolumeClaim": nil})
	}
	assert.Len(t, spec["containers"], 2)
	assert.Len(t, podSpec(o.get(t, "Job", "test-rollup-check-sequencer"))["containers"], 1)
	assert.Equal(t, []any{"check", "--running=http://a:1", "--strict"},
		podSpec(render(t, "check: {urls: ['http://a:1'], strict: true}").get(t, "Job", "test-rollup-check-sequencer"))["containers"].([]any)[0].(object)["args"])
	assert.Empty(t, render(t, "check: {enabled: false}").kind("Job"))
	assert.Empty(t, render(t, "sequencer: {replicaCount: 0}").kind("Job"))
}

// A file that a version needs may be in a volume. A claim is that of the pod that runs.
func TestCheckHasTheMoreVolumesThatAreNoClaims(t *testing.T) {
	spec := podSpec(render(t, `
extraVolumes: [{name: more, configMap: {name: m}}, {name: disk, persistentVolumeClaim: {claimName: d}}]
extraVolumeMounts: [{name: more, mountPath: /more}, {name: disk, mountPath: /disk}]
`).get(t, "Job", "test-rollup-check-sequencer"))
	assert.Equal(t, []any{object{"name": "data", "emptyDir": object{}}, object{"name": "more", "configMap": object{"name": "m"}}}, spec["volumes"])
	assert.Equal(t, []any{object{"name": "data", "mountPath": "/data"}, object{"name": "more", "mountPath": "/more"}}, at(spec, "containers", 0, "volumeMounts"))
}

// Helm permits names that are no text in YAML, or no name of a Service.
func TestNameOfTheRelease(t *testing.T) {
	for _, name := range []string{"true", "a.b", strings.Repeat("a", 53)} {
		text, err := helm(t, "template", name, chart, "--kube-version", versions[1], "-f", named, "-f", valuesFile(t, "networkPolicy: {enabled: true}\nreplicas: {replicaCount: 2}"))
		require.NoError(t, err)
		out, err := kubeconform(t, versions[1], text)
		require.NoError(t, err, out)
		for _, o := range parse(t, text) {
			assert.Equal(t, name, at(o, "metadata", "labels", "app.kubernetes.io/instance"))
			if o["kind"] == "Service" || o["kind"] == "StatefulSet" {
				assert.Regexp(t, "^[a-z][-a-z0-9]{0,51}$", at(o, "metadata", "name"), "its pods have a label with 11 more characters")
			}
		}
	}
	_, err := helm(t, "template", "1a", chart, "--kube-version", versions[1], "-f", named)
	assert.ErrorContains(t, err, "): fullnameOverride is empty, and 1a-rollup")
}

func TestHelmTestAsksEachPod(t *testing.T) {
	pod := render(t, "replicas: {replicaCount: 2}").get(t, "Pod", "test-rollup-test")
	assert.Equal(t, "test", at(pod, "metadata", "annotations", "helm.sh/hook"))
	var asked []string
	for _, container := range at(pod, "spec", "containers").([]any) {
		assert.Equal(t, "status", at(container, "args", 0))
		asked = append(asked, at(container, "args", 1).(string))
	}
	assert.Equal(t, []string{
		"--listen=test-rollup-sequencer-0.test-rollup-headless:9848",
		"--listen=test-rollup-replicas-0.test-rollup-headless:9848",
		"--listen=test-rollup-replicas-1.test-rollup-headless:9848",
	}, asked)
}

func TestJobRunsOnTheClaimOfOnePod(t *testing.T) {
	o := render(t, "sequencer: {replicaCount: 0}\njob: {enabled: true, args: [checkpoint, set, --version, '1'], ordinal: 3}")
	spec := podSpec(o.get(t, "Job", "test-rollup-job-1"))
	assert.Equal(t, []any{"checkpoint", "set", "--version", "1"}, at(spec, "containers", 0, "args"))
	assert.Equal(t, "data-test-rollup-sequencer-3", at(spec, "volumes", 0, "persistentVolumeClaim", "claimName"))
	o = render(t, "sequencer: {replicaCount: 0}\nstorage: {existingClaim: mine}\njob: {enabled: true, args: [height]}")
	assert.Equal(t, "mine", at(podSpec(o.get(t, "Job", "test-rollup-job-1")), "volumes", 0, "persistentVolumeClaim", "claimName"))
}

func TestMonitors(t *testing.T) {
	assert.Empty(t, render(t, "{}").kind("ServiceMonitor"))
	o := render(t, monitoring)
	monitor := o.get(t, "ServiceMonitor", "test-rollup")
	assert.True(t, selects(at(monitor, "spec", "selector", "matchLabels").(object), at(o.get(t, "Service", "test-rollup-headless"), "metadata", "labels").(object)))
	for _, name := range []string{"test-rollup", "test-rollup-sequencer"} {
		assert.False(t, selects(at(monitor, "spec", "selector", "matchLabels").(object), at(o.get(t, "Service", name), "metadata", "labels").(object)),
			"a pod would be scraped twice")
	}
	rules := o.get(t, "PrometheusRule", "test-rollup")
	assert.Equal(t, "b", at(rules, "metadata", "labels", "a"))
	var groups []any
	for _, file := range []string{"rules.yml", "kubernetes-rules.yml"} {
		groups = append(groups, readYAML(t, filepath.Join(chart, "files", file))["groups"].([]any)...)
	}
	assert.Equal(t, groups, at(rules, "spec", "groups"))
	dashboard, err := os.ReadFile(filepath.Join(chart, "files/dashboard.json"))
	require.NoError(t, err)
	have := o.get(t, "ConfigMap", "test-rollup-dashboard")
	assert.JSONEq(t, string(dashboard), at(have, "data", "rollup-entrypoint.json").(string))
	assert.Equal(t, "1", at(have, "metadata", "labels", "grafana_dashboard"))
}

// Somebody who renders with 'helm template' and applies the result would lose an object without a word.
func TestNothingDependsOnWhatTheClusterHas(t *testing.T) {
	err := filepath.WalkDir(filepath.Join(chart, "templates"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		assert.NotContains(t, string(text), "Capabilities", path)
		// The check asks how many pods there are now.
		if entry.Name() != "check.yaml" {
			assert.NotContains(t, string(text), "lookup", path)
		}
		return err
	})
	require.NoError(t, err)
	assert.NoDirExists(t, filepath.Join(chart, "charts"))
	assert.NotContains(t, readYAML(t, filepath.Join(chart, "Chart.yaml")), "dependencies")
}

// Helm prints the notes only where there is a cluster. Here they are the data of an object.
func TestNotesSayHowToWatch(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "rollup")
	require.NoError(t, os.CopyFS(copied, os.DirFS(chart)))
	notes, err := os.ReadFile(filepath.Join(copied, "templates/NOTES.txt"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(copied, "templates/notes.yaml"), []byte(
		"{{ define \"notes\" }}"+string(notes)+"{{ end }}\napiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ntext: {{ include \"notes\" . | toJson }}\n"), 0o644))
	render := func(values string) string {
		text, err := templateOf(t, copied, "-f", named, "-f", valuesFile(t, values))
		require.NoError(t, err)
		return parse(t, text).get(t, "Notes", "notes")["text"].(string)
	}
	text := render("{}")
	for _, want := range []string{
		"exec test-rollup-sequencer-0 -- /entrypoint status\n", "helm -n chain test test\n",
		"kubectl -n chain logs test-rollup-test --all-containers --prefix\n", "longer than 300 s", "halt ends every start",
		"podManagementPolicy is Parallel", "io_uring", "rollout status statefulset/test-rollup-sequencer\n",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "test-rollup-replicas")
	assert.NotRegexp(t, regexp.MustCompile(`\n\n\n`), text)
	assert.Contains(t, render("podManagementPolicy: OrderedReady"), "podManagementPolicy is OrderedReady")
	both := render("replicas: {replicaCount: 1, podManagementPolicy: OrderedReady}")
	assert.Contains(t, both, "podManagementPolicy is OrderedReady")
	assert.Contains(t, both, "podManagementPolicy is Parallel")
	assert.NotContains(t, render("replicas: {podManagementPolicy: OrderedReady}"), "OrderedReady", "it has no pod")
	assert.Contains(t, render("stopHeight: 12345678"), "stopHeight 12345678.")
	stopped := render("sequencer: {replicaCount: 0}\njob: {enabled: true, args: [checkpoint, show]}")
	assert.Contains(t, stopped, "Every node is stopped")
	assert.Contains(t, stopped, "'entrypoint checkpoint show' once")
	assert.Contains(t, render("sequencer: {replicaCount: 0}\nreplicas: {replicaCount: 1}"), "exec test-rollup-replicas-0")
}
