package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

func TestMistakesOnTheCommandLineAreNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "compose.yaml")
	require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "empty", "state"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "empty", "checkpoint.json"), []byte("{}"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "linked"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "linked", "state"), nil, 0o644))
	require.NoError(t, os.Symlink("state", filepath.Join(dir, "linked", "db")))
	for args, want := range map[string]string{
		"--imag x":                           "unknown flag: --imag",
		"--file FILE x":                      `unexpected argument "x"`,
		"--file DIR/none":                    "no such file",
		"--file DIR":                         "is not a regular file",
		"--file FILE --state FILE":           "is not a folder",
		"--file FILE --plan DIR/none":        "no such file",
		"--file FILE --nodes=":               "at least two",
		"--file FILE --nodes a":              "at least two",
		"--file FILE --nodes a,b,a":          `names "a" twice`,
		"--file FILE --api-port 0":           "--api-port 0 is not a port",
		"--file FILE --status-port 65536":    "--status-port 65536 is not a port",
		"--file FILE --node-plan replica-0=": "--node-plan has no file for replica-0",
		"--file FILE --report DIR":           "cannot write --report",
		"--file FILE --state DIR/empty":      "has no state",
		"--file FILE --state DIR/linked":     "db is a symbolic link",
		"--file FILE --stall 0s":             "must be above 0",
		"--file FILE --timeout -1s":          "must be above 0",
		"--file FILE --node-plan x=a":        `"x", which is not in --nodes`,
		"--file FILE --wipe-too sequencer":   `"sequencer" is a node`,
	} {
		args = strings.NewReplacer("FILE", file, "DIR", dir).Replace(args)
		var stderr bytes.Buffer
		require.Equal(t, exitUsage, rehearse(strings.Fields(args), io.Discard, &stderr), args)
		require.Contains(t, stderr.String(), want, args)
	}
}

func TestCheckpointOfASnapshotWithoutAStampSaysWithWhichVersionTheNodesBegin(t *testing.T) {
	for checkpoint, want := range map[string]any{
		`{"version_index": 0, "binary_path": "/v0"}`:          0,
		`{"version_index": 2, "phase": "running"}`:            2,
		`{"version_index": 2, "phase": "migrating"}`:          1,
		`{"version_index": 2, "phase": "finishing_previous"}`: 1,
		`{"version_index": 0, "phase": "finished"}`:           0,
		`{"version_index": 2`:                                 "unexpected end",
		`{"binary_path": "/v0"}`:                              "version_index is missing",
		`{"version_index": -1, "binary_path": "/v0"}`:         "version_index is missing or negative",
		`{"version_index": "1", "binary_path": "/v0"}`:        "cannot unmarshal",
	} {
		dir := t.TempDir()
		file := filepath.Join(t.TempDir(), "compose.yaml")
		require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state"), nil, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint.json"), []byte(checkpoint), 0o644))
		s, err := parse([]string{"--file", file, "--state", dir}, io.Discard)
		if problem, bad := want.(string); bad {
			require.ErrorContains(t, err, problem, checkpoint)
			require.ErrorContains(t, err, filepath.Join(dir, "checkpoint.json"), checkpoint)
			continue
		}
		require.NoError(t, err, checkpoint)
		require.Equal(t, want, s.first, checkpoint)
	}
}

