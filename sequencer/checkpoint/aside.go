package checkpoint

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
)

const (
	// asideTime is the format of the time in the name of what was set aside, in UTC.
	asideTime = "2006-01-02T15:04:05Z"
	// doomedSuffix ends the name of a state that is being deleted. Such a state is never used again.
	doomedSuffix = ".being-deleted-by-reset"
)

// MountError says that a state cannot be renamed because a file system is mounted on its directory, or in it.
type MountError struct {
	// Storage is the storage directory, Point the mount point: the same directory, or one below it.
	Storage, Point string
}

// Error names the mount point.
func (e *MountError) Error() string {
	if e.Point == e.Storage {
		return e.Storage + " is a mount point, which cannot be renamed"
	}
	return fmt.Sprintf("%s contains the mount point %s", e.Storage, e.Point)
}

// Reset is what a reset does: it takes away checkpoint and state together, so that the next start begins a new chain.
type Reset struct {
	// Checkpoint and State are the paths; empty for what is not there.
	Checkpoint, State string
	// CheckpointTo and StateTo are the names under which they are kept; empty if they are deleted.
	CheckpointTo, StateTo string
	// Leftover is what an interrupted deletion left, and is deleted too; empty for nothing.
	Leftover string

	store *Store
	// inPlace: the directory of the state is a mount point, so it stays, and its content is deleted.
	inPlace bool
}

// PrepareReset says what a reset would do, and does nothing yet. Neither file is read: a reset is a way out for a
// record that cannot be read. The error is a *MountError for a state that cannot be renamed; if its directory itself is
// the mount point it can still be deleted.
func (s *Store) PrepareReset(remove bool) (*Reset, error) {
	r := &Reset{store: s}
	if s.path != "" && exists(s.path) {
		r.Checkpoint = s.path
	}
	present, err := s.look()
	if err != nil {
		return nil, &UnreadableError{Path: s.storage, Stamp: true, Err: err}
	}
	if present == StatePresent || exists(s.stampPath()) {
		r.State = s.storage
		if point := MountIn(s.storage); point != "" {
			r.inPlace = remove && point == s.storage
			if !r.inPlace {
				return nil, &MountError{s.storage, point}
			}
		}
	}
	if remove {
		if doomed := s.storage + doomedSuffix; exists(doomed) {
			r.Leftover = doomed
		}
		return r, nil
	}
	suffix := "." + time.Now().UTC().Format(asideTime)
	free := suffix // the same for both: they belong together
	for n := 2; exists(s.path+free) || exists(s.storage+free); n++ {
		free = fmt.Sprintf("%s-%d", suffix, n)
	}
	if r.Checkpoint != "" {
		r.CheckpointTo = r.Checkpoint + free
	}
	if r.State != "" {
		r.StateTo = r.State + free
	}
	return r, nil
}

// Empty reports whether there is nothing to do.
func (r *Reset) Empty() bool { return r.Checkpoint == "" && r.State == "" && r.Leftover == "" }

// Run does it. The checkpoint goes first: a stamp without a checkpoint counts, but a checkpoint without its state is
// refused. So a kill between the two loses nothing, and another reset finishes what this one began. When it returns nil
// everything is durable. If it fails before it touches the state, the checkpoint is where it was, unless it was
// deleted.
func (r *Reset) Run() error {
	if r.Leftover != "" {
		if err := removeAll(r.Leftover); err != nil {
			return err
		}
	}
	if err := r.takeCheckpoint(); err != nil {
		return err
	}
	switch {
	case r.State == "":
		return nil
	case r.inPlace:
		return r.store.deleteInPlace()
	case r.StateTo == "":
		return r.store.deleteState()
	}
	err := r.store.moveState(r.StateTo)
	if err != nil && exists(r.State) && r.CheckpointTo != "" {
		err = errors.Join(err, rename(r.CheckpointTo, r.Checkpoint))
	}
	return err
}

func (r *Reset) takeCheckpoint() error {
	switch {
	case r.Checkpoint == "":
		return nil
	case r.CheckpointTo != "":
		return rename(r.Checkpoint, r.CheckpointTo)
	}
	if err := os.Remove(r.Checkpoint); err != nil {
		return fmt.Errorf("cannot delete the checkpoint: %w", err)
	}
	return durable.SyncDir(filepath.Dir(r.Checkpoint)) //nolint:wrapcheck // it names the directory
}

