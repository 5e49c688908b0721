// Package simulation runs the real upgrade sequence against a modelled world, for tests: a chain, nodes and migrations
// with all their bad habits, a disk that loses what was not synced, an orchestrator, an operator, people who restore, wipe
// and deploy the wrong things, and an attacker who writes refusals into the logs. It is linked into no program.
//
// One seed gives one whole life, from an empty volume to the last version's stop height, through crashes at any step.
// Time is that of a testing/synctest bubble. Every event of the world falls on an instant of its own, jittered by
// nanoseconds, so that a seed replays exactly. After every event the invariants of invariants.go are checked.
//
// A state has the format of the release that wrote it, and any other release destroys it by opening it, as real nodes do.
// What a node has committed survives a power cut; a node that is killed leaves a damaged state only in some lives, because
// that is the node's business, and the sequence can do no more than to say so.
package simulation
