package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/regularfile"
)

// lockSuffix is what the name of the lock adds to that of the checkpoint.
const lockSuffix = ".lock"

// LockPath is the lock of the checkpoint at that path.
func LockPath(checkpoint string) string { return ResolveLinks(checkpoint) + lockSuffix }

// LockHeldError says that another process holds the lock of a checkpoint or of a storage directory.
type LockHeldError struct {
	// Path is the lock file, or the directory.
	Path string
	// Pid is the process that took the lock; 0 if that is not known, or has no meaning here, as in another container.
	Pid int
	// Command is its name if only the kernel names it, so that it need not be an entrypoint.
	Command string
	// Host is where it runs; empty if that is not known.
	Host string
	// HolderGone: the process that took the lock has ended, and something that it started is still alive.
	HolderGone bool
	// Left are the processes that a dead holder left running, as far as this user can see them.
	Left []Process
}

// Error says who holds the lock.
func (e *LockHeldError) Error() string {
	switch {
	case e.HolderGone && e.Pid != 0:
		return fmt.Sprintf("%s is in use: the entrypoint with pid %d has ended, but a node or migration that it started is still running%s", e.Path, e.Pid, named(e.Left))
	case e.HolderGone:
		return fmt.Sprintf("%s is in use: the process that locked it has ended, but what it started is still running%s", e.Path, named(e.Left))
	case e.Command != "":
		return fmt.Sprintf("%s is locked by the process with pid %d (%q)", e.Path, e.Pid, e.Command)
	case e.Pid == 0 && e.Host != "":
		return fmt.Sprintf("%s is locked by another process, which may be in another container on host %q", e.Path, e.Host)
	case e.Pid == 0:
		return e.Path + " is locked by another process"
	}
	return fmt.Sprintf("%s is locked by the entrypoint with pid %d on host %q", e.Path, e.Pid, e.Host)
}

// named is the end of a sentence. A process chooses its own name, so it is quoted.
func named(processes []Process) string {
	var all []string
	for _, p := range processes {
		all = append(all, fmt.Sprintf("pid %d (%q)", p.Pid, p.Command))
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, ", ")
}

// LockLostError says that a lock that we hold no longer keeps others away: its file was removed or replaced, or the
// storage directory was, and another process has locked the new one.
type LockLostError struct {
	// Path is the lock file, or the directory.
	Path string
	// Err says what is there now.
	Err error
}

// Error names the lock and what is there now.
func (e *LockLostError) Error() string {
	now := "nothing is there now"
	if !errors.Is(e.Err, os.ErrNotExist) {
		now = e.Err.Error()
	}
	return fmt.Sprintf("the lock %s is lost: %s", e.Path, now)
}

// Unwrap gives what is there now: os.ErrNotExist if nothing is, a *LockHeldError if another process has locked it.
func (e *LockLostError) Unwrap() error { return e.Err }

// Holder says who holds the lock at lockPath, or what a dead entrypoint left running; nil for nobody. It makes no file.
// The only way to find out is to take a share of the lock for an instant; an entrypoint that starts in that instant
// waits. It is an error if this user may not take the lock.
func Holder(lockPath string) (*LockHeldError, error) {
	lock, err := openLock(lockPath, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Faccessat(unix.AT_FDCWD, lockPath, unix.R_OK|unix.W_OK, unix.AT_EACCESS); errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("%s cannot be written by user %d: %w", lockPath, os.Getuid(), err)
	}
	if held, err := flock(lock, unix.LOCK_SH); held != nil || err != nil {
		return held, err
	}
	return leftRunning(lock, "", "")
}

// openLock opens a lock file. If its name were a symbolic link, another file would be locked and written.
func openLock(path string, how int) (*os.File, error) {
	lock, err := regularfile.OpenFile(path, how|unix.O_NOFOLLOW)
	switch {
	case errors.Is(err, ErrNoFile):
		return nil, fmt.Errorf("cannot use the lock of the checkpoint: %w: remove it, or name another checkpoint file", err)
	case err != nil:
		return nil, fmt.Errorf("cannot open the lock of the checkpoint: %w", err)
	}
	return lock, nil
}

// openOrMakeLock opens the lock file at path, and makes it if there is none.
func openOrMakeLock(path string) (*os.File, error) {
	lock, err := openLock(path, os.O_RDWR)
	if !errors.Is(err, os.ErrNotExist) {
		return lock, err
	}
	lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) { // another process has just made it
		return openLock(path, os.O_RDWR)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the checkpoint: %w", err)
	}
	if err := inheritRights(lock); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// flock takes the lock of a file or directory without waiting, or says who holds it.
//
// flock(2) belongs to the open file: it is held until the last process that inherited the descriptor has ended, and the
// kernel releases it after a crash or a power cut.
func flock(file *os.File, how int) (*LockHeldError, error) {
	switch err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		written, _ := readRecord(file) // of a directory nothing is read
		return whoHolds(file, written), nil
	case err != nil:
		return nil, fmt.Errorf("cannot lock %s: %w", file.Name(), err)
	}
	return nil, nil
}

// HolderID is the id of the Store that holds the lock at lockPath, or held it last; empty if it cannot be read.
func HolderID(lockPath string) string {
	lock, err := openLock(lockPath, os.O_RDONLY)
	if err != nil {
		return ""
	}
	defer lock.Close()
	written, _ := readRecord(lock)
	return written.ID
}

// leftRunning looks, under the locks, for what a dead entrypoint left running without them. lock is nil if there is no
// checkpoint file. storage, the directory, and marker may be empty.
func leftRunning(lock *os.File, storage, marker string) (*LockHeldError, error) {
	var written lockRecord
	path := storage
	if lock != nil {
		var err error
		if written, err = readRecord(lock); err != nil {
			return nil, fmt.Errorf("%s: %w", lock.Name(), err)
		}
		path = cmp.Or(storage, lock.Name())
	}
	left, recorded := written.left(marker)
	switch {
	case left == nil:
		return nil, nil
	case recorded:
		return &LockHeldError{Path: lock.Name(), Pid: written.Pid, Host: written.Host, HolderGone: true, Left: left}, nil
	}
	return &LockHeldError{Path: path, HolderGone: true, Left: left}, nil
}

// lockTries is how often a lock file is opened anew because it was replaced just then.
const lockTries = 100

func takeLock(path string) (*os.File, error) {
	for range lockTries {
		lock, err := openOrMakeLock(path)
		if err != nil {
			return nil, err
		}
		held, err := flock(lock, unix.LOCK_EX)
		if held != nil {
			err = held
		}
		if err == nil && stillAt(lock, path, os.Lstat) == nil {
			return lock, nil
		}
		lock.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("cannot lock %s: its file is replaced again and again", path)
}

// errReplaced says that a file is not the one that was opened.
var errReplaced = errors.New("another file is there now")

// stillAt is nil if file is what path names. stat is os.Lstat or os.Stat.
func stillAt(file *os.File, path string, stat func(string) (fs.FileInfo, error)) error {
	ours, err := file.Stat()
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	there, err := stat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(ours, there) {
		return errReplaced
	}
	return nil
}
