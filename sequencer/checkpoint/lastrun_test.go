package checkpoint

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// failedRun is a run that has ended with a failure, as it is read back.
func failedRun(what string) LastRun {
	ended, code := time.Date(2026, 2, 3, 4, 6, 0, 0, time.UTC), 101
	return LastRun{
		BeganAt: time.Date(2026, 2, 3, 4, 5, 0, 0, time.UTC), Entrypoint: "v1.2", Pid: 1, Host: "node-7", BootID: "b", EndedAt: &ended, ExitCode: &code,
		Failure: &LastWords{
			Cause: "too_late", What: what, Error: "because", Safe: "all", Next: "do it", Text: "entrypoint: exit code 101: " + what + "\n",
			Commands: []LastCommand{{When: "it is so", Command: "entrypoint checkpoint set"}},
		},
	}
}

// runStore has the locks of a checkpoint, which is there, in a directory of its own.
func runStore(t *testing.T) (store *Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "checkpoint.json")
	store, err := Open(path, "")
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	require.NoError(t, store.SaveCheckpoint(Checkpoint{BinaryPath: "/b"}))
	return store, path
}

func TestRunIsReadBackWithTheOneBeforeItAndNoOther(t *testing.T) {
	t.Parallel()
	store, path := runStore(t)
	none, err := ReadLastRun(path)
	require.NoError(t, err)
	assert.Nil(t, none)

	run, before, oldest := failedRun("new"), failedRun("before"), failedRun("oldest")
	before.Previous, run.Previous = &oldest, &before
	require.NoError(t, store.SaveLastRun(run))
	read, err := ReadLastRun(path)
	require.NoError(t, err)
	assert.Equal(t, &oldest, before.Previous, "the caller's is unchanged")
	before.Previous = nil
	assert.Equal(t, &run, read)
}

func TestRunWithoutAnEndHasNeitherTimeNorCode(t *testing.T) {
	t.Parallel()
	store, path := runStore(t)
	run := NewRun("v1.2", time.Now())
	require.NoError(t, store.SaveLastRun(run))
	read, err := ReadLastRun(path)
	require.NoError(t, err)
	assert.Equal(t, &run, read)
	assert.NotContains(t, string(must(os.ReadFile(path+".last-run"))), "ended_at")
	run.End(0, nil)
	require.NoError(t, store.SaveLastRun(run))
	read, err = ReadLastRun(path)
	require.NoError(t, err)
	assert.Zero(t, *read.ExitCode)
	assert.NotNil(t, read.EndedAt)
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

// Whatever a node has written, the file stays small, can be read back, and no command is cut.
func TestRecordOfARunIsBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("<", 1<<20)
	run := failedRun(long)
	run.Host, run.Unended, run.Failure.Text, run.Failure.Error, run.Failure.Safe, run.Failure.Next = long, long, long, long, long, long
	for range 100 {
		run.Failure.Commands = append(run.Failure.Commands, LastCommand{When: long, Command: long}, LastCommand{When: long, Command: "entrypoint"})
	}
	before := run
	run.Previous = &before
	text, err := EncodeLastRun(run)
	require.NoError(t, err)
	assert.Less(t, len(text), limit/2, "each character takes six bytes, and there are two runs")
	read, err := ParseLastRun(text)
	require.NoError(t, err)
	assert.Len(t, read.Failure.Commands, commandLimit)
	for _, c := range read.Failure.Commands[1:] {
		assert.Equal(t, "entrypoint", c.Command)
	}
	assert.Len(t, read.Previous.Failure.Text, textLimit)

	text, err = EncodeLastRun(failedRun("what"))
	require.NoError(t, err)
	assert.Less(t, len(text), 1000)
}

func TestRecordOfARunIsReadStrictly(t *testing.T) {
	t.Parallel()
	good := string(must(EncodeLastRun(failedRun("what"))))
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"torn", good[:len(good)/2], "the file is torn"},
		{"NUL bytes", strings.Repeat("\x00", 100), "the file is torn: it has NUL bytes"},
		{"foreign", `{"a": 1}`, "the file is not a record of a run"},
		{"a list", `[]`, "record of a run is a list, want an object"},
		{"a key in the failure", strings.Replace(good, `"safe"`, `"save"`, 1), `unknown key "save"`},
		{"a wrong type", strings.Replace(good, `"pid": 1`, `"pid": "1"`, 1), "pid has the wrong type"},
		{"an end without a code", strings.Replace(good, `"exit_code": 101,`, "", 1), "ended_at and exit_code go together"},
		{"a code that is none", strings.Replace(good, `"exit_code": 101`, `"exit_code": 256`, 1), "exit_code is 256, want 0 to 255"},
		{"more than one before", strings.Replace(good, `"pid": 1`, `"pid": 1, "previous": {"began_at": "2026-02-03T04:05:00Z", "entrypoint": "", "pid": 1, "host": "", "previous": null}`, 1), `unknown key`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseLastRun([]byte(test.text))
			assert.ErrorContains(t, err, test.want)
			path := filepath.Join(t.TempDir(), "checkpoint.json")
			require.NoError(t, os.WriteFile(path+".last-run", []byte(test.text), 0o600))
			_, err = ReadLastRun(path)
			assert.ErrorContains(t, err, path+".last-run: ")
		})
	}
}

