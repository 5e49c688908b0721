package rehearsaltest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/dockertest"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }

// deadline is for a whole rehearsal on a busy machine.
const deadline = 15 * time.Minute

// built is the program.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rehearsaltest-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "rehearse")
	cmd := exec.Command("go", "build", "-o", program, "./compose/rehearse")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return program, nil
})

// programAndImage returns the program that rehearses, and the image of the stand-in's network.
func programAndImage(t *testing.T) (program, image string) {
	t.Helper()
	image = dockertest.NetworkImage(t)
	program, err := built()
	require.NoError(t, err)
	return program, image
}

// rehearsal is one run of the program.
type rehearsal struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	project string
	out     bytes.Buffer
	said    *lines
}

// lines are what the program prints while it runs.
type lines struct {
	mu    sync.Mutex
	all   []string
	grown chan struct{}
}

// begin starts a rehearsal of the network, with a copy of its Compose file modified by change.
func begin(t *testing.T, change func(file string) string, args ...string) *rehearsal {
	t.Helper()
	program, image := programAndImage(t)
	text, err := os.ReadFile("../../compose/compose.yaml")
	require.NoError(t, err)
	r := &rehearsal{t: t, dir: t.TempDir(), said: &lines{grown: make(chan struct{}, 1)}}
	file := filepath.Join(r.dir, "compose.yaml")
	require.NoError(t, os.WriteFile(file, []byte(change(string(text))), 0o644))
	args = append([]string{"--file", file, "--image", image, "--report", filepath.Join(r.dir, "report.json")}, args...)
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	r.cmd = exec.CommandContext(ctx, program, args...)
	r.cmd.Env = append(os.Environ(), "TESTNET_IMAGE="+image)
	r.cmd.Cancel = func() error { return r.cmd.Process.Signal(os.Interrupt) }
	r.cmd.WaitDelay = 3 * time.Minute
	r.cmd.Stdout = &r.out
	stderr, err := r.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	go r.said.read(bufio.NewScanner(stderr))
	name := regexp.MustCompile(`project (rehearsal-[0-9a-f]+);`)
	r.project = name.FindStringSubmatch(r.says("project rehearsal-"))[1]
	return r
}

func (l *lines) read(scanner *bufio.Scanner) {
	for scanner.Scan() {
		l.mu.Lock()
		l.all = append(l.all, scanner.Text())
		l.mu.Unlock()
		select {
		case l.grown <- struct{}{}:
		default:
		}
	}
	close(l.grown)
}

// says waits for a line that contains the text, and returns it.
func (r *rehearsal) says(text string) string {
	r.t.Helper()
	for {
		r.said.mu.Lock()
		i := slices.IndexFunc(r.said.all, func(line string) bool { return strings.Contains(line, text) })
		all := slices.Clone(r.said.all)
		r.said.mu.Unlock()
		if i >= 0 {
			return all[i]
		}
		if _, open := <-r.said.grown; !open {
			require.FailNow(r.t, "it has ended without saying "+text, strings.Join(all, "\n"))
		}
	}
}

// report has the fields of the report that tests use.
type report struct {
	Schema   int
	Passed   bool
	Verdict  string
	Compose  string
	Damaged  int `json:"damaged_states"`
	Versions []struct{ Name string }
	Steps    []struct {
		Name     string
		Result   string
		Notes    []string
		Failures []struct {
			Sentence, Node string
			Version        *int
			ExitCode       *int `json:"exit_code"`
			Log            []string
		}
		Nodes []struct {
			Node     string
			Upgrades []struct {
				From, To        int
				HandOverSeconds float64 `json:"hand_over_seconds"`
			}
			Restarts []struct {
				Cause    string
				Expected bool
			}
		}
		Roots []struct {
			Height uint64
			Equal  bool
			Roots  map[string]string
		}
		Divergence *struct {
			Height  uint64
			Version int
			Nodes   []string
		}
	}
}

func (r *report) results() map[string]string {
	results := map[string]string{}
	for _, s := range r.Steps {
		results[s.Name] = s.Result
	}
	return results
}

