package mockrollup

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFirstToStartLeadsAndTheOthersFollow(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, "--lease", "1m")
	a, b := w.member("a"), w.member("b")
	a.leads(a.start(a.version("v0", 0)))
	p := b.start(b.version("v0", 0))
	b.ready(p)
	require.Contains(t, p.stdout.String(), "Sequencer role taken role=replica node=b")
	require.Equal(t, http.StatusServiceUnavailable, b.readyStatus())
	require.Equal(t, "a", w.leader())
}

func TestReplicaThatWinsLeadershipExitsZeroAndLeadsAtItsNextStart(t *testing.T) {
	for name, end := range map[string]func(*process){
		"the leader stops":     func(p *process) { p.signal(syscall.SIGTERM); p.exits(0) },
		"the leader is killed": func(p *process) { p.signal(syscall.SIGKILL); p.diesBy(syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNetwork(t, "--lease", "2s")
			a, b := w.member("a"), w.member("b")
			leader := a.start(a.version("v0", 0))
			a.leads(leader)
			config := b.version("v0", 0)
			replica := b.start(config, "--stop-at-rollup-height", "1000000")
			b.ready(replica)
			end(leader)
			replica.exits(0)
			require.Contains(t, replica.stdout.String(), "Exiting to restart as leader")
			require.Less(t, b.read().Height, uint64(1000000))
			p := b.start(config)
			b.leads(p)
			require.Equal(t, "b", w.leader())

			again := a.start(a.version("v0", 0))
			a.ready(again)
			require.Equal(t, http.StatusServiceUnavailable, a.readyStatus())
		})
	}
}

func TestLeaderThatStopsGivesTheLeadershipUp(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, "--lease", "1h")
	a, b := w.member("a"), w.member("b")
	leader := a.start(a.version("v0", 0), "--stop-at-rollup-height", "20")
	leader.exits(0)
	require.Contains(t, leader.stdout.String(), "Sequencer role taken role=leader node=a")
	require.Empty(t, w.leader(), "at its stop height")
	leader = b.start(b.version("v0", 0))
	b.leads(leader)
	leader.signal(syscall.SIGTERM)
	leader.exits(0)
	require.Empty(t, w.leader(), "at a signal")
}

// Otherwise the leadership would go round among nodes that are about to end: each would restart for it.
func TestReplicaAtItsStopHeightDoesNotStandForElection(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, "--lease", "1s", "--finality", "1000000")
	w.do(http.MethodPut, "leader?id=other", "")
	a, b := w.member("a"), w.member("b")
	replica := a.start(a.version("v0", 0), "--stop-at-rollup-height", "5")
	replica.until("is at its stop height", func() bool {
		w.do(http.MethodPut, "leader?id=other", "")
		return softHeight(a.port) == 5
	})
	w.do(http.MethodDelete, "leader?id=other", "")
	b.leads(b.start(b.version("v0", 0)))
	require.True(t, replica.alive())
	require.NotContains(t, replica.stdout.String(), "Exiting to restart")
}

func TestLeaderThatIsCutOffLeadsNoLongerThanItsLease(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, "--lease", "300ms")
	a := w.member("a")
	p := a.start(a.version("v0", 0))
	a.leads(p)
	w.da.signal(syscall.SIGTERM)
	w.da.exits(0)
	p.until("leads no more", func() bool { return a.readyStatus() == http.StatusServiceUnavailable })
	w.startDA()
	a.leads(p)
	require.NotContains(t, p.stdout.String(), "Exiting to restart", "nobody led in between")
}

func TestLeaderThatWasDeposedFollows(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, "--lease", "3s")
	a := w.member("a")
	p := a.start(a.version("v0", 0))
	a.leads(p)
	// The leader may be heard of between the two, and then has its lease again.
	p.until("learns of the other", func() bool {
		w.do(http.MethodDelete, "leader?id=a", "")
		w.do(http.MethodPut, "leader?id=b", "")
		return strings.Contains(p.stdout.String(), "Leadership lost leader=b")
	})
	require.Equal(t, http.StatusServiceUnavailable, a.readyStatus())
	w.do(http.MethodDelete, "leader?id=b", "")
	p.exits(0)
	require.Contains(t, p.stdout.String(), "Exiting to restart as leader")
}

func TestNodeThatFindsNoElectionStartsAsReplica(t *testing.T) {
	t.Parallel()
	w := newNetwork(t)
	w.da.signal(syscall.SIGTERM)
	w.da.exits(0)
	a := w.member("a")
	p := a.start(a.version("v0", 0))
	a.ready(p)
	require.Contains(t, p.stdout.String(), "the leader cannot be elected")
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

func TestElectionNeedsAServer(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.Role = roleAuto })).exits(101)
	require.Contains(t, p.stderr.String(), "mock.da.address")
}

func TestLeaseIsKeptByItsHolderAndFreeAfterIt(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/leader"
	l, err := openLeadership(path, time.Minute)
	require.NoError(t, err)
	now := time.Now()
	after := func(d time.Duration) string { return l.at(now.Add(d)).Holder }
	require.Empty(t, after(0))
	require.NoError(t, l.claim("a", now))
	require.NoError(t, l.claim("b", now.Add(30*time.Second)))
	require.Equal(t, "a", after(59*time.Second))
	require.Empty(t, after(time.Minute))
	require.NoError(t, l.claim("a", now.Add(59*time.Second)))
	require.Equal(t, "a", after(90*time.Second))
	require.NoError(t, l.resign("b", now))
	require.Equal(t, "a", after(90*time.Second))

	again, err := openLeadership(path, time.Minute)
	require.NoError(t, err)
	require.Equal(t, "a", again.at(time.Now()).Holder, "a restart deposes nobody")

	require.NoError(t, l.resign("a", now))
	require.Empty(t, after(0))
	require.NoError(t, l.claim("b", now))
	require.Equal(t, "b", after(0))
}
