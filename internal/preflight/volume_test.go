package preflight

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// mountOrSkip mounts something for a test, which needs root: in CI it must be possible.
func mountOrSkip(t *testing.T, source, target, kind string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot mount %q at %s, which CI must be able to: run the tests as root: %v", kind, target, err)
		}
		t.Skipf("cannot mount %q (needs root): %v", kind, err)
	}
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(target, unix.MNT_DETACH)) })
}

// roomless are findings that depend on how full the machine of the test is.
func roomless(found []sequencer.Finding) []string {
	var all []string
	for _, f := range found {
		if !strings.Contains(f.What, " free of ") {
			all = append(all, row(f))
		}
	}
	return all
}

// asNobody runs f on a thread that belongs to another user than root, and is never used again.
func asNobody(t *testing.T, dir string, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must run this test as root, so that it can become another user")
		}
		t.Skip("needs root, to become another user")
	}
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	const nobody = 65534
	done := make(chan unix.Errno)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		if errno == 0 {
			f()
		}
		done <- errno
	}()
	require.Zero(t, <-done)
}

func touch(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
}

func TestVolumeMustBeWritableForThisUser(t *testing.T) {
	plan, dir := realPlan(t)
	assert.Empty(t, roomless(New(plan).volume(dir+"/c.json")))
	missing := "-1 error: the directory " + dir + "/new/deep for the checkpoint does not exist, and a run does not make it → mount the volume there, make the directory, or name a checkpoint in another one"
	assert.Equal(t, []string{missing}, roomless(New(plan).volume(dir+"/new/deep/c.json")))
	assert.Empty(t, roomless(New(plan).volume("")))
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Mkdir(dir+"/theirs", 0o777))
	require.NoError(t, os.Chmod(dir+"/theirs", 0o777))
	const next = " → mount a volume there that user 65534 may write: chown it, or start the container as its owner (--user, fsGroup)"
	asNobody(t, dir, func() {
		assert.Equal(t, []string{
			"-1 error: the checkpoint cannot be written in " + dir + ": permission denied" + next,
			"0 error: the state cannot be written in " + dir + "/state: permission denied" + next,
		}, roomless(New(plan).volume(dir+"/c.json")))
		assert.Equal(t, missing, roomless(New(plan).volume(dir + "/new/deep/c.json"))[0])
		assert.Len(t, roomless(New(plan).volume(dir+"/theirs/c.json")), 1, "the checkpoint's directory is theirs")
	})
	touch(t, dir+"/theirs/c.json.lock")
	asNobody(t, dir, func() {
		assert.Equal(t, "-1 error: "+dir+"/theirs/c.json.lock cannot be written by user 65534: permission denied → give it to the user who runs the entrypoint: chown "+dir+"/theirs/c.json.lock",
			roomless(New(plan).volume(dir + "/theirs/c.json"))[0])
	})
	require.NoError(t, os.Chmod(dir+"/theirs/c.json.lock", 0))
	asNobody(t, dir, func() {
		assert.Contains(t, roomless(New(plan).volume(dir + "/theirs/c.json"))[0], "cannot open the lock of the checkpoint: ")
	})
}

func TestFileInPlaceOfADirectoryIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	touch(t, dir+"/file")
	assert.Contains(t, roomless(New(plan).volume(dir + "/file/c.json"))[0], "-1 error: the checkpoint cannot be written in "+dir+"/file: not a directory")
}

// It can be written in place, but not be replaced: rename(2) onto a mount point fails.
func TestRecordMountedAsASingleFileIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	path, stamp := dir+"/c.json", dir+"/state/"+checkpoint.StampFile
	for _, file := range []string{path, stamp, dir + "/source"} {
		touch(t, file)
	}
	assert.Empty(t, roomless(New(plan).volume(path)))
	mountOrSkip(t, dir+"/source", path, "", unix.MS_BIND, "")
	mountOrSkip(t, dir+"/source", stamp, "", unix.MS_BIND, "")
	require.NoError(t, os.Symlink("c.json", dir+"/link"))
	const what = " is mounted as a single file: it could not be replaced, so every write would fail → mount the directory that has it: "
	want := []string{"-1 error: the checkpoint, " + path + "," + what + dir, "0 error: the stamp of the state, " + stamp + "," + what + dir + "/state"}
	assert.Equal(t, want, roomless(New(plan).volume(path)))
	assert.Equal(t, want, roomless(New(plan).volume(dir+"/link")), "it is the file that the link leads to")
}

func TestReadOnlyVolumeIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	mountOrSkip(t, "none", dir+"/state", "tmpfs", unix.MS_RDONLY, "size=64k")
	assert.Equal(t, []string{"0 error: the state cannot be written in " + dir + "/state: read-only file system → mount the volume for writing: the file system is read-only"},
		roomless(New(plan).volume("")))
}

func TestVolumeThatIsNearlyFullIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	mountOrSkip(t, "none", dir+"/state", "tmpfs", 0, "size=2m,nr_inodes=100")
	got := rows(New(plan).volume(dir + "/state/c.json"))
	assert.Equal(t, []string{"-1 warning: the volume of " + dir + "/state has 2 MiB free of 2 MiB → " +
		"make it larger before the upgrade: a migration may need room for a second copy of what it rewrites"}, got, "once for the two on it")
	for i := range 97 {
		touch(t, dir+"/state/"+strconv.Itoa(i))
	}
	got = rows(New(plan).volume(dir + "/state/c.json"))
	require.Len(t, got, 2)
	assert.Equal(t, "-1 warning: the volume of "+dir+"/state has 2 inodes free of 100 → remove files, or make a file system with more inodes: without any no file can be made", got[1])
}

func TestHeldLockIsFoundAndNothingIsTaken(t *testing.T) {
	plan, dir := realPlan(t)
	path := dir + "/c.json"
	store, err := checkpoint.Open(path, "")
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, []string{"-1 warning: " + path + ".lock is locked by the entrypoint with pid " + strconv.Itoa(os.Getpid()) + ` on host "` + host + `" → that is right while the rollup runs; a second entrypoint would be refused`},
		roomless(New(plan).volume(path)))
	require.NoError(t, store.Close())
	text, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)

	assert.Empty(t, roomless(New(plan).volume(path)))
	after, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)
	assert.Equal(t, text, after)
	store, err = checkpoint.Open(path, "")
	require.NoError(t, err, "the share was given back")
	require.NoError(t, store.Close())
}

func TestWhatADeadEntrypointLeftIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	path := dir + "/c.json"
	store, err := checkpoint.Open(path, "")
	require.NoError(t, err)
	node := exec.CommandContext(t.Context(), "sleep", "600")
	node.ExtraFiles = store.LockFiles()
	require.NoError(t, node.Start())
	t.Cleanup(func() { _ = node.Wait() }) // the end of the context kills it
	require.NoError(t, store.Close())
	text, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)
	pid := strconv.Itoa(1 << 22) // PID_MAX_LIMIT of the kernel: no process has it, while that of one that ended may be used again
	var record map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &record))
	record["pid"] = json.RawMessage(pid)
	text, err = json.Marshal(record)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".lock", text, 0o600))
	assert.Equal(t, []string{"-1 warning: " + path + ".lock is in use: the entrypoint with pid " + pid + " has ended, but a node or migration that it started is still running: pid " +
		strconv.Itoa(node.Process.Pid) + ` ("sleep") → an entrypoint that is started now waits until that has ended`},
		roomless(New(plan).volume(path)))
}

func TestFilesComeWithWhatToDo(t *testing.T) {
	plan, dir := realPlan(t)
	assert.Empty(t, New(plan).Version(t.Context(), 1, sequencer.Programs))
	require.NoError(t, os.Remove(dir+"/node-1"))
	require.NoError(t, os.Truncate(dir+"/migration", 0))
	require.NoError(t, os.Truncate(dir+"/config.toml", 0))
	assert.Equal(t, []string{
		"1 error: rollup_binary: stat " + dir + "/node-1: no such file or directory → put it into the image, or name another one as rollup_binary in chain.json",
		"1 error: migration_path: " + dir + "/migration is empty, want a program → fix that file, or name another one as migration_path in chain.json",
		"1 error: config_path: " + dir + "/config.toml: runner.http_config.bind_port is missing: the node is asked for its height on that port → fix that file, or name another one as config_path in chain.json",
	}, rows(New(plan).Version(t.Context(), 1, sequencer.Programs)))
}

// row shows a finding as a table does; findings of a test are compared with rows of it.
func row(f sequencer.Finding) string {
	return strconv.Itoa(f.Version) + " " + string(f.Severity) + ": " + f.What + " → " + f.Next
}

func rows(found []sequencer.Finding) []string {
	var all []string
	for _, f := range found {
		all = append(all, row(f))
	}
	return all
}

