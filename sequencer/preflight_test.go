package sequencer

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	goodConfig = "[storage]\npath = \"state\"\n[runner.http_config]\nbind_port = 12346\n"
	// helloDigest is what sha256sum says of "hello".
	helloDigest = someDigest
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
		version Version
		want    Problems
	}{
		{"good", Version{Binary: good, Config: config}, nil},
		{"good, with a migration", Version{Binary: good, Migration: good, Config: config}, nil},
		{"a binary by a link", Version{Binary: dir + "/link", Config: config}, nil},
		{"a binary from PATH", Version{Binary: "good", Config: config}, nil},
		{"no binary", Version{Binary: dir + "/none", Config: config}, Problems{"version 1: rollup_binary: stat " + dir + "/none: no such file or directory"}},
		{"a binary by a broken link", Version{Binary: dir + "/broken-link", Config: config}, Problems{
			"version 1: rollup_binary: stat " + dir + "/broken-link: no such file or directory",
		}},
		{"no binary in PATH", Version{Binary: "none", Config: config}, Problems{
			`version 1: rollup_binary: cannot find "none" in PATH=` + dir + ":/nowhere: file does not exist",
		}},
		{"a binary in PATH that is not executable", Version{Binary: "plain", Config: config}, Problems{
			"version 1: rollup_binary: cannot execute " + plain + `, the only match for "plain" in PATH=` + dir + ":/nowhere: permission denied",
		}},
		{"a directory", Version{Binary: dir, Config: config}, Problems{"version 1: rollup_binary: " + dir + " is a directory, want a program"}},
		{"a pipe", Version{Binary: dir + "/pipe", Config: config}, Problems{"version 1: rollup_binary: " + dir + "/pipe is no regular file, want a program"}},
		{"an empty binary", Version{Binary: empty, Config: config}, Problems{"version 1: rollup_binary: " + empty + " is empty, want a program"}},
		{"a binary that is not executable", Version{Binary: plain, Config: config}, Problems{
			"version 1: rollup_binary: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
		}},
		{"a named version", Version{Name: "osaka", Binary: empty, Config: config}, Problems{
			`version 1 ("osaka"): rollup_binary: ` + empty + " is empty, want a program",
		}},
		{"nothing is good", Version{Binary: empty, Migration: plain, Config: dir + "/none.toml"}, Problems{
			"version 1: rollup_binary: " + empty + " is empty, want a program",
			"version 1: migration_path: " + plain + " is not executable for user " + user + " (mode -rw-r--r--)",
			"version 1: config_path: cannot read the node config: open " + dir + "/none.toml: no such file or directory",
		}},
		{"a config without a port", Version{Binary: good, Config: write("portless.toml", "[runner]\n", 0o644)}, Problems{
			"version 1: config_path: " + dir + "/portless.toml: runner.http_config.bind_port is missing: the height of the node is asked on that port",
		}},
		{"a binary for a config", Version{Binary: good, Config: good}, Problems{
			"version 1: config_path: " + good + ": runner.http_config.bind_port is missing: the height of the node is asked on that port",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := &Plan{Versions: []Version{{Binary: "/not/looked/at"}, test.version}}
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

func TestDigestIsRememberedForAsLongAsTheFileIsTheSame(t *testing.T) {
	_, write := deck(t)
	path := write("hello", "hello", 0o755)
	info, err := os.Stat(path)
	require.NoError(t, err)
	stamp := info.ModTime()
	disk := &Disk{}
	digest := func() string {
		sum, err := disk.Digest(path)
		require.NoError(t, err)
		return sum
	}
	require.Equal(t, helloDigest, digest())

	write("hello", "HELLO", 0o755)
	require.NoError(t, os.Chtimes(path, stamp, stamp))
	assert.Equal(t, helloDigest, digest(), "same size and time: it is not read again")
	require.NoError(t, os.Chtimes(path, stamp, stamp.Add(time.Nanosecond)))
	assert.NotEqual(t, helloDigest, digest(), "another time: it is")
	write("hello", "hello", 0o755)
	require.NoError(t, os.Chtimes(path, stamp, stamp))
	require.Equal(t, helloDigest, digest())
	write("hello", "hello!", 0o755)
	require.NoError(t, os.Chtimes(path, stamp, stamp))
	assert.NotEqual(t, helloDigest, digest(), "another size: it is")
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

func TestEmptyStateIsKnownByTheNodesConfig(t *testing.T) {
	dir, write := deck(t)
	config := func(name, storage string) string {
		return write(name, storage+"[runner.http_config]\nbind_port = 12346\n", 0o644)
	}
	require.NoError(t, os.Mkdir(dir+"/full", 0o755))
	write("full/CURRENT", "x", 0o644)
	require.NoError(t, os.Mkdir(dir+"/state", 0o755))
	t.Chdir(dir)

	for _, test := range []struct {
		name, config string
		wantDir      string
		want         bool
	}{
		{"an empty directory", config("a.toml", "[storage]\npath = \"state\"\n"), dir + "/state", true},
		{"an absent directory", config("b.toml", "[storage]\npath = \""+dir+"/absent\"\n"), dir + "/absent", true},
		{"a state", config("c.toml", "[storage]\npath = \"./full\"\n"), dir + "/full", false},
		{"a file is no directory", config("d.toml", "[storage]\npath = \"full/CURRENT\"\n"), dir + "/full/CURRENT", false},
		{"no storage path", config("e.toml", ""), "", false},
		{"no config", dir + "/none.toml", "", false},
		{"a config that cannot be read", write("f.toml", "]", 0o644), "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, empty := (&Disk{}).EmptyState(test.config)
			assert.Equal(t, test.wantDir, got)
			assert.Equal(t, test.want, empty)
		})
	}
}

func TestCheckpointInTheStateDirectoryIsNoState(t *testing.T) {
	for _, test := range []struct {
		name  string
		files []string
		want  bool
	}{
		{"the checkpoint", []string{"checkpoint.json"}, true},
		{"its lock and the leftover of a write too", []string{"checkpoint.json", "checkpoint.json.lock", ".checkpoint.json4711"}, true},
		{"a state beside it", []string{"checkpoint.json", "CURRENT"}, false},
		{"a copy of it", []string{"checkpoint.json.bak"}, false},
		{"another dotfile", []string{".checkpoint.json"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, write := deck(t)
			config := write("config.toml", "storage.path = 'state'\nrunner.http_config.bind_port = 1\n", 0o644)
			require.NoError(t, os.Mkdir(dir+"/state", 0o755))
			for _, name := range test.files {
				write("state/"+name, "x", 0o644)
			}
			t.Chdir(dir)
			for _, checkpoint := range []string{"state/checkpoint.json", "./state/../state/checkpoint.json", dir + "/state/checkpoint.json"} {
				_, empty := (&Disk{Checkpoint: checkpoint}).EmptyState(config)
				assert.Equal(t, test.want, empty, checkpoint)
			}
			for _, checkpoint := range []string{"", "checkpoint.json", dir + "/checkpoint.json", dir + "/state"} {
				_, empty := (&Disk{Checkpoint: checkpoint}).EmptyState(config)
				assert.False(t, empty, "with the checkpoint %q it is somebody else's file", checkpoint)
			}
		})
	}
}
