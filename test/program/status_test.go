package program

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/test/ports"
)

// served lays out a chain whose status can be asked for.
func served(t *testing.T, versions ...version) *chain {
	t.Helper()
	c := newChain(t, versions...)
	c.statusAddress = fmt.Sprintf("127.0.0.1:%d", ports.Hold(t))
	return c
}

func (c *chain) client() status.Client { return status.Client{Listen: c.statusAddress} }

// awaitStatus waits until the report is as f wants it, and gives it.
func (c *chain) awaitStatus(what string, f func(r status.Report) bool) status.Report {
	c.t.Helper()
	var r status.Report
	c.awaitOr(what, func() bool {
		var err error
		r, err = c.client().Report(c.t.Context())
		return err == nil && f(r)
	}, func() string { return fmt.Sprintf("have: %+v", r) })
	return r
}

func (c *chain) awaitPhase(phase sequencer.Phase) status.Report {
	c.t.Helper()
	return c.awaitStatus("phase "+string(phase), func(r status.Report) bool { return r.Phase == phase })
}

// probe asks a probe and gives its line.
func (c *chain) probe(route string) (ok bool, text string) {
	c.t.Helper()
	ok, text, err := c.client().Probe(c.t.Context(), route)
	require.NoError(c.t, err)
	return ok, text
}

// expectProbes compares both probes: an empty word is a yes.
func (c *chain) expectProbes(notAlive, notReady string) {
	c.t.Helper()
	alive, why := c.probe("/healthz")
	assert.Equal(c.t, notAlive == "", alive, why)
	assert.Contains(c.t, why, notAlive)
	c.awaitOr("readiness: "+notReady, func() bool { // the node's answer may be a second old
		ready, word := c.probe("/readyz")
		why = word
		return ready == (notReady == "") && strings.Contains(word, notReady)
	}, func() string { return why })
}

// waitingMigration replaces the migration of version i by one that waits for the file "go".
func (c *chain) waitingMigration(i int) {
	c.t.Helper()
	script := filepath.Join(c.dir, "wait-and-migrate")
	text := fmt.Sprintf("#!/bin/sh\nuntil [ -e %s/go ]; do sleep 0.02; done\nexec %s \"$@\"\n", c.dir, c.migration(i))
	require.NoError(c.t, os.WriteFile(script, []byte(text), 0o755))
	c.versions[i].keys = map[string]any{"migration_path": script}
	c.writeManager()
}

func TestProbesAndStatusThroughTwoUpgrades(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10}, version{stop: 20, migrates: true}, version{stop: 30})
	c.waitingMigration(1)
	c.da.set(5, 5)
	c.start("--when-finished=wait")
	r := c.awaitStatus("height 5", func(r status.Report) bool { return r.Height != nil && r.Height.Blocks == 5 })
	assert.Equal(t, sequencer.PhaseRunning, r.Phase)
	assert.Equal(t, "v1", r.NextUpgrade.Version)
	assert.EqualValues(t, 5, *r.NextUpgrade.RemainingBlocks)
	assert.True(t, r.NextUpgrade.Migration)
	c.expectProbes("", "")

	c.da.set(12, 12)
	r = c.awaitPhase(sequencer.PhaseMigrating)
	assert.Equal(t, []string{"completed", "current", "upcoming"}, []string{r.Versions[0].State, r.Versions[1].State, r.Versions[2].State})
	assert.Equal(t, "running", r.Versions[1].Migration)
	assert.Zero(t, r.Restarts)
	c.expectProbes("", "a migration is running")
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "go"), nil, 0o644))
	r = c.awaitStatus("v1 runs", func(r status.Report) bool { return r.VersionIndex == 1 && r.Height != nil && r.Height.Blocks == 12 })
	assert.Equal(t, "exited 0", r.Migrations[0].Exit)
	c.expectProbes("", "")

	c.da.set(40, 40)
	r = c.awaitPhase(sequencer.PhaseFinished)
	assert.Equal(t, []string{"completed", "completed", "completed"}, []string{r.Versions[0].State, r.Versions[1].State, r.Versions[2].State})
	assert.Equal(t, checkpoint.ProofDurable, r.Versions[2].Proof)
	assert.Nil(t, r.LastFailure)
	c.expectProbes("", "the stop height is reached, and nothing follows it")
	send(syscall.SIGTERM)(c)
	c.awaitExit(0)
	c.program = nil
}

