package program

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/sequencer/checkpoint"
)

// ending is one way in which a run fails. Its termination message is testdata/termination/NAME.txt.
type ending struct {
	name     string
	code     int
	versions []version
	// play leads the chain there and starts the program. Nil: it is only started.
	play func(c *chain)
	// vague: which height was read last is not always the same.
	vague bool
}

// endings are all kinds of failure that a run can be led to from outside, ordered by exit code.
func endings() []ending {
	one, plain, migrating := []version{{}}, plainChain(), migratingChain()
	crash := func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.ExitCode = 5, "durable", 101 }
	killed := func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.CrashSignal = 5, "durable", "SIGKILL" }
	halting := []version{{stop: 10}, {stop: 20, migrates: true, keys: map[string]any{"on_interrupted_migration": "halt"}}, {}}
	early := func(m *mockrollup.Mock) { m.ExitEarlyAt = 5 }
	// The SDK's own main writes on one stream only, so that the lines of its failure are always in the same order.
	demo := func(i int, change func(m *mockrollup.Mock)) func(*chain) {
		return configure(i, func(n *mockrollup.Config) { n.Mock.Main = "demo"; change(&n.Mock) })
	}
	return []ending{
		{"node-crashed", 101, []version{{stop: 20, faults: crash}}, do(atHeight3, heights(5, 5)), true},
		{"port-taken", 101, one, func(c *chain) { serveHeights(c, 7); c.start() }, false},
		{"migration-failed", 3, migrating, do(migrationExits(3), heights(13, 13), start()), false},
		{"migration-failed-halt", 3, halting, do(migrationExits(3), heights(13, 13), start()), false},

		{"usage-nothing-given", 64, one, startsWith(), false},
		{"usage-node-argument", 64, one, startsWith("-c", "manager.json", "--celestia-token=s3cret"), false},
		{"usage-letters", 64, one, startsWith("-cmanager.json", "-xs3cret"), false},
		{"usage-word", 64, one, startsWith("-c", "manager.json", "-f", "c.json", "s3cret"), false},
		{"usage-flag-values", 64, one, startsWith("-c", "manager.json", "--when-finished=s3cret"), false},
		{"usage-variable", 64, one, func(c *chain) { c.env = append(c.env, "ENTRYPOINT_STOP_TIMEOUT=s3cret"); c.start() }, false},

		{"checkpoint-torn", 65, plain, do(checkpointText(`{"version_index": 1, "bin`), start()), false},
		{"stamp-torn", 65, migrating, do(inV1, func(c *chain) { c.must(os.WriteFile(c.stampFile(), []byte(`{"version_index": 1, "na`), 0o644)) }, start()), false},
		{"stamp-is-a-directory", 65, migrating, do(inV1, (*chain).spoilStamp, start()), false},
		{"checkpoint-is-a-directory", 65, plain, do(func(c *chain) { c.must(os.Mkdir(c.checkpoint, 0o755)) }, start()), false},

		{"checkpoint-locked", 74, plain, do(lockedByUs, start()), false},
		{"checkpoint-not-writable", 74, plain, startsWith("-c", "manager.json", "-f", "nowhere/checkpoint.json"), false},
		{"record-not-written-at-the-hand-over", 74, migrating, recordNotWritten, false},
		{"migration-not-recorded", 74, migrating, migrationIsNotRecorded, false},
		{"lock-lost", 74, migrating, do(atHeight3, withoutLock, heights(10, 10)), true},

		{"left-early", 75, []version{{stop: 100, faults: early}, {}}, do(heights(5, 3), start("--restarts=2")), true},
		{"left-early-when-asked", 75, one, do(inV0Stopped, configure(0, func(n *mockrollup.Config) { n.Mock.LeaderExitAtStart = 9 }), start()), false},
		{"binary-replaced-while-it-ran", 75, []version{{stop: 100, faults: leaderAt(5)}, {}}, do(atHeight3, replaced(0), heights(5, 3)), true},

		{"config-unreadable", 78, one, startsWith("-c", "nowhere.json", "-f", "checkpoint.json"), false},
		{"config-wrong", 78, []version{{}, {keys: map[string]any{"migraton_path": "m", "stop_height": "soon"}}}, nil, false},
		{"files-missing", 78, plain, do(without((*chain).binary, 1), without((*chain).config, 2), start()), false},
		{"checkpoint-of-another-binary", 78, plain, do(inV1, withoutStamp, checkpointAt(1, map[string]any{"binary_path": "/opt/v1/rollup", "binary_sha256": "abc"}), start()), false},
		{"checkpoint-beyond-the-config", 78, plain, do(inV1, withoutStamp, checkpointAt(7, nil), start()), false},
		{"checkpoint-of-the-reference", 78, migrating, do(inV1, withoutStamp, checkpointAt(1, nil), start()), false},
		{"checkpoint-of-another-program", 78, migrating, do(inV0Stopped, checkpointAt(1, map[string]any{"phase": "running"}), start()), false},
		{"checkpoint-of-a-soft-hand-over", 78, plain, do(inV1, withoutStamp, softHandOver, start()), false},
		{"storage-path-gone", 78, plain, do(inV1, withoutStoragePath, start()), false},
		{"state-without-a-record", 78, migrating, do(inV1, withoutStamp, withoutCheckpoint, start()), false},
		{"state-of-somebody-else", 78, migrating, do(inV1, withoutStamp, start()), false},
		{"state-empty", 78, plain, do(inV1, withoutState, start()), false},
		{"state-below", 78, migrating, do(inV1, setHeight(4), start()), false},
		{"state-of-another-plan", 78, plain, do(inV1, planOf(func(c *chain) { c.versions = c.versions[:1] }), start()), false},
		{"state-changed-while-it-ran", 78, plain, do(atHeight3, stampOfAnother, heights(10, 10)), true},
		{"too-late", 78, plain, do(inV0Stopped, planOf(func(c *chain) { c.versions[0].stop, c.versions[1].start = 2, 3 }), start()), false},
		{"above-the-emergency-stop", 78, plain, do(inV0Stopped, start("--stop-height=2")), false},
		{"in-a-version-above-the-emergency-stop", 78, plain, do(inV1, start("--stop-height=5")), false},
		{"node-ran-past-the-emergency-stop", 78, []version{{stop: 20, faults: func(m *mockrollup.Mock) { m.Overrun = true }}, {}}, do(heights(11, 11), start("--stop-height=10")), true},
		{"node-that-cannot-be-asked-at-the-emergency-stop", 78, migrating, do(inV0Stopped, setHeight(5), configure(0, garbled), start("--stop-height=5")), false},
		{"node-ran-past-its-stop-height", 78, []version{{stop: 10, faults: func(m *mockrollup.Mock) { m.Overrun = true }}, {}}, do(heights(11, 11), start()), true},
		{"node-came-up-when-asked", 78, plain, do(inV0Stopped, configure(0, func(n *mockrollup.Config) { n.Mock.Refusal = "ignore" }), start()), false},
		{"node-that-cannot-be-asked-at-its-stop-height", 78, migrating, do(configure(0, garbled), heights(10, 10), start()), false},
		{"node-that-cannot-be-asked-exits-at-its-stop-height", 78, migrating, atItsStopHeightAndGarbled, false},
		{"state-damaged", 1, migrating, do(inV1, demo(1, func(m *mockrollup.Mock) { m.Format = "another" }), start()), false},
		{"state-not-migrated", 1, plain, do(inV1, demo(1, func(m *mockrollup.Mock) { m.StateVersion = 7 }), start()), false},
		{"migration-interrupted", 78, halting, do(inMigration, start()), false},
		{"workers-left", 78, migrating, do(workerLeft, heights(13, 13), start("--leftover-timeout=1s")), false},
		{"migration-removed", 78, migrating, do(inMigration, planOf(func(c *chain) { c.versions[1].migrates = false }), start()), false},
		{"migration-added", 78, plain, do(inV1, func(c *chain) {
			c.install(c.binary(1), c.migration(1))
			c.versions[1].migrates = true
			c.writeManager()
		}, start()), false},
		{"next-version-gone", 78, plain, do(atHeight3, without((*chain).binary, 1), heights(10, 10)), false},
		{"binary-gone-while-it-ran", 78, migrating, do(atHeight3, without((*chain).binary, 0), heights(10, 10)), true},
		{"config-gone-while-it-ran", 78, migrating, do(atHeight3, without((*chain).config, 0), heights(10, 10)), true},
		{"no-checkpoint-and-no-storage-path", 78, plain, do(withoutStoragePath, startsWith("-c", "manager.json", "--no-checkpoint-file")), false},

		{"status-not-served", 78, one, func(c *chain) {
			serveHeights(c, 7)
			c.start("--listen", fmt.Sprintf("127.0.0.1:%d", c.port))
		}, false},

		{"interpreter-missing", 78, one, do(script((*chain).binary, 0, "#!/nowhere/sh"), start()), false},
		{"node-not-executable", 126, one, do(busy((*chain).binary, 0), start()), false},
		{"migration-not-executable", 126, migrating, do(busy((*chain).migration, 1), heights(13, 13), start()), false},
		{"interpreter-gone-while-it-ran", 126, migrating, interpreterGone, true},
		{"node-killed", 137, []version{{faults: killed}}, do(atHeight3, heights(5, 5)), true},
		{"migration-killed", 137, migrating, do(script((*chain).migration, 1, "#!/bin/sh\necho rewriting >&2\nkill -9 $$"), heights(13, 13), start()), false},
		{"node-failed-when-asked", 1, one, do(inV0Stopped, demo(0, func(m *mockrollup.Mock) { m.PanicOnStart = "cannot reach the DA layer" }), start()), false},
		{
			"node-killed-after-the-stop-signal", 137,
			[]version{{faults: func(m *mockrollup.Mock) { m.IgnoreSigterm = true }}},
			do(heights(3, 3), start("--stop-timeout=300ms"), func(c *chain) { c.awaitEvent(on("height known")) }, send(syscall.SIGTERM)), true,
		},
	}
}

