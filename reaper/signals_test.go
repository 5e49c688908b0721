package reaper

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/signalname"
)

func TestEverySignalIsForwardedOrHasAReason(t *testing.T) {
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		ok, why := Forwardable(sig)
		require.Equal(t, ok, why == "", signalname.Of(sig))
	}
	for _, sig := range []syscall.Signal{1, 2, 3, 6, 10, 12, 15, 18, 20, 28, 35, 37, 64} {
		ok, _ := Forwardable(sig)
		require.True(t, ok, signalname.Of(sig))
	}
	for _, sig := range []syscall.Signal{-1, 0, 65} {
		ok, why := Forwardable(sig)
		require.False(t, ok)
		require.Equal(t, "there is no such signal", why)
	}
	require.Len(t, forwardable(), 64-len(notForwarded)-ignoredForwardable())
}

// ignoredForwardable counts the signals that the test itself found ignored and that would be forwarded otherwise.
func ignoredForwardable() (n int) {
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT} {
		if ignoredAtStart&(1<<(sig-1)) != 0 {
			n++
		}
	}
	return n
}

// raise sends a signal to this process and waits until the runtime has relayed it: each catcher of it gets it in the
// same moment, so when ours has it the Inbox has.
func raise(t *testing.T, sig syscall.Signal) {
	t.Helper()
	relayed := make(chan os.Signal, 10)
	signal.Notify(relayed, sig)
	defer signal.Stop(relayed)
	require.NoError(t, unix.Kill(os.Getpid(), sig))
	await(t, relayed, signalname.Of(sig))
	// The runtime hands the signal to its listeners under a lock which this call takes as well.
	signal.Notify(relayed, sig)
}

func TestUnreadSignalsAreKeptOnceInOrder(t *testing.T) {
	b := newInbox(t)
	_, ok := b.TryTake()
	require.False(t, ok)
	want := []syscall.Signal{unix.SIGTERM, unix.SIGUSR1, 64, unix.SIGHUP, 37, unix.SIGTSTP}
	for _, sig := range want {
		raise(t, sig)
		raise(t, unix.SIGTERM) // has no further effect
		raise(t, unix.SIGPIPE) // is never handed out
	}
	for _, sig := range want[:3] {
		got, ok := b.TryTake()
		require.True(t, ok)
		require.Equal(t, sig, got)
	}
	for _, sig := range want[3:] {
		require.Equal(t, sig, await(t, b.Signals(), "a signal"))
	}
	_, ok = b.TryTake()
	require.False(t, ok)

	raise(t, unix.SIGTERM) // once taken, it counts again
	require.Equal(t, unix.SIGTERM, await(t, b.Signals(), "SIGTERM"))
}

func TestAFloodOfOneSignalDoesNotPushOutAnother(t *testing.T) {
	b := newInbox(t)
	for i := range 20000 {
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGUSR1))
		if i == 10000 {
			raise(t, unix.SIGTERM)
		}
	}
	require.Equal(t, unix.SIGUSR1, await(t, b.Signals(), "SIGUSR1"))
	require.Equal(t, unix.SIGTERM, await(t, b.Signals(), "SIGTERM"))
}

func TestClosedInboxHandsOutNothing(t *testing.T) {
	b := CatchSignals()
	require.NoError(t, b.Close())
	_, ok := b.TryTake()
	require.False(t, ok)
	select {
	case <-b.Signals():
		t.Fatal("got a signal")
	default:
	}
}

