package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

// node answers as one of version, with the root that it has.
func node(t *testing.T, version func() string, root string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/status" {
			_, _ = w.Write([]byte(`{"version":"` + version() + `","phase":"running","ready":true}`))
			return
		}
		_, _ = w.Write([]byte(`{"number":7,"state_root":"` + root + `"}`))
	}))
	t.Cleanup(server.Close)
	return server.URL + "," + server.URL + "/"
}

func always(version string) func() string { return func() string { return version } }

func try(t *testing.T, args ...string) (code int, out, errors string) {
	t.Helper()
	var o, e strings.Builder
	code = run(t.Context(), args, &o, &e)
	return code, o.String(), e.String()
}

func TestExitCodeSaysWhetherTheRootsAreEqual(t *testing.T) {
	a, b, c := node(t, always("v1"), "0x1"), node(t, always("v1"), "0x1"), node(t, always("v1"), "0x2")
	code, out, _ := try(t, "--node", "a="+a, "--node", "b="+b)
	assert.Zero(t, code, out)
	code, out, _ = try(t, "--node", "a="+a, "--node", "c="+c)
	assert.Equal(t, 1, code, "it does not wait where roots differ")
	assert.Contains(t, out, "NOT EQUAL")
	code, out, _ = try(t, "--json", "--node", "a="+a)
	assert.Zero(t, code)
	assert.Contains(t, out, `"equal": true`)
}

func TestItWaitsForTheVersion(t *testing.T) {
	var asked atomic.Int32
	upgrading := node(t, func() string {
		if asked.Add(1) < 3 {
			return "v0"
		}
		return "v1"
	}, "0x1")
	code, out, changes := try(t, "--wait", "1m", "--version", "v1", "--node", "a="+upgrading)
	assert.Zero(t, code)
	assert.Contains(t, out, "v1")
	assert.Regexp(t, `^\d\d:\d\d:\d\d  a: running v1 as leader\n$`, changes)
	code, out, _ = try(t, "--wait", "0s", "--version", "v2", "--node", "a="+upgrading)
	assert.Equal(t, 1, code, out)
}

func TestMistakesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"--node", "a=x"}, {"--node", "x,y"}, {"--no-such"}, {"word"}} {
		code, _, errors := try(t, args...)
		assert.Equal(t, 2, code, args)
		assert.Contains(t, errors, "error: ", args)
	}
	code, _, _ := try(t, "--help")
	assert.Zero(t, code)
}

func TestPortsAreThoseOfTheComposeFile(t *testing.T) {
	t.Setenv("REPLICA_0_STATUS_PORT", "19849")
	nodes := composeNodes()
	assert.Equal(t, "http://127.0.0.1:9848", nodes[0].Status)
	assert.Equal(t, "http://127.0.0.1:19849", nodes[1].Status)
	assert.Equal(t, "http://127.0.0.1:12348", nodes[2].API)
}
