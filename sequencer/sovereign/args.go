package sovereign

import "strconv"

// NodeArgs returns the arguments (without argv[0]) that start a node on the config file config. A start or stop of 0
// leaves the flag out; both are rollup heights in blocks. The order is the one of sov-rollup-manager: config, start,
// stop, then extra as given.
//
// --start-at-rollup-height selects nothing: it asserts that the durable height is start-1. If it is not, the node refuses
// to start, before it makes a block or serves a request, and names both heights; a start that cannot be right is how a
// node is asked for its height. --stop-at-rollup-height makes the node commit that height and exit 0.
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

// MigrationArgs returns the arguments (without argv[0]) of a state migration: the config file of the version that is
// about to start, as rollup-db-migration expects it.
func MigrationArgs(config string) []string {
	return []string{"--rollup-config-path", config}
}