// ends waits for the end, checks the exit code and that nothing is left, and returns the report.
func (r *rehearsal) ends(code int) (result report) {
	r.t.Helper()
	// Wait closes the pipe, so all of it must be read first.
	for range r.said.grown {
	}
	_ = r.cmd.Wait()
	r.t.Log(strings.Join(r.said.all, "\n"))
	r.t.Log(r.out.String())
	for _, kind := range [][]string{{"ps", "-aq"}, {"volume", "ls", "-q"}, {"network", "ls", "-q"}} {
		args := append(kind, "--filter", "label=com.docker.compose.project="+r.project)
		assert.Empty(r.t, dockertest.Docker(r.t, args...), "left behind: docker %s", strings.Join(args, " "))
	}
	require.Equal(r.t, code, r.cmd.ProcessState.ExitCode())
	text, err := os.ReadFile(filepath.Join(r.dir, "report.json"))
	if code > 1 {
		return result
	}
	require.NoError(r.t, err)
	require.NoError(r.t, json.Unmarshal(text, &result))
	require.Equal(r.t, 1, result.Schema)
	require.Equal(r.t, code == 0, result.Passed)
	require.Contains(r.t, r.out.String(), result.Verdict)
	return result
}

// plan writes a manager.json for the versions of the stand-in, as modified by change.
func plan(t *testing.T, change func(versions []map[string]any)) string {
	t.Helper()
	var versions []map[string]any
	for _, name := range []string{"v0", "v1", "v2"} {
		versions = append(versions, map[string]any{
			"rollup_binary": "/opt/rollup/versions/" + name + "/rollup", "config_path": "/opt/rollup/versions/" + name + "/config.toml",
		})
	}
	versions[0]["stop_height"] = 40
	versions[1]["start_height"], versions[1]["stop_height"] = 41, 80
	versions[1]["migration_path"] = "/opt/rollup/versions/v1/migration"
	versions[2]["start_height"] = 81
	change(versions)
	text, err := json.Marshal(versions)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "manager.json")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

func unchanged(file string) string { return file }

func TestRehearsalOfTheStandInPassesEachStep(t *testing.T) {
	t.Parallel()
	// Not beside each other: each keeps a small machine busy.
	for _, compose := range []string{"docker compose", "docker-compose"} {
		t.Run(compose, func(t *testing.T) {
			dockertest.Compose(t, strings.Fields(compose)...)
			result := begin(t, unchanged, "--compose", compose).ends(0)
			require.Contains(t, result.Compose, compose)
			require.Equal(t, map[string]string{
				"start": "passed", "live upgrade": "passed", "resync": "passed", "kill -9 at the upgrade": "passed",
				"SIGTERM at the stop height": "passed", "late node": "passed", "migration dry run": "passed", "restored snapshot": "passed",
			}, result.results())
			require.Len(t, result.Versions, 3)
			for _, s := range result.Steps[1:] {
				if s.Name == "migration dry run" {
					notes := strings.Join(s.Notes, "\n")
					t.Log(notes)
					tried := strings.Contains(notes, "migration of version 1 on replica-0: exited 0 after ") && strings.Contains(notes, `"dry_run":true`)
					require.True(t, tried || strings.Contains(notes, "not tried: the state of replica-0 is at version 1"), "the latter on a busy machine: %s", notes)
					continue
				}
				require.Nil(t, s.Divergence, s.Name)
				require.NotEmpty(t, s.Roots, s.Name)
				for _, row := range s.Roots {
					require.True(t, row.Equal, "%s at height %d", s.Name, row.Height)
					require.Subset(t, keys(row.Roots), []string{"sequencer", "replica-0", "replica-1"}, "%s at height %d", s.Name, row.Height)
				}
				for _, n := range s.Nodes {
					// On a busy machine the snapshot may be one of version 1 already.
					if s.Name != "restored snapshot" || len(n.Upgrades) != 1 {
						require.Len(t, n.Upgrades, 2, "%s of %s", s.Name, n.Node)
					}
				}
			}
			live, resync, kill := result.Steps[1], result.Steps[2], result.Steps[3]
			require.Len(t, live.Nodes, 3)
			require.Contains(t, resync.Roots[0].Roots, "live upgrade", "phases are compared with each other")
			require.NotEmpty(t, kill.Nodes[0].Restarts)
		})
	}
}

