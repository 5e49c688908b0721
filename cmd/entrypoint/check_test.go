package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

func TestCheckSaysWhatItHasLookedAt(t *testing.T) {
	c := checked{plan: &sequencer.Plan{File: "manager.json", Versions: []sequencer.Version{{Name: "v0"}, {Name: "osaka"}}}}
	assert.Equal(t, "no problems found. Checked: manager.json; the programs, libraries and configs of v0, osaka; the volume of the state; io_uring", c.summary())
	c.checkpoint = "/data/c.json"
	assert.Contains(t, c.summary(), "; the checkpoint /data/c.json; the volume of the state")
	c.running = "10.0.0.1:9848"
	assert.Contains(t, c.summary(), "; the height of the entrypoint at 10.0.0.1:9848; ")
}

// getenv(3) finds the first of two.
func TestVariableOfAVersionTakesThePlaceOfOurs(t *testing.T) {
	ours := []string{"PATH=/bin", "A=1", "AB=2", "A=3", "EMPTY="}
	assert.Equal(t, []string{"PATH=/bin", "AB=2", "A=4", "EMPTY=x", "NEW=y=z"}, withEnv(ours, []string{"A=4", "EMPTY=x", "NEW=y=z"}))
	assert.Equal(t, []string{"PATH=/bin", "A=1", "AB=2", "A=3", "EMPTY="}, ours)
}

// A new config is compared with what runs before the old container goes: the gate of a deployment.
func TestCheckOfAConfigForWhatRunsFindsThatItComesTooLate(t *testing.T) {
	dir := t.TempDir()
	node, config := filepath.Join(dir, "node.toml"), filepath.Join(dir, "manager.json")
	require.NoError(t, os.WriteFile(node, []byte("storage.path = '"+dir+"/state'\nrunner.http_config.bind_port = 1\n"), 0o644))
	require.NoError(t, os.WriteFile(config, []byte(`[
		{"name": "first", "rollup_binary": "/bin/sh", "config_path": "`+node+`", "stop_height": 40},
		{"name": "second", "rollup_binary": "/bin/sh", "config_path": "`+node+`", "start_height": 41}
	]`), 0o644))
	const first = `"version_index": 0, "version": "first", "versions": [{"version": "first", "start_height": 0, "stop_height": 30}]`
	for name, test := range map[string]struct {
		answer string
		code   int
		says   string
	}{
		"below the stop height": {`{"phase": "running", "height": {"blocks": 39}, ` + first + `}`, 0, ""},
		"at the stop height":    {`{"phase": "running", "height": {"blocks": 40}, ` + first + `}`, 0, ""},
		"above the stop height": {`{"phase": "running", "height": {"blocks": 41}, ` + first + `}`, 78, "too late: the running rollup is at height 41, above its stop height 40"},
		"no height":             {`{"phase": "starting", "height": null, ` + first + `}`, 78, "does not know the height of its node"},
		"held, and complete": {
			`{"phase": "held", "height": null, "durable_height": 30, "version_index": 0, "version": "first", "versions": [{"version": "first", "start_height": 0, "stop_height": 30, "completed_at": "2026-01-01T00:00:00Z"}]}`, 0, "",
		},
		"held above the stop height":       {`{"phase": "held", "height": null, "durable_height": 41, ` + first + `}`, 78, "too late: the running rollup is at height 41"},
		"held from its start":              {`{"phase": "held", "height": null, "durable_height": 20, ` + first + `}`, 0, "is held, so the height of its state is not known"},
		"held, never asked":                {`{"phase": "held", "height": null, "durable_height": null, ` + first + `}`, 0, "is held, so the height of its state is not known"},
		"between two processes":            {`{"phase": "handing_over", "height": null, "durable_height": 20, ` + first + `}`, 78, "does not know the height of its node"},
		"finished, and the plan has grown": {`{"phase": "finished", "height": null, ` + first + `}`, 0, ""},
		"finished above the new stop height": {
			`{"phase": "finished", "height": null, "version_index": 0, "version": "first", "versions": [{"version": "first", "start_height": 0, "stop_height": 41}]}`,
			78, "too late: the running rollup is at height 41",
		},
		"a later version, without end": {
			`{"phase": "running", "height": {"blocks": 100}, "version_index": 0, "version": "second", "versions": [{"version": "second", "start_height": 41}]}`, 0, "",
		},
		"a version that the plan has lost": {
			`{"phase": "running", "height": {"blocks": 10}, "version_index": 0, "version": "zero", "versions": [{"version": "zero", "start_height": 0}]}`,
			78, `the running version, "zero" from height 0, is not in`,
		},
		"something else than an entrypoint": {`{"value": [3, 3]}`, 78, "it is not an entrypoint"},
		"a version out of range":            {`{"phase": "running", "height": {"blocks": 10}, "version_index": 7, "versions": []}`, 78, "it is not an entrypoint"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(test.answer)) }))
			defer server.Close()
			for _, url := range []string{server.URL, server.URL + "/", strings.TrimPrefix(server.URL, "http://")} {
				var out, errs bytes.Buffer
				code := dispatch(program{stdout: &out, stderr: &errs}, []string{"check", "-c", config, "--manifest=", "--running", url})
				assert.Equal(t, test.code, code, out.String())
				assert.Contains(t, strings.Join(strings.Fields(out.String()), " "), test.says)
				assert.Empty(t, errs.String())
			}
		})
	}
}

