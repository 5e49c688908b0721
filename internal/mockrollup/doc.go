// Package mockrollup is a stand-in for the node of a rollup built with the Sovereign SDK, its state migration and its
// DA layer. It promises to look like a real node to the process that starts it: command line, exit codes, refusal
// texts, heights that run ahead of the durable state, HTTP routes, signals, locks. All it knows of transactions is that
// they change the state root.
//
// All durable state is in one folder: state.json (replaced as a whole at each commit), roots (the state roots of the
// last heights), lock (held as long as the process lives), journal.jsonl (who ran when, for tests), a fired-… marker
// for each fault that happens only once and, while a commit is half done, committing.
//
// A start has the order of a real one: the DA service, then the storage (with its lock, and a genesis if there is no
// state), then the checks of the two heights, and only then the sequencer and the port. So a rejected start still opens
// the state, and a node that opens a state of another format damages it for good: state.json has the reason, and no
// node opens that state again. With mock.damage_on_kill, a node that is killed while it commits leaves such a state,
// too.
//
// Several nodes form a network when they follow one DA server, `mock-rollup da`. It orders the transactions that the
// leader takes, so that each node executes the same ones in the same slot. The state root depends on all of them, on
// every version that wrote a block, and on every migration and the height at which it ran: a node that upgraded
// differently has different roots from then on. With mock.role = "auto", the server also elects the leader, as the
// database of real sequencers does: a leader has a lease, renews it, and gives it up when it stops. A replica that wins
// exits 0 and leads from its next start. Not modelled: the gossip between nodes, forks of the DA before its finality,
// fees, and invalid transactions.
//
// The faults and the version that a node plays are in the [mock] section of its TOML file, see Config.
package mockrollup
