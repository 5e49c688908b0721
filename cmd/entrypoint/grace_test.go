package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCheckWarnsOfAGracePeriodThatIsTooShort(t *testing.T) {
	dir := t.TempDir()
	node, config := filepath.Join(dir, "node.toml"), filepath.Join(dir, "manager.json")
	require.NoError(t, os.WriteFile(node, []byte("storage.path = '"+dir+"/state'\nrunner.http_config.bind_port = 1\n"), 0o644))
	require.NoError(t, os.WriteFile(config, []byte(`[{"rollup_binary": "/bin/sh", "config_path": "`+node+`"}]`), 0o644))
	for value, warned := range map[string]bool{
		"60s": true, "299.9s": true, "1ms": true,
		"300s": false, "5m": false, "1h": false, "0s": false, "0": false, "-1s": false, "soon": false, "": false,
	} {
		t.Run(value, func(t *testing.T) {
			t.Setenv("ENTRYPOINT_STOP_TIMEOUT", value)
			var out, errs bytes.Buffer
			assert.Zero(t, dispatch(program{stdout: &out, stderr: &errs}, []string{"check", "-c", config, "--manifest="}), "a warning is no error")
			assert.Empty(t, errs.String())
			said := strings.Join(strings.Fields(out.String()), " ")
			assert.Equal(t, warned, strings.Contains(said, "ENTRYPOINT_STOP_TIMEOUT is "), said)
			assert.Equal(t, warned, strings.Contains(said, "set it to 300s or more"), said)
		})
	}
}
