package undo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/sequencer/checkpoint"
)

// Look gives the undo point that is there; nil for none. It changes nothing, and needs no lock.
func (u *Undo) Look() (*checkpoint.UndoPoint, error) {
	newest, _, _, err := u.points()
	if err != nil {
		return nil, err
	}
	return newest, nil
}

// Find implements sequencer.Undo.
func (u *Undo) Find() (*checkpoint.UndoPoint, error) {
	if _, _, err := u.Finish(); err != nil {
		return nil, err
	}
	return u.Look()
}

// Finish finishes or forgets what a kill left half done. It gives the undo point that was being put back and is the state
// now, nil for none, and the state that it has replaced.
func (u *Undo) Finish() (returned *checkpoint.UndoPoint, aside string, err error) {
	if returned, aside, err = u.finishPutBack(); err != nil {
		return nil, "", err
	}
	for _, path := range []string{u.incomplete(), u.doomed()} {
		if !exists(path) {
			continue
		}
		if err := remove(context.Background(), path); err != nil { // it is in nobody's way but that of the next copy
			u.log.Warn("incomplete undo point not deleted", slog.String("error", err.Error()))
			continue
		}
		u.log.Info("incomplete undo point deleted", slog.String("path", path))
	}
	return returned, aside, nil
}

func (u *Undo) finishPutBack() (returned *checkpoint.UndoPoint, aside string, err error) {
	if u.inPlace {
		return u.finishInPlace()
	}
	return u.finishReturn()
}

// Torn gives what Drop deletes although its description cannot be read: undo points, and in the state the description
// alone, as that is whole.
func (u *Undo) Torn() []string {
	_, _, torn, _ := u.points()
	if _, err := checkpoint.ReadUndoPoint(u.storage); isTorn(err) {
		torn = append(torn, filepath.Join(u.storage, checkpoint.UndoFile))
	}
	return torn
}

// Copies gives all directories with another state, or a part of one, that Drop would delete.
func (u *Undo) Copies() []string {
	_, points, torn, _ := u.points()
	failed, _ := u.failedStates()
	undone, _ := u.undoneStates()
	return slices.Concat(points, torn, failed, undone)
}

// Drop deletes the undo point, even if its description cannot be read, and the state that one has replaced. It gives
// what it has deleted.
func (u *Undo) Drop() (deleted []string, err error) {
	if _, err := checkpoint.ReadUndoPoint(u.storage); isTorn(err) {
		if err := u.forgetDescription(); err != nil {
			return nil, err
		}
	}
	if _, _, err := u.Finish(); err != nil {
		return nil, err
	}
	if _, _, torn, err := u.points(); err != nil && len(torn) == 0 {
		return nil, err
	}
	for _, path := range u.Copies() {
		if err := u.discard(context.Background(), path); err != nil {
			return deleted, err
		}
		deleted = append(deleted, path)
	}
	return deleted, nil
}

// Aside gives the state that an undo point has replaced; empty for none.
func (u *Undo) Aside() string {
	failed, _ := u.failedStates()
	undone, _ := u.undoneStates()
	if all := append(failed, undone...); len(all) > 0 {
		return all[0]
	}
	return ""
}

// named gives the directories whose names have infix behind that of the storage directory. A directory that this user
// cannot read has none: neither could one have been made there. What makes an undo point says so.
func (u *Undo) named(infix string) ([]string, error) {
	entries, err := os.ReadDir(u.dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	var paths []string
	for _, entry := range entries {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), u.base+infix) {
			paths = append(paths, u.beside(entry.Name()))
		}
	}
	return paths, err
}

// points gives the newest undo point, and the directories of all: more than one only if somebody has put one there. torn
// are those whose description is there and cannot be understood, which is an error too.
func (u *Undo) points() (newest *checkpoint.UndoPoint, points, torn []string, err error) {
	dirs, err := u.named(".before-")
	for _, dir := range dirs {
		p, readErr := checkpoint.ReadUndoPoint(dir)
		err = errors.Join(err, readErr)
		switch {
		case isTorn(readErr):
			torn = append(torn, dir)
		case p != nil && dir == u.pointPath(p.To.Name): // a copy that somebody has made of an undo point has another name
			points = append(points, dir)
			if newest == nil || p.CreatedAt.After(newest.CreatedAt) {
				newest = p
			}
		}
	}
	return newest, points, torn, err
}

// isTorn reports whether the error says that a description was read and is none.
func isTorn(err error) bool {
	return errors.As(err, new(*checkpoint.UnreadableError)) && !errors.As(err, new(unix.Errno))
}

// failedStates gives the states that undo points have replaced after an upgrade that failed. Only what has a stamp, and
// the name that we have given it, is one: a person may keep one under a longer name.
func (u *Undo) failedStates() ([]string, error) {
	paths, err := u.named(".failed-")
	var states []string
	for _, path := range paths {
		stamp, readErr := stampOf(path)
		if readErr == nil && stamp != nil && strings.TrimSuffix(path, ".dry-run") == u.failedPath(stamp.Name) {
			states = append(states, path)
		}
	}
	return states, err
}

