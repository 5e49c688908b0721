package regularfile

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A FIFO without a writer would hang here, until the test's deadline.
func TestNothingButARegularFileIsOpened(t *testing.T) {
	dir := t.TempDir()
	fifo, socket := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	require.NoError(t, unix.Mkfifo(fifo, 0o644))
	listener, err := net.Listen("unix", socket) //nolint:noctx // it is only to be there
	require.NoError(t, err)
	defer listener.Close()
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(fifo, link))
	for path, what := range map[string]string{dir: "a directory", fifo: "a FIFO", link: "a FIFO", socket: "a socket", "/dev/null": "a device"} {
		file, err := Open(path)
		assert.Nil(t, file)
		require.ErrorIs(t, err, ErrNotRegular)
		require.EqualError(t, err, "open "+path+": it is "+what+", want a regular file")
		_, err = Read(path, 10)
		require.ErrorIs(t, err, ErrNotRegular)
	}
	empty := t.TempDir()
	_, err = Open(empty)
	require.ErrorIs(t, err, ErrNotRegular)
	require.EqualError(t, err, "open "+empty+": it is an empty directory, want a regular file: Docker makes one if the source of a bind mount is missing on the host")
	toEmpty := filepath.Join(dir, "to-empty")
	require.NoError(t, os.Symlink(empty, toEmpty))
	_, err = OpenFile(toEmpty, os.O_RDONLY|unix.O_NOFOLLOW)
	require.EqualError(t, err, "open "+toEmpty+": it is a symbolic link, want a regular file")
	_, err = Open(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestFileWithALeaseIsOpenedWhenItIsGivenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte("text"), 0o644))
	holder, err := os.Open(path)
	require.NoError(t, err)
	defer holder.Close()
	_, err = unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	require.NoError(t, err)
	text := make(chan string)
	go func() {
		got, err := Read(path, 10)
		assert.NoError(t, err)
		text <- string(got)
	}()
	require.Eventually(t, func() bool { // until somebody wants it
		lease, err := unix.FcntlInt(holder.Fd(), unix.F_GETLEASE, 0)
		return err == nil && lease != unix.F_WRLCK
	}, time.Minute, time.Millisecond)
	_, err = unix.FcntlInt(holder.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	require.NoError(t, err)
	assert.Equal(t, "text", <-text)
}

func TestFileIsReadUpToItsLimit(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(path, []byte("0123456789"), 0o644))
	require.NoError(t, os.Symlink(path, link))
	for _, name := range []string{path, link} {
		text, err := Read(name, 10)
		require.NoError(t, err)
		assert.Equal(t, "0123456789", string(text))
	}
	_, err := Read(path, 9)
	require.EqualError(t, err, "read "+path+": the file is too large: more than 9 bytes")
}
