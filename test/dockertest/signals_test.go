package dockertest_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// signalBook is a node that writes down each signal it gets, and ends on TERM.
const signalBook = `#!/usr/bin/perl
$| = 1;
for my $name (qw(HUP INT QUIT USR1 USR2 WINCH ALRM)) { $SIG{$name} = sub { print "got $name\n" } }
$SIG{TERM} = sub { print "got TERM\n"; exit 0 };
print "listening\n";
select(undef, undef, undef, undef) while 1;
`

func TestDockerStopReachesTheNodeOnceAndIsNoFailure(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{}})...)
	c.WaitEvent("height known")
	c.Stop()
	assert.Zero(t, c.WaitExit())
	assert.Len(t, c.Events("stopped"), 1)
	assert.Empty(t, c.Events("run failed"))
	signals := []string{}
	for _, entry := range journal(t, c) {
		if entry.Event == mockrollup.EventSignal {
			signals = append(signals, entry.Reason)
		}
	}
	assert.Equal(t, []string{"terminated"}, signals)
	assert.Contains(t, c.ReadFile("/data/checkpoint.json"), `"phase": "running"`)
}

// Docker's SIGKILL leaves the checkpoint and the state as they are: the next start continues from there.
func TestDockerStopThatRunsOutKillsAndTheNextStartGoesOn(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{faults: func(m *mockrollup.Mock) { m.IgnoreSigterm = true }}})...)
	c.WaitEvent("height known")
	c.Stop("-t", "1")
	assert.Equal(t, 137, c.WaitExit())
	assert.Len(t, c.Events("stop requested"), 1)
	assert.Empty(t, c.Events("stopped"))
	assert.False(t, c.State().OOMKilled)

	c.Forget()
	c.Start()
	c.WaitEvent("stamp found", "version", 0)
	c.WaitEvent("height confirmed", "version", 0)
	c.WaitEvent("height known")
	c.Kill("KILL")
	assert.Equal(t, 137, c.WaitExit())
}

func TestStopTimeoutEndsANodeBeforeDockerDoes(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{faults: func(m *mockrollup.Mock) { m.IgnoreSigterm = true }}}, "--stop-timeout", "1s")...)
	c.WaitEvent("height known")
	c.Stop()
	assert.Equal(t, 137, c.WaitExit())
	assert.Len(t, c.Events("killing the node"), 1)
	assert.Contains(t, c.Events("run failed")[0]["error"], "was asked to stop")
}

func TestDockerKillPassesEachSignalToTheNodeOnce(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{node: signalBook}})...)
	c.WaitLine("the node's handlers", func(line string) bool { return line == "listening" })
	var want []string
	for _, name := range []string{"HUP", "USR1", "USR2", "WINCH", "ALRM", "INT", "QUIT", "TERM"} {
		c.Kill(name)
		got := "got " + name
		c.WaitLine(got, func(line string) bool { return line == got })
		want = append(want, got)
	}
	assert.Zero(t, c.WaitExit())
	assert.Equal(t, want, regexp.MustCompile(`(?m)^got \w+$`).FindAllString(c.Logs(), -1))
	assert.Equal(t, "INT", strings.TrimPrefix(fmt.Sprint(c.Events("stop requested")[0]["signal"]), "SIG"))
}

// A signal that a node does not handle kills it, and Docker reports that as a shell would.
func TestSignalThatTheNodeDoesNotHandleIsReportedByDocker(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{}})...)
	c.WaitEvent("height known")
	c.Kill("HUP")
	assert.Equal(t, 129, c.WaitExit())
	assert.Contains(t, c.Events("run failed")[0]["error"], "its node was killed by SIGHUP")
}

// A fault signal that another process sends to process 1 must not end the container.
func TestFaultSignalFromOutsideIsDropped(t *testing.T) {
	t.Parallel()
	c := dockertest.Run(t, rollup(t, []version{{}})...)
	c.WaitEvent("height known")
	for _, name := range []string{"SEGV", "PIPE", "CHLD", "URG"} {
		c.Kill(name)
	}
	c.Stop()
	assert.Zero(t, c.WaitExit(), "the later TERM was the one that ended it")
	assert.Len(t, c.Events("stopped"), 1)
}
