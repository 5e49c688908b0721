package kubernetes

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
)

// kill kills process 1 of a pod's container.
func (r *rollup) kill(p pod) {
	r.t.Helper()
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	must(r.t, "", "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id)
}

// moments are when a pod goes. Each lasts some seconds with stretched.
var moments = map[string]func(disk mockrollup.State, status map[string]any) bool{
	"at the stop height": func(disk mockrollup.State, _ map[string]any) bool { return disk.Height == 40 },
	"in the migration":   func(_ mockrollup.State, status map[string]any) bool { return status["phase"] == "migrating" },
	"in the hand-over": func(_ mockrollup.State, status map[string]any) bool {
		return status["version"] == "v1" && status["phase"] == "starting"
	},
}

// stretched has versions whose moments last: v0's node needs time to end at its stop height, the migration and v1's
// start take long.
func stretched(t testing.TB) images {
	t.Helper()
	return release(t, "", files{
		"v0/config.toml": faulty(t, "v0", `slow_shutdown = "8s"`),
		"v1/config.toml": faulty(t, "v1", `startup = "8s"`, `sleep = "2s"`, `sleep = "8s"`),
	})
}

func TestPodGoesAtTheWorstMoment(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*rollup, pod){
		"deleted": func(r *rollup, p pod) { r.kubectl("delete", "pod", p.Metadata.Name, "--wait=false") },
		"killed":  (*rollup).kill,
	} {
		for when, reached := range moments {
			t.Run(how+" "+when, func(t *testing.T) {
				t.Parallel()
				r := prepare(t, blockTime)
				r.upgrade(r.base(stretched(t)))
				p := r.await("sequencer-0", "has an address", func(p pod) bool { return p.Status.PodIP != "" })
				var seen map[string]any
				until(t, when, func() bool {
					seen = r.status(p)
					// Before the genesis there is none.
					disk, _ := mockrollup.ReadState(filepath.Join(r.dir("data-"+p.Metadata.Name), "state"))
					return reached(disk, seen)
				}, func() any { return seen })
				end(r, p)
				r.upgraded(2, "v2", 81)
				if how == "killed" {
					require.Equal(t, p.Metadata.UID, r.pod("sequencer-0").Metadata.UID)
					require.Positive(t, r.pod("sequencer-0").restarts())
				} else {
					require.NotEqual(t, p.Metadata.UID, r.pod("sequencer-0").Metadata.UID)
				}
			})
		}
	}
}

// shortGrace is a release whose pod was deleted during a migration that takes longer than the pod may take.
func shortGrace(t *testing.T, onInterrupted string) *rollup {
	t.Helper()
	r := prepare(t, blockTime)
	// Without an undo point, the plan says what follows an interrupted migration.
	r.upgrade(with(r.base(slowMigration(t, 75, onInterrupted)), values{"stopSeconds": 30, "undo": "off"}))
	p := r.phase("sequencer-0", "migrating")
	r.kubectl("delete", "pod", p.Metadata.Name, "--wait=false")
	r.await("sequencer-0", "is another pod", func(now pod) bool { return now.Metadata.UID != "" && now.Metadata.UID != p.Metadata.UID })
	r.interrupted["sequencer-0"] = true
	return r
}

func TestGraceShorterThanTheMigrationRunsItAgain(t *testing.T) {
	t.Parallel()
	shortGrace(t, "rerun").upgraded(2, "v2", 81)
}

func TestGraceShorterThanTheMigrationHalts(t *testing.T) {
	t.Parallel()
	r := shortGrace(t, "halt")
	p := r.await("sequencer-0", "has failed", func(p pod) bool { return p.ended() != nil && p.ended().Message != "" })
	assert.Equal(t, 78, p.ended().ExitCode)
	assert.Contains(t, p.ended().Message, "migration")
	require.NotNil(t, r.stateOf("sequencer-0").Migrating, "nothing has touched the half migrated state")
	// Somebody has looked at the migration: this one can be run again.
	r.upgrade(with(r.values, slowMigration(t, 75, "rerun").values(), values{"check": values{"enabled": false}}))
	r.upgraded(2, "v2", 81)
}

// The migration takes longer than the patience of every probe.
func TestMigrationOutlastsProbes(t *testing.T) {
	t.Parallel()
	for kind, diagnostic := range map[string]bool{"http": false, "exec": true} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := prepare(t, blockTime)
			impatient := values{"initialDelaySeconds": 0, "periodSeconds": 2, "failureThreshold": 2}
			r.upgrade(with(r.base(slowMigration(t, 40, "rerun")), values{
				"diagnosticProbes": diagnostic, "probes": values{"liveness": impatient, "readiness": impatient},
			}))
			p := r.phase("sequencer-0", "migrating")
			r.await("sequencer-0", "is not ready", func(p pod) bool { return !p.ready() })
			r.upgraded(2, "v2", 81)
			for which, p := range r.pods() {
				assert.Zero(t, p.restarts(), which)
			}
			assert.Equal(t, p.Metadata.UID, r.pod("sequencer-0").Metadata.UID)
			if diagnostic {
				assert.Contains(t, r.kubectl("get", "events"), "a migration is running")
			}
		})
	}
}

func TestNodeThatRunsOutOfMemory(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	r.upgrade(r.base(release(t, "", files{"v1/config.toml": faulty(t, "v1", "stderr_flood = 400000000")})))
	p := r.await("sequencer-0", "has run out of memory", func(p pod) bool { return p.ended() != nil && p.ended().Message != "" })
	assert.Equal(t, 137, p.ended().ExitCode)
	assert.Contains(t, p.ended().Message, "by the kernel's out-of-memory killer")
	assert.Contains(t, r.kubectl("describe", "pod", p.Metadata.Name), "OOMKilled")
	r.upgrade(with(r.values, localNetworkRelease(t).values(), values{"check": values{"enabled": false}}))
	r.upgraded(2, "v2", 81)
}
