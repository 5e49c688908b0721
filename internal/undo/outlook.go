package undo

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Outlook says why the next undo point could not be made, as far as that can be known now; empty if nothing speaks
// against it, or if none is wanted. It changes nothing, makes no name, and needs no lock. A state that is not measured
// when ctx ends is taken for as large as has been seen by then. version is the name of the next version.
func (u *Undo) Outlook(ctx context.Context, version string) string {
	if u.mode == Off || !exists(u.storage) {
		return ""
	}
	if why := u.impossible(); why != "" {
		return why
	}
	if why := u.inTheWay(version); why != "" {
		return why
	}
	dir := u.dir
	for !exists(dir) {
		dir = filepath.Dir(dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return "nothing can be made in " + dir + ": " + err.Error()
	}
	if hasReflinks(dir) {
		return ""
	}
	free, err := u.free()
	if err != nil {
		return err.Error()
	}
	need, err := u.measure(ctx, u.storage)
	if err != nil && ctx.Err() == nil {
		return err.Error()
	}
	_, points, _, _ := u.points()
	failed, _ := u.failedStates()
	for _, path := range append(points, failed...) { // they make room
		size, _ := u.measure(ctx, path)
		free += size
	}
	return u.tooLarge(need, free)
}

// hasReflinks tries it with two files that have no name.
func hasReflinks(dir string) bool {
	a, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return false
	}
	defer a.Close()
	b, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		return false
	}
	defer b.Close()
	if _, err = a.Write(zeros[:4096]); err == nil {
		err = unix.Fdatasync(int(a.Fd())) // ZFS cannot share blocks that are not on the disk yet
	}
	return err == nil && unix.IoctlFileClone(int(b.Fd()), int(a.Fd())) == nil
}
