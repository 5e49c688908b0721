package program

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/test/ptrace"
)

// reset runs the command on the chain.
func (c *chain) reset(flags ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	return c.command(append([]string{"reset", "-c", c.manager, "-f", c.checkpoint}, flags...)...)
}

// volume is what is on the volume, but for the lock and the record of the last run: the path of each file and its content, "/" for a directory.
func (c *chain) volume() map[string]string {
	c.t.Helper()
	dir, all := filepath.Dir(c.checkpoint), map[string]string{}
	require.NoError(c.t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			all[name] = "/"
		case !strings.HasSuffix(name, ".lock") && !strings.HasSuffix(name, ".last-run"):
			text, err := os.ReadFile(path)
			all[name] = string(text)
			return err
		}
		return nil
	}))
	return all
}

var asideName = regexp.MustCompile(`\.\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(-\d+)?$`)

// asides are the names under which something was kept, without the time, and the times.
func (c *chain) asides() (names, times []string) {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(c.checkpoint))
	require.NoError(c.t, err)
	for _, entry := range entries {
		if at := asideName.FindString(entry.Name()); at != "" {
			names, times = append(names, strings.TrimSuffix(entry.Name(), at)), append(times, at)
		}
	}
	return names, times
}

// fromGenesis is a start on nothing, with the blocks that the chain has: through the upgrade to height 13.
func fromGenesis(args ...string) phase {
	return phase{
		name: "from genesis", do: start(args...), events: []event{on("height known", "version=1")}, trace: upgraded,
		checkpoint: "1 running migrated 0@10", stamp: "1 from 11 to 20 migrated", state: "13 version 1 migrated@10",
	}
}

// Row 4: a reset, and then the chain is synced again, through an upgrade.
func TestResetSetsStateAndCheckpointAsideAndTheNextStartSyncsAgain(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	before := c.volume()
	code, out, errs := c.reset("--yes")
	require.Zero(t, code, errs)
	names, times := c.asides()
	require.Equal(t, []string{"checkpoint.json", "state"}, names)
	require.Equal(t, times[0], times[1], "it shows that they belong together")
	after := c.volume()
	assert.Equal(t, before["checkpoint.json"], after["checkpoint.json"+times[0]])
	assert.Equal(t, before["state/rollup-version.json"], after["state"+times[0]+"/rollup-version.json"])
	assert.Len(t, after, len(before)+1, "nothing but the empty state directory is new: %v", after)
	for _, says := range []string{
		c.checkpoint + " becomes " + c.checkpoint + times[0], c.state + " becomes " + c.state + times[0],
		"version 1 (v1), from height 11 to 20, migration completed", "10, when its node was asked last",
		"the sequencer's database schema", "the next start runs v0, version 0, from genesis, and syncs again through all 3 versions",
	} {
		assert.Contains(t, out, says)
	}
	assert.NotContains(t, out, "warning")

	c.run(fromGenesis(), stopInV1())
	code, _, errs = c.reset("--yes")
	require.Zero(t, code, errs)
	names, _ = c.asides()
	assert.Equal(t, []string{"checkpoint.json", "checkpoint.json", "state", "state"}, names)
	c.run(fromGenesis())
}

func TestResetDeletesStateAndCheckpoint(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	leftover := filepath.Join(c.state+".being-deleted-by-reset", "rocksdb")
	require.NoError(t, os.MkdirAll(leftover, 0o755))
	code, out, errs := c.reset("--delete", "--yes")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "left by an interrupted reset, is deleted")
	assert.Equal(t, map[string]string{".": "/", "state": "/"}, c.volume())
	assert.Zero(t, *c.lastRun().ExitCode, "what happened before stays known")
	c.run(fromGenesis())
}

func TestResetNeedsNoCheckpointFile(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	withoutCheckpoint(c)
	code, _, errs := c.command("reset", "-c", c.manager, "--no-checkpoint-file", "--yes")
	require.Zero(t, code, errs)
	names, _ := c.asides()
	assert.Equal(t, []string{"state"}, names)
	c.run(fromGenesis())
}

