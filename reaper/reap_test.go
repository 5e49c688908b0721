package reaper

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
	"rollup-entrypoint/internal/signalname"
)

func TestHostileOrphanStormCostsNoStatus(t *testing.T) {
	r := newReaper(t, Options{})
	storm(t, r, 2, 500, 100)
	require.GreaterOrEqual(t, r.Orphans(), uint64(1000))
}

func TestInitReapsTenThousandOrphansAndLosesNoStatus(t *testing.T) {
	if !runAsInit(t) {
		return
	}
	r := newReaper(t, Options{})
	storm(t, r, 5, 2000, 300)
	require.GreaterOrEqual(t, r.Orphans(), uint64(10000))
	table, err := readProcesses("/proc")
	require.NoError(t, err)
	require.Len(t, table, 1, "nothing but process 1 may be left")
}

// storm makes orphans and meanwhile starts children of which each has to be reported with its own exit code.
func storm(t *testing.T, r *Reaper, makers, orphans, children int) {
	var storm []*Child
	for range makers {
		storm = append(storm, start(t, r, forker(orphans)))
	}
	var wg sync.WaitGroup
	exits := make([]Exit, children)
	for i := range children {
		wg.Go(func() {
			c, err := r.Start(shell("exit $1", fmt.Sprint(i%256)))
			if err != nil {
				t.Error(err)
				return
			}
			<-c.Done()
			exits[i] = c.Exit()
		})
	}
	wg.Wait()
	for i, exit := range exits {
		require.Equal(t, Exit{Code: i % 256}, exit)
	}
	for _, c := range storm {
		awaitStorm(t, r, c)
		require.Equal(t, Exit{Code: 42}, c.Exit())
	}
	// The last orphans may still run. When the last is reaped there are no children left.
	eventually(t, "no children left", func() bool {
		childless, err := r.reapNow()
		require.NoError(t, err)
		return childless
	})
}

// awaitStorm waits for the end of a forker for as long as there are more and more orphans, however slowly: how long
// that takes as a whole says nothing but how busy the machine is.
func awaitStorm(t *testing.T, r *Reaper, c *Child) {
	t.Helper()
	for before := uint64(0); ; {
		select {
		case <-c.Done():
			return
		case <-time.After(patience):
			now := r.Orphans()
			require.Greater(t, now, before, "the storm has stopped")
			before = now
		}
	}
}

func TestEveryExitIsReported(t *testing.T) {
	r := newReaper(t, Options{})
	for code := range 256 {
		e := exitOf(t, start(t, r, shell("exit $1", fmt.Sprint(code))))
		require.Equal(t, Exit{Code: code}, e)
		require.Equal(t, code, e.Status())
	}
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		switch sig {
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			continue // they do not kill
		}
		if ignoredAtStart&(1<<(sig-1)) != 0 {
			continue // and so for children: posix_spawn(3), which make uses, leaves 32 and 33 like that
		}
		c := start(t, r, shell("ulimit -c 0; exec sleep 1000"))
		require.NoError(t, c.Signal(sig))
		e := exitOf(t, c)
		require.Equal(t, sig, e.Signal)
		require.Equal(t, 128+int(sig), e.Status())
	}
}

func TestExitInWords(t *testing.T) {
	require.Equal(t, "exited 101", Exit{Code: 101}.String())
	require.Equal(t, "killed by SIGKILL", Exit{Signal: unix.SIGKILL}.String())
	require.Equal(t, "killed by signal 37", Exit{Signal: 37}.String())
	require.Equal(t, "killed by SIGSEGV (core dumped)", newExit(0x80|0x0b).String())
}

func TestChildThatDiesAtOnceIsReported(t *testing.T) {
	r := newReaper(t, Options{})
	for range 300 {
		require.Equal(t, Exit{}, exitOf(t, start(t, r, Command{Path: "/bin/true", Args: []string{"true"}})))
	}
}

