package undo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/sequencer/checkpoint"
)

// beginInPlace begins to put an undo point back into a storage directory that is not renamed. Nothing starts on a part of
// a state: until finishInPlace has put all of it in place its stamp names a version that no plan has. What is in the
// directory of leaving is of the replaced state, and once that has its last name, all that is missing comes from the undo
// point.
func (u *Undo) beginInPlace() error {
	leaving := u.leaving()
	if err := remove(context.Background(), leaving); err != nil {
		return err
	}
	if err := os.Mkdir(leaving, 0o700); err != nil {
		return fmt.Errorf("cannot set the state aside: %w", err)
	}
	// The state takes a stamp of its own along.
	present, err := os.ReadFile(filepath.Join(u.storage, checkpoint.StampFile))
	if err == nil {
		err = durable.Replace(filepath.Join(leaving, checkpoint.StampFile), present, func(*os.File) error { return nil })
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot keep the stamp of the state: %w", err)
	}
	if err := u.synced(u.dir); err != nil {
		return err
	}
	half, err := checkpoint.EncodeStamp(checkpoint.HalfPutBack())
	if err != nil {
		return err
	}
	stamp := filepath.Join(u.storage, checkpoint.StampFile)
	if err := durable.Replace(stamp, half, func(*os.File) error { return nil }); err != nil {
		return err
	}
	u.done("half put back")
	return nil
}

// finishInPlace finishes what beginInPlace has begun, from wherever it was interrupted. It gives nil if that is nothing.
func (u *Undo) finishInPlace() (p *checkpoint.UndoPoint, aside string, err error) {
	durable.RemoveTemporary(filepath.Join(u.storage, checkpoint.StampFile)) // what a kill has left of ours
	stamp, err := stampOf(u.storage)
	if isTorn(err) { // it is not ours, and whoever needs it says so
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	p, err = u.Look()
	switch {
	case stamp == nil || !stamp.IsHalfPutBack():
		return u.forgetInPlace(p, stamp)
	case err != nil:
		return nil, "", err
	case p == nil:
		return nil, "", fmt.Errorf("the undo point in %s that was being put back into %s is gone", u.dir, u.storage)
	}
	aside = u.failedPath(p.To.Name)
	if exists(u.leaving()) {
		if err := u.moveEntries(u.storage, u.leaving(), func(name string) bool { return name == checkpoint.StampFile || u.stays(name) }); err != nil {
			return nil, "", err
		}
		if aside, err = u.keepFailed(u.leaving(), p); err != nil {
			return nil, "", err
		}
	}
	own := func(name string) bool { return name == checkpoint.StampFile || name == checkpoint.UndoFile }
	if err := u.moveEntries(p.Path, u.storage, own); err != nil {
		return nil, "", err
	}
	if err := u.rename(filepath.Join(p.Path, checkpoint.StampFile), filepath.Join(u.storage, checkpoint.StampFile)); err != nil {
		return nil, "", err
	}
	u.log.Info("undo point is the state", slog.String("path", u.storage), slog.String("failed", aside))
	return p, aside, u.discard(context.Background(), p.Path)
}

// forgetInPlace removes what is left of a put-back that has not touched the state yet, or has completed it: then the undo
// point has no stamp any more.
func (u *Undo) forgetInPlace(p *checkpoint.UndoPoint, stamp *checkpoint.Stamp) (returned *checkpoint.UndoPoint, aside string, err error) {
	if err := remove(context.Background(), u.leaving()); err != nil {
		return nil, "", err
	}
	if p == nil || exists(filepath.Join(p.Path, checkpoint.StampFile)) {
		return nil, "", nil
	}
	if stamp != nil && stamp.Same(p.Stamp) {
		returned, aside = p, u.Aside()
	}
	return returned, aside, u.discard(context.Background(), p.Path)
}

// moveEntries moves what is in one directory to another one, durably, except what is to stay.
func (u *Undo) moveEntries(from, to string, stays func(name string) bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("cannot move what is in %s: %w", from, err)
	}
	for _, entry := range entries {
		if stays(entry.Name()) {
			continue
		}
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		if err := unix.Renameat2(unix.AT_FDCWD, source, unix.AT_FDCWD, target, unix.RENAME_NOREPLACE); err != nil {
			if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) || exists(target) {
				return fmt.Errorf("cannot move %s to %s: %w", source, target, err)
			}
			if err := unix.Rename(source, target); err != nil {
				return fmt.Errorf("cannot move %s to %s: %w", source, target, err)
			}
		}
		u.done("moved " + entry.Name())
	}
	return u.synced(to, from)
}
