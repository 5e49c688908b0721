package preflight

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/limits"
	"rollup-entrypoint/sequencer"
)

// A version's own environment wins over ours, as it does when the version is started.
func TestPreflightLooksWithTheVersionsOwnEnvironment(t *testing.T) {
	dir := t.TempDir()
	script, config := filepath.Join(dir, "migration"), filepath.Join(dir, "node.toml")
	require.NoError(t, os.WriteFile(script, []byte("#!/usr/bin/env its-own-shell\n"), 0o755))
	require.NoError(t, os.WriteFile(config, []byte("runner.http_config.bind_port = 1\n"), 0o644))
	require.NoError(t, os.Symlink("/bin/sh", filepath.Join(dir, "its-own-shell")))
	plan := &sequencer.Plan{Versions: []sequencer.Version{{Binary: "/bin/sh", Config: config}, {Binary: "/bin/sh", Migration: script, Config: config}}}
	assert.Empty(t, New(plan).Version(t.Context(), 0, sequencer.Programs))
	found := New(plan).Version(t.Context(), 1, sequencer.Programs)
	require.Len(t, found, 1)
	assert.Equal(t, sequencer.SeverityError, found[0].Severity)
	assert.Equal(t, 1, found[0].Version)
	assert.Contains(t, found[0].What, `migration_path: the interpreter "its-own-shell", named in the #! line of `+script+", is not found in PATH=")
	plan.Versions[1].Env = []string{"PATH=" + dir}
	assert.Empty(t, New(plan).Version(t.Context(), 1, sequencer.Programs))
	plan.Versions[1].Env, plan.Versions[1].MigrationEnv = []string{"PATH=/nowhere"}, []string{"PATH=" + dir}
	assert.Empty(t, New(plan).Version(t.Context(), 1, sequencer.Programs), "that of the migration comes last")
	plan.Versions[1].Before = []string{script}
	found = New(plan).Version(t.Context(), 1, sequencer.Programs)
	require.Len(t, found, 1)
	assert.Contains(t, found[0].What, `before: the interpreter "its-own-shell"`, "that of the migration is not the hook's")
}

// Docker's own seccomp profile denies io_uring, with EPERM; older ones and kernels do not know it.
func TestForbiddenIOUringIsAWarning(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS} {
		var found []sequencer.Finding
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never unlock: the filter ends with the thread
			err := denyIOUring(errno)
			found = checkKernel()
			done <- err
		}()
		require.NoError(t, <-done)
		require.NotEmpty(t, found)
		assert.Equal(t, sequencer.Finding{
			Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning,
			What: "io_uring is not permitted here (" + errno.Error() + "): the state engine of a real node panics without it (exited 101)",
			Next: "take a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=FILE), " +
				"and make sure that the sysctl kernel.io_uring_disabled is 0",
		}, found[0])
	}
}

// denyIOUring has io_uring_setup(2) fail with errno in this thread.
func denyIOUring(errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_IO_URING_SETUP},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

func TestFewOpenFilesAreAFindingWhereTheHardLimitAllowsMore(t *testing.T) {
	assert.Empty(t, CheckOpenFiles(limits.OpenFiles{Soft: filesWanted, Hard: FilesDefault}))
	assert.Empty(t, CheckOpenFiles(limits.OpenFiles{Hard: FilesDefault}), "not known")
	assert.Empty(t, CheckOpenFiles(limits.OpenFiles{Soft: 1024, Hard: 1024}), "that is another finding")
	found := CheckOpenFiles(limits.OpenFiles{Soft: 1024, Hard: FilesDefault})
	require.Len(t, found, 1)
	assert.Equal(t, "a node may have only 1024 files open", found[0].What)
}

func TestDirectoryThatIsMissingIsOnTheFileSystemOfTheOneAbove(t *testing.T) {
	dir := t.TempDir()
	assert.True(t, sameDevice(dir, filepath.Join(dir, "volume", "state")))
	assert.False(t, sameDevice(dir, "/proc/self"))
}

// A child inherits what the thread has that starts it, and no thread may be made while a node runs.
func TestIdleWorkHasOneThreadForLife(t *testing.T) {
	var mu sync.Mutex
	threads := map[int]bool{}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			onIdleThread(func() {
				nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
				mu.Lock()
				defer mu.Unlock()
				assert.NoError(t, err)
				assert.Equal(t, 20-idleNice, nice) // as the system call gives it
				threads[unix.Gettid()] = true
			})
		})
	}
	all.Wait()
	assert.Len(t, threads, 1)
	assert.NotContains(t, threads, os.Getpid())
}
