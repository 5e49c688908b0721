// Package rehearsaltest runs whole rehearsals on a real Docker engine: one of the stand-in that has to pass, and one for
// each way to break an upgrade, which has to fail and to name the cause. 'make compose-test' runs it.
package rehearsaltest
