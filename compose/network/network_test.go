package network

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/ports"
)

// played is a node whose entrypoint and API answer with fixed texts.
type played struct {
	status string
	slot   uint64
	roots  map[uint64]string
	leads  bool
}

func (p played) serve(t *testing.T, name string) Node {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/status":
			_, _ = w.Write([]byte(p.status))
		case r.URL.Path == "/readyz" && r.FormValue("role") == "leader" && p.leads:
		case r.URL.Path == "/ledger/slots/finalized":
			_, _ = fmt.Fprintf(w, `{"number":%d,"state_root":"0xnewest"}`, p.slot)
		default:
			var slot uint64
			if _, err := fmt.Sscanf(r.URL.Path, "/ledger/slots/%d", &slot); err != nil || p.roots[slot] == "" {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			_, _ = fmt.Fprintf(w, `{"number":%d,"state_root":%q}`, slot, p.roots[slot])
		}
	}))
	t.Cleanup(server.Close)
	return Node{Name: name, Status: server.URL, API: server.URL}
}

const running = `{"version":"v1","phase":"running","ready":true,"height":{"blocks":61},
	"next_upgrade":{"stop_height":80,"eta_seconds":9.6}}`

func text(t *testing.T, report Report) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, report.Write(&out))
	return out.String()
}

func TestNodesAreComparedAtTheHighestSlotThatAllHave(t *testing.T) {
	t.Parallel()
	report := Read(t.Context(), []Node{
		played{status: running, slot: 59, roots: map[uint64]string{59: "0xaa", 57: "0xbb"}, leads: true}.serve(t, "sequencer"),
		played{status: running, slot: 57, roots: map[uint64]string{57: "0xbb"}}.serve(t, "replica-0"),
	})
	assert.Equal(t, uint64(57), report.Slot)
	assert.True(t, report.Complete)
	assert.True(t, report.Equal)
	assert.Equal(t, `NODE       VERSION  PHASE    ROLE     HEIGHT  NEXT UPGRADE  ETA  STATE ROOT AT SLOT 57
sequencer  v1       running  leader   61      after 80      10s  0xbb
replica-0  v1       running  replica  61      after 80      10s  0xbb
state roots: equal on all 2 nodes at slot 57
`, text(t, report))
}

func TestDifferentRootsAreNotEqual(t *testing.T) {
	t.Parallel()
	report := Read(t.Context(), []Node{
		played{status: running, slot: 57, roots: map[uint64]string{57: "0xbb"}}.serve(t, "a"),
		played{status: running, slot: 57, roots: map[uint64]string{57: "0xcc"}}.serve(t, "b"),
	})
	assert.True(t, report.Complete)
	assert.False(t, report.Equal)
	assert.Contains(t, text(t, report), "state roots: NOT EQUAL at slot 57")
}

func TestNodesThatReportNothingAreNotCompared(t *testing.T) {
	t.Parallel()
	gone := fmt.Sprintf("http://127.0.0.1:%d", ports.Hold(t))
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/status" {
			_, _ = w.Write([]byte(`{"version":"v1","phase":"migrating","height":null,"next_upgrade":null}`))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(silent.Close)
	whole := played{status: running, slot: 57, roots: map[uint64]string{57: "0xbb"}}.serve(t, "whole")
	for name, row := range map[string]struct {
		node Node
		says string
	}{
		"gone":          {Node{Name: "b", Status: gone, API: gone}, "b: no answer: "},
		"not a page":    {Node{Name: "b", Status: silent.URL + "/x", API: whole.API}, "503"},
		"no API":        {Node{Name: "b", Status: silent.URL, API: silent.URL}, "answered 503"},
		"an old root":   {played{status: running, slot: 57}.serve(t, "b"), "/ledger/slots/57 answered 404"},
		"no JSON":       {played{status: "<html>"}.serve(t, "b"), "did not answer with JSON"},
		"only a number": {played{status: "7"}.serve(t, "b"), "did not answer with JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report := Read(t.Context(), []Node{whole, row.node})
			assert.False(t, report.Complete)
			assert.False(t, report.Equal)
			shown := text(t, report)
			assert.Contains(t, shown, row.says)
			assert.Contains(t, shown, "state roots: not compared")
		})
	}
}

func TestOnlyWhatBothReportsHaveIsAChange(t *testing.T) {
	t.Parallel()
	report := func(nodes ...Reading) Report { return Report{Nodes: nodes} }
	v0, v1 := Reading{Node: "a", Version: "v0", Phase: "running"}, Reading{Node: "a", Version: "v1", Phase: "running"}
	migrating, leads := Reading{Node: "a", Version: "v1", Phase: "migrating"}, Reading{Node: "a", Version: "v1", Phase: "running", Leads: true}
	silent := Reading{Node: "a", Problem: "no answer"}
	for _, row := range []struct {
		before, now Report
		want        []string
	}{
		{report(), report(v0), nil},
		{report(v0), report(v0), nil},
		{report(v0), report(silent), nil},
		{report(silent), report(v1), nil},
		{report(v0), report(migrating), []string{"a: migrating v1"}},
		{report(migrating), report(v1), []string{"a: running v1"}},
		{report(v0, v1), report(v1, leads), []string{"a: running v1", "a: running v1 as leader"}},
	} {
		assert.Equal(t, row.want, row.now.Since(row.before))
	}
	assert.Equal(t, []string{"a: running v1"}, report(v1).Since(report(silent).Over(report(v0))), "nothing is lost by a silence")
	assert.Nil(t, report(v1).Since(report(silent).Over(report())))
}

func TestNoNodesAreNotEqual(t *testing.T) {
	t.Parallel()
	report := Read(t.Context(), nil)
	assert.False(t, report.Equal)
}

func TestReportIsJSONWithFixedKeys(t *testing.T) {
	t.Parallel()
	report := Read(t.Context(), []Node{played{status: running, slot: 5, roots: map[uint64]string{5: "0xbb"}, leads: true}.serve(t, "a")})
	encoded, err := json.Marshal(report)
	require.NoError(t, err)
	assert.JSONEq(t, `{"nodes":[{"node":"a","version":"v1","phase":"running","ready":true,"leads":true,"height":61,
		"stop_height":80,"eta_seconds":9.6,"slot":5,"state_root":"0xbb"}],"slot":5,"complete":true,"equal":true}`, string(encoded))
}
