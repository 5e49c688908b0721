package reaper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
	"rollup-entrypoint/internal/signalname"
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

// sweep waits until the leftovers that were asked to end have done so: nothing is killed.
func sweep(t *testing.T, r *Reaper) (n int) {
	t.Helper()
	s := r.Sweep(true)
	await(t, s.Done(), "the end of the leftovers")
	n, err := s.Ended()
	require.NoError(t, err)
	return n
}

// sweepAway kills what is left.
func sweepAway(t *testing.T, r *Reaper) (n int) {
	t.Helper()
	s := r.Sweep(false)
	require.NoError(t, s.Signal(unix.SIGKILL))
	await(t, s.Done(), "the end of the leftovers")
	n, err := s.Ended()
	require.NoError(t, err)
	return n
}

func TestSweepOfNothing(t *testing.T) {
	r := newReaper(t, Options{})
	exitOf(t, start(t, r, shell("exit")))
	goroutines := runtime.NumGoroutine()
	for _, ask := range []bool{false, true} {
		s := r.Sweep(ask)
		select {
		case <-s.Done():
		default:
			t.Fatal("the wait is not over")
		}
		require.Empty(t, s.Left())
		require.NoError(t, s.Signal(unix.SIGTERM))
		require.NoError(t, s.Signal(unix.SIGKILL))
		n, err := s.Ended()
		require.NoError(t, err)
		require.Zero(t, n)
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
}

func TestHostileLeftoversAreSwept(t *testing.T) {
	for _, test := range []struct {
		about, script string
		end           func(*testing.T, *Reaper) int
		n             int
	}{
		{"a member of the group", `sleep 1000 & echo $!`, sweep, 1},
		{"a daemon", `setsid sh -c 'setsid sh -c "echo \$\$; exec sleep 1000" & exit' & wait`, sweep, 1},
		{"a tree", `sh -c 'setsid sh -c "sleep 1000 & echo \$\$; wait" & wait' & exit`, sweep, 3},
		{"a stopped one", `sh -c 'sleep 1000 & kill -STOP $!; echo $!'`, sweep, 1},
		{"one that ignores SIGTERM", `(trap '' TERM; exec sleep 1000) & echo $!; while ! grep -q '^SigIgn.*4...$' /proc/$!/status; do :; done`, sweepAway, 1},
		{"without mercy", `sleep 1000 & echo $!`, sweepAway, 1},
	} {
		t.Run(test.about, func(t *testing.T) {
			r := newReaper(t, Options{})
			pid := leave(t, r, test.script)
			require.Equal(t, test.n, test.end(t, r))
			require.False(t, isAlive(pid))
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
	require.Equal(t, 1, sweep(t, r))
}

func TestHostileProcessThatForksAndEndsIsSwept(t *testing.T) {
	r := newReaper(t, Options{})
	leave(t, r, `trap '' TERM; sleep 1000 & echo $!; f() { f & }; f`)
	require.Positive(t, sweepAway(t, r))
}

func TestHostileForkBombIsSwept(t *testing.T) {
	r := newReaper(t, Options{})
	leave(t, r, `trap '' TERM; sleep 1000 & echo $!; for i in 1 2 3; do setsid sh -c 'while :; do sh -c "exec sleep 0.01" & wait $!; done' & done`)
	require.Greater(t, sweepAway(t, r), 3)
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
	require.Equal(t, 1, sweep(t, r))
	require.False(t, isAlive(left))
	require.True(t, isAlive(running.Pid()))
	require.True(t, isAlive(orphan))
	require.NoError(t, running.SignalProcess(unix.SIGKILL))
	exitOf(t, running)
	require.Equal(t, 1, sweep(t, r))
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
	require.Equal(t, 1, sweepAway(t, r))
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
	require.Equal(t, 1, sweep(t, r))
	r.procRoot = "/proc"
	require.False(t, isAlive(member))
	require.True(t, isAlive(daemon), "it cannot be found without /proc")
	require.Equal(t, 1, strings.Count(log.String(), "process table unreadable"))
}

func TestNumberThatWasGivenAwayIsNotSignalled(t *testing.T) {
	r := newReaper(t, Options{})
	pid := leave(t, r, `sleep 1000 & echo $!`)
	p, err := procfs.Read(procfs.Root, pid)
	require.NoError(t, err)

	other := p
	other.Start++ // the number has been given to another process meanwhile
	require.ErrorIs(t, r.signalLeftover(other, unix.SIGKILL), unix.ESRCH)
	require.True(t, isAlive(pid))
	require.NoError(t, r.signalLeftover(p, unix.SIGKILL))
}

func TestSweepIsBrokenOffByClose(t *testing.T) {
	r, err := New(quiet(catch(nil)))
	require.NoError(t, err)
	pid := leave(t, r, `(trap '' TERM; exec sleep 1000) & echo $!; while ! grep -q '^SigIgn.*4...$' /proc/$!/status; do :; done`)
	s := r.Sweep(true)
	r.Close()
	await(t, s.Done(), "the end of the wait")
	_, err = s.Ended()
	require.ErrorIs(t, err, errClosed)
	require.NoError(t, s.Signal(unix.SIGKILL), "nobody is left to signal")
	require.True(t, isAlive(pid))
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	_, err = unix.Wait4(pid, nil, 0, nil)
	require.NoError(t, err)
}

func TestStuckProcessesAreReported(t *testing.T) {
	log := newBuffer()
	r := newReaper(t, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
	stuck := &Sweep{r: r, left: []procfs.Process{{Pid: 42}}}
	stuck.warn()
	require.Contains(t, log.String(), "outlive SIGKILL\" pids=[42]")
	require.False(t, stuck.over)
	stuck.groups = true
	stuck.warn()
	require.ErrorIs(t, stuck.err, procfs.ErrUnusable)
	require.True(t, stuck.over)
}

// witness leaves a witness behind that is in the group of its parent, which ends with its stdin. It gives the parent,
// what ends it, and what the witness says.
func witness(t *testing.T, r *Reaper, script string) (parent *Child, end func(), lines <-chan string) {
	t.Helper()
	in, hold := hold(t)
	w, lines := pipe(t)
	cmd := shell(script, testBinary(t))
	cmd.Env, cmd.Stdout = append(os.Environ(), "REAPER_ROLE=witness"), w
	return startWith(t, r, in, cmd), hold, lines
}

// hold returns a stdin that ends when end is called.
func hold(t *testing.T) (in *os.File, end func()) {
	t.Helper()
	in, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { in.Close(); w.Close() })
	return in, func() { w.Close() }
}

// awaitLooks waits until the sweep has looked n times more.
func awaitLooks(t *testing.T, s *Sweep, n int) {
	t.Helper()
	for range n {
		before := s.view.Load()
		eventually(t, "another look", func() bool { return s.view.Load() != before })
	}
}

// says requires the next lines of a witness: the numbers of the signals that it got. Of two that come at once, each on
// a thread of its own, either may be the first.
func says(t *testing.T, lines <-chan string, signals ...syscall.Signal) {
	t.Helper()
	var want, got []string
	for _, sig := range signals {
		want = append(want, strconv.Itoa(int(sig)))
		got = append(got, await(t, lines, signalname.Of(sig)))
	}
	require.ElementsMatch(t, want, got)
}

func TestLeftoverIsAskedOnceAndNeverKilledUnasked(t *testing.T) {
	r := newReaper(t, Options{})
	parent, end, lines := witness(t, r, `"$1" & read x`)
	require.Equal(t, "ready", await(t, lines, "the witness"))
	end()
	exitOf(t, parent)
	s := r.Sweep(true)
	says(t, lines, unix.SIGTERM, unix.SIGCONT)
	awaitLooks(t, s, 5)
	require.Len(t, s.Left(), 1)
	require.NoError(t, s.Signal(unix.SIGUSR1))
	says(t, lines, unix.SIGUSR1)
	awaitLooks(t, s, 2)
	require.NoError(t, s.Signal(unix.SIGUSR2))
	says(t, lines, unix.SIGUSR2)
	n, err := s.Ended()
	require.NoError(t, err)
	require.Zero(t, n, "the wait is not over")
	require.NoError(t, s.Signal(unix.SIGKILL))
	await(t, s.Done(), "the end")
	n, err = s.Ended()
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Empty(t, s.Left())
}

func TestLeftoverOfAMigrationIsNotAsked(t *testing.T) {
	r := newReaper(t, Options{})
	parent, end, lines := witness(t, r, `"$1" & read x`)
	require.Equal(t, "ready", await(t, lines, "the witness"))
	end()
	exitOf(t, parent)
	s := r.Sweep(false)
	awaitLooks(t, s, 5)
	require.NoError(t, s.Signal(unix.SIGCONT))
	says(t, lines, unix.SIGCONT)
	require.Len(t, s.Left(), 1)
}

// A node behind a shell script without exec: the stop signal goes to the group, the shell dies of it, and the node is
// left over in the midst of its graceful stop.
func TestNodeThatAScriptLeavesInItsGracefulStopIsNotAskedTwice(t *testing.T) {
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT} {
		t.Run(signalname.Of(sig), func(t *testing.T) {
			r := newReaper(t, Options{})
			cmd := actor("script")
			w, lines := pipe(t)
			cmd.Stdout = w
			script := start(t, r, cmd)
			node := number(t, lines)
			require.Equal(t, "ready", await(t, lines, "the node"))
			awaitTickAfterStart(t, node)
			require.NoError(t, script.Signal(sig))
			require.Equal(t, sig, exitOf(t, script).Signal)
			says(t, lines, sig)
			r.Sweep(true)
			says(t, lines, unix.SIGCONT)
		})
	}
}

// awaitTickAfterStart waits until the process is older than a tick of the kernel's clock.
func awaitTickAfterStart(t *testing.T, pid int) {
	t.Helper()
	p, err := procfs.Read(procfs.Root, pid)
	require.NoError(t, err)
	eventually(t, "the next tick", func() bool { return clockTick() > p.Start })
}

func init() {
	// script is one whose node runs in the background, but hears of SIGINT and SIGQUIT, other than one of a shell's.
	roles["script"] = func() {
		signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT) // if ignored so far: an exec makes it default
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.Stdout = append(os.Environ(), "REAPER_ROLE=witness"), os.Stdout
		must(cmd.Start())
		fmt.Println(cmd.Process.Pid)
		must(unix.Exec("/bin/sleep", []string{"sleep", "1000"}, nil))
	}
}

func TestLeftoverThatBeganAfterTheStopSignalIsAsked(t *testing.T) {
	r := newReaper(t, Options{})
	parent, _, lines := witness(t, r, `trap '"$1" & exit' TERM; echo trapped; read x`)
	require.Equal(t, "trapped", await(t, lines, "the trap"))
	require.NoError(t, parent.Signal(unix.SIGTERM))
	exitOf(t, parent)
	require.Equal(t, "ready", await(t, lines, "the witness"))
	r.Sweep(true)
	says(t, lines, unix.SIGTERM, unix.SIGCONT)
}

func TestStopSignalOfItsGroupCountsForThoseFromBeforeItsTick(t *testing.T) {
	r := newReaper(t, Options{})
	r.mu.Lock()
	r.groups[7], r.groups[8] = 100, 0
	r.mu.Unlock()
	require.True(t, r.hasBeenAsked(procfs.Process{Group: 7, Start: 99}))
	require.False(t, r.hasBeenAsked(procfs.Process{Group: 7, Start: 100}), "it may have begun after the signal")
	require.False(t, r.hasBeenAsked(procfs.Process{Group: 7, Start: 101}))
	require.False(t, r.hasBeenAsked(procfs.Process{Group: 8, Start: 0}), "its group got no stop signal")
	require.False(t, r.hasBeenAsked(procfs.Process{Group: 9, Start: 99}), "another group")
}

func TestLeftoversAreNamedOldestFirst(t *testing.T) {
	r := newReaper(t, Options{})
	before := time.Now()
	old := leave(t, r, `exec 3>&1; (trap '' TERM; exec sleep 1000) & echo $!`)
	awaitTickAfterStart(t, old)
	young := leave(t, r, `(trap '' TERM; exec sleep 1000) & echo $!`)
	s := r.Sweep(false)
	eventually(t, "both are sleep", func() bool {
		left := s.Left()
		return len(left) == 2 && left[0].Command == "sleep" && left[1].Command == "sleep"
	})
	left := s.Left()
	require.Equal(t, []int{old, young}, []int{left[0].Pid, left[1].Pid})
	require.WithinRange(t, left[0].Since, before, time.Now())
	awaitLooks(t, s, 3)
	require.Equal(t, left, s.Left(), "first seen is first seen")
	require.NoError(t, unix.Kill(old, unix.SIGKILL))
	eventually(t, "one is left", func() bool { return len(s.Left()) == 1 })
	require.Equal(t, left[1], s.Left()[0])
}

func TestProcessesThatMayNotBeSignalledAreTold(t *testing.T) {
	if os.Getuid() != 0 {
		missing(t, "only root can leave a process to an unprivileged parent")
	}
	r := newReaper(t, Options{})
	cmd := actor("unprivileged")
	cmd.Path = "/proc/self/exe"
	got := output(t, r, cmd)
	require.Regexp(t, `child: true cannot send SIGTERM to process group \d+: it runs as another user now, whose processes we may not signal: operation not permitted`, got)
	require.Equal(t, 1, strings.Count(got, "leftover process cannot be asked to end"), got)
	require.Regexp(t, `level=ERROR msg="leftover process cannot be asked to end" pid=\d+ command=sleep`, got)
	require.Contains(t, got, "asked: 1 left")
	require.Regexp(t, `signalled: true cannot send SIGUSR1 to process \d+ \("sleep"\): operation not permitted`, got)
	require.Regexp(t, `killed: true cannot end process \d+ \("sleep"\), which was left behind: operation not permitted`, got)
	require.Regexp(t, `ended: 1 cannot end process`, got)
}

func init() {
	// unprivileged has a child and a leftover that have more rights than it.
	roles["unprivileged"] = func() {
		r, err := New(Options{Inbox: catch(nil), Log: slog.New(slog.NewTextHandler(os.Stdout, nil))})
		must(err)
		running, err := r.Start(shell("exec sleep 1000"))
		must(err)
		c, err := r.Start(shell("exec 3>&-; sleep 1000 & exit"))
		must(err)
		<-c.Done()
		must(syscall.Setuid(65534))
		show := func(what string, err error) { fmt.Println(what, errors.Is(err, unix.EPERM), err) }
		show("child:", running.Signal(unix.SIGTERM))
		s := r.Sweep(true)
		for before := s.view.Load(); s.view.Load() == before || s.Left()[0].Command != "sleep"; {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("asked:", len(s.Left()), "left")
		show("signalled:", s.Signal(unix.SIGUSR1))
		show("killed:", s.Signal(unix.SIGKILL))
		<-s.Done()
		n, err := s.Ended()
		fmt.Println("ended:", n, err)
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
	r, err := New(quiet(catch(nil)))
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
			a, _ := procfs.Read(procfs.Root, execed)
			b, _ := procfs.Read(procfs.Root, entered)
			return a.Parent == 1 && b.Parent == 1
		})
		n := sweep(t, r)
		fmt.Fprintf(say, "swept %d, alive %v %v\n", n, isAlive(execed), isAlive(entered))
	}
}
