package program

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/test/companion"
	"rollup-entrypoint/test/ports"
)

// prometheus is a real one that scrapes a chain.
type prometheus struct {
	c   *chain
	url string
}

// startPrometheus has a real Prometheus scrape the chain each second. A scrape may take as long, and one that takes longer
// would make every series stale: on a busy machine 100 ms are too few.
func startPrometheus(c *chain) *prometheus {
	c.t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") == "true" {
			c.t.Fatal("prometheus is missing: install Debian's package prometheus")
		}
		c.t.Skip("prometheus is missing: Debian's package prometheus has it")
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports.Hold(c.t))
	config := filepath.Join(c.dir, "prometheus.yml")
	require.NoError(c.t, os.WriteFile(config, fmt.Appendf(nil,
		"global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs: [{job_name: rollup, static_configs: [{targets: ['%s']}]}]\n", c.statusAddress), 0o644))
	cmd := exec.Command(binary, "--config.file", config, "--storage.tsdb.path", filepath.Join(c.dir, "tsdb"), "--web.listen-address", address, "--log.level", "warn")
	log, err := os.Create(filepath.Join(c.dir, "prometheus.log"))
	require.NoError(c.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	c.t.Cleanup(func() {
		_ = log.Close()
		if c.t.Failed() {
			c.t.Logf("prometheus: %s", readText(log.Name()))
		}
	})
	companion.Start(c.t, cmd)
	return &prometheus{c, "http://" + address}
}

// value gives the only sample of an instant query.
func (p *prometheus) value(query string) (value string, found bool) {
	resp, err := http.Get(p.url + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return "", false
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil || len(answer.Data.Result) != 1 {
		return "", false
	}
	value, found = answer.Data.Result[0].Value[1].(string)
	return value, found
}

// await waits until a query gives the value.
func (p *prometheus) await(query, want string) {
	p.c.t.Helper()
	var have string
	p.c.awaitOr(query+" to be "+want, func() bool {
		have, _ = p.value(query)
		return have == want
	}, func() string { return "have: " + have })
}

// What a dashboard and an alert see of two upgrades: the series that a real Prometheus has recorded.
func TestPrometheusRecordsTwoUpgrades(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10}, version{stop: 20, migrates: true}, version{stop: 30})
	c.waitingMigration(1)
	c.da.set(5, 5)
	p := startPrometheus(c)
	c.start("--when-finished=wait")
	p.await(`entrypoint_height_blocks`, "5")
	p.await(`entrypoint_upgrade_remaining_blocks`, "5")
	p.await(`entrypoint_phase{phase="running"}`, "1")
	p.await(`entrypoint_node_ready`, "1")
	c.da.set(12, 12)
	p.await(`entrypoint_phase{phase="migrating"}`, "1")
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "go"), nil, 0o644))
	p.await(`entrypoint_height_blocks`, "12")
	p.await(`entrypoint_version`, "1")
	c.da.set(25, 25)
	p.await(`entrypoint_height_blocks`, "25")
	c.da.set(40, 40)
	p.await(`entrypoint_phase{phase="finished"}`, "1")
	c.awaitPhase(sequencer.PhaseFinished)
	for query, want := range map[string]string{
		`max_over_time(up[1h])`:                                                             "1",
		`changes(entrypoint_version[1h])`:                                                   "2",
		`max_over_time(entrypoint_phase{phase="failed"}[1h])`:                               "0",
		`count(count_over_time(entrypoint_version_info[1h]))`:                               "3",
		`sum(entrypoint_phase)`:                                                             "1",
		`entrypoint_node_starts_total{version="0"}`:                                         "1",
		`entrypoint_node_starts_total{version="1"}`:                                         "1",
		`sum(entrypoint_process_exits_total)`:                                               "4",
		`entrypoint_process_exits_total{process="migration",code="0"}`:                      "1",
		`count(entrypoint_handover_duration_seconds)`:                                       "2",
		`count(entrypoint_handover_question_seconds > 0)`:                                   "2",
		`entrypoint_migration_duration_seconds{version="1"} > bool 0`:                       "1",
		`entrypoint_checkpoint_write_duration_seconds_count > bool 5`:                       "1",
		`entrypoint_checkpoint_write_failures_total`:                                        "0",
		`sum(entrypoint_preflight_problems)`:                                                "0",
		`time() - entrypoint_start_time_seconds > bool 0`:                                   "1",
		`max_over_time(entrypoint_height_blocks[1h]) <= bool 30`:                            "1",
		`entrypoint_height_timestamp_seconds >= bool 0 or absent(entrypoint_height_blocks)`: "1",
	} {
		have, _ := p.value(query)
		assert.Equal(t, want, have, query)
	}
}
