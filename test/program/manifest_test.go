package program

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// The manifest of an image, and what becomes of versions that are not as it says.

// inImage lays a chain out as an image does, with its directory as the root of the versions, and writes the manifest.
func inImage(t *testing.T, versions ...version) *chain {
	t.Helper()
	c := served(t, versions...)
	c.below = "versions"
	require.NoError(t, os.Mkdir(filepath.Join(c.dir, c.below), 0o755))
	for i, v := range c.versions {
		require.NoError(t, os.Rename(filepath.Join(c.dir, fmt.Sprintf("v%d", i)), c.folder(i)))
		// Tests share the programs by hard links. These are changed, and a link makes a file's ctime new.
		c.replace(c.binary(i), c.bytes(programs.nodes[i]))
		if v.migrates {
			c.replace(c.migration(i), c.bytes(programs.nodes[i]))
		}
	}
	c.writeManager()
	c.writeManifest()
	c.env = append(c.env, "ENTRYPOINT_MANIFEST="+c.manifest())
	return c
}

func (c *chain) manifest() string { return filepath.Join(c.dir, "manifest.json") }

func (c *chain) writeManifest() {
	c.t.Helper()
	code, _, stderr := c.command("manifest", "write", "--root", c.dir)
	require.Zero(c.t, code, stderr)
}

func (c *chain) bytes(path string) string {
	c.t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(c.t, err)
	return string(text)
}

// replace puts a program with other bytes in the place of one.
func (c *chain) replace(path, text string) {
	c.t.Helper()
	require.NoError(c.t, writeExecutable(path+".new", []byte(text)))
	require.NoError(c.t, os.Rename(path+".new", path))
}

// tampered is a program of the same size that does the same, as far as the loader is concerned.
func tampered(text string) string { return text[:len(text)-1] + "x" }

// endless puts a file into the folder of a version, and into the manifest, that takes hours to read: it is one hole.
func (c *chain) endless(i int) {
	c.t.Helper()
	const size = 1 << 42
	file, err := os.Create(filepath.Join(c.folder(i), "zeros"))
	require.NoError(c.t, err)
	defer file.Close()
	require.NoError(c.t, file.Truncate(size))
	m, err := images.ReadManifest(c.manifest())
	require.NoError(c.t, err)
	m.Versions[i].Files = append(m.Versions[i].Files, images.RecordedFile{Path: "zeros", Size: size, SHA256: strings.Repeat("0", 64)})
	require.NoError(c.t, images.WriteManifest(c.manifest(), m))
}

