package checkpoint

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/internal/regularfile"
)

// keptInfix is between the name of a checkpoint and the time in the name of a kept copy.
const keptInfix = ".before-"

// Store keeps the record of one sequence: the checkpoint, in a file with a lock beside it, and the stamp in the storage
// directory, which is locked too. Either may be missing. The locks are held until the Store is closed and every process
// that inherited LockFiles has ended.
type Store struct {
	path, storage string // resolved; empty for none
	id            string

	// mu guards what follows: a save may take another lock while a process is being started.
	mu            sync.Mutex
	lock, dirLock *os.File
	record        lockRecord // in lock
	cannotLock    bool       // the file system of storage cannot lock a directory
	hadDirLock    bool       // dirLock was not always nil
	// runMu lets one record of this run be written at a time.
	runMu sync.Mutex
}

// locate follows the symbolic links in the paths, so that a save replaces the file and not the link.
func locate(path, storage string) *Store {
	s := &Store{}
	if path != "" {
		s.path = ResolveLinks(path)
	}
	if storage != "" {
		s.storage = ResolveLinks(storage)
	}
	return s
}

// Open takes the locks of the checkpoint at path and of the directory storage. path is empty if there is no checkpoint
// file, and the stamp alone is the record; storage is empty if it is not known where the state is. Open neither reads
// nor changes checkpoint and stamp. If another process holds one of the locks, or a dead holder left a process running,
// the error is a *LockHeldError.
//
// The lock of the directory keeps away an entrypoint that has another checkpoint for the same state, or none, or a new
// lock file because the old one was removed. A missing directory is locked when SaveStamp makes it.
func Open(path, storage string) (*Store, error) {
	s := locate(path, storage)
	s.id = rand.Text()
	var err error
	if path != "" {
		if s.lock, err = takeLock(s.path + lockSuffix); err != nil {
			return nil, err
		}
	}
	// The record comes before the lock of the directory: it may be all that shows that the holder of that one is dead.
	if err = s.noneLeft(""); err == nil {
		err = s.lockStorage()
	}
	if err == nil {
		err = s.noneLeft(s.Marker())
	}
	if err == nil && path != "" {
		durable.RemoveTemporary(s.path) // under the lock nobody else writes them, and they may have filled the volume
		durable.RemoveTemporary(s.path + lastRunSuffix)
		s.removeTemporaryOfKept()
		s.record = newRecord(s.id)
		err = s.record.write(s.lock)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// removeTemporaryOfKept removes what killed calls of KeepCheckpoint have left. The times in their names are not known.
func (s *Store) removeTemporaryOfKept() {
	unfinished, _ := filepath.Glob(filepath.Join(filepath.Dir(s.path), "."+filepath.Base(s.path)+keptInfix+"*"))
	for _, path := range unfinished {
		name := filepath.Base(path)
		kept := name[1:max(1, strings.LastIndexByte(strings.TrimSuffix(name, filepath.Ext(name)), '.'))]
		if durable.IsTemporary(kept, name) {
			durable.RemoveTemporary(filepath.Join(filepath.Dir(path), kept))
		}
	}
}

// noneLeft returns a *LockHeldError if a dead entrypoint left something running that may work on the state without the
// locks. The lock of the checkpoint is held, and that of the directory if there is a marker.
func (s *Store) noneLeft(marker string) error {
	held, err := leftRunning(s.lock, s.storage, marker)
	if held != nil {
		return held
	}
	return err
}

// lockStorage locks the storage directory if it is there and not locked yet. On a file system that cannot lock a
// directory, such as NFS, only the lock of the checkpoint remains.
func (s *Store) lockStorage() error {
	if s.storage == "" || s.dirLock != nil {
		return nil
	}
	dir, err := openDir(s.storage)
	if err != nil {
		return nil // it is missing, or cannot be read, which reading the stamp will say
	}
	held, err := flock(dir, unix.LOCK_EX)
	s.cannotLock = err != nil
	switch {
	case held != nil:
		dir.Close()
		return held
	case err != nil:
		dir.Close()
	default:
		s.dirLock, s.hadDirLock = dir, true
	}
	return nil
}

// CannotLock is the storage directory if its file system cannot lock directories, otherwise empty. Then only the lock
// of the checkpoint keeps others away.
func (s *Store) CannotLock() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cannotLock {
		return s.storage
	}
	return ""
}

// ID is a random text, new for each Open. It is in the lock file too.
func (s *Store) ID() string { return s.id }

// Held reports whether the locks still keep others away: nil if the lock file is still the one with its name, and the
// locked storage directory too. States are restored by a rename, so a new directory is locked anew. Any error is a
// *LockLostError, or a *LockHeldError if another process was the first to lock a directory that was missing until now.
func (s *Store) Held() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		if err := stillAt(s.lock, s.lock.Name(), os.Lstat); err != nil {
			return &LockLostError{Path: s.lock.Name(), Err: err}
		}
	}
	return s.stateHeld()
}

