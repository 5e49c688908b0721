package lookpath

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFind(t *testing.T) {
	root := t.TempDir()
	write := func(name string, mode os.FileMode) string {
		file := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"), mode))
		return file
	}
	write("a/tool", 0o644)
	inB := write("b/tool", 0o755)
	write("c/tool", 0o755)
	write("a/locked", 0o644)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "a/folder"), 0o755))
	require.NoError(t, os.Symlink(inB, filepath.Join(root, "a/linked")))
	write("here", 0o755)
	t.Chdir(root)
	a, b, c := filepath.Join(root, "a"), filepath.Join(root, "b"), filepath.Join(root, "c")

	for _, test := range []struct {
		about, name, path, want string
		is                      error
	}{
		{"a name with a slash is not looked up", "./no/such", b, "./no/such", nil},
		{"the first directory wins", "tool", b + ":" + c, inB, nil},
		{"a file that is not executable is passed over", "tool", a + ":" + b, inB, nil},
		{"a link is followed", "linked", a, a + "/linked", nil},
		{"an empty directory is the working directory", "here", a + "::" + b, "./here", nil},
		{"a relative directory stays relative", "tool", "b", "b/tool", nil},
		{"a missing directory is passed over", "tool", root + "/none:" + b, inB, nil},
		{"only a file that is not executable", "locked", a + ":" + b, "", fs.ErrPermission},
		{"a folder is no command", "folder", a, "", fs.ErrNotExist},
		{"nothing", "nothing", a + ":" + b, "", fs.ErrNotExist},
		{"an empty path", "tool", "", "", fs.ErrNotExist},
		{"an empty name", "", a, "", fs.ErrNotExist},
	} {
		t.Run(test.about, func(t *testing.T) {
			got, err := Find(test.name, test.path)
			require.ErrorIs(t, err, test.is)
			require.Equal(t, test.want, got)
			if test.is != nil && test.name != "" {
				require.ErrorContains(t, err, "PATH="+test.path)
			}
		})
	}
}