func TestImageRunsThroughItsVersionsWithAManifest(t *testing.T) {
	t.Parallel()
	c := inImage(t, migratingChain()...)
	// What a node writes beside its config is no difference.
	require.NoError(t, os.WriteFile(filepath.Join(c.folder(0), "evm_pinned_cache.json"), []byte("{}"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(c.folder(1), "evm_pinned_cache.json"), []byte("{}"), 0o644))
	digest := func(i int) *string {
		sum, err := preflight.New(&sequencer.Plan{Versions: []sequencer.Version{{Binary: c.binary(i)}}}).Digest(0)
		require.NoError(t, err)
		return &sum
	}
	c.run(phase{
		name: "v0", do: do(heights(5, 5), start("--preflight-before=1000h")), trace: []string{"start v0 stop=10"}, checkpoint: "0 running",
		events: []event{on("manifest found", "manifest="+c.manifest(), "detail~3 versions, 8 files"), on("height known", "version=0")},
	})
	r := c.awaitStatus("the versions to be verified", func(r status.Report) bool { return r.NextUpgrade.Preflight != nil && r.Height != nil })
	assert.Equal(t, digest(0), r.BinarySHA256)
	assert.Equal(t, []*string{digest(0), nil, nil}, []*string{r.Versions[0].BinarySHA256, r.Versions[1].BinarySHA256, r.Versions[2].BinarySHA256})
	c.run(phase{
		name: "v1 and v2", do: heights(23, 23), events: []event{on("migration finished"), on("height known", "version=2")},
		trace: []string{
			"exit v0 0 at 10", "asked v0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20", "exit v1 0 at 20",
			"asked v1 at 20", "start v2 start=21",
		},
		checkpoint: "2 running 0@10 1@20", state: "23 version 1 migrated@10",
	})
	r = c.awaitStatus("v2", func(r status.Report) bool { return r.VersionIndex == 2 && r.Height != nil })
	assert.Equal(t, digest(2), r.BinarySHA256)
	assert.Equal(t, []*string{digest(0), digest(1), digest(2)}, []*string{r.Versions[0].BinarySHA256, r.Versions[1].BinarySHA256, r.Versions[2].BinarySHA256})
	found, err := checkpoint.Read(c.checkpoint, "")
	require.NoError(t, err)
	record := found.Checkpoint
	assert.Equal(t, []string{*digest(0), *digest(1), *digest(2)}, []string{record.History[0].BinarySHA256, record.History[1].BinarySHA256, record.BinarySHA256})
	c.run(phase{
		name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v2 terminated", "exit v2 0 at 23"},
	})
}

func TestVersionToRunThatIsNotAsInTheManifestIsNotStarted(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		do   func(c *chain)
		says []string
	}{
		"another binary":           {func(c *chain) { c.replace(c.binary(0), tampered(c.bytes(c.binary(0)))) }, []string{"v0/rollup has the sha256 ", "use the image as it was built"}},
		"a config of another size": {func(c *chain) { c.replace(c.config(0), c.bytes(c.config(0))+"\n\n# mine\n") }, []string{"v0/config.toml has ", " bytes, and had "}},
		"a file that no key names": {func(c *chain) { require.NoError(c.t, os.Remove(filepath.Join(c.folder(0), "genesis.json"))) }, []string{"v0/genesis.json is missing"}},
		"a link in its place": {func(c *chain) {
			require.NoError(c.t, os.Rename(c.binary(0), filepath.Join(c.dir, "elsewhere")))
			require.NoError(c.t, os.Symlink(filepath.Join(c.dir, "elsewhere"), c.binary(0)))
		}, []string{"v0/rollup is a symbolic link, and was a regular file"}},
		"the config of the versions": {func(c *chain) {
			c.versions[1].stop = 21
			c.writeManager()
		}, []string{"manager.json has ", "write the manifest again"}},
		"a program that is not in the manifest": {func(c *chain) {
			c.replace(filepath.Join(c.folder(0), "rollup-2"), c.bytes(c.binary(0)))
			c.versions[0].keys = map[string]any{"rollup_binary": filepath.Join(c.folder(0), "rollup-2")}
			c.manager = filepath.Join(c.dir, "another.json")
			c.writeManager()
		}, []string{"v0/rollup-2 is not in the manifest", "after the last version was copied"}},
		"a version that is not in the manifest": {func(c *chain) {
			require.NoError(c.t, os.Rename(c.folder(0), filepath.Join(c.dir, "versions", "new")))
			require.NoError(c.t, os.Symlink("new", c.folder(0)))
		}, []string{"v0 is a symbolic link, want a folder", "versions/new is not in the manifest"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := inImage(t, version{stop: 10}, version{stop: 20})
			require.NoError(t, os.WriteFile(filepath.Join(c.folder(0), "genesis.json"), nil, 0o644))
			c.writeManifest()
			test.do(c)
			c.run(phase{
				name: "start", do: do(heights(5, 5), start()), exit: exits(78), allows: []string{"preflight problem"}, checkpoint: "none", state: "none",
				says: append(test.says, `version 0 does not match the manifest`, "nothing was started"),
			})
		})
	}
}

