package reaper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

func TestStartGivesTheChildWhatItAsksFor(t *testing.T) {
	r := newReaper(t, Options{})
	dir := t.TempDir()
	extra, err := os.CreateTemp(dir, "extra")
	require.NoError(t, err)
	defer extra.Close()
	in, err := os.Open("/proc/self/stat")
	require.NoError(t, err)
	defer in.Close()
	cmd := Command{
		Path:       "/bin/sh",
		Args:       []string{"my name", "-c", `read x; echo "$0|$1|$(pwd)|$KEY|$HOME|$x"; echo extra >&3`, "zero", "one"},
		Env:        []string{"KEY=value"},
		ExtraFiles: []*os.File{extra},
	}
	t.Chdir(dir)
	defer setStdin(in)()
	got := output(t, r, cmd)
	require.True(t, strings.HasPrefix(got, "zero|one|"+dir+"|value||"+strconv.Itoa(os.Getpid())+" ("), got)
	data, err := os.ReadFile(extra.Name())
	require.NoError(t, err)
	require.Equal(t, "extra\n", string(data))
}

func TestChildLeadsAGroupInOurSession(t *testing.T) {
	r := newReaper(t, Options{})
	c := start(t, r, Command{Path: "/bin/sleep", Args: []string{"sleep", "1000"}})
	p, err := procfs.Read(procfs.Root, c.Pid())
	require.NoError(t, err)
	self, err := procfs.Read(procfs.Root, os.Getpid())
	require.NoError(t, err)
	require.Equal(t, c.Pid(), p.Group)
	require.Equal(t, self.Session, p.Session)
	require.NoError(t, c.Signal(unix.SIGKILL))
}

func TestNoDescriptorLeaks(t *testing.T) {
	r := newReaper(t, Options{})
	inherited := map[string]bool{"0": true, "1": true, "2": true, "3": true}
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			inherited[e.Name()] = true // the test was started with it
		}
	}
	open, err := os.CreateTemp(t.TempDir(), "open")
	require.NoError(t, err)
	defer open.Close()
	c := start(t, r, pumped(shell("exec sleep 1000"), newBuffer())) // has a pipe
	cmd := pumped(Command{Path: "/bin/ls", Args: []string{"ls", "-l", "/proc/self/fd"}}, newBuffer())
	cmd.ExtraFiles = []*os.File{open}
	for line := range strings.Lines(output(t, r, cmd)) {
		fields := strings.Fields(line)
		if len(fields) < 11 || strings.HasSuffix(fields[10], "/fd") { // what ls itself reads
			continue
		}
		require.True(t, inherited[fields[8]], "leaked: %s", line)
	}
	require.NoError(t, c.Signal(unix.SIGKILL))
}

func TestStartErrorsInWords(t *testing.T) {
	r := newReaper(t, Options{})
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), mode))
		return path
	}
	loader := elfWithLoader(t)
	for _, test := range []struct {
		about string
		cmd   Command
		words string
		code  int
		is    error
	}{
		{"missing", Command{Path: dir + "/none"}, dir + "/none: no such file", 127, fs.ErrNotExist},
		{"not executable", Command{Path: write("plain", "#!/bin/sh\n", 0o644)}, "permission denied", 126, fs.ErrPermission},
		{"a directory", Command{Path: dir}, "it is a directory", 126, fs.ErrPermission},
		{"no program", Command{Path: write("text", "hello\n", 0o755)}, "no #! line", 126, unix.ENOEXEC},
		{"no interpreter", Command{Path: write("script", "#! /no/shell -e\n", 0o755)}, `"/no/shell", named in its #! line`, 126, fs.ErrNotExist},
		{"no loader", Command{Path: write("elf", loader, 0o755)}, "dynamic loader", 126, fs.ErrNotExist},
		{"too long", shell(strings.Repeat("x", 1<<20)), "argument list too long", 126, unix.E2BIG},
		{"not even a pipe", pumped(Command{Path: dir + "/none"}, newBuffer()), "no such file", 127, fs.ErrNotExist},
	} {
		t.Run(test.about, func(t *testing.T) {
			_, err := r.Start(test.cmd)
			require.ErrorContains(t, err, "cannot start "+test.cmd.Path+": ")
			require.ErrorContains(t, err, test.words)
			require.ErrorIs(t, err, test.is)
			require.Equal(t, test.code, ExitCodeForStartError(fmt.Errorf("wrapped: %w", err)))
		})
	}
	require.Equal(t, 127, ExitCodeForStartError(fmt.Errorf("not in PATH: %w", fs.ErrNotExist)))
	require.Equal(t, 126, ExitCodeForStartError(errors.New("other")))
	require.Equal(t, "cannot start x: other", explainStart(Command{Path: "x"}, errors.New("other")).Error())
}

// The system has no room for one more process: the kernel's answer to a fork comes from a filter.
func TestForkThatFailsForNowIsToldApart(t *testing.T) {
	r := newReaper(t, Options{})
	for errno, want := range map[unix.Errno]string{
		unix.EAGAIN: "cannot start /bin/true: out of processes, code 75, passing: true",
		unix.ENOMEM: "cannot start /bin/true: out of memory, code 75, passing: true",
		unix.EPERM:  "cannot start /bin/true: operation not permitted, code 126, passing: false",
	} {
		cmd := actor("forkless")
		cmd.Args = append(cmd.Args, strconv.Itoa(int(errno)))
		require.Equal(t, want+"\n", output(t, r, cmd))
	}
}

func init() {
	// forkless cannot fork, only make threads.
	roles["forkless"] = func() {
		errno, err := strconv.Atoi(os.Args[1])
		must(err)
		r, err := New(quiet(catch(nil)))
		must(err)
		must(refuseForks(unix.Errno(errno)))
		_, err = r.Start(Command{Path: "/bin/true", Args: []string{"true"}})
		fmt.Printf("%v, code %d, passing: %v\n", err, ExitCodeForStartError(err), IsPassing(err))
	}
}

// refuseForks has each clone(2) of this process fail, but for those that make a thread (seccomp(2)).
func refuseForks(errno unix.Errno) error {
	const number, flags = 0, 16 // offsets in struct seccomp_data: nr, and the lower half of args[0]
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_THREAD, Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if failed != 0 {
		return failed
	}
	return nil
}

// elfWithLoader returns a program whose dynamic loader does not exist.
func elfWithLoader(t *testing.T) string {
	data, err := os.ReadFile("/bin/sleep")
	require.NoError(t, err)
	at := strings.Index(string(data), "/ld-")
	if at < 0 {
		missing(t, "/bin/sleep is not dynamically linked")
	}
	return string(data[:at]) + "/no-" + string(data[at+4:])
}

func TestPipeThatCannotBeMadeIsAStartError(t *testing.T) {
	var old unix.Rlimit
	r := newReaper(t, Options{})
	start(t, r, shell("exit"))
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}))
	_, err := r.Start(pumped(shell("exit"), newBuffer()))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	require.ErrorContains(t, err, "too many open files")
}

func TestFailedStartLeavesNoPipeOpen(t *testing.T) {
	r := newReaper(t, Options{})
	start(t, r, shell("exit"))
	cmd := pumped(Command{Path: "/no/such"}, newBuffer())
	cmd.Stdout = newBuffer()
	_, err := r.Start(cmd)
	require.ErrorIs(t, err, fs.ErrNotExist)
	before := pipes(t)
	for range 10 {
		_, err := r.Start(cmd)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	require.Len(t, pipes(t), len(before))
}

// pipes lists the pipes that this process has open.
func pipes(t *testing.T) (targets []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
			targets = append(targets, target)
		}
	}
	return targets
}