func TestFailedStartsDoNotDisturbTheReaper(t *testing.T) {
	// os.StartProcess waits itself for a child whose exec failed; the loop must not be faster.
	r := newReaper(t, Options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, err := r.Start(Command{Path: "/no/such"}); err == nil || !strings.Contains(err.Error(), "no such file") {
					t.Errorf("got %v", err)
				}
				if c, err := r.Start(shell("exit 3")); err != nil {
					t.Error(err)
				} else if <-c.Done(); c.Exit().Code != 3 {
					t.Errorf("got %v", c.Exit())
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, r.Orphans(), "a failed start was reaped by the loop")
}

func TestChildrenFromBeforeTheStartAreReaped(t *testing.T) {
	before, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	require.NoError(t, err)
	eventually(t, "a zombie", func() bool { return state(before.Pid) == 'Z' })
	r := newReaper(t, Options{})
	// It is counted just after it is gone.
	eventually(t, "it is reaped", func() bool { return state(before.Pid) == 0 && r.Orphans() > 0 })
}

func TestSignalAfterTheEndIsRefused(t *testing.T) {
	r := newReaper(t, Options{})
	c := start(t, r, shell("exit 0"))
	exitOf(t, c)
	require.ErrorIs(t, c.Signal(unix.SIGTERM), os.ErrProcessDone)
	require.ErrorIs(t, c.SignalProcess(unix.SIGTERM), os.ErrProcessDone)
}

// Until it is known that a process was reaped its number is not free: otherwise the signal could be somebody else's.
func TestSignalNeverFindsTheNumberFree(t *testing.T) {
	r := newReaper(t, Options{})
	for range 300 {
		c := start(t, r, Command{Path: "/bin/true", Args: []string{"true"}})
		var err error
		for err == nil {
			err = c.SignalProcess(0) // to a zombie, too, it can be sent
		}
		require.ErrorIs(t, err, os.ErrProcessDone)
		exitOf(t, c)
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	cmd := shell(`sleep 1000 & echo $!; wait`)
	cmd.Stdout = w
	c := start(t, r, cmd)
	member := number(t, lines)
	require.Equal(t, Exit{}, c.Exit(), "not over yet")
	require.ErrorContains(t, c.Signal(99), "cannot send signal 99")
	require.NoError(t, c.Signal(unix.SIGTERM))
	require.Equal(t, Exit{Signal: unix.SIGTERM}, exitOf(t, c))
	eventually(t, "the member ended", func() bool { return !isAlive(member) })
}

func TestChildOutsideOfItsGroupIsStillReached(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	other := start(t, r, shell("exec sleep 1000"))
	cmd := actor("leave group")
	cmd.Args, cmd.Stdout = append(cmd.Args, fmt.Sprint(other.Pid())), w
	c := start(t, r, cmd)
	require.Equal(t, "left", await(t, lines, "the move"))
	require.NoError(t, c.Signal(unix.SIGKILL))
	require.Equal(t, Exit{Signal: unix.SIGKILL}, exitOf(t, c))
	require.NoError(t, other.Signal(unix.SIGKILL))
}

func init() {
	roles["leave group"] = func() {
		var pgid int
		fmt.Sscan(os.Args[1], &pgid)
		must(unix.Setpgid(0, pgid))
		fmt.Println("left")
		forever()
	}
}

func TestCloseEndsTheReaper(t *testing.T) {
	r, err := New(quiet(catch(nil)))
	require.NoError(t, err)
	c := start(t, r, shell("exec sleep 1000"))
	r.Close()
	_, err = r.Sweep(true).Ended()
	require.ErrorIs(t, err, errClosed)

	require.NoError(t, unix.Kill(c.Pid(), unix.SIGKILL))
	_, err = unix.Wait4(c.Pid(), nil, 0, nil) // nobody else does any more
	require.NoError(t, err)
}

func TestSubreaperGetsOrphansOfOrphans(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	cmd := shell(`setsid sh -c 'setsid sh -c "echo \$\$; exec sleep 1000" & exit' & exit`)
	cmd.Stdout = w
	exitOf(t, start(t, r, cmd))
	pid := number(t, lines)
	eventually(t, "it is our child", func() bool {
		p, err := procfs.Read(procfs.Root, pid)
		return err == nil && p.Parent == os.Getpid()
	})
}

func TestParentDeathSignalEndsTheChild(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	cmd := actor("parent")
	cmd.Stdout = w
	parent := start(t, r, cmd)
	child := number(t, lines)
	require.True(t, isAlive(child))
	require.NoError(t, parent.SignalProcess(unix.SIGKILL))
	exitOf(t, parent)
	eventually(t, "the child died with its parent", func() bool { return !isAlive(child) })
}

func TestParentDeathIsThatOfTheProcessAndNotOfAThread(t *testing.T) {
	r := newReaper(t, Options{})
	cmd := shell("exec sleep 1000")
	cmd.ParentDeathSignal = unix.SIGKILL
	var c *Child
	onPassingThread(t, func() { c = start(t, r, cmd) })
	require.NoError(t, c.Signal(unix.SIGTERM))
	require.Equal(t, Exit{Signal: unix.SIGTERM}, exitOf(t, c))
}

// onPassingThread runs f on a thread that has ended when it returns.
func onPassingThread(t *testing.T, f func()) {
	t.Helper()
	thread := make(chan int, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		id := unix.Gettid()
		if id == os.Getpid() { // the first one never ends
			onPassingThread(t, f)
		} else {
			f()
		}
		thread <- id
	}()
	id := await(t, thread, "the thread")
	eventually(t, "the thread has ended", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", id))
		return id == os.Getpid() || os.IsNotExist(err)
	})
}

func TestOurOwnParentDeathSignal(t *testing.T) {
	r := newReaper(t, Options{})
	w, lines := pipe(t)
	cmd := actor("middle")
	cmd.Stdout = w
	middle := start(t, r, cmd)
	require.Equal(t, "ready", await(t, lines, "the child to be ready"))
	require.NoError(t, middle.SignalProcess(unix.SIGKILL))
	require.Equal(t, "got SIGTERM", await(t, lines, "the signal"))
}

func TestImpossibleParentDeathSignalIsRefused(t *testing.T) {
	_, err := New(Options{ParentDeathSignal: 99})
	require.ErrorContains(t, err, "cannot set the parent-death signal to signal 99")
}

func init() {
	roles["parent"] = func() {
		r, err := New(quiet(catch(nil)))
		must(err)
		c, err := r.Start(Command{Path: "/bin/sleep", Args: []string{"sleep", "1000"}, ParentDeathSignal: unix.SIGKILL})
		must(err)
		fmt.Println(c.Pid())
		forever()
	}
	roles["middle"] = func() {
		cmd := actor("mourner")
		_, err := os.StartProcess(cmd.Path, cmd.Args, &os.ProcAttr{Env: cmd.Env, Files: []*os.File{nil, os.Stdout, os.Stderr}})
		must(err)
		forever()
	}
	roles["mourner"] = func() {
		inbox := CatchSignals()
		_, err := New(Options{Inbox: inbox, ParentDeathSignal: unix.SIGTERM, Log: slog.New(slog.DiscardHandler)})
		must(err)
		fmt.Println("ready")
		fmt.Println("got", signalname.Of(<-inbox.Signals()))
	}
	// witness prints each signal that it gets and may be sent, and ends with its stdin.
	roles["witness"] = func() {
		caught := make(chan os.Signal, 1000)
		signal.Notify(caught, forwardable()...)
		fmt.Println("ready")
		for sig := range caught {
			fmt.Println(int(sig.(syscall.Signal)))
		}
	}
}