// The messages are what an operator sees of a pod that failed. See docs/exit-codes.md.
func TestTerminationMessageOfEachFailure(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, e := range endings() {
		known[e.name+".txt"] = true
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, e.versions...)
			c.phase = e.name
			file := filepath.Join(c.dir, "termination")
			c.env = append(c.env, "ENTRYPOINT_TERMINATION_LOG="+file)
			if e.play == nil {
				e.play = start()
			}
			e.play(c)
			c.awaitExit(e.code)
			raw := readText(file)
			c.expectSameFacts(e, raw)
			golden(t, filepath.Join("testdata", "termination", e.name+".txt"), c.normalised(raw, e.vague)+"\n")
			c.program = nil
		})
	}
	files, err := os.ReadDir(filepath.Join("testdata", "termination"))
	require.NoError(t, err)
	for _, file := range files {
		assert.True(t, known[file.Name()], "testdata/termination/%s belongs to no failure", file.Name())
	}
}

// expectSameFacts compares a message with the last line of the log, and looks for what it must never have.
func (c *chain) expectSameFacts(e ending, message string) {
	c.t.Helper()
	assert.LessOrEqual(c.t, len(message), 4096)
	assert.True(c.t, strings.HasPrefix(message, fmt.Sprintf("entrypoint: exit code %d: ", e.code)), message)
	assert.Contains(c.t, message, "\nsafe: ")
	assert.Contains(c.t, message, "\nnext: ")
	assert.NotContains(c.t, message, "s3cret")
	if e.code == 64 {
		return // it is reported without a log
	}
	lines := c.program.log.all()
	last := lines[len(lines)-1]
	assert.Equal(c.t, "run failed", last.text("msg"))
	if height := last.text("height"); height != "" {
		assert.Contains(c.t, message, "\nheights: "+height+" was the last one known")
	}
	if version := last.text("version"); version != "" {
		assert.Contains(c.t, message, "version "+version+" is from "+last.text("start_height"))
	}
	for line := range strings.Lines(last.text("stderr")) {
		assert.Contains(c.t, message, strings.TrimSpace(line))
	}
}