func TestNodeThatHangsIsAliveAndNotReady(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.HTTP = "hang" }})
	c.da.set(5, 5)
	c.start("--stall-timeout=1ms")
	c.awaitStatus("questions in vain", func(r status.Report) bool { return r.Node != nil && !r.Ready })
	c.expectProbes("", "the node does not answer")
	assert.Equal(t, sequencer.PhaseStarting, c.awaitPhase(sequencer.PhaseStarting).Phase)
}

func TestNodeThatSyncsIsAliveAndNotReady(t *testing.T) {
	t.Parallel()
	c := served(t, version{faults: func(m *mockrollup.Mock) { m.ResyncRate, m.Role = 10, "replica" }})
	c.da.set(100000, 100000)
	c.start()
	c.awaitPhase(sequencer.PhaseRunning)
	// Before its first look at the DA the node is syncing too, to height 0.
	c.await("the target height", func() bool {
		ready, why := c.probe("/readyz")
		return !ready && strings.HasPrefix(why, "the node is syncing: DA height ") && strings.HasSuffix(why, " of 100000")
	})
	alive, why := c.probe("/healthz")
	assert.True(t, alive, why)
}

func TestReplicaIsReadyButNoLeader(t *testing.T) {
	t.Parallel()
	c := served(t, version{faults: func(m *mockrollup.Mock) { m.Role = "replica" }})
	c.da.set(5, 5)
	c.start()
	c.awaitPhase(sequencer.PhaseRunning)
	c.expectProbes("", "")
	ok, why := c.probe("/readyz?role=leader")
	assert.False(t, ok)
	assert.Equal(t, "the node is a replica", why)
}

func TestStoppedNodeIsNotReadyAndInTimeNotAlive(t *testing.T) {
	t.Parallel()
	c := served(t, version{})
	c.da.set(5, 5)
	c.start("--stall-timeout=1s")
	c.awaitPhase(sequencer.PhaseRunning)
	require.NoError(t, syscall.Kill(c.nodeProcess(), syscall.SIGSTOP))
	c.await("the probe to fail", func() bool { ok, _ := c.probe("/healthz"); return !ok })
	c.expectProbes("no new height for ", "the node does not answer")
	code, stdout, _ := c.command("healthcheck")
	assert.Equal(t, 1, code)
	assert.Contains(t, stdout, "no new height for ")
}

func TestStopRequestIsInTheStatus(t *testing.T) {
	t.Parallel()
	c := served(t, version{faults: func(m *mockrollup.Mock) { m.IgnoreSigterm = true }})
	c.da.set(5, 5)
	c.start()
	c.awaitPhase(sequencer.PhaseRunning)
	send(syscall.SIGTERM)(c)
	r := c.awaitStatus("the stop", func(r status.Report) bool { return r.Stopping })
	assert.True(t, r.Alive)
	c.expectProbes("", "a stop was requested")
}

func TestQuestionIsInTheStatus(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10, faults: func(m *mockrollup.Mock) { m.Refusal, m.RefusalDelay = "late", time.Hour }})
	inV0Stopped(c)
	c.start()
	r := c.awaitPhase(sequencer.PhaseAsking)
	assert.True(t, r.Node.Asked)
	assert.True(t, r.Alive)
	c.expectProbes("", "the node is being asked for its durable height")
	code, stdout, _ := c.command("status")
	assert.Zero(t, code)
	assert.Contains(t, stdout, "v0 (version 0): asking the node for its durable height, for ")
	send(syscall.SIGTERM)(c)
	c.awaitExit(0)
	c.program = nil
}

func TestNodeThatCannotBeAskedIsInTheStatus(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 10, faults: refuses("garbled")}, version{})
	inV0Stopped(c)
	c.start()
	r := c.awaitStatus("the node to run", func(r status.Report) bool { return r.Height != nil })
	assert.True(t, r.CannotBeAsked)
	metrics := c.metrics()
	assert.Equal(t, "1", metrics["rollup_cannot_be_asked"])
	assert.Equal(t, "1", metrics["rollup_question_seconds_count"])
	assert.Equal(t, "1", metrics["rollup_questions_unanswered_total"])
	code, stdout, _ := c.command("status")
	assert.Zero(t, code)
	assert.Contains(t, stdout, "cannot be asked")
}

