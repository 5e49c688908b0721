// Package sovereign has everything that this project knows about a Sovereign SDK rollup node: the flags it takes, the
// values we need from its TOML config, the HTTP routes that report its height and whether it is ready, the sentences in
// which it refuses a start height and names the one it expected, and its complaints about a damaged or unmigrated
// state. Nothing is decided here; package sequencer does that.
package sovereign