// The tampered version is known while v0 runs, and is not started when its height comes. Once it is fixed, the chain continues.
func TestLaterVersionThatIsNotAsInTheManifestIsReportedAndThenRefused(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10}, version{stop: 20, migrates: true}, version{})
	right := c.bytes(c.migration(1))
	c.replace(c.migration(1), right+"tampered")
	c.run(phase{
		name: "v0", do: do(heights(5, 5), start()), trace: []string{"start v0 stop=10"}, checkpoint: "0 running",
		events: []event{on("height known", "version=0"), on("preflight problem", "version=1", "severity=error", "problem~v1/migration has ")},
	})
	r := c.awaitStatus("the problem", func(r status.Report) bool {
		return slices.ContainsFunc(r.NextUpgrade.Preflight.Problems, func(text string) bool { return strings.Contains(text, c.migration(1)+" has ") })
	})
	assert.Equal(t, sequencer.PhaseRunning, r.Phase)
	assert.Nil(t, r.LastFailure)
	assert.Equal(t, "1", c.metrics()[`entrypoint_preflight_problems{version="1"}`])
	c.expectProbes("", "")
	c.run(
		phase{
			name: "the height", do: heights(12, 12), exit: exits(78), checkpoint: "0 running", state: "10 version 0",
			trace: []string{"exit v0 0 at 10", "asked v0 at 10"},
			says: []string{
				"version 0 is complete at height 10, but version 1 cannot be started", c.migration(1) + " has ", "use the image as it was built",
				"and stamp and checkpoint are unchanged",
			},
		},
		phase{
			name: "fixed", do: do(func(c *chain) { c.replace(c.migration(1), right) }, start()), events: []event{on("height known", "version=1")},
			trace:      []string{"asked v0 at 10", "start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20"},
			checkpoint: "1 running migrated 0@10", state: "12 version 1 migrated@10",
		},
	)
}

func TestVersionThatIsChangedAfterItWasVerifiedIsRefused(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10}, version{})
	c.run(phase{name: "v0", do: do(heights(5, 5), start()), trace: []string{"start v0 stop=10"}, events: []event{on("height known", "version=0")}})
	c.awaitStatus("v1 to be verified", func(r status.Report) bool { return r.NextUpgrade.Preflight != nil })
	c.replace(c.binary(1), tampered(c.bytes(c.binary(1))))
	c.run(phase{
		name: "the height", do: heights(12, 12), exit: exits(78), checkpoint: "0 running", state: "10 version 0", allows: []string{"preflight problem"},
		trace: []string{"exit v0 0 at 10", "asked v0 at 10"},
		says:  []string{"version 1 cannot be started", c.binary(1) + " has the sha256 "},
	})
}

func TestNewFileInTheFolderOfAVersionIsAWarning(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10}, version{})
	require.NoError(t, os.WriteFile(filepath.Join(c.folder(0), "notes"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(c.folder(1), "notes"), nil, 0o644))
	c.run(phase{
		name: "to v1", do: do(heights(12, 12), start()), trace: []string{"start v0 stop=10", "exit v0 0 at 10", "asked v0 at 10", "start v1 start=11"},
		events: []event{on("preflight problem", "version=0", "severity=warning", "problem~v0/notes is not in the manifest"), on("height known", "version=1")},
	})
}

func TestManifestThatCannotBeUsedStartsNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		do   func(c *chain)
		says []string
	}{
		"missing": {func(c *chain) { require.NoError(c.t, os.Remove(c.manifest())) }, []string{"no such file or directory", "an empty --manifest runs without one"}},
		"torn":    {func(c *chain) { require.NoError(c.t, os.Truncate(c.manifest(), 100)) }, []string{"manifest.json: the file is torn", "'entrypoint manifest write'"}},
		"empty":   {func(c *chain) { require.NoError(c.t, os.Truncate(c.manifest(), 0)) }, []string{"manifest.json: the file is empty"}},
		"foreign": {func(c *chain) { require.NoError(c.t, os.WriteFile(c.manifest(), c.managerText(), 0o644)) }, []string{"manifest is a list, want an object"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := inImage(t, version{stop: 10})
			test.do(c)
			c.run(phase{
				name: "start", do: do(heights(5, 5), start()), exit: exits(78), checkpoint: "none", state: "none",
				says: append(test.says, "the manifest cannot be used", "nothing was started"),
			})
			code, stdout, _ := c.command("check", "-c", c.manager)
			assert.Equal(t, 78, code)
			assert.Contains(t, stdout, "the manifest cannot be used")
			c.run(phase{
				name: "without", do: start("--manifest="), trace: []string{"start v0 stop=10"}, events: []event{on("height known")},
			})
		})
	}
}

