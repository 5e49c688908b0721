// Package mockrollup is a stand-in for the node of a rollup built with the Sovereign SDK, and for its state migration
// and its DA layer. It promises to look like a real node to whoever starts it: command line, exit codes, refusal
// texts, heights that run ahead of the durable state, HTTP routes, signals, locks. It executes no transactions.
//
// All durable state lies in one folder: state.json (replaced as a whole at each commit), lock (held as long as the
// process lives), journal.jsonl (who ran when, for tests) and a fired-… marker for each fault that happens only once.
//
// The faults and the version that a node plays are in the [mock] section of its TOML file, see Config.
package mockrollup
