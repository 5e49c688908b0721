package hold

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/sequencer"
)

var _ sequencer.Hold = New("")

func TestWhatIsWrittenHoldsUntilItIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold")
	h := New(path)
	assert.Equal(t, path, h.File())
	for _, want := range []string{"v1", "", `a "name" of 世界`, "v2"} {
		require.NoError(t, Write(path, want))
		held, before, err := h.Held()
		require.NoError(t, err)
		assert.True(t, held)
		assert.Equal(t, want, before)
	}
	removed, err := Remove(path)
	require.NoError(t, err)
	assert.True(t, removed)
	held, before, err := h.Held()
	require.NoError(t, err)
	assert.False(t, held)
	assert.Empty(t, before)
	removed, err = Remove(path)
	require.NoError(t, err)
	assert.False(t, removed, "there is none any more")
}

func TestFileIsForPeopleToReadAndForEveryUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold")
	old := unix.Umask(0o077) // as in a hardened shell of root
	err := Write(path, "v1")
	unix.Umask(old)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o644), info.Mode())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Regexp(t, `^\{\n  "before": "v1",\n  "created_at": "`+time.Now().UTC().Format("2006")+`-.*Z"\n\}\n$`, string(text))
	assert.Equal(t, []string{"hold"}, list(t, filepath.Dir(path)))
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFileOfAPersonHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold")
	for text, want := range map[string]string{
		"": "", " \n\t\r\n": "", `{"before":"v1"}`: "v1", "{ \"before\": \"v1\" }\n": "v1", `{"before":""}`: "",
		`{"created_at":"2026-03-01T00:00:00Z","before":"v2"}`: "v2",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		held, before, err := New(path).Held()
		require.NoError(t, err, text)
		assert.True(t, held, text)
		assert.Equal(t, want, before, text)
	}
}

// A mistake in the file must not start anything, and nothing of it may be quoted: it may be another file, with a secret.
func TestForeignContentHoldsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold")
	for text, want := range map[string]string{
		"v1":                                     "line 1, column 1: not valid JSON",
		`{"before":"v1"`:                         "the file is torn",
		strings.Repeat("\x00", 40):               "the file is torn: it has NUL bytes",
		`["v1"]`:                                 "line 1, column 1: hold is a list, want an object",
		`"v1"`:                                   "hold is a string, want an object",
		`{}`:                                     `hold: "before" is missing`,
		`{"before":null}`:                        `hold: "before" is missing`,
		`{"befor":"v1"}`:                         `hold: unknown key "befor" (did you mean "before"?)`,
		`{"before":"v1","before":"v2"}`:          `key "before" is repeated`,
		`{"before":1}`:                           "the type of a value is wrong",
		`{"before":"v1","created_at":"sec-ret"}`: "the type of a value is wrong",
		`{"before":"v1"} {}`:                     "the file continues after its end",
		`{"before":"v1"}` + "\xff":               "is not UTF-8",
		strings.Repeat(" ", limit+1) + "sec-ret": "the file is too large",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		held, before, err := New(path).Held()
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
		assert.NotContains(t, err.Error(), "sec-ret")
		assert.True(t, held, want)
		assert.Empty(t, before, want)
	}
}

func TestWhatIsNoFileHoldsEverything(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a directory":               func(path string) error { return os.Mkdir(path, 0o755) },
		"a FIFO":                    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a link that leads nowhere": func(path string) error { return os.Symlink("missing", path) },
		"a link to itself":          func(path string) error { return os.Symlink("hold", path) },
	} {
		path := filepath.Join(t.TempDir(), "hold")
		require.NoError(t, make(path))
		held, before, err := New(path).Held()
		require.ErrorContains(t, err, "the hold file cannot be read: ", name)
		assert.True(t, held, name)
		assert.Empty(t, before, name)
		removed, err := Remove(path)
		require.NoError(t, err, name)
		assert.True(t, removed, name)
		held, _, err = New(path).Held()
		require.NoError(t, err, name)
		assert.False(t, held, name)
	}
}

func TestLinkToAHoldIsAHold(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, Write(dir+"/elsewhere", "v1"))
	require.NoError(t, os.Symlink("elsewhere", dir+"/hold"))
	held, before, err := New(dir + "/hold").Held()
	require.NoError(t, err)
	assert.True(t, held)
	assert.Equal(t, "v1", before)
}

func TestNoHoldWhereNoneCanBe(t *testing.T) {
	held, _, err := New(t.TempDir() + "/missing/hold").Held()
	require.NoError(t, err)
	assert.False(t, held)
	removed, err := Remove(t.TempDir() + "/missing/hold")
	require.NoError(t, err)
	assert.False(t, removed)
	require.Error(t, Write(t.TempDir()+"/missing/hold", "v1"))
}

// The directory above it may be a file by mistake: nobody can say that there is no hold.
func TestWhatCannotBeFoundOutHoldsEverything(t *testing.T) {
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	held, before, err := New(file + "/hold").Held()
	require.ErrorIs(t, err, unix.ENOTDIR)
	assert.True(t, held)
	assert.Empty(t, before)
	_, err = Remove(file + "/hold")
	require.ErrorContains(t, err, "cannot remove the hold file")
}

func TestDirectoryWithFilesIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold")
	require.NoError(t, os.MkdirAll(path+"/state", 0o755))
	removed, err := Remove(path)
	require.ErrorContains(t, err, "cannot remove the hold file")
	assert.False(t, removed)
	assert.DirExists(t, path+"/state")
	require.ErrorIs(t, func() error { _, _, err := New(path).Held(); return err }(), regularfile.ErrNotRegular)
}

func TestTemporaryFilesOfKilledWritesAreRemovedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".hold.123.tmp", ".hold.x.tmp", "hold.bak", "holding"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	require.NoError(t, Write(dir+"/hold", ""))
	_, err := Remove(dir + "/hold")
	require.NoError(t, err)
	assert.Equal(t, []string{".hold.x.tmp", "hold.bak", "holding"}, list(t, dir))
}

// Readers poll while an operator changes the hold: none may see it torn, or believe that there is none.
func TestReadersNeverMissAHoldThatIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hold")
	require.NoError(t, Write(path, "v1"))
	done := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < 200 && err == nil; i++ {
			err = Write(path, []string{"v1", "v2"}[i%2])
		}
		done <- err
	}()
	for {
		held, before, err := New(path).Held()
		require.NoError(t, err)
		require.True(t, held)
		require.Contains(t, []string{"v1", "v2"}, before)
		select {
		case err := <-done:
			require.NoError(t, err)
			return
		default:
		}
	}
}