// deleteState renames the state before it deletes the first file of it: a part of a state under a state's name would be
// opened as if it were whole.
func (s *Store) deleteState() error {
	doomed := s.storage + doomedSuffix
	if err := s.moveState(doomed); err != nil {
		return err
	}
	return removeAll(doomed)
}

// moveState renames the storage directory, with its lock. If it fails and the directory is still there, it was not
// renamed.
func (s *Store) moveState(to string) error {
	info, err := os.Stat(s.storage)
	if err != nil {
		return fmt.Errorf("cannot set the state aside: %w", err)
	}
	if err := rename(s.storage, to); err != nil {
		return err
	}
	dir := s.storage
	if s.path != "" && s.below(dir) {
		dir = filepath.Dir(s.path) // the checkpoint was in the state
	}
	// The node's user may not be able to make one.
	if err := makeLike(dir, info); err != nil {
		_ = os.Remove(s.storage) // the next start makes one, or says why that fails
		return err
	}
	return nil
}

// makeLike makes the directory dir, and those above it that are missing, with the mode and owner of info.
func makeLike(dir string, info fs.FileInfo) error {
	if parent := filepath.Dir(dir); !exists(parent) {
		if err := makeLike(parent, info); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot make an empty storage directory: %w", err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = os.Chown(dir, int(stat.Uid), int(stat.Gid)) // only root can, and only root needs to
	}
	if err := os.Chmod(dir, info.Mode()); err != nil {
		return fmt.Errorf("cannot make an empty storage directory: %w", err)
	}
	return durable.SyncDir(filepath.Dir(dir)) //nolint:wrapcheck // it names the directory
}

// halfDeletedName is the name in the stamp of a state that is being deleted in its place.
const halfDeletedName = "half deleted: run 'entrypoint reset --delete' again"

// IsHalfDeleted reports whether the stamp is that of a state whose deletion was interrupted.
func (s Stamp) IsHalfDeleted() bool {
	return s.Name == halfDeletedName && s.StartHeight == math.MaxUint64
}

// deleteInPlace deletes what is in a storage directory that is a mount point. Nothing starts on a part of it: until all
// else is gone, durably, its stamp names a version that no plan has.
func (s *Store) deleteInPlace() error {
	halfDeleted := Stamp{Name: halfDeletedName, StartHeight: math.MaxUint64, UpdatedAt: time.Now().UTC()}
	if err := s.SaveStamp(halfDeleted); err != nil {
		return err
	}
	if err := s.deleteForeign(s.storage); err != nil {
		return err
	}
	if err := s.SyncState(); err != nil {
		return err
	}
	if err := os.Remove(s.stampPath()); err != nil {
		return fmt.Errorf("cannot delete the stamp: %w", err)
	}
	return durable.SyncDir(s.storage) //nolint:wrapcheck // it names the directory
}

// deleteForeign deletes what is in dir, except our own files, one of which is the lock that we hold, and lost+found.
func (s *Store) deleteForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot delete the state: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case s.isOurs(dir, entry.Name()):
		case entry.IsDir() && s.below(path):
			err = s.deleteForeign(path)
		default:
			err = removeAll(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func removeAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("cannot delete %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path)) //nolint:wrapcheck // it names the directory
}

// rename gives a file or directory a name that is free, durably.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	// NFS and some FUSE file systems do not support the flag. Under our locks nobody else takes the name.
	if (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)) && !exists(to) {
		err = unix.Rename(from, to)
	}
	if err != nil {
		return fmt.Errorf("cannot rename %s to %s: %w", from, to, err)
	}
	return durable.SyncDir(filepath.Dir(from)) //nolint:wrapcheck // it names the directory
}

// MountIn gives a mount point at or below dir, which is resolved: the directory itself only if nothing is mounted below
// it. It is empty for none, or if that cannot be found out, when a rename fails.
func MountIn(dir string) string {
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer table.Close()
	// See proc_pid_mountinfo(5): the fifth field, with these characters as octal numbers.
	octal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	found := ""
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		switch point := octal.Replace(fields[4]); {
		case point == dir && found == "":
			found = dir
		case strings.HasPrefix(point, dir+"/"):
			found = point
		}
	}
	return found
}

// isAside reports whether name is that of a checkpoint that was set aside.
func isAside(checkpoint, name string) bool {
	rest, found := strings.CutPrefix(name, checkpoint+".")
	if !found || len(rest) < len(asideTime) {
		return false
	}
	_, err := time.Parse(asideTime, rest[:len(asideTime)])
	return err == nil
}
