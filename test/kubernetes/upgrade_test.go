package kubernetes

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

const (
	blockTime = 250 * time.Millisecond
	// slowBlockTime leaves time for an upgrade of the release before a height.
	slowBlockTime = 500 * time.Millisecond
)

// installed is a release that has gone through the two upgrades of the local network.
func installed(t *testing.T, blockTime time.Duration) *rollup {
	t.Helper()
	r := prepare(t, blockTime)
	r.upgrade(r.base(localNetworkRelease(t)))
	r.upgraded(2, "v2", 81)
	return r
}

func TestInstallThenTwoUpgrades(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	notes := r.upgrade(r.base(localNetworkRelease(t)))
	require.Contains(t, notes, "upgrade", "the notes say how to watch it")
	r.upgraded(2, "v2", 81)
	for which, p := range r.pods() {
		require.Zero(t, p.restarts(), which)
		r.history(which, 2) // of completed versions
	}
	require.Contains(t, r.mustHelm("test", name), "Succeeded")
	// 'helm test --logs' of Helm 3 fails for a pod with several containers.
	require.Contains(t, r.kubectl("logs", name+"-test", "--all-containers", "--prefix"), "alive     yes")
}

func TestImageWithOneMoreVersionInTime(t *testing.T) {
	t.Parallel()
	const stop = 400 // after more than three minutes
	next := oneMore(t, stop)
	r := installed(t, slowBlockTime)
	r.upgrade(with(r.values, next.values()))
	r.upgraded(2, "v3", stop+1)
	for which := range r.pods() {
		r.history(which, 4)
	}
}

func TestImageWithOneMoreVersionTooLate(t *testing.T) {
	t.Parallel()
	r := installed(t, blockTime)
	before := r.pods()
	r.upgraded(2, "v2", 100)
	late := r.tryUpgrade(with(r.values, oneMore(t, 90).values()))
	require.NotZero(t, late.code, "the check before the upgrade stops the release")
	told := r.kubectl("logs", "--selector=app.kubernetes.io/component=check", "--tail=-1")
	assert.Contains(t, told, "too late")
	// Nothing has happened to the pods.
	for which, p := range r.pods() {
		assert.Equal(t, before[which].Metadata.UID, p.Metadata.UID, which)
		assert.Zero(t, p.restarts(), which)
		assert.True(t, p.ready(), which)
	}
	r.upgraded(2, "v2", 110)
}

// plan is that of the local network, as a file of its own.
const plan = `{"versions": [
	{"name": "v0", "rollup_binary": "/opt/rollup/versions/v0/rollup", "config_path": "/opt/rollup/versions/v0/config.toml", "stop_height": 40},
	{"name": "v1", "rollup_binary": "/opt/rollup/versions/v1/rollup", "config_path": "/opt/rollup/versions/v1/config.toml", "start_height": 41, "stop_height": 80,
	 "migration_path": "/opt/rollup/versions/v1/migration"},
	{"name": "v2", "rollup_binary": "/opt/rollup/versions/v2/rollup", "config_path": "/opt/rollup/versions/v2/config.toml", "start_height": 81}]}`

func TestWrongPlanIsNamedAndThenCorrected(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	inline := func(plan string) values {
		return with(r.base(localNetworkRelease(t)), values{"plan": values{"inline": plan}, "check": values{"enabled": false}})
	}
	r.upgrade(inline(strings.Replace(plan, "migration_path", "migraton_path", 1)))
	r.await("sequencer-0", "has failed", func(p pod) bool { return p.ended() != nil && p.ended().Message != "" })
	described := r.kubectl("describe", "pod", name+"-sequencer-0")
	assert.Contains(t, described, `unknown key "migraton_path"`)
	assert.Contains(t, described, "Exit Code:    78")
	require.NoDirExists(t, filepath.Join(r.dir("data-"+name+"-sequencer-0"), "state"))
	r.upgrade(inline(plan))
	r.upgraded(2, "v2", 81)
}