// What was torn is reset as well: that is what many a reset is for.
func TestResetTakesARecordThatCannotBeRead(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	for _, file := range []string{c.checkpoint, c.stampFile()} {
		require.NoError(t, os.WriteFile(file, []byte("{\x1b[2J"), 0o644))
	}
	code, out, errs := c.reset("--yes")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "unreadable: "+c.checkpoint)
	assert.NotContains(t, out, "\x1b")
	c.run(fromGenesis())
}

// The state is set aside with the checkpoint in it, and the directories are there again for the next one.
func TestResetOfAStateThatHasTheCheckpointInIt(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"--yes"}, {"--yes", "--delete"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, migratingChain()...)
			require.NoError(t, os.MkdirAll(filepath.Join(c.state, "a", "record"), 0o755))
			require.NoError(t, os.Chmod(c.state, fs.ModeSetgid|0o750))
			c.checkpoint = filepath.Join(c.state, "a", "record", "checkpoint.json")
			inV1(c)
			code, _, errs := c.reset(flags...)
			require.Zero(t, code, errs)
			info, err := os.Stat(c.state)
			require.NoError(t, err)
			assert.Equal(t, fs.ModeDir|fs.ModeSetgid|0o750, info.Mode())
			c.run(fromGenesis())
		})
	}
}

func TestResetOfNothingChangesNothing(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	before := c.volume()
	code, out, errs := c.reset()
	require.Zero(t, code, errs)
	assert.Contains(t, out, "nothing to reset")
	assert.Equal(t, before, c.volume())
}

// Without a person who says yes nothing is done.
func TestResetIsConfirmed(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	before := c.volume()
	code, out, errs := c.reset()
	assert.Equal(t, 64, code)
	assert.Contains(t, out, c.state+" becomes ")
	assert.Contains(t, errs, "nothing was changed: stdin is not a terminal")
	c.env = []string{"ENTRYPOINT_YES=true", "ENTRYPOINT_DELETE=true"}
	code, out, _ = c.reset()
	assert.Equal(t, 64, code, "the environment says nothing")
	assert.Contains(t, out, c.state+" becomes ")
	for _, answer := range []string{"no", "", "y", "yes, but"} {
		code, screen := c.resetAt(answer)
		assert.Equal(t, 64, code, screen)
		assert.Contains(t, screen, "nothing was changed")
		assert.Equal(t, before, c.volume())
	}
	code, screen := c.resetAt("yes")
	assert.Zero(t, code, screen)
	names, _ := c.asides()
	assert.Len(t, names, 2)
}

// resetAt runs the command at a terminal, at which a person types the answer.
func (c *chain) resetAt(answer string) (code int, screen string) {
	c.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(c.t, err)
	defer master.Close()
	fd := int(master.Fd())
	require.NoError(c.t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(c.t, err)
	terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(c.t, err)
	defer terminal.Close()
	cmd := exec.Command(programs.entrypoint, "reset", "-c", c.manager, "-f", c.checkpoint)
	var out strings.Builder
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.dir, c.environment(), terminal, &out, &out
	require.NoError(c.t, cmd.Start())
	_, err = master.WriteString(answer + "\n") // it waits in the terminal until it is read
	require.NoError(c.t, err)
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String()
}

func TestResetBesideARunIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	c.run(phase{name: "v0", do: do(heights(5, 5), start()), events: []event{on("height known")}, trace: []string{"start v0 stop=10"}})
	for _, args := range [][]string{{"-f", c.checkpoint}, {"-f", c.checkpoint + ".other"}, {"--no-checkpoint-file"}} {
		code, out, errs := c.command(append([]string{"reset", "-c", c.manager, "--yes", "--delete"}, args...)...)
		assert.Equal(t, 74, code)
		assert.Empty(t, out)
		assert.Regexp(t, "is locked by (the (entrypoint|process) with pid|another process).*nothing was changed; stop the entrypoint", errs)
	}
	c.run(
		phase{name: "on", do: heights(7, 7), state: "7 version 0"},
		phase{name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v0 terminated", "exit v0 0 at 7"}},
	)
}

// What a dead entrypoint left running holds the lock, too.
func TestResetBesideTheNodeOfADeadEntrypointIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	var letGo func()
	c.run(inV0(), phase{name: "killed", do: func(c *chain) {
		letGo = c.holdExit()
		c.killProgram()
		c.awaitJournalled("signal v0 terminated")
	}, trace: []string{"signal v0 terminated"}})
	before := c.volume()
	code, _, errs := c.reset("--yes")
	assert.Equal(t, 74, code)
	assert.Regexp(t, `has ended, but a node or migration that it started is still running: pid \d+ \(".+"\);.* wait until what is still running has ended`, errs)
	assert.Equal(t, before, c.volume())
	letGo()
	c.awaitJournalled("exit v0 0 at 3")
}