// snapshot returns a copy of the volume of a node at version 1 (v1), before its stop height.
func snapshot(t *testing.T) string {
	t.Helper()
	image := dockertest.NetworkImage(t)
	net := dockertest.Network(t)
	dockertest.Run(t, "--network", net, "--network-alias", "da", "--entrypoint", "/entrypoint", image,
		"exec", "--", "/opt/rollup/versions/v0/rollup", "da", "--listen", "0.0.0.0:26658", "--block-time", "500ms", "--lease", "10s")
	node := dockertest.Run(t, "--network", net, image)
	node.WaitEvent("height known", "version", 1)
	node.Stop()
	require.Zero(t, node.WaitExit())
	require.NotContains(t, node.Logs(), `"msg":"version completed","version":1`, "the machine is too slow for this test")
	dir := t.TempDir()
	dockertest.Docker(t, "cp", node.Name+":/data/.", dir)
	return dir
}

func TestRehearsalOfTheNextUpgradeFromASnapshot(t *testing.T) {
	t.Parallel()
	result := begin(t, unchanged, "--state", snapshot(t)).ends(0)
	for name, outcome := range result.results() {
		require.Equal(t, "passed", outcome, name)
	}
	live, stop := result.Steps[1], result.Steps[4]
	require.Equal(t, "SIGTERM at the stop height", stop.Name)
	require.Len(t, stop.Notes, 2, "it was stopped once, and there was a load: %q", stop.Notes)
	for _, n := range live.Nodes {
		require.Len(t, n.Upgrades, 1, n.Node)
		require.Equal(t, 1, n.Upgrades[0].From, n.Node)
	}
}

func keys(m map[string]string) (all []string) {
	for key := range m {
		all = append(all, key)
	}
	return all
}

func TestBrokenPlanFailsAndTheCauseIsNamed(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, flag string
		change     func(versions []map[string]any)
		sentence   string
	}{
		{
			"missing migration", "--plan=",
			func(versions []map[string]any) { delete(versions[1], "migration_path") },
			// A real node says this when it opens a state of another format.
			"Fix didn't help, historical state root hashes are not equal to NOMT state root hashes",
		},
		{
			"wrong heights in the plan of all", "--plan=",
			func(versions []map[string]any) { versions[1]["start_height"] = 45 },
			"start_height",
		},
		{
			"wrong heights in the plan of one node", "--node-plan=replica-1=",
			func(versions []map[string]any) { versions[0]["stop_height"], versions[1]["start_height"] = 30, 31 },
			"state roots diverge from height 31, in version 0 (v0): replica-1 differs from the others",
		},
		{
			"binary of the wrong version", "--plan=",
			func(versions []map[string]any) { versions[1]["rollup_binary"] = versions[0]["rollup_binary"] },
			"version 1: v1 runs the binary of version 0",
		},
		{
			"binary of the wrong version on one node", "--node-plan=replica-0=",
			func(versions []map[string]any) { versions[2]["rollup_binary"] = versions[1]["rollup_binary"] },
			"replica-0, version 2: v2 runs the binary of version 1",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			result := begin(t, unchanged, row.flag+plan(t, row.change)).ends(1)
			// It fails in the start if the chain was faster than the machine.
			require.Regexp(t, "^(start|live upgrade) failed: ", result.Verdict)
			require.Contains(t, result.Verdict, row.sentence)
			require.Equal(t, "not reached", result.results()["restored snapshot"])
			require.Zero(t, result.Damaged, "what a wrong version has damaged was undone")
		})
	}
}

// Without the undo point the second run of the migration would fail, on a state that is half migrated.
func TestNonIdempotentMigrationThatIsKilledIsUndone(t *testing.T) {
	t.Parallel()
	config, err := os.ReadFile("../../compose/plan/v1/config.toml")
	require.NoError(t, err)
	require.Contains(t, string(config), "idempotent = true\nsleep = \"2s\"")
	// Longer, so that a slow engine too kills it in the middle.
	broken := strings.Replace(string(config), "idempotent = true\nsleep = \"2s\"", "idempotent = false\nsleep = \"6s\"\nignores_dry_run = true", 1)
	path := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(broken), 0o644))
	// In another place than the image's own, whose digest the manifest has.
	const mounted = "/configs/v1.toml"
	broken = plan(t, func(versions []map[string]any) { versions[1]["config_path"] = mounted })
	result := begin(t, func(file string) string {
		for _, node := range []string{"sequencer", "replica-0", "replica-1"} {
			volumes := fmt.Sprintf("volumes: [%q", node+":/data")
			require.Contains(t, file, volumes)
			file = strings.Replace(file, volumes, volumes+fmt.Sprintf(", %q", path+":"+mounted+":ro"), 1)
		}
		return file
	}, "--plan="+broken).ends(0)
	require.Equal(t, map[string]string{
		"start": "passed", "live upgrade": "passed", "resync": "passed", "kill -9 at the upgrade": "passed",
		"SIGTERM at the stop height": "passed", "late node": "passed", "migration dry run": "passed", "restored snapshot": "passed",
	}, result.results())
}

