package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

func TestWhatIsSaidOfARunWithoutAnEndIsOnlyWhatIsKnown(t *testing.T) {
	r := checkpoint.LastRun{BootID: "one", Host: "node-7"}
	assert.Equal(t, endedWithoutWord, unendedInWords(r, "one", ""))
	assert.Equal(t, endedWithoutWord, unendedInWords(r, "", ""), "not known")
	assert.Equal(t, endedWithoutWord, unendedInWords(checkpoint.LastRun{}, "one", ""), "not known")
	assert.Equal(t, endedWithoutWord+"; memory", unendedInWords(r, "one", "memory"))
	assert.Equal(t, `ended without a word: the machine has been restarted since then, or the run was on another one, on host "node-7"`, unendedInWords(r, "two", "memory"))
}

func TestMemoryIsPutIntoWordsOnlyIfItRanOut(t *testing.T) {
	const since = "since this container began, "
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing is counted":   {nil, ""},
		"v2, none":             {map[string]string{"memory.events": "max 31\noom 0\noom_kill 0\noom_group_kill 0\n"}, ""},
		"v2":                   {map[string]string{"memory.events": "oom_kill 2\noom_group_kill 0\n"}, since + "the kernel has killed 2 of its processes because memory ran out"},
		"v2, a whole group":    {map[string]string{"memory.events": "oom_kill 5\noom_group_kill 1\n"}, since + "the kernel has killed 5 of its processes because memory ran out, and whole groups of them, times: 1"},
		"v1":                   {map[string]string{"memory/memory.oom_control": "oom_kill 1\n", "memory/memory.failcnt": "9\n"}, since + "the kernel has killed 1 of its processes because memory ran out"},
		"v1, none":             {map[string]string{"memory/memory.oom_control": "oom_kill 0\n", "memory/memory.failcnt": "9\n"}, ""},
		"v1 before Linux 4.13": {map[string]string{"memory/memory.oom_control": "under_oom 0\n", "memory/memory.failcnt": "9\n"}, since + "it has reached the limit of its memory, times: 9"},
		"not a number":         {map[string]string{"memory/memory.failcnt": "\x1b[31m\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range test.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o600))
			}
			assert.Equal(t, test.want, memoryInWords(root))
		})
	}
}

func TestLastWordsAreThoseOfTheTerminationMessage(t *testing.T) {
	f := &sequencer.Failure{
		Code: 78, Cause: sequencer.OwnerUnknown, What: "what\x1b[2J", Err: errors.New("because"), Safe: "safe", Next: "next", Stderr: "a\x1b[31mred line",
		Remedies: []sequencer.Remedy{{When: "it is so", Version: 1, Config: "/m.json", Checkpoint: "/c.json"}},
	}
	w := lastWordsOf(f)
	assert.Equal(t, terminationMessage(f), w.Text)
	assert.NotContains(t, w.What+w.Text, "\x1b")
	assert.Equal(t, &checkpoint.LastWords{
		Cause: "owner_unknown", What: `what\u001b[2J`, Error: "because", Safe: "safe", Next: "next", Text: w.Text,
		Commands: []checkpoint.LastCommand{{When: "it is so", Command: "entrypoint checkpoint set -c /m.json -f /c.json --version 1"}},
	}, w)
}

// A volume that cannot be written, or a record that cannot be read, is a warning, and only the first one.
func TestFailureToRecordARunIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	require.NoError(t, os.Mkdir(path+".last-run", 0o700))
	store, err := checkpoint.Open(path, "")
	require.NoError(t, err)
	defer store.Close()
	var log bytes.Buffer
	last := newLastRun(slog.New(slog.NewTextHandler(&log, nil)), path)
	assert.Nil(t, last.begin(store))
	last.end(nil)
	last.end(errors.New("again"))
	assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("run not recorded")), log.String())
	assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("record of the last run not readable")), log.String())
}

func TestRunWithoutACheckpointRecordsNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	store, err := checkpoint.Open("", ".")
	require.NoError(t, err)
	defer store.Close()
	last := newLastRun(slog.New(slog.DiscardHandler), "")
	assert.Nil(t, last.begin(store))
	last.end(errors.New("failed"))
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestCheckpointOfAWrongCommandLineIsTakenOnlyIfItIsCertain(t *testing.T) {
	for _, test := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{[]string{"-f", "c.json", "--unknown"}, nil, "c.json"},
		{[]string{"--unknown"}, map[string]string{"ENTRYPOINT_CHECKPOINT_FILE": "e.json"}, "e.json"},
		{[]string{"-f", "c.json", "--unknown"}, map[string]string{"ENTRYPOINT_CHECKPOINT_FILE": "e.json"}, "c.json"},
		{[]string{"-f", "c.json", "--no-checkpoint-file"}, nil, ""},
		{[]string{"-f", "c.json", "--unknown"}, map[string]string{"ENTRYPOINT_NO_CHECKPOINT_FILE": "true"}, ""},
		{[]string{"--unknown"}, nil, ""},
	} {
		for name, value := range test.env {
			t.Setenv(name, value)
		}
		flags := newFlags("run", runUsage)
		new(runFlags).register(flags)
		_ = flags.parse(test.args)
		assert.Equal(t, test.want, checkpointOf(flags), test)
		for name := range test.env {
			require.NoError(t, os.Unsetenv(name))
		}
	}
}

func TestRunIsPrintedWithHowItEnded(t *testing.T) {
	began := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	run := checkpoint.LastRun{BeganAt: began, Entrypoint: "v1", Pid: 1, Host: "node-7"}
	printed := func(r checkpoint.LastRun) string {
		var b bytes.Buffer
		printRun(&b, "last run", r, "unended")
		return b.String()
	}
	const head = "last run:   began 2026-02-03 04:05:06 UTC, pid 1 on host \"node-7\", entrypoint v1\n            "
	assert.Equal(t, head+"unended\n", printed(run))
	ended, code := began.Add(time.Minute), 101
	run.EndedAt, run.ExitCode = &ended, &code
	run.Failure = &checkpoint.LastWords{Text: "entrypoint: exit code 101: what\nsafe: all\n"}
	assert.Equal(t, head+"ended 2026-02-03 04:06:06 UTC with exit code 101\n            what\n            safe: all\n", printed(run))
	run.Refused = true
	assert.Contains(t, printed(run), "with exit code 101, before it had the locks\n")
}