func TestResetWarnsOfAVersionThatIsNotInTheImage(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	require.NoError(t, os.Remove(c.binary(0)))
	code, out, errs := c.reset("--yes")
	require.Zero(t, code, errs)
	assert.Regexp(t, `(?m)^warning: +version 0: rollup_binary: .*no such file`, out)
	assert.Contains(t, out, "fix the problems above first")
}

// A mount point cannot be renamed. It is emptied, and until that is done nothing is started on what is left.
func TestResetOfAStateThatIsAMountPoint(t *testing.T) {
	t.Parallel()
	for name, nested := range map[string]bool{"checkpoint elsewhere": false, "checkpoint in it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ownMounts(t)
			c := newChain(t, migratingChain()...)
			require.NoError(t, os.Mkdir(c.state, 0o755))
			require.NoError(t, unix.Mount("tmpfs", c.state, "tmpfs", 0, ""))
			t.Cleanup(func() { require.NoError(t, unix.Unmount(c.state, unix.MNT_DETACH)) })
			require.NoError(t, os.Mkdir(filepath.Join(c.state, "lost+found"), 0o755))
			if nested {
				c.checkpoint = filepath.Join(c.state, "checkpoint.json")
			}
			inV1(c)
			before := c.volume()
			code, _, errs := c.reset("--yes")
			assert.Equal(t, 78, code)
			assert.Contains(t, errs, c.state+" is a mount point, which cannot be renamed; nothing was changed; ")
			assert.Contains(t, errs, "add --delete")
			assert.Equal(t, before, c.volume())

			stamped, deleted := false, 0
			require.True(t, c.resetKilled(func(call *ptrace.Call) bool { // at the second file that is deleted
				stamped = stamped || call.Name() == "renameat" && call.Exit
				if text, err := call.Text(1); err == nil && stamped && call.Name() == "unlinkat" && !call.Exit && strings.HasPrefix(text, c.state) {
					deleted++
				}
				return deleted == 2
			}, "--yes", "--delete"))
			c.run(phase{name: "half deleted", do: start(), exit: exits(78), cause: "state_gone", says: []string{"a reset was interrupted", "run 'entrypoint reset --delete' again"}})
			code, _, errs = c.reset("--yes", "--delete")
			require.Zero(t, code, errs)
			assert.DirExists(t, filepath.Join(c.state, "lost+found"))
			c.run(fromGenesis())
		})
	}
}

func TestResetOfAStateWithAMountPointInItIsRefused(t *testing.T) {
	t.Parallel()
	ownMounts(t)
	c := newChain(t, migratingChain()...)
	inside := filepath.Join(c.state, "nomt db") // a space is an octal number in mountinfo
	inV1(c)
	require.NoError(t, os.Mkdir(inside, 0o755))
	require.NoError(t, unix.Mount("tmpfs", inside, "tmpfs", 0, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(inside, unix.MNT_DETACH)) })
	before := c.volume()
	for _, flags := range [][]string{{"--yes"}, {"--yes", "--delete"}} {
		code, _, errs := c.reset(flags...)
		assert.Equal(t, 78, code)
		assert.Contains(t, errs, inside)
		assert.Equal(t, before, c.volume())
	}
}