func TestNodeThatNeverComesUpIsAVerdict(t *testing.T) {
	t.Parallel()
	result := begin(t, func(file string) string {
		return strings.Replace(file, "hostname: replica-0", "hostname: replica-0\n    command: [\"--no-such-flag\"]", 1)
	}, "--stall", "45s").ends(1)
	require.Contains(t, result.Verdict, "start failed: replica-0")
	require.Contains(t, strings.Join(result.Steps[0].Failures[0].Log, "\n"), "unknown flag")
}

func TestDAThatIsGoneIsAVerdict(t *testing.T) {
	t.Parallel()
	r := begin(t, unchanged, "--stall", "45s")
	r.says("live upgrade …")
	da := dockertest.Docker(t, "ps", "-q", "--filter", "label=com.docker.compose.project="+r.project, "--filter", "label=com.docker.compose.service=da")
	dockertest.Docker(t, "stop", "-t", "1", da)
	result := r.ends(1)
	require.Contains(t, result.Verdict, "made no progress for 45s")
	require.Contains(t, result.Verdict, "service da is not running (exited")
}

func TestInterruptedRehearsalLeavesNothing(t *testing.T) {
	t.Parallel()
	r := begin(t, unchanged)
	r.says("live upgrade …")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGINT))
	r.ends(130)
}

// The operator's volume is not migrated, not wiped, and not removed in the end.
func TestVolumeThatIsNotTheRehearsalsOwnIsNotTouched(t *testing.T) {
	t.Parallel()
	program, image := programAndImage(t)
	text, err := os.ReadFile("../../compose/compose.yaml")
	require.NoError(t, err)
	volume := "dockertest-" + filepath.Base(filepath.Dir(t.TempDir()))
	dockertest.Docker(t, "volume", "create", volume)
	t.Cleanup(func() { dockertest.TryDocker(t, "volume", "rm", volume) })
	dir := t.TempDir()
	file := filepath.Join(dir, "compose.yaml")
	for compose, theirs := range map[string]string{"docker compose": "{name: NAME}", "docker-compose": "{external: true, name: NAME}"} {
		dockertest.Compose(t, strings.Fields(compose)...)
		changed := strings.Replace(string(text), "\n  sequencer: {}\n", "\n  sequencer: "+strings.Replace(theirs, "NAME", volume, 1)+"\n", 1)
		require.NotEqual(t, string(text), changed)
		require.NoError(t, os.WriteFile(file, []byte("version: \"3.9\"\n"+changed), 0o644))
		result := dockertest.Command{Name: program, Env: []string{"TESTNET_IMAGE=" + image}}.
			Do(t, "--file", file, "--image", image, "--compose", compose)
		require.Equal(t, 69, result.Code, result.Both)
		require.Contains(t, result.Err, "volume sequencer ")
		require.Contains(t, result.Err, "remove that, so that the rehearsal gets its own")
		require.NotContains(t, result.Err, "project rehearsal-", "nothing was begun")
		require.Equal(t, volume, strings.TrimSpace(dockertest.Docker(t, "volume", "ls", "-q", "--filter", "name=^"+volume+"$")))
	}
}

func TestWhatCannotBeCarriedOutHasAnExitCodeOfItsOwn(t *testing.T) {
	t.Parallel()
	program, image := programAndImage(t)
	for _, row := range []struct{ args, want string }{
		{"--image no-such-image:here", `image "no-such-image:here" of service`},
		{"--nodes sequencer,replica-7", "has no service replica-7"},
		{"--new-chain nothing", "has no service nothing"},
		{"--keep-volume nothing", "has no volume nothing"},
		{"--compose no-such-compose", `command not found: "no-such-compose"`},
	} {
		result := dockertest.Command{Name: program, Env: []string{"TESTNET_IMAGE=" + image}}.
			Do(t, append([]string{"--file", "../../compose/compose.yaml"}, strings.Fields(row.args)...)...)
		require.Equal(t, 69, result.Code, "%s\n%s", row.args, result.Both)
		require.Contains(t, result.Err, row.want)
		require.Contains(t, result.Err, "cannot run")
	}
}