var (
	stamps = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	pids   = regexp.MustCompile(`(\bpid |'main' \()\d+`)
	temps  = regexp.MustCompile(`(\.(?:checkpoint|rollup-version)\.json\.)\d+`)
	ages   = regexp.MustCompile(`[0-9.]+(ms|s|µs) before`)
	levels = regexp.MustCompile(`last height reported: \d+|reported height \d+|heights: \d+ was|at height \d+`)
	hosts  = regexp.MustCompile(`on host "[^"]*"`)
	digest = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	left   = regexp.MustCompile(`\b\d+ \((\w+)\) for [0-9hms]+`)
)

// normalised is a message without what differs from run to run.
func (c *chain) normalised(message string, vague bool) string {
	message = strings.ReplaceAll(message, c.dir, "DIR")
	message = strings.ReplaceAll(message, fmt.Sprint(c.port), "PORT")
	message = stamps.ReplaceAllString(message, "TIME")
	message = pids.ReplaceAllString(message, "${1}PID")
	message = temps.ReplaceAllString(message, "${1}NUMBER")
	message = ages.ReplaceAllString(message, "AGE before")
	message = hosts.ReplaceAllString(message, `on host "HOST"`)
	message = digest.ReplaceAllString(message, "SHA256")
	message = left.ReplaceAllString(message, "PID (${1}) for TIME")
	if vague {
		message = levels.ReplaceAllStringFunc(message, func(s string) string {
			return regexp.MustCompile(`\d+`).ReplaceAllString(s, "H")
		})
	}
	return message
}