// resetKilled runs the command under a tracer, and kills it at the first system call that is one. It reports whether there
// was one.
func (c *chain) resetKilled(at func(*ptrace.Call) bool, flags ...string) (killed bool) {
	c.t.Helper()
	argv := append([]string{programs.entrypoint, "reset", "-c", c.manager, "-f", c.checkpoint}, flags...)
	if os.Geteuid() == 0 { // the tracer has a thread of its own, with the mounts of another one
		mounts := fmt.Sprintf("/proc/%d/task/%d/ns/mnt", os.Getpid(), unix.Gettid())
		argv = append([]string{"nsenter", "--mount=" + mounts, "--"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	out, err := os.Create(filepath.Join(c.dir, "reset.out"))
	require.NoError(c.t, err)
	defer out.Close()
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, c.environment(), out, out
	process, err := ptrace.Start(cmd, func(call *ptrace.Call) {
		if !killed && at(call) {
			killed = call.Signal(unix.SIGKILL) == nil
		}
	})
	if errors.Is(err, unix.EPERM) && os.Getenv("CI") != "true" {
		c.t.Skip("ptrace(2) is not permitted here: ", err)
	}
	require.NoError(c.t, err)
	status, err := process.Wait()
	require.NoError(c.t, err)
	require.Equal(c.t, killed, status.Signaled(), "it was killed or exits: %v", status)
	if !killed {
		require.Zero(c.t, status.ExitStatus(), readText(out.Name()))
	}
	return killed
}

// After the first of the two renames the stamp counts: the run continues as if nothing had happened, and a second reset
// finishes what the first one began.
func TestResetKilledBetweenItsRenamesLosesNothing(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	renames := 0
	require.True(t, c.resetKilled(func(call *ptrace.Call) bool {
		if call.Name() == "renameat2" && !call.Exit {
			renames++
		}
		return renames == 2
	}, "--yes"))
	names, _ := c.asides()
	require.Equal(t, []string{"checkpoint.json"}, names)
	c.run(
		phase{
			name: "run", do: start(), events: []event{on("no checkpoint found"), on("stamp found", "version=1"), on("height known", "version=1")},
			trace: []string{"asked v1 at 13", "start v1 stop=20"}, checkpoint: "1 running migrated", stamp: "1 from 11 to 20 migrated", state: c.at13(),
		},
		stopInV1(),
	)
	withoutCheckpoint(c) // as the kill has left it
	code, out, errs := c.reset("--yes")
	require.Zero(t, code, errs)
	assert.Contains(t, out, "checkpoint: there is none")
	c.run(fromGenesis())
}

// Killed at any system call that changes something, what is there is the whole state with its stamp, or none, or one whose
// stamp no plan has; and a second reset finishes.
func TestResetKilledAtAnySystemCallLeavesNoPartOfAState(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{"--yes", "--yes --delete", "--yes --delete on a mount point"} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			mounted := strings.HasSuffix(flags, "mount point")
			if mounted {
				ownMounts(t)
			}
			c := newChain(t, migratingChain()...)
			c.layState(mounted)
			for point := 1; ; point++ {
				c.layFiles()
				whole, seen := c.volume(), 0
				killed := c.resetKilled(func(call *ptrace.Call) bool {
					if call.Exit {
						return false // at the entry of the next call nothing else is there
					}
					switch call.Name() {
					case "renameat2", "rename", "renameat", "unlinkat", "mkdirat", "fsync", "fchmodat", "fchownat":
						seen++
					}
					return seen == point
				}, strings.Fields(strings.TrimSuffix(flags, "on a mount point"))...)
				c.expectNoPart(fmt.Sprintf("%s, point %d", flags, point), whole, mounted)
				code, _, errs := c.reset(strings.Fields(strings.TrimSuffix(flags, "on a mount point"))...)
				require.Zero(t, code, errs)
				found, err := checkpoint.Read(c.checkpoint, c.state)
				require.NoError(t, err)
				require.Nil(t, found.Checkpoint)
				require.Nil(t, found.Stamp)
				require.Equal(t, checkpoint.StateNone, found.State)
				if !killed && point > 5 { // on a busy machine a life may end before its point, as in the kill matrix
					return
				}
			}
		})
	}
}