func TestRollbackUninstallAndInstallAgain(t *testing.T) {
	t.Parallel()
	r := installed(t, blockTime)
	r.upgrade(with(r.values, oneMore(t, 1_000_000).values()), "--wait")
	r.upgraded(2, "v2", 90)
	require.NotNil(t, r.status(r.pod("sequencer-0"))["next_upgrade"], "the new image has one version more")
	r.mustHelm("rollback", name, "--wait", "--timeout", "6m")
	r.upgraded(2, "v2", 100)
	require.Nil(t, r.status(r.pod("sequencer-0"))["next_upgrade"])

	claims := r.claims()
	require.Len(t, claims, 2)
	r.mustHelm("uninstall", name, "--wait", "--timeout", "6m")
	until(t, "the pods are gone", func() bool { return len(r.pods()) == 0 }, func() any { return r.pods() })
	require.Equal(t, claims, r.claims())
	states := map[string]mockrollup.State{}
	for _, claim := range claims {
		state, err := mockrollup.ReadState(filepath.Join(r.dir(claim), "state"))
		require.NoError(t, err)
		require.Greater(t, state.Height, uint64(100))
		states[claim] = state
	}
	r.upgrade(r.base(localNetworkRelease(t)))
	r.upgraded(2, "v2", 110)
	for claim, before := range states {
		entries, err := mockrollup.ReadJournal(filepath.Join(r.dir(claim), "state"))
		require.NoError(t, err)
		var last mockrollup.Entry
		for _, entry := range entries {
			if entry.Event == mockrollup.EventReady {
				last = entry
			}
		}
		require.Equal(t, "v2", last.Label)
		require.GreaterOrEqual(t, last.Height, before.Height, "it goes on where it was")
	}
}

// stateOf is the durable state on the volume of a pod.
func (r *rollup) stateOf(which string) mockrollup.State {
	r.t.Helper()
	state, err := mockrollup.ReadState(filepath.Join(r.dir("data-"+name+"-"+which), "state"))
	require.NoError(r.t, err)
	return state
}

func TestEmergencyStopAndTheLateImage(t *testing.T) {
	t.Parallel()
	r := installed(t, slowBlockTime)
	height := r.stateOf("sequencer-0").Height
	stop := height + 200 // after 100 s
	r.upgrade(with(r.values, values{"stopHeight": stop}))
	for _, which := range []string{"sequencer-0", "replicas-0"} {
		r.phase(which, "finished")
		require.Equal(t, stop, r.stateOf(which).Height, which)
	}
	require.Equal(t, r.stateOf("sequencer-0").StateRoot, r.stateOf("replicas-0").StateRoot)
	r.verify()
	// The flag is still set.
	r.upgrade(with(r.values, oneMore(t, stop).values()))
	r.upgraded(2, "v3", stop+1)
}

func TestPlanAndConfigsThatChangeUnderARunningPod(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	configs, followers := values{}, values{}
	for _, version := range []string{"v0", "v1", "v2"} {
		// One version writes beside its config.
		text := faulty(t, version, "pinned_cache = "+fmt.Sprint(version == "v1"))
		entry := func(role string) values {
			return values{"inline": strings.Replace(text, `"auto"`, `"`+role+`"`, 1), "writableFolder": version == "v1"}
		}
		configs[version], followers[version] = entry("leader"), entry("replica")
	}
	mounted := strings.ReplaceAll(plan, `"config_path": "/opt/rollup/versions/`, `"config_path": "/etc/rollup/configs/`)
	r.upgrade(with(r.base(localNetworkRelease(t)), values{
		"configs": configs, "replicas": values{"configs": followers}, "plan": values{"inline": mounted},
	}))
	r.upgraded(2, "v2", 81)
	before := r.pods()
	for which, p := range before {
		require.Equal(t, false, r.status(p)["plan_outdated"], which)
	}

	// Another plan for a running pod: it says so, and goes on.
	changed := strings.Replace(mounted, `"start_height": 81`, `"start_height": 81, "stop_height": 1000000`, 1)
	r.upgrade(with(r.values, values{"plan": values{"inline": changed}}))
	for which := range before {
		until(t, which+" sees another plan", func() bool { return r.status(r.pod(which))["plan_outdated"] == true }, func() any { return r.status(r.pod(which)) })
		require.Equal(t, before[which].Metadata.UID, r.pod(which).Metadata.UID, which)
	}

	r.upgrade(with(r.values, values{"restartOnConfigChange": true}), "--wait")
	r.upgraded(2, "v2", 100)
	for which, p := range r.pods() {
		require.NotEqual(t, before[which].Metadata.UID, p.Metadata.UID, which)
		require.Equal(t, false, r.status(p)["plan_outdated"], which)
		require.NotNil(t, r.status(p)["next_upgrade"], which)
	}
}
