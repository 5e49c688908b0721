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
	for args, want := range map[string]string{
		"--imag x":                         "unknown flag: --imag",
		"--file FILE x":                    `unexpected argument "x"`,
		"--file DIR/none":                  "no such file",
		"--file DIR":                       "is no regular file",
		"--file FILE --state FILE":         "is no folder",
		"--file FILE --plan DIR/none":      "no such file",
		"--file FILE --nodes=":             "--nodes is empty",
		"--file FILE --stall 0s":           "must be above 0",
		"--file FILE --timeout -1s":        "must be above 0",
		"--file FILE --node-plan x=a":      `"x", which is none of --nodes`,
		"--file FILE --wipe-too sequencer": `"sequencer" is a node`,
	} {
		args = strings.NewReplacer("FILE", file, "DIR", dir).Replace(args)
		var stderr bytes.Buffer
		require.Equal(t, exitUsage, rehearse(strings.Fields(args), io.Discard, &stderr), args)
		require.Contains(t, stderr.String(), want, args)
	}
}

func TestSnapshotSaysWithWhichVersionTheNodesBegin(t *testing.T) {
	for checkpoint, want := range map[string]any{
		"": 0,
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
		file := filepath.Join(dir, "compose.yaml")
		require.NoError(t, os.WriteFile(file, []byte("services: {}\n"), 0o644))
		if checkpoint != "" {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint.json"), []byte(checkpoint), 0o644))
		}
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

func TestHelpListsFlagsAndExitCodes(t *testing.T) {
	var stdout bytes.Buffer
	_, err := parse([]string{"--help"}, &stdout)
	require.True(t, errors.Is(err, pflag.ErrHelp))
	require.Contains(t, stdout.String(), "--node-plan")
	require.Contains(t, stdout.String(), "69 cannot be carried out")
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
