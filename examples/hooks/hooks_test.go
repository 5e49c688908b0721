// Package hooks has examples of hooks, and here their tests: each script is run as an upgrade runs it.
package hooks

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// missing skips a test for want of something, which CI must have.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must have what is missing: "+format, args...)
	}
	t.Skipf(format, args...)
}

func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "this test needs %s: %s", tool, err)
		}
	}
}

// run runs a script with the environment of a hook, from v0 to v1 at height 100, and more of it.
func run(t *testing.T, script, storage string, env ...string) (output string, code int) {
	t.Helper()
	cmd := exec.Command("./" + script)
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "ENTRYPOINT_FROM_VERSION=v0", "ENTRYPOINT_TO_VERSION=v1", "ENTRYPOINT_HEIGHT=100",
		"ENTRYPOINT_STORAGE_PATH=" + storage, "ENTRYPOINT_CHECKPOINT=" + storage + "/../checkpoint.json",
	}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// stateIn makes a storage directory with something in it.
func stateIn(t *testing.T, dir string) string {
	t.Helper()
	state := filepath.Join(dir, "my state")
	require.NoError(t, os.MkdirAll(state+"/db", 0o750))
	require.NoError(t, os.WriteFile(state+"/db/000001.sst", []byte(strings.Repeat("block", 100_000)), 0o640))
	require.NoError(t, os.WriteFile(state+"/rollup-version.json", []byte("{}"), 0o644))
	return state
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names
}

// xfs is a directory on a file system with reflinks.
func xfs(t *testing.T) string {
	t.Helper()
	needs(t, "mkfs.xfs", "mount")
	image, dir := filepath.Join(t.TempDir(), "xfs.img"), t.TempDir()
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 300<<20)) // sparse, and the smallest that mkfs.xfs accepts
	out, err := exec.Command("mkfs.xfs", "-q", "-m", "reflink=1", image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		missing(t, "this test needs root, loop devices and xfs: %v %s", err, out)
	}
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

func TestEachScriptIsOneThatAShellReadsAndTheDocsName(t *testing.T) {
	page, err := os.ReadFile("../../docs/hold-and-hooks.md")
	require.NoError(t, err)
	scripts, err := filepath.Glob("*.sh")
	require.NoError(t, err)
	require.Len(t, scripts, 3)
	for _, script := range scripts {
		out, err := exec.Command("sh", "-n", script).CombinedOutput()
		assert.NoError(t, err, "%s: %s", script, out)
		assert.Contains(t, string(page), "(../examples/hooks/"+script+")")
		info, err := os.Stat(script)
		require.NoError(t, err)
		assert.EqualValues(t, 0o111, info.Mode()&0o111, "%s is not executable", script)
	}
}

func TestReflinkCopyIsWholeAndMadeOnce(t *testing.T) {
	dir := xfs(t)
	state := stateIn(t, dir)
	require.NoError(t, os.MkdirAll(dir+"/backup-v0-100.partial/db", 0o755)) // a run that was killed
	out, code := run(t, "reflink-copy.sh", state)
	require.Zero(t, code, out)
	assert.Equal(t, []string{"backup-v0-100", "my state"}, list(t, dir))
	same, err := exec.Command("diff", "-r", state, dir+"/backup-v0-100").CombinedOutput()
	require.NoError(t, err, "%s", same)
	info, err := os.Stat(dir + "/backup-v0-100/db/000001.sst")
	require.NoError(t, err)
	assert.EqualValues(t, 0o640, info.Mode())

	require.NoError(t, os.WriteFile(state+"/db/000002.sst", nil, 0o600))
	out, code = run(t, "reflink-copy.sh", state)
	require.Zero(t, code, out)
	assert.Contains(t, out, "there already is")
	assert.NoFileExists(t, dir+"/backup-v0-100/db/000002.sst")
	require.NoError(t, os.Mkdir(dir+"/backups", 0o755))
	out, code = run(t, "reflink-copy.sh", state, "BACKUP_DIR="+dir+"/backups", "ENTRYPOINT_FROM_VERSION=../a b")
	require.Zero(t, code, out)
	assert.Equal(t, []string{"backup-.._a_b-100"}, list(t, dir+"/backups"))
}

