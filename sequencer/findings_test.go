package sequencer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// row shows a finding as a table does; findings of a test are compared with rows of it.
func row(f Finding) string {
	return strconv.Itoa(f.Version) + " " + string(f.Severity) + ": " + f.What + " → " + f.Next
}

func rows(found []Finding) []string {
	var all []string
	for _, f := range found {
		all = append(all, row(f))
	}
	return all
}

// realPlan is a plan of three versions with good files, whose state is in dir/state; v1 has a migration.
func realPlan(t *testing.T) (plan *Plan, dir string) {
	t.Helper()
	dir, write := deck(t)
	write("config.toml", "storage.path = '"+dir+"/state'\nrunner.http_config.bind_port = 1\n", 0o644)
	require.NoError(t, os.Mkdir(dir+"/state", 0o755))
	plan = resumePlan()
	plan.Versions = plan.Versions[:3]
	for i := range plan.Versions {
		v := &plan.Versions[i]
		v.Binary, v.Config = write("node-"+strconv.Itoa(i), "#!/bin/sh\n# "+v.Name+"\n", 0o755), dir+"/config.toml"
		if v.Migration != "" {
			v.Migration = write("migration", "#!/bin/sh\n", 0o755)
		}
	}
	return plan, dir
}

func TestFilesComeWithWhatToDo(t *testing.T) {
	plan, dir := realPlan(t)
	assert.Empty(t, CheckFiles(plan, 1))
	assert.Equal(t, map[string]string{"rollup_binary": dir + "/node-1", "migration_path": dir + "/migration"}, Programs(plan, 1))
	assert.Equal(t, map[string]string{"rollup_binary": dir + "/node-0"}, Programs(plan, 0))
	require.NoError(t, os.Remove(dir+"/node-1"))
	require.NoError(t, os.Truncate(dir+"/migration", 0))
	require.NoError(t, os.Truncate(dir+"/config.toml", 0))
	assert.Equal(t, []string{
		"1 error: rollup_binary: stat " + dir + "/node-1: no such file or directory → put it into the image, or name another one as rollup_binary in chain.json",
		"1 error: migration_path: " + dir + "/migration is empty, want a program → mend that file, or name another one as migration_path in chain.json",
		"1 error: config_path: " + dir + "/config.toml: runner.http_config.bind_port is missing: the height of the node is asked on that port → mend that file, or name another one as config_path in chain.json",
	}, rows(CheckFiles(plan, 1)))
	assert.Empty(t, Programs(plan, 1), "what is wrong already is not looked into")
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
			dir + "/" + storage + " → make it absolute, or see that the container has the same working directory at every start"
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
			"2 error: its storage.path is " + dir + "/other, but that of version 1 (\"osaka\") is " + dir + "/state: it would not find the state → " + same,
		}},
		{"another after a migration", [3]string{dir + "/state", dir + "/other", "other"}, []string{
			"1 warning: its storage.path is " + dir + "/other, but that of version 0 is " + dir + "/state: it would not find the state → " + same + ", unless the migration carries the state over",
		}},
		{"none", [3]string{dir + "/state", "", dir + "/other"}, []string{
			"1 warning: " + dir + "/config-1.toml has no storage.path: whether a state is there cannot be seen → set storage.path to a directory on the volume",
			"2 error: its storage.path is " + dir + "/other, but that of version 0 is " + dir + "/state: it would not find the state → " + same,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for i, storage := range test.dirs {
				config(i, storage)
			}
			assert.Equal(t, test.want, rows(CheckStorage(plan)))
		})
	}
	plan.Versions[1].Config = dir + "/none.toml"
	assert.Empty(t, rows(CheckStorage(plan))[1:], "a config that cannot be read is told elsewhere")
}

