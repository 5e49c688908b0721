package sovereign

import "strconv"

// NodeArgs returns the arguments, without argv[0], that start a node with the config file config. start and stop are
// rollup heights in blocks; 0 leaves the flag out. The order is sov-rollup-manager's: config, start, stop, extra.
//
// --start-at-rollup-height selects nothing: it asserts that the durable height is start-1. If it is not, the node
// refuses to start, before it makes a block or serves a request, and names both heights. So a node is asked for its
// height with a start height that cannot be right. --stop-at-rollup-height has it commit that height and exit 0.
func NodeArgs(config string, start, stop uint64, extra ...string) []string {
	args := []string{"--rollup-config-path", config}
	if start > 0 {
		args = append(args, "--start-at-rollup-height", strconv.FormatUint(start, 10))
	}
	if stop > 0 {
		args = append(args, "--stop-at-rollup-height", strconv.FormatUint(stop, 10))
	}
	return append(args, extra...)
}

// MigrationArgs returns the arguments, without argv[0], of a state migration: the config file of the version that is
// about to start, as rollup-db-migration expects it, and then extra.
func MigrationArgs(config string, extra ...string) []string {
	return append([]string{"--rollup-config-path", config}, extra...)
}

// DryRun is the flag with which a migration reports what it would do, and changes nothing.
const DryRun = "--dry-run"

// WritesBesideConfig reports whether a node writes files with that name into the directory of its config: some versions
// keep a cache there. The content of such a file says nothing about whether the version is the right one.
func WritesBesideConfig(name string) bool { return name == "evm_pinned_cache.json" }
