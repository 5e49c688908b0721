// Package status is what the outside sees of a run: the status as JSON and as a page, probes, metrics, and the commands
// that ask for them.
//
// The contract. [Status.Observe] takes each state of the sequence as it comes, and never waits. A request gets an
// answer made of the newest state, without a lock that the sequence could ever wait for. Only GET and HEAD are
// answered; a request has a few seconds and a few kilobytes, and no answer has a secret: no environment, no arguments,
// nothing of a node's config, and nothing of what it writes but the line in which it says that its state is damaged or
// not migrated.
package status