// stateHeld is Held for the lock on the storage directory alone. The mutex is held.
func (s *Store) stateHeld() error {
	if s.dirLock != nil {
		err := stillAt(s.dirLock, s.storage, os.Stat)
		if err != nil && !errors.Is(err, errReplaced) && !errors.Is(err, fs.ErrNotExist) {
			return &LockLostError{Path: s.storage, Err: err}
		}
		if err != nil {
			s.dirLock.Close()
			s.dirLock = nil
		}
	}
	err := s.lockStorage()
	if err != nil && s.hadDirLock {
		return &LockLostError{Path: s.storage, Err: err}
	}
	return err
}

// NoteChild records in the lock file a process that was just started. If this entrypoint is killed, the next one waits
// for that process to end, even if it has closed the locks. Without a checkpoint file, or without /proc, NoteChild does
// nothing.
func (s *Store) NoteChild(pid int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil || s.record.BootID == "" {
		return nil
	}
	child, err := lifeOf(pid)
	if child == nil || err != nil {
		return err // it may have ended
	}
	s.record.Child = child
	return s.record.write(s.lock)
}

// LockFiles must be inherited by every process that works on the state, so that the locks are held for as long as one
// of them lives.
func (s *Store) LockFiles() []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
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
// stamp is durable. Nothing else may work on the state meanwhile.
func (s *Store) SaveStamp(stamp Stamp) error {
	if s.storage == "" {
		return errors.New("cannot write a stamp: it is not known where the state is")
	}
	text, err := EncodeStamp(stamp)
	if err != nil {
		return err
	}
	if err := s.mayStamp(); err != nil {
		return err
	}
	if err := makeDir(s.storage); err != nil {
		return err
	}
	if err := s.mayStamp(); err != nil { // locks a directory that was just made
		return err
	}
	durable.RemoveTemporary(s.stampPath())
	return replace(s.stampPath(), text, nil)
}

// mayStamp reports whether a stamp may be written. The lock on the storage directory is enough for that: a migration
// that removed the lock file has still completed, and would run again if that were not recorded.
func (s *Store) mayStamp() error {
	s.mu.Lock()
	locked := s.dirLock != nil
	var err error
	if locked {
		err = s.stateHeld()
		locked = s.dirLock != nil
	}
	s.mu.Unlock()
	if locked || err != nil {
		return err
	}
	return s.Held()
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
	if err := s.Held(); err != nil {
		return err
	}
	return replace(s.path, text, nil)
}

// KeepCheckpoint copies the checkpoint file as it is, valid or not, to a file beside it, and gives the name of the
// copy; empty if there is no checkpoint. When it returns nil the copy is durable.
func (s *Store) KeepCheckpoint() (kept string, err error) {
	if s.path == "" {
		return "", nil
	}
	file, err := regularfile.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot keep a copy of the checkpoint: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(file)
	info, statErr := file.Stat()
	if err = errors.Join(err, statErr); err != nil {
		return "", fmt.Errorf("cannot keep a copy of the checkpoint: %w", err)
	}
	if err := s.Held(); err != nil {
		return "", err
	}
	name := s.path + keptInfix + time.Now().UTC().Format("20060102T150405Z")
	kept = name
	for n := 2; exists(kept); n++ {
		kept = fmt.Sprintf("%s-%d", name, n)
	}
	if err := replace(kept, text, info); err != nil {
		return "", err
	}
	return kept, nil
}

// SyncState makes durable what was written, for instance by a migration, to the file system of the storage directory,
// or to all file systems if it is not known where the state is.
func (s *Store) SyncState() error {
	if s.storage == "" {
		unix.Sync()
		return nil
	}
	dir, err := openDir(s.storage)
	if err != nil {
		return fmt.Errorf("cannot make the state durable: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("cannot make the state in %s durable: %w", s.storage, err)
	}
	return nil
}
