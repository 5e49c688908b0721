package preflight

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
)

const (
	goodConfig = "[storage]\npath = \"state\"\n[runner.http_config]\nbind_port = 12346\n"
	// helloDigest is what sha256sum prints for "hello".
	helloDigest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
)

// deck is a directory with files for a plan.
func deck(t *testing.T) (dir string, write func(name, text string, mode fs.FileMode) string) {
	t.Helper()
	dir = t.TempDir()
	return dir, func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
}

func TestFilesOfAVersionAreCheckedAllAtOnce(t *testing.T) {
	dir, write := deck(t)
	t.Setenv("PATH", dir+":/nowhere")
	good := write("good", "#!/bin/sh\n", 0o755)
	config := write("config.toml", goodConfig, 0o644)
	plain := write("plain", "#!/bin/sh\n", 0o644)
	empty := write("empty", "", 0o755)
	require.NoError(t, os.Symlink(good, dir+"/link"))
	require.NoError(t, os.Symlink("nowhere", dir+"/broken-link"))
	require.NoError(t, unix.Mkfifo(dir+"/pipe", 0o755))
	user := strconv.Itoa(os.Getuid())

	for _, test := range []struct {
		name    string
		version sequencer.Version
		want    sequencer.Problems
	}{
		{"good", sequencer.Version{Binary: good, Config: config}, nil},
		{"good, with a migration", sequencer.Version{Binary: good, Migration: good, Config: config}, nil},
		{"a binary by a link", sequencer.Version{Binary: dir + "/link", Config: config}, nil},
		{"a binary from PATH", sequencer.Version{Binary: "good", Config: config}, nil},
		{"no binary", sequencer.Version{Binary: dir + "/none", Config: config}, sequencer.Problems{"version 1: rollup_binary: stat " + dir + "/none: no such file or directory"}},
		{"a binary by a broken link", sequencer.Version{Binary: dir + "/broken-link", Config: config}, sequencer.Problems{
			"version 1: rollup_binary: stat " + dir + "/broken-link: no such file or directory",
		}},
		{"no binary in PATH", sequencer.Version{Binary: "none", Config: config}, sequencer.Problems{
			`version 1: rollup_binary: cannot find "none" in PATH=` + dir + ":/nowhere: file does not exist",
		}},
		{"a binary in PATH that is not executable", sequencer.Version{Binary: "plain", Config: config}, sequencer.Problems{
			"version 1: rollup_binary: cannot execute " + plain + `, the only match for "plain" in PATH=` + dir + ":/nowhere: permission denied",
		}},
		{"a directory", sequencer.Version{Binary: dir, Config: config}, sequencer.Problems{"version 1: rollup_binary: cannot execute " + dir + ": it is a directory, want a regular file"}},
		{"a pipe", sequencer.Version{Binary: dir + "/pipe", Config: config}, sequencer.Problems{"version 1: rollup_binary: cannot execute " + dir + "/pipe: it is a FIFO, want a regular file"}},
		{"an empty binary", sequencer.Version{Binary: empty, Config: config}, sequencer.Problems{"version 1: rollup_binary: " + empty + " is empty, want a program"}},
		{"a binary that is not executable", sequencer.Version{Binary: plain, Config: config}, sequencer.Problems{
			"version 1: rollup_binary: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
		}},
		{"a named version", sequencer.Version{Name: "osaka", Binary: empty, Config: config}, sequencer.Problems{
			`version "osaka" (index 1): rollup_binary: ` + empty + " is empty, want a program",
		}},
		{"a hook from PATH", sequencer.Version{Binary: good, Config: config, Before: []string{"good", "none"}}, nil},
		{"a hook that is not executable", sequencer.Version{Binary: good, Config: config, Before: []string{plain}}, sequencer.Problems{
			"version 1: before: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
		}},
		{"a retired version", sequencer.Version{Retired: true}, nil},
		{"nothing is good", sequencer.Version{Binary: empty, Migration: plain, Config: dir + "/none.toml"}, sequencer.Problems{
			"version 1: rollup_binary: " + empty + " is empty, want a program",
			"version 1: migration_path: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
			"version 1: config_path: cannot read the node config: open " + dir + "/none.toml: no such file or directory",
		}},
		{"FIFOs everywhere", sequencer.Version{Binary: dir + "/pipe", Migration: dir + "/pipe", Config: dir + "/pipe", Args: []string{"--genesis-path", dir + "/pipe"}}, sequencer.Problems{
			"version 1: rollup_binary: cannot execute " + dir + "/pipe: it is a FIFO, want a regular file",
			"version 1: migration_path: cannot execute " + dir + "/pipe: it is a FIFO, want a regular file",
			"version 1: config_path: cannot read the node config: open " + dir + "/pipe: it is a FIFO, want a regular file",
			"version 1: args: cannot read the genesis: open " + dir + "/pipe: it is a FIFO, want a regular file",
		}},
		{"a genesis that is missing", sequencer.Version{Binary: good, Config: config, Args: []string{"--genesis-path=" + dir + "/none"}}, nil},
		{"a config without a port", sequencer.Version{Binary: good, Config: write("portless.toml", "[runner]\n", 0o644)}, sequencer.Problems{
			"version 1: config_path: " + dir + "/portless.toml: runner.http_config.bind_port is missing: the node is asked for its height on that port",
		}},
		{"a binary for a config", sequencer.Version{Binary: good, Config: good}, sequencer.Problems{
			"version 1: config_path: " + good + ": runner.http_config.bind_port is missing: the node is asked for its height on that port",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := &sequencer.Plan{Versions: []sequencer.Version{{Binary: "/not/looked/at"}, test.version}}
			var got sequencer.Problems
			for _, f := range New(plan).Version(t.Context(), 1, sequencer.FilesOnly) {
				f.Next = ""
				got = append(got, f.Text(plan))
			}
			assert.Equal(t, test.want, got)
		})
	}
}

