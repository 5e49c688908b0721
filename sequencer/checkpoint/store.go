package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// keptInfix is between the name of a checkpoint and the time in the name of a kept copy.
const keptInfix = ".before-"

// Store keeps the record of one sequence: the checkpoint in a file with a lock beside it, and the stamp in the storage
// directory, which is locked too. Either may be missing. The locks are held for as long as the Store, or any process that
// inherited LockFiles, lives.
type Store struct {
	path, storage string // resolved; empty for none
	lock, dirLock *os.File
}

// locate follows the symbolic links in the paths, so that a save replaces the file and not the link.
func locate(path, storage string) (*Store, error) {
	s := &Store{}
	if path != "" {
		s.path = ResolveLinks(path)
	}
	if storage != "" {
		var err error
		if s.storage, err = filepath.Abs(ResolveLinks(storage)); err != nil {
			return nil, fmt.Errorf("cannot find the storage directory %s: %w", storage, err)
		}
	}
	return s, nil
}

// Open takes the lock of the checkpoint at path and that of the directory storage. path may be empty: there is no checkpoint
// file, and the stamp alone is the record. storage may be empty: it is not known where the state is. It reads and changes
// neither of the two files. If another process holds one of the locks the error is a *LockHeldError.
//
// The lock of the directory keeps away an entrypoint that has another checkpoint for the same state, or none. A directory
// that is missing is locked when SaveStamp makes it.
func Open(path, storage string) (*Store, error) {
	s, err := locate(path, storage)
	if err != nil {
		return nil, err
	}
	if path != "" {
		if s.lock, err = takeLock(s.path + lockSuffix); err != nil {
			return nil, err
		}
		removeLeftovers(s.path) // under the lock nobody else writes any, and they may have filled the volume
		err = writeHolder(s.lock)
	}
	if err == nil {
		err = s.lockStorage()
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// lockStorage locks the storage directory if it is there and was not locked yet. A file system that cannot lock a
// directory, such as NFS, leaves the lock of the checkpoint.
func (s *Store) lockStorage() error {
	if s.storage == "" || s.dirLock != nil {
		return nil
	}
	dir, err := os.Open(s.storage)
	if err != nil {
		return nil // it is missing, or cannot be read: whoever reads the stamp says so
	}
	switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		dir.Close()
		return &LockHeldError{Path: s.storage}
	case err != nil:
		dir.Close()
	default:
		s.dirLock = dir
	}
	return nil
}

// Path is the checkpoint file; empty for none.
func (s *Store) Path() string { return s.path }

// LockFiles have to be inherited by every process that works on the state, so that the locks are held for as long as one
// of them lives.
func (s *Store) LockFiles() []*os.File {
	var locks []*os.File
	for _, lock := range []*os.File{s.lock, s.dirLock} {
		if lock != nil {
			locks = append(locks, lock)
		}
	}
	return locks
}

// Close gives up our share of the locks.
func (s *Store) Close() error {
	for _, lock := range s.LockFiles() {
		if err := lock.Close(); err != nil {
			return fmt.Errorf("cannot close the lock: %w", err)
		}
	}
	return nil
}

func (s *Store) stampPath() string { return filepath.Join(s.storage, StampFile) }

// SaveStamp replaces the stamp in the storage directory, which it makes if it is missing. When it returns nil the new
// one is durable. The caller must be the only one who works on the state.
func (s *Store) SaveStamp(stamp Stamp) error {
	if s.storage == "" {
		return errors.New("cannot write a stamp: it is not known where the state is")
	}
	text, err := EncodeStamp(stamp)
	if err != nil {
		return err
	}
	if err := makeDir(s.storage); err != nil {
		return err
	}
	if err := s.lockStorage(); err != nil {
		return err
	}
	removeLeftovers(s.stampPath())
	return replace(s.stampPath(), text, 0o644)
}

// SaveCheckpoint replaces the checkpoint. When it returns nil the new one is durable. Without a checkpoint file it does
// nothing.
func (s *Store) SaveCheckpoint(c Checkpoint) error {
	if s.path == "" {
		return nil
	}
	text, err := Encode(c)
	if err != nil {
		return err
	}
	return replace(s.path, text, 0o644)
}

// KeepCheckpoint keeps a copy of the checkpoint file as it is, readable or not, beside it, and gives its name; empty if
// there is no checkpoint. When it returns nil the copy is durable.
func (s *Store) KeepCheckpoint() (kept string, err error) {
	if s.path == "" {
		return "", nil
	}
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", s.path, ErrNoFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(s.path)
	}
	if err != nil {
		return "", fmt.Errorf("cannot keep a copy of the checkpoint: %w", err)
	}
	name := s.path + keptInfix + time.Now().UTC().Format("20060102T150405Z")
	kept = name
	for n := 2; exists(kept); n++ {
		kept = fmt.Sprintf("%s-%d", name, n)
	}
	if err := replace(kept, text, info.Mode().Perm()); err != nil {
		return "", err
	}
	return kept, nil
}

// SyncState makes durable what was written to the storage directory's file system, as a migration does, or to all file
// systems if it is not known where the state is.
func (s *Store) SyncState() error {
	if s.storage == "" {
		unix.Sync()
		return nil
	}
	dir, err := os.Open(s.storage)
	if err != nil {
		return fmt.Errorf("cannot make the state durable: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("cannot make the state in %s durable: %w", s.storage, err)
	}
	return nil
}
