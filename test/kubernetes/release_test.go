package kubernetes

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/compose/network"
	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/test/dockertest"
)

// values are values of the chart.
type values = map[string]any

const (
	// name of the release, and of what the chart makes.
	name = "rollup"
	// user is that of the image.
	user = 65532
)

// rollup is a release of the chart in a namespace of its own, with a DA.
type rollup struct {
	t         *testing.T
	namespace string
	// values that the chart has now.
	values values
	// interrupted are the pods whose migrations were interrupted, and begun twice therefore.
	interrupted map[string]bool
}

// prepare makes a namespace with a DA and volumes for one sequencer and two replicas. It installs nothing.
func prepare(t *testing.T, blockTime time.Duration) *rollup {
	t.Helper()
	r := &rollup{t: t, namespace: namespaceOf(t), interrupted: map[string]bool{}}
	apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {
		pod-security.kubernetes.io/enforce: restricted, pod-security.kubernetes.io/warn: restricted}}}`, r.namespace))
	t.Cleanup(r.remove)
	for _, set := range []string{"sequencer-0", "sequencer-1", "replicas-0", "replicas-1"} {
		r.volume("data-" + name + "-" + set)
	}
	r.da(blockTime)
	return r
}

// namespaceOf makes a name of that of the test.
func namespaceOf(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for i, letter := range strings.TrimPrefix(t.Name(), "Test") {
		switch {
		case letter >= 'A' && letter <= 'Z' && i > 0:
			out.WriteString("-" + strings.ToLower(string(letter)))
		case letter == '/':
			out.WriteString("-")
		default:
			out.WriteString(strings.ToLower(string(letter)))
		}
	}
	require.LessOrEqual(t, out.Len(), 63, "the name of the test is too long for a namespace")
	return strings.ReplaceAll(out.String(), "_", "-")
}

// volume makes a volume for a claim. It belongs to root, as a new disk does.
func (r *rollup) volume(claim string) {
	r.t.Helper()
	require.NoError(r.t, os.MkdirAll(r.dir(claim), 0o755))
	apply(r.t, fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolume, metadata: {name: %[1]s-%[2]s}, spec: {
		capacity: {storage: 100Gi}, accessModes: [ReadWriteOnce], storageClassName: local, persistentVolumeReclaimPolicy: Retain,
		claimRef: {namespace: %[1]s, name: %[2]s}, local: {path: %[3]s},
		nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]}}}}`,
		r.namespace, claim, r.dir(claim)))
}

// dir is the folder of the node that is the volume of a claim.
func (r *rollup) dir(claim string) string {
	return filepath.Join(os.Getenv("VOLUMES"), r.namespace, claim)
}