func TestDeadNodeEndsTheProgramAndItsProbes(t *testing.T) {
	t.Parallel()
	c := served(t, version{})
	c.da.set(5, 5)
	c.start()
	c.awaitPhase(sequencer.PhaseRunning)
	code, stdout, _ := c.command("healthcheck")
	assert.Zero(t, code)
	assert.Equal(t, "alive\n", stdout)
	require.NoError(t, syscall.Kill(c.nodeProcess(), syscall.SIGKILL))
	c.awaitExit(137)
	code, _, stderr := c.command("healthcheck", "--ready")
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "cannot ask the entrypoint")
	assert.Contains(t, stderr, "check that it is running")
	code, _, stderr = c.command("status")
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "check that it is running")
	c.program = nil
}

func TestStatusCommandsAskTheRunningOne(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 100}, version{keys: map[string]any{"name": "hard fork"}})
	c.da.set(50, 50)
	c.start()
	c.awaitStatus("height 50", func(r status.Report) bool { return r.Height != nil && r.Height.Blocks == 50 && r.Ready })
	code, stdout, stderr := c.command("status")
	assert.Zero(t, code, stderr)
	assert.Contains(t, stdout, "v0 (version 0): running for ")
	assert.Contains(t, stdout, "hard fork after height 100: 50 blocks left")
	assert.Contains(t, stdout, "[####################....................] 50 %")
	code, stdout, _ = c.command("status", "--json")
	assert.Zero(t, code)
	assert.Contains(t, stdout, `"phase": "running"`)
	code, stdout, _ = c.command("healthcheck", "--ready")
	assert.Zero(t, code)
	assert.Equal(t, "ready\n", stdout)
	code, _, stderr = c.command("status", "--listen", "nowhere")
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "want HOST:PORT")
}

// Nobody reads our stderr any more: the reason of the end is still where Kubernetes looks for it.
func TestTerminationMessageIsWrittenWithADeadStderr(t *testing.T) {
	t.Parallel()
	c := served(t, version{faults: func(m *mockrollup.Mock) { m.CrashAt, m.CrashOn, m.ExitCode = 3, "durable", 42 }})
	message := filepath.Join(c.dir, "message")
	c.listen = func(r io.Reader) {
		if reader, ok := r.(io.Closer); ok {
			_ = reader.Close()
		}
	}
	c.da.set(5, 5)
	c.start("--termination-log", message)
	c.await("the end", c.program.ended)
	assert.Equal(t, 42, c.program.code())
	c.program = nil
	assert.True(t, strings.HasPrefix(readText(message), "entrypoint: exit code 42: "), readText(message))
}

// Two entrypoints in one network, of which the second one's own status is answered by the first.
func TestHealthcheckBelievesNoOtherEntrypoint(t *testing.T) {
	t.Parallel()
	c := served(t, version{})
	c.da.set(5, 5)
	c.start()
	c.awaitStatus("the node to be ready", func(r status.Report) bool { return r.Ready })
	for _, command := range []string{"healthcheck", "status"} {
		code, _, stderr := c.command(command, "-f", c.checkpoint)
		assert.Zero(t, code, stderr)
		other := filepath.Join(c.dir, "other.json")
		code, stdout, stderr := c.command(command, "-f", other)
		assert.Equal(t, 1, code)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, c.checkpoint)
		assert.Contains(t, stderr, other)
		assert.Contains(t, stderr, "--listen")
		link := filepath.Join(c.dir, command)
		require.NoError(t, os.Symlink(c.checkpoint, link))
		code, _, stderr = c.command(command, "-f", link)
		assert.Zero(t, code, "the same by another name: %s", stderr)
		code, _, stderr = c.command(command, "--no-checkpoint-file")
		assert.Zero(t, code, "not compared: %s", stderr)
	}
}

func TestNodesLimitOfOpenFilesIsInTheStatus(t *testing.T) {
	t.Parallel()
	c := served(t, version{})
	c.da.set(5, 5)
	c.start()
	r := c.awaitStatus("the node", func(r status.Report) bool { return r.Node != nil && r.Height != nil })
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(c.nodeProcess(), unix.RLIMIT_NOFILE, nil, &limit))
	assert.Equal(t, limit.Cur, *r.Node.OpenFiles)
}

