package logwriter

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// deadline is only reached by a test that fails.
const deadline = time.Minute

// await waits until the condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "waiting for %s", what)
	}
}

// A node that shares our stderr makes it non-blocking, for us too (2>&1, docker run -t).
func TestPipeThatANodeMadeNonBlockingLosesNothing(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer read.Close()
	shared, err := unix.Dup(int(write.Fd())) // Fd makes it a blocking one, as our stderr is
	require.NoError(t, err)
	defer unix.Close(shared)
	require.NoError(t, unix.SetNonblock(shared, true))
	w := New(write)
	text := strings.Repeat("a line of the log\n", queueSize/2/18) // more than a pipe holds, less than the queue
	_, _ = w.Write([]byte(text))
	w.mu.Lock()
	full := w.failing
	w.mu.Unlock()
	assert.False(t, full)
	await(t, "the pipe to be full", func() bool {
		_, err := unix.Write(shared, make([]byte, 1))
		return err == unix.EAGAIN
	})
	got := make(chan string)
	go func() {
		all, _ := io.ReadAll(read)
		got <- string(all)
	}()
	w.Flush(deadline)
	require.NoError(t, write.Close())
	require.NoError(t, unix.Close(shared))
	assert.Equal(t, text, strings.ReplaceAll(<-got, "\x00", ""))
}

// A log on a full disk continues when somebody has made room.
func TestLogOnAFullDiskGoesOnWhenItIsEmptied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs root, and CI must have it: %s", err)
		}
		t.Skipf("needs root: %s", err)
	}
	defer func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	require.NoError(t, err)
	defer log.Close()
	ballast := filepath.Join(dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 128<<10), 0o644) // it fails where the space ends, which is what is wanted
	w := New(log)
	_, _ = w.Lines().Write([]byte("first\n"))
	await(t, "the write to fail", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.failing })
	_, _ = w.Lines().Write(bytes.Repeat([]byte("x"), queueSize+1))
	require.NoError(t, os.Remove(ballast))
	await(t, "the log to continue", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return !w.failing && !w.busy })
	_, _ = w.Lines().Write([]byte("last\n"))
	w.Flush(deadline)
	text, err := os.ReadFile(log.Name())
	require.NoError(t, err)
	assert.Equal(t, "first\n[1048577 bytes of log were dropped: they could not be written]\nlast\n", string(text))
}

// A FIFO has a new reader when the one before was restarted.
func TestLogGoesOnWithTheNextReaderOfAFIFO(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(name, 0o644))
	reader, err := os.OpenFile(name, os.O_RDWR, 0) // or the next open waits
	require.NoError(t, err)
	log, err := os.OpenFile(name, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer log.Close()
	require.NoError(t, reader.Close())
	w := New(log)
	_, _ = w.Lines().Write([]byte("nobody reads\n"))
	await(t, "the write to fail", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.failing })
	reader, err = os.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	defer reader.Close()
	text := make([]byte, len("nobody reads\n"))
	_, err = io.ReadFull(reader, text)
	require.NoError(t, err)
	assert.Equal(t, "nobody reads\n", string(text))
}
