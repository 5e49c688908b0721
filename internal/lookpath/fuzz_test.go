package lookpath

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A command is found where os/exec finds it, which the program must not link.
func FuzzFind(f *testing.F) {
	root := f.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "c/tool": 0o755, "a/x": 0o755, "b/locked": 0o600, "c/tool tip": 0o755} {
		file := filepath.Join(root, name)
		require.NoError(f, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(f, os.WriteFile(file, nil, mode))
		require.NoError(f, os.Chmod(file, mode))
	}
	require.NoError(f, os.Mkdir(filepath.Join(root, "a/folder"), 0o755))
	require.NoError(f, os.Symlink("../b/tool", filepath.Join(root, "a/link")))
	require.NoError(f, os.Symlink("nowhere", filepath.Join(root, "a/dangling")))

	// In a path "@" stands for the directory with these files.
	for _, seed := range [][2]string{
		{"tool", "@/a:@/b"},
		{"tool", "@/c::@/b"},
		{"tool", ""},
		{"./tool", "@/b"},
		{"", "@/a"},
		{"folder", "@/a:@/b"},
		{"link", "@/b:@/a/"},
		{"dangling", "@/a"},
		{"locked", "@/a:@/b"},
		{"tool tip", "@/a:@/none:@/../@/c:@/c"},
		{"..", "@/a"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, path string) {
		path = strings.ReplaceAll(path, "@", root)
		got, err := Find(name, path)
		if strings.Contains(name, "/") {
			if got != name || err != nil {
				t.Fatalf("%q was looked up: %q, %v", name, got, err)
			}
			return
		}
		if os.Setenv("PATH", path) != nil {
			return // a NUL byte, which no environment has
		}
		want, wantErr := exec.LookPath(name)
		if errors.Is(wantErr, exec.ErrDot) { // a relative directory, which execvp(3) does not mind
			wantErr = nil
		}
		switch {
		case (err == nil) != (wantErr == nil):
			t.Fatalf("found %q, %v, want %q, %v", got, err, want, wantErr)
		case err == nil && filepath.Clean(got) != filepath.Clean(want):
			t.Fatalf("found %q, want %q", got, want)
		case err == nil && !strings.Contains(got, "/"):
			t.Fatalf("%q would be looked up once more", got)
		case err != nil && errors.Is(err, fs.ErrPermission) == errors.Is(err, fs.ErrNotExist):
			t.Fatalf("%v is not one of the two reasons", err)
		case err != nil && got != "":
			t.Fatalf("%q with error %v", got, err)
		}
	})
}
