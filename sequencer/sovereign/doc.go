// Package sovereign is all that this project knows of a Sovereign SDK rollup node: the flags it takes, the values we
// need from its TOML config, the HTTP routes that report its height and whether it is ready, the sentences with which it
// refuses a start height and so names its own, and its complaints about a damaged or unmigrated state. Nothing here
// decides anything; package sequencer does.
package sovereign
