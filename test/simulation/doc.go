// Package simulation runs the real upgrade sequence against a modelled world, for tests: a chain, nodes and migrations
// with all their bad habits, a disk that loses what was not synced, an orchestrator, an operator, people who restore,
// wipe and deploy the wrong things, and an attacker who writes refusals into the logs. It is linked into no program.
//
// One seed gives one whole life, from an empty volume to the last version's stop height, through crashes at any step.
// Time is that of a testing/synctest bubble. Every event of the world falls on an instant of its own, jittered by
// nanoseconds, so that a seed replays exactly. After every event the invariants of invariants.go are checked.
//
// A state has the format of the release that wrote it, and any other release destroys it by opening it, as real nodes
// do. What a node has committed survives a power cut. A node that is killed while it works leaves a damaged state as
// often as a real one does.
//
// In most lives there is an undo point beside the state: a copy of the modelled state, which a kill or a power cut finds
// incomplete, or half exchanged. People hold the sequence, restore states under the hold, put the undo point back by hand or
// drop it, and retire versions. Some releases destroy the format of the version before, and some patches do not start.
//
// In half of the lives the entrypoint is not process 1. Then its death is a SIGTERM for its node, and nothing for a
// migration or for what was left behind: they keep running, and the next entrypoint waits for them.
package simulation