func TestReflinkCopyFailsWhereThereAreNoReflinks(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=10m"); err != nil {
		missing(t, "this test needs root, to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	out, code := run(t, "reflink-copy.sh", stateIn(t, dir))
	assert.NotZero(t, code, out)
	assert.Regexp(t, `^no copy with reflinks in .*: it must be on the file system of the state, and that XFS, btrfs or bcachefs: .*\n$`, out, "one line")
	assert.Equal(t, []string{"my state"}, list(t, dir), "nothing that looks like a copy is left")
	out, code = run(t, "reflink-copy.sh", "")
	assert.NotZero(t, code)
	assert.Contains(t, out, "the node configs must have storage.path")
}

// request is what a server was asked.
type request struct {
	method, kind, token string
	body                map[string]any
}

// server answers with code, and keeps what it was asked.
func server(t *testing.T, code int) (url string, asked chan request) {
	t.Helper()
	needs(t, "curl")
	asked = make(chan request, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := request{method: r.Method, kind: r.Header.Get("Content-Type"), token: r.Header.Get("Authorization")}
		text, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(text, &q.body); err != nil {
			t.Errorf("not JSON: %s: %v", text, err)
		}
		asked <- q
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/hook?x=1&y=a%20b", asked
}

const hostileName = "v\"0\\ \n\x01$(id)`id` 世界"

func TestSnapshotIsTakenBeforeTheUpgradeContinues(t *testing.T) {
	url, asked := server(t, http.StatusCreated)
	out, code := run(t, "snapshot-api.sh", stateIn(t, t.TempDir()), "SNAPSHOT_URL="+url, "SNAPSHOT_TOKEN=s3cret")
	require.Zero(t, code, out)
	require.Len(t, asked, 1)
	assert.Equal(t, request{"POST", "application/json", "Bearer s3cret", map[string]any{"name": "v0-100", "height": 100.0}}, <-asked)
	assert.NotContains(t, out, "s3cret")
	out, code = run(t, "snapshot-api.sh", stateIn(t, t.TempDir()), "SNAPSHOT_URL="+url, "ENTRYPOINT_FROM_VERSION="+hostileName)
	require.Zero(t, code, out)
	assert.Equal(t, request{"POST", "application/json", "", map[string]any{"name": "v\"0\\ $(id)`id` 世界-100", "height": 100.0}}, <-asked)
}

func TestUpgradeWaitsForASnapshotThatFails(t *testing.T) {
	url, asked := server(t, http.StatusForbidden)
	out, code := run(t, "snapshot-api.sh", stateIn(t, t.TempDir()), "SNAPSHOT_URL="+url)
	assert.NotZero(t, code)
	assert.Contains(t, out, "403")
	assert.NotContains(t, out, "snapshot taken")
	assert.Len(t, asked, 1)
	_, code = run(t, "snapshot-api.sh", stateIn(t, t.TempDir()))
	assert.NotZero(t, code, "without an address")
}

func TestWebhookNeverHoldsAnUpgrade(t *testing.T) {
	url, asked := server(t, http.StatusOK)
	out, code := run(t, "webhook.sh", "/state", "WEBHOOK_URL="+url, "ENTRYPOINT_FROM_VERSION="+hostileName)
	require.Zero(t, code, out)
	assert.Empty(t, out)
	q := <-asked
	assert.Equal(t, "POST", q.method)
	assert.Contains(t, q.body["text"], ": v\"0\\ $(id)`id` 世界 has reached its stop height 100, v1 follows")

	url, _ = server(t, http.StatusInternalServerError)
	out, code = run(t, "webhook.sh", "/state", "WEBHOOK_URL="+url)
	assert.Zero(t, code, out)
	assert.Contains(t, out, "the webhook did not answer; the upgrade continues")
	out, code = run(t, "webhook.sh", "/state", "WEBHOOK_URL=http://127.0.0.1:1/")
	assert.Zero(t, code, out)
	assert.Contains(t, out, "the upgrade continues")
}
