package undo

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer/checkpoint"
)

// PutBack implements sequencer.Undo.
func (u *Undo) PutBack(p checkpoint.UndoPoint) (aside string, err error) {
	if err := u.usable(p); err != nil {
		return "", fmt.Errorf("the undo point %s cannot be put back: %w", p.Path, err)
	}
	if u.inPlace {
		err = u.beginInPlace()
	} else {
		err = u.exchange(p)
	}
	if err == nil {
		_, aside, err = u.finishPutBack()
	}
	if err != nil {
		return "", fmt.Errorf("the undo point was not put back: %w", err)
	}
	return aside, nil
}

// usable looks at the undo point once more before it becomes the state.
func (u *Undo) usable(p checkpoint.UndoPoint) error {
	now, err := checkpoint.ReadUndoPoint(p.Path)
	if err != nil {
		return err
	}
	if now == nil || now.ID != p.ID || p.Path != u.pointPath(now.To.Name) {
		return errors.New("another one is there, or none")
	}
	switch stamp, err := stampOf(p.Path); {
	case err != nil:
		return err
	case stamp == nil:
		return errors.New("it has no stamp")
	case !stamp.Same(now.Stamp):
		return fmt.Errorf("its stamp is that of version %d (%q) and was changed since it was made from version %d (%q): a process has worked on it",
			stamp.VersionIndex, stamp.Name, now.Stamp.VersionIndex, now.Stamp.Name)
	}
	return nil
}

// exchange makes the undo point the state, under which name its description says that this is to be finished.
func (u *Undo) exchange(p checkpoint.UndoPoint) error {
	if !exists(u.storage) {
		return u.rename(p.Path, u.storage)
	}
	err := error(unix.EINVAL)
	if !u.noExchange {
		err = unix.Renameat2(unix.AT_FDCWD, p.Path, unix.AT_FDCWD, u.storage, unix.RENAME_EXCHANGE)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return u.exchangeByRenames(p)
	}
	if err != nil {
		return fmt.Errorf("cannot exchange %s and %s: %w", p.Path, u.storage, err)
	}
	u.done("exchanged")
	return u.synced(filepath.Dir(u.storage), u.dir)
}

// exchangeByRenames is for a file system that cannot exchange two names, such as NFS. The first name says what is being
// done: when no state is there, it is the state.
func (u *Undo) exchangeByRenames(p checkpoint.UndoPoint) error {
	if err := u.rename(p.Path, u.returning()); err != nil {
		return err
	}
	if err := u.rename(u.storage, p.Path); err != nil {
		return errors.Join(err, u.rename(u.returning(), p.Path))
	}
	return u.rename(u.returning(), u.storage)
}

// finishReturn finishes what a PutBack has begun: the state that was replaced is kept under its name, and the
// description goes last. It gives nil if none was begun.
func (u *Undo) finishReturn() (p *checkpoint.UndoPoint, aside string, err error) {
	if err := u.finishRenames(); err != nil {
		return nil, "", err
	}
	if p, err = checkpoint.ReadUndoPoint(u.storage); p == nil || err != nil {
		return nil, "", err
	}
	// Only together with a description in the state is a directory of that name, without one, what was the state.
	replaced := u.pointPath(p.To.Name)
	if exists(replaced) && !exists(filepath.Join(replaced, checkpoint.UndoFile)) {
		if aside, err = u.keepFailed(replaced, p); err != nil {
			return nil, "", err
		}
	}
	if err := u.forgetDescription(); err != nil {
		return nil, "", err
	}
	u.log.Info("undo point is the state", slog.String("path", u.storage), slog.String("failed", aside))
	return p, aside, nil
}

// forgetDescription makes a state of an undo point that is in its place.
func (u *Undo) forgetDescription() error {
	if err := os.Remove(filepath.Join(u.storage, checkpoint.UndoFile)); err != nil {
		return fmt.Errorf("cannot remove the description of the undo point: %w", err)
	}
	u.done("description removed")
	return u.synced(u.storage)
}

// finishRenames finishes exchangeByRenames, or takes it back if the state is still there.
func (u *Undo) finishRenames() error {
	if !exists(u.returning()) {
		return nil
	}
	if !exists(u.storage) {
		return u.rename(u.returning(), u.storage)
	}
	p, err := checkpoint.ReadUndoPoint(u.returning())
	if err != nil {
		return err
	}
	if p == nil {
		return fmt.Errorf("%s is not an undo point, and was not made by this program: move it away", u.returning())
	}
	return u.rename(u.returning(), u.pointPath(p.To.Name))
}
