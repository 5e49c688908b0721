package dockertest_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/dockertest"
)

// stageDockerfile makes an image with a shell, perl, the entrypoint and three versions of the stand-in, for tests that
// look into the container.
const stageDockerfile = `FROM debian:bookworm-slim
COPY entrypoint /entrypoint
COPY mock-rollup /opt/rollup/versions/v0/rollup
RUN cd /opt/rollup/versions && for v in v1 v2; do mkdir $v && cp v0/rollup $v/rollup && echo "stage $v" >>$v/rollup; done && \
    ln -s rollup v1/migration && mkdir /data && chown 65532:0 /data && chmod 0775 /data
USER 65532:65532
ENV ENTRYPOINT_LOG_FORMAT=json ENTRYPOINT_CONFIG=/plan/manager.json ENTRYPOINT_CHECKPOINT_FILE=/data/checkpoint.json
HEALTHCHECK --interval=1s --timeout=30s --start-period=10m --retries=2 CMD ["/entrypoint", "healthcheck"]
ENTRYPOINT ["/entrypoint"]
`

var (
	buildStage sync.Once
	stageTag   string
)

// stage returns the image. The first test that wants it builds it, and it stays, like the other images of this package.
// Its tag depends on its content, so another checkout has another tag.
func stage(t *testing.T) string {
	t.Helper()
	dockertest.Engine(t)
	buildStage.Do(func() {
		out, err := exec.Command("make", "--no-print-directory", "-C", dockertest.Root(t), "build").CombinedOutput()
		require.NoError(t, err, "make build\n%s", out)
		files := dockertest.Files{"Dockerfile": stageDockerfile}
		for _, name := range []string{"entrypoint", "mock-rollup"} {
			files[name+"*"] = readFile(t, filepath.Join(dockertest.Root(t), "bin", name))
		}
		content := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(files)) {
			fmt.Fprintf(content, "%s %d %s\n", name, len(files[name]), files[name])
		}
		stageTag = fmt.Sprintf("dockertest/stage:%x", content.Sum(nil)[:6])
		dockertest.Build(t, files, "-t", stageTag)
	})
	return stageTag
}

// version is one version of a rollup in an image.
type version struct {
	// stop is its stop height, 0 for none. It starts after the stop height of the version before.
	stop uint64
	// migrates means that it has a migration.
	migrates bool
	// faults changes the config of its stand-in.
	faults func(*mockrollup.Mock)
	// node and migration are scripts that run in place of the stand-in.
	node, migration string
}

// upgrade returns two versions with a migration between them; both versions end by themselves.
func upgrade() []version { return []version{{stop: 8}, {stop: 16, migrates: true}} }

// blockTime is the block time of the chains in these tests.
const blockTime = 50 * time.Millisecond

// rollup returns what 'docker run' needs to run the versions: a mount, the image, and args for the entrypoint. The
// files are mounted because an image for each test would take long on a busy machine.
func rollup(t *testing.T, versions []version, args ...string) []string {
	t.Helper()
	files := dockertest.Files{}
	addRollup(t, files, "plan", versions)
	return append([]string{"-v", writeFiles(t, files) + "/plan:/plan:ro", stage(t)}, args...)
}

// writeFiles writes the files to a new folder that every user can read.
func writeFiles(t *testing.T, files dockertest.Files) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		plain, executable := strings.CutSuffix(name, "*")
		path, mode := filepath.Join(root, plain), os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	return root
}

