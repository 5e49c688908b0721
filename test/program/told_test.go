package program

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Otherwise the last words of a node that dies in the middle of a line would share their line with our next one, which
// would be no JSON then.
func TestOurLinesBeginALineOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{})
	require.NoError(t, os.Remove(c.binary(0)))
	require.NoError(t, writeExecutable(c.binary(0), []byte("#!/bin/sh\nprintf 'no end of line' >&2\nexit 3\n")))
	c.run(phase{name: "run", do: start(), exit: exits(3), events: []event{on("version started"), on("version exited", "exit~exited 3")}})
}
