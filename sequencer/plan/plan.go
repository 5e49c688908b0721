// Package plan reads the life of a chain: the versions of a config, from one JSON file or from the folders of an image.
// It reports everything that is wrong with them at once. It knows nothing of processes or of what is on the volume.
package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"rollup-entrypoint/internal/strictjson"
)

// OnInterrupted says what to do with a migration that began and is not recorded as completed.
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
	// Binary and Config are the paths of the node and its TOML config, as the plan has them.
	Binary, Config string
	// Migration is the program that rewrites the state before this version starts; empty for none.
	Migration string
	// Start is the first height that this version makes, 0 for the first version (genesis).
	Start uint64
	// Stop is the last height that this version makes, its stop height; 0 for none.
	Stop uint64
	// Args come before the arguments that all versions get.
	Args []string
	// Env are NAME=VALUE pairs that are added to our environment, for the node, its migration and its hook.
	Env []string
	// OnInterrupted is the policy for this version's migration.
	OnInterrupted OnInterrupted
	// APIPath is the prefix of the routes of the node's HTTP API, such as "/v1"; usually empty.
	APIPath string
	// NeverAsk: the node must not be asked for its durable height.
	NeverAsk bool
	// Before is the hook: a program and its arguments, run once after the version before is complete and before anything
	// of this version touches the state; empty for none.
	Before []string
	// MigrationArgs are further arguments of the migration, and MigrationEnv further NAME=VALUE pairs of its environment.
	MigrationArgs, MigrationEnv []string
	// Retired: the image no longer has the version's files, only its heights are known. Binary, Config and Migration are
	// empty. LastImage names the last image that had them, if that is known.
	Retired   bool
	LastImage string
}

// Plan is the life of a chain: its versions, oldest first. From Load it has at least one, and contiguous heights.
type Plan struct {
	// File is what the plan was read from, for messages.
	File     string
	Versions []Version
	// Brake is the height, in blocks, at which an emergency stop ends the plan before its own end; 0 for none. It is the
	// stop height of the version that makes it, and nothing follows that version.
	Brake uint64
}

// StoppedAt is the plan with an emergency stop at height, in blocks; 0 is none. It is the plan itself if a version ends
// there anyway, or if no version gets there.
func (p *Plan) StoppedAt(height uint64) *Plan {
	i := p.VersionAt(height)
	if height == 0 || i < 0 || p.Versions[i].Stop == height {
		return p
	}
	// Later versions stay in it: a state may already belong to one of them, and messages have to name it.
	stopped := &Plan{File: p.File, Versions: slices.Clone(p.Versions), Brake: height}
	stopped.Versions[i].Stop = height
	return stopped
}

// End is the index of the version that nothing follows: the last one, unless an emergency stop ends the plan before.
func (p *Plan) End() int {
	if p.Brake > 0 {
		return p.VersionAt(p.Brake)
	}
	return p.Last()
}

// Last is the index of the last version.
func (p *Plan) Last() int { return len(p.Versions) - 1 }

// VersionAt is the index of the version that makes height, in blocks; -1 above the last stop height.
func (p *Plan) VersionAt(height uint64) int {
	for i, v := range p.Versions {
		if height >= v.Start && (v.Stop == 0 || height <= v.Stop) {
			return i
		}
	}
	return -1
}

// Genesis is the file that arguments of a node name as its genesis; empty if they name none.
func Genesis(args []string) string {
	for i, arg := range args {
		if value, is := strings.CutPrefix(arg, genesisFlag+"="); is {
			return value
		}
		if arg == genesisFlag && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// Label is what messages call version i: its index, and its name if that says more.
func (p *Plan) Label(i int) string { return Label(i, p.Versions[i].Name) }

// Label is what messages call a version: its index, and its name unless that is the default one. Many names have a
// number that counts from 1, so the index says that it is one.
func Label(i int, name string) string {
	if name == "" || name == defaultName(i) {
		return fmt.Sprintf("version %d", i)
	}
	return fmt.Sprintf("version %q (index %d)", name, i)
}

func defaultName(i int) string { return fmt.Sprintf("v%d", i) }

// Problems is everything that is wrong with a config, one entry each, ready to print.
type Problems = strictjson.Problems

// chainProblems checks what concerns more than one key, or more than one version.
func chainProblems(versions []entry) Problems {
	var found Problems
	for i, v := range versions {
		add := func(format string, args ...any) { found = append(found, v.label+": "+fmt.Sprintf(format, args...)) }
		heightProblems(versions, i, add)
		orderProblems(versions, i, add)
	}
	return found
}

// heightProblems checks the heights of version i. An entry says which heights are in the file, because 0 and absent are
// different mistakes.
func heightProblems(versions []entry, i int, add func(format string, args ...any)) {
	v, first, last := &versions[i], i == 0, i == len(versions)-1
	switch {
	case first && v.hasStart:
		add("start_height is set, but the first version starts from genesis: remove it")
	case !first && !v.hasStart && !v.failed[keyStart]:
		add("start_height is missing: every version but the first needs one")
	}
	switch {
	case !v.hasStop && !last && !v.failed[keyStop]:
		add("stop_height is missing: only the last version may have none")
	case !v.hasStop:
	case v.Stop == 0 || v.Stop == math.MaxUint64:
		add("stop_height is %d, want a number above 0 and below 2^64-1", v.Stop)
	case v.Stop < v.Start:
		add("stop_height %d is below start_height %d", v.Stop, v.Start)
	}
	if first || !v.hasStart || v.failed[keyStart] || !versions[i-1].hasStop || versions[i-1].Stop == math.MaxUint64 {
		return
	}
	if want := versions[i-1].Stop + 1; v.Start != want {
		add("start_height is %d, want %d: %s stops at %d", v.Start, want, versions[i-1].label, versions[i-1].Stop)
	}
}

// orderProblems checks what version i may have at its place among the others.
func orderProblems(versions []entry, i int, add func(format string, args ...any)) {
	v := &versions[i]
	if i == 0 && v.Migration != "" {
		add("migration_path is set, but the first version has no version before it to migrate from: remove it")
	}
	if i == 0 && len(v.Before) > 0 {
		add("before is set, but the first version has no version before it: remove it")
	}
	for _, key := range v.forMigration {
		if v.Migration == "" && !v.failed[KeyMigration] {
			add("%s is set, but the version has no migration: remove it", key)
		}
	}
	switch {
	case !v.Retired:
	case i == len(versions)-1:
		add("retired is set, but there is no version after it: the last version cannot be retired")
	case i > 0 && !versions[i-1].Retired && !versions[i-1].failed[keyRetired]:
		add("retired is set, but %s is not retired: a version can only be retired with all versions before it", versions[i-1].label)
	}
}

// HookEnv are the names of the variables that tell a hook about its upgrade.
var HookEnv = []string{
	"ENTRYPOINT_FROM_VERSION", "ENTRYPOINT_TO_VERSION", "ENTRYPOINT_HEIGHT", "ENTRYPOINT_STORAGE_PATH", "ENTRYPOINT_CHECKPOINT",
}
