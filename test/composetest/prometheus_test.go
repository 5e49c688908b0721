package composetest

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"testing"
	"time"

	"rollup-entrypoint/test/dockertest"
)

// standIn puts Debian's Prometheus into an image with the folders, user and arguments of prom/prometheus.
const standIn = `FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* && \
    mkdir -p /prometheus && chown nobody:nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
`

func makePrometheus(t *testing.T) {
	t.Helper()
	// The legacy builder, because BuildKit asks a registry about a base image even if the engine has it.
	dockertest.Command{Env: []string{"DOCKER_BUILDKIT=0"}, Stdin: standIn, Timeout: 10 * time.Minute}.Must(t, "build", "-q", "-t", prometheusTag, "-")
}

// values returns the values that a query gives, by instance.
func values(address, query string) (map[string]float64, error) {
	response, err := client.Get(address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Status string
		Data   struct {
			Result []struct {
				Metric struct{ Instance string }
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for _, series := range answer.Data.Result {
		if found[series.Metric.Instance], err = strconv.ParseFloat(fmt.Sprint(series.Value[1]), 64); err != nil {
			return nil, err
		}
	}
	return found, nil
}
