// Package undo keeps the undo point of a state: a copy of the storage directory from before an upgrade. It makes the
// copy, finds it again, and puts it back. It is the sequencer.Undo of a real machine.
//
// What it promises: a directory is an undo point only if it has a description (checkpoint.UndoFile), and that is written
// when the copy is complete and made durable with it. A kill or a power cut at any moment leaves the state whole, or, if
// an undo point was being put back file by file, a stamp that no plan has; the next Find finishes or forgets the rest.
// Names tell what a directory is. NAME is that of the version that the undo point is from before, made safe for a file:
//
//	STORAGE.before-NAME         the undo point; without a description, and STORAGE with one: what was the state
//	STORAGE.failed-NAME         the state that an undo point has replaced; the first one that failed is kept
//	STORAGE.undone-NAME-TIME    the same, but a person has undone a version that had run; all are kept
//	.STORAGE.undo-incomplete    a copy that is being made
//	.STORAGE.undo-deleted       what is being deleted
//	.STORAGE.undo-returning     an undo point on its way back, on a file system that cannot exchange two names
//	.STORAGE.undo-leaving       what is being moved out of a storage directory that cannot be renamed
//
// What it refuses: to divide a state that contains a mount point, to replace a lock that is held, and to put back a copy
// whose stamp is not that of its description. It knows nothing of plans, nodes and heights.
package undo

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// Mode is when an undo point is made.
type Mode string

const (
	// Auto makes one if that is cheap: with reflinks, or by a copy that fits into half of the free space and takes less
	// than a minute.
	Auto Mode = "auto"
	// Copy always makes one. If that is impossible, it is an error.
	Copy Mode = "copy"
	// Off makes none. One that is there can still be used.
	Off Mode = "off"
)

// patience is how long a copy may take with Auto.
const patience = time.Minute

// Options are what an Undo depends on. Storage and Mode are required.
type Options struct {
	// Storage is the storage directory, which need not exist yet.
	Storage string
	// Dir is where the undo point is kept, on the file system of Storage; empty for beside Storage. If it is in Storage,
	// that directory is never renamed.
	Dir string
	// Checkpoint is the checkpoint file, empty for none: it may be in Storage.
	Checkpoint string
	Mode       Mode
	// Never says why no undo point may be made here, for a reason that only the caller knows; empty for none.
	Never string
	// Log may be nil.
	Log *slog.Logger
}

// Undo keeps the undo point of one storage directory. The caller holds the locks of the state during any call that
// changes something.
type Undo struct {
	storage, dir, base, checkpoint, never string
	mode                                  Mode
	log                                   *slog.Logger
	// inPlace: dir is in storage, so the storage directory stays, and what is in it is moved.
	inPlace bool

	// patience is how long a copy with Auto may take, workers how many files are copied at once, and part how many bytes
	// of a large one are copied by one worker before another one may take the next.
	patience time.Duration
	workers  int
	part     int64
	// noReflink and noExchange are for tests: the file system behaves as if it could not do these.
	noReflink, noExchange bool
	// step is for tests too, and nil otherwise: it is called between two changes on disk. Tests end it there, as a kill
	// would.
	step func(what string)
}

// New gives the Undo of a storage directory. It is an error if Dir cannot be used, or, with Copy, if no undo point could
// ever be made here: an operator who has asked for one must learn that at the start and not at the upgrade.
func New(o Options) (*Undo, error) {
	u := &Undo{storage: checkpoint.ResolveLinks(o.Storage), mode: o.Mode, never: o.Never, log: o.Log, patience: patience, workers: 4, part: partBytes}
	u.dir, u.base = filepath.Dir(u.storage), filepath.Base(u.storage)
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	if o.Checkpoint != "" {
		u.checkpoint = checkpoint.ResolveLinks(o.Checkpoint)
	}
	if o.Dir != "" {
		u.dir = checkpoint.ResolveLinks(o.Dir)
		if err := u.checkDir(); err != nil {
			return nil, err
		}
	}
	if why := u.impossible(); why != "" && o.Mode == Copy {
		return nil, fmt.Errorf("no undo point can be made: %s", why)
	}
	return u, nil
}

// checkDir finds that the directory of --undo-dir cannot be used.
func (u *Undo) checkDir() error {
	rest, below := strings.CutPrefix(u.dir, strings.TrimSuffix(u.storage, "/")+"/")
	u.inPlace = below
	switch {
	case u.dir == u.storage:
		return fmt.Errorf("%s is the storage directory itself: name a directory in it, such as %s/.undo", u.dir, u.storage)
	case below && strings.Contains(rest, "/"):
		return fmt.Errorf("%s is not directly in the storage directory %s: name a directory such as %s/.undo", u.dir, u.storage, u.storage)
	}
	other := filepath.Dir(u.storage)
	if below {
		other = u.storage
	}
	mounted := checkpoint.MountIn(u.storage) == u.storage
	if mounted && !below || !sameMount(u.dir, other) {
		hint := ""
		if mounted {
			hint = ": the storage directory is a mount point of its own, so name a directory in it, such as " + u.storage + "/.undo"
		}
		return fmt.Errorf("%s is not on the same mount as the state in %s, so an undo point could not be put back by a rename%s", u.dir, u.storage, hint)
	}
	return nil
}

