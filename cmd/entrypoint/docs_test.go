package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write pages of docs and testdata anew")

// The page is what --help prints, so that neither can fall behind the other.
func TestFlagReferenceIsWhatHelpPrints(t *testing.T) {
	const page = "../../docs/flags.md"
	var b strings.Builder
	b.WriteString("# Flags\n\nWhat `--help` prints. Each flag is also an environment variable: `ENTRYPOINT_`, then its name in capitals with\n" +
		"underscores, so `ENTRYPOINT_STOP_TIMEOUT` for `--stop-timeout`; the flag wins. The help of a command names the flags that\n" +
		"are not read from there.\n")
	for _, command := range []string{"", "run", "exec", "check", "status", "healthcheck", "height", "migrate", "plan", "plan schema", "checkpoint show", "checkpoint set", "hold", "resume", "reset", "undo", "manifest write", "manifest verify"} {
		args := append(strings.Fields(command), "--help")
		var out, errs bytes.Buffer
		require.Zero(t, dispatch(program{stdout: &out, stderr: &errs}, args))
		assert.Empty(t, errs.String())
		b.WriteString("\n## " + strings.TrimSpace("entrypoint "+command) + "\n\n```\n" + out.String() + "```\n")
	}
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(b.String()), 0o644))
	}
	have, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.Equal(t, b.String(), string(have), "run: go test ./cmd/entrypoint -run FlagReference -update")
}
