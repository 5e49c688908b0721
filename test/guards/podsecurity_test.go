package guards

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// object is one of YAML, of which JSON is a part.
type object = map[string]any

var (
	yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	overrides = regexp.MustCompile(`(?s)--overrides='(.*?)'`)
	// volumesAllowed are those of the Kubernetes standard "restricted".
	volumesAllowed = []string{"name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
)

// Many clusters admit only pods that keep to the standard "restricted" of Pod Security, so each pod in the docs does.
func TestPodsInTheDocsAreRestricted(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	found := map[string]int{}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, block := range append(yamlBlock.FindAllStringSubmatch(string(text), -1), overrides.FindAllStringSubmatch(string(text), -1)...) {
			decoder := yaml.NewDecoder(strings.NewReader(block[1]))
			for {
				var document any
				if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("%s: %s\n%s", page, err, block[1])
				}
				eachPod(document, func(pod object) {
					found[filepath.Base(page)]++
					assert.Empty(t, unrestricted(pod), "%s:\n%s", page, block[1])
				})
			}
		}
	}
	assert.NotEmpty(t, found)
}

// eachPod calls see with each spec of a pod in a document.
func eachPod(value any, see func(pod object)) {
	switch value := value.(type) {
	case object:
		if _, is := value["containers"].([]any); is {
			see(value)
			return
		}
		for _, v := range value {
			eachPod(v, see)
		}
	case []any:
		for _, v := range value {
			eachPod(v, see)
		}
	}
}

// unrestricted says in what a pod breaks the standard "restricted".
func unrestricted(pod object) (problems []string) {
	ofPod, _ := pod["securityContext"].(object)
	containers, _ := pod["containers"].([]any)
	first, _ := pod["initContainers"].([]any)
	for _, c := range slices.Concat(first, containers) {
		container, _ := c.(object)
		context, _ := container["securityContext"].(object)
		inherited := func(key string) any {
			if own, set := context[key]; set {
				return own
			}
			return ofPod[key]
		}
		capabilities, _ := context["capabilities"].(object)
		drop, _ := capabilities["drop"].([]any)
		seccomp, _ := inherited("seccompProfile").(object)
		for problem, is := range map[string]bool{
			"allowPrivilegeEscalation is not false":             context["allowPrivilegeEscalation"] != false,
			"capabilities.drop has no ALL":                      !slices.Contains(drop, any("ALL")),
			"runAsNonRoot is not true":                          inherited("runAsNonRoot") != true,
			"seccompProfile is not RuntimeDefault or Localhost": seccomp["type"] != "RuntimeDefault" && seccomp["type"] != "Localhost",
			"runAsUser is 0":                                    inherited("runAsUser") == 0,
			"privileged is true":                                context["privileged"] == true,
		} {
			if is {
				problems = append(problems, problem)
			}
		}
	}
	for _, key := range []string{"hostNetwork", "hostPID", "hostIPC"} {
		if pod[key] == true {
			problems = append(problems, key+" is true")
		}
	}
	volumes, _ := pod["volumes"].([]any)
	for _, v := range volumes {
		volume, _ := v.(object)
		for key := range volume {
			if !slices.Contains(volumesAllowed, key) {
				problems = append(problems, "a volume is a "+key)
			}
		}
	}
	return problems
}

// The check itself must be able to fail.
func TestUnrestrictedPodsAreSeen(t *testing.T) {
	good := func() object {
		return object{
			"securityContext": object{"runAsNonRoot": true, "seccompProfile": object{"type": "RuntimeDefault"}},
			"containers":      []any{object{"securityContext": object{"allowPrivilegeEscalation": false, "capabilities": object{"drop": []any{"ALL"}}}}},
			"volumes":         []any{object{"name": "data", "persistentVolumeClaim": object{}}},
		}
	}
	assert.Empty(t, unrestricted(good()))
	for name, spoil := range map[string]func(pod, container object){
		"no context of the pod":       func(pod, _ object) { delete(pod, "securityContext") },
		"no context of the container": func(_, c object) { delete(c, "securityContext") },
		"root":                        func(_, c object) { c["securityContext"].(object)["runAsNonRoot"] = false },
		"unconfined":                  func(_, c object) { c["securityContext"].(object)["seccompProfile"] = object{"type": "Unconfined"} },
		"host path":                   func(pod, _ object) { pod["volumes"] = []any{object{"name": "x", "hostPath": object{}}} },
		"host network":                func(pod, _ object) { pod["hostNetwork"] = true },
		"an init container":           func(pod, _ object) { pod["initContainers"] = []any{object{}} },
	} {
		pod := good()
		spoil(pod, pod["containers"].([]any)[0].(object))
		assert.NotEmpty(t, unrestricted(pod), name)
	}
}