// impossible says why no undo point can be made here, whatever the file system can do; empty if nothing is known.
func (u *Undo) impossible() string {
	point := checkpoint.MountIn(u.storage)
	switch {
	case u.never != "":
		return u.never
	case isUnreadable(u.dir):
		return fmt.Sprintf("this user cannot read the directory %s, so an undo point in it could not be found again", u.dir)
	case point == u.storage && !u.inPlace:
		return fmt.Sprintf("%s is a mount point, which cannot be renamed (keep undo points in it with --undo-dir %s/.undo)", u.storage, u.storage)
	case point != "" && point != u.storage:
		return fmt.Sprintf("%s contains the mount point %s, which a copy would not cover", u.storage, point)
	}
	if u.checkpoint == "" {
		return ""
	}
	switch dir := filepath.Dir(u.checkpoint); {
	case u.inPlace && dir == u.storage: // it stays where it is
	case strings.HasPrefix(dir+"/", u.storage+"/"):
		return fmt.Sprintf("the checkpoint %s is in the storage directory, and its lock cannot be replaced while it is held (move the checkpoint out of %s)", u.checkpoint, u.storage)
	}
	return ""
}

// isUnreadable reports whether the directory is there, and this user may not read it.
func isUnreadable(dir string) bool {
	d, err := os.Open(dir)
	if err == nil {
		d.Close()
	}
	return errors.Is(err, os.ErrPermission)
}

// inTheWay says that the name of the next undo point, that of the version, is taken by something else; empty if not.
func (u *Undo) inTheWay(version string) string {
	path := u.pointPath(version)
	info, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	if info.IsDir() {
		if p, err := checkpoint.ReadUndoPoint(path); err != nil || p != nil && u.pointPath(p.To.Name) == path {
			return "" // what cannot be read is an error, and not by its name alone
		}
	}
	return path + " is in the way and is not an undo point: move it away"
}

// none is the outcome of Make if there is no undo point to be had.
func (u *Undo) none(format string, args ...any) error {
	why := fmt.Sprintf(format, args...)
	if u.mode == Copy {
		return fmt.Errorf("no undo point can be made: %s", why)
	}
	return &sequencer.NoUndoPointError{Why: why}
}

// nameLimit bounds the name of a version in that of a directory, in bytes.
const nameLimit = 48

// fileName makes the name of a version safe for a file.
func fileName(version string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.+", r) {
			return r
		}
		return '_'
	}, version)
	return safe[:min(len(safe), nameLimit)]
}

func (u *Undo) beside(name string) string { return filepath.Join(u.dir, name) }

func (u *Undo) pointPath(version string) string {
	return u.beside(u.base + ".before-" + fileName(version))
}

func (u *Undo) failedPath(version string) string {
	return u.beside(u.base + ".failed-" + fileName(version))
}

// undonePath is a name that is free, because what is kept under it may have blocks that are nowhere else.
func (u *Undo) undonePath(version string) string {
	path := u.beside(u.base + ".undone-" + fileName(version) + "-" + time.Now().UTC().Format("20060102T150405Z"))
	for exists(path) {
		path += "+"
	}
	return path
}

func (u *Undo) incomplete() string { return u.beside("." + u.base + ".undo-incomplete") }
func (u *Undo) doomed() string     { return u.beside("." + u.base + ".undo-deleted") }
func (u *Undo) returning() string  { return u.beside("." + u.base + ".undo-returning") }
func (u *Undo) leaving() string    { return u.beside("." + u.base + ".undo-leaving") }

// done marks that one change on disk was made.
func (u *Undo) done(what string) {
	if u.step != nil {
		u.step(what)
	}
}

// stays reports whether name, in the storage directory, is no part of the state: it is neither copied nor moved.
func (u *Undo) stays(name string) bool {
	switch {
	case name == checkpoint.UndoFile, durable.IsTemporary(checkpoint.StampFile, name):
		return true
	case !u.inPlace:
		return false
	}
	return name == filepath.Base(u.dir) || name == "lost+found" ||
		filepath.Dir(u.checkpoint) == u.storage && checkpoint.BelongsTo(filepath.Base(u.checkpoint), name)
}

// sameMount reports whether a file can be renamed from one directory to the other, as far as that can be known without
// trying. Neither need exist.
func sameMount(a, b string) bool {
	one, errOne := mountOf(a)
	other, errOther := mountOf(b)
	return errOne == nil && errOther == nil && one == other
}

// mount is a file system, or a btrfs subvolume, where it is mounted. id is 0 before Linux 5.8.
type mount struct {
	major, minor uint32
	id           uint64
}

// mountOf looks at dir or, if it is missing, at the directory in which it would be made.
func mountOf(dir string) (mount, error) {
	var s unix.Statx_t
	for {
		err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_TYPE|unix.STATX_MNT_ID, &s)
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			if s.Mask&unix.STATX_MNT_ID == 0 {
				s.Mnt_id = 0
			}
			return mount{s.Dev_major, s.Dev_minor, s.Mnt_id}, err
		}
		dir = filepath.Dir(dir)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
