// Package sequencer takes a rollup through its versions: it runs the node of one version to its stop height, proves
// that the height was reached, runs the migration, starts the next version, and keeps a checkpoint of where it is.
//
// The contract. A version or a migration is started only when what comes before it is proven to be complete. What is
// about to happen is on disk before it happens, and what happened is on disk before anything follows from it. After a
// stop was requested nothing is started. Whatever cannot be proven ends the run with a Failure which says what
// happened, what is safe and what to do next; it is never guessed.
//
// The package knows nothing of Unix process tables, HTTP or containers: it names what it needs in small interfaces
// (Processes, Heights, Store) and everything time-dependent runs under testing/synctest.
package sequencer
