package sequencer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// lockSuffix makes the lock's name of the checkpoint's.
const lockSuffix = ".lock"

// isTemporary reports whether name is that of a temporary file for the checkpoint base: a dot before it, digits behind.
func isTemporary(base, name string) bool {
	number, ours := strings.CutPrefix(name, "."+base)
	return ours && number != "" && strings.Trim(number, "0123456789") == ""
}

// checkpointLimit bounds, in bytes, what is read as a checkpoint.
const checkpointLimit = 1 << 20

// FileStore keeps the checkpoint in a file, and a lock beside it for as long as it, or any process that inherited
// LockFile, lives.
type FileStore struct {
	path string
	lock *os.File
	// onSave, where set, is told how long a write took until it was durable.
	onSave func(time.Duration)
}

// ErrNoFile says that something else than a file stands in the place of the checkpoint. Docker makes a directory there
// for a bind mount of a file that does not exist.
var ErrNoFile = errors.New("this is no regular file")

// LockHeldError says that another process holds the lock of a checkpoint.
type LockHeldError struct {
	// Path is the lock file.
	Path string
	// Pid and Host are what the holder wrote into it; Pid is 0 where that cannot be read.
	Pid  int
	Host string
	// HolderGone: the process that took the lock has ended, so a node that inherited it from there still lives.
	HolderGone bool
}

// Error says who holds the lock.
func (e *LockHeldError) Error() string {
	switch {
	case e.Pid == 0:
		return fmt.Sprintf("%s is locked by another process", e.Path)
	case e.HolderGone:
		return fmt.Sprintf("%s is locked: the entrypoint with pid %d has ended, but a node or migration that it started still runs", e.Path, e.Pid)
	}
	return fmt.Sprintf("%s is locked by the entrypoint with pid %d on host %q", e.Path, e.Pid, e.Host)
}

// holder is the content of a lock file.
type holder struct {
	Pid  int    `json:"pid"`
	Host string `json:"host"`
}

// OpenFileStore takes the lock for the checkpoint at path. It reads and changes no checkpoint. A symbolic link is
// followed first, so that a save replaces the file and not the link. Where another process holds the lock the error is
// a *LockHeldError.
//
// The lock is flock(2) on "<path>.lock": it belongs to the open file, so it is held until the last process that
// inherited the descriptor has ended, and the kernel releases it after a crash or a power cut.
func OpenFileStore(path string) (*FileStore, error) {
	path = resolveLinks(path)
	name := path + lockSuffix
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the checkpoint: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, readHolder(lock)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	s := &FileStore{path: path, lock: lock}
	s.removeLeftovers()
	if err := s.writeHolder(); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// resolveLinks follows symbolic links, also where the file at their end does not exist yet. It goes through ".." as the
// kernel does, and not by the letters of the path.
func resolveLinks(path string) string {
	for range 40 { // as many as the kernel follows
		dir, name := filepath.Split(path)
		dir, err := filepath.EvalSymlinks(cmp.Or(dir, "."))
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

func (s *FileStore) writeHolder() error {
	host, _ := os.Hostname() // only for messages
	text, err := json.Marshal(holder{Pid: os.Getpid(), Host: host})
	if err == nil {
		err = s.lock.Truncate(0)
	}
	if err == nil {
		_, err = s.lock.WriteAt(append(text, '\n'), 0)
	}
	if err != nil {
		return fmt.Errorf("cannot write the lock of the checkpoint: %w", err)
	}
	return nil
}

// removeLeftovers removes temporary files of writes that a kill interrupted. Under the lock nobody else writes any.
func (s *FileStore) removeLeftovers() {
	dir := filepath.Dir(s.path)
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		if isTemporary(filepath.Base(s.path), file.Name()) && file.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, file.Name())) // a file that stays is only clutter
		}
	}
}

// Path is the checkpoint file.
func (s *FileStore) Path() string { return s.path }

// LockFile is to be inherited by every process that works on the state, so that the lock outlives us where they do.
func (s *FileStore) LockFile() *os.File { return s.lock }

// OnSave has f called with the duration of every save, from the first write until it is durable.
func (s *FileStore) OnSave(f func(time.Duration)) { s.onSave = f }

// Close gives up our share of the lock.
func (s *FileStore) Close() error {
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("cannot close the lock: %w", err)
	}
	return nil
}

// Load reads the checkpoint. found is false, without an error, only where the file does not exist.
func (s *FileStore) Load() (c Checkpoint, found bool, err error) {
	return ReadCheckpoint(s.path)
}

// ReadCheckpoint reads the checkpoint file at path without a lock, for showing it. found is false, without an error,
// only where the file does not exist.
func ReadCheckpoint(path string) (c Checkpoint, found bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Checkpoint{}, false, nil
	case err != nil:
		return Checkpoint{}, false, fmt.Errorf("cannot read the checkpoint: %w", err)
	case !info.Mode().IsRegular():
		return Checkpoint{}, false, fmt.Errorf("%s: %w", path, ErrNoFile)
	case info.Size() > checkpointLimit:
		return Checkpoint{}, false, fmt.Errorf("%s has %d bytes: that is no checkpoint", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Checkpoint{}, false, fmt.Errorf("cannot read the checkpoint: %w", err)
	}
	c, err = ParseCheckpoint(text)
	if err != nil {
		return Checkpoint{}, false, fmt.Errorf("%s: %w", path, err)
	}
	return c, true, nil
}

// Save replaces the checkpoint. When it returns nil the new one is durable; after an error the file is either the old
// or the new one, whole. Temporary file, fsync, rename, fsync of the directory: without the last one a power cut brings
// the old name back (see rename(2) and fsync(2), NOTES).
func (s *FileStore) Save(c Checkpoint) error {
	began := time.Now()
	text, err := EncodeCheckpoint(c)
	if err != nil {
		return err
	}
	if err := s.replace(text); err != nil {
		return err
	}
	if s.onSave != nil {
		s.onSave(time.Since(began))
	}
	return nil
}

func (s *FileStore) replace(text []byte) error {
	dir := filepath.Dir(s.path)
	file, err := renameio.NewPendingFile(s.path, renameio.WithTempDir(dir), renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return fmt.Errorf("cannot write beside %s: %w", s.path, err)
	}
	defer file.Cleanup() //nolint:errcheck // after a rename there is nothing to clean up
	if _, err := file.Write(text); err != nil {
		return fmt.Errorf("cannot write beside %s: %w", s.path, err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot replace %s, which is mounted as a single file: mount its directory instead: %w", s.path, err)
		}
		return fmt.Errorf("cannot replace %s: %w", s.path, err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open the directory of the checkpoint: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make the new name in %s durable: %w", dir, err)
	}
	return nil
}
