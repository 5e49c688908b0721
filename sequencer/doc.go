// Package sequencer takes a rollup through its versions. It is one loop over one pure function: Next decides from the
// plan, the stamp and the durable height what follows, and the loop does it.
//
//	stamp   which version's format the state has; a file beside the state
//	ask     the durable height of the state, from the node of that version, whenever it is not known
//	decide  Next(plan, stamp, height)
//	do      run a version, enter the next one, finish, or fail
//
// The contract. A node or a migration is started only on a state whose stamp names its version, because the node of
// another version can destroy a state by opening it. The version changes only when the node of the version before has
// given its stop height as the durable height, or, for a node that cannot be asked, when a person has said so. What is
// about to happen is on disk before it happens. After a stop request, nothing is started. If any of this is impossible,
// the run ends with a Failure, which says what happened, what is safe and what to do next.
//
// The life of a stamp, in the transitions of record.go. Each change of the stamp is one durable write, and may be the
// last one before a kill. The transitions completed and confirmed only change the checkpoint; hookDone, cameUp and
// patched are from a version to itself.
//
//	       fresh, followStamp, adoptCheckpoint
//	                      │
//	                      ▼
//	running,        ┌───────────┐    completeByWord    ┌─────────────────────┐
//	confirmed: ┌────│           │─────────────────────▶│                     │
//	it stays   └───▶│ version i │                      │ version i, complete │
//	                │           │◀─────────────────────│                     │
//	                └───────────┘        running       └─────────────────────┘
//	                      │                                       │
//	                      └───────────────────┬───────────────────┘
//	                                          │ completed
//	            ┌─────────────────────────────┼─────────────────────────────┐
//	            │ entered:                    │ migrationBegun:             │ no later
//	            │ no migration                │ a migration                 │ version
//	            ▼                             ▼                             ▼
//	    ┌───────────────┐ migrationDone ┌──────────────────────┐      ┌──────────┐
//	    │ version i + 1 │◀──────────────│ version i + 1, begun │      │ finished │
//	    └───────────────┘               └──────────────────────┘      └──────────┘
//	                              migrationRuns: it is run again
//	                              notBegun: it was not executed; back to version i
//	                              putBack: back to version i, from either, with the undo point
//
// fresh, followStamp and adoptCheckpoint are in reconcile.go: they find out which version the state belongs to, before
// anything is started. Finished is a phase of the checkpoint, not of the stamp, so that a plan that has grown continues.
//
// The package knows nothing of process tables, file systems, HTTP or containers. It names what it needs in small
// interfaces of its own, and everything that depends on time runs under testing/synctest.
package sequencer