func TestSignalIgnoredAtTheStartStaysIgnored(t *testing.T) {
	r := newReaper(t, Options{})
	cmd := shell(`trap '' HUP INT; exec /proc/self/exe`)
	cmd.Env = append(os.Environ(), "REAPER_ROLE=ignorer")
	cmd.Args[2] = `trap '' HUP INT; exec "$1"`
	cmd.Args = append(cmd.Args, testBinary(t))
	got := output(t, r, cmd)
	ignored := findField(got, "SigIgn")
	require.NotZero(t, ignored&(1<<(unix.SIGHUP-1)), "a child has to inherit it:\n%s", got)
	require.NotZero(t, ignored&(1<<(unix.SIGINT-1)))
	require.Zero(t, ignored&(1<<(unix.SIGPIPE-1)))
	require.Contains(t, got, "survived")
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

func init() {
	roles["ignorer"] = func() {
		b := CatchSignals()
		r, err := New(quiet(b))
		must(err)
		must(unix.Kill(os.Getpid(), unix.SIGHUP))
		c, err := r.Start(Command{Path: "/bin/grep", Args: []string{"grep", "Sig", "/proc/self/status"}})
		must(err)
		<-c.Done()
		fmt.Println("survived")
	}
}

func TestChildHasDefaultSignalDispositions(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	status := output(t, r, Command{Path: "/bin/cat", Args: []string{"cat", "/proc/self/status"}})
	require.Contains(t, status, "SigCgt:")
	require.Equal(t, ignoredAtStart&^(1<<(unix.SIGPIPE-1)), findField(status, "SigIgn")&^(1<<(unix.SIGPIPE-1)))
	require.Zero(t, findField(status, "SigBlk"))
	require.Zero(t, findField(status, "SigCgt"))
}

func TestClosedStderrDoesNotKillUs(t *testing.T) {
	r := newReaper(t, Options{})
	read, write, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, read.Close())
	defer write.Close()
	cmd := actor("complainer")
	cmd.Stdout, cmd.Stderr = write, write
	require.Equal(t, Exit{Code: 3}, exitOf(t, start(t, r, cmd)))
}

func init() {
	roles["complainer"] = func() {
		b := CatchSignals()
		r, err := New(quiet(b))
		if err != nil {
			os.Exit(98)
		}
		for range 100 {
			fmt.Fprintln(os.Stderr, "nobody", strings.Repeat("cares", 1000))
			fmt.Println("nobody")
		}
		c, err := r.Start(shell("exit 3"))
		if err != nil {
			os.Exit(97)
		}
		<-c.Done()
		os.Exit(c.Exit().Status())
	}
}

// A fault signal that a process sends is no fault: an init that died of it would take the whole container along.
func TestHostileFaultSignalsDoNotEndTheInit(t *testing.T) {
	if runAsInit(t) {
		outliveFaultSignals(t)
	}
}

func TestHostileFaultSignalsAreDropped(t *testing.T) {
	r := newReaper(t, Options{})
	require.Equal(t, "outlived\n", output(t, r, actor("faultless")))
}

func outliveFaultSignals(t require.TestingT) {
	b := CatchSignals()
	r, err := New(quiet(b))
	require.NoError(t, err)
	for range 20 {
		for _, sig := range faults() {
			c, err := r.Start(shell("kill -$1 $2", fmt.Sprint(int(sig)), fmt.Sprint(os.Getpid())))
			require.NoError(t, err)
			<-c.Done()
			require.Equal(t, Exit{}, c.Exit())
			// The kernel delivers it after the fault signal, whose number is smaller or which counts as synchronous.
			require.NoError(t, unix.Kill(os.Getpid(), lastSignal))
			require.Equal(t, lastSignal, <-b.Signals(), "%s was handed out", signalname.Of(sig))
		}
	}
	r.Close()
	require.NoError(t, b.Close())
}

func TestHostileFaultSignalsLeaveOurOwnFaultsFatal(t *testing.T) {
	for role, text := range map[string]string{"nil pointer": "nil pointer dereference", "lost page": "unexpected fault address"} {
		t.Run(role, func(t *testing.T) {
			r := newReaper(t, Options{})
			stderr := newBuffer()
			require.Equal(t, Exit{Code: 2}, exitOf(t, start(t, r, pumped(actor(role), stderr))))
			require.Contains(t, stderr.String(), text)
			require.Contains(t, stderr.String(), "goroutine ")
		})
	}
}

// mustTest lets a role use require.
type mustTest struct{}

func (mustTest) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format, args...) }
func (mustTest) FailNow()                          { os.Exit(99) }

