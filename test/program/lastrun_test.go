package program

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	// unendedEvent names a run before that was killed, unrecordedEvent a volume that did not take the record of this one.
	unendedEvent    = "last run ended without a word"
	unrecordedEvent = "run not recorded"
)

// lastRun is what is recorded.
func (c *chain) lastRun() checkpoint.LastRun {
	c.t.Helper()
	r, err := checkpoint.ReadLastRun(c.checkpoint)
	require.NoError(c.t, err)
	require.NotNil(c.t, r)
	return *r
}

// show gives what 'checkpoint show' prints, without line breaks.
func (c *chain) show(args ...string) string {
	c.t.Helper()
	code, out, errs := c.command(append([]string{"checkpoint", "show", "-f", c.checkpoint}, args...)...)
	require.Zero(c.t, code, errs)
	return out
}

// crashing is a chain whose node fails once, at height 5.
func crashing(t *testing.T) *chain {
	return served(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.CrashOnce, m.ExitCode = 5, "durable", true, 101 }}, version{})
}

func crashed() phase {
	return phase{
		name: "crash", do: do(heights(8, 8), start()), exit: exits(101), says: []string{"exited 101"},
		trace: []string{"start v0 stop=10", "exit v0 101 at 5"}, state: "5 version 0",
	}
}

