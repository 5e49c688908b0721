package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The usual mistake with a volume: it belongs to root, and the image has another user.
func TestCheckAsAnotherUserFindsTheVolumeThatItCannotWrite(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		missing(t, "this test needs root, to become another user")
	}
	dir := t.TempDir()
	for _, open := range []string{filepath.Dir(dir), dir} {
		require.NoError(t, os.Chmod(open, 0o755))
	}
	program, config := filepath.Join(dir, "entrypoint"), filepath.Join(dir, "manager.json")
	require.NoError(t, copyProgram(programs.entrypoint, program, ""))
	require.NoError(t, os.WriteFile(config, []byte(`[{"rollup_binary": "`+program+`", "config_path": "`+dir+`/node.toml"}]`), 0o644))
	require.NoError(t, os.WriteFile(dir+"/node.toml", []byte("storage.path = '"+dir+"/data/state'\nrunner.http_config.bind_port = 1\n"), 0o644))
	require.NoError(t, os.Mkdir(dir+"/data", 0o755))
	check := func() (string, int) {
		cmd := exec.Command(program, "check", "-c", config, "-f", dir+"/data/checkpoint.json")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		return strings.Join(strings.Fields(string(out)), " "), exitCode(err)
	}
	out, code := check()
	assert.Equal(t, 78, code)
	assert.Contains(t, out, "the checkpoint cannot be written in "+dir+"/data: permission denied")
	assert.Contains(t, out, "mount a volume there that user 65534 may write")

	require.NoError(t, os.Chown(dir+"/data", 65534, 65534))
	out, code = check()
	assert.Zero(t, code, out)
	entries, err := os.ReadDir(dir + "/data")
	require.NoError(t, err)
	assert.Empty(t, entries, "nothing is made")
}

// An image FROM scratch with a program that wants a loader: the kernel says that there is no such file, and does so at the
// fork height.
func TestCheckInAnImageWithoutALoaderSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		missing(t, "this test needs root, to change the root directory")
	}
	root := t.TempDir()
	buildStatic(t, root+"/entrypoint", "entrypoint")
	require.NoError(t, copyProgram(programs.nodes[0], root+"/static", ""))
	require.NoError(t, copyProgram("/bin/sh", root+"/dynamic", ""))
	require.NoError(t, writeExecutable(root+"/migration", []byte("#!/bin/bash\n")))
	require.NoError(t, os.WriteFile(root+"/manager.json", []byte(`[
		{"rollup_binary": "/static", "config_path": "/node.toml", "stop_height": 10},
		{"rollup_binary": "/dynamic", "migration_path": "/migration", "config_path": "/node.toml", "start_height": 11}
	]`), 0o644))
	require.NoError(t, os.WriteFile(root+"/node.toml", []byte("storage.path = '/state'\nrunner.http_config.bind_port = 1\n"), 0o644))
	inside := func(argv ...string) (string, error) {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Chroot: root}
		out, err := cmd.CombinedOutput()
		return strings.Join(strings.Fields(string(out)), " "), err
	}
	_, err := inside("/dynamic")
	require.ErrorIs(t, err, syscall.ENOENT, "this is all that the kernel says")

	out, err := inside("/entrypoint", "check", "-c", "/manager.json")
	assert.Equal(t, 78, exitCode(err))
	assert.Contains(t, out, "error v1 rollup_binary: /dynamic needs the dynamic loader /lib")
	assert.Contains(t, out, `, which does not exist: the kernel would report "no such file or directory" for the program → it was built for glibc`)
	assert.Contains(t, out, "error v1 migration_path: the interpreter /bin/bash, named in the #! line of /migration, does not exist →")
	assert.NotContains(t, out, "/static")
}
