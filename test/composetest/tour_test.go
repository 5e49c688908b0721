package composetest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/compose/network"
	"rollup-entrypoint/test/dockertest"
)

func TestNetworkUpgradesTwiceAndAllNodesHaveTheSameRoots(t *testing.T) {
	t.Parallel()
	for _, compose := range [][]string{composeV1, composeV2} {
		t.Run(strings.Join(compose, " "), func(t *testing.T) {
			t.Parallel()
			n := newTestnet(t, compose)
			n.do("up", "-d")
			n.upgraded()
			const beyond = 84 // a few blocks of v2
			n.until(fmt.Sprintf("had slot %d final on each node", beyond), func(r network.Report) bool {
				return !slices.ContainsFunc(r.Nodes, func(node network.Reading) bool { return node.Slot == nil || *node.Slot < beyond })
			})
			table := n.table("--version", "v2")
			require.Zero(t, table.Code, table.Both)
			require.Contains(t, table.Out, "state roots: equal on all 3 nodes")
			for slot := range beyond + 1 {
				roots := map[string]bool{}
				for _, node := range n.nodes {
					var answer struct {
						StateRoot string `json:"state_root"`
					}
					n.ask(fmt.Sprintf("%s/ledger/slots/%d", node.API, slot), &answer)
					roots[answer.StateRoot] = true
				}
				require.Len(t, roots, 1, "slot %d", slot)
			}
			for _, node := range n.nodes {
				var status struct {
					Versions []struct{ State, Migration string }
				}
				n.ask(node.Status+"/status", &status)
				require.Len(t, status.Versions, 3, node.Name)
				assert.Equal(t, "completed", status.Versions[0].State, node.Name)
				assert.Equal(t, "completed", status.Versions[1].Migration, node.Name)
				n.until("has a healthy "+node.Name, func(network.Report) bool {
					return n.inspect(node.Name, "{{.State.Health.Status}}") == "healthy"
				})
			}

			n.do("down", "-v")
			left := dockertest.Docker(t, "ps", "-aq", "--filter", "label=com.docker.compose.project="+n.project) +
				dockertest.Docker(t, "volume", "ls", "-q", "--filter", "label=com.docker.compose.project="+n.project)
			require.Empty(t, left)
			table = n.table("--wait", "0s")
			require.Equal(t, 1, table.Code)
			require.Contains(t, table.Out, "not compared")
		})
	}
}

func TestReplicaLeadsAfterTheLeaderWasStopped(t *testing.T) {
	t.Parallel()
	n := newTestnet(t, composeV1, "BLOCK_TIME=300ms")
	n.do("up", "-d")
	n.upgraded()
	first := leader(n.until("has a leader", func(r network.Report) bool { return leader(r) != "" }))
	n.do("stop", first)
	require.Equal(t, "0", n.inspect(first, "{{.State.ExitCode}}"))
	second := leader(n.until("has another leader", func(r network.Report) bool {
		name := leader(r)
		return name != "" && name != first
	}))
	// A node that exits 0 to become leader is restarted in place, and its container keeps running.
	log := dockertest.TryDocker(t, "logs", n.container(second)).Both
	require.Contains(t, log, "Exiting to restart as leader")
	require.Contains(t, log, "restarting the node in place")
	require.Equal(t, "0", n.inspect(second, "{{.RestartCount}}"))
	n.do("start", first)
	n.upgraded()
	for i := range 10 {
		n.until("took a transaction", func(r network.Report) bool {
			name := leader(r)
			return name != "" && n.transaction(name, fmt.Sprintf("dHg%d", i)) == nil
		})
	}
	slot := n.upgraded().Slot
	n.until("executed them all", func(r network.Report) bool { return r.Equal && r.Slot > slot+5 })
}

func TestReplicaCutOffFromTheDAThroughAnUpgradeEndsOnTheSameRoot(t *testing.T) {
	t.Parallel()
	n := newTestnet(t, composeV2, "BLOCK_TIME=1500ms")
	n.do("up", "-d")
	cut := n.container("replica-1")
	dockertest.Docker(t, "network", "disconnect", n.project+"_da", cut)
	read := func(r network.Report) (others, itself network.Reading) { return r.Nodes[1], r.Nodes[2] }
	n.until("upgraded without the replica", func(r network.Report) bool {
		others, itself := read(r)
		return others.Version == "v1" && others.Ready && itself.Version == "v0" && itself.Height != nil && *itself.Height < 40
	})
	dockertest.Docker(t, "network", "connect", n.project+"_da", cut)
	n.until("has the replica at v1", func(r network.Report) bool {
		_, itself := read(r)
		return r.Equal && itself.Version != "v0" && r.Slot > 40
	})
	n.upgraded()
}

func TestPrometheusScrapesAllNodesWithOurRules(t *testing.T) {
	t.Parallel()
	makePrometheus(t)
	for _, compose := range [][]string{composeV1, composeV2} {
		t.Run(strings.Join(compose, " "), func(t *testing.T) {
			t.Parallel()
			n := newTestnet(t, compose, "PROMETHEUS_IMAGE="+prometheusTag)
			// Not the whole profile: Grafana's image is only available from a registry.
			n.do("--profile", "monitoring", "up", "-d", "prometheus", "replica-0", "replica-1")
			address := "http://" + n.ports["PROMETHEUS_PORT"]
			n.until("is scraped", func(network.Report) bool {
				up, err := values(address, "up")
				return err == nil && len(up) == 3 && up["sequencer:9848"] == 1 && up["replica-0:9848"] == 1 && up["replica-1:9848"] == 1
			})
			n.until("has heights", func(network.Report) bool {
				heights, err := values(address, "entrypoint_height_blocks")
				return err == nil && len(heights) == 3
			})
			var rules struct {
				Data struct {
					Groups []struct {
						Rules []struct{ Name, Health string }
					}
				}
			}
			n.ask(address+"/api/v1/rules", &rules)
			require.NotEmpty(t, rules.Data.Groups)
			for _, group := range rules.Data.Groups {
				for _, rule := range group.Rules {
					assert.Contains(t, []string{"ok", "unknown"}, rule.Health, rule.Name)
				}
			}
		})
	}
}

func TestBothComposesReadTheSameServices(t *testing.T) {
	t.Parallel()
	for _, compose := range [][]string{composeV1, composeV2} {
		n := newTestnet(t, compose)
		services := strings.Fields(n.do("--profile", "monitoring", "config", "--services"))
		require.ElementsMatch(t, []string{"da", "sequencer", "replica-0", "replica-1", "prometheus", "grafana"}, services)
	}
}

func post(url, body string) error {
	response, err := client.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}