func TestCommandInAFindingIsNotBroken(t *testing.T) {
	assert.Equal(t, []string{
		"if it is so, run", "'entrypoint checkpoint set -c 'a b' -f c.json --version 1';", "if not, do not",
	}, wrap("if it is so, run 'entrypoint checkpoint set -c 'a b' -f c.json --version 1'; if not, do not", 20))
}

// Both stay unnoticed otherwise: one takes as much room as the state, the other keeps a start from starting anything.
func TestCheckNamesTheStateThatWasSetAsideAndTheHold(t *testing.T) {
	c := checked{
		plan: &sequencer.Plan{File: "manager.json"}, aside: "/data/state.failed-v1", held: &seenHold{File: "/data/my hold", Before: "v1"},
		undoPoint: &checkpoint.UndoPoint{Path: "/data/state.before-v1"},
	}
	var out bytes.Buffer
	c.print(&out)
	assert.Contains(t, out.String(), "\nfailed:     /data/state.failed-v1: the state that an undo point has replaced; 'entrypoint undo --drop' deletes it, and the undo point\n"+
		"hold:       before v1: /data/my hold; 'entrypoint resume --hold-file '/data/my hold'' ends it\n")
	out.Reset()
	require.NoError(t, c.printJSON(&out))
	assert.Contains(t, out.String(), "\n  \"failed_state\": \"/data/state.failed-v1\",\n  \"hold\": {\n    \"file\": \"/data/my hold\",\n    \"before\": \"v1\",\n    \"error\": \"\"\n")
}

func TestFindingsAreATable(t *testing.T) {
	c := checked{
		plan: &sequencer.Plan{Versions: []sequencer.Version{{Name: "v0"}, {Name: "a-long-name"}}},
		findings: []sequencer.Finding{
			{Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: "the volume is full"},
			{Version: 1, Severity: sequencer.SeverityError, What: strings.Repeat("word ", 20), Next: strings.Repeat("act ", 25)},
			{Version: 0, Severity: sequencer.SeverityError, What: "a line\nand\x1b[2J another", Next: strings.Repeat("x", 100) + " y"},
		},
	}
	var out bytes.Buffer
	c.print(&out)
	assert.Equal(t, strings.Join([]string{
		"severity version      what, and what to do",
		"error    a-long-name  " + strings.TrimSpace(strings.Repeat("word ", 18)),
		"                      word word",
		"                      → " + strings.TrimSpace(strings.Repeat("act ", 22)),
		"                        act act act",
		`error    v0           a line and\u001b[2J another`,
		"                      → " + strings.Repeat("x", 100),
		"                        y",
		"warning               the volume is full",
		"2 errors, 1 warning",
		"",
	}, "\n"), out.String())
}
