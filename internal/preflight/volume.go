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
	"rollup-entrypoint/sequencer/sovereign"
)

const (
	// lowBytes and lowPercent are how much of a volume may be free before a check warns.
	lowBytes   = 1 << 30
	lowPercent = 5
)

// CheckVolume finds what is wrong with the directories of the state and of the checkpoint at path (empty for none): whether
// this user may write there, whether another process works on them, and how much is free. It writes nothing and makes no file.
func CheckVolume(plan *sequencer.Plan, path string) []sequencer.Finding {
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
		add(sequencer.WholePlan, "the checkpoint", filepath.Dir(checkpoint.ResolveLinks(path)))
		found = append(found, checkLock(checkpoint.LockPath(path))...)
	}
	for i, v := range plan.Versions {
		if cfg, err := sovereign.ReadConfig(v.Config); err == nil && cfg.Storage != "" {
			add(i, "the state", checkpoint.ResolveLinks(cfg.StorageDir()))
		}
	}
	return found
}

// volume is a directory on a file system.
type volume struct {
	dir    string
	device uint64
}

// lookAt finds whether what belongs in dir can be written there, or dir itself be made.
func lookAt(i int, what, dir string) (volume, []sequencer.Finding) {
	existing := dir
	info, err := os.Stat(existing)
	for errors.Is(err, os.ErrNotExist) && existing != filepath.Dir(existing) {
		existing = filepath.Dir(existing)
		info, err = os.Stat(existing)
	}
	v := volume{dir: existing}
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err == nil {
		var stat unix.Stat_t
		if err = unix.Stat(existing, &stat); err == nil {
			v.device = stat.Dev
			err = unix.Access(existing, unix.W_OK|unix.X_OK)
		}
	}
	if err == nil {
		return v, nil
	}
	text := fmt.Sprintf("%s cannot be written in %s: %s", what, dir, err)
	if existing != dir {
		text = fmt.Sprintf("the directory %s for %s is not there, and cannot be made in %s: %s", dir, what, existing, err)
	}
	next := fmt.Sprintf("mount a volume there that user %d may write: chown it, or start the container as its owner (--user, fsGroup)", os.Getuid())
	if errors.Is(err, unix.EROFS) {
		next = "mount the volume for writing: the file system is read-only"
	}
	return v, []sequencer.Finding{{Version: i, Severity: sequencer.SeverityError, What: text, Next: next}}
}

// room finds that a file system is nearly full.
func (v volume) room() []sequencer.Finding {
	var s unix.Statfs_t
	if err := unix.Statfs(v.dir, &s); err != nil {
		return nil // lookAt has told that it is not to be used
	}
	var found []sequencer.Finding
	low := func(text, next string) {
		found = append(found, sequencer.Finding{Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: text, Next: next})
	}
	free, size := s.Bavail*uint64(s.Frsize), s.Blocks*uint64(s.Frsize)
	if size > 0 && (free < lowBytes || free/lowPercent < size/100) {
		low(fmt.Sprintf("the volume of %s has %d MiB free of %d MiB", v.dir, free>>20, size>>20), "make it larger before the upgrade: a migration may need room for a second copy of what it rewrites")
	}
	// Some file systems have no fixed number of inodes, and say 0.
	if s.Files > 0 && s.Ffree/lowPercent < s.Files/100 {
		low(fmt.Sprintf("the volume of %s has %d inodes free of %d", v.dir, s.Ffree, s.Files), "remove files, or make a file system with more inodes: without any no file can be made")
	}
	return found
}

// checkLock finds whether the lock of a checkpoint is held.
func checkLock(name string) []sequencer.Finding {
	held, err := checkpoint.Holder(name)
	switch {
	case err != nil:
		return []sequencer.Finding{{Version: sequencer.WholePlan, Severity: sequencer.SeverityError, What: err.Error(), Next: "give it to the user who runs the entrypoint: chown " + name}}
	case held != nil:
		return []sequencer.Finding{{Version: sequencer.WholePlan, Severity: sequencer.SeverityWarning, What: held.Error(), Next: "that is right while the rollup runs; a second entrypoint would be refused"}}
	}
	return nil
}
