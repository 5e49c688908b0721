package limits

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// roleVariable has the test binary play a program that uses the package: nothing here can be undone in a process.
const roleVariable = "LIMITS_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, number, _ := strings.Cut(os.Getenv(roleVariable), " "); role {
	case "":
		os.Exit(m.Run())
	case "threads":
		playThreads(number)
	case "files":
		playFiles(number)
	case "reserve":
		n, _ := strconv.Atoi(number)
		fmt.Println(Reserve(n))
	}
}

// play runs the test binary in a role, below a shell that sets limits.
func play(t *testing.T, ulimit, role string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", ulimit+` exec "$0"`, "/proc/self/exe")
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd.Args[len(cmd.Args)-1] = exe
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// threads counts our own.
func threads() int {
	tasks, _ := os.ReadDir("/proc/self/task")
	return len(tasks)
}

// playThreads reserves threads, needs them all at once, and says how many there were before and after that.
func playThreads(number string) {
	n, _ := strconv.Atoi(number)
	runtime.GOMAXPROCS(2)
	if err := Reserve(n); err != nil {
		fmt.Println(err)
		return
	}
	before := threads()
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil { // a blocking one
		fmt.Println(err)
		return
	}
	var done sync.WaitGroup
	most := 0
	for range 20 {
		for range n {
			done.Go(func() { _, _ = unix.Read(pipe[0], make([]byte, 1)) })
		}
		for blocked() < n {
			time.Sleep(time.Millisecond)
		}
		most = max(most, threads())
		_, _ = unix.Write(pipe[1], make([]byte, n))
		done.Wait()
	}
	fmt.Println(n, before, most)
}

// blocked counts our threads that wait in read(2).
func blocked() (n int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/syscall")
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		if strings.HasPrefix(string(text), fmt.Sprint(unix.SYS_READ)+" ") {
			n++
		}
	}
	return n
}

// A pids limit that a node has filled would else end the program, and with it the container.
func TestNoThreadIsMadeAfterTheReservation(t *testing.T) {
	t.Parallel()
	var n, before, most int
	_, err := fmt.Sscan(play(t, "", "threads 24"), &n, &before, &most)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, before, n+2)
	assert.LessOrEqual(t, before, n+2+2+runtimeThreads)
	assert.LessOrEqual(t, most, before, "threads when all were needed, and before that")
}

// files writes a made-up /proc and /sys/fs/cgroup.
func files(t *testing.T, contents map[string]string) system {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	return system{filepath.Join(dir, "proc"), filepath.Join(dir, "cgroup")}
}

func TestLimitIsThatOfTheControlGroupWithTheLeastRoom(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  room
	}{
		"version 2, in a container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "cgroup/pids.max": "64\n", "cgroup/pids.current": "40\n",
		}, room{"pids limit 64", 24}},
		"version 2, the group above has less": {map[string]string{
			"proc/self/cgroup":    "0::/pod/container\n",
			"cgroup/pod/pids.max": "100\n", "cgroup/pod/pids.current": "99\n",
			"cgroup/pod/container/pids.max": "64\n", "cgroup/pod/container/pids.current": "40\n",
		}, room{"pids limit 100", 1}},
		"version 1": {map[string]string{
			"proc/self/cgroup":              "9:name=systemd:/x\n8:cpu,pids:/docker/1\n0::/\n",
			"cgroup/pids/docker/1/pids.max": "20\n", "cgroup/pids/docker/1/pids.current": "21\n", // it was lowered
		}, room{"pids limit 20", 0}},
		"version 1, in a container that sees the path of the host": {map[string]string{
			"proc/self/cgroup": "8:pids:/docker/1\n", "cgroup/pids/pids.max": "20\n", "cgroup/pids/pids.current": "5\n",
		}, room{"pids limit 20", 15}},
		"no limit": {map[string]string{
			"proc/self/cgroup": "0::/\n", "cgroup/pids.max": "max\n", "cgroup/pids.current": "5\n",
		}, room{}},
		"no control groups": {nil, room{}},
	} {
		t.Run(name, func(t *testing.T) {
			all := files(t, test.files).controlGroups()
			var least room
			for _, r := range all {
				if least.words == "" || r.left < least.left {
					least = r
				}
			}
			assert.Equal(t, test.want, least)
		})
	}
}

func TestThreadsOfAUserAreCounted(t *testing.T) {
	s := files(t, map[string]string{"proc/7/status": "Name:\tx\nUid:\t1000\t0\t0\t0\nThreads:\t5\n", "proc/8/status": "Name:\ty\n"})
	assert.EqualValues(t, 5, threadsOf(filepath.Join(s.proc, "7/status"), 1000))
	assert.Zero(t, threadsOf(filepath.Join(s.proc, "7/status"), 0), "another user's")
	assert.Zero(t, threadsOf(filepath.Join(s.proc, "8/status"), 1000))
	assert.Zero(t, threadsOf(filepath.Join(s.proc, "9/status"), 1000), "it has ended")
}

func TestReservationWithoutRoomSaysWhichLimitItIs(t *testing.T) {
	err := files(t, map[string]string{"proc/self/cgroup": "0::/\n", "cgroup/pids.max": "64\n", "cgroup/pids.current": "50\n"}).hasRoom(24)
	assert.EqualError(t, err, "out of processes (pids limit 64): 24 threads are needed, and there is room for 14")
	assert.NoError(t, files(t, nil).hasRoom(24))
}

// playFiles says how many open files a child gets, what is found out about that, and what a child gets after a change.
func playFiles(number string) {
	n, _ := strconv.ParseUint(number, 10, 64)
	ofChild := func() string {
		out, _ := exec.Command("/bin/sh", "-c", "ulimit -Sn").Output()
		return strings.TrimSpace(string(out))
	}
	before := ofChild()
	found, err := Files()
	raised, raiseErr := RaiseFiles(n)
	fmt.Println(before, found.Soft, raised.Soft, ofChild(), FilesOf(os.Getpid()) >= raised.Soft, errors.Join(err, raiseErr))
}

// The runtime of Go raises the limit for itself, and gives children the one from before.
func TestLimitOfOpenFilesIsRaisedForChildrenAndNeverLowered(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		soft, hard, n, want uint64
	}{
		{100, 2000, 500, 500},
		{100, 2000, 65536, 2000}, // at most the hard limit
		{1000, 2000, 500, 1000},  // not lowered
		{2000, 2000, 500, 2000},  // Go has raised nothing
		{100, 2000, 0, 100},      // left
	} {
		have := play(t, fmt.Sprintf("ulimit -Sn %d; ulimit -Hn %d;", test.soft, test.hard), fmt.Sprintf("files %d", test.n))
		assert.Equal(t, fmt.Sprintf("%d %d %d %d true <nil>\n", test.soft, test.soft, test.want, test.want), have, "%+v", test)
	}
}

func TestFilesOfAProcessThatIsGoneAreNotKnown(t *testing.T) {
	cmd := exec.Command("/bin/true")
	require.NoError(t, cmd.Run())
	assert.Zero(t, FilesOf(cmd.Process.Pid))
	assert.Zero(t, FilesOf(0), "no process, and not ours")
}

func TestCoreDumpIsInTheWorkingDirectoryUnlessItsPatternLeadsElsewhere(t *testing.T) {
	for pattern, want := range map[string]bool{"core": true, "core.%p": true, "dumps/core": true, "": true, "/var/crash/%p": false, "|/usr/bin/apport %p": false} {
		assert.Equal(t, want, staysInWorkingDir(pattern), pattern)
	}
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_CORE, &before))
	_, on := CoreDumps()
	assert.True(t, !on || before.Cur > 0)
}
