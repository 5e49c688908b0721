// Package sovereign is all that this project knows of a Sovereign SDK rollup node: the flags it takes, the two
// values we need from its TOML config, the HTTP route that tells its height and the texts with which it refuses to
// start. Nothing here decides anything; package sequencer does.
package sovereign
