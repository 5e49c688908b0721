package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// lockSuffix makes the lock's name of the checkpoint's.
const lockSuffix = ".lock"

// LockPath is the lock of the checkpoint at the given path.
func LockPath(checkpoint string) string { return ResolveLinks(checkpoint) + lockSuffix }

// LockHeldError says that another process holds the lock of a checkpoint or of a storage directory.
type LockHeldError struct {
	// Path is the lock file, or the directory.
	Path string
	// Pid and Host are what the holder wrote into it; Pid is 0 if that cannot be read, and for a directory.
	Pid  int
	Host string
	// HolderGone: the process that took the lock has ended, so a node that inherited it is still alive.
	HolderGone bool
}

// Error says who holds the lock.
func (e *LockHeldError) Error() string {
	switch {
	case e.Pid == 0:
		return fmt.Sprintf("%s is locked by another process", e.Path)
	case e.HolderGone:
		return fmt.Sprintf("%s is locked: the entrypoint with pid %d has ended, but a node or migration that it started is still running", e.Path, e.Pid)
	}
	return fmt.Sprintf("%s is locked by the entrypoint with pid %d on host %q", e.Path, e.Pid, e.Host)
}

// Holder says who holds the lock at lockPath; nil if nobody does. It makes no file. The only way to find out is to take
// a share of the lock for an instant: an entrypoint that starts in that very instant is refused, and its orchestrator
// starts it again. It is an error if this user may not take the lock.
func Holder(lockPath string) (*LockHeldError, error) {
	lock, err := os.Open(lockPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the checkpoint: %w", err)
	}
	defer lock.Close()
	if err := unix.Faccessat(unix.AT_FDCWD, lockPath, unix.R_OK|unix.W_OK, unix.AT_EACCESS); errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("%s cannot be written by user %d: %w", lockPath, os.Getuid(), err)
	}
	return flock(lock, unix.LOCK_SH)
}

// flock takes the lock without waiting, or says who holds it.
//
// flock(2) belongs to the open file: it is held until the last process that inherited the descriptor has ended, and the
// kernel releases it after a crash or a power cut.
func flock(lock *os.File, how int) (*LockHeldError, error) {
	switch err := unix.Flock(int(lock.Fd()), how|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return readHolder(lock), nil
	case err != nil:
		return nil, fmt.Errorf("cannot lock %s: %w", lock.Name(), err)
	}
	return nil, nil
}

// takeLock opens the file at path and locks it.
func takeLock(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the checkpoint: %w", err)
	}
	held, err := flock(lock, unix.LOCK_EX)
	if held != nil {
		err = held
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// holder is the content of a lock file.
type holder struct {
	Pid  int    `json:"pid"`
	Host string `json:"host"`
}

// readHolder reads who wrote the lock file. The pid means something only on the same host (or in the same container).
func readHolder(lock *os.File) *LockHeldError {
	held := &LockHeldError{Path: lock.Name()}
	text := make([]byte, 256)
	n, _ := lock.ReadAt(text, 0)
	var h holder
	// kill(2) would take other numbers for groups, or cut them off.
	if json.Unmarshal(text[:n], &h) != nil || h.Pid < 1 || h.Pid > math.MaxInt32 {
		return held
	}
	held.Pid, held.Host = h.Pid, h.Host
	if host, err := os.Hostname(); err == nil && host == h.Host {
		held.HolderGone = errors.Is(unix.Kill(h.Pid, 0), unix.ESRCH)
	}
	return held
}

func writeHolder(lock *os.File) error {
	host, _ := os.Hostname() // only for messages
	text, err := json.Marshal(holder{Pid: os.Getpid(), Host: host})
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = lock.WriteAt(append(text, '\n'), 0)
	}
	if err != nil {
		return fmt.Errorf("cannot write the lock of the checkpoint: %w", err)
	}
	return nil
}
