// Package plan reads the life of a chain: the versions of a config, in one JSON file or in the folders of an image, with
// all that is wrong in them found at once. It knows no processes and nothing of what is on the volume.
package plan

import (
	"fmt"
	"math"

	"rollup-entrypoint/internal/strictjson"
)

// OnInterrupted says what to do with a migration that was begun and is not recorded as completed.
type OnInterrupted string

const (
	// Rerun runs an interrupted migration again. It is the default: without it the state stays half migrated.
	Rerun OnInterrupted = "rerun"
	// Halt ends the run, for migrations that do not survive a second run.
	Halt OnInterrupted = "halt"
)

// Version is one entry of the plan: a node binary and the heights, in blocks, between which it makes the chain.
type Version struct {
	// Name is for people: the configured name, or "v" and the index.
	Name string
	// Binary and Config are the paths of the node and its TOML config, as they are in the plan.
	Binary, Config string
	// Migration is the program that rewrites the state before this version starts; empty for none.
	Migration string
	// Start is the first height that this version makes, 0 for the first version (genesis).
	Start uint64
	// Stop is the last height that this version makes, 0 for a version without end.
	Stop uint64
	// Args come before the arguments that are common to all versions.
	Args []string
	// Env are NAME=VALUE pairs that are added to our environment, for the node and its migration.
	Env []string
	// OnInterrupted is the policy for this version's migration.
	OnInterrupted OnInterrupted
	// APIPath is the prefix of the routes of the node's HTTP API, as in "/v1"; mostly empty.
	APIPath string
	// NeverAsk: the node must not be asked for its durable height.
	NeverAsk bool
}

// Plan is the life of a chain: its versions, oldest first. A Plan from Parse or Load has at least one version
// and contiguous heights.
type Plan struct {
	// File is where the plan was read, for messages.
	File     string
	Versions []Version
}

// Last is the index of the last version.
func (p *Plan) Last() int { return len(p.Versions) - 1 }

// VersionAt is the index of the version that makes height (in blocks), or -1 if the plan has none: beyond the last
// stop height.
func (p *Plan) VersionAt(height uint64) int {
	for i, v := range p.Versions {
		if height >= v.Start && (v.Stop == 0 || height <= v.Stop) {
			return i
		}
	}
	return -1
}

// Label names version i in messages: its index, and its name if that says more.
func (p *Plan) Label(i int) string { return Label(i, p.Versions[i].Name) }

// Label names a version by its index and its name, which is left out if it is the default one.
func Label(i int, name string) string {
	if name == "" || name == defaultName(i) {
		return fmt.Sprintf("version %d", i)
	}
	return fmt.Sprintf("version %d (%q)", i, name)
}

func defaultName(i int) string { return fmt.Sprintf("v%d", i) }

// Problems is everything that is wrong with a config, one entry each, ready to print.
type Problems = strictjson.Problems

// heightProblems checks what concerns more than one key. An entry says which heights are in the file,
// because 0 and absent are different mistakes.
func heightProblems(versions []entry) Problems {
	var found Problems
	add := func(i int, format string, args ...any) {
		found = append(found, Label(i, versions[i].Name)+": "+fmt.Sprintf(format, args...))
	}
	for i, v := range versions {
		first, last := i == 0, i == len(versions)-1
		switch {
		case first && v.hasStart:
			add(i, "start_height is set, but the first version starts from genesis: remove it")
		case !first && !v.hasStart && !v.failed["start_height"]:
			add(i, "start_height is missing: every version but the first has one")
		}
		if !last && !v.hasStop && !v.failed["stop_height"] {
			add(i, "stop_height is missing: only the last version may run without end")
		}
		if v.hasStop && (v.Stop == 0 || v.Stop < v.Start || v.Stop == math.MaxUint64) {
			add(i, "stop_height %d must be above 0, not below start_height %d, and below 2^64-1", v.Stop, v.Start)
		}
		if first && v.Migration != "" {
			add(i, "migration_path is set, but there is no version before the first from which to migrate: remove it")
		}
		if first || !v.hasStart || !versions[i-1].hasStop || versions[i-1].Stop == math.MaxUint64 {
			continue
		}
		if want := versions[i-1].Stop + 1; v.Start != want {
			add(i, "start_height is %d, want %d: version %d stops at %d", v.Start, want, i-1, versions[i-1].Stop)
		}
	}
	return found
}
