package reaper

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pumped returns cmd with its stderr going to w.
func pumped(cmd Command, w io.Writer) Command {
	cmd.Stderr = w
	return cmd
}

func TestStderrIsCompleteWhenDone(t *testing.T) {
	r := newReaper(t, Options{})
	for range 100 {
		b := newBuffer()
		exitOf(t, start(t, r, pumped(shell("echo first >&2; echo last >&2"), b)))
		require.Equal(t, "first\nlast\n", b.String())
	}
	b := newBuffer()
	exitOf(t, start(t, r, pumped(shell("head -c 3000000 /dev/zero >&2"), b)))
	require.Len(t, b.String(), 3000000)
}

// What a child wrote last is still in the pipe when it is reaped, and no end of the pipe is in sight.
func TestStderrThatWasNotYetReadIsCompleteWhenDone(t *testing.T) {
	r := newReaper(t, Options{})
	heard := newBuffer()
	w := &gatedWriter{gate: make(chan struct{}), Writer: heard}
	c := start(t, r, pumped(shell("sleep 1000 & head -c 40000 /dev/zero >&2"), w))
	eventually(t, "the child is reaped", func() bool { return !r.running()[c.Pid()] })
	w.done = c.Done()
	close(w.gate)
	exitOf(t, c)
	require.Len(t, heard.String(), 40000)
}

// gatedWriter lets nothing through until its gate is closed, and nothing that comes later than done.
type gatedWriter struct {
	gate chan struct{}
	done <-chan struct{}
	io.Writer
}

func (w *gatedWriter) Write(text []byte) (int, error) {
	<-w.gate
	select {
	case <-w.done:
		return len(text), nil
	case <-time.After(50 * time.Millisecond): // time for what comes too early to come
	}
	return w.Writer.Write(text)
}

func TestStderrFileIsHandedOver(t *testing.T) {
	r := newReaper(t, Options{})
	f, err := os.CreateTemp(t.TempDir(), "err")
	require.NoError(t, err)
	defer f.Close()
	cmd := shell("readlink /proc/self/fd/2")
	cmd.Stderr = f
	require.Equal(t, f.Name()+"\n", output(t, r, cmd))
}

func TestStreamsArePumpedSeparatelyAndCompleteWhenDone(t *testing.T) {
	r := newReaper(t, Options{})
	for range 20 {
		out, err := newBuffer(), newBuffer()
		cmd := pumped(shell(`head -c 300000 /dev/zero; echo wrong >&2; head -c 300000 /dev/zero >&2; echo right`), err)
		cmd.Stdout = out
		exitOf(t, start(t, r, cmd))
		require.Equal(t, strings.Repeat("\x00", 300000)+"right\n", out.String())
		require.Equal(t, "wrong\n"+strings.Repeat("\x00", 300000), err.String())
	}
}

func TestWriterOfBothStreamsGetsBoth(t *testing.T) {
	r := newReaper(t, Options{})
	b := newBuffer()
	cmd := pumped(shell("echo out; echo err >&2"), b)
	cmd.Stdout = b
	exitOf(t, start(t, r, cmd))
	require.ElementsMatch(t, []string{"out", "err"}, strings.Fields(b.String()))
}

// Each stream may be the one that is drained last, however early the other one ends.
func TestDoneWaitsForBothStreams(t *testing.T) {
	r := newReaper(t, Options{})
	for _, slow := range []string{"stdout", "stderr"} {
		t.Run(slow, func(t *testing.T) {
			heard, fast := newBuffer(), newBuffer()
			w := &gatedWriter{gate: make(chan struct{}), Writer: heard}
			cmd := pumped(shell("echo out; echo err >&2"), fast)
			cmd.Stdout = w
			if slow == "stderr" {
				cmd.Stdout, cmd.Stderr = fast, w
			}
			c := start(t, r, cmd)
			eventually(t, "the child is reaped", func() bool { return !r.running()[c.Pid()] })
			w.done = c.Done()
			close(w.gate)
			exitOf(t, c)
			require.Equal(t, strings.TrimPrefix(slow, "std")+"\n", heard.String())
			require.NotEmpty(t, fast.String())
		})
	}
}

func TestStdoutFileIsHandedOver(t *testing.T) {
	r := newReaper(t, Options{})
	f, err := os.CreateTemp(t.TempDir(), "out")
	require.NoError(t, err)
	defer f.Close()
	b := newBuffer()
	cmd := pumped(shell("x=$(readlink /proc/$$/fd/1); echo $x >&2"), b)
	cmd.Stdout = f
	exitOf(t, start(t, r, cmd))
	require.Equal(t, f.Name()+"\n", b.String())
}

func TestNilFileMeansOurs(t *testing.T) {
	r := newReaper(t, Options{})
	var none *os.File
	ours, err := os.Readlink("/proc/self/fd/1")
	require.NoError(t, err)
	b := newBuffer()
	cmd := pumped(shell("x=$(readlink /proc/$$/fd/1); echo $x >&2"), b)
	cmd.Stdout = none
	exitOf(t, start(t, r, cmd))
	require.Equal(t, ours+"\n", b.String())
}

func TestGrandchildThatHoldsStderrDoesNotDelayDone(t *testing.T) {
	r := newReaper(t, Options{})
	b := newBuffer()
	gate, open, err := os.Pipe()
	require.NoError(t, err)
	cmd := pumped(shell("{ read x; echo later >&2; exec sleep 1000; } <&3 & echo now >&2"), b)
	cmd.ExtraFiles = []*os.File{gate}
	exitOf(t, start(t, r, cmd))
	require.Equal(t, "now\n", b.String())
	require.NoError(t, gate.Close())
	require.NoError(t, open.Close()) // now the grandchild continues, and its output still arrives
	b.awaitText(t, "later")
}

func TestChattyGrandchildDoesNotDelayDone(t *testing.T) {
	r := newReaper(t, Options{})
	b := newBuffer()
	c := start(t, r, pumped(shell("yes >&2 & echo mine >&2"), b))
	exitOf(t, c)
	require.Contains(t, b.String(), "mine\n")
}

func TestStderrClosedEarly(t *testing.T) {
	r := newReaper(t, Options{})
	b := newBuffer()
	cmd := pumped(shell("echo bye >&2; exec 2>&-; read x"), b)
	in, gate, err := os.Pipe()
	require.NoError(t, err)
	defer in.Close()
	c := startWith(t, r, in, cmd)
	await(t, c.pumps[0].drained, "the end of the pipe")
	require.NoError(t, gate.Close())
	require.Equal(t, Exit{Code: 1}, exitOf(t, c))
	require.Equal(t, "bye\n", b.String())
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestFailingWriterDoesNotHoldUpTheChild(t *testing.T) {
	r := newReaper(t, Options{})
	c := start(t, r, pumped(shell("head -c 1000000 /dev/zero >&2; exit 5"), failing{}))
	require.Equal(t, Exit{Code: 5}, exitOf(t, c))
}
