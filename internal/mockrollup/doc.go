// Package mockrollup is a stand-in for the node of a rollup built with the Sovereign SDK, and for its state migration
// and its DA layer. It promises to look like a real node to whoever starts it: command line, exit codes, refusal
// texts, heights that run ahead of the durable state, HTTP routes, signals, locks. Of transactions it knows no more than that they change the state root.
//
// All durable state lies in one folder: state.json (replaced as a whole at each commit), roots (the state root of each of
// the last heights), lock (held as long as the process lives), journal.jsonl (who ran when, for tests) and a fired-…
// marker for each fault that happens only once; while a commit is half done, committing.
//
// A start has the order of a real one: the DA service, then the storage (with its lock, and a genesis if there is no
// state), then the checks of the two heights, and only then the sequencer and the port. So a start that is refused still
// opens the state, and what opens a state of another format damages it for good: state.json has the reason, and no node
// opens that state again. With mock.damage_on_kill a node that is killed while it commits leaves such a state, too.
//
// Several nodes are a network when they follow one DA server, `mock-rollup da`. It orders the transactions that the
// leader takes, so that each node executes the same in the same slot, and its state root depends on all of them, on every
// version that wrote a block, and on every migration and the height at which it ran: whoever upgraded otherwise than the
// rest has other roots from there on. With mock.role = "auto" the server also elects the leader, as the database of real
// sequencers does: a leader has a lease, keeps it by being heard of, and gives it up when it stops. A replica that wins
// exits 0 and leads from its next start on. What is not modelled: the gossip between nodes, forks of the DA before its
// finality, fees, and transactions that are invalid.
//
// The faults and the version that a node plays are in the [mock] section of its TOML file, see Config.
package mockrollup
