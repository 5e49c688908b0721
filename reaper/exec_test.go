package reaper

import (
	"fmt"
	"log/slog"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestExecReturnsHowTheCommandEnded(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	e, err := r.Exec(shell("exit 101"), ExecOptions{})
	require.NoError(t, err)
	require.Equal(t, Exit{Code: 101}, e)
	e, err = r.Exec(shell("kill -USR2 $$"), ExecOptions{})
	require.NoError(t, err)
	require.Equal(t, Exit{Signal: unix.SIGUSR2}, e)
	_, err = r.Exec(Command{Path: "/no/such"}, ExecOptions{})
	require.Equal(t, 127, ExitCodeForStartError(err))
}

func TestSignalFromBeforeTheStartIsDeliveredAfterIt(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	raise(t, unix.SIGUSR1)
	e, err := r.Exec(Command{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}, ExecOptions{})
	require.NoError(t, err)
	require.Equal(t, Exit{Signal: unix.SIGUSR1}, e)
}

func TestSignalMapReplacesAndDrops(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t), Log: slog.New(slog.DiscardHandler)})
	lines, exit := execWitness(t, r, ExecOptions{SignalMap: map[syscall.Signal]syscall.Signal{
		unix.SIGTERM: unix.SIGQUIT,
		unix.SIGUSR1: 0,
	}})
	for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGTERM, unix.SIGHUP} {
		raise(t, sig)
	}
	got := []string{await(t, lines, "SIGQUIT"), await(t, lines, "SIGHUP")}
	require.ElementsMatch(t, []string{"3", "1"}, got)
	endWitness(t, r, exit)
	require.Empty(t, lines)
}

func TestSignalThatCannotBeSentIsOnlyLogged(t *testing.T) {
	log := newBuffer()
	r := newReaper(t, Options{Inbox: newInbox(t), Log: slog.New(slog.NewTextHandler(log, nil))})
	lines, exit := execWitness(t, r, ExecOptions{SignalMap: map[syscall.Signal]syscall.Signal{unix.SIGUSR1: 99}})
	raise(t, unix.SIGUSR1)
	raise(t, unix.SIGTERM)
	require.Equal(t, "15", await(t, lines, "SIGTERM"))
	log.awaitText(t, "signal not forwarded")
	endWitness(t, r, exit)
}

// TestGroupOrProcess shows who gets a signal: the process alone, or its group.
func TestGroupOrProcess(t *testing.T) {
	for _, group := range []bool{false, true} {
		t.Run(fmt.Sprint("group=", group), func(t *testing.T) {
			r := newReaper(t, Options{Inbox: newInbox(t)})
			w, lines := pipe(t)
			cmd := shell(`sleep 1000 & echo $!; wait`)
			cmd.Stdout = w
			exit := execute(t, r, cmd, ExecOptions{Group: group})
			member := number(t, lines)
			raise(t, unix.SIGTERM)
			require.Equal(t, Exit{Signal: unix.SIGTERM}, await(t, exit, "the end"))
			if group {
				eventually(t, "the member ended", func() bool { return !isAlive(member) })
			} else {
				require.True(t, isAlive(member))
			}
		})
	}
}

func TestStopAndContinueAreForwarded(t *testing.T) {
	r := newReaper(t, Options{Inbox: newInbox(t)})
	stopAndContinue(t, r)
}

func TestInitForwardsStopAndContinue(t *testing.T) {
	if runAsInit(t) {
		stopAndContinue(t, newReaper(t, Options{Inbox: newInbox(t)}))
	}
}

func stopAndContinue(t *testing.T, r *Reaper) {
	w, lines := pipe(t)
	cmd := shell(`echo $$; exec sleep 1000`)
	cmd.Stdout = w
	exit := execute(t, r, cmd, ExecOptions{})
	pid := number(t, lines)
	for range 3 {
		raise(t, unix.SIGTSTP)
		eventually(t, "stopped", func() bool { return state(pid) == 'T' })
		raise(t, unix.SIGCONT)
		eventually(t, "running", func() bool { return state(pid) == 'S' })
	}
	raise(t, unix.SIGTERM)
	require.Equal(t, Exit{Signal: unix.SIGTERM}, await(t, exit, "the end"))
}