// The container is gone, and with it its log and its termination message: the volume still has the last words.
func TestLastWordsOfAFailedRunAreOnTheVolume(t *testing.T) {
	t.Parallel()
	c := crashing(t)
	c.run(crashed())
	run := c.lastRun()
	assert.Equal(t, 101, *run.ExitCode)
	assert.Nil(t, run.Previous)
	assert.Contains(t, run.Failure.What, "exited 101")
	assert.Contains(t, run.Failure.Text, "stderr:\n")
	text := c.show()
	assert.Contains(t, text, "with exit code 101\n")
	assert.Contains(t, text, "next: ")
	assert.Contains(t, text, "mock fault: crash_at 5", "what the node wrote last")
	var shown struct {
		LastRun checkpoint.LastRun `json:"last_run"`
	}
	require.NoError(t, json.Unmarshal([]byte(c.show("--json")), &shown))
	assert.Equal(t, run, shown.LastRun)
	_, checked, _ := c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Contains(t, checked, "last run:   ended ")
	assert.Contains(t, checked, "with exit code 101: ")

	c.run(phase{
		name: "again", do: start(), events: []event{on("height known")}, trace: []string{"asked v0 at 5", "start v0 stop=10"}, state: "8 version 0",
	})
	r := c.awaitStatus("the run before", func(r status.Report) bool { return r.PreviousRun != nil })
	assert.Equal(t, 101, *r.PreviousRun.ExitCode)
	assert.Contains(t, r.PreviousRun.Text, "exited 101")
	assert.NotContains(t, r.PreviousRun.Text, "mock fault", "what a node writes is not served")
	text = c.show()
	assert.Contains(t, text, "it is running: ")
	assert.Contains(t, text, "before it:  began ")
	c.run(phase{name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 8"}})
	assert.Zero(t, *c.lastRun().ExitCode)
	assert.Nil(t, c.lastRun().Failure)
	assert.Equal(t, 101, *c.lastRun().Previous.ExitCode)
	assert.Contains(t, c.show(), "with exit code 0\n")
}

func TestRunThatWasKilledIsNamedAtTheNextStart(t *testing.T) {
	t.Parallel()
	c := served(t, plainChain()...)
	killed := phase{
		name: "kill", do: do(heights(3, 3), start(), func(c *chain) { c.awaitEvent(on("height known")) }, send(syscall.SIGKILL)), exit: exits(137),
		trace: []string{"start v0 stop=10", "signal v0 terminated", "exit v0 0 at 3"}, state: "3 version 0",
	}
	c.run(killed)
	assert.Contains(t, c.show(), "ended without a word: it was killed (SIGKILL), or its end could not be recorded\n")
	began := c.lastRun().BeganAt
	c.run(phase{
		name: "again", do: start(), events: []event{on(unendedEvent, "began_at~"+began.Format("2006-01-02T15:04:05"), "detail~it was killed (SIGKILL)"), on("height known")},
		trace: []string{"asked v0 at 3", "start v0 stop=10"}, checkpoint: "0 running",
	})
	r := c.awaitStatus("the run before", func(r status.Report) bool { return r.PreviousRun != nil })
	assert.Nil(t, r.PreviousRun.ExitCode)
	assert.Contains(t, r.PreviousRun.Text, "it was killed (SIGKILL)")
	assert.Contains(t, c.lastRun().Previous.Unended, "it was killed (SIGKILL)")
	c.run(phase{name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}})
}

// A run that is refused has its words recorded, but never in place of those of a run that is alive.
func TestRefusedRunLeavesTheRecordOfARunThatIsAlive(t *testing.T) {
	t.Parallel()
	c := newChain(t, plainChain()...)
	plan := readText(c.manager)
	wrong := func(text string) { require.NoError(t, os.WriteFile(c.manager, []byte(text), 0o600)) }
	code, _, _ := c.command("-c", c.manager+".absent", "-f", c.checkpoint)
	assert.Equal(t, sequencer.CodeMismatch, code)
	_, err := os.Lstat(c.checkpoint + ".last-run")
	assert.ErrorIs(t, err, os.ErrNotExist, "nothing ever ran here: the path may be a mistake")

	c.run(inV0())
	alive := c.lastRun()
	code, _, _ = c.command("-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, sequencer.CodeCheckpointNotWritable, code)
	wrong("{}")
	code, _, _ = c.command("-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, sequencer.CodeMismatch, code)
	assert.Equal(t, alive, c.lastRun())
	c.run(phase{name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"}})

	for _, args := range [][]string{{"-c", c.manager}, {"-c", c.manager}, {"--unknown"}} {
		code, _, _ = c.command(append([]string{"-f", c.checkpoint}, args...)...)
		run := c.lastRun()
		assert.True(t, run.Refused)
		assert.Equal(t, code, *run.ExitCode)
		assert.Equal(t, alive.BeganAt, run.Previous.BeganAt, "the last run that had the locks stays")
	}
	assert.Contains(t, c.show(), "with exit code 64, before it had the locks\n")
	wrong(plan)
	c.run(phase{name: "again", do: start(), events: []event{on("height known")}, trace: []string{"asked v0 at 3", "start v0 stop=10"}})
	assert.Equal(t, alive.BeganAt, c.lastRun().Previous.BeganAt)
}

// What the name of the record has on the volume, somebody else may have put there.
func TestRecordOfTheLastRunThatIsNotOursStopsNoStart(t *testing.T) {
	t.Parallel()
	const unreadable = "record of the last run not readable"
	for name, put := range map[string]func(c *chain, record, victim string) error{
		"torn":    func(_ *chain, record, _ string) error { return os.Truncate(record, 20) },
		"empty":   func(_ *chain, record, _ string) error { return os.Truncate(record, 0) },
		"foreign": func(_ *chain, record, _ string) error { return os.WriteFile(record, []byte(`{"a": 1}`), 0o600) },
		"a symbolic link": func(_ *chain, record, victim string) error {
			return errorsOf(os.Remove(record), os.Symlink(victim, record))
		},
		"a FIFO":      func(_ *chain, record, _ string) error { return errorsOf(os.Remove(record), unix.Mkfifo(record, 0o600)) },
		"a directory": func(_ *chain, record, _ string) error { return errorsOf(os.Remove(record), os.Mkdir(record, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			stop := phase{
				name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 3"},
			}
			c.run(inV0(), stop)
			record, victim := c.checkpoint+".last-run", filepath.Join(c.dir, "victim")
			require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
			require.NoError(t, put(c, record, victim))
			assert.Contains(t, c.show(), "last run:   unknown: "+record)
			events := []event{on(unreadable, "error~"+record)}
			if name == "a directory" {
				events = append(events, on(unrecordedEvent, "error~"+record))
			}
			c.run(phase{name: "again", do: start(), events: append(events, on("height known")), trace: []string{"asked v0 at 3", "start v0 stop=10"}}, stop)
			assert.Equal(t, "precious", readText(victim))
			if name != "a directory" {
				assert.Zero(t, *c.lastRun().ExitCode)
			}
		})
	}
}

func errorsOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// The volume on which a node has no space left is the one that is to keep why it ended.
func TestLastWordsFitOnAFullVolume(t *testing.T) {
	t.Parallel()
	faults := func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.CrashOnce, m.ExitCode = 5, "durable", true, 101 }
	onSmallDisks(t, func() []version { return []version{{stop: 10, faults: faults}, {}} }, func(c *chain, full func() func()) {
		c.run(inV0())
		free := full()
		c.run(phase{
			name: "crash", do: heights(8, 8), exit: exits(101), says: []string{"exited 101"}, trace: []string{"exit v0 101 at 5"}, state: "5 version 0",
			allows: []string{"checkpoint not written"},
		})
		run := c.lastRun()
		assert.Equal(t, 101, *run.ExitCode)
		assert.Contains(t, run.Failure.Text, "exited 101")
		assert.Empty(t, strings.Join(c.leftoverFiles(), " "))
		free()
	})
}
