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
		{"a directory", sequencer.Version{Binary: dir, Config: config}, sequencer.Problems{"version 1: rollup_binary: " + dir + " is a directory, want a program"}},
		{"a pipe", sequencer.Version{Binary: dir + "/pipe", Config: config}, sequencer.Problems{"version 1: rollup_binary: " + dir + "/pipe is no regular file, want a program"}},
		{"an empty binary", sequencer.Version{Binary: empty, Config: config}, sequencer.Problems{"version 1: rollup_binary: " + empty + " is empty, want a program"}},
		{"a binary that is not executable", sequencer.Version{Binary: plain, Config: config}, sequencer.Problems{
			"version 1: rollup_binary: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
		}},
		{"a named version", sequencer.Version{Name: "osaka", Binary: empty, Config: config}, sequencer.Problems{
			`version 1 ("osaka"): rollup_binary: ` + empty + " is empty, want a program",
		}},
		{"nothing is good", sequencer.Version{Binary: empty, Migration: plain, Config: dir + "/none.toml"}, sequencer.Problems{
			"version 1: rollup_binary: " + empty + " is empty, want a program",
			"version 1: migration_path: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
			"version 1: config_path: cannot read the node config: open " + dir + "/none.toml: no such file or directory",
		}},
		{"a config without a port", sequencer.Version{Binary: good, Config: write("portless.toml", "[runner]\n", 0o644)}, sequencer.Problems{
			"version 1: config_path: " + dir + "/portless.toml: runner.http_config.bind_port is missing: the height of the node is asked on that port",
		}},
		{"a binary for a config", sequencer.Version{Binary: good, Config: good}, sequencer.Problems{
			"version 1: config_path: " + good + ": runner.http_config.bind_port is missing: the height of the node is asked on that port",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := &sequencer.Plan{Versions: []sequencer.Version{{Binary: "/not/looked/at"}, test.version}}
			assert.Equal(t, test.want, (&Disk{}).Check(plan, 1))
		})
	}
}

func TestBinaryOnAVolumeWithoutExecutionIsFound(t *testing.T) {
	dir := t.TempDir()
	mountOrSkip(t, "none", dir, "tmpfs", unix.MS_NOEXEC, "size=64k")
	binary := filepath.Join(dir, "rollup")
	require.NoError(t, os.WriteFile(binary, []byte("#!/bin/sh\n"), 0o755)) //nolint:gosec // a program
	assert.ErrorContains(t, checkExecutable(binary), binary+" is not executable for user ")
}

func TestDigestIsTheSHA256OfTheBinary(t *testing.T) {
	dir, write := deck(t)
	t.Setenv("PATH", dir)
	path := write("hello", "hello", 0o755)
	disk := &Disk{}
	for _, name := range []string{path, "hello"} {
		sum, err := disk.Digest(name)
		require.NoError(t, err)
		assert.Equal(t, helloDigest, sum)
	}
}

// The change time of a file cannot be set, so a file that was replaced is noticed whatever its size and its other times.
func TestDigestIsRememberedForAsLongAsTheFileIsTheSame(t *testing.T) {
	_, write := deck(t)
	path := write("hello", "hello", 0o755)
	info, err := os.Stat(path)
	require.NoError(t, err)
	disk := &Disk{}
	digest := func() string {
		sum, err := disk.Digest(path)
		require.NoError(t, err)
		return sum
	}
	require.Equal(t, helloDigest, digest())
	was := disk.digests.known[path]
	require.Equal(t, helloDigest, digest())
	assert.Equal(t, was, disk.digests.known[path], "the same file is not read again")

	for changed := was.of.changed; changed == was.of.changed; { // its granularity is a few milliseconds
		write("hello", "HELLO", 0o755)
		require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		var now unix.Stat_t
		require.NoError(t, unix.Stat(path, &now))
		changed = now.Ctim
	}
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
	for _, test := range []struct{ name, binary, want string }{
		{"absent", dir + "/none", "cannot read the binary: open " + dir + "/none: no such file or directory"},
		{"not in PATH", "none", `cannot find the binary: cannot find "none" in PATH=` + dir + ": file does not exist"},
		{"a directory", dir, "cannot read the binary " + dir + ": read " + dir + ": is a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sum, err := (&Disk{}).Digest(test.binary)
			require.EqualError(t, err, test.want)
			assert.Empty(t, sum)
		})
	}
}

func TestDigestsCanBeAskedFromSeveralGoroutines(t *testing.T) {
	_, write := deck(t)
	one, two := write("one", "hello", 0o755), write("two", strings.Repeat("x", 1<<20), 0o755)
	disk := &Disk{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			sum, err := disk.Digest(one)
			assert.NoError(t, err)
			assert.Equal(t, helloDigest, sum)
			_, err = disk.Digest(two)
			assert.NoError(t, err)
		})
	}
	all.Wait()
}