// golden compares a text with a committed file.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "run: go test ./test/program -run %s -update", strings.Split(t.Name(), "/")[0])
}

// What endings are made of.

func (c *chain) must(err error) {
	c.t.Helper()
	require.NoError(c.t, err)
}

func startsWith(args ...string) func(*chain) { return func(c *chain) { c.startWith(args...) } }

func atHeight3(c *chain) {
	do(heights(3, 3), start())(c)
	c.awaitEvent(on("height known"))
	c.await("the checkpoint", func() bool { return strings.HasPrefix(c.checkpointInWords(), "0 running") })
}

func inV0Stopped(c *chain) {
	atHeight3(c)
	c.await("the state", func() bool { return strings.HasPrefix(c.stateInWords(), "3 ") })
	send(syscall.SIGTERM)(c)
	c.awaitExit(0)
	c.program = nil
}

// setHeight changes the durable height of the state.
func setHeight(height uint64) func(*chain) {
	return func(c *chain) {
		state, err := mockrollup.ReadState(c.state)
		c.must(err)
		state.Height = height
		text, err := json.Marshal(state)
		c.must(err)
		c.must(os.WriteFile(filepath.Join(c.state, "state.json"), text, 0o644))
	}
}

func checkpointText(text string) func(*chain) {
	return func(c *chain) { c.must(os.WriteFile(c.checkpoint, []byte(text), 0o644)) }
}

// checkpointAt writes a checkpoint at version i with more keys; the binary is the version's own unless they have another.
func checkpointAt(i int, keys map[string]any) func(*chain) {
	return func(c *chain) {
		record := map[string]any{"version_index": i, "binary_path": c.binary(i)}
		for key, value := range keys {
			record[key] = value
		}
		setCheckpoint(record)(c)
	}
}

// softHandOver is a checkpoint of an earlier version of this program, which handed over on the height that it had read.
func softHandOver(c *chain) {
	done := map[string]any{"version_index": 0, "name": "v0", "binary_path": c.binary(0), "stop_height": 10, "proof": "last height read", "completed_at": "2026-05-04T12:00:00Z"}
	checkpointAt(1, map[string]any{"phase": "running", "started": false, "history": []any{done}})(c)
}

// planOf changes the plan between two runs.
func planOf(change func(c *chain)) func(*chain) {
	return func(c *chain) {
		change(c)
		c.writeManager()
	}
}

func withoutState(c *chain) { c.must(os.RemoveAll(c.state)) }

// withoutStoragePath has the configs say nothing of the state.
func withoutStoragePath(c *chain) {
	for i := range c.versions {
		text := strings.Replace(readText(c.config(i)), fmt.Sprintf("path = %q", c.state), "", 1)
		c.must(os.WriteFile(c.config(i), []byte(text+"\n"), 0o644))
	}
}

// stampOfAnother changes the stamp under a run, as somebody does who puts another state there.
func stampOfAnother(c *chain) {
	text, err := checkpoint.EncodeStamp(checkpoint.Stamp{VersionIndex: 2, Name: "v2", StartHeight: 21})
	c.must(err)
	c.must(os.WriteFile(c.stampFile(), text, 0o644))
}

// replaced puts another binary in the place of that of version i.
func replaced(i int) func(*chain) {
	return func(c *chain) {
		c.install(programs.nodes[3], c.binary(i)+".new")
		c.must(os.Rename(c.binary(i)+".new", c.binary(i)))
	}
}

// garbled makes a node reject its start height in unknown words. It reports no height, either.
func garbled(n *mockrollup.Config) { n.Mock.Refusal, n.Mock.HTTP = "garbled", "off" }

