package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each has a name that cannot be foreseen, and O_EXCL makes it a new file.
func TestTemporaryFileIsANewOne(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]bool{}
	for range 100 {
		file, err := makeTemporary(filepath.Join(dir, "c.json"))
		require.NoError(t, err)
		require.NoError(t, file.Close())
		assert.False(t, seen[file.Name()])
		assert.True(t, IsTemporary("c.json", filepath.Base(file.Name())), file.Name())
		seen[file.Name()] = true
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 100)
}

func TestFileThatCannotBePreparedIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.json")
	require.NoError(t, Replace(path, []byte("old"), func(*os.File) error { return nil }))
	cause := errors.New("no")
	err := Replace(path, []byte("new"), func(file *os.File) error {
		info, err := file.Stat()
		require.NoError(t, err)
		assert.Zero(t, info.Size(), "the content may be private")
		return cause
	})
	require.ErrorIs(t, err, cause)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "old", string(text))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1)
}
