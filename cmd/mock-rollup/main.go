// Mock-rollup plays the node of a rollup, for tests, the demo and local testnets.
//
//	mock-rollup --rollup-config-path FILE [--genesis-path FILE]
//	            [--start-at-rollup-height N] [--stop-at-rollup-height M]     the node
//	mock-rollup migrate --rollup-config-path NEW_CONFIG [--dry-run] [--idempotent] [--sleep D] [--exit N] [--to N]
//	mock-rollup da [--listen ADDR] [--block-time D] [--finality N] [--file FILE] [--lease D]
//	                                                                         a DA layer for nodes without a shared volume,
//	                                                                         which also runs their elections
//	mock-rollup demo --dir DIR [--block-time D] [--port N]                   writes a chain of three versions
//	mock-rollup inspect --dir STATE                                          prints the state as one line of JSON
//	mock-rollup get --url URL [--timeout D]                                  prints an answer, for images without curl
//
// Under a name that begins with migration or rollup-db-migration, it is the migration. Exit codes: 0, 2 for bad
// arguments, 101 for every failure of a node (1 with another mock.main, see below), 1 for every failure of another
// command. The environment: RUST_LOG (with an invalid value the node exits 101), NO_COLOR, RUST_BACKTRACE. The [mock]
// section of the config has what a real node does not have; mockrollup.Config describes its keys.
package main

import (
	"os"

	"rollup-entrypoint/internal/mockrollup"
)

func main() {
	os.Exit(mockrollup.Main(os.Args, mockrollup.OSStdio()))
}
