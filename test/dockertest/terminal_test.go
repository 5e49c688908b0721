package dockertest_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/test/dockertest"
)

// terminal is a terminal with a program in it: what a person types and sees there.
type terminal struct {
	t      *testing.T
	master *os.File
	mu     sync.Mutex
	screen strings.Builder
	seen   int
}

// openTerminal starts the command in a terminal of its own.
func openTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	defer slave.Close()
	term := &terminal{t: t, master: os.NewFile(uintptr(fd), "ptmx")}
	t.Cleanup(func() { term.master.Close() })
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, cmd.Start())
	go term.read()
	return term
}

// read returns when the last program has closed the terminal.
func (term *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := term.master.Read(buf)
		if err != nil {
			return
		}
		term.mu.Lock()
		term.screen.Write(buf[:n])
		term.mu.Unlock()
	}
}

func (term *terminal) types(keys string) {
	term.t.Helper()
	_, err := term.master.WriteString(keys)
	require.NoError(term.t, err)
}

// shows waits until text appears after the text of the last call. It must differ from what was typed, which is echoed.
func (term *terminal) shows(text string) {
	term.t.Helper()
	defer func() {
		if term.t.Failed() {
			term.t.Logf("the screen:\n%s", term.screen.String())
		}
	}()
	eventually(term.t, fmt.Sprintf("%q on the screen", text), func() bool {
		term.mu.Lock()
		defer term.mu.Unlock()
		at := strings.Index(term.screen.String()[term.seen:], text)
		if at >= 0 {
			term.seen += at + len(text)
		}
		return at >= 0
	})
}

func TestShellHasItsTerminalUnderExec(t *testing.T) {
	t.Parallel()
	c := dockertest.Create(t, "-it", stage(t), "exec", "--", "bash", "--norc", "-i")
	cmd := exec.Command("docker", "start", "-ai", c.Name)
	term := openTerminal(t, cmd)
	const sleeper = "sh -c 'echo runs-$((1+1)); exec sleep 100000'\n"

	term.types(sleeper)
	term.shows("runs-2")
	term.types("\x03") // Ctrl-C
	term.types("echo code-$?\n")
	term.shows("code-130")

	term.types(sleeper)
	term.shows("runs-2")
	term.types("\x1a") // Ctrl-Z
	term.shows("Stopped")
	term.types("jobs | grep -c Stopped; echo jobs-$((1+2))\n")
	term.shows("1\r\njobs-3")
	term.types("fg\n")
	term.shows("sh -c")
	term.types("\x03")
	term.types("echo after-$?\n")
	term.shows("after-130")

	term.types("exit 7\n")
	assert.Equal(t, 7, c.WaitExit())
	assert.Equal(t, "exit status 7", fmt.Sprint(cmd.Wait()), "docker start -a hands the code on")
}

// The node has no terminal: Ctrl-C reaches only the entrypoint, which forwards it once.
func TestCtrlCStopsARunInATerminal(t *testing.T) {
	t.Parallel()
	c := dockertest.Create(t, append([]string{"-it"}, rollup(t, []version{{node: signalBook}})...)...)
	cmd := exec.Command("docker", "start", "-ai", c.Name)
	term := openTerminal(t, cmd)
	term.shows("listening")
	term.types("\x03")
	term.shows("got INT")
	c.Stop()
	require.NoError(t, cmd.Wait())
	assert.Zero(t, c.WaitExit())
	assert.Equal(t, 1, strings.Count(c.Logs(), "got INT"))
}
