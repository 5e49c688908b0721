package reaper

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// openPty returns both ends of a new pseudo-terminal (pts(4)). The tests write to the master what a user types.
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		missing(t, "cannot open a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	number := 0
	control(master, func(fd int) {
		require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		require.NoError(t, err)
	})
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	// Without echo the screen shows only what the programs write.
	control(slave, func(fd int) {
		settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		require.NoError(t, err)
		settings.Lflag &^= unix.ECHO
		require.NoError(t, unix.IoctlSetTermios(fd, unix.TCSETS, settings))
	})
	return master, slave
}

// screen waits for the next lines that the programs write, which must be these.
type screen struct {
	t     *testing.T
	lines <-chan string
}

func (s screen) shows(want ...string) {
	s.t.Helper()
	for _, line := range want {
		require.Equal(s.t, line, strings.TrimRight(await(s.t, s.lines, line), "\r"))
	}
}

func TestTerminalBelongsToTheChildUnderAShell(t *testing.T) {
	master, slave := openPty(t)
	screen := screen{t, linesOf(master)}
	cmd := actor("shell")
	p, err := os.StartProcess(cmd.Path, cmd.Args, &os.ProcAttr{
		Env:   cmd.Env,
		Files: []*os.File{slave, slave, slave},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0, Pdeathsig: unix.SIGKILL},
	})
	require.NoError(t, err)
	typed := func(keys string) {
		_, err := master.WriteString(keys)
		require.NoError(t, err)
	}

	screen.shows("reader: ready")
	typed("\x03") // Ctrl-C
	screen.shows("reader: interrupt")
	typed("one\n")
	screen.shows("reader: one after 1 interrupts")
	for range 3 {
		typed("\x1a") // Ctrl-Z
		screen.shows("shell: job stopped, terminal returned: true")
		require.NoError(t, p.Signal(unix.SIGUSR1)) // fg
		typed("two\n")
		screen.shows("reader: two after 1 interrupts")
	}
	typed("\x03")
	screen.shows("reader: interrupt")
	typed("\x04") // Ctrl-D, the end of input
	screen.shows("shell: job exited with 7, terminal returned: true")
	_, err = p.Wait()
	require.NoError(t, err)
}

// TestJobInTheBackgroundWaitsForTheTerminal starts with another group in the foreground: the child is stopped when it
// reads, and so are we.
func TestJobInTheBackgroundWaitsForTheTerminal(t *testing.T) {
	master, slave := openPty(t)
	screen := screen{t, linesOf(master)}
	cmd := actor("shell")
	p, err := os.StartProcess(cmd.Path, append(cmd.Args, "background"), &os.ProcAttr{
		Env:   cmd.Env,
		Files: []*os.File{slave, slave, slave},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0, Pdeathsig: unix.SIGKILL},
	})
	require.NoError(t, err)
	screen.shows("shell: job stopped, terminal returned: false")
	require.NoError(t, p.Signal(unix.SIGUSR1)) // fg
	_, err = master.WriteString("one\n")
	require.NoError(t, err)
	screen.shows("cat: one")
	_, err = master.WriteString("\x04")
	require.NoError(t, err)
	screen.shows("shell: job exited with 7, terminal returned: true")
	_, err = p.Wait()
	require.NoError(t, err)
}