// atItsStopHeightAndGarbled has such a node report its stop height before it exits 0.
func atItsStopHeightAndGarbled(c *chain) {
	configure(0, func(n *mockrollup.Config) { n.Mock.Refusal = "garbled" })(c)
	do(heights(10, 8), start())(c)
	c.awaitEvent(on("height known", "height=10"))
	c.da.set(10, 10)
}

// inMigration has the program killed in the migration of v1.
func inMigration(c *chain) {
	configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Sleep = deadline })(c)
	do(heights(13, 13), start())(c)
	c.await("the state to be half migrated", func() bool { return strings.Contains(c.stateInWords(), "half migrated") })
	c.killAll()
}

func without(file func(*chain, int) string, i int) func(*chain) {
	return func(c *chain) { c.must(os.Remove(file(c, i))) }
}

func script(file func(*chain, int) string, i int, text string) func(*chain) {
	return func(c *chain) {
		c.must(os.Remove(file(c, i)))
		c.must(writeExecutable(file(c, i), []byte(text+"\n")))
	}
}

// busy replaces a program by a copy that is open for writing: no preflight sees it, and the kernel does not execute it
// (ETXTBSY, execve(2)).
func busy(file func(*chain, int) string, i int) func(*chain) {
	return func(c *chain) {
		text, err := os.ReadFile(file(c, i))
		c.must(err)
		c.must(os.Remove(file(c, i)))
		c.must(os.WriteFile(file(c, i), text, 0o755))
		held, err := os.OpenFile(file(c, i), os.O_WRONLY, 0)
		c.must(err)
		c.t.Cleanup(func() { _ = held.Close() })
	}
}

func migrationExits(code int) func(*chain) {
	return configure(1, func(n *mockrollup.Config) { n.Mock.Migration.Exit = code })
}

func recordNotWritten(c *chain) {
	ownMounts(c.t)
	c.must(os.Mkdir(c.state, 0o755))
	c.must(unix.Mount("tmpfs", c.state, "tmpfs", 0, tmpfsOptions["space"]))
	c.t.Cleanup(func() { c.must(unix.Unmount(c.state, unix.MNT_DETACH)) })
	held := handOverHeld(c)
	fill(c.t, c.state, false)
	held.pass()
}

func migrationIsNotRecorded(c *chain) {
	letGo := c.hold(c.migration(1))
	do(heights(13, 13), start())(c)
	c.awaitEvent(on("migration started"))
	c.spoilStamp()
	letGo()
}

// withoutLock removes the lock file under a run.
func withoutLock(c *chain) { c.must(os.Remove(c.checkpoint + ".lock")) }

