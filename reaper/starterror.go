package reaper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// startError says in words why a command could not be started.
type startError struct {
	path     string
	reason   string
	notFound bool // the command itself does not exist
	err      error
}

// Error names the command and what is wrong with it.
func (e *startError) Error() string { return "cannot start " + e.path + ": " + e.reason }

// Unwrap returns the system's error.
func (e *startError) Unwrap() error { return e.err }

// ExitCodeForStartError returns the exit code that shells use for a command that could not be started: 127 if it does
// not exist, 126 for every other reason. It knows the errors of Start and Exec, and those of a search in PATH.
func ExitCodeForStartError(err error) int {
	var e *startError
	if errors.As(err, &e) {
		if e.notFound {
			return 127
		}
		return 126
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 127
	}
	return 126
}

// explainStart turns an error of the start into words: the kernel says ENOENT also if the file exists and what it needs
// to run does not (execve(2)).
func explainStart(cmd Command, err error) error {
	e := &startError{path: cmd.Path, err: err}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		e.reason = err.Error()
		return e
	}
	file := cmd.Path
	if cmd.Dir != "" && !filepath.IsAbs(file) {
		file = filepath.Join(cmd.Dir, file)
	}
	info, statErr := os.Stat(file)
	switch {
	case cmd.Dir != "" && !isDir(cmd.Dir):
		e.reason = fmt.Sprintf("its working directory %s does not exist", cmd.Dir)
	case errno == unix.ENOENT && statErr != nil:
		e.reason, e.notFound = "no such file", true
	case errno == unix.ENOENT:
		e.reason = missingInterpreter(file)
	case errno == unix.EACCES && statErr == nil && info.IsDir():
		e.reason = "it is a directory"
	case errno == unix.EACCES:
		e.reason = "permission denied: it is not executable for us, or its file system is mounted noexec"
	case errno == unix.ENOEXEC:
		e.reason = "it is no program for this machine: it has no #! line, or was built for another kind of machine"
	default:
		e.reason = errno.Error()
	}
	return e
}

// isDir reports whether the directory can be seen.
func isDir(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// missingInterpreter says what is missing for a file that exists, although the kernel found that something does not.
func missingInterpreter(file string) string {
	head := make([]byte, 256)
	f, err := os.Open(file)
	if err == nil {
		defer f.Close()
		n, _ := f.Read(head)
		head = head[:n]
	}
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		interpreter, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		return fmt.Sprintf("the file exists, but %q, named in its #! line, does not", interpreter)
	}
	return "the file exists, but the dynamic loader that it needs does not: it was built for another C library, or for an image that has one"
}