// addRollup adds the files of a rollup: manager.json and, for each version, its config and scripts.
func addRollup(t *testing.T, files dockertest.Files, folder string, versions []version) {
	t.Helper()
	var plan []map[string]any
	var next, stateVersion uint64
	for i, v := range versions {
		own := fmt.Sprintf("%s/versions/v%d", folder, i)
		entry := map[string]any{"rollup_binary": fmt.Sprintf("/opt/rollup/versions/v%d/rollup", i), "config_path": "/" + own + "/config.toml"}
		if v.node != "" {
			files[own+"/node*"] = v.node
			entry["rollup_binary"] = "/" + own + "/node"
		}
		if v.migrates {
			stateVersion++
			entry["migration_path"] = fmt.Sprintf("/opt/rollup/versions/v%d/migration", i)
		}
		if v.migration != "" {
			files[own+"/migrate*"] = v.migration
			entry["migration_path"] = "/" + own + "/migrate"
		}
		if i > 0 {
			entry["start_height"] = next
		}
		if v.stop > 0 {
			entry["stop_height"] = v.stop
		}
		next = v.stop + 1
		plan = append(plan, entry)
		files[own+"/config.toml"] = standInConfig(t, i, stateVersion, v.faults)
	}
	text, err := json.Marshal(plan)
	require.NoError(t, err)
	files[folder+"/manager.json"] = string(text)
}

func standInConfig(t *testing.T, i int, stateVersion uint64, faults func(*mockrollup.Mock)) string {
	t.Helper()
	config := mockrollup.NewConfig("/data/state", "/data/da.json", 12346)
	config.Mock.Label, config.Mock.StateVersion, config.Mock.DA.BlockTime = fmt.Sprintf("v%d", i), stateVersion, blockTime
	if faults != nil {
		faults(&config.Mock)
	}
	file := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, mockrollup.WriteConfig(file, config))
	return readFile(t, file)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// journal returns what the stand-ins in the container have recorded about themselves.
func journal(t *testing.T, c *dockertest.Container) []mockrollup.Entry {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(c.ReadFile("/data/state/journal.jsonl")), 0o600))
	entries, err := mockrollup.ReadJournal(dir)
	require.NoError(t, err)
	return entries
}

// lives describes each stand-in that has run: its version, whether it was a node, a migration, or a node that was only
// asked for its height, and how it ended.
func lives(t *testing.T, c *dockertest.Container) []string {
	t.Helper()
	var all []string
	for _, run := range mockrollup.Runs(journal(t, c)) {
		life := run.Start.Label + " " + run.Start.Kind
		if asked(run.Start.Args) {
			life = run.Start.Label + " asked"
		}
		if run.Exit != nil {
			life += fmt.Sprintf(" %d at %d", *run.Exit.Code, run.Exit.Height)
		}
		all = append(all, life)
	}
	return all
}

// asked reports whether a node was started with an impossible start height, so that it reports its own height.
func asked(args []string) bool {
	const noChain = 1 << 48
	at := slices.Index(args, "--start-at-rollup-height")
	if at < 0 || at+1 == len(args) {
		return false
	}
	height, err := strconv.ParseUint(args[at+1], 10, 64)
	return err == nil && height >= noChain
}

// upgraded are the lives of upgrade. Each version is asked after it has exited 0, and the second one also after its
// migration.
var upgraded = []string{
	"v0 node 0 at 8", "v0 asked 101 at 8", "v1 migration 0 at 8", "v1 asked 101 at 8", "v1 node 0 at 16", "v1 asked 101 at 16",
}

// processes returns the names of the processes in a container, except the one that looks. That of a zombie ends in "
// zombie".
func processes(t *testing.T, c *dockertest.Container) []string {
	t.Helper()
	var names []string
	for line := range strings.Lines(c.Exec("sh", "-c", "exec cat /proc/[0-9]*/stat").Out) {
		begin, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
		require.Greater(t, end, begin, line)
		name := line[begin+1 : end]
		if strings.HasPrefix(line[end+1:], " Z") {
			name += " zombie"
		}
		if name != "cat" {
			names = append(names, name)
		}
	}
	return names
}

// eventually waits until reached is true; what describes that.
func eventually(t *testing.T, what string, reached func() bool) {
	t.Helper()
	require.Eventually(t, reached, dockertest.Deadline, 100*time.Millisecond, "waited for %s in vain", what)
}

// engineEvents returns the events of one kind that the engine has recorded for a container.
func engineEvents(t *testing.T, c *dockertest.Container, event, format string) []string {
	t.Helper()
	out := dockertest.Docker(t, "events", "--since", "0", "--until", strconv.FormatInt(time.Now().Unix()+1, 10),
		"--filter", "container="+c.Name, "--filter", "event="+event, "--format", format)
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
}
