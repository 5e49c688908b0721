// Package simulation runs the real upgrade sequence against a modelled world, for tests: a chain, nodes and migrations
// with all their bad habits, a disk that loses what was not synced, an orchestrator and an operator. It is linked into
// no program.
//
// One seed gives one whole life, from an empty volume to the last version's stop height, through crashes at any step.
// Time is that of a testing/synctest bubble. Every event of the world falls on an instant of its own, jittered by
// nanoseconds, so that a seed replays exactly. After every event the invariants of invariants.go are checked.
package simulation
