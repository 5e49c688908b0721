package reaper

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A write to a pipe that nobody reads any more kills the writer.
func TestProcessThatHoldsItsPipesSurvivesTheEndOfTheirReader(t *testing.T) {
	r := newReaper(t, Options{})
	gate, open, err := os.Pipe()
	require.NoError(t, err)
	defer gate.Close()
	done := t.TempDir() + "/done"
	// It writes more than a pipe has room for at first, and less than it has then.
	script := `read line; i=0; while [ $i -lt 2000 ]; do echo "` + strings.Repeat("x", 100) + `" >&2; i=$((i+1)); done; : >"$0"`
	var said bytes.Buffer
	c := startWith(t, r, gate, Command{Path: "/bin/sh", Args: []string{"sh", "-c", script, done}, Stderr: &said, HoldPipes: true})
	require.Len(t, c.pumps, 1)
	require.NoError(t, c.pumps[0].r.Close(), "as the kernel does when we die")
	_, err = open.WriteString("go\n")
	require.NoError(t, err)
	require.NoError(t, open.Close())
	assert.Equal(t, Exit{}, exitOf(t, c))
	assert.FileExists(t, done)
}