func TestFilesBesideTheManifestsRootAreRunAndTold(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10})
	c.below = ""
	require.NoError(t, os.Mkdir(c.folder(0), 0o755))
	c.install(programs.nodes[0], c.binary(0))
	c.writeConfig(0)
	c.manager = filepath.Join(c.dir, "mounted.json")
	c.writeManager()
	c.run(phase{
		name: "start", do: do(heights(5, 5), start()), trace: []string{"start v0 stop=10"},
		events: []event{on("files not verified", "manifest="+c.manifest(), "detail~"+c.binary(0)), on("height known")},
	})
}

// A stop waits for no disk.
func TestStopSignalEndsTheVerificationAtTheStart(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10})
	c.endless(0)
	c.run(
		phase{name: "start", do: start(), events: []event{on("no checkpoint found")}, state: "none"},
		phase{
			name: "stop", do: do(func(c *chain) { c.await("the file to be read", func() bool { return c.reads("zeros") }) }, send(syscall.SIGTERM)),
			events: []event{on("stop requested"), on("stopped")}, exit: exits(0), checkpoint: "none", state: "none",
		},
	)
}

// reads reports whether the program has a file of that name open.
func (c *chain) reads(name string) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.program.cmd.Process.Pid))
	return slices.ContainsFunc(links, func(link string) bool {
		target, _ := os.Readlink(link)
		return filepath.Base(target) == name
	})
}

const ioprioClass = 13 // bits above which ioprio_get(2) has the class

// priority gives the nice value of a thread or process and its class of ioprio_set(2).
func priority(t testing.TB, id int) (nice, class int, there bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	nice, err = strconv.Atoi(fields[16])
	require.NoError(t, err)
	got, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(id), 0)
	return nice, int(got) >> ioprioClass, errno == 0
}

// idlers are the threads of the program that gets disk and processor when others leave them.
func (c *chain) idlers() (idle, others int) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", c.program.cmd.Process.Pid))
	for _, thread := range threads {
		id, err := strconv.Atoi(filepath.Base(thread))
		require.NoError(c.t, err)
		switch nice, class, there := priority(c.t, id); {
		case !there:
		case nice == 10 && class == 3:
			idle++
		default:
			others++
		}
	}
	return idle, others
}

// A process inherits the priorities of the thread that starts it: no node may be started from one of the background.
func TestNodesHaveTheirPriorityWhileVersionsAreVerified(t *testing.T) {
	t.Parallel()
	ours, _, _ := priority(t, os.Getpid())
	c := inImage(t, version{stop: 10}, version{stop: 20, migrates: true}, version{})
	c.waitingMigration(1)
	c.manager = filepath.Join(c.dir, "mounted.json")
	c.writeManager()
	c.endless(2)
	expectNormal := func(what string) {
		t.Helper()
		nice, class, there := priority(t, c.nodeProcess())
		require.True(t, there, what)
		assert.Equal(t, ours, nice, what)
		assert.NotEqual(t, 3, class, what)
	}
	idling := func(c *chain) {
		// As the stop height comes near there is another one.
		c.await("a thread in the background", func() bool { idle, others := c.idlers(); return idle > 0 && others > 0 })
	}
	c.run(phase{
		name: "v0", do: do(heights(5, 5), start()), trace: []string{"start v0 stop=10"},
		events: []event{on("files not verified", "detail~wait-and-migrate"), on("height known", "version=0")},
	})
	idling(c)
	expectNormal("v0")
	c.run(phase{
		name: "migration", do: heights(15, 15), trace: []string{"exit v0 0 at 10", "asked v0 at 10"},
		events: []event{on("migration started", "version=1")},
	})
	for pid := range c.processes() {
		if nice, class, there := priority(t, pid); there {
			assert.Equal(t, ours, nice, "migration")
			assert.NotEqual(t, 3, class, "migration")
		}
	}
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "go"), nil, 0o644))
	c.run(phase{
		name: "v1", trace: []string{"start v1 migration", "exit v1 migration 0 at 10", "asked v1 at 10", "start v1 start=11 stop=20"}, events: []event{on("height known", "version=1")},
	})
	idling(c)
	expectNormal("v1")
	nice, _, _ := priority(t, c.program.cmd.Process.Pid)
	assert.Equal(t, ours, nice, "of the program")
	c.await("height 15 on disk", func() bool { state, err := mockrollup.ReadState(c.state); return err == nil && state.Height == 15 })
	c.run(phase{
		name: "stop", do: send(syscall.SIGTERM), events: stopped, exit: exits(0), trace: []string{"signal v1 terminated", "exit v1 0 at 15"},
	})
}

