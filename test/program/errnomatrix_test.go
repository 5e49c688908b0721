package program

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/test/ptrace"
)

// diskErrnos are what a volume that breaks, is full, was mounted read-only or lost its server answers.
var diskErrnos = map[string]syscall.Errno{"EIO": unix.EIO, "ENOSPC": unix.ENOSPC, "EROFS": unix.EROFS, "ESTALE": unix.ESTALE}

// faultyVolume counts the calls on the checkpoint's directory, and has one fail, or all from that one on.
type faultyVolume struct {
	point  matrixPoint
	want   int // the ordinal to fail, 0 for none
	onward bool
	errno  syscall.Errno
	seen   int
	what   string // the call that failed first
}

func (f *faultyVolume) hook(c *ptrace.Call) {
	name := c.Name()
	if c.Exit || name == "close" || name == "clone" || slices.Contains(startsAndWaits, name) || !f.point.interesting(c) {
		return
	}
	f.seen++
	if f.want == 0 || f.seen != f.want && (!f.onward || f.seen < f.want) {
		return
	}
	if f.what == "" {
		f.what = name
	}
	c.Fail(f.errno)
}

// A system call on the checkpoint's directory fails, or each one from there on: the run continues or ends with a failure
// that says what to do, and that done everything is as if nothing had happened.
func TestFailedAtAnySystemCallTheChainBecomesTheSame(t *testing.T) {
	calm := matrixChain(t)
	record := &faultyVolume{point: matrixPoint{volume: filepath.Dir(calm.checkpoint)}}
	calm.startTraced(record.hook)
	calm.await("the end", calm.program.ended)
	require.NoError(t, calm.program.tracedErr)
	require.Zero(t, calm.program.code(), calm.program.log.text())
	want, began := matrixEnd(calm), time.Now()
	names := []string{"EIO", "EIO-onward", "ENOSPC", "ENOSPC-onward", "EROFS", "EROFS-onward", "ESTALE", "ESTALE-onward"}
	all := map[string]*tally{}
	for _, name := range names {
		all[name] = &tally{}
	}
	t.Run("calls", func(t *testing.T) {
		for n := range record.seen * len(names) {
			ordinal, action := n/len(names)+1, names[n%len(names)]
			name := strconv.Itoa(ordinal) + "/" + action
			if !chosen(name, n, record.seen*len(names)) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				faultyLife(t, ordinal, action, want, all[action])
			})
		}
	})
	t.Logf("%d calls, in %s", record.seen, time.Since(began).Round(time.Second))
	tallies(t, names, all)
}

// faultyLife has one life meet the errno.
func faultyLife(t *testing.T, ordinal int, action, want string, count *tally) {
	t.Helper()
	c := countedLife(t, count)
	errno, _, onward := strings.Cut(action, "-")
	f := &faultyVolume{point: matrixPoint{volume: filepath.Dir(c.checkpoint)}, want: ordinal, onward: onward, errno: diskErrnos[errno]}
	c.runTraced(f.hook, func() string {
		return fmt.Sprintf("%s at call %d (%s); alone: %s=%d/%s", action, ordinal, f.what, killMatrix, ordinal, action)
	})
	if f.what == "" {
		count.notReached.Add(1)
	}
	_, err := checkpoint.Read(c.checkpoint, c.state)
	require.NoError(t, err, c.phase)
	setByHand := c.doAsTold()
	c.toTheEnd()
	assertAsUndisturbed(c, func(end string) string {
		if setByHand { // what the checkpoint never came to say of earlier versions is not known
			end = historyWords.ReplaceAllString(end, "")
		}
		return end
	}, want)
}

var historyWords = regexp.MustCompile(` \d+@\d+`)

// doAsTold checks what a run with a fault says at its end, and does what an operator would. It reports whether that was to
// say whose the state is.
func (c *chain) doAsTold() (setByHand bool) {
	c.t.Helper()
	code, lines := c.program.code(), c.program.log.all()
	if code == 0 {
		return false
	}
	if code != sequencer.CodeCheckpointNotWritable && code != sequencer.CodeCheckpointUnreadable {
		c.fatalf("exit code %d:\n%s", code, c.program.log.text())
	}
	last := lines[len(lines)-1]
	parts := strings.Split(last.text("error"), "; ")
	assert.GreaterOrEqual(c.t, len(parts), 3, "%s: what happened, what is safe, what to do: %s", c.phase, last.raw)
	command := remedyCommand.FindStringSubmatch(last.text("error"))
	if command == nil {
		return false
	}
	said, _, errs := c.command(strings.Fields(command[1])...)
	assert.Zero(c.t, said, "%s: %s", c.phase, errs)
	return true
}
