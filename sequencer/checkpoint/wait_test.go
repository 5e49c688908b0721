package checkpoint

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWhatADeadEntrypointLeftIsAwaitedWithoutALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := &LockHeldError{Path: "/c.lock", HolderGone: true, Left: []Process{{Pid: 1 << 30, Command: "rollup"}}}
		var out bytes.Buffer
		var shown []Process
		wait := awaited{since: time.Now(), Wait: Wait{
			Log: slog.New(slog.NewJSONHandler(&out, nil)), Stderr: &out, Left: func(left []Process) { shown = left },
		}}
		for time.Since(wait.since) < time.Hour {
			assert.True(t, wait.continues(gone))
			wait.note(gone)
			assert.Equal(t, gone.Left, shown)
			assert.Positive(t, wait.pause())
			time.Sleep(wait.pause())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		assert.InDelta(t, 60, len(lines), 2, "once a minute")
		assert.Contains(t, lines[0], `"pids":[1073741824],"commands":["rollup"],"seconds":0,"file":"/c.lock"`)
		assert.Contains(t, lines[1], `"seconds":60`)
	})
}

// The first look may find a shared lock: another process only looks, too.
func TestLeftoversAreNamedAtOnceAfterAnUnknownHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		wait := awaited{since: time.Now(), Wait: Wait{Log: slog.New(slog.NewJSONHandler(&out, nil)), Left: func([]Process) {}}}
		gone := &LockHeldError{HolderGone: true}
		for _, held := range []*LockHeldError{{}, {}, gone, gone, gone} {
			assert.True(t, wait.continues(held))
			wait.note(held)
			time.Sleep(wait.pause())
		}
		assert.Equal(t, 1, strings.Count(out.String(), "lock held by an unknown process"))
		assert.Equal(t, 1, strings.Count(out.String(), "waiting for what a dead entrypoint left running"))
	})
}

func TestUnknownHolderIsAwaitedForSecondsAndALivingOneNotAtAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := awaited{since: time.Now()}
		assert.False(t, wait.continues(&LockHeldError{Pid: 7}))
		assert.True(t, wait.continues(&LockHeldError{}))
		time.Sleep(lockWait)
		assert.False(t, wait.continues(&LockHeldError{}))
	})
}

// waitsForNode has the test binary stand in for an entrypoint that is killed while it reads the stderr of its node.
const waitsForNode = "CHECKPOINT_TEST_READS_STDERR"

func TestWaitReadsWhatTheNodeOfADeadEntrypointWritesUntilItEnds(t *testing.T) {
	if path := os.Getenv(waitsForNode); path != "" {
		store, err := Open(path, "")
		require.NoError(t, err)
		reading, writing, err := os.Pipe()
		require.NoError(t, err)
		node := exec.Command("sh", "-c", "cat; echo last words >&2") //nolint:noctx // it must outlive this process
		node.Stdin, node.Stderr = os.NewFile(3, "the test's pipe"), writing
		node.ExtraFiles = append(store.LockFiles(), reading)
		require.NoError(t, node.Start())
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGKILL))
		select {} // until the signal arrives
	}
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	_, _, keepsNodeAlive := killedEntrypoint(t, waitsForNode, path)
	id := HolderID(path + ".lock")
	require.NotEmpty(t, id)

	said, stderr := io.Pipe()
	seen := false
	wait := Wait{
		Log: slog.New(slog.DiscardHandler), Stderr: stderr,
		Left:  func(left []Process) { seen = len(left) > 0 },
		Pause: func(time.Duration) bool { return !seen },
	}
	_, err := wait.Open(path, "")
	require.ErrorIs(t, err, ErrStopped)

	require.NoError(t, keepsNodeAlive.Close())
	line, err := bufio.NewReader(said).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "last words\n", line)
	wait.Pause = func(d time.Duration) bool { time.Sleep(d); return true }
	store, err := wait.Open(path, "")
	require.NoError(t, err)
	defer store.Close()
	assert.NotEqual(t, id, HolderID(path+".lock"), "it is ours now")
	assert.Empty(t, HolderID(path+".nowhere"))
}
