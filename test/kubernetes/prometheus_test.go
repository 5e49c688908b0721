package kubernetes

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
	"rollup-entrypoint/test/ports"
)

// prometheus is the URL of a running Prometheus.
type prometheus string

// prometheus starts a Prometheus with what Prometheus Operator would give it: the ServiceMonitor and the PrometheusRule.
func (r *rollup) prometheus() prometheus {
	r.t.Helper()
	on := values{"enabled": true}
	objects := r.template(with(r.values, values{"metrics": values{"serviceMonitor": on, "prometheusRule": on}}))
	monitor, rules := objects["ServiceMonitor"], objects["PrometheusRule"]
	require.NotNil(r.t, monitor)
	require.NotNil(r.t, rules)
	dir := r.t.TempDir()
	write := func(file string, content any) {
		text, err := json.Marshal(content) // JSON is YAML
		require.NoError(r.t, err)
		require.NoError(r.t, os.WriteFile(filepath.Join(dir, file), text, 0o600))
	}
	write("rules.yml", rules["spec"])
	write("prometheus.yml", values{
		"global": values{"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": []any{"rules.yml"},
		"scrape_configs": []any{r.scrapeConfig(monitor["spec"].(map[string]any))},
	})
	address := fmt.Sprintf("127.0.0.1:%d", ports.Hold(r.t))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(r.t, err)
	server := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	server.Stderr = log
	require.NoError(r.t, server.Start())
	r.t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if text, err := os.ReadFile(log.Name()); r.t.Failed() && err == nil {
			r.t.Logf("prometheus: %s", text)
		}
	})
	return prometheus("http://" + address)
}

// instances are those for which an expression has a value.
func (p prometheus) instances(expression string) (found []string) {
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	ask(string(p)+"/api/v1/query?query="+url.QueryEscape(expression), &answer)
	for _, result := range answer.Data.Result {
		found = append(found, result.Metric["instance"])
	}
	slices.Sort(found)
	return found
}

// unhealthy are the rules that were not evaluated yet, or could not be. It is false if there are none at all.
func (p prometheus) unhealthy() (names []string, any bool) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	ask(string(p)+"/api/v1/rules", &answer)
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			any = true
			if rule.Health != "ok" {
				names = append(names, rule.Name+": "+rule.LastError)
			}
		}
	}
	return names, any
}

func TestPrometheusScrapes(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("prometheus"); err != nil {
		dockertest.Missing(t, "prometheus is missing: .ci/kubernetes installs it")
	}
	r := installed(t, blockTime)
	p := r.prometheus()
	want := []string{r.namespace + "/rollup-replicas-0", r.namespace + "/rollup-sequencer-0"}
	until(t, "Prometheus has the height of each pod",
		func() bool { return slices.Equal(want, p.instances(`entrypoint_height_blocks{job="rollup"}`)) },
		func() any { return p.instances("up") })
	until(t, "all rules were evaluated",
		func() bool { failed, any := p.unhealthy(); return any && len(failed) == 0 },
		func() any { failed, _ := p.unhealthy(); return failed })
	r.upgraded(2, "v2", 90)
}

// scrapeConfig is what Prometheus Operator makes of a ServiceMonitor. The targets are those of a Service, which are looked
// up here because Debian's Prometheus cannot ask Kubernetes.
func (r *rollup) scrapeConfig(monitor map[string]any) values {
	r.t.Helper()
	endpoint := monitor["endpoints"].([]any)[0].(map[string]any)
	var labels []string
	for key, value := range monitor["selector"].(map[string]any)["matchLabels"].(map[string]any) {
		labels = append(labels, key+"="+value.(string))
	}
	var services struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	read(r.t, "/api/v1/namespaces/"+r.namespace+"/services?labelSelector="+url.QueryEscape(strings.Join(labels, ",")), &services)
	require.Len(r.t, services.Items, 1, "the ServiceMonitor selects one Service: %s", labels)
	var list struct {
		Items []struct {
			Endpoints []struct {
				Addresses []string
				TargetRef struct{ Namespace, Name string }
			}
			Ports []struct {
				Name string
				Port int
			}
		}
	}
	read(r.t, "/apis/discovery.k8s.io/v1/namespaces/"+r.namespace+"/endpointslices?labelSelector="+
		url.QueryEscape("kubernetes.io/service-name="+services.Items[0].Metadata.Name), &list)
	var targets []any
	for _, slice := range list.Items {
		for _, port := range slice.Ports {
			if port.Name != endpoint["port"] {
				continue
			}
			for _, pod := range slice.Endpoints {
				targets = append(targets, values{
					"targets": []any{net.JoinHostPort(pod.Addresses[0], strconv.Itoa(port.Port))},
					"labels":  values{"__meta_kubernetes_namespace": pod.TargetRef.Namespace, "__meta_kubernetes_pod_name": pod.TargetRef.Name},
				})
			}
		}
	}
	var relabel []any
	names := map[string]string{"targetLabel": "target_label", "sourceLabels": "source_labels"}
	for _, rule := range endpoint["relabelings"].([]any) {
		renamed := values{}
		for key, value := range rule.(map[string]any) {
			if names[key] != "" {
				key = names[key]
			}
			renamed[key] = value
		}
		relabel = append(relabel, renamed)
	}
	return values{"job_name": "operator", "metrics_path": endpoint["path"], "static_configs": targets, "relabel_configs": relabel}
}
