package images

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/regularfile"
)

// Place is where a program is to run. The zero value is this process's own root and machine, without any variable.
type Place struct {
	// Path and LibraryPath are the values that PATH and LD_LIBRARY_PATH will have.
	Path, LibraryPath string
	// root comes before each name, and goarch is the machine as GOARCH names it, if it is another one: both for tests.
	root, goarch string
}

// open opens a regular file. A pipe or a device is not waited for.
func (p *Place) open(name string) (*os.File, int64, error) {
	file, err := regularfile.Open(p.root + name)
	if err != nil {
		return nil, 0, err //nolint:wrapcheck // the caller only looks at its kind
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, 0, err //nolint:wrapcheck // as above
	}
	return file, info.Size(), nil
}

// head is the beginning of a file, at most limit bytes; nothing if it cannot be read.
func (p *Place) head(name string, limit int64) string {
	file, _, err := p.open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	text, _ := io.ReadAll(io.LimitReader(file, limit)) // what cannot be read does not exist for the loader either
	return string(text)
}

// executable returns nil for a regular file that this process may execute.
func (p *Place) executable(name string) error {
	info, err := os.Stat(p.root + name)
	if err != nil {
		return err //nolint:wrapcheck // the caller only looks at its kind
	}
	if err := regularfile.Check(info.Mode()); err != nil {
		return err //nolint:wrapcheck // as above
	}
	return unix.Faccessat(unix.AT_FDCWD, p.root+name, unix.X_OK, unix.AT_EACCESS) //nolint:wrapcheck // as above
}
