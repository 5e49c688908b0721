package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// planInContainer is where a node finds the plan of --plan or --node-plan.
const planInContainer = "/rehearsal/manager.json"

// The ports of a node inside its container.
type ports struct{ status, api int }

// nodeChange is how the rehearsal changes a node's service.
type nodeChange struct {
	// image replaces the image in the file, unless it is empty.
	image string
	// plan is a file on the host, or empty.
	plan string
	// published are the ports on the host, on 127.0.0.1.
	published ports
}

// composeFile is a resolved Compose file, the output of 'config'.
type composeFile struct {
	inside   ports
	document map[string]any
	services map[string]any
}

func readComposeFile(resolved string, inside ports) (*composeFile, error) {
	f := &composeFile{inside: inside}
	if err := yaml.Unmarshal([]byte(resolved), &f.document); err != nil {
		return nil, fmt.Errorf("cannot read the resolved Compose file: %w", err)
	}
	services, ok := f.document["services"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the Compose file has no services")
	}
	f.services = services
	// Both Composes write a project name, but -p sets it.
	delete(f.document, "name")
	for name, service := range services {
		if _, isMap := service.(map[string]any); !isMap {
			return nil, fmt.Errorf("service %s of the Compose file is not a mapping", name)
		}
	}
	return f, nil
}

func (f *composeFile) service(name string) map[string]any {
	service, _ := f.services[name].(map[string]any)
	return service
}

// isolate removes everything that would affect another project from the same file: published ports and fixed container
// names. It also removes services with a profile, and builds nothing.
func (f *composeFile) isolate() {
	for name := range f.services {
		service := f.service(name)
		if _, optional := service["profiles"]; optional {
			delete(f.services, name)
			continue
		}
		delete(service, "ports")
		delete(service, "container_name")
		delete(service, "build")
	}
	f.dropUnused()
}

// change turns a service into a node of the rehearsal. Its dependencies go: the rehearsal starts what it needs, in
// order.
func (f *composeFile) change(name string, c nodeChange) error {
	service := f.service(name)
	if service == nil {
		return fmt.Errorf("the Compose file has no service %s, only %s: name the nodes with --nodes",
			name, strings.Join(slices.Sorted(maps.Keys(f.services)), ", "))
	}
	delete(service, "depends_on")
	if c.image != "" {
		service["image"] = c.image
	}
	if service["image"] == nil {
		return fmt.Errorf("service %s of the Compose file has no image: add one there, or use --image", name)
	}
	service["ports"] = []any{
		fmt.Sprintf("127.0.0.1:%d:%d", c.published.status, f.inside.status),
		fmt.Sprintf("127.0.0.1:%d:%d", c.published.api, f.inside.api),
	}
	// The log is read through 'docker logs'.
	service["logging"] = map[string]any{"driver": "json-file"}
	environment := environmentOf(service["environment"])
	environment["ENTRYPOINT_LISTEN"] = fmt.Sprintf("0.0.0.0:%d", f.inside.status)
	environment["ENTRYPOINT_LOG_FORMAT"] = "json"
	environment["ENTRYPOINT_LOG_LEVEL"] = "info"
	if c.plan != "" {
		environment["ENTRYPOINT_CONFIG"] = planInContainer
		volumes, _ := service["volumes"].([]any)
		service["volumes"] = append(volumes, c.plan+":"+planInContainer+":ro")
	}
	service["environment"] = environment
	return nil
}

// environmentOf returns the variables, which can have two forms.
func environmentOf(value any) map[string]any {
	variables := map[string]any{}
	switch value := value.(type) {
	case map[string]any:
		maps.Copy(variables, value)
	case []any:
		for _, item := range value {
			name, text, _ := strings.Cut(fmt.Sprint(item), "=")
			variables[name] = text
		}
	}
	return variables
}

// others gives the services that are not nodes.
func (f *composeFile) others(nodes []string) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(f.services)) {
		if !slices.Contains(nodes, name) {
			names = append(names, name)
		}
	}
	return names
}

// networksOf returns the networks of a service by the names the engine knows them by, with the service's aliases in
// each.
func (f *composeFile) networksOf(service, project string) map[string][]string {
	all := map[string][]string{}
	defined, _ := f.document["networks"].(map[string]any)
	add := func(key string, options any) {
		name := project + "_" + key
		if definition, isMap := defined[key].(map[string]any); isMap && definition["name"] != nil {
			name = fmt.Sprint(definition["name"])
		}
		aliases := []string{service}
		if options, isMap := options.(map[string]any); isMap {
			more, _ := options["aliases"].([]any)
			for _, alias := range more {
				aliases = append(aliases, fmt.Sprint(alias))
			}
		}
		all[name] = aliases
	}
	switch networks := f.service(service)["networks"].(type) {
	case map[string]any:
		for key, options := range networks {
			add(key, options)
		}
	case []any:
		for _, key := range networks {
			add(fmt.Sprint(key), nil)
		}
	}
	return all
}

// text gives the file as JSON, which is also YAML.
func (f *composeFile) text() ([]byte, error) {
	text, err := json.MarshalIndent(f.document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode the Compose file: %w", err)
	}
	return text, nil
}
