package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// foreign lists what a rehearsal of the file would share with the host or with another project. A rehearsal migrates,
// wipes and removes what its nodes write to, so it must own all of that. On another project's network, its services
// would answer under the names of the real ones.
func (f *composeFile) foreign(project string) (problems []string) {
	add := func(format string, values ...any) { problems = append(problems, fmt.Sprintf(format, values...)) }
	for _, kind := range []string{"volume", "network"} {
		all, _ := f.document[kind+"s"].(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(all)) {
			definition, _ := all[key].(map[string]any)
			name, own := definition["name"], project+"_"+key
			if external := definition["external"]; external != nil && external != false {
				add("%s %s is external: remove that, so that the rehearsal gets its own", kind, key)
			} else if name != nil && name != own {
				add("%s %s has the name %v: remove that, so that the rehearsal gets its own", kind, key, name)
			}
			options, _ := definition["driver_opts"].(map[string]any)
			if device := options["device"]; kind == "volume" && device != nil {
				add("volume %s is %v on the host or a server: remove driver_opts, so that the rehearsal gets its own", key, device)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.services)) {
		service := f.service(name)
		mounts, _ := service["volumes"].([]any)
		for _, mount := range mounts {
			if source := writableBind(mount); source != "" {
				add("service %s may write to %s on the host: use a volume, or mount it read-only", name, source)
			}
		}
		if mode := fmt.Sprint(service["network_mode"]); mode == "host" || strings.HasPrefix(mode, "container:") {
			add("service %s has network_mode %s: remove that", name, mode)
		}
		others, _ := service["volumes_from"].([]any)
		for _, other := range others {
			if strings.HasPrefix(fmt.Sprint(other), "container:") {
				add("service %s has volumes_from %v: remove that", name, other)
			}
		}
	}
	return problems
}

// writableBind returns the path on the host that a mount lets a container write to, or nothing.
func writableBind(mount any) string {
	switch mount := mount.(type) {
	case map[string]any:
		if mount["type"] == "bind" && mount["read_only"] != true {
			return fmt.Sprint(mount["source"])
		}
	case string:
		parts := strings.Split(mount, ":")
		isPath := strings.HasPrefix(parts[0], "/") || strings.HasPrefix(parts[0], ".") || strings.HasPrefix(parts[0], "~")
		if len(parts) > 1 && isPath && (len(parts) < 3 || !slices.Contains(strings.Split(parts[2], ","), "ro")) {
			return parts[0]
		}
	}
	return ""
}

// dropUnused removes volumes and networks that no service uses any more.
func (f *composeFile) dropUnused() {
	used := map[string]bool{}
	for name := range f.services {
		service := f.service(name)
		mounts, _ := service["volumes"].([]any)
		for _, mount := range mounts {
			switch mount := mount.(type) {
			case map[string]any:
				used[fmt.Sprint("volumes ", mount["source"])] = true
			case string:
				source, _, _ := strings.Cut(mount, ":")
				used["volumes "+source] = true
			}
		}
		switch networks := service["networks"].(type) {
		case map[string]any:
			for key := range networks {
				used["networks "+key] = true
			}
		case []any:
			for _, key := range networks {
				used[fmt.Sprint("networks ", key)] = true
			}
		default:
			used["networks default"] = true
		}
	}
	for _, kind := range []string{"volumes", "networks"} {
		all, _ := f.document[kind].(map[string]any)
		maps.DeleteFunc(all, func(key string, _ any) bool { return !used[kind+" "+key] })
	}
}

// hasVolume reports whether the file defines a volume of that name.
func (f *composeFile) hasVolume(key string) bool {
	all, _ := f.document["volumes"].(map[string]any)
	_, found := all[key]
	return found
}