// workerLeft has the migration of v1 leave a process behind that outlives the test.
func workerLeft(c *chain) {
	real, file := filepath.Join(c.folder(1), "migration-of-the-state"), filepath.Join(c.dir, "worker")
	c.must(os.Rename(c.migration(1), real))
	c.must(writeExecutable(c.migration(1), fmt.Appendf(nil, "#!/bin/sh\nsleep 1000 &\necho $! > %s\n%s \"$@\"\n", file, real)))
	c.t.Cleanup(func() {
		if pid, err := strconv.Atoi(strings.TrimSpace(readText(file))); err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
}

// interpreterGone has the node of v0 be a script, whose interpreter is there when it is checked and not when it is asked.
func interpreterGone(c *chain) {
	shell := filepath.Join(c.dir, "sh")
	c.must(os.Symlink("/bin/sh", shell))
	c.must(os.Rename(c.binary(0), c.binary(0)+"-program"))
	c.must(writeExecutable(c.binary(0), fmt.Appendf(nil, "#!%s\nexec %s-program \"$@\"\n", shell, c.binary(0))))
	atHeight3(c)
	c.must(os.Remove(shell))
	c.da.set(10, 10)
}

// lockedByUs takes the lock as an entrypoint does.
func lockedByUs(c *chain) {
	lock, err := os.OpenFile(c.checkpoint+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	c.must(err)
	c.t.Cleanup(func() { _ = lock.Close() })
	c.must(unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	host, err := os.Hostname()
	c.must(err)
	_, err = fmt.Fprintf(lock, `{"pid":%d,"host":%q}`, os.Getpid(), host)
	c.must(err)
}

// A mistake in front of --termination-log does not keep the message from its file.
func TestTerminationMessageOfAMistakeIsWhereTheCommandLineSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, want string
		args       []string
		env        []string
	}{
		{"a misspelt flag", "unknown flag \"--stop-timout\" (did you mean \"--stop-timeout\"?): arguments for the node go after --\n", []string{"--stop-timout=s3cret", "--termination-log", "message"}, nil},
		{"a value", "--restarts: want a whole number within its range\n", []string{"--restarts", "s3cret", "--termination-log=message"}, nil},
		{"a misspelt flag of check", "unknown flag \"--manifst\" (did you mean \"--manifest\"?)\n", []string{"check", "--manifst", "s3cret", "--termination-log", "message"}, nil},
		{"the file is in the environment", "unknown flag \"--stop-timout\"", []string{"--stop-timout=s3cret"}, []string{"ENTRYPOINT_TERMINATION_LOG=message"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{})
			c.env = append(c.env, test.env...)
			code, _, stderr := c.command(append(test.args, "-c", c.manager, "-f", c.checkpoint)...)
			require.Equal(t, 64, code, stderr)
			text := readText(filepath.Join(c.dir, "message"))
			assert.True(t, strings.HasPrefix(text, "entrypoint: exit code 64: the command line or the environment is wrong: "+test.want), text)
			assert.NotContains(t, text, "s3cret")
			command := "run"
			if test.args[0] == "check" {
				command = "check"
			}
			assert.Contains(t, text, "'entrypoint "+command+" --help'")
		})
	}
}

// Where a run says why it failed, a check says what it has found.
func TestTerminationMessageOfACheckHasWhatItFound(t *testing.T) {
	t.Parallel()
	c := newChain(t, version{stop: 5}, version{migrates: true})
	message := filepath.Join(c.dir, "message")
	code, _, stderr := c.command("check", "-c", c.manager, "--termination-log", message)
	require.Zero(t, code, stderr)
	assert.NoFileExists(t, message)
	require.NoError(t, os.Remove(c.binary(1)))
	require.NoError(t, os.Remove(c.config(0)))
	for _, how := range [][]string{{}, {"--json"}, {"--strict"}} {
		code, _, stderr = c.command(append([]string{"check", "-c", c.manager, "--termination-log", message}, how...)...)
		assert.Equal(t, 78, code)
		assert.Empty(t, stderr)
		text := readText(message)
		for _, part := range []string{
			"entrypoint: exit code 78: the check failed: ", "\n  error: version 0: ", c.config(0), "\n  error: version 1: ", c.binary(1),
			"\nsafe: nothing was started or changed\n", "\nnext: fix what is listed, and check again",
		} {
			assert.Contains(t, text, part)
		}
		_, warnings, _ := strings.Cut(text, "\n  warning: ")
		assert.NotContains(t, warnings, "\n  error: ", "errors come first")
	}
	assert.NoFileExists(t, c.checkpoint+".last-run", "that is for runs")
	for _, refused := range [][]string{{"-f", message}, {"--hold-file", message}} {
		require.NoError(t, os.RemoveAll(message))
		code, _, stderr = c.command(append([]string{"check", "-c", c.manager, "--termination-log", message}, refused...)...)
		assert.Equal(t, 64, code)
		assert.Contains(t, stderr, "name the same file")
		assert.NoFileExists(t, message)
	}
}

// As in a pod: the file is mounted, nobody has named it, and the program is process 1.
func TestTerminationMessageIsWrittenWhereKubernetesLooks(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	for _, test := range []struct {
		name, want string
		args       []string
		code       int
	}{
		{"config", "entrypoint: exit code 78: cannot read the plan: open nowhere.json", []string{"-c", "nowhere.json", "-f", "c.json"}, 78},
		{"usage", "entrypoint: exit code 64: the command line or the environment is wrong: --config is missing", nil, 64},
		{"command", "entrypoint: exit code 64: the command line or the environment is wrong: unknown command\n", []string{"s3cret", "--flag"}, 64},
		{"check", "entrypoint: exit code 78: the check failed: error: cannot read the plan: open nowhere.json", []string{"check", "-c", "nowhere.json"}, 78},
		{"usage of check", "entrypoint: exit code 64: the command line or the environment is wrong: want: entrypoint check ", []string{"check"}, 64},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{})
			file := filepath.Join(c.dir, "termination")
			require.NoError(t, os.WriteFile(file, nil, 0o666))
			c.stage, c.asFirst = &stage{Proc: true, TerminationLog: file}, true
			c.defaultTermination = true
			c.startWith(test.args...)
			c.awaitExit(test.code)
			c.program = nil
			text := readText(file)
			assert.True(t, strings.HasPrefix(text, test.want), text)
			assert.NotContains(t, text, "s3cret")
		})
	}
}

