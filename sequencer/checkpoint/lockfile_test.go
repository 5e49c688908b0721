package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestLockFileThatIsNotOursIsLeftAsItIs(t *testing.T) {
	for name, content := range map[string]string{
		"a text": "keep me\n", "JSON of somebody else": `{"pid":7}`, "a checkpoint": fullText, "torn": `{"pid":7,"host":"x"`,
		"a pid that cannot be": `{"pid":0,"host":"x"}`, "long": strings.Repeat(" ", 2*recordSize) + `{"pid":7,"host":"x"}`,
		"more NUL bytes than a lock file has": strings.Repeat("\x00", recordSize+1),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			require.NoError(t, os.WriteFile(path+".lock", []byte(content), 0o600))
			const want = ".lock: this program did not write it, so it was left as it is"
			for range 2 {
				_, err := Open(path, "")
				require.EqualError(t, err, path+want)
				_, err = Holder(LockPath(path))
				require.EqualError(t, err, path+want)
			}
			text, err := os.ReadFile(path + ".lock")
			require.NoError(t, err)
			assert.Equal(t, content, string(text))
		})
	}
	for name, content := range map[string]string{
		"empty": "", "NUL bytes of a power cut": strings.Repeat("\x00", recordSize), "of an earlier release": `{"pid":7,"host":"x"}` + "\n",
		"of a later release": `{"pid":7,"host":"x","more":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			require.NoError(t, os.WriteFile(path+".lock", []byte(content), 0o600))
			store := openStore(t, path)
			assert.Equal(t, store.ID(), recordOf(t, path).ID)
		})
	}
}

func TestLockFileIsNotOpenedThroughASymbolicLink(t *testing.T) {
	for name, target := range map[string]string{"to a file": "victim", "to nothing": "missing"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "checkpoint.json")
			require.NoError(t, os.WriteFile(dir+"/victim", nil, 0o600))
			require.NoError(t, os.Symlink(target, path+".lock"))
			_, err := Open(path, "")
			require.EqualError(t, err, "cannot use the lock of the checkpoint: open "+path+".lock: it is a symbolic link, want a regular file: remove it, or name another checkpoint file")
			text, err := os.ReadFile(dir + "/victim")
			require.NoError(t, err)
			assert.Empty(t, text)
			assert.Equal(t, []string{"checkpoint.json.lock", "victim"}, names(t, dir))
		})
	}
}

// A FIFO makes an open wait for its other end, and a directory is what Docker makes for a bind mount that is missing.
func TestNoFileOfTheRecordHangsOrIsTakenForARegularOne(t *testing.T) {
	make := map[string]func(string) error{
		"it is a FIFO, want a regular file": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"it is an empty directory, want a regular file: Docker makes one if the source of a bind mount is missing on the host": func(path string) error { return os.Mkdir(path, 0o700) },
	}
	for want, make := range make {
		t.Run(want, func(t *testing.T) {
			dir := realTempDir(t)
			path := filepath.Join(dir, "checkpoint.json")
			require.NoError(t, make(path+".lock"))
			_, err := Open(path, "")
			require.EqualError(t, err, "cannot use the lock of the checkpoint: open "+path+".lock: "+want+": remove it, or name another checkpoint file")
			require.ErrorIs(t, err, ErrNoFile)
			_, err = Holder(path + ".lock")
			require.ErrorIs(t, err, ErrNoFile)
			require.NoError(t, os.Remove(path+".lock"))

			require.NoError(t, make(path))
			store := openStore(t, path)
			_, err = store.Load()
			require.EqualError(t, err, path+": "+want)
			_, err = store.KeepCheckpoint()
			require.EqualError(t, err, "cannot keep a copy of the checkpoint: open "+path+": "+want)

			require.NoError(t, make(filepath.Join(dir, StampFile)))
			_, err = Read("", dir)
			require.EqualError(t, err, filepath.Join(dir, StampFile)+": "+want)
		})
	}
	t.Run("a named pipe where the state should be", func(t *testing.T) {
		storage := filepath.Join(realTempDir(t), "state")
		require.NoError(t, unix.Mkfifo(storage, 0o600))
		store, err := Open("", storage)
		require.NoError(t, err)
		defer store.Close()
		_, err = store.Load()
		require.EqualError(t, err, storage+": it cannot be read: not a directory")
		require.ErrorIs(t, store.SyncState(), unix.ENOTDIR)
		require.Error(t, store.SaveStamp(fullStamp()))
	})
}

func TestLineOfALockIsRead(t *testing.T) {
	for line, want := range map[string]lockRow{
		"lock:\t1: FLOCK  ADVISORY  WRITE 20926 fe:00:10002927 0 EOF\n": {taker: 20926, file: "fe:00:10002927"},
		"3: FLOCK  ADVISORY  READ 7 08:01:5 0 EOF":                      {taker: 7, shared: true, file: "08:01:5"},
		"lock:\t1: FLOCK  ADVISORY  WRITE 0 fe:00:1 0 EOF":              {file: "fe:00:1"},
	} {
		row, ok := parseLockRow(line)
		assert.True(t, ok, line)
		assert.Equal(t, want, row)
	}
	for _, line := range []string{
		"", "pos:\t0", "1: -> FLOCK  ADVISORY  WRITE 7 08:01:5 0 EOF", "8: OFDLCK ADVISORY  READ -1 00:06:3 0 EOF", "1: POSIX  ADVISORY  WRITE 7 08:01:5 0 EOF",
		"1: FLOCK  ADVISORY  WRITE x 08:01:5 0 EOF", "1: FLOCK",
	} {
		_, ok := parseLockRow(line)
		assert.False(t, ok, line)
	}
}