// realPlan is a plan of three versions with good files, whose state is in dir/state; v1 has a migration.
func realPlan(t *testing.T) (plan *sequencer.Plan, dir string) {
	t.Helper()
	dir, write := deck(t)
	write("config.toml", "storage.path = '"+dir+"/state'\nrunner.http_config.bind_port = 1\n", 0o644)
	require.NoError(t, os.Mkdir(dir+"/state", 0o755))
	plan = &sequencer.Plan{File: "chain.json", Versions: []sequencer.Version{
		{Name: "v0", Stop: 100, OnInterrupted: sequencer.Rerun},
		{Name: "osaka", Migration: "/migrate1", Start: 101, Stop: 200, OnInterrupted: sequencer.Rerun},
		{Name: "v2", Start: 201, Stop: 300, OnInterrupted: sequencer.Rerun},
	}}
	for i := range plan.Versions {
		v := &plan.Versions[i]
		v.Binary, v.Config = write("node-"+strconv.Itoa(i), "#!/bin/sh\n# "+v.Name+"\n", 0o755), dir+"/config.toml"
		if v.Migration != "" {
			v.Migration = write("migration", "#!/bin/sh\n", 0o755)
		}
	}
	return plan, dir
}

func TestAllVersionsKeepTheirStateInOneDirectory(t *testing.T) {
	plan, dir := realPlan(t)
	t.Chdir(dir)
	require.NoError(t, os.Symlink("state", dir+"/link"))
	config := func(i int, storage string) {
		name := filepath.Join(dir, "config-"+strconv.Itoa(i)+".toml")
		text := "[runner.http_config]\nbind_port = 1\n"
		if storage != "" {
			text += "[storage]\npath = '" + storage + "'\n"
		}
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
		plan.Versions[i].Config = name
	}
	const same = "give all versions the same storage.path"
	relative := func(i int, storage string) string {
		return strconv.Itoa(i) + " warning: " + dir + "/config-" + strconv.Itoa(i) + `.toml has the relative storage.path "` + storage + `": in this working directory that is ` +
			dir + "/" + storage + " → make it absolute, or make sure that the container has the same working directory at every start"
	}
	without := func(i int) string {
		return dir + "/config-" + strconv.Itoa(i) + ".toml has no storage.path: whether a state is there cannot be seen, so the stamp is kept in the checkpoint, " +
			"and a state that is restored or lost without it is not noticed → set storage.path to a directory on the volume"
	}
	for _, test := range []struct {
		name string
		dirs [3]string
		want []string
	}{
		{"the same", [3]string{dir + "/state", dir + "/state", dir + "/./state"}, nil},
		{"by a link", [3]string{dir + "/state", dir + "/link", dir + "/state"}, nil},
		{"not there yet", [3]string{dir + "/new", dir + "/new", dir + "/link/../new"}, nil},
		{"relative", [3]string{"state", "state", dir + "/state"}, []string{relative(0, "state")}},
		{"another", [3]string{dir + "/state", dir + "/state", dir + "/other"}, []string{
			"2 error: its storage.path is " + dir + "/other, but that of version \"osaka\" (index 1) is " + dir + "/state: it would not find the state → " + same,
		}},
		{"another after a migration", [3]string{dir + "/state", dir + "/other", "other"}, []string{
			"1 error: its storage.path is " + dir + "/other, but that of version 0 is " + dir + "/state: it would not find the state → " + same,
		}},
		{"one without", [3]string{dir + "/state", "", dir + "/state"}, []string{
			"1 error: its storage.path is not set, but that of version 0 is " + dir + "/state: it would not find the state → " + same,
			"2 error: its storage.path is " + dir + "/state, but that of version \"osaka\" (index 1) is not set: it would not find the state → " + same,
			"1 warning: " + without(1),
		}},
		{"none", [3]string{}, []string{"0 warning: " + without(0), "1 warning: " + without(1), "2 warning: " + without(2)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i, storage := range test.dirs {
				config(i, storage)
			}
			assert.Equal(t, test.want, rows(New(plan).storage()))
			refused := len(test.want) > 0 && strings.Contains(test.want[0], " error: ")
			got, err := New(plan).StateDir()
			if refused {
				var f *sequencer.Failure
				require.ErrorAs(t, err, &f)
				assert.Equal(t, sequencer.CodeMismatch, f.Code)
				assert.NotEmpty(t, f.Safe)
				assert.NotEmpty(t, f.Next)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.dirs[0] != "", got != "")
			assert.True(t, got == "" || filepath.IsAbs(got))
		})
	}
	plan.Versions[1].Config = dir + "/none.toml"
	assert.Len(t, rows(New(plan).storage()), 2, "a config that cannot be read is found elsewhere")
}