// In the container of a run the file is for the message of the run. Other commands there are no processes 1.
func TestCheckBesideARunLeavesTheFileOfItsContainerAlone(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	for _, test := range []struct {
		name    string
		check   []string
		env     []string
		code    int
		written bool
	}{
		{"the default", []string{"-c", "nowhere.json"}, nil, 78, false},
		{"in the environment", []string{"-c", "nowhere.json"}, []string{"ENTRYPOINT_TERMINATION_LOG=/dev/termination-log"}, 78, false},
		{"a mistake", []string{"--no-such-flag"}, nil, 64, false},
		{"named", []string{"-c", "nowhere.json", "--termination-log", "/dev/termination-log"}, nil, 78, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, version{})
			file := filepath.Join(c.dir, "termination")
			require.NoError(t, os.WriteFile(file, nil, 0o666))
			c.stage, c.asFirst = &stage{Proc: true, TerminationLog: file}, true
			c.defaultTermination, c.env = true, append(c.env, test.env...)
			c.startWith(append([]string{"exec", "--", programs.entrypoint, "check"}, test.check...)...)
			c.awaitExit(test.code)
			c.program = nil
			assert.Equal(t, test.written, readText(file) != "", readText(file))
		})
	}
}

// A message is not worth a stuck exit, another file, or the exit code.
func TestTerminationMessageGoesOnlyIntoAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, warns string
		lay         func(path string) error
	}{
		{"fifo", "it is a FIFO", func(path string) error { return unix.Mkfifo(path, 0o644) }},
		{"device", "it is a device", func(path string) error { return os.Symlink("/dev/null", path) }},
		{"directory", "it is an empty directory", func(path string) error { return os.Mkdir(path, 0o755) }},
		{"no directory", "no such file or directory", func(path string) error { return os.Symlink("nowhere/file", path) }},
		{"something else", "has other content and was not changed", func(path string) error { return os.WriteFile(path, []byte("precious"), 0o644) }},
		{"a link to something else", "has other content", func(path string) error { return os.Symlink("manager.json", path) }},
		{"an older and longer message", "", func(path string) error {
			return os.WriteFile(path, []byte("entrypoint: exit code 1: "+strings.Repeat("old words ", 1000)), 0o644)
		}},
		{"a link to nothing yet", "", func(path string) error { return os.Symlink("later", path) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, plainChain()...)
			path := filepath.Join(c.dir, "termination")
			require.NoError(t, test.lay(path))
			before := readText(c.manager)
			checkpointText("torn")(c)
			c.start("--termination-log", path)
			c.awaitExit(65)
			log := c.program.log
			c.program = nil
			assert.Equal(t, before, readText(c.manager))
			if test.warns == "" {
				assert.True(t, strings.HasPrefix(readText(path), "entrypoint: exit code 65: checkpoint or stamp cannot be read"), readText(path))
				assert.NotContains(t, readText(path), "old words")
				assert.False(t, log.has(on("termination message not written")))
				return
			}
			assert.True(t, log.has(on("termination message not written", "error~"+test.warns)), log.text())
		})
	}
}

// example is a marker of docs/exit-codes.md with the block that follows it.
var example = regexp.MustCompile("(<!-- example: ([a-z0-9-]+) -->\n```\n)(?s:.*?)```")

// The page is written by hand, its examples are the messages of the program.
func TestExamplesOfTheExitCodesAreWhatTheProgramWrites(t *testing.T) {
	t.Parallel()
	const page = "../../docs/exit-codes.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	want := example.ReplaceAllStringFunc(string(text), func(s string) string {
		parts := example.FindStringSubmatch(s)
		message, err := os.ReadFile(filepath.Join("testdata", "termination", parts[2]+".txt"))
		require.NoError(t, err)
		return parts[1] + string(message) + "```"
	})
	golden(t, page, want)
	for _, code := range []string{"0", "1 to 255: the node's own code", "1 to 255: the migration's own code", "64", "65", "74", "75", "78", "126", "127", "128+n"} {
		assert.Contains(t, want, "\n## "+code+"\n")
	}
}
