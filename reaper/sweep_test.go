package reaper

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// leave runs a script that prints the number of a process, which it leaves behind.
func leave(t *testing.T, r *Reaper, script string) (pid int) {
	t.Helper()
	w, lines := pipe(t)
	cmd := shell(script)
	cmd.Stdout = w
	exitOf(t, start(t, r, cmd))
	pid = number(t, lines)
	require.True(t, isAlive(pid))
	return pid
}

// far is a grace period that no test lives to see the end of: what it is given must do without SIGKILL.
const far = time.Hour

func TestSweepOfNothing(t *testing.T) {
	r := newReaper(t, Options{})
	exitOf(t, start(t, r, shell("exit")))
	n, err := r.Sweep(far)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Zero(t, r.Stats().Swept)
}

func TestHostileLeftoversAreSwept(t *testing.T) {
	for _, test := range []struct {
		about, script string
		grace         time.Duration
		n             int
	}{
		{"a member of the group", `sleep 1000 & echo $!`, far, 1},
		{"a daemon", `setsid sh -c 'setsid sh -c "echo \$\$; exec sleep 1000" & exit' & wait`, far, 1},
		{"a tree", `sh -c 'setsid sh -c "sleep 1000 & echo \$\$; wait" & wait' & exit`, far, 3},
		{"a stopped one", `sh -c 'sleep 1000 & kill -STOP $!; echo $!'`, far, 1},
		{"one that ignores SIGTERM", `(trap '' TERM; exec sleep 1000) & echo $!; while ! grep -q '^SigIgn.*4...$' /proc/$!/status; do :; done`, 50 * time.Millisecond, 1},
		{"without mercy", `sleep 1000 & echo $!`, 0, 1},
	} {
		t.Run(test.about, func(t *testing.T) {
			r := newReaper(t, Options{})
			pid := leave(t, r, test.script)
			n, err := r.Sweep(test.grace)
			require.NoError(t, err)
			require.Equal(t, test.n, n)
			require.False(t, isAlive(pid))
			require.Equal(t, uint64(n), r.Stats().Swept)
			childless, err := r.reapNow()
			require.NoError(t, err)
			require.True(t, childless)
		})
	}
}