func TestCheckpointIsComparedWithThePlanAndTheState(t *testing.T) {
	digest := func(plan *Plan, i int) string {
		sum, err := (&Disk{}).Digest(plan.Versions[i].Binary)
		require.NoError(t, err)
		return sum
	}
	for _, test := range []struct {
		name string
		// change sets the scene, and the checkpoint; without a version there is none.
		change func(plan *Plan, dir string, c *Checkpoint)
		at     int
		want   []string
	}{
		{"nothing yet", func(*Plan, string, *Checkpoint) {}, 0, nil},
		{"a state without a checkpoint", func(_ *Plan, dir string, _ *Checkpoint) { touch(t, dir+"/state/CURRENT") }, 0, []string{
			"-1 warning: there is a state in DIR/state, but no checkpoint DIR/c.json: a run would begin with version 0 → if the state belongs to a later version, say " +
				"'entrypoint checkpoint set -c chain.json -f DIR/c.json --version N', with --migrated if that version's migration has completed",
		}},
		{"in the middle", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 2, BinaryPath: plan.Versions[2].Binary, Phase: PhaseRunning, BinarySHA256: digest(plan, 2)}
		}, 2, nil},
		{"a migration that is due, after a version that is proven", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 1, BinaryPath: plan.Versions[1].Binary, Phase: PhaseMigrating, History: []Completed{{StopHeight: 100, Proof: ProofDurable}}}
		}, 1, nil},
		{"a migration that is due, after a version that is to be proven", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 1, BinaryPath: plan.Versions[1].Binary, Phase: PhaseMigrating}
		}, 0, nil},
		{"the version before runs on", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 2, BinaryPath: plan.Versions[2].Binary, Phase: PhaseFinishingPrevious}
		}, 1, nil},
		{"over an empty state", func(plan *Plan, _ string, c *Checkpoint) {
			*c = Checkpoint{VersionIndex: 2, BinaryPath: plan.Versions[2].Binary, Phase: PhaseRunning}
		}, 2, []string{"2 error: the checkpoint is at version 2, but the state directory DIR/state is empty → mount or restore the state, or, to sync again from genesis, delete the checkpoint too"}},
		{"beyond the plan", func(plan *Plan, _ string, c *Checkpoint) {
			*c = Checkpoint{VersionIndex: 7, BinaryPath: plan.Versions[2].Binary, Phase: PhaseRunning}
		}, 2, []string{"-1 error: the checkpoint is at version 7, but chain.json has only versions 0 to 2 → start with the config that has version 7; the state cannot go back to an older version"}},
		{"of sov-rollup-manager at a version with a migration", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 1, BinaryPath: plan.Versions[1].Binary}
		}, 1, []string{`-1 error: the checkpoint, as sov-rollup-manager writes it, does not say whether the migration of version 1 ("osaka") completed → if version 1 ("osaka") has already run, say ` +
			`'entrypoint checkpoint set -c chain.json -f DIR/c.json --version 1 --migrated'; if its migration has never been started, 'entrypoint checkpoint set -c chain.json -f DIR/c.json --version 1'`}},
		{"another binary", func(_ *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 2, BinaryPath: "/opt/v2", Phase: PhaseRunning}
		}, 2, []string{"2 error: the checkpoint is at version 2 with the binary /opt/v2, but chain.json has DIR/node-2 there → if it is the same binary in a new place, say " +
			"'entrypoint checkpoint set -c chain.json -f DIR/c.json --version 2', with --migrated if that version's migration has completed"}},
		{"a binary that was moved", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 2, BinaryPath: "/opt/v2", Phase: PhaseRunning, BinarySHA256: digest(plan, 2)}
		}, 2, nil},
		{"a binary that was replaced", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 2, BinaryPath: plan.Versions[2].Binary, Phase: PhaseRunning, BinarySHA256: digest(plan, 1)}
		}, 2, []string{"2 warning: rollup_binary: its content is not what ran last: sha256 SHA2, was SHA1 → see that the new one is meant: a run goes on with it"}},
		{"another height than was reached", func(plan *Plan, dir string, c *Checkpoint) {
			touch(t, dir+"/state/CURRENT")
			*c = Checkpoint{VersionIndex: 2, BinaryPath: plan.Versions[2].Binary, Phase: PhaseRunning, History: []Completed{{VersionIndex: 1, StopHeight: 190}}}
		}, 2, []string{`-1 warning: version 1 ("osaka") was complete at height 190, but chain.json now stops it at 200 → `}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, dir := realPlan(t)
			sums := [2]string{digest(plan, 1), digest(plan, 2)}
			c := Checkpoint{}
			test.change(plan, dir, &c)
			if c.BinaryPath != "" {
				text, err := json.Marshal(c)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(dir+"/c.json", text, 0o644))
			}
			before := names(t, dir)
			at, found := CheckCheckpoint(plan, dir+"/c.json")
			assert.Equal(t, test.at, at)
			var got []string
			for _, r := range rows(found) {
				got = append(got, strings.NewReplacer(dir, "DIR", sums[0], "SHA1", sums[1], "SHA2").Replace(r))
			}
			assert.Equal(t, test.want, got)
			assert.Equal(t, before, names(t, dir), "nothing is written")
		})
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
}

func TestCheckpointThatCannotBeReadIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	touch(t, dir+"/c.json")
	at, found := CheckCheckpoint(plan, dir+"/c.json")
	assert.Zero(t, at)
	require.Len(t, found, 1)
	assert.Equal(t, WholePlan, found[0].Version)
	assert.Equal(t, SeverityError, found[0].Severity)
	assert.Contains(t, found[0].What, "the checkpoint cannot be read: "+dir+"/c.json: the file is no checkpoint")
	assert.Contains(t, found[0].Next, "'entrypoint checkpoint set -c chain.json -f "+dir+"/c.json --version N'")
	_, found = CheckCheckpoint(plan, dir)
	assert.Equal(t, "mount the directory that holds the checkpoint, and name a file in it", found[0].Next)
}

