package reaper

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// A number that is used again at once: neither a dead child nor a leftover that has gone is mistaken for its new
// bearer.
func TestHostileReuseOfANumberSparesItsNextBearer(t *testing.T) {
	if !runAsInit(t) {
		return
	}
	r := newReaper(t, Options{})
	for round := 0; round < 50; {
		dead := start(t, r, shell("exit"))
		exitOf(t, dead)
		innocent, lines := startAs(t, r, dead.Pid())
		if innocent == nil {
			continue
		}
		require.ErrorIs(t, dead.Signal(unix.SIGKILL), os.ErrProcessDone)
		require.ErrorIs(t, dead.SignalProcess(unix.SIGKILL), os.ErrProcessDone)
		require.Zero(t, sweepAway(t, r))
		require.Equal(t, "signals: 0", endInnocent(t, innocent, lines), "round %d", round)
		round++
	}
}

func TestHostileReuseOfALeftoversNumberSparesItsNextBearer(t *testing.T) {
	if !runAsInit(t) {
		return
	}
	r := newReaper(t, Options{})
	for spared := false; !spared; {
		spared = sparesTheNextBearer(t, r)
	}
}

// sparesTheNextBearer looks whether the signals for a dead leftover reach who has its number now, and is false where
// the number was not to be had.
func sparesTheNextBearer(t *testing.T, r *Reaper) bool {
	t.Helper()
	pid := leave(t, r, `setsid sleep 1000 & echo $!`)
	left, err := procfs.Read(procfs.Root, pid)
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	eventually(t, "it is reaped", func() bool { return state(pid) == 0 })
	eventually(t, "the clock of the process table moves", func() bool {
		c := start(t, r, shell("exec sleep 1000"))
		p, err := procfs.Read(procfs.Root, c.Pid())
		require.NoError(t, err)
		require.NoError(t, c.Signal(unix.SIGKILL))
		exitOf(t, c)
		return p.Start > left.Start
	})
	innocent, lines := startAs(t, r, pid)
	if innocent == nil {
		return false
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGCONT, unix.SIGKILL} {
		require.ErrorIs(t, r.signalLeftover(left, sig), unix.ESRCH)
	}
	require.Equal(t, "signals: 0", endInnocent(t, innocent, lines))
	return true
}

// startAs starts a process that counts the signals that it gets, and has the kernel give it that number. It is nil
// where a thread of ours has taken the number, which the runtime may keep for ever.
func startAs(t *testing.T, r *Reaper, pid int) (*Child, <-chan string) {
	t.Helper()
	w, lines := pipe(t)
	cmd := actor("counter")
	cmd.Stdout = w
	var c *Child
	eventually(t, "the number is used again", func() bool {
		require.NoError(t, os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0))
		c = start(t, r, cmd)
		if c.Pid() == pid {
			return true
		}
		require.NoError(t, c.Signal(unix.SIGKILL))
		exitOf(t, c)
		c = nil
		_, err := os.Stat("/proc/self/task/" + strconv.Itoa(pid))
		return err == nil
	})
	if c == nil {
		return nil, nil
	}
	for line := range lines {
		if line == "ready as "+strconv.Itoa(pid) {
			break
		}
	}
	return c, lines
}

// endInnocent ends a counter by the one signal that is meant for it, and gives what it has counted before.
func endInnocent(t *testing.T, c *Child, lines <-chan string) string {
	t.Helper()
	require.NoError(t, c.SignalProcess(lastSignal))
	count := await(t, lines, "the count")
	require.Equal(t, Exit{}, exitOf(t, c))
	return count
}

func init() {
	// counter counts the signals that it gets, up to the last one there is.
	roles["counter"] = func() {
		b := CatchSignals()
		fmt.Println("ready as", os.Getpid())
		for n := 0; ; n++ {
			if <-b.Signals() == lastSignal {
				fmt.Println("signals:", n)
				return
			}
		}
	}
}
