package status

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

// deadline is only reached by a test that fails.
const deadline = time.Minute

// serving gives the address of a Status that is served as a run serves it.
func serving(t *testing.T, s *Status) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	s.Serve(listener)
	return listener.Addr().String()
}

func ask(t *testing.T, method, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

func TestRoutes(t *testing.T) {
	stopped := running()
	stopped.Stopping = true
	failed := running()
	failed.Phase = sequencer.PhaseFailed
	for _, test := range []struct {
		path  string
		state sequencer.State
		code  int
		kind  string
		part  string
	}{
		{"/healthz", running(), 200, "text/plain", "alive\n"},
		{"/healthz/", running(), 200, "text/plain", "alive\n"},
		{"/healthz", failed, 503, "text/plain", "the run has failed\n"},
		{"/readyz", running(), 200, "text/plain", "ready\n"},
		{"/readyz?role=leader", running(), 200, "text/plain", "ready\n"},
		{"/readyz?role=lead", running(), 400, "text/plain", `role is "lead", want leader`},
		{"/readyz", stopped, 503, "text/plain", "a stop was requested\n"},
		{"/status", running(), 200, "application/json", `"version_index": 1`},
		{"/metrics", running(), 200, "text/plain; version=0.0.4", "entrypoint_height_blocks 180\n"},
		{"/nothing", running(), 404, "text/plain", "want /, /status"},
		{"/status/../etc/passwd", running(), 404, "text/plain", "not found"},
	} {
		server := httptest.NewServer(newStatus(test.state, sovereign.Readiness{Leads: true}).Handler())
		resp, body := ask(t, http.MethodGet, server.URL+test.path)
		assert.Equal(t, test.code, resp.StatusCode, test.path)
		assert.Contains(t, resp.Header.Get("Content-Type"), test.kind, test.path)
		assert.Contains(t, body, test.part, test.path)
		assert.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		assert.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
		server.Close()
	}
}

func TestOnlyGetAndHeadAreAnswered(t *testing.T) {
	server := httptest.NewServer(newStatus(running(), sovereign.Readiness{}).Handler())
	defer server.Close()
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, "BREW"} {
		resp, _ := ask(t, method, server.URL+"/status")
		assert.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode, method)
		assert.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
	}
	for _, path := range []string{"/", "/status", "/metrics", "/healthz", "/readyz"} {
		resp, body := ask(t, http.MethodHead, server.URL+path)
		get, _ := ask(t, http.MethodGet, server.URL+path)
		assert.Equal(t, get.StatusCode, resp.StatusCode, path)
		assert.Equal(t, get.Header.Get("Content-Type"), resp.Header.Get("Content-Type"), path)
		assert.Empty(t, body, path)
	}
}

// net/http answers this one by itself, unless it is told not to.
func TestGeneralOptionsAreRefused(t *testing.T) {
	conn, err := net.Dial("tcp", serving(t, newStatus(running(), sovereign.Readiness{})))
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
}

func TestLongHeadersAreRefused(t *testing.T) {
	address := serving(t, newStatus(running(), sovereign.Readiness{}))
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET /status HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 64<<10))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, resp.StatusCode)
}

// Silent connections are closed in time: even the maximum of them delays others no longer than that.
func TestSilentConnectionsAreClosed(t *testing.T) {
	address := serving(t, newStatus(running(), sovereign.Readiness{}))
	for range connectionLimit {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for {
		ok, text, err := Client{Listen: address}.Probe(ctx, "/healthz")
		if err == nil {
			assert.True(t, ok)
			assert.Equal(t, "alive", text)
			return
		}
		require.NoError(t, ctx.Err(), "never answered: %s", err)
	}
}

func TestConnectionIsNotKept(t *testing.T) {
	resp, _ := ask(t, http.MethodGet, "http://"+serving(t, newStatus(running(), sovereign.Readiness{}))+"/healthz")
	assert.True(t, resp.Close)
}

func TestClientReadsWhatIsServed(t *testing.T) {
	s := newStatus(running(), sovereign.Readiness{Why: "the node does not answer"})
	client := Client{Listen: serving(t, s)}
	r, err := client.Report(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "v1", r.Version)
	assert.EqualValues(t, 180, r.Height.Blocks)
	assert.EqualValues(t, 40, *r.NextUpgrade.RemainingBlocks)
	ok, text, err := client.Probe(t.Context(), "/readyz")
	require.NoError(t, err)
	assert.False(t, ok)
	assert.Equal(t, "the node does not answer", text)
}

func TestClientBelievesNobodyElse(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"not found":      http.NotFound,
		"a page":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"another status": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"ok"}`) },
		"without plan":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"phase":"running","version_index":3}`) },
		"below the plan": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"phase":"running","version_index":-1,"versions":[{}]}`)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"phase"`)
		},
		"a wrong type":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"phase":1}`) },
		"without an end":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "[", strings.Repeat(" ", answerLimit)) },
		"an empty answer": func(http.ResponseWriter, *http.Request) {},
	} {
		server := httptest.NewServer(answer)
		_, err := Client{Listen: strings.TrimPrefix(server.URL, "http://")}.Report(t.Context())
		assert.Error(t, err, name)
		server.Close()
	}
}

func TestClientAsksThisMachineIfTheAddressHasNoHost(t *testing.T) {
	_, port, err := net.SplitHostPort(serving(t, newStatus(running(), sovereign.Readiness{Leads: true})))
	require.NoError(t, err)
	for _, listen := range []string{"127.0.0.1:", "0.0.0.0:", ":", "localhost:"} {
		ok, why, err := Client{Listen: listen + port}.Probe(t.Context(), "/healthz")
		require.NoError(t, err)
		assert.True(t, ok, why)
	}
	for _, listen := range []string{"", "9848", "127.0.0.1", "::1:9"} {
		_, err := Client{Listen: listen}.Report(t.Context())
		assert.ErrorContains(t, err, "want HOST:PORT", listen)
	}
	if listener, err := net.Listen("tcp", "[::1]:0"); err == nil {
		newStatus(running(), sovereign.Readiness{Leads: true}).Serve(listener)
		defer listener.Close()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		require.NoError(t, err)
		_, err = Client{Listen: "[::]:" + port}.Report(t.Context())
		require.NoError(t, err)
	}
}