// roomless are findings that depend on how full the machine of the test is.
func roomless(found []Finding) []string {
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

func TestVolumeMustBeWritableForThisUser(t *testing.T) {
	plan, dir := realPlan(t)
	assert.Empty(t, roomless(CheckVolume(plan, dir+"/c.json")))
	assert.Empty(t, roomless(CheckVolume(plan, dir+"/new/deep/c.json")), "a directory that can be made")
	assert.Empty(t, roomless(CheckVolume(plan, "")))
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Mkdir(dir+"/theirs", 0o777))
	require.NoError(t, os.Chmod(dir+"/theirs", 0o777))
	const next = " → mount a volume there that user 65534 may write: chown it, or start the container as its owner (--user, fsGroup)"
	asNobody(t, dir, func() {
		assert.Equal(t, []string{
			"-1 error: the checkpoint cannot be written in " + dir + ": permission denied" + next,
			"0 error: the state cannot be written in " + dir + "/state: permission denied" + next,
		}, roomless(CheckVolume(plan, dir+"/c.json")))
		assert.Equal(t, "-1 error: the directory "+dir+"/new/deep for the checkpoint is not there, and cannot be made in "+dir+": permission denied"+next,
			roomless(CheckVolume(plan, dir+"/new/deep/c.json"))[0])
		assert.Len(t, roomless(CheckVolume(plan, dir+"/theirs/c.json")), 1, "the checkpoint's directory is theirs")
	})
	touch(t, dir+"/theirs/c.json.lock")
	asNobody(t, dir, func() {
		assert.Equal(t, "-1 error: "+dir+"/theirs/c.json.lock cannot be written by user 65534 → give it to the user who runs the entrypoint: chown "+dir+"/theirs/c.json.lock",
			roomless(CheckVolume(plan, dir+"/theirs/c.json"))[0])
	})
	require.NoError(t, os.Chmod(dir+"/theirs/c.json.lock", 0))
	asNobody(t, dir, func() {
		assert.Contains(t, roomless(CheckVolume(plan, dir+"/theirs/c.json"))[0], "cannot open the lock of the checkpoint: ")
	})
}

func TestFileInPlaceOfADirectoryIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	touch(t, dir+"/file")
	assert.Contains(t, roomless(CheckVolume(plan, dir+"/file/c.json"))[0], "-1 error: the checkpoint cannot be written in "+dir+"/file: not a directory")
}

func TestReadOnlyVolumeIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	mountOrSkip(t, "none", dir+"/state", "tmpfs", unix.MS_RDONLY, "size=64k")
	assert.Equal(t, []string{"0 error: the state cannot be written in " + dir + "/state: read-only file system → mount the volume for writing: the file system is read-only"},
		roomless(CheckVolume(plan, "")))
}

func TestVolumeThatIsNearlyFullIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	mountOrSkip(t, "none", dir+"/state", "tmpfs", 0, "size=2m,nr_inodes=100")
	got := rows(CheckVolume(plan, dir+"/state/c.json"))
	assert.Equal(t, []string{"-1 warning: the volume of " + dir + "/state has 2 MiB free of 2 MiB → " +
		"make it larger before the upgrade: a migration may need room for a second copy of what it rewrites"}, got, "told once for the two on it")
	for i := range 97 {
		touch(t, dir+"/state/"+strconv.Itoa(i))
	}
	got = rows(CheckVolume(plan, dir+"/state/c.json"))
	require.Len(t, got, 2)
	assert.Equal(t, "-1 warning: the volume of "+dir+"/state has 2 inodes free of 100 → remove files, or make a file system with more inodes: without any no file can be made", got[1])
}

func TestHeldLockIsFoundAndNothingIsTaken(t *testing.T) {
	plan, dir := realPlan(t)
	path := dir + "/c.json"
	store, err := OpenFileStore(path)
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, []string{"-1 warning: " + path + ".lock is locked by the entrypoint with pid " + strconv.Itoa(os.Getpid()) + ` on host "` + host + `" → that is right while the rollup runs; a second entrypoint would be refused`},
		roomless(CheckVolume(plan, path)))
	require.NoError(t, store.Close())
	text, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)

	assert.Empty(t, roomless(CheckVolume(plan, path)))
	after, err := os.ReadFile(path + ".lock")
	require.NoError(t, err)
	assert.Equal(t, text, after)
	store, err = OpenFileStore(path)
	require.NoError(t, err, "the share was given back")
	require.NoError(t, store.Close())
}