// A default address that is taken, by another container of the pod for instance, must not stop a chain.
func TestDefaultAddressThatIsTakenIsAWarning(t *testing.T) {
	t.Parallel()
	if holder, err := net.Listen("tcp", "127.0.0.1:9848"); err == nil {
		defer holder.Close()
	} // or somebody else holds it
	c := newChain(t, version{stop: 5})
	c.defaultListen = true
	c.da.set(9, 9)
	c.start()
	c.awaitEvent(on("status not served", "error~127.0.0.1:9848"))
	c.awaitExit(0)
	c.program = nil
}

func TestAddressThatWasAskedForAndIsTakenStartsNothing(t *testing.T) {
	t.Parallel()
	holder, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer holder.Close()
	c := newChain(t, version{stop: 5})
	c.statusAddress = holder.Addr().String()
	c.run(phase{
		name: "refused", do: func(c *chain) { c.start() }, exit: exits(sequencer.CodeMismatch),
		says: []string{"the status cannot be served", c.statusAddress, "nothing was started", "--listen"},
	})
}

// The probes of a kubelet come from outside the pod. If they get no answer it ends the container, which is no failure of
// ours: so nothing but the log can say why.
func TestLoopbackAddressInKubernetesIsAWarning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, host, listen string
		warns              bool
	}{
		{"in Kubernetes", "10.96.0.1", "127.0.0.1:0", true},
		{"in Kubernetes, by name", "10.96.0.1", "localhost:0", true},
		{"in Kubernetes with IPv6 alone", "fd00::1", "[::1]:0", true},
		{"in Kubernetes, on all addresses", "10.96.0.1", ":0", false},
		{"in Kubernetes, not served", "10.96.0.1", "", false},
		{"elsewhere", "", "127.0.0.1:0", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if listener, err := net.Listen("tcp", cmp.Or(test.listen, ":0")); err == nil {
				require.NoError(t, listener.Close())
			} else if os.Getenv("CI") == "true" {
				t.Fatalf("in CI this test must run, with an IPv6 loopback address: %s", err)
			} else {
				t.Skipf("this machine has no IPv6: %s", err)
			}
			c := newChain(t, version{stop: 5})
			c.statusAddress, c.env = test.listen, append(c.env, "KUBERNETES_SERVICE_HOST="+test.host)
			c.da.set(9, 9)
			c.start()
			c.awaitExit(0)
			assert.Equal(t, test.warns, c.program.log.has(on("status served on the loopback address in Kubernetes", "address~:")), c.program.log.text())
			c.program = nil
		})
	}
}

// As in the images: the commands in the container have the same variable as the run, and no flag.
func TestStatusOnEveryAddressIsAskedOnThisMachine(t *testing.T) {
	t.Parallel()
	c := served(t, version{})
	_, port, err := net.SplitHostPort(c.statusAddress)
	require.NoError(t, err)
	own := c.statusAddress
	c.da.set(5, 5)
	for _, host := range []string{"", "0.0.0.0", "[::]"} {
		c.statusAddress = host + ":" + port
		c.start()
		c.statusAddress = own
		c.awaitStatus("the node to be ready", func(r status.Report) bool { return r.Ready })
		c.statusAddress = host + ":" + port
		for _, args := range [][]string{{"status"}, {"healthcheck"}, {"healthcheck", "--ready"}} {
			code, _, stderr := c.command(args...)
			assert.Zero(t, code, "%s %s: %s", c.statusAddress, args, stderr)
		}
		send(syscall.SIGTERM)(c)
		c.awaitExit(0)
		c.program = nil
	}
}

// A run keeps to the plan that it has read. That there is another one by now can be seen from outside.
func TestPlanThatChangesOnDiskIsShown(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 100000}, version{})
	c.da.set(5, 5)
	c.start()
	r := c.awaitStatus("the node", func(r status.Report) bool { return r.Height != nil })
	assert.False(t, r.PlanOutdated)
	assert.Equal(t, "0", c.metrics()["entrypoint_plan_outdated"])
	c.versions[0].stop, c.versions[1].start = 200000, 200001
	c.writeManager()
	r = c.awaitStatus("the change to be seen", func(r status.Report) bool { return r.PlanOutdated })
	assert.Equal(t, uint64(100000), r.NextUpgrade.StopHeight)
	assert.Equal(t, "1", c.metrics()["entrypoint_plan_outdated"])
	_, stdout, _ := c.command("status")
	assert.Contains(t, stdout, "the plan on disk has changed")
	c.expectProbes("", "")
}