func TestStampOfASnapshotSaysWithWhichVersionTheNodesBegin(t *testing.T) {
	for stamp, want := range map[string]any{
		`{"version_index": 0, "name": "v0"}`:                           0,
		`{"version_index": 2, "name": "v2"}`:                           2,
		`{"version_index": 2, "name": "v2", "migration": "completed"}`: 2,
		`{"version_index": 2, "name": "v2", "migration": "begun"}`:     1,
		`{"version_index": 2`:                                          "unexpected end",
		`{"name": "v0"}`:                                               "version_index is missing",
	} {
		dir := t.TempDir()
		file := filepath.Join(t.TempDir(), "compose.yaml")
		require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
		require.NoError(t, os.Mkdir(filepath.Join(dir, "state"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state", "db"), nil, 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state", "rollup-version.json"), []byte(stamp), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint.json"), []byte(`{"version_index": 1, "binary_path": "/v1"}`), 0o644), "the stamp counts")
		for _, other := range []string{"state.before-v1", "state.failed-v1"} { // an undo point, and what one has replaced
			require.NoError(t, os.Mkdir(filepath.Join(dir, other), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, other, "rollup-version.json"), []byte(stamp), 0o644))
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state.before-v1", "rollup-undo.json"), nil, 0o644))
		s, err := parse([]string{"--file", file, "--state", dir}, io.Discard)
		if problem, bad := want.(string); bad {
			require.ErrorContains(t, err, problem, stamp)
			continue
		}
		require.NoError(t, err, stamp)
		require.Equal(t, want, s.first, stamp)
	}
}

func TestSnapshotOfAnUnknownVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(t.TempDir(), "compose.yaml")
	require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "db"), nil, 0o644))
	_, err := parse([]string{"--file", file, "--state", dir}, io.Discard)
	require.ErrorContains(t, err, "the version that made it is unknown")
	for _, name := range []string{"state", "kept"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "rollup-version.json"), []byte(`{"version_index": 0}`), 0o644))
	}
	_, err = parse([]string{"--file", file, "--state", dir}, io.Discard)
	require.ErrorContains(t, err, "more than one state")
}

func TestSnapshotBehindASymbolicLinkIsFollowed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "compose.yaml")
	require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "monday"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "monday", "state"), nil, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "monday", "checkpoint.json"), []byte(`{"version_index": 0}`), 0o644))
	require.NoError(t, os.Symlink("monday", filepath.Join(dir, "newest")))
	s, err := parse([]string{"--file", file, "--state", filepath.Join(dir, "newest")}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "monday", filepath.Base(s.state))
}

func TestOldReportIsNotLeftForThatOfARehearsalThatDidNotHappen(t *testing.T) {
	dir := t.TempDir()
	file, old := filepath.Join(dir, "compose.yaml"), filepath.Join(dir, "report.json")
	require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
	require.NoError(t, os.WriteFile(old, []byte(`{"passed":true}`), 0o644))
	code := rehearse([]string{"--file", file, "--report", old, "--compose", "no-such-compose"}, io.Discard, io.Discard)
	require.Equal(t, exitUnavailable, code)
	text, err := os.ReadFile(old)
	require.NoError(t, err)
	require.Empty(t, text)
}

func TestHelpListsFlagsAndExitCodes(t *testing.T) {
	var stdout bytes.Buffer
	_, err := parse([]string{"--help"}, &stdout)
	require.True(t, errors.Is(err, pflag.ErrHelp))
	require.Contains(t, stdout.String(), "--node-plan")
	require.Contains(t, stdout.String(), "69 cannot run")
	require.Equal(t, exitPassed, rehearse([]string{"--help"}, io.Discard, io.Discard))
}

func TestSnapshotIsPackedForItsNewOwner(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "state", "deep"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint.json"), []byte("{}"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state", "deep", "db"), []byte("blocks"), 0o640))
	require.NoError(t, os.Symlink("checkpoint.json", filepath.Join(dir, "link")))
	var archive bytes.Buffer
	require.NoError(t, archiveFolder(dir, owner{65532, 0}, &archive))
	seen := map[string]string{}
	for reader := tar.NewReader(&archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Equal(t, 65532, header.Uid)
		require.Equal(t, 0, header.Gid)
		text, err := io.ReadAll(reader)
		require.NoError(t, err)
		seen[header.Name] = string(text)
	}
	require.Equal(t, map[string]string{"checkpoint.json": "{}", "state/": "", "state/deep/": "", "state/deep/db": "blocks"}, seen)
}

func TestPortsThatAreTakenAreNotChosen(t *testing.T) {
	chosen, err := freePorts(4, 11998)
	require.NoError(t, err)
	require.Len(t, chosen, 4)
	for _, port := range chosen {
		require.GreaterOrEqual(t, port, 20000)
		require.Less(t, port, 32000)
	}
}