// layState makes the storage directory.
func (c *chain) layState(mounted bool) {
	c.t.Helper()
	require.NoError(c.t, os.Mkdir(c.state, 0o755))
	if mounted {
		require.NoError(c.t, unix.Mount("tmpfs", c.state, "tmpfs", 0, ""))
		c.t.Cleanup(func() { require.NoError(c.t, unix.Unmount(c.state, unix.MNT_DETACH)) })
	}
}

// layFiles fills it, and makes a checkpoint, without a node.
func (c *chain) layFiles() {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(c.checkpoint))
	require.NoError(c.t, err)
	for _, entry := range entries {
		if entry.Name() != filepath.Base(c.state) {
			require.NoError(c.t, os.RemoveAll(filepath.Join(filepath.Dir(c.checkpoint), entry.Name())))
		}
	}
	require.NoError(c.t, os.MkdirAll(filepath.Join(c.state, "db", "sub"), 0o755))
	for _, name := range []string{"a", "db/b", "db/sub/c", "z"} {
		require.NoError(c.t, os.WriteFile(filepath.Join(c.state, name), []byte(name), 0o644))
	}
	code, _, errs := c.command("checkpoint", "set", "-c", c.manager, "-f", c.checkpoint, "--version", "1", "--migrated")
	require.Zero(c.t, code, errs)
}

// expectNoPart looks at a volume on which a reset was killed.
func (c *chain) expectNoPart(when string, whole map[string]string, mounted bool) {
	c.t.Helper()
	found, err := checkpoint.Read(c.checkpoint, c.state)
	require.NoError(c.t, err, when)
	same, now := true, c.volume()
	for name, text := range whole {
		same = same && (!strings.HasPrefix(name, "state") || now[name] == text)
	}
	switch {
	case found.State == checkpoint.StateNone && found.Stamp == nil:
		require.Nil(c.t, found.Checkpoint, "%s: a checkpoint without its state", when)
	case found.Stamp != nil && found.Stamp.VersionIndex == 1:
		require.True(c.t, same, "%s: a part of the state, with its stamp: %v", when, now)
	default:
		require.True(c.t, mounted && found.Stamp != nil && strings.HasPrefix(found.Stamp.Name, "half deleted"), "%s: %v", when, now)
	}
}

// The user who creates the directory again is not always its owner.
func TestResetGivesTheEmptyStateToTheOwnerOfTheOldOne(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		missing(t, "this test needs root")
	}
	c := newChain(t, migratingChain()...)
	c.layState(false)
	c.layFiles()
	require.NoError(t, os.Chown(c.state, 1234, 5678))
	code, _, errs := c.reset("--yes")
	require.Zero(t, code, errs)
	info, err := os.Stat(c.state)
	require.NoError(t, err)
	stat, _ := info.Sys().(*syscall.Stat_t)
	assert.Equal(t, []uint32{1234, 5678}, []uint32{stat.Uid, stat.Gid})
}

// It may only not be mounted, and then the next start would continue with it.
func TestResetOfAStateThatIsNotThereIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, migratingChain()...)
	inV1(c)
	require.NoError(t, os.Rename(c.state, c.state+".away"))
	for _, args := range [][]string{{"--yes"}, {"--yes", "--delete"}} {
		code, _, errs := c.reset(args...)
		assert.Equal(t, 78, code)
		assert.Contains(t, errs, "belongs to a state, but there is none in")
		assert.FileExists(t, c.checkpoint)
	}
}
