// Package rehearsaltest runs whole rehearsals on a real Docker engine. Those of the stand-in, with each Compose and
// from a snapshot, must pass. There is one for each way to break an upgrade, which must fail and name the cause. 'make
// compose-test' runs it.
package rehearsaltest
