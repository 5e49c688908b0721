package images

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Place is where a program is to run. The zero value is this process's own root and machine, without any variable.
type Place struct {
	// Root is the directory that is the root of the image; empty for our own.
	Root string
	// Arch is the machine, as GOARCH names it; empty for ours.
	Arch string
	// Path and LibraryPath are the values that PATH and LD_LIBRARY_PATH will have.
	Path, LibraryPath string
}

// linkLimit is how many symbolic links the kernel follows.
const linkLimit = 40

// real gives the file that name stands for in the root. In our own the kernel finds it; in another one no link and no
// ".." leads out of it.
func (p *Place) real(name string) (string, error) {
	if p.Root == "" {
		return name, nil
	}
	here, rest := "/", name
	for links := 0; ; {
		rest = strings.TrimLeft(rest, "/")
		if rest == "" {
			return filepath.Join(p.Root, here), nil
		}
		var step string
		step, rest, _ = strings.Cut(rest, "/")
		next := filepath.Join(here, step) // of an absolute path it goes no higher than the root
		target, err := os.Readlink(filepath.Join(p.Root, next))
		if err != nil {
			here = next
			continue
		}
		if links++; links > linkLimit {
			return "", &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP}
		}
		if filepath.IsAbs(target) {
			here = "/"
		}
		rest = target + "/" + rest
	}
}

// errNotRegular: a directory, a pipe or a device.
var errNotRegular = errors.New("it is no regular file")

// open opens a regular file. A pipe or a device is not waited for.
func (p *Place) open(name string) (*os.File, int64, error) {
	path, err := p.real(name)
	if err != nil {
		return nil, 0, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // the caller only looks at its kind
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

// head is the beginning of a file, at most limit bytes; nothing where it cannot be read.
func (p *Place) head(name string, limit int64) string {
	file, _, err := p.open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(file, limit)) // what cannot be read is not there for the loader either
	return string(text)
}

// executable returns nil for a regular file that this process may execute.
func (p *Place) executable(name string) error {
	path, err := p.real(name)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err //nolint:wrapcheck // the caller only looks at its kind
	}
	if !info.Mode().IsRegular() {
		return errNotRegular
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) //nolint:wrapcheck // as above
}
