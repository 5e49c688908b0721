// Package composetest runs the local network of compose.yaml on a real Docker engine, with each kind of Compose, using
// the commands that users type.
package composetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/compose/network"
	"rollup-entrypoint/test/dockertest"
	"rollup-entrypoint/test/ports"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

const (
	prometheusTag = "composetest/prometheus"
	// lookEvery is the pause between two looks at a network.
	lookEvery = 250 * time.Millisecond
	// deadline is for anything that a network of containers does on a busy machine. Only a failing test reaches it.
	deadline = 6 * time.Minute
)

// The two kinds of Compose.
var (
	composeV1 = []string{"docker-compose"}
	composeV2 = []string{"docker", "compose"}
)

// client keeps no connection open: that could delay the end of a node.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// testnet is a network with a project of its own.
type testnet struct {
	t       *testing.T
	compose []string
	project string
	env     []string
	nodes   []network.Node
	ports   map[string]string
}

// newTestnet prepares a network that is removed when the test ends. env is for compose.yaml.
func newTestnet(t *testing.T, compose []string, env ...string) *testnet {
	t.Helper()
	image := dockertest.NetworkImage(t)
	dockertest.Compose(t, compose...)
	n := &testnet{t: t, compose: compose, project: dockertest.Name(), ports: map[string]string{}}
	n.env = append([]string{"TESTNET_IMAGE=" + image}, env...)
	for _, name := range []string{"SEQUENCER", "REPLICA_0", "REPLICA_1"} {
		status, api := n.port(name+"_STATUS_PORT"), n.port(name+"_API_PORT")
		n.nodes = append(n.nodes, network.Node{
			Name: strings.ToLower(strings.ReplaceAll(name, "_", "-")), Status: "http://" + status, API: "http://" + api,
		})
	}
	n.port("PROMETHEUS_PORT")
	t.Cleanup(n.remove)
	return n
}

// port reserves a port for a variable of compose.yaml and returns its address. Docker's proxy binds it as net.Listen
// does.
func (n *testnet) port(variable string) string {
	n.t.Helper()
	port := ports.Hold(n.t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	n.env = append(n.env, fmt.Sprintf("%s=%d", variable, port))
	n.ports[variable] = address
	return address
}

// do runs Compose on the network.
func (n *testnet) do(args ...string) string {
	n.t.Helper()
	all := append(n.compose[1:len(n.compose):len(n.compose)],
		append([]string{"-f", filepath.Join(dockertest.Root(n.t), "compose", "compose.yaml"), "-p", n.project}, args...)...)
	return dockertest.Command{Name: n.compose[0], Env: n.env, Timeout: deadline}.Must(n.t, all...)
}

func (n *testnet) remove() {
	if n.t.Failed() {
		n.t.Logf("%s\n%s", n.table("--wait", "0s").Both, n.do("logs", "--no-color", "--tail", "60"))
	}
	n.do("--profile", "monitoring", "down", "-v", "--timeout", "30")
}

// container returns the id of a service's only container.
func (n *testnet) container(service string) string {
	n.t.Helper()
	id := n.do("ps", "-q", service)
	require.NotEmpty(n.t, id, service)
	return id
}

// table returns the output and exit code of 'make testnet-status'.
func (n *testnet) table(args ...string) dockertest.Result {
	n.t.Helper()
	return dockertest.Command{Name: "go", Env: n.env, Dir: dockertest.Root(n.t)}.Do(n.t,
		append([]string{"run", "-tags", "nethttpomithttp2", "./compose/testnet"}, args...)...)
}

// until waits until the network is as wanted, and returns its report. Roots that differ end the test at once.
func (n *testnet) until(what string, wanted func(network.Report) bool) network.Report {
	n.t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(lookEvery) {
		report := network.Read(n.t.Context(), n.nodes)
		require.False(n.t, report.Complete && !report.Equal, "the state roots differ: %+v", report)
		if wanted(report) {
			return report
		}
		require.True(n.t, time.Now().Before(end), "the network never %s: %+v", what, report)
	}
}

// upgraded waits until every node runs v2, is ready, and has the same root as the others.
func (n *testnet) upgraded() network.Report {
	n.t.Helper()
	return n.until("got to v2", func(r network.Report) bool {
		for _, node := range r.Nodes {
			if node.Version != "v2" || !node.Ready {
				return false
			}
		}
		return r.Equal && r.Slot > 80
	})
}

func leader(r network.Report) string {
	for _, node := range r.Nodes {
		if node.Leads {
			return node.Node
		}
	}
	return ""
}

func (n *testnet) node(name string) network.Node {
	n.t.Helper()
	for _, node := range n.nodes {
		if node.Name == name {
			return node
		}
	}
	require.FailNow(n.t, "no such node", name)
	return network.Node{}
}

// ask decodes what a URL answers.
func (n *testnet) ask(url string, into any) {
	n.t.Helper()
	response, err := client.Get(url)
	require.NoError(n.t, err)
	defer response.Body.Close()
	require.Equal(n.t, http.StatusOK, response.StatusCode, url)
	require.NoError(n.t, json.NewDecoder(response.Body).Decode(into), url)
}

// inspect returns a field of a container by its template.
func (n *testnet) inspect(service, template string) string {
	n.t.Helper()
	return dockertest.Docker(n.t, "inspect", "-f", template, n.container(service))
}

func (n *testnet) transaction(node, body string) error {
	return post(n.node(node).API+"/sequencer/txs", fmt.Sprintf(`{"body":"%s"}`, body))
}
