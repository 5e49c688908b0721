package charttest

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func readYAML(t *testing.T, path string) (content object) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &content))
	return content
}

// leaves gives the path of each leaf of values: what is no map, or an empty one.
func leaves(values object, path ...string) (found [][]string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		here := append(slices.Clone(path), key)
		if inner, isMap := values[key].(object); isMap && len(inner) > 0 {
			found = append(found, leaves(inner, here...)...)
		} else {
			found = append(found, here)
		}
	}
	return found
}

func readSchema(t *testing.T) (schema object) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &schema))
	return schema
}

func TestEachMisspeltValueIsRefused(t *testing.T) {
	paths := leaves(readYAML(t, filepath.Join(chart, "values.yaml")))
	require.Greater(t, len(paths), 100)
	// A set has the keys that it may override too.
	ofSet := at(readSchema(t), "$defs", "set", "properties").(object)
	for _, path := range slices.Clone(paths) {
		if ofSet[path[0]] != nil {
			paths = append(paths, append([]string{"sequencer"}, path...))
		}
	}
	for _, path := range paths {
		t.Run(strings.Join(path, "."), func(t *testing.T) {
			t.Parallel()
			// The labels of the dashboard may have any name.
			if slices.Equal(path[:len(path)-1], []string{"metrics", "dashboard", "labels"}) {
				path = path[:len(path)-1]
			}
			misspelt := path[len(path)-1] + "x"
			wrong, _ := json.Marshal(nest(path[:len(path)-1], misspelt))
			_, err := template(t, "-f", valuesFile(t, string(wrong)))
			assert.ErrorContains(t, err, "additional properties '"+misspelt+"' not allowed")
		})
	}
}

// nest gives the values in which a key is set below a path.
func nest(path []string, key string) object {
	if len(path) == 0 {
		return object{key: ""}
	}
	return object{path[0]: nest(path[1:], key)}
}

// Only what the chart passes on as it is may have keys that the schema does not know.
func TestSchemaIsClosedAtEveryLevel(t *testing.T) {
	open := map[string]bool{"/$defs/kubernetesObject": true, "/properties/global": true, "/properties/extraObjects/items": true}
	found := map[string]bool{}
	var walk func(path string, schema any)
	walk = func(path string, schema any) {
		switch s := schema.(type) {
		case object:
			if s["type"] == "object" || s["properties"] != nil {
				rest, isSchema := s["additionalProperties"].(object)
				if s["additionalProperties"] == true {
					found[path] = true
				} else {
					assert.True(t, s["additionalProperties"] == false || isSchema && len(rest) > 0, "%s is open", path)
				}
			} else if s["additionalProperties"] == true {
				found[path] = true
			}
			for key, value := range s {
				walk(path+"/"+key, value)
			}
		case []any:
			for _, value := range s {
				walk(path, value)
			}
		}
	}
	walk("", readSchema(t))
	assert.Equal(t, open, found)
}

// A key that is only in the schema would be accepted and ignored.
func TestSchemaHasTheKeysOfTheValues(t *testing.T) {
	schema := readSchema(t)
	values := readYAML(t, filepath.Join(chart, "values.yaml"))
	assert.ElementsMatch(t, slices.Collect(maps.Keys(values)), slices.Collect(maps.Keys(schema["properties"].(object))))
	for key := range at(schema, "$defs", "set", "properties").(object) {
		if key != "replicaCount" && key != "readyRole" {
			assert.Contains(t, values, key)
		}
	}
}

func TestValuesOfTheWrongKindAreRefused(t *testing.T) {
	for values, want := range map[string]string{
		"stopSeconds: 29":                                 "/stopSeconds",
		"stopHeight: 0":                                   "/stopHeight",
		"undo: yes":                                       "/undo",
		"image: {tag: 1.10}":                              "/image/tag",
		"image: {digest: 0123}":                           "/image/digest",
		"podSecurityContext: {runAsUser: 0}":              "/podSecurityContext/runAsUser",
		"seccomp: {type: Unconfined}":                     "/seccomp/type",
		"podDisruptionBudget: {maxUnavailable: 0}":        "/podDisruptionBudget/maxUnavailable",
		"sequencer: {readyRole: replica}":                 "/sequencer/readyRole",
		"configs: {v0: {secrets: x}}":                     "/configs/v0",
		"extraEnv: [{name: A, valu: b}]":                  "/extraEnv/0",
		"resources: {limits: {memry: 1Gi}}":               "/resources/limits",
		"fullnameOverride: " + strings.Repeat("a", 43):    "/fullnameOverride",
		"check: {urls: [\"https://example.org/status\"]}": "/check/urls/0",
	} {
		_, err := template(t, "-f", valuesFile(t, values))
		assert.ErrorContains(t, err, "at '"+want+"'", values)
	}
}

