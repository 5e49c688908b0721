package reaper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// startError says why a command could not be started.
type startError struct {
	path   string
	reason string
	code   int
	err    error
}

// Error names the command and what is wrong with it.
func (e *startError) Error() string { return "cannot start " + e.path + ": " + e.reason }

// Unwrap returns the system's error.
func (e *startError) Unwrap() error { return e.err }

// The exit codes for a command that could not be started: those of shells, and EX_TEMPFAIL of sysexits.h.
const (
	codePassing       = 75
	codeNotExecutable = 126
	codeNotFound      = 127
)

// ExitCodeForStartError returns the exit code for a command that could not be started: 127 if it does not exist, 75 if
// the reason is temporary, 126 for every other reason. It takes the errors of Start and Exec, and those of a search in
// PATH.
func ExitCodeForStartError(err error) int {
	var e *startError
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, fs.ErrNotExist):
		return codeNotFound
	}
	return codeNotExecutable
}

// IsPassing reports whether a start failed for a reason that has nothing to do with the command: the system or the
// container had no room for one more process (EAGAIN: a limit of processes and threads; ENOMEM: memory). Another try
// may succeed.
func IsPassing(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM)
}

// explainStart describes the error of a start: the kernel says ENOENT also if the file exists but something that it
// needs to run does not (execve(2)).
func explainStart(cmd Command, err error) error {
	e := &startError{path: cmd.Path, code: codeNotExecutable, err: err}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		e.reason = err.Error()
		return e
	}
	info, statErr := os.Stat(cmd.Path)
	switch {
	case errno == unix.EAGAIN:
		e.reason, e.code = "out of processes", codePassing
	case errno == unix.ENOMEM:
		e.reason, e.code = "out of memory", codePassing
	case errno == unix.ENOENT && statErr != nil:
		e.reason, e.code = "no such file", codeNotFound
	case errno == unix.ENOENT:
		e.reason = missingInterpreter(cmd.Path)
	case errno == unix.EACCES && statErr == nil && info.IsDir():
		e.reason = "it is a directory"
	case errno == unix.EACCES:
		e.reason = "permission denied: this user may not execute it, or its file system is mounted noexec"
	case errno == unix.ENOEXEC:
		e.reason = "it is not a program for this machine: it has no #! line, or was built for another architecture"
	default:
		e.reason = errno.Error()
	}
	return e
}

// missingInterpreter says what is missing if the file exists and the kernel said ENOENT.
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
