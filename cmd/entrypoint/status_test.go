package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Where core dumps are on, check warns of them: tests that expect no finding must not depend on that.
func init() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &limit) == nil {
		limit.Cur = 0
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	}
}

func TestIDOfALockIsReadWhereThereIsOne(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct{ text, want string }{
		"with one":     {`{"pid":1,"host":"a","id":"0123"}`, "0123"},
		"an older one": {`{"pid":1,"host":"a"}`, ""},
		"torn":         {`{"pid":1,"id":"01`, ""},
		"empty":        {"", ""},
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(test.text), 0o600))
		assert.Equal(t, test.want, checkpoint.HolderID(file), name)
	}
	assert.Empty(t, checkpoint.HolderID(filepath.Join(dir, "missing")))
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	assert.Empty(t, checkpoint.HolderID(fifo), "and it does not hang")
}
