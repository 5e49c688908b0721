package undo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// Make implements sequencer.Undo. First it tries reflinks; the older undo point is then kept until the new one is
// complete. If the file system has none, the older one is deleted before the copy, as both may not fit: the state is
// whole at that time.
func (u *Undo) Make(ctx context.Context, p checkpoint.UndoPoint, progress func(sequencer.UndoProgress)) (checkpoint.UndoPoint, error) {
	p, err := u.make(ctx, p, progress)
	if err != nil {
		if removeErr := u.removeIncomplete(ctx); removeErr != nil {
			u.log.Warn("incomplete undo point not deleted", slog.String("error", removeErr.Error()))
		}
	}
	if ctx.Err() != nil && err != nil {
		return p, ctx.Err()
	}
	if why := notHere(err); why != nil && u.mode == Auto {
		err = u.none("the state cannot be copied here: %s", err)
	}
	return p, err
}

// cleanUpTime is how long a stop waits for the deletion of an incomplete copy. The next Finish deletes the rest.
const cleanUpTime = 3 * time.Second

func (u *Undo) removeIncomplete(ctx context.Context) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
	}
	return remove(ctx, u.incomplete())
}

// notHere gives err if it says that there is no place for an undo point, and not that the state cannot be read.
func notHere(err error) error {
	if isOneOf(err, unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EPERM, unix.EROFS, unix.ENAMETOOLONG, unix.ENOTDIR, unix.EXDEV, unix.EMLINK) {
		return err
	}
	return nil
}

func isOneOf(err error, list ...unix.Errno) bool {
	for _, errno := range list {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (u *Undo) make(ctx context.Context, p checkpoint.UndoPoint, progress func(sequencer.UndoProgress)) (checkpoint.UndoPoint, error) {
	if u.mode == Off {
		return p, &sequencer.NoUndoPointError{Why: "--undo is off", Unwanted: true}
	}
	if why := u.impossible(); why != "" {
		return p, u.none("%s", why)
	}
	if why := u.inTheWay(p.To.Name); why != "" {
		return p, u.none("%s", why)
	}
	switch stamp, err := stampOf(u.storage); {
	case err != nil:
		return p, err
	case stamp == nil || !stamp.Same(p.Stamp):
		return p, fmt.Errorf("the stamp in %s was changed meanwhile: nothing was copied", u.storage)
	}
	need, err := u.measure(ctx, u.storage)
	if err == nil {
		err = u.makeRoomForNames(ctx)
	}
	if err == nil { // ZFS cannot share blocks that are not on the disk yet
		err = syncAll(ctx, u.storage)
	}
	if err != nil {
		return p, err
	}
	c := newCopier(u, need, progress)
	p.Method = checkpoint.UndoReflink
	if err = c.run(ctx, checkpoint.UndoReflink, 0); errors.Is(err, errNoReflink) {
		p.Method = checkpoint.UndoCopy
		if err = u.makeRoom(ctx, need); err == nil {
			err = c.run(ctx, checkpoint.UndoCopy, u.limit())
		}
	}
	if err != nil {
		return p, err
	}
	p.ID, p.Bytes, p.CreatedAt, p.Path = rand.Text(), need, time.Now().UTC(), u.pointPath(p.To.Name)
	return p, u.complete(ctx, p, c)
}

// limit is how long a copy may take; 0 for any time.
func (u *Undo) limit() time.Duration {
	if u.mode == Copy {
		return 0
	}
	return u.patience
}

// makeRoomForNames makes the directory of undo points, and removes what an interrupted copy has left.
func (u *Undo) makeRoomForNames(ctx context.Context) error {
	if err := os.Mkdir(u.dir, 0o755); err == nil {
		err = durable.SyncDir(filepath.Dir(u.dir))
		if err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot make the directory of undo points: %w", err)
	}
	return remove(ctx, u.incomplete())
}

// makeRoom deletes the older undo point before a copy, and the state that one has replaced only if there is no room
// otherwise. If there is no room in any case, nothing is deleted.
func (u *Undo) makeRoom(ctx context.Context, need int64) error {
	_, older, _, err := u.points()
	if err != nil {
		return err
	}
	failed, err := u.failedStates()
	if err != nil {
		return err
	}
	free, err := u.free()
	if err != nil {
		return err
	}
	freed := func(paths []string) (n int64) {
		for _, path := range paths {
			size, sizeErr := u.measure(ctx, path)
			err = errors.Join(err, sizeErr)
			n += size
		}
		return n
	}
	free += freed(older)
	if u.tooLarge(need, free) != "" && len(failed) > 0 {
		free += freed(failed)
		older = append(older, failed...)
	}
	if err != nil {
		return err
	}
	if why := u.tooLarge(need, free); why != "" {
		return u.none("%s", why)
	}
	for _, path := range older {
		u.log.Info("older copy of the state deleted", slog.String("path", path))
		if err := u.discard(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// tooLarge says that a copy of that many bytes does not fit; empty if it does. With Auto half of the free space is kept
// for what comes after the copy.
func (u *Undo) tooLarge(need, free int64) string {
	switch {
	case u.mode == Auto && need > free/2:
		return fmt.Sprintf("the file system has no reflinks, and the state, %s, is more than half of the free %s", plain.Bytes(need), plain.Bytes(free))
	case need+need/100+spare > free:
		return fmt.Sprintf("the file system has no reflinks, and a copy of the state needs %s, but only %s are free", plain.Bytes(need), plain.Bytes(free))
	}
	return ""
}

// spare is what else a copy may need: directories and the file system's own records, besides one percent.
const spare = 1 << 20

// free is how many bytes this user may still write.
func (u *Undo) free() (int64, error) {
	var s unix.Statfs_t
	dir := u.dir
	for !exists(dir) {
		dir = filepath.Dir(dir)
	}
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("cannot find out how much of the volume of %s is free: %w", dir, err)
	}
	return int64(s.Bavail) * s.Frsize, nil
}

// complete makes a copy an undo point: the description is the last file, and the name comes when all is durable.
func (u *Undo) complete(ctx context.Context, p checkpoint.UndoPoint, c *copier) error {
	text, err := checkpoint.EncodeUndoPoint(p)
	if err != nil {
		return err
	}
	dir := u.incomplete()
	if err := durable.Replace(filepath.Join(dir, checkpoint.UndoFile), text, func(*os.File) error { return nil }); err != nil {
		return err
	}
	if err := c.finishDirectories(); err != nil {
		return err
	}
	u.done("described")
	if err := syncAll(ctx, dir); err != nil {
		return err
	}
	u.done("synced the copy")
	_, older, _, err := u.points()
	if err != nil {
		return err
	}
	for _, path := range older {
		if err := u.doom(ctx, path); err != nil {
			return err
		}
	}
	if err := u.rename(dir, p.Path); err != nil {
		return err
	}
	if err := remove(ctx, u.doomed()); err != nil && ctx.Err() == nil { // the undo point is there, whatever is left
		return err
	}
	return nil
}

// syncAll makes durable what was written to the file system of dir. That can take long and cannot be interrupted, so it
// is left alone when ctx ends.
func syncAll(ctx context.Context, dir string) error {
	done := make(chan error, 1)
	go func() {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Syncfs(fd)
			unix.Close(fd)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("cannot make what was written to the file system of %s durable: %w", dir, err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
