// Schemas writes the JSON Schemas that kubeconform compares the chart's objects with: one folder for each version of
// Kubernetes that is named, and one for Prometheus Operator. It takes them from the Go modules of these projects, and
// keeps the kinds that the chart makes, without their descriptions. Run it from the root of the repository, for a newer
// version of Kubernetes:
//
//	go run ./test/charttest/schemas -operator v0.85.0 v1.29.6 v1.37.2
//
// A key that the API does not have is an error, and an optional one may be null, as with the API server.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// out is where the test looks for the schemas.
const out = "test/charttest/testdata/schemas"

// definitionsFile has what the kinds of a version refer to.
const definitionsFile = "definitions.json"

// kinds are the kinds of Kubernetes that the chart makes.
var kinds = []string{
	"ConfigMap", "Job", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "Secret", "Service",
	"ServiceAccount", "StatefulSet",
}

// operatorKinds are the kinds of Prometheus Operator that the chart makes.
var operatorKinds = []string{"podmonitors", "prometheusrules", "servicemonitors"}

type object = map[string]any

func main() {
	operator := flag.String("operator", "", "version of Prometheus Operator")
	flag.Parse()
	for _, version := range flag.Args() {
		exitOn(kubernetes(version))
	}
	if *operator != "" {
		exitOn(prometheusOperator(*operator))
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "schemas: %v\n", err)
		os.Exit(1)
	}
}

// module gives the folder with the files of a module. It is not a dependency: only these files of it are read.
func module(name string) (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", name)
	cmd.Dir = os.TempDir() // outside of this module
	answer, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(answer, &m); jsonErr != nil || m.Dir == "" {
		return "", fmt.Errorf("go mod download %s: %s %w", name, m.Error, err)
	}
	return m.Dir, nil
}

// kubernetes writes the schemas of one version.
func kubernetes(version string) error {
	dir, err := module("k8s.io/kubernetes@" + version)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, "api/openapi-spec/swagger.json"))
	if err != nil {
		return fmt.Errorf("cannot read the API of %s: %w", version, err)
	}
	var api struct{ Definitions map[string]object }
	if err := json.Unmarshal(text, &api); err != nil {
		return fmt.Errorf("the API of %s: %w", version, err)
	}
	// v1.29.6 is in the folder v1.29.
	folder := filepath.Join(out, version[:strings.LastIndexByte(version, '.')])
	used := map[string]any{}
	for name, definition := range api.Definitions {
		for _, kind := range groupVersionKinds(definition) {
			if !slices.Contains(kinds, kind.Kind) || strings.Contains(kind.Version, "alpha") || strings.Contains(kind.Version, "beta") {
				continue
			}
			collect(api.Definitions, name, used)
			if err := write(folder, kind.file(), object{"$ref": definitionsFile + "#/definitions/" + name}); err != nil {
				return err
			}
		}
	}
	return write(folder, definitionsFile, object{"definitions": used})
}

type groupVersionKind struct{ Group, Version, Kind string }

// file is the name that kubeconform looks for: {{.ResourceKind}}{{.KindSuffix}}.json.
func (k groupVersionKind) file() string {
	group, _, _ := strings.Cut(k.Group, ".")
	if group != "" {
		group += "-"
	}
	return strings.ToLower(k.Kind + "-" + group + k.Version + ".json")
}

func groupVersionKinds(definition object) (kinds []groupVersionKind) {
	text, _ := json.Marshal(definition["x-kubernetes-group-version-kind"])
	_ = json.Unmarshal(text, &kinds)
	return kinds
}

// collect puts a definition, and those that it refers to, into used.
func collect(definitions map[string]object, name string, used map[string]any) {
	if used[name] != nil {
		return
	}
	definition := definitions[name]
	switch {
	case strings.HasSuffix(name, ".api.resource.Quantity"):
		definition = object{"type": []any{"string", "number"}}
	case strings.HasSuffix(name, ".util.intstr.IntOrString"):
		definition = object{"type": []any{"string", "integer"}}
	}
	used[name] = closed(definition)
	for _, referred := range references(used[name]) {
		collect(definitions, strings.TrimPrefix(referred, "#/definitions/"), used)
	}
}

// references are the definitions that a schema refers to.
func references(schema any) (found []string) {
	switch s := schema.(type) {
	case object:
		for key, value := range s {
			if name, isName := value.(string); isName && key == "$ref" {
				found = append(found, name)
			}
			found = append(found, references(value)...)
		}
	case []any:
		for _, value := range s {
			found = append(found, references(value)...)
		}
	}
	return found
}

// closed is a schema without descriptions and extensions that accepts no unknown keys, and null for optional ones.
func closed(schema object) object {
	result := object{}
	for key, value := range schema {
		switch inner, isObject := value.(object); {
		case key == "properties":
			result[key] = closedProperties(inner, required(schema))
		case key == "description", key == "format", strings.HasPrefix(key, "x-kubernetes-"):
		case isObject:
			result[key] = closed(inner)
		default:
			result[key] = value
		}
	}
	if schema["x-kubernetes-int-or-string"] == true {
		return object{"type": []any{"string", "integer"}}
	}
	if result["properties"] != nil && result["additionalProperties"] == nil {
		result["additionalProperties"] = false
	}
	return result
}

func closedProperties(properties object, required []string) object {
	result := object{}
	for name, value := range properties {
		property := closed(value.(object))
		if kind, isOne := property["type"].(string); isOne && !slices.Contains(required, name) && property["enum"] == nil {
			property["type"] = []any{kind, "null"}
		}
		result[name] = property
	}
	return result
}

func required(schema object) (names []string) {
	list, _ := schema["required"].([]any)
	for _, name := range list {
		names = append(names, name.(string))
	}
	return names
}

// prometheusOperator writes the schemas of its kinds.
func prometheusOperator(version string) error {
	dir, err := module("github.com/prometheus-operator/prometheus-operator@" + version)
	if err != nil {
		return err
	}
	for _, kind := range operatorKinds {
		text, err := os.ReadFile(filepath.Join(dir, "example/prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml"))
		if err != nil {
			return fmt.Errorf("cannot read a kind of Prometheus Operator %s: %w", version, err)
		}
		var definition struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPI object `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return fmt.Errorf("%s of Prometheus Operator %s: %w", kind, version, err)
		}
		for _, v := range definition.Spec.Versions {
			file := groupVersionKind{definition.Spec.Group, v.Name, definition.Spec.Names.Kind}.file()
			schema := closed(v.Schema.OpenAPI)
			schema["properties"].(object)["metadata"] = object{"type": "object"}
			if err := write(filepath.Join(out, "operator"), file, schema); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes a schema on one line, because nobody reads or edits it.
func write(folder, name string, schema any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(schema); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("cannot make the folder for %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(folder, name), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}