// undoneStates gives the states that undo points have replaced although their version had run.
func (u *Undo) undoneStates() ([]string, error) { return u.named(".undone-") }

// Three words for three things: doom takes the name of a state away from a directory, after which it is nothing; remove
// deletes a directory that has no such name; discard is both.

// discard deletes an undo point or a state. It takes its name away first: a part of a state must not look like one. If
// ctx ends, the rest is left for the next Finish.
func (u *Undo) discard(ctx context.Context, path string) error {
	if err := u.doom(ctx, path); err != nil {
		return err
	}
	return remove(ctx, u.doomed())
}

// doom gives a directory the name of what is being deleted.
func (u *Undo) doom(ctx context.Context, path string) error {
	if err := remove(ctx, u.doomed()); err != nil { // it may be there from an interrupted deletion
		return err
	}
	return u.rename(path, u.doomed())
}

// keepFailed keeps the state at path, which the undo point p has replaced. If its version may have run on it, so that only
// a person can have put the undo point back, no other one ever takes its place. Of states that failed, the first one is
// kept: another try that fails comes from the same undo point, and has nothing that the first one did not have.
func (u *Undo) keepFailed(path string, p *checkpoint.UndoPoint) (kept string, err error) {
	if err := u.stampFailed(path, p); err != nil {
		return "", err
	}
	stamp, err := stampOf(path)
	if err != nil || stamp == nil || !stamp.Entered && stamp.Migration != checkpoint.MigrationBegun {
		kept = u.undonePath(p.To.Name)
		return kept, u.rename(path, kept)
	}
	if kept = u.failedPath(p.To.Name); exists(kept) {
		return kept, u.discard(context.Background(), path)
	}
	older, err := u.failedStates()
	if err != nil {
		return "", err
	}
	if err := u.rename(path, kept); err != nil {
		return "", err
	}
	for _, state := range older {
		if err := u.discard(context.Background(), state); err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// stampFailed gives the state at path, which the undo point p has replaced, a stamp if it has none: a migration may have
// removed it, and only what has one is a state.
func (u *Undo) stampFailed(path string, p *checkpoint.UndoPoint) error {
	stamp := filepath.Join(path, checkpoint.StampFile)
	if exists(stamp) {
		return nil
	}
	text, err := checkpoint.EncodeStamp(checkpoint.Stamp{
		VersionIndex: p.To.VersionIndex, Name: p.To.Name, StartHeight: p.To.StartHeight, BinarySHA256: p.To.BinarySHA256,
		Migration: checkpoint.MigrationBegun, UndoPoint: p.ID, UpdatedAt: time.Now().UTC(),
	})
	if err != nil {
		return err
	}
	if err := durable.Replace(stamp, text, func(*os.File) error { return nil }); err != nil {
		return fmt.Errorf("cannot write a stamp into the state that was replaced: %w", err)
	}
	u.done("stamped the failed state")
	return nil
}

// rename gives a directory another name, durably.
func (u *Undo) rename(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return fmt.Errorf("cannot rename %s to %s: %w", from, to, err)
	}
	u.done("renamed to " + filepath.Base(to))
	return u.synced(filepath.Dir(from), filepath.Dir(to))
}

// synced makes the names in some directories durable.
func (u *Undo) synced(dirs ...string) error {
	last := ""
	for _, dir := range dirs {
		if dir == last {
			continue
		}
		last = dir
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
		u.done("synced " + filepath.Base(dir))
	}
	return nil
}

// remove deletes a directory, if it is there. If ctx ends it stops between two files: a state may have a million.
func remove(ctx context.Context, path string) error {
	if !exists(path) {
		return nil
	}
	// What fails here fails once more below.
	_ = walk(ctx, path, func(string) bool { return false }, func(name string, stat *unix.Stat_t) error {
		if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			return nil
		}
		return os.Remove(filepath.Join(path, name))
	})
	err := context.Cause(ctx)
	if err == nil {
		err = os.RemoveAll(path)
	}
	if errors.Is(err, fs.ErrPermission) { // a node may make directories that its own user cannot write
		_ = filepath.WalkDir(path, func(name string, entry fs.DirEntry, _ error) error {
			if entry != nil && entry.IsDir() {
				_ = os.Chmod(name, 0o700) // before it is read
			}
			return nil
		})
		err = os.RemoveAll(path)
	}
	if err != nil {
		return fmt.Errorf("cannot delete %s: %w", path, err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// stampOf reads the stamp of the state in dir; nil for none.
func stampOf(dir string) (*checkpoint.Stamp, error) {
	found, err := checkpoint.Read("", dir)
	return found.Stamp, err
}
