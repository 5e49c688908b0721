package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"rollup-entrypoint/compose/network"
)

// leader is the pod that leads, or "".
func (r *rollup) leader() string {
	for _, node := range network.Read(r.t.Context(), r.nodes()).Nodes {
		if node.Leads {
			return node.Node
		}
	}
	return ""
}

// elected is a release of two sequencers that choose their leader.
func elected(t *testing.T) *rollup {
	t.Helper()
	r := prepare(t, blockTime)
	r.upgrade(with(r.base(images{sequencer: localNetworkImage(t), replica: localNetworkImage(t)}), values{
		"sequencer": values{"replicaCount": 2, "readyRole": "any"}, "replicas": values{"replicaCount": 0},
	}))
	r.upgraded(2, "v2", 81)
	return r
}

func TestLeaderChange(t *testing.T) {
	t.Parallel()
	r := elected(t)
	var old string
	until(t, "one leads", func() bool { old = r.leader(); return old != "" }, func() any { return r.pods() })
	r.kubectl("delete", "pod", name+"-"+old, "--wait=false")
	until(t, "the other leads", func() bool { now := r.leader(); return now != "" && now != old }, func() any { return r.pods() })
	r.upgraded(2, "v2", 100)
	for which, p := range r.pods() {
		require.Zero(t, p.restarts(), "%s: who becomes leader is restarted in place", which)
	}
}

func TestDrainWaitsForTheBudget(t *testing.T) {
	t.Parallel()
	r := elected(t)
	before := r.pods()
	// Nothing can start on the node until it is uncordoned, except what tolerates that: all other scenarios.
	r.upgrade(with(r.values, values{"tolerations": []any{}, "podLabels": values{"drained": "true"}}), "--wait")
	r.upgraded(2, "v2", 90)
	for which, p := range r.pods() {
		require.NotEqual(t, before[which].Metadata.UID, p.Metadata.UID, which)
	}
	before = r.pods()
	drain := func(timeout string) result {
		return try(t, "", "kubectl", "drain", "node", "--pod-selector", "drained=true", "--timeout", timeout)
	}
	t.Cleanup(func() { must(t, "", "kubectl", "uncordon", "node") })
	refused := drain("20s")
	require.NotZero(t, refused.code, refused.both)
	assert.Contains(t, refused.both, "would violate the pod's disruption budget")
	gone := 0
	for which, old := range before {
		if r.pod(which).Metadata.UID != old.Metadata.UID {
			gone++
		}
	}
	require.Equal(t, 1, gone, "one pod is evicted, the other one waits for it")
	must(t, "", "kubectl", "uncordon", "node")
	r.upgraded(2, "v2", 100)
}

func TestWipedReplicaResyncs(t *testing.T) {
	t.Parallel()
	r := installed(t, blockTime)
	scaled := func(count int) values { return values{"replicas": values{"replicaCount": count}} }
	r.upgrade(with(r.values, scaled(0), values{"job": values{"enabled": true, "set": "replicas", "args": []any{"reset", "--yes"}}}))
	until(t, "the command has run", func() bool {
		var list struct {
			Items []struct{ Status struct{ Succeeded int } }
		}
		read(t, "/apis/batch/v1/namespaces/"+r.namespace+"/jobs", &list)
		return len(list.Items) == 1 && list.Items[0].Status.Succeeded == 1
	}, func() any { return r.kubectl("get", "pods") })
	require.NoFileExists(t, filepath.Join(r.dir("data-"+name+"-replicas-0"), "checkpoint.json"))
	r.upgrade(with(r.values, scaled(1), values{"job": values{"enabled": false}}))
	r.upgraded(2, "v2", 100)
	r.history("replicas-0", 2) // it has gone through all versions again
}

func TestArbitraryUser(t *testing.T) {
	t.Parallel()
	const id = 1000690000
	r := prepare(t, blockTime)
	// What OpenShift gives a namespace: a user of its own, group 0, and a group for volumes.
	r.upgrade(with(r.base(localNetworkRelease(t)), values{"podSecurityContext": values{"runAsUser": id, "runAsGroup": 0, "fsGroup": id}}))
	r.upgraded(2, "v2", 81)
	info, err := os.Stat(filepath.Join(r.dir("data-"+name+"-sequencer-0"), "checkpoint.json"))
	require.NoError(t, err)
	require.EqualValues(t, id, info.Sys().(*syscall.Stat_t).Uid)
}