func TestBinaryOnAVolumeWithoutExecutionIsFound(t *testing.T) {
	dir := t.TempDir()
	mountOrSkip(t, "none", dir, "tmpfs", unix.MS_NOEXEC, "size=64k")
	binary := filepath.Join(dir, "rollup")
	require.NoError(t, os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755)) //nolint:gosec // a program
	_, err := checkExecutable(binary)
	assert.ErrorContains(t, err, binary+" is not executable for user ")
}

// withBinary inspects a plan of one version.
func withBinary(name string) *Inspection {
	return New(&sequencer.Plan{Versions: []sequencer.Version{{Binary: name}}})
}

func TestDigestIsTheSHA256OfTheBinary(t *testing.T) {
	dir, write := deck(t)
	t.Setenv("PATH", dir)
	path := write("hello", "hello", 0o755)
	for _, name := range []string{path, "hello"} {
		sum, err := withBinary(name).Digest(0)
		require.NoError(t, err)
		assert.Equal(t, helloDigest, sum)
	}
}

// The change time of a file cannot be set, so a file that was replaced is noticed whatever its size and its other times.
func TestDigestIsThatOfTheFileThatIsThereNow(t *testing.T) {
	_, write := deck(t)
	path := write("hello", "hello", 0o755)
	info, err := os.Stat(path)
	require.NoError(t, err)
	n := withBinary(path)
	digest := func() string {
		sum, err := n.Digest(0)
		require.NoError(t, err)
		return sum
	}
	require.Equal(t, helloDigest, digest())
	write("hello", "HELLO", 0o755)
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	assert.NotEqual(t, helloDigest, digest(), "same name, size and time, other content")

	write("other", "hello", 0o755)
	require.NoError(t, os.Rename(filepath.Join(filepath.Dir(path), "other"), path))
	assert.Equal(t, helloDigest, digest(), "another file was renamed over it")
	write("longer", "hello!", 0o755)
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("longer", path))
	assert.NotEqual(t, helloDigest, digest(), "a link to another file")
}

func TestDigestOfWhatCannotBeReadIsAnError(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o755))
	for _, test := range []struct{ name, binary, want string }{
		{"absent", dir + "/none", "cannot read the binary: open " + dir + "/none: no such file or directory"},
		{"not in PATH", "none", `cannot find the binary: cannot find "none" in PATH=` + dir + ": file does not exist"},
		{"a directory", dir, "cannot read the binary: open " + dir + ": it is a directory, want a regular file"},
		{"a FIFO", fifo, "cannot read the binary: open " + fifo + ": it is a FIFO, want a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sum, err := withBinary(test.binary).Digest(0)
			require.EqualError(t, err, test.want)
			assert.Empty(t, sum)
		})
	}
}

func TestDigestsCanBeAskedFromSeveralGoroutines(t *testing.T) {
	_, write := deck(t)
	one, two := write("one", "hello", 0o755), write("two", strings.Repeat("x", 1<<20), 0o755)
	n := New(&sequencer.Plan{Versions: []sequencer.Version{{Binary: one}, {Binary: two}}})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			sum, err := n.Digest(0)
			assert.NoError(t, err)
			assert.Equal(t, helloDigest, sum)
			_, err = n.Digest(1)
			assert.NoError(t, err)
		})
	}
	all.Wait()
}
