package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Presence says whether a storage directory holds a state.
type Presence int

const (
	// StateUnknown: no config says where the state is.
	StateUnknown Presence = iota
	// StateNone: the directory is absent, or has nothing but our own files and lost+found.
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

// ErrNoFile says that the checkpoint or the stamp is something else than a file. Docker makes a directory for a bind
// mount of a file that does not exist.
var ErrNoFile = errors.New("this is no regular file")

// UnreadableError says that a file of the record, or the storage directory, is there and cannot be read.
type UnreadableError struct {
	// Path is the file, or the storage directory.
	Path string
	// Stamp: it is the stamp or the storage directory, and not the checkpoint.
	Stamp bool
	// Err is what is wrong with it: it is torn, empty or foreign, or what the kernel says.
	Err error
}

// Error names the file and what is wrong with it.
func (e *UnreadableError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Err) }

// Unwrap gives what is wrong with the file.
func (e *UnreadableError) Unwrap() error { return e.Err }

// Read reads the checkpoint at path and the stamp in the directory storage without a lock. Each may be empty: there is
// no checkpoint file, it is not known where the state is. A file that is absent is no error; one that cannot be read,
// and a storage directory that cannot, is an *UnreadableError.
func Read(path, storage string) (Found, error) {
	s, err := locate(path, storage)
	if err != nil {
		return Found{}, err
	}
	return s.Load()
}

// Load reads what is on disk, as Read does. With an error it gives what can be read of the other file.
func (s *Store) Load() (Found, error) {
	found := Found{Storage: s.storage}
	var err error
	if s.path != "" {
		if found.Checkpoint, err = readAs(s.path, Parse); err != nil {
			state, _ := s.LoadState()
			return state, &UnreadableError{Path: s.path, Err: err}
		}
	}
	state, err := s.LoadState()
	state.Storage, state.Checkpoint = s.storage, found.Checkpoint
	return state, err
}

// LoadState reads what is in the storage directory, and not the checkpoint.
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
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !exists(path):
		return nil, nil
	case err != nil: // also of a symbolic link that leads nowhere
		return nil, unreadable(err)
	case !info.Mode().IsRegular():
		return nil, ErrNoFile
	case info.Size() > limit:
		return nil, errTooLong
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(err)
	}
	v, err := parse(text)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// exists reports whether there is anything at path, be it a symbolic link that leads nowhere.
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
	return fmt.Errorf("it cannot be read: %w", err)
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

// onlyOurs reports whether dir, the storage directory or one in it on the way to the checkpoint, has nothing but our own
// files and lost+found.
func (s *Store) onlyOurs(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err //nolint:wrapcheck // the caller says what could not be read
	}
	checkpoint := ""
	if s.path != "" && same(filepath.Dir(s.path), dir) {
		checkpoint = filepath.Base(s.path)
	}
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(dir, name)
		ours := name == "lost+found" || dir == s.storage && (name == StampFile || isTemporary(StampFile, name)) ||
			checkpoint != "" && belongsTo(checkpoint, name)
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

// below reports whether the checkpoint is somewhere below dir.
func (s *Store) below(dir string) bool {
	path, err := filepath.Abs(s.path)
	return s.path != "" && err == nil && strings.HasPrefix(path, dir+string(filepath.Separator))
}

// belongsTo reports whether name is the checkpoint, its lock, a kept copy of it, or a temporary file of one of them.
func belongsTo(checkpoint, name string) bool {
	return name == checkpoint || name == checkpoint+lockSuffix || isTemporary(checkpoint, name) ||
		strings.HasPrefix(name, checkpoint+keptInfix) || strings.HasPrefix(name, "."+checkpoint+keptInfix)
}
