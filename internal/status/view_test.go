package status

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hostile is a program that has taken our port: it answers every question with what serve writes.
func hostile(t *testing.T, serve http.HandlerFunc) Client {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	return Client{Listen: server.Listener.Addr().String()}
}

// show asks a server that answers with body, and shows what it says.
func show(t *testing.T, body string) (view string, err error) {
	t.Helper()
	client := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(checkpointHeader, "") // it says that it is one of ours
		_, _ = w.Write([]byte(body))
	})
	r, err := client.Report(t.Context())
	if err != nil {
		return "", err
	}
	return r.View(0), nil
}

// extremes are values for each number of a report.
var extremes = []string{
	"0", "-1", "1", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "18446744073709551614",
	"1e308", "-1e308", "1e-320", "0.1",
}

// everyNumber is a report with all that is shown. Each %s is a number.
const everyNumber = `{"phase":"running","phase_since":"0001-01-01T00:00:00Z","version_index":0,"version":"v0",
	"height":{"blocks":%s,"read_at":"9999-12-31T23:59:59Z","age_seconds":%s},"blocks_per_second":%s,"durable_height":%s,
	"next_upgrade":{"version_index":1,"version":"v1","stop_height":%s,"remaining_blocks":%s,"eta_seconds":%s},
	"versions":[{"version_index":0,"start_height":%s,"stop_height":%s},{"version_index":%s,"start_height":%s,"stop_height":%s}],
	"node":{"pid":%s,"started_at":"9999-12-31T23:59:59Z"},"restarts":%s,
	"copying":{"done_bytes":%s,"total_bytes":%s,"eta_seconds":%s},"undo_point":{"height":%s,"bytes":%s},"hook":{"pid":%s},"undo_points_put_back":%s}`

func TestStatusOfAHostileServerWithExtremeNumbersIsShown(t *testing.T) {
	t.Parallel()
	places := strings.Count(everyNumber, "%s")
	shown := 0
	for n := range places * len(extremes) {
		for _, others := range []string{"0", "5"} { // 2^64-1 is the worst stop height of a version that starts at 0
			values := make([]any, places)
			for i := range values {
				values[i] = others
			}
			values[n/len(extremes)] = extremes[n%len(extremes)]
			view, err := show(t, fmt.Sprintf(everyNumber, values...))
			if err != nil {
				assert.ErrorContains(t, err, "it is not an entrypoint") // a fraction for a height
				continue
			}
			shown++
			assert.Less(t, len(view), 2000, view)
		}
	}
	assert.Greater(t, shown, places*5)
	for _, all := range []string{"18446744073709551615", "0"} {
		text := regexp.MustCompile(`"(pid|version_index|bytes|done_bytes|total_bytes)":%s`).ReplaceAllString(everyNumber, `"$1":1`)
		values := make([]any, strings.Count(text, "%s"))
		for i := range values {
			values[i] = all
		}
		_, err := show(t, fmt.Sprintf(text, values...))
		require.NoError(t, err)
	}
}

func TestStatusOfAHostileServerIsRefusedIfItIsNone(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing":              "",
		"no JSON":              "<html>",
		"null":                 "null",
		"deep":                 strings.Repeat(`{"versions":[`, 1<<18),
		"deep, and closed":     strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20),
		"deep in our key":      `{"phase":"running","versions":[{}],"x":` + strings.Repeat("[", 1<<20),
		"huge":                 `{"phase":"running","versions":[{}],"version":"` + strings.Repeat("x", answerLimit) + `"}`,
		"no version":           `{"phase":"running"}`,
		"version out of range": `{"phase":"running","versions":[{}],"version_index":1}`,
		"version below zero":   `{"phase":"running","versions":[{}],"version_index":-1}`,
		"a list for a report":  `[1]`,
		"a text for a height":  `{"phase":"running","versions":[{}],"height":"5"}`,
		"a number for a phase": `{"phase":1,"versions":[{}]}`,
		"a height beyond all":  `{"phase":"running","versions":[{}],"height":{"blocks":18446744073709551616}}`,
		"a number beyond all":  `{"phase":"running","versions":[{}],"blocks_per_second":1e999}`,
		"a year beyond all":    `{"phase":"running","versions":[{}],"phase_since":"99999-01-01T00:00:00Z"}`,
	} {
		_, err := show(t, body)
		assert.ErrorContains(t, err, "it is not an entrypoint", name)
	}
	nulls := `{"phase":"running","versions":[null],"height":null,"next_upgrade":null,"node":null,"stamp":null}`
	_, err := show(t, nulls)
	assert.NoError(t, err)
}

func TestStatusOfAHostileServerFillsNoTerminal(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(`\u202e\u001b[2J\u009b\n`, 5_000)
	versions := strings.TrimSuffix(strings.Repeat(`{"version":"`+long[:23*50]+`","state":"`+long[:23*50]+`"},`, 1000), ",")
	view, err := show(t, `{"phase":"`+long+`","version":"`+long+`","not_ready_because":"`+long+`","next_upgrade":{"version_index":0,"version":"`+long+`",
		"preflight":{"problems":["`+strings.Repeat(`p","`, 50_000)+`"]}},"last_failure":{"text":"`+long+`"},"versions":[`+versions+`]}`)
	require.NoError(t, err)
	assert.Less(t, len(view), 1<<20)
	assert.Less(t, strings.Count(view, "\n"), 2*rowLimit+20)
	assert.Contains(t, view, "and 800 more")
	for _, r := range view {
		require.True(t, r == '\n' || unicode.IsGraphic(r), "%q", r)
	}
}

// A client has a few seconds, whatever the server does with them.
func TestStatusOfAHostileServerThatIsSlowIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	endless := func(w http.ResponseWriter, r *http.Request, pause time.Duration) {
		_, _ = w.Write([]byte(`{"phase":"`))
		for r.Context().Err() == nil {
			_, err := w.Write([]byte("x"))
			if err != nil {
				return
			}
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(pause):
			}
		}
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, and nobody reads
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	for name, client := range map[string]Client{
		"drop by drop": hostile(t, func(w http.ResponseWriter, r *http.Request) { endless(w, r, 10*time.Millisecond) }),
		"headers, then nothing": hostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}),
		"no answer": hostile(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"no server": {Listen: silent.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := client.Report(t.Context())
			require.Error(t, err)
		})
	}
}