func TestInitGivesTheTerminalAway(t *testing.T) {
	if !runAsInit(t) {
		return
	}
	master, slave := openPty(t)
	screen := screen{t, linesOf(master)}
	control(slave, func(fd int) { require.NoError(t, unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0)) })
	signal.Ignore(unix.SIGHUP) // the terminal's end, at the end of the test
	log := newBuffer()
	inbox := newInbox(t)
	r := newReaper(t, Options{Inbox: inbox, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	cmd := actor("reader")
	cmd.Stdout, cmd.Stderr, cmd.Foreground = slave, slave, true
	defer setStdin(slave)()
	exit := make(chan Exit, 1)
	go func() {
		e, err := r.Exec(cmd, ExecOptions{})
		if err != nil {
			t.Error(err)
		}
		exit <- e
	}()
	typed := func(keys string) {
		_, err := master.WriteString(keys)
		require.NoError(t, err)
	}
	screen.shows("reader: ready")
	typed("\x03")
	screen.shows("reader: interrupt")
	typed("\x1a")
	log.awaitText(t, "child stopped")
	raise(t, unix.SIGCONT) // from outside, as `docker kill -s CONT` sends it
	typed("one\n")
	screen.shows("reader: one after 1 interrupts")
	raise(t, unix.SIGINT) // from outside, too
	screen.shows("reader: interrupt")
	typed("\x04")
	require.Equal(t, Exit{Code: 7}, await(t, exit, "the end"))
	_, ok := inbox.TryTake()
	require.False(t, ok, "Ctrl-C is the child's alone")
}

func TestExecWithoutATerminalNeedsNone(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	cmd := shell("exit 4")
	null, err := os.Open("/dev/null")
	require.NoError(t, err)
	defer null.Close()
	cmd.Foreground = true
	defer setStdin(null)()
	e, err := r.Exec(cmd, ExecOptions{})
	require.NoError(t, err)
	require.Equal(t, Exit{Code: 4}, e)
}

func init() {
	roles["shell"] = playShell
	roles["job"] = playJob
	roles["reader"] = playReader
}

// playShell runs a job as a shell with job control does: a group of its own, the terminal, and a wait for its stops.
// With an argument the job starts in the background. SIGUSR1 means the command fg.
func playShell() {
	signal.Ignore(unix.SIGTTOU)
	fg := make(chan os.Signal, 10)
	signal.Notify(fg, unix.SIGUSR1)
	tty := &terminal{file: os.Stdin, own: unix.Getpgrp()}
	cmd := actor("job")
	background := len(os.Args) > 1
	job, err := os.StartProcess("/proc/self/exe", append(cmd.Args, os.Args[1:]...), &os.ProcAttr{
		Env:   cmd.Env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Foreground: !background, Ctty: 0, Pdeathsig: unix.SIGKILL},
	})
	must(err)
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(job.Pid, &status, unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		must(err)
		returned := tty.foreground() == job.Pid
		must(tty.set(tty.own))
		if !status.Stopped() {
			fmt.Printf("shell: job exited with %d, terminal returned: %v\n", status.ExitStatus(), returned)
			return
		}
		fmt.Printf("shell: job stopped, terminal returned: %v\n", returned)
		<-fg
		must(tty.set(job.Pid))
		must(unix.Kill(-job.Pid, unix.SIGCONT))
	}
}

// playJob is the program under test: an init that runs one command.
func playJob() {
	inbox := CatchSignals()
	signal.Reset(unix.SIGTTOU) // the shell above ignores it
	r, err := New(quiet(inbox))
	must(err)
	cmd := actor("reader")
	if len(os.Args) > 1 {
		cmd = shell(`read line; echo "cat: $line"; read line; exit 7`)
	}
	cmd.Foreground, cmd.ParentDeathSignal = true, unix.SIGKILL
	e, err := r.Exec(cmd, ExecOptions{})
	must(err)
	os.Exit(e.Status())
}

// playReader reads the terminal and counts Ctrl-C. It says nothing before it has the terminal.
func playReader() {
	interrupts := make(chan os.Signal, 10)
	signal.Notify(interrupts, unix.SIGINT)
	tty := &terminal{file: os.Stdin}
	for tty.foreground() != unix.Getpgrp() {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("reader: ready")
	lines := make(chan string)
	go func() {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	for n := 0; ; {
		select {
		case <-interrupts:
			n++
			fmt.Println("reader: interrupt")
		case line, ok := <-lines:
			if !ok {
				os.Exit(7)
			}
			fmt.Printf("reader: %s after %d interrupts\n", line, n)
		}
	}
}