// da starts the stand-in DA. Its chain, which begins now, outlives the container.
func (r *rollup) da(blockTime time.Duration) {
	r.t.Helper()
	apply(r.t, `{apiVersion: v1, kind: Service, metadata: {name: da, namespace: `+r.namespace+`},
		spec: {selector: {app: da}, ports: [{port: 26658}]}}`,
		fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: da, namespace: %s, labels: {app: da}}, spec: {
		automountServiceAccountToken: false, enableServiceLinks: false, terminationGracePeriodSeconds: 1,
		securityContext: {runAsNonRoot: true, runAsUser: %d, fsGroup: %[2]d, seccompProfile: {type: RuntimeDefault}},
		containers: [{name: da, image: %q, imagePullPolicy: Never,
			command: [/entrypoint, exec, --, /opt/rollup/versions/v0/rollup],
			args: [da, --listen, ":26658", --block-time, %s, --file, /data/da.json, --lease, 10s],
			securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}},
			volumeMounts: [{name: data, mountPath: /data}]}],
		volumes: [{name: data, emptyDir: {}}]}}`, r.namespace, user, localNetworkImage(r.t), blockTime))
}

// base are the values of every release here: one sequencer and one replica.
func (r *rollup) base(i images) values {
	r.t.Helper()
	return with(i.values(), values{
		"replicas":  values{"replicaCount": 1},
		"storage":   values{"size": "1Gi"},
		"resources": values{"requests": values{"cpu": "10m"}, "limits": values{"memory": "128Mi"}},
		// The node that is drained in one scenario is that of all others, too.
		"tolerations": []any{values{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}},
	})
}

// with returns values in which those of changes replace or extend others, at every level.
func with(v values, changes ...values) values {
	out := maps.Clone(v)
	for _, change := range changes {
		for key, value := range change {
			inner, isMap := value.(values)
			if old, wasMap := out[key].(values); isMap && wasMap {
				out[key] = with(old, inner)
				continue
			}
			out[key] = value
		}
	}
	return out
}

// helm runs helm in the namespace.
func (r *rollup) helm(args ...string) result {
	r.t.Helper()
	return try(r.t, "", append([]string{"helm", "-n", r.namespace}, args...)...)
}

// upgrade installs or upgrades the release with 'helm upgrade --install', and returns what helm says.
func (r *rollup) upgrade(v values, flags ...string) string {
	r.t.Helper()
	done := r.tryUpgrade(v, flags...)
	require.Zero(r.t, done.code, done.both)
	return done.both
}

func (r *rollup) tryUpgrade(v values, flags ...string) result {
	r.t.Helper()
	r.values = v
	args := []string{"helm", "-n", r.namespace, "upgrade", "--install", name, chart(r.t), "-f", "-", "--timeout", "6m"}
	return try(r.t, toJSON(r.t, v), append(args, flags...)...)
}

// chart is the folder of the chart.
func chart(t testing.TB) string { return filepath.Join(dockertest.Root(t), "charts", "rollup") }

// toJSON is for helm, which reads JSON as YAML.
func toJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// kubectl runs kubectl in the namespace; it must succeed.
func (r *rollup) kubectl(args ...string) string {
	r.t.Helper()
	return must(r.t, "", append([]string{"kubectl", "-n", r.namespace}, args...)...)
}

func (r *rollup) remove() {
	if r.t.Failed() {
		for _, args := range [][]string{
			{"get", "all,pvc", "-o", "wide"},
			{"describe", "pods"},
			{"get", "events", "--sort-by=.lastTimestamp"},
			{"logs", "--prefix", "--tail=40", "-l", "app.kubernetes.io/name=rollup"},
			{"logs", "--prefix", "--tail=40", "--previous", "-l", "app.kubernetes.io/name=rollup"},
		} {
			r.t.Logf("kubectl %s\n%s", strings.Join(args, " "), try(r.t, "", append([]string{"kubectl", "-n", r.namespace}, args...)...).both)
		}
	}
	// What is in it ends while the next scenario begins.
	try(r.t, "", "kubectl", "delete", "namespace", r.namespace, "--wait=false")
}

// pod has the fields of a pod that tests use.
type pod struct {
	Metadata struct {
		Name              string
		UID               string
		Labels            map[string]string
		DeletionTimestamp string
	}
	Spec struct {
		ServiceAccountName string
	}
	Status struct {
		Phase             string
		PodIP             string
		Conditions        []struct{ Type, Status string }
		ContainerStatuses []struct {
			Ready        bool
			RestartCount int
			ContainerID  string
			State        containerState
			LastState    containerState
		}
	}
}

type containerState struct {
	Running    *struct{ StartedAt string }
	Waiting    *struct{ Reason, Message string }
	Terminated *terminated
}

type terminated struct {
	ExitCode        int
	Reason, Message string
}

func (p pod) ready() bool {
	return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].Ready && p.Metadata.DeletionTimestamp == ""
}

func (p pod) restarts() (n int) {
	for _, c := range p.Status.ContainerStatuses {
		n += c.RestartCount
	}
	return n
}

// ended is how the container ended last, or nil.
func (p pod) ended() *terminated {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Terminated != nil {
			return c.State.Terminated
		}
		if c.LastState.Terminated != nil {
			return c.LastState.Terminated
		}
	}
	return nil
}

// url is that of a port of the pod.
func (p pod) url(port int) string {
	return "http://" + net.JoinHostPort(p.Status.PodIP, strconv.Itoa(port))
}

// pods returns the pods of the chart, by name without that of the release.
func (r *rollup) pods() map[string]pod {
	r.t.Helper()
	var list struct{ Items []pod }
	read(r.t, "/api/v1/namespaces/"+r.namespace+"/pods?labelSelector=app.kubernetes.io/component", &list)
	all := map[string]pod{}
	for _, p := range list.Items {
		switch p.Metadata.Labels["app.kubernetes.io/component"] {
		case "sequencer", "replicas":
			all[strings.TrimPrefix(p.Metadata.Name, name+"-")] = p
		}
	}
	return all
}

// pod returns a pod, which may not exist.
func (r *rollup) pod(which string) pod {
	r.t.Helper()
	return r.pods()[which]
}

// await waits until a pod is as wanted, and returns it.
func (r *rollup) await(which, what string, wanted func(pod) bool) (p pod) {
	r.t.Helper()
	until(r.t, which+" "+what, func() bool { p = r.pod(which); return wanted(p) }, func() any { return fmt.Sprintf("%+v", p) })
	return p
}

// nodes are the addresses of all pods now.
func (r *rollup) nodes() (nodes []network.Node) {
	for which, p := range r.pods() {
		nodes = append(nodes, network.Node{Name: which, Status: p.url(9848), API: p.url(12346)})
	}
	return nodes
}

// upgraded waits until all pods are ready, run that version and have the same state root at a slot above height.
func (r *rollup) upgraded(pods int, version string, height uint64) {
	r.t.Helper()
	var report network.Report
	until(r.t, "all run "+version, func() bool {
		report = network.Read(r.t.Context(), r.nodes())
		require.False(r.t, report.Complete && !report.Equal, "the state roots differ: %+v", report)
		for _, node := range report.Nodes {
			if node.Version != version || !node.Ready {
				return false
			}
		}
		return report.Equal && report.Slot > height && len(report.Nodes) == pods
	}, func() any { return report })
	r.verify()
}

// status is what /status of a pod answers, or nil if it does not.
func (r *rollup) status(p pod) map[string]any {
	if p.Status.PodIP == "" {
		return nil
	}
	var answer map[string]any
	if !ask(p.url(9848)+"/status", &answer) {
		return nil
	}
	return answer
}

// phase waits until a pod's entrypoint is in a phase, and returns the pod.
func (r *rollup) phase(which, phase string) (p pod) {
	r.t.Helper()
	p = r.await(which, "has an address", func(p pod) bool { return p.Status.PodIP != "" })
	var seen map[string]any
	until(r.t, which+" is "+phase, func() bool {
		if seen = r.status(p); seen == nil {
			p = r.pod(which)
		}
		return seen["phase"] == phase
	}, func() any { return seen })
	return p
}

// claims are the claims of the namespace, by name.
func (r *rollup) claims() (names []string) {
	r.t.Helper()
	var list struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	read(r.t, "/api/v1/namespaces/"+r.namespace+"/persistentvolumeclaims", &list)
	for _, claim := range list.Items {
		names = append(names, claim.Metadata.Name)
	}
	return names
}

// checkpoint is that on the volume of a pod.
func (r *rollup) checkpoint(which string) checkpoint.Checkpoint {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir("data-"+name+"-"+which), "checkpoint.json"))
	require.NoError(r.t, err)
	var c checkpoint.Checkpoint
	require.NoError(r.t, json.Unmarshal(text, &c))
	return c
}

// history waits until the checkpoint of a pod, which follows what happens, has that many versions.
func (r *rollup) history(which string, versions int) {
	r.t.Helper()
	until(r.t, fmt.Sprintf("%s has a history of %d versions", which, versions),
		func() bool { return len(r.checkpoint(which).History) == versions }, func() any { return r.checkpoint(which) })
}

// verify checks, on each volume, that every migration ran once, and that no node or migration began while another had the
// state.
func (r *rollup) verify() {
	r.t.Helper()
	for which := range r.pods() {
		state := filepath.Join(r.dir("data-"+name+"-"+which), "state")
		entries, err := mockrollup.ReadJournal(state)
		require.NoError(r.t, err)
		require.NotEmpty(r.t, entries, which)
		require.Nil(r.t, mockrollup.Overlap(entries), "a node found the state of %s locked", which)
		require.Nil(r.t, outlived(entries), "two nodes on the volume of %s", which)
		for _, entry := range r.checkpoint(which).History {
			if entry.Migration == nil {
				continue
			}
			want := 1
			if r.interrupted[which] && entry.VersionIndex == 1 {
				want = 2
			}
			require.Equal(r.t, want, entry.Migration.Runs, "%s: migration of version %d", which, entry.VersionIndex)
			require.False(r.t, entry.Migration.CompletedAt.IsZero(), "%s: migration of version %d", which, entry.VersionIndex)
		}
		disk, err := mockrollup.ReadState(state)
		require.NoError(r.t, err)
		seen := map[uint64]bool{}
		for _, migration := range disk.Migrations {
			require.False(r.t, seen[migration.To], "%s: migrated to %d twice", which, migration.To)
			seen[migration.To] = true
		}
	}
}

// outlived is the first line in a journal of a node or migration after another one has begun, or nil.
func outlived(journal []mockrollup.Entry) *mockrollup.Entry {
	newest := 0
	for _, entry := range journal {
		if entry.Event == mockrollup.EventStart {
			newest = entry.PID
		}
		if entry.PID != newest {
			return &entry
		}
	}
	return nil
}

// client keeps no connection open: that could delay the end of a node.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask decodes what a URL answers with 200, and reports whether it does.
func ask(url string, into any) bool {
	response, err := client.Get(url)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK && json.NewDecoder(response.Body).Decode(into) == nil
}

// mustHelm runs helm in the namespace; it must succeed.
func (r *rollup) mustHelm(args ...string) string {
	r.t.Helper()
	done := r.helm(args...)
	require.Zero(r.t, done.code, done.both)
	return done.both
}

func TestJournalShowsTwoNodesAtOnce(t *testing.T) {
	line := func(pid int, event string) mockrollup.Entry { return mockrollup.Entry{PID: pid, Event: event} }
	first := []mockrollup.Entry{line(1, mockrollup.EventStart), line(1, mockrollup.EventReady)}
	after := append(slices.Clone(first), line(1, mockrollup.EventExit), line(2, mockrollup.EventStart), line(2, mockrollup.EventExit))
	require.Nil(t, outlived(after))
	require.NotNil(t, outlived(append(slices.Clone(first), line(2, mockrollup.EventStart), line(1, mockrollup.EventExit))))
}
