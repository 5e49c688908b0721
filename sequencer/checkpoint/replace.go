package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
)

// replace makes text the content of the file at path, durably, with the rights of the file that is there, or those of
// like. A new file inherits them.
func replace(path string, text []byte, like fs.FileInfo) error {
	if there, err := os.Lstat(path); err == nil && there.Mode().IsRegular() {
		like = there
	}
	rights := inheritRights
	if like != nil {
		rights = rightsOf(like).give
	}
	return durable.Replace(path, text, rights) //nolint:wrapcheck // it names the file
}

// makeDir makes the directory dir, and the missing ones above it, durably.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the storage directory: %w", err)
	}
	made, err := openDir(dir)
	if err != nil {
		return fmt.Errorf("cannot open the new storage directory: %w", err)
	}
	defer made.Close()
	if err := inheritRights(made); err != nil {
		return err
	}
	return durable.SyncDir(parent) //nolint:wrapcheck // it names the directory
}

// openDir opens a directory, and nothing else: the open of a named pipe would wait for its other end.
func openDir(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) //nolint:wrapcheck // the caller says what it was for
}

// ResolveLinks gives the one name of a file: absolute and without symbolic links, even if the file does not exist yet.
// Like the kernel it follows a link before it applies "..".
func ResolveLinks(path string) string {
	if dir, err := os.Getwd(); err == nil && !filepath.IsAbs(path) {
		path = dir + "/" + path
	}
	for range 40 { // the kernel follows no more
		dir, name := filepath.Split(path)
		above := strings.TrimRight(dir, "/")
		dir, err := filepath.EvalSymlinks(cmp.Or(dir, "."))
		if errors.Is(err, fs.ErrNotExist) && above != "" {
			return filepath.Join(ResolveLinks(above), name) // it is made later, in the directory that the links above lead to
		}
		if err != nil {
			return path
		}
		path = filepath.Join(dir, name)
		target, err := os.Readlink(path)
		if err != nil {
			return path
		}
		if !filepath.IsAbs(target) {
			target = dir + "/" + target
		}
		path = target
	}
	return path
}

// SameFile reports whether two names are of one file or directory, which is there.
func SameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
