package preflight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	// lowBytes and lowPercent are how much of a volume may be free before a check warns.
	lowBytes   = 1 << 30
	lowPercent = 5
)

// volume finds what is wrong with the directories of the state and of the checkpoint at path (empty for none): whether
// this user may write there, whether another process works on them, and how much is free. It writes nothing and makes
// no file.
func (n *Inspection) volume(path string) []sequencer.Finding {
	var found []sequencer.Finding
	var volumes []volume
	add := func(i int, what, dir string) {
		v, problems := lookAt(i, what, dir)
		if slices.ContainsFunc(volumes, func(have volume) bool { return have.dir == v.dir }) {
			return
		}
		found = append(found, problems...)
		if !slices.ContainsFunc(volumes, func(have volume) bool { return have.device == v.device }) {
			found = append(found, v.room()...)
		}
		volumes = append(volumes, v)
	}
	if path != "" {
		dir := filepath.Dir(checkpoint.ResolveLinks(path))
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) { // a run makes the storage directory, but not this one
			found = append(found, sequencer.Finding{
				Version: sequencer.WholePlan, Severity: sequencer.SeverityError, What: fmt.Sprintf("the directory %s for the checkpoint does not exist, and a run does not make it", dir),
				Next: "mount the volume there, make the directory, or name a checkpoint in another one",
			})
		} else {
			add(sequencer.WholePlan, "the checkpoint", dir)
		}
		found = append(found, checkLock(checkpoint.LockPath(path))...)
		found = append(found, checkMount(sequencer.WholePlan, "the checkpoint", checkpoint.ResolveLinks(path))...)
	}
	var before string
	all, _ := n.storages()
	for _, s := range all {
		dir := checkpoint.ResolveLinks(s.dir)
		if s.dir == "" || dir == before {
			continue // the first is found by storage
		}
		before = dir
		found = append(found, checkMount(s.version, "the stamp of the state", filepath.Join(dir, checkpoint.StampFile))...)
		add(s.version, "the state", dir)
	}
	return found
}

// volume is a directory on a file system.
type volume struct {
	dir    string
	device uint64
}

// lookAt finds out whether files can be written in dir, or dir itself can be made.
func lookAt(i int, what, dir string) (volume, []sequencer.Finding) {
	existing, stat, err := nearest(dir)
	v := volume{dir: existing, device: stat.Dev}
	if err == nil && stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err == nil {
		err = unix.Access(existing, unix.W_OK|unix.X_OK)
	}
	if err == nil {
		return v, nil
	}
	text := fmt.Sprintf("%s cannot be written in %s: %s", what, dir, err)
	if existing != dir {
		text = fmt.Sprintf("the directory %s for %s does not exist, and cannot be made in %s: %s", dir, what, existing, err)
	}
	next := fmt.Sprintf("mount a volume there that user %d may write: chown it, or start the container as its owner (--user, fsGroup)", os.Getuid())
	if errors.Is(err, unix.EROFS) {
		next = "mount the volume for writing: the file system is read-only"
	}
	return v, []sequencer.Finding{{Version: i, Severity: sequencer.SeverityError, What: text, Next: next}}
}

// nearest finds dir or, if it is missing, the nearest directory above it, in which it would be made.
func nearest(dir string) (existing string, stat unix.Stat_t, err error) {
	err = unix.Stat(dir, &stat)
	for errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		err = unix.Stat(dir, &stat)
	}
	return dir, stat, err
}

// room finds that a file system is nearly full.
func (v volume) room() []sequencer.Finding {
	var s unix.Statfs_t
	if err := unix.Statfs(v.dir, &s); err != nil {
		return nil // lookAt has found that it cannot be used
	}
	var found []sequencer.Finding
	free, size := s.Bavail*uint64(s.Frsize), s.Blocks*uint64(s.Frsize)
	if size > 0 && (free < lowBytes || free/lowPercent < size/100) {
		found = append(found, warning("make it larger before the upgrade: a migration may need room for a second copy of what it rewrites",
			"the volume of %s has %d MiB free of %d MiB", v.dir, free>>20, size>>20))
	}
	// Some file systems have no fixed number of inodes, and say 0.
	if s.Files > 0 && s.Ffree/lowPercent < s.Files/100 {
		found = append(found, warning("remove files, or make a file system with more inodes: without any no file can be made",
			"the volume of %s has %d inodes free of %d", v.dir, s.Ffree, s.Files))
	}
	return found
}

// checkMount finds that a file is a mount of its own. It can be read and written then, but it is replaced at each
// write, and the kernel renames nothing onto a mount point (EBUSY).
func checkMount(i int, what, name string) []sequencer.Finding {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &s)
	if err != nil || s.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 { // before Linux 5.8 it is never set
		return nil
	}
	return []sequencer.Finding{{
		Version: i, Severity: sequencer.SeverityError, What: fmt.Sprintf("%s, %s, is mounted as a single file: it could not be replaced, so every write would fail", what, name),
		Next: "mount the directory that has it: " + filepath.Dir(name),
	}}
}

// checkLock finds out whether the lock of a checkpoint is held.
func checkLock(name string) []sequencer.Finding {
	held, err := checkpoint.Holder(name)
	switch {
	case err != nil:
		return []sequencer.Finding{{Version: sequencer.WholePlan, Severity: sequencer.SeverityError, What: err.Error(), Next: "give it to the user who runs the entrypoint: chown " + name}}
	case held != nil && held.HolderGone:
		return []sequencer.Finding{warning("an entrypoint that is started now waits until that has ended", "%s", held)}
	case held != nil:
		return []sequencer.Finding{warning("that is right while the rollup runs; a second entrypoint would be refused", "%s", held)}
	}
	return nil
}