func TestCheckVerifiesAllVersions(t *testing.T) {
	t.Parallel()
	c := inImage(t, version{stop: 10}, version{stop: 20})
	inV1(c)
	code, stdout, _ := c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Zero(t, code, stdout)
	assert.NotContains(t, stdout, "manifest has")
	c.replace(c.binary(0), "tampered")
	code, stdout, _ = c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Zero(t, code, stdout)
	assert.Regexp(t, `warning  v0 +`+c.binary(0)+" has 8 bytes, and had", strings.Join(strings.Split(stdout, "\n"), " "))
	c.replace(c.binary(1), "tampered")
	code, stdout, _ = c.command("check", "-c", c.manager, "-f", c.checkpoint)
	assert.Equal(t, 78, code)
	assert.Regexp(t, `error +v1 +`+c.binary(1)+" has 8 bytes, and had", strings.Join(strings.Split(stdout, "\n"), " "))
	code, stdout, _ = c.command("check", "-c", c.manager, "-f", c.checkpoint, "--manifest=")
	assert.NotContains(t, stdout, "and had", "code %d", code)
}

// A step of a build FROM scratch: there is nothing but the program and the versions.
func TestManifestIsWrittenAndVerifiedInAnEmptyImage(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		missing(t, "this test needs root, to change the root directory")
	}
	image := t.TempDir()
	buildStatic(t, image+"/entrypoint", "entrypoint")
	for i := range 3 {
		folder := fmt.Sprintf("%s/opt/rollup/versions/v%d", image, i)
		require.NoError(t, os.MkdirAll(folder, 0o755))
		require.NoError(t, copyProgram(programs.nodes[i], folder+"/rollup", ""))
		require.NoError(t, os.WriteFile(folder+"/config.toml", nil, 0o644))
	}
	inside := func(args ...string) (string, int) {
		cmd := exec.Command("/entrypoint", args...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{}, &syscall.SysProcAttr{Chroot: image}
		out, err := cmd.CombinedOutput()
		return string(out), exitCode(err)
	}
	out, code := inside("manifest", "verify")
	assert.Equal(t, 78, code)
	assert.Contains(t, out, "the manifest cannot be used: cannot read the manifest: open /opt/rollup/manifest.json: no such file or directory; nothing was compared; write it with 'entrypoint manifest write'")
	out, code = inside("manifest", "write", "--label", "org.opencontainers.image.revision=0a1b2c3")
	require.Zero(t, code, out)
	assert.Regexp(t, `^/opt/rollup/manifest.json: 3 versions, 6 files, \d+ bytes\n$`, out)
	first := readText(image + "/opt/rollup/manifest.json")
	assert.Contains(t, first, `"org.opencontainers.image.revision": "0a1b2c3"`)
	out, code = inside("manifest", "write", "--label", "org.opencontainers.image.revision=0a1b2c3")
	require.Zero(t, code, out)
	assert.Equal(t, first, readText(image+"/opt/rollup/manifest.json"))
	out, code = inside("manifest", "verify")
	require.Zero(t, code, out)
	assert.Regexp(t, `^everything matches the manifest: 3 versions, 6 files, \d+ bytes in /opt/rollup\n$`, out)

	require.NoError(t, os.Remove(image+"/opt/rollup/versions/v1/config.toml"))
	require.NoError(t, os.WriteFile(image+"/opt/rollup/versions/v2/notes", nil, 0o644))
	out, code = inside("manifest", "verify", "--json")
	assert.Equal(t, 78, code)
	var report struct {
		OK          bool
		Manifest    string
		Differences []struct{ Version, Path, Severity, What, Next string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report), out)
	assert.False(t, report.OK)
	require.Len(t, report.Differences, 2)
	assert.Equal(t, []string{"v1", "config.toml", "error"}, []string{report.Differences[0].Version, report.Differences[0].Path, report.Differences[0].Severity})
	assert.Equal(t, []string{"v2", "notes", "warning"}, []string{report.Differences[1].Version, report.Differences[1].Path, report.Differences[1].Severity})
}