// Each message begins with the key that has to be changed.
func TestContradictionsNameTheKey(t *testing.T) {
	for values, want := range map[string]string{
		"image: {repository: ''}":                                                   "image.repository is empty",
		"image: {tag: ''}":                                                          "image.tag and image.digest are both empty",
		"replicas: {image: {tag: ''}}":                                              "image.tag and image.digest are both empty",
		"plan: {configMap: a, inline: '{}'}":                                        "plan.configMap and plan.inline are both set",
		"plan: {inline: '{'}":                                                       "plan.inline is not the JSON of a plan: ",
		"plan: {inline: '[{]'}":                                                     "plan.inline is not the JSON of a plan: ",
		"plan: {inline: 'versions'}":                                                "plan.inline is not the JSON of a plan: ",
		"configs: {v0: {}}":                                                         "configs.v0: want one of",
		"configs: {v0: {secret: a, configMap: b}}":                                  "configs.v0: want one of",
		"configs: {v0: {inline: a, key: b}}":                                        "configs.v0.key is set",
		"seccomp: {type: Localhost}":                                                "seccomp.localhostProfile is empty",
		"seccomp: {localhostProfile: a.json}":                                       "seccomp.localhostProfile is set",
		"service: {externalTrafficPolicy: Local}":                                   "service.externalTrafficPolicy is set",
		"service: {loadBalancerClass: a}":                                           "service.loadBalancerClass is set",
		"service: {ipFamilyPolicy: SingleStack, ipFamilies: [IPv4, IPv6]}":          "service.ipFamilyPolicy is SingleStack",
		"metrics: {serviceMonitor: {enabled: true}, podMonitor: {enabled: true}}":   "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled",
		"ports: {api: 9848}":                                                        "ports.api and ports.status are both 9848",
		"sequencer: {replicaCount: 2}":                                              "sequencer.readyRole is leader with sequencer.replicaCount 2",
		"replicas: {replicaCount: 3, readyRole: leader}":                            "replicas.readyRole is leader with replicas.replicaCount 3",
		"updateStrategy: {type: OnDelete, partition: 1}":                            "updateStrategy.partition is set",
		"storage: {existingClaim: a}\nsequencer: {replicaCount: 2, readyRole: any}": "storage.existingClaim is set with sequencer.replicaCount 2",
		"storage: {existingClaim: a}\nreplicas: {replicaCount: 1}":                  "replicas.storage.existingClaim is a",
		"storage: {existingClaim: a, dataSource: {kind: VolumeSnapshot, name: b}}":  "storage.existingClaim and storage.dataSource",
		"storage: {dataSource: {name: b}}":                                          "storage.dataSource needs kind and name",
		"restartOnConfigChange: true":                                               "restartOnConfigChange is true",
		"restartOnConfigChange: true\nplan: {configMap: a}":                         "restartOnConfigChange is true",
		"job: {enabled: true, args: []}\nsequencer: {replicaCount: 0}":              "job.args is empty",
		"job: {enabled: true, args: [height]}":                                      "sequencer.replicaCount is not 0",
		"extraEnv: [{name: ENTRYPOINT_STOP_TIMEOUT, value: 10s}]":                   "extraEnv: ENTRYPOINT_STOP_TIMEOUT is set by stopSeconds",
		"replicas: {extraEnv: [{name: NO_COLOR}]}":                                  "extraEnv: NO_COLOR is set by the chart",
		"plan: {configMap: a}\nextraEnv: [{name: ENTRYPOINT_CONFIG, value: /a}]":    "extraEnv: ENTRYPOINT_CONFIG is set by plan",
		"extraArgs: [--listen=127.0.0.1:1]":                                         "extraArgs: --listen is set by ports.status",
		"extraArgs: [--stop-timeout, 10s]":                                          "extraArgs: --stop-timeout is set by stopSeconds",
		"labels: {app.kubernetes.io/component: a}":                                  "labels: app.kubernetes.io/component is set by the chart",
		"metrics: {podMonitor: {labels: {app.kubernetes.io/name: a}}}":              "metrics.podMonitor.labels: app.kubernetes.io/name is set by the chart",
		"podLabels: {app.kubernetes.io/version: a}":                                 "podLabels: app.kubernetes.io/version is set by the chart",
		"podAnnotations: {checksum/config: a}":                                      "podAnnotations: checksum/config is set by the chart",
		"configs: {v1.2: {secret: a}, v1-2: {secret: b}}":                           "configs: two of the names v1-2, v1.2 make the same volume",
		"configs: {v0: {secret: a, writableFolder: true}, v0-folder: {secret: b}}":  "configs: two of the names v0, v0-folder make the same volume",
		"replicas: {extraVolumes: [{name: data, emptyDir: {}}]}":                    "extraVolumes: data is the name of a volume of the chart",
		"configs: {v0: {secret: a}}\nextraVolumes: [{name: config-v0}]":             "extraVolumes: config-v0 is the name of a volume of the chart",
		"extraArgs: [-c, /a]":                                                       "extraArgs: -c is not for run alone",
		"extraArgs: [--manifest=/a]":                                                "extraArgs: --manifest is not for run alone",
		"storage: {existingClaim: a}\nsequencer: {replicaCount: 0}\njob: {enabled: true, args: [height], ordinal: 1}": "job.ordinal is 1",
		"extraArgs: [--]": "extraArgs: -- begins the node's arguments",
	} {
		_, err := template(t, "-f", valuesFile(t, values))
		assert.ErrorContains(t, err, "): "+want, values)
	}
}