func init() {
	roles["faultless"] = func() {
		outliveFaultSignals(mustTest{})
		fmt.Println("outlived")
	}
	roles["nil pointer"] = func() {
		CatchSignals()
		fmt.Println(map[string]*Exit{}["nothing"].Code)
	}
	roles["lost page"] = func() {
		CatchSignals()
		file, err := os.CreateTemp("", "page")
		must(err)
		must(os.Remove(file.Name()))
		page, err := unix.Mmap(int(file.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
		must(err)
		fmt.Println(page[0]) // the file is empty: SIGBUS
	}
}

// forwardEverything runs Exec and sends us every signal, of which each must reach the child, and once.
func forwardEverything(t *testing.T, opts ExecOptions) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	lines, exit := execWitness(t, r, opts)
	want, got := map[string]int{}, map[string]int{}
	send := func(sig os.Signal) {
		require.NoError(t, unix.Kill(os.Getpid(), sig.(syscall.Signal)))
		want[fmt.Sprint(int(sig.(syscall.Signal)))] = 1
	}
	receive := func() {
		for len(got) < len(want) {
			got[await(t, lines, "a signal")]++
		}
	}
	for _, sig := range forwardable() {
		if sig != unix.SIGCONT {
			send(sig)
		}
	}
	receive()
	send(unix.SIGCONT) // by itself: the kernel lets it and the stop signals cancel each other
	receive()
	require.Equal(t, want, got)
	endWitness(t, r, exit)
	for line := range lines {
		t.Errorf("signal %s came again", line)
	}
}

// execWitness runs Exec with a child that prints each signal that it gets.
func execWitness(t *testing.T, r *Reaper, opts ExecOptions) (lines <-chan string, exit <-chan Exit) {
	t.Helper()
	w, lines := pipe(t)
	cmd := actor("witness")
	cmd.Stdout = w
	exit = execute(t, r, cmd, opts)
	require.Equal(t, "ready", await(t, lines, "the child to be ready"))
	return lines, exit
}

// endWitness ends the only child of r.
func endWitness(t *testing.T, r *Reaper, exit <-chan Exit) {
	t.Helper()
	for pid := range r.running() {
		require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	}
	require.Equal(t, Exit{Signal: unix.SIGKILL}, await(t, exit, "the end of Exec"))
}

// execute runs Exec in the background, and closes the child's stdout, a file, then, so that its lines have an end.
func execute(t *testing.T, r *Reaper, cmd Command, opts ExecOptions) <-chan Exit {
	t.Helper()
	done := make(chan Exit, 1)
	go func() {
		e, err := r.Exec(cmd, opts)
		cmd.Stdout.(*os.File).Close()
		if err != nil {
			t.Error(err)
		}
		done <- e
	}()
	return done
}

func TestExecForwardsEverySignalOnce(t *testing.T) {
	forwardEverything(t, ExecOptions{})
}

func TestExecForwardsEverySignalOnceToTheGroup(t *testing.T) {
	forwardEverything(t, ExecOptions{Group: true})
}

func TestInitForwardsEverySignalOnce(t *testing.T) {
	if runAsInit(t) {
		forwardEverything(t, ExecOptions{})
	}
}

func TestHostileOrphanStormCostsNoSignal(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	lines, exit := execWitness(t, r, ExecOptions{})
	storm := start(t, r, forker(1000))
	for n, over := 0, false; !over; n++ {
		require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
		require.Equal(t, "15", await(t, lines, "SIGTERM"))
		select {
		case <-storm.Done():
			over = true
		case <-time.After(time.Millisecond):
		}
	}
	require.Equal(t, Exit{Code: 42}, storm.Exit())
	endWitness(t, r, exit)
}

func TestPulseIsTakenByWhoeverTakesTheSignals(t *testing.T) {
	b := newInbox(t)
	select {
	case b.Pulse() <- 0:
		t.Fatal("nobody has taken it")
	default:
	}
	go func() { b.Pulse() <- 0 }()
	require.Zero(t, await(t, b.Signals(), "a pulse"))
	raise(t, unix.SIGUSR1)
	require.Equal(t, unix.SIGUSR1, await(t, b.Signals(), "a signal"))
}
