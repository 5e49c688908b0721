// Package regularfile opens the files that people name in a config or on the command line, and nothing but regular
// files: a FIFO or a device by that name would keep its reader waiting forever. It answers at once. It follows symbolic
// links, as configs and secrets are mounted by them, unless it is asked not to, and it never makes a file.
package regularfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is what the errors of Open and Check match if what has that name is not a regular file.
var ErrNotRegular = errors.New("want a regular file")

func notRegular(what string) error { return fmt.Errorf("it is %s, %w", what, ErrNotRegular) }

// Check returns nil for a regular file, and otherwise an error that matches ErrNotRegular and says what it is.
func Check(mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return notRegular("a directory")
	case mode&fs.ModeNamedPipe != 0:
		return notRegular("a FIFO")
	case mode&fs.ModeSocket != 0:
		return notRegular("a socket")
	case mode&fs.ModeSymlink != 0:
		return notRegular("a symbolic link")
	case mode&fs.ModeDevice != 0:
		return notRegular("a device")
	}
	return notRegular("something else")
}

// Open opens the regular file at path for reading. Its errors name the operation and the path.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY) }

// OpenFile is Open with flags of open(2). With O_NOFOLLOW a symbolic link at path is not a regular file.
func OpenFile(path string, flags int) (*os.File, error) {
	stat := os.Stat
	if flags&unix.O_NOFOLLOW != 0 {
		stat = os.Lstat
	}
	// Before it is opened: opening a socket fails with words that help nobody, and opening some devices does something.
	info, err := stat(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: underlying(err)}
	}
	if err := Check(info.Mode()); err != nil {
		if info.IsDir() && IsEmptyDirectory(path) {
			err = fmt.Errorf("%w: Docker makes one if the source of a bind mount is missing on the host", notRegular("an empty directory"))
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	// Something else may have that name by now, so it is still opened without waiting, and looked at again.
	file, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EWOULDBLOCK) {
		// Another process has a lease on it (fcntl(2)), as file servers take them. It is given back at once, or by the
		// kernel within the time of /proc/sys/fs/lease-break-time.
		file, err = os.OpenFile(path, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	info, err = file.Stat()
	if err == nil {
		err = Check(info.Mode())
	}
	if err != nil {
		file.Close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return file, nil
}

// IsEmptyDirectory reports whether path is a directory without entries.
func IsEmptyDirectory(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) == 0
}

// Read gives the content of the regular file at path, if that has at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	file, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("the file is too large: more than %d bytes", limit)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: underlying(err)}
	}
	return text, nil
}

// underlying leaves out the path, which the caller names.
func underlying(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