// What has the name of the record may be a link to a file of somebody else: that one is neither read nor changed.
func TestLinkInPlaceOfTheRecordOfARunIsReplaced(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]func(victim, record string) error{"symbolic": os.Symlink, "hard": os.Link} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, path := runStore(t)
			victim := filepath.Join(t.TempDir(), "victim")
			text := string(must(EncodeLastRun(failedRun("victim"))))
			require.NoError(t, os.WriteFile(victim, []byte(text), 0o600))
			require.NoError(t, link(victim, path+".last-run"))
			if name == "symbolic" {
				_, err := ReadLastRun(path)
				require.ErrorContains(t, err, "it is a symbolic link, want a regular file")
			}
			require.NoError(t, store.SaveLastRun(failedRun("ours")))
			assert.Equal(t, text, string(must(os.ReadFile(victim))))
			info, err := os.Lstat(path + ".last-run")
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o644), info.Mode(), "those of the checkpoint")
		})
	}
}

func TestRecordOfARunHasTheRightsOfTheCheckpoint(t *testing.T) {
	t.Parallel()
	store, path := runStore(t)
	require.NoError(t, os.Chmod(path, 0o640))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(path, 1234, 5678))
	}
	require.NoError(t, os.WriteFile(path+".last-run", nil, 0o666))
	require.NoError(t, store.SaveLastRun(failedRun("what")))
	like, err := os.Stat(path)
	require.NoError(t, err)
	info, err := os.Stat(path + ".last-run")
	require.NoError(t, err)
	assert.Equal(t, rightsOf(like), rightsOf(info))
}

func TestRunIsNotRecordedOnceTheLockIsLost(t *testing.T) {
	t.Parallel()
	store, path := runStore(t)
	require.NoError(t, os.Remove(path+".lock"))
	next, err := Open(path, "")
	require.NoError(t, err)
	defer next.Close()
	require.NoError(t, next.SaveLastRun(failedRun("next")))
	var lost *LockLostError
	require.ErrorAs(t, store.SaveLastRun(failedRun("old")), &lost)
	read, err := ReadLastRun(path)
	require.NoError(t, err)
	assert.Equal(t, "next", read.Failure.What)
}

func TestRefusedRunIsRecordedOnlyIfNoOtherHasTheLock(t *testing.T) {
	t.Parallel()
	store, path := runStore(t)
	require.NoError(t, store.SaveLastRun(failedRun("alive")))
	require.NoError(t, RecordRefused(path, failedRun("refused")))
	read, err := ReadLastRun(path)
	require.NoError(t, err)
	assert.Equal(t, "alive", read.Failure.What)

	require.NoError(t, store.Close())
	for _, what := range []string{"refused", "refused again"} {
		require.NoError(t, RecordRefused(path, failedRun(what)))
		read, err = ReadLastRun(path)
		require.NoError(t, err)
		assert.Equal(t, what, read.Failure.What)
		assert.True(t, read.Refused)
		assert.Equal(t, "alive", read.Previous.Failure.What, "the last run that had the locks stays")
	}
	store, err = Open(path, "")
	require.NoError(t, err)
	defer store.Close()
	before, err := store.RunBefore()
	require.NoError(t, err)
	assert.Equal(t, "alive", before.Failure.What)

	elsewhere := filepath.Join(t.TempDir(), "checkpoint.json")
	require.NoError(t, RecordRefused(elsewhere, failedRun("refused")))
	assert.Empty(t, names(t, filepath.Dir(elsewhere)), "a path that was given by mistake")
}

// An entrypoint that starts while another one records that it was refused waits, and is not refused too.
func TestRefusedRunKeepsNobodyFromStarting(t *testing.T) {
	t.Parallel()
	store, path := runStore(t)
	require.NoError(t, store.Close())
	require.NoError(t, os.Truncate(path+".lock", 0)) // it names this process, which is alive
	lock, err := os.Open(path + ".lock")
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_SH))
	_, err = Open(path, "")
	var held *LockHeldError
	require.ErrorAs(t, err, &held)
	assert.Zero(t, held.Pid, "of an unknown holder it is waited for a while")
	assert.False(t, held.HolderGone)
}

func TestFullVolumeKeepsAShortRecordOfHowARunEnded(t *testing.T) {
	t.Parallel()
	run := failedRun("the volume is full")
	run.Failure.Text += strings.Repeat("stderr ", 500)
	run.Previous = &LastRun{Host: "before"}
	short := run.shortened()
	assert.Nil(t, short.Previous)
	assert.Len(t, short.Failure.Text, shortText)
	assert.Equal(t, run.Failure.What, short.Failure.What)
	assert.Equal(t, run.Failure.Next, short.Failure.Next)
	assert.NotEqual(t, run.Failure.Text, short.Failure.Text, "the caller's is unchanged")
}

func TestRecordOfARunIsNoState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	store, err := Open(path, dir)
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.SaveLastRun(failedRun("what")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".checkpoint.json.last-run.17.tmp"), nil, 0o600))
	found, err := store.LoadState()
	require.NoError(t, err)
	assert.Equal(t, StateNone, found.State)
	require.NoError(t, store.Close())
	again, err := Open(path, dir)
	require.NoError(t, err)
	defer again.Close()
	assert.Equal(t, []string{"checkpoint.json.last-run", "checkpoint.json.lock"}, names(t, dir), "what a killed run left is removed")
}

func FuzzParseLastRun(f *testing.F) {
	f.Add([]byte(""))
	f.Add(must(EncodeLastRun(failedRun("what"))))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseLastRun(text)
		if err != nil {
			return
		}
		again, err := EncodeLastRun(r)
		if err != nil {
			t.Skip() // a year beyond 9999
		}
		if _, err := ParseLastRun(again); err != nil {
			t.Fatalf("what was read is written, and not read back: %s", err)
		}
	})
}
