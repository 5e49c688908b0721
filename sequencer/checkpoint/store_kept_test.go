package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A power cut while a checkpoint was being kept leaves half of a copy, under a name with the time of that.
func TestUnfinishedCopyOfAKeptCheckpointIsRemoved(t *testing.T) {
	dir := t.TempDir()
	left, kept, foreign := filepath.Join(dir, ".c.json.before-20261130T230057Z.339922.tmp"), filepath.Join(dir, "c.json.before-20261130T230057Z"), filepath.Join(dir, ".c.json.before-me")
	for _, path := range []string{left, kept, foreign} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
	}
	s, err := Open(filepath.Join(dir, "c.json"), "")
	require.NoError(t, err)
	require.NoError(t, s.Close())
	assert.NoFileExists(t, left)
	assert.FileExists(t, kept)
	assert.FileExists(t, foreign)
}
