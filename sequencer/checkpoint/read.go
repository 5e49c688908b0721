package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/internal/regularfile"
)

// Presence says whether a storage directory holds a state.
type Presence int

const (
	// StateUnknown: no config says where the state is.
	StateUnknown Presence = iota
	// StateNone: the directory is absent, or has only our own files and lost+found.
	StateNone
	// StatePresent: the directory has something else.
	StatePresent
)

// Found is what is on disk.
type Found struct {
	// Checkpoint is nil if there is none.
	Checkpoint *Checkpoint
	// Stamp is the one in the storage directory, nil if there is none.
	Stamp *Stamp
	// Storage is the storage directory, absolute and without symbolic links; empty if it is not known.
	Storage string
	// State says whether Storage has a state.
	State Presence
}

// ErrNoFile says that the checkpoint, its lock or the stamp is not a regular file. Docker makes a directory for a bind
// mount of a file that does not exist.
var ErrNoFile = regularfile.ErrNotRegular

// UnreadableError says that a file of the record, or the storage directory, is there and cannot be read.
type UnreadableError struct {
	// Path is the file, or the storage directory.
	Path string
	// Stamp: it is the stamp or the storage directory, not the checkpoint.
	Stamp bool
	// Err is what is wrong with it: it is torn, empty or foreign, or the error of the system.
	Err error
}

// Error names the file and what is wrong with it.
func (e *UnreadableError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Err) }

// Unwrap gives what is wrong with the file.
func (e *UnreadableError) Unwrap() error { return e.Err }

// Read reads the checkpoint at path and the stamp in the directory storage, without a lock. path is empty if there is
// no checkpoint file, storage if it is not known where the state is. An absent file is no error; a file or storage
// directory that cannot be read is an *UnreadableError.
func Read(path, storage string) (Found, error) {
	return locate(path, storage).Load()
}

// Load reads what is on disk, as Read does. If it fails it still returns what can be read of the other file.
func (s *Store) Load() (Found, error) {
	found, err := s.LoadState()
	if s.path != "" {
		c, wrong := readAs(s.path, Parse)
		if wrong != nil {
			return found, &UnreadableError{Path: s.path, Err: wrong}
		}
		found.Checkpoint = c
	}
	found.Storage = s.storage
	return found, err
}

// LoadState reads what is in the storage directory, not the checkpoint.
func (s *Store) LoadState() (Found, error) {
	found := Found{Storage: s.storage}
	if s.storage == "" {
		return found, nil
	}
	var err error
	if found.State, err = s.look(); err != nil {
		return Found{}, &UnreadableError{Path: s.storage, Stamp: true, Err: err}
	}
	if found.Stamp, err = readAs(s.stampPath(), ParseStamp); err != nil {
		return Found{}, &UnreadableError{Path: s.stampPath(), Stamp: true, Err: err}
	}
	return found, nil
}

// readAs reads the file at path; nil if there is none.
func readAs[T any](path string, parse func([]byte) (T, error)) (*T, error) {
	text, err := regularfile.Read(path, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !exists(path):
		return nil, nil
	case err != nil: // also for a symbolic link that leads nowhere
		return nil, unreadable(err)
	}
	v, err := parse(text)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// exists reports whether there is anything at path, even a symbolic link that leads nowhere.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// unreadable leaves out the path, which the UnreadableError names.
func unreadable(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if errors.As(err, new(unix.Errno)) {
		err = fmt.Errorf("it cannot be read: %w", err)
	}
	return err
}

// look finds whether the storage directory holds a state.
func (s *Store) look() (Presence, error) {
	empty, err := s.onlyOurs(s.storage)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return StateNone, nil
	case err != nil:
		return StateUnknown, unreadable(err)
	case empty:
		return StateNone, nil
	}
	return StatePresent, nil
}

// onlyOurs reports whether dir, the storage directory or one between it and the checkpoint, has only our own files and
// lost+found.
func (s *Store) onlyOurs(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err //nolint:wrapcheck // the caller says what could not be read
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		ours := s.isOurs(dir, entry.Name())
		if !ours && entry.IsDir() && s.below(path) {
			if ours, err = s.onlyOurs(path); err != nil {
				return false, err
			}
		}
		if !ours {
			return false, nil
		}
	}
	return true, nil
}

// isOurs reports whether name in dir is one of our own files, or lost+found.
func (s *Store) isOurs(dir, name string) bool {
	switch {
	case name == "lost+found":
		return true
	case dir == s.storage && (name == StampFile || name == UndoFile || durable.IsTemporary(StampFile, name)):
		return true
	}
	return s.path != "" && BelongsTo(filepath.Base(s.path), name) && SameFile(filepath.Dir(s.path), dir)
}

// below reports whether the checkpoint is somewhere below dir.
func (s *Store) below(dir string) bool {
	return strings.HasPrefix(s.path, dir+"/")
}

// HoldFile is the name of the file, beside the checkpoint, with which an operator holds the sequence.
const HoldFile = "hold"

// HoldPath is that file for the checkpoint at path: beside the file that a symbolic link leads to, as its lock is.
func HoldPath(path string) string { return filepath.Join(filepath.Dir(ResolveLinks(path)), HoldFile) }

// BelongsTo reports whether name, in the directory of a checkpoint, is that checkpoint, its lock, the hold, the record
// of the last run, a checkpoint that was kept or set aside, or a temporary file of one of them.
func BelongsTo(checkpoint, name string) bool {
	lastRun := checkpoint + lastRunSuffix
	return name == checkpoint || name == checkpoint+lockSuffix || durable.IsTemporary(checkpoint, name) || isAside(checkpoint, name) ||
		name == lastRun || durable.IsTemporary(lastRun, name) ||
		name == HoldFile || durable.IsTemporary(HoldFile, name) ||
		strings.HasPrefix(name, checkpoint+keptInfix) || strings.HasPrefix(name, "."+checkpoint+keptInfix)
}
