// Package rehearsaltest runs whole rehearsals on a real Docker engine: of the stand-in, with each Compose and from a
// snapshot, which have to pass, and one for each way to break an upgrade, which has to fail and to name the cause.
// 'make compose-test' runs it.
package rehearsaltest
