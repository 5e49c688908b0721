package sovereign

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/ports"
)

func TestSyncStatusIsRead(t *testing.T) {
	for body, want := range map[string]struct {
		synced       bool
		why, problem string
	}{
		`{"synced":{"synced_da_height":5}}`:                                          {synced: true},
		`{"synced":{}}`:                                                              {synced: true},
		`{"syncing":{"synced_da_height":5,"target_da_height":9}}`:                    {why: "the node is syncing: DA height 5 of 9"},
		`{"syncing":{"synced_da_height":0,"target_da_height":18446744073709551615}}`: {why: "the node is syncing: DA height 0 of 18446744073709551615"},
		`{"syncing":{}}`:                                                             {why: "the node is syncing"},
		`{"syncing":{"synced_da_height":5}}`:                                         {why: "the node is syncing"},
		`{"synced":{},"syncing":{}}`:                                                 {problem: "neither synced nor syncing"},
		`{"synced":null}`:                                                            {problem: "neither synced nor syncing"},
		`{}`:                                                                         {problem: "neither synced nor syncing"},
		`null`:                                                                       {problem: "neither synced nor syncing"},
		`{"synced":true}`:                                                            {problem: "not JSON, or has an unknown shape"},
		`{"syncing":{"synced_da_height":-1}}`:                                        {problem: "not JSON, or has an unknown shape"},
		``:                                                                           {problem: "not JSON, or has an unknown shape"},
		`{"synced":{"synced_da_height":5}`:                                           {problem: "not JSON, or has an unknown shape"},
		`{"synced":{"synced_da_height":5}}{"syncing":{}}`: {problem: "not JSON, or has an unknown shape"},
	} {
		synced, why, err := parseSyncStatus([]byte(body))
		assert.Equal(t, want.synced, synced, body)
		assert.Equal(t, want.why, why, body)
		if want.problem == "" {
			assert.NoError(t, err, body)
		} else {
			assert.ErrorContains(t, err, want.problem, body)
		}
	}
}

// readyNode answers the two routes with the given status codes and bodies.
func readyNode(t *testing.T, ready int, sync int, status string) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sequencer/ready":
			w.WriteHeader(ready)
		case "/rollup/sync-status":
			w.WriteHeader(sync)
			fmt.Fprint(w, status)
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	}))
	t.Cleanup(server.Close)
	return clientOf(t, server.URL)
}

func clientOf(t *testing.T, url string) *Client {
	t.Helper()
	at, err := netip.ParseAddrPort(strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	return NewClient(Config{Hosts: []string{at.Addr().String()}, Port: int(at.Port())}, "")
}

func TestNodeTellsWhetherItIsReady(t *testing.T) {
	const synced, syncing = `{"synced":{"synced_da_height":5}}`, `{"syncing":{"synced_da_height":5,"target_da_height":9}}`
	for _, test := range []struct {
		name        string
		ready, sync int
		status      string
		want        Readiness
	}{
		{"a leader", 200, 500, "", Readiness{Leads: true}},
		{"a replica", 503, 200, synced, Readiness{Synced: true}},
		{"an older node without the route", 404, 200, synced, Readiness{Synced: true}},
		{"syncing", 503, 200, syncing, Readiness{Why: "the node is syncing: DA height 5 of 9"}},
		{"nothing but errors", 500, 500, "", Readiness{Why: "the node answers /rollup/sync-status with status 500"}},
		{"nonsense", 503, 200, "<html>", Readiness{Why: "the node's answer to /rollup/sync-status is not understood"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, readyNode(t, test.ready, test.sync, test.status).Readiness(t.Context()))
		})
	}
}

func TestNodeThatIsSilentIsNotReady(t *testing.T) {
	gone := clientOf(t, fmt.Sprintf("http://127.0.0.1:%d", ports.Hold(t)))
	assert.Equal(t, Readiness{Why: "the node does not answer"}, gone.Readiness(t.Context()))

	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	assert.Equal(t, Readiness{Why: "the node does not answer"}, clientOf(t, hanging.URL).Readiness(t.Context()))
}

// What is read as synced says so in a document with just that key; anything else is never taken for it.
func FuzzParseSyncStatus(f *testing.F) {
	for _, seed := range []string{
		`{"synced":{"synced_da_height":5}}`, `{"syncing":{"synced_da_height":5,"target_da_height":9}}`, `{"synced":null,"syncing":{}}`, `[]`, `{"synced":{}}x`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		synced, why, err := parseSyncStatus(body)
		var plain map[string]any
		if json.Unmarshal(body, &plain) != nil {
			require.Error(t, err)
		}
		if err != nil {
			require.False(t, synced)
			require.Empty(t, why)
			return
		}
		has := func(key string) (there bool) {
			spellings := 0 // the decoder does not mind the case, and takes the last one
			for have, value := range plain {
				if strings.EqualFold(have, key) {
					spellings++
					there = value != nil
				}
			}
			if spellings > 1 {
				t.Skip("one key in two spellings")
			}
			return there
		}
		require.Equal(t, has("synced"), synced, "%q", body)
		require.Equal(t, has("syncing"), why != "", "%q", body)
	})
}
