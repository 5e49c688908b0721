// Package lookpath finds a command in a search path, as execvp(3) does, without linking os/exec: a program that reaps
// every child must not have a second caller of wait4(2). It looks only at the path that it is given, keeps no cache,
// and starts nothing.
package lookpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Find returns the file that name means. A name with a slash is returned as it is, whether it exists or not: starting
// it will show that. Any other name is looked up in the colon-separated directories of path (the value of PATH), of
// which an empty one means the working directory; the first regular file that we may execute is returned.
//
// The error names PATH, and wraps [fs.ErrPermission] if only files that are not executable were found, otherwise
// [fs.ErrNotExist]: the exit codes 126 and 127 of a shell.
func Find(name, path string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("cannot find a command with an empty name: %w", fs.ErrNotExist)
	}
	if strings.Contains(name, "/") {
		return name, nil
	}
	refused := ""
	for _, dir := range filepath.SplitList(path) {
		// Not filepath.Join: it would turn "./name" into "name", which would be looked up once more.
		file := dir + "/" + name
		if dir == "" {
			file = "./" + name
		}
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if refused == "" && errors.Is(err, fs.ErrPermission) {
			refused = file
		}
	}
	if refused != "" {
		return "", fmt.Errorf("cannot execute %s, the only match for %q in PATH=%s: %w", refused, name, path, fs.ErrPermission)
	}
	return "", fmt.Errorf("cannot find %q in PATH=%s: %w", name, path, fs.ErrNotExist)
}

// executable returns nil for a regular file that this process may execute, with its effective ids.
func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fs.ErrNotExist
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}