// The status is served while the sequence waits for its end, and a hand-over is measured.
func TestMetricsOfARealUpgrade(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 5}, version{stop: 10, migrates: true})
	c.da.set(20, 20)
	c.start("--when-finished=wait")
	c.awaitPhase(sequencer.PhaseFinished)
	metrics := c.metrics()
	for name, want := range map[string]string{
		`entrypoint_version`:                                           "1",
		`entrypoint_phase{phase="finished"}`:                           "1",
		`entrypoint_node_starts_total{version="0"}`:                    "1",
		`entrypoint_node_starts_total{version="1"}`:                    "1",
		`entrypoint_process_exits_total{process="node",code="0"}`:      "2",
		`entrypoint_process_exits_total{process="migration",code="0"}`: "1",
		`entrypoint_checkpoint_write_failures_total`:                   "0",
		`rollup_question_seconds_count`:                                "3",
		`rollup_questions_unanswered_total`:                            "0",
		`rollup_cannot_be_asked`:                                       "0",
		`entrypoint_node_ready`:                                        "0",
		`entrypoint_alive`:                                             "1",
		`entrypoint_version_info{version="1",name="v1"}`:               "1",
		`entrypoint_stop_height_blocks`:                                "10",
		`entrypoint_preflight_problems{version="1"}`:                   "0",
	} {
		assert.Equal(t, want, metrics[name], name)
	}
	for _, positive := range []string{
		`entrypoint_handover_duration_seconds{version="1"}`, `entrypoint_handover_question_seconds{version="1"}`, `entrypoint_migration_duration_seconds{version="1"}`,
		`entrypoint_checkpoint_write_duration_seconds_sum`, `entrypoint_checkpoint_write_duration_seconds_count`, `entrypoint_height_queries_total`,
	} {
		assert.NotContains(t, []string{"", "0"}, metrics[positive], positive)
	}
}

// metrics are the samples of a scrape.
func (c *chain) metrics() map[string]string {
	c.t.Helper()
	samples := map[string]string{}
	for line := range strings.Lines(c.get("/metrics")) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), " "); found && name != "#" {
			samples[name] = value
		}
	}
	return samples
}

// get asks the program for a route.
func (c *chain) get(route string) string {
	c.t.Helper()
	resp, err := http.Get("http://" + c.statusAddress + route)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return string(body)
}

// The files of the next version were correct at the start and are no longer when its height is near: the log, the status
// and a metric report that while the version before keeps running.
func TestProblemOfTheNextVersionIsReportedBeforeItsHeight(t *testing.T) {
	t.Parallel()
	c := served(t, version{stop: 100000}, version{migrates: true})
	shell := filepath.Join(c.dir, "sh")
	require.NoError(t, os.Symlink("/bin/sh", shell))
	require.NoError(t, os.Rename(c.migration(1), c.migration(1)+"-program"))
	require.NoError(t, writeExecutable(c.migration(1), fmt.Appendf(nil, "#!%s\nexec %s-program \"$@\"\n", shell, c.migration(1))))
	c.da.set(5, 5)
	c.start("--preflight-before=1000h")
	c.awaitStatus("height 5", func(r status.Report) bool { return r.Height != nil })
	require.NoError(t, os.Remove(shell))
	height := uint64(5)
	r := c.awaitStatus("the problem", func(r status.Report) bool {
		height++ // a block at each look, so that the time of the upgrade is known
		c.da.set(height, height)
		return r.NextUpgrade.Preflight != nil && slices.ContainsFunc(r.NextUpgrade.Preflight.Problems, func(text string) bool {
			return strings.Contains(text, "migration_path") && strings.Contains(text, shell)
		})
	})
	assert.Equal(t, sequencer.PhaseRunning, r.Phase)
	assert.Nil(t, r.LastFailure)
	c.awaitEvent(on("preflight problem", "version=1", "severity=error", "problem~"+shell))
	metrics := c.metrics()
	assert.Equal(t, "1", metrics[`entrypoint_preflight_problems{version="1"}`])
	assert.NotContains(t, []string{"", "0"}, metrics[`entrypoint_upgrade_preflight_problems`])
	c.expectProbes("", "")
}
