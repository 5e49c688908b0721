package charttest

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What Pod Security "restricted" asks for, and what the chart promises beyond that, for every pod it can make.
func TestEveryPodIsRestricted(t *testing.T) {
	var kinds []string
	for _, file := range valueFiles(t) {
		text, err := templateOf(t, chart, "-f", file)
		require.NoError(t, err)
		for _, o := range parse(t, text) {
			if spec := podSpec(o); spec != nil {
				kinds = append(kinds, o["kind"].(string))
				name := filepath.Base(file) + " " + at(o, "metadata", "name").(string)
				assertRestricted(t, name, spec)
			}
		}
	}
	for _, kind := range []string{"StatefulSet", "Job", "Pod"} {
		assert.Contains(t, kinds, kind)
	}
}

func assertRestricted(t *testing.T, name string, spec object) {
	t.Helper()
	assert.Equal(t, true, at(spec, "securityContext", "runAsNonRoot"), name)
	assert.Contains(t, []any{"RuntimeDefault", "Localhost"}, at(spec, "securityContext", "seccompProfile", "type"), name)
	assert.Equal(t, false, spec["automountServiceAccountToken"], name)
	assert.Equal(t, false, spec["enableServiceLinks"], name)
	for _, key := range []string{"initContainers", "hostNetwork", "hostPID", "hostIPC"} {
		assert.NotContains(t, spec, key, name)
	}
	volumes, _ := spec["volumes"].([]any)
	for _, volume := range volumes {
		assert.NotContains(t, volume, "hostPath", name)
	}
	containers := spec["containers"].([]any)
	assert.NotEmpty(t, containers, name)
	for _, container := range containers {
		want := object{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": object{"drop": []any{"ALL"}}}
		assert.Equal(t, want, at(container, "securityContext"), name)
		assert.Contains(t, at(container, "image"), "registry.example.org/my-rollup", "%s: a helper image", name)
		assert.NotContains(t, container, "command", "%s: the image has the entrypoint", name)
	}
}

func TestIDsCanBeLeftToTheCluster(t *testing.T) {
	o := render(t, "{}")
	context := at(o.get(t, "StatefulSet", "test-rollup-sequencer"), "spec", "template", "spec", "securityContext").(object)
	for _, key := range []string{"runAsUser", "runAsGroup", "fsGroup"} {
		assert.Equal(t, 65532, context[key])
		for _, each := range render(t, "podSecurityContext: {"+key+": null}") {
			if spec := podSpec(each); spec != nil {
				assert.NotContains(t, spec["securityContext"], key)
			}
		}
	}
	assert.Equal(t, "OnRootMismatch", context["fsGroupChangePolicy"])
	// As OpenShift gives them: Helm must not print them as 1.00068e+09.
	text, err := template(t, "-f", valuesFile(t, "podSecurityContext: {runAsUser: 1000680000}"))
	require.NoError(t, err)
	assert.Contains(t, text, "runAsUser: 1000680000\n")
}

func TestPodHasLongerToStopThanItsNode(t *testing.T) {
	for _, o := range []objects{render(t, "{}"), render(t, "stopSeconds: 900")} {
		spec := podSpec(o.get(t, "StatefulSet", "test-rollup-sequencer"))
		grace := spec["terminationGracePeriodSeconds"]
		timeout := environment(o.container(t, "sequencer"))["ENTRYPOINT_STOP_TIMEOUT"]
		assert.Equal(t, map[any]string{315: "300s", 915: "900s"}[grace], timeout)
	}
}

func TestArgumentsOfTheNodeComeLast(t *testing.T) {
	o := render(t, "extraArgs: [--log-level=debug]\nnodeArgs: [--a, 'b c']\nreplicas: {nodeArgs: []}")
	assert.Equal(t, []any{"run", "--log-level=debug", "--", "--a", "b c"}, o.container(t, "sequencer")["args"])
	assert.Equal(t, []any{"run", "--log-level=debug"}, o.container(t, "replicas")["args"])
}

func TestEnvironment(t *testing.T) {
	assert.Equal(t, map[string]string{
		"ENTRYPOINT_LISTEN": ":9848", "ENTRYPOINT_STOP_TIMEOUT": "300s", "ENTRYPOINT_UNDO": "auto", "ENTRYPOINT_NOFILE": "65536",
		"ENTRYPOINT_WHEN_FINISHED": "wait", "NO_COLOR": "1",
	}, environment(render(t, "{}").container(t, "sequencer")))
	assert.Equal(t, map[string]string{
		"ENTRYPOINT_LISTEN": ":1", "ENTRYPOINT_STOP_TIMEOUT": "30s", "ENTRYPOINT_UNDO": "off", "ENTRYPOINT_NOFILE": "0",
		"ENTRYPOINT_WHEN_FINISHED": "exit", "NO_COLOR": "1", "ENTRYPOINT_STOP_HEIGHT": "1234567890123", "A": "b",
		"ENTRYPOINT_CONFIG": "/etc/rollup/plan/manager.json",
	}, environment(render(t, `
ports: {status: 1}
stopSeconds: 30
undo: "off"
nofile: 0
whenFinished: exit
stopHeight: 1234567890123
extraEnv: [{name: A, value: b}]
plan: {configMap: plan}
`).container(t, "sequencer")))
}

func TestProbesAskTheEntrypoint(t *testing.T) {
	o := render(t, "{}")
	for set, ready := range map[string]string{"sequencer": "/readyz?role=leader", "replicas": "/readyz"} {
		container := o.container(t, set)
		assert.Equal(t, object{"path": "/healthz", "port": "status"}, at(container, "livenessProbe", "httpGet"))
		assert.Equal(t, object{"path": ready, "port": "status"}, at(container, "readinessProbe", "httpGet"))
		assert.NotContains(t, container, "startupProbe")
	}
	o = render(t, "diagnosticProbes: true")
	assert.Equal(t, []any{"/entrypoint", "healthcheck"}, at(o.container(t, "replicas"), "livenessProbe", "exec", "command"))
	assert.Equal(t, []any{"/entrypoint", "healthcheck", "--ready"}, at(o.container(t, "replicas"), "readinessProbe", "exec", "command"))
	// The command cannot ask for a role, and a replica is no ready leader.
	assert.Equal(t, "/readyz?role=leader", at(o.container(t, "sequencer"), "readinessProbe", "httpGet", "path"))
}

func TestMemoryIsReserved(t *testing.T) {
	for values, want := range map[string]object{
		"{}":                                   {"limits": object{"memory": "8Gi"}, "requests": object{"cpu": "1", "memory": "8Gi"}},
		"resources: {limits: {memory: 2Gi}}":   {"limits": object{"memory": "2Gi"}, "requests": object{"cpu": "1", "memory": "2Gi"}},
		"resources: {requests: {memory: 1Gi}}": {"limits": object{"memory": "8Gi"}, "requests": object{"cpu": "1", "memory": "1Gi"}},
		"sequencer: {resources: {limits: {memory: 3Gi}}}": {"limits": object{"memory": "3Gi"}, "requests": object{"cpu": "1", "memory": "3Gi"}},
		"resources: {requests: null, limits: null}":       {},
	} {
		assert.Equal(t, want, render(t, values).container(t, "sequencer")["resources"], values)
	}
}

func TestImageByTagOrDigest(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for values, want := range map[string][2]any{
		"{}":                                {"registry.example.org/my-rollup:v1", "v1"},
		"image: {digest: '" + digest + "'}": {"registry.example.org/my-rollup@" + digest, "v1"},
		"image: {tag: '', digest: '" + digest + "'}":      {"registry.example.org/my-rollup@" + digest, nil},
		"sequencer: {image: {tag: v2}}":                   {"registry.example.org/my-rollup:v2", "v2"},
		"image: {tag: " + strings.Repeat("a", 62) + ".b}": {"registry.example.org/my-rollup:" + strings.Repeat("a", 62) + ".b", strings.Repeat("a", 62)},
	} {
		o := render(t, values)
		assert.Equal(t, want[0], o.container(t, "sequencer")["image"], values)
		set := o.get(t, "StatefulSet", "test-rollup-sequencer")
		assert.Equal(t, want[1], at(set, "spec", "template", "metadata", "labels", "app.kubernetes.io/version"), values)
	}
	assert.Equal(t, "registry.example.org/my-rollup:v1", render(t, "sequencer: {image: {tag: v2}}").container(t, "replicas")["image"])
}

// A value of a set wins over the shared one, also if it is false, empty or zero.
func TestSetsOverrideSharedValues(t *testing.T) {
	o := render(t, `
updateStrategy: {partition: 2}
podLabels: {a: shared, b: shared}
nodeSelector: {x: shared}
extraArgs: [--log-level=debug]
tolerations: [{key: a}]
replicas:
  updateStrategy: {partition: 0}
  podLabels: {b: own}
  nodeSelector: {z: own}
  extraArgs: []
  tolerations: [{key: b}]
  storage: {size: 1Gi}
`)
	sequencer, replicas := o.get(t, "StatefulSet", "test-rollup-sequencer"), o.get(t, "StatefulSet", "test-rollup-replicas")
	for _, c := range []struct {
		path                []any
		sequencer, replicas any
	}{
		{[]any{"spec", "updateStrategy", "rollingUpdate", "partition"}, 2, 0},
		{[]any{"spec", "template", "metadata", "labels", "a"}, "shared", "shared"},
		{[]any{"spec", "template", "metadata", "labels", "b"}, "shared", "own"},
		{[]any{"spec", "template", "spec", "nodeSelector"}, object{"x": "shared"}, object{"x": "shared", "z": "own"}},
		{[]any{"spec", "template", "spec", "tolerations"}, []any{object{"key": "a"}}, []any{object{"key": "b"}}},
		{[]any{"spec", "template", "spec", "containers", 0, "args"}, []any{"run", "--log-level=debug"}, []any{"run"}},
		{[]any{"spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage"}, "100Gi", "1Gi"},
	} {
		assert.Equal(t, c.sequencer, at(sequencer, c.path...), c.path)
		assert.Equal(t, c.replicas, at(replicas, c.path...), c.path)
	}
}

func TestConfigsAreMountedOneByOne(t *testing.T) {
	o := render(t, `
plan: {configMap: my-plan, key: p.json}
configs:
  v0: {secret: s}
  v1_A.b: {configMap: c, key: k, writableFolder: true}
  v2: {inline: "x = 1"}
`)
	spec := podSpec(o.get(t, "StatefulSet", "test-rollup-sequencer"))
	file := func(key string) []any { return []any{object{"key": key, "path": "config.toml"}} }
	assert.Equal(t, []any{
		object{"name": "plan", "configMap": object{"name": "my-plan", "items": []any{object{"key": "p.json", "path": "manager.json"}}}},
		object{"name": "config-v0", "secret": object{"secretName": "s", "items": file("config.toml")}},
		object{"name": "config-v1-a-b", "configMap": object{"name": "c", "items": file("k")}},
		object{"name": "config-v1-a-b-folder", "emptyDir": object{}},
		object{"name": "config-v2", "secret": object{"secretName": "test-rollup-sequencer-configs", "items": file("v2.toml")}},
	}, spec["volumes"])
	mount := func(name, path string) object {
		return object{"name": name, "mountPath": path, "subPath": "config.toml", "readOnly": true}
	}
	assert.Equal(t, []any{
		object{"name": "data", "mountPath": "/data"},
		object{"name": "plan", "mountPath": "/etc/rollup/plan", "readOnly": true},
		mount("config-v0", "/etc/rollup/configs/v0/config.toml"),
		object{"name": "config-v1-a-b-folder", "mountPath": "/etc/rollup/configs/v1_A.b"},
		mount("config-v1-a-b", "/etc/rollup/configs/v1_A.b/config.toml"),
		mount("config-v2", "/etc/rollup/configs/v2/config.toml"),
	}, at(spec, "containers", 0, "volumeMounts"))
	assert.Equal(t, object{"v2.toml": "x = 1"}, o.get(t, "Secret", "test-rollup-sequencer-configs")["stringData"])
}

// A plan may be an array of versions, or an object.
func TestInlinePlanIsPassedOnAsItIs(t *testing.T) {
	for _, plan := range []string{`[{"rollup_binary": "a"}]`, `{"versions": []}`, "  {\n \"versions\": []\n}\n"} {
		quoted, err := json.Marshal(plan)
		require.NoError(t, err)
		o := render(t, "plan: {inline: "+string(quoted)+"}")
		assert.Equal(t, plan, at(o.get(t, "ConfigMap", "test-rollup-plan"), "data", "manager.json"))
	}
}

// A config that a set gives replaces the shared one: it is not both a Secret and a ConfigMap.
func TestConfigOfASetReplacesTheSharedOne(t *testing.T) {
	o := render(t, "configs: {v0: {secret: s, writableFolder: true}, v1: {secret: t}}\nreplicas: {configs: {v0: {configMap: c}}}")
	volumes := podSpec(o.get(t, "StatefulSet", "test-rollup-replicas"))["volumes"].([]any)
	require.Len(t, volumes, 2)
	assert.Equal(t, "c", at(volumes[0], "configMap", "name"))
	assert.Equal(t, "t", at(volumes[1], "secret", "secretName"))
}

// Nothing is mounted over what the image holds.
func TestImageFilesStayVisible(t *testing.T) {
	for _, file := range valueFiles(t) {
		text, err := templateOf(t, chart, "-f", file)
		require.NoError(t, err)
		for _, o := range parse(t, text) {
			containers, _ := podSpec(o)["containers"].([]any)
			for _, container := range containers {
				mounts, _ := at(container, "volumeMounts").([]any)
				for _, mount := range mounts {
					assert.False(t, strings.HasPrefix(at(mount, "mountPath").(string), "/opt"), file)
				}
			}
		}
	}
}

func TestConfigChangeRestartsPodsOnlyIfAskedTo(t *testing.T) {
	template := func(plan, config, more string) any {
		o := render(t, "plan: {inline: '{\"a\": \""+plan+"\"}'}\nconfigs: {v0: {inline: '"+config+"'}}\n"+more)
		return at(o.get(t, "StatefulSet", "test-rollup-sequencer"), "spec", "template")
	}
	assert.Equal(t, template("a", "b", ""), template("c", "d", ""))
	const restart = "restartOnConfigChange: true\n"
	same := template("a", "b", restart)
	assert.Equal(t, same, template("a", "b", restart+"labels: {x: z}\nannotations: {x: z}\n"))
	assert.NotEqual(t, same, template("c", "b", restart))
	assert.NotEqual(t, same, template("a", "d", restart))
}

func TestExistingClaimReplacesTheTemplate(t *testing.T) {
	set := render(t, "storage: {existingClaim: mine}").get(t, "StatefulSet", "test-rollup-sequencer")
	assert.NotContains(t, set["spec"], "volumeClaimTemplates")
	volumes := podSpec(set)["volumes"].([]any)
	assert.True(t, slices.ContainsFunc(volumes, func(v any) bool {
		return at(v, "name") == "data" && at(v, "persistentVolumeClaim", "claimName") == "mine"
	}))
}

// Not even a set of none: a lower replicaCount or an uninstall keeps the states.
func TestClaimsAreRetained(t *testing.T) {
	for _, set := range render(t, "{}").kind("StatefulSet") {
		assert.Equal(t, object{"whenDeleted": "Retain", "whenScaled": "Retain"}, at(set, "spec", "persistentVolumeClaimRetentionPolicy"))
		assert.Equal(t, "Parallel", at(set, "spec", "podManagementPolicy"))
	}
}