func TestUserOfTheImage(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	// With no group for volumes, a volume has to belong to the user already.
	for _, claim := range []string{"data-rollup-sequencer-0", "data-rollup-replicas-0"} {
		require.NoError(t, os.Chown(r.dir(claim), user, 0))
	}
	r.upgrade(with(r.base(localNetworkRelease(t)), values{"podSecurityContext": values{
		"runAsUser": nil, "runAsGroup": nil, "fsGroup": nil, "fsGroupChangePolicy": nil,
	}}))
	r.upgraded(2, "v2", 81)
}

func TestSharedProcessNamespace(t *testing.T) {
	t.Parallel()
	r := prepare(t, blockTime)
	r.upgrade(with(r.base(localNetworkRelease(t)), values{"shareProcessNamespace": true}))
	r.upgraded(2, "v2", 81)
	entrypoint, _ := r.status(r.pod("sequencer-0"))["entrypoint"].(map[string]any)
	require.NotEqual(t, 1.0, entrypoint["pid"], "process 1 is the sandbox's")
	p := r.pod("sequencer-0")
	r.kubectl("delete", "pod", p.Metadata.Name)
	r.upgraded(2, "v2", 100)
	require.NotEqual(t, p.Metadata.UID, r.pod("sequencer-0").Metadata.UID)
}

// template renders the chart and returns one object of each kind.
func (r *rollup) template(v values) map[string]map[string]any {
	r.t.Helper()
	text := must(r.t, toJSON(r.t, v), "helm", "-n", r.namespace, "template", name, chart(r.t), "--kube-version", "1.34", "-f", "-")
	objects := map[string]map[string]any{}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var object map[string]any
		if decoder.Decode(&object) != nil {
			return objects
		}
		if kind, ok := object["kind"].(string); ok {
			objects[kind] = object
		}
	}
}

// What cannot run here is validated by the API server: a claim from a snapshot, a policy, monitors.
func TestWhatThisClusterLacksIsAccepted(t *testing.T) {
	t.Parallel()
	r := prepare(t, time.Hour)
	kinds := []string{"ServiceMonitor", "PodMonitor", "PrometheusRule"}
	for _, kind := range kinds {
		plural := strings.ToLower(kind) + "s"
		apply(t, fmt.Sprintf(`{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: %s.monitoring.coreos.com}, spec: {
			group: monitoring.coreos.com, scope: Namespaced, names: {kind: %s, plural: %[1]s}, versions: [{name: v1, served: true, storage: true,
			schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`, plural, kind))
		must(t, "", "kubectl", "wait", "--for=condition=Established", "crd/"+plural+".monitoring.coreos.com")
	}
	on := values{"enabled": true}
	full := with(r.base(localNetworkRelease(t)), values{
		"storage":       values{"size": "2Gi", "dataSource": values{"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "before-v1"}},
		"networkPolicy": values{"enabled": true, "apiFrom": []any{values{"podSelector": values{}}}, "statusFrom": []any{values{"namespaceSelector": values{}}}},
		"metrics":       values{"serviceMonitor": on, "prometheusRule": on, "dashboard": on},
		"sequencer":     values{"replicaCount": 2, "readyRole": "any"},
	})
	for what, v := range map[string]values{"a ServiceMonitor": full, "a PodMonitor": with(full, values{"metrics": values{"serviceMonitor": values{"enabled": false}, "podMonitor": on}})} {
		// Hooks run in the other scenarios.
		objects := must(t, toJSON(t, v), "helm", "-n", r.namespace, "template", name, chart(t), "--kube-version", "1.34", "--no-hooks", "-f", "-")
		done := try(t, objects, "kubectl", "-n", r.namespace, "apply", "--dry-run=server", "-f", "-")
		require.Zero(t, done.code, "%s: %s", what, done.both)
		assert.NotContains(t, done.both, "Warning", "Pod Security, or something deprecated: "+what)
		require.Greater(t, len(strings.Split(done.out, "\n")), 8, strconv.Quote(done.out))
	}
}