func TestHostileLeftoverThatHoldsStderrIsSwept(t *testing.T) {
	r := newReaper(t, Options{})
	cmd := pumped(shell(`sleep 1000 & exit`), newBuffer())
	exitOf(t, start(t, r, cmd))
	n, err := r.Sweep(far)
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestHostileProcessThatForksAndEndsIsSwept(t *testing.T) {
	r := newReaper(t, Options{})
	leave(t, r, `trap '' TERM; sleep 1000 & echo $!; f() { f & }; f`)
	n, err := r.Sweep(20 * time.Millisecond)
	require.NoError(t, err)
	require.Positive(t, n)
}

func TestHostileForkBombIsSwept(t *testing.T) {
	r := newReaper(t, Options{})
	leave(t, r, `trap '' TERM; sleep 1000 & echo $!; for i in 1 2 3; do setsid sh -c 'while :; do sh -c "exec sleep 0.01" & wait $!; done' & done`)
	n, err := r.Sweep(20 * time.Millisecond)
	require.NoError(t, err)
	require.Greater(t, n, 3)
}

func TestSweepSparesRunningChildren(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	cmd := shell(`sh -c 'sleep 1000 & echo $!'; echo $$; exec sleep 1000`) // with an orphan in its group
	cmd.Stdout = w
	running := start(t, r, cmd)
	orphan := number(t, lines)
	number(t, lines)
	left := leave(t, r, `sleep 1000 & echo $!`)
	n, err := r.Sweep(far)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.False(t, isAlive(left))
	require.True(t, isAlive(running.Pid()))
	require.True(t, isAlive(orphan))
	require.NoError(t, running.SignalProcess(unix.SIGKILL))
	exitOf(t, running)
	n, err = r.Sweep(far)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.False(t, isAlive(orphan))
}

// A group with others in it, here ours, is not killed as one.
func TestHostileLeftoverInAGroupThatIsSparedIsKilled(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	cmd := actor("joiner")
	cmd.Args, cmd.Stdout = append(cmd.Args, strconv.Itoa(unix.Getpgrp())), w
	exitOf(t, start(t, r, cmd))
	pid := number(t, lines)
	group, err := unix.Getpgid(pid)
	require.NoError(t, err)
	require.Equal(t, unix.Getpgrp(), group)
	n, err := r.Sweep(50 * time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.False(t, isAlive(pid))
}

func init() {
	// joiner leaves a process behind that is in the group of its argument and ignores SIGTERM.
	roles["joiner"] = func() {
		group, err := strconv.Atoi(os.Args[1])
		must(err)
		cmd := exec.Command("/bin/sh", "-c", "trap '' TERM; echo $$; exec sleep 1000")
		cmd.Stdout, cmd.SysProcAttr = os.Stdout, &syscall.SysProcAttr{Setpgid: true, Pgid: group}
		must(cmd.Start())
	}
}

func TestSweepWithoutProcEndsGroups(t *testing.T) {
	log := newBuffer()
	r := newReaper(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	member := leave(t, r, `sleep 1000 & echo $!`)
	daemon := leave(t, r, `setsid sh -c 'echo $$; exec sleep 1000' & exit`)
	r.procRoot = t.TempDir()
	n, err := r.Sweep(far)
	r.procRoot = "/proc"
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.False(t, isAlive(member))
	require.True(t, isAlive(daemon), "it cannot be found without /proc")
	require.Equal(t, 1, strings.Count(log.String(), "process table unreadable"))
}

func TestNumberThatWasGivenAwayIsNotSignalled(t *testing.T) {
	r := newReaper(t, Options{})
	pid := leave(t, r, `sleep 1000 & echo $!`)
	p, err := readProcess("/proc", pid)
	require.NoError(t, err)

	other := p
	other.start++ // the number has been given to another process meanwhile
	require.ErrorIs(t, r.signalLeftover(other, unix.SIGKILL), unix.ESRCH)
	require.True(t, isAlive(pid))
	require.NoError(t, r.signalLeftover(p, unix.SIGKILL))
}

func TestSweepIsBrokenOffByClose(t *testing.T) {
	r, err := New(Options{})
	require.NoError(t, err)
	pid := leave(t, r, `(trap '' TERM; exec sleep 1000) & echo $!; while ! grep -q '^SigIgn.*4...$' /proc/$!/status; do :; done`)
	swept := make(chan error, 1)
	go func() {
		_, err := r.Sweep(far)
		swept <- err
	}()
	eventually(t, "the SIGTERM is sent", func() bool { return r.Stats().SignalsSent >= 1 })
	require.NoError(t, r.Close())
	require.ErrorIs(t, await(t, swept, "the end of Sweep"), errClosed)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	_, err = unix.Wait4(pid, nil, 0, nil)
	require.NoError(t, err)
}

func TestStuckProcessesAreReported(t *testing.T) {
	log := newBuffer()
	r := newReaper(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	stuck := []process{{pid: 42}}
	require.NoError(t, (&sweep{r: r}).warn(stuck))
	require.Empty(t, log.String(), "in the grace period all is well")
	require.NoError(t, (&sweep{r: r, killing: true}).warn(stuck))
	require.Contains(t, log.String(), "outlive SIGKILL\" pids=[42]")
	require.ErrorIs(t, (&sweep{r: r, killing: true, groups: true}).warn(stuck), errNoProc)
}

func TestSweepSaysWhatItMayNotEnd(t *testing.T) {
	if os.Getuid() != 0 {
		missing(t, "only root can leave a process to an unprivileged parent")
	}
	r := newReaper(t, Options{})
	cmd := actor("unprivileged")
	cmd.Path = "/proc/self/exe"
	got := output(t, r, cmd)
	require.Contains(t, got, "cannot end process")
	require.Contains(t, got, "operation not permitted")
}

func init() {
	roles["unprivileged"] = func() {
		r, err := New(Options{})
		must(err)
		c, err := r.Start(shell("sleep 1000 & exit"))
		must(err)
		<-c.Done()
		must(syscall.Setuid(65534))
		_, err = r.Sweep(0)
		fmt.Println(err)
	}
}

func TestInitSparesForeignSessions(t *testing.T) {
	if os.Getenv("REAPER_INIT") == "" {
		if _, err := exec.LookPath("nsenter"); err != nil {
			missing(t, "nsenter(1) is needed to enter a container from outside")
		}
		sparesForeignSessions(t)
		return
	}
	containerInit(t)
}

// sparesForeignSessions is the outside: it starts a container, enters it twice, and leaves orphans there.
func sparesForeignSessions(t *testing.T) {
	toInit, fromInit := newConversation(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "REAPER_INIT=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Setsid:     true,
		Pdeathsig:  unix.SIGKILL,
	}
	cmd.ExtraFiles = []*os.File{toInit.read, fromInit.write}
	out := newBuffer()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		missing(t, "cannot make a process namespace: %v", err)
	}
	toInit.read.Close()
	fromInit.write.Close()
	said := linesOf(fromInit.read)
	require.Equal(t, "ready", await(t, said, "the container"), out)

	target := fmt.Sprint(cmd.Process.Pid)
	// As `docker exec` does, in a session of its own …
	execed := enter(t, target, "setsid", "sh", "-c", "(sleep 1000 & echo $!); exec cat")
	// … and as nsenter(1) alone, in a session whose leader is outside.
	entered := enter(t, target, "sh", "-c", "(sleep 1000 & echo $!); exec cat")
	fmt.Fprintln(toInit.write, "sweep", execed.orphan, entered.orphan)
	require.Equal(t, "swept 1, alive true true", await(t, said, "the first sweep"), out)
	execed.end()
	fmt.Fprintln(toInit.write, "sweep", execed.orphan, entered.orphan)
	require.Equal(t, "swept 1, alive false true", await(t, said, "the second sweep"), out)
	toInit.write.Close()
	require.NoError(t, cmd.Wait(), out)
	entered.end()
}

type conversation struct{ read, write *os.File }

func newConversation(t *testing.T) (a, b conversation) {
	for _, c := range []*conversation{&a, &b} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		*c = conversation{r, w}
	}
	return a, b
}

// visitor is a session that entered the container and left an orphan there.
type visitor struct {
	orphan int // its number in the container
	end    func()
}

func enter(t *testing.T, target string, command ...string) visitor {
	cmd := exec.Command("nsenter", append([]string{"-t", target, "-p", "-m"}, command...)...)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return visitor{number(t, linesOf(out)), func() { in.Close(); _ = cmd.Wait() }}
}

// containerInit is the inside: on each order it sweeps, once a leftover of its own is there.
func containerInit(t *testing.T) {
	require.Equal(t, 1, os.Getpid())
	r, err := New(Options{})
	require.NoError(t, err)
	orders, say := linesOf(os.NewFile(3, "orders")), os.NewFile(4, "answers")
	fmt.Fprintln(say, "ready")
	first := true
	for order := range orders {
		var execed, entered int
		_, err := fmt.Sscanf(order, "sweep %d %d", &execed, &entered)
		require.NoError(t, err)
		if first {
			leave(t, r, `sleep 1000 & echo $!`)
			first = false
		}
		eventually(t, "the orphans are ours", func() bool {
			a, _ := readProcess("/proc", execed)
			b, _ := readProcess("/proc", entered)
			return a.ppid == 1 && b.ppid == 1
		})
		n, err := r.Sweep(far)
		require.NoError(t, err)
		fmt.Fprintf(say, "swept %d, alive %v %v\n", n, isAlive(execed), isAlive(entered))
	}
}
