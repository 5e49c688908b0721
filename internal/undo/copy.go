package undo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	// partBytes is the size of a part of a large file, and partsMost bounds their number: a sparse file can be much larger
	// than any disk.
	partBytes = 32 << 20
	partsMost = 1 << 14
	// bufferBytes is how much a worker reads at once.
	bufferBytes = 512 << 10
	// progressEvery is how often progress is reported.
	progressEvery = 250 * time.Millisecond
	// stepPart and stepGivenUp are steps for tests, as those of Undo.step, and the only ones of other goroutines than the
	// one of Make.
	stepPart    = "part"
	stepGivenUp = "given up"
)

// copier copies a storage directory to the incomplete undo point. It is used by one goroutine, for one method after the
// other.
type copier struct {
	u        *Undo
	from, to string
	total    int64
	report   func(sequencer.UndoProgress)

	method checkpoint.UndoMethod
	since  time.Time
	// copied counts bytes, as far as they are allocated.
	copied atomic.Int64
	parts  chan part
	// directories get their times when all that is in them is there, and links are made when their files are.
	directories []entry
	links       []link
	first       map[inode]string
}

// entry is a file or directory of the state, with its path below the storage directory.
type entry struct {
	path string
	stat unix.Stat_t
}

// link is a further name, path, of the file that was copied to first.
type link struct{ first, path string }

func newCopier(u *Undo, total int64, report func(sequencer.UndoProgress)) *copier {
	if report == nil {
		report = func(sequencer.UndoProgress) {}
	}
	return &copier{u: u, from: u.storage, to: u.incomplete(), total: total, report: report}
}

// run copies everything by one method; limit is how long that may take, 0 for any time. The error is errNoReflink if the
// file system cannot do it for one of the files: an undo point is of one kind as a whole.
func (c *copier) run(ctx context.Context, method checkpoint.UndoMethod, limit time.Duration) error {
	c.method, c.since, c.parts = method, time.Now(), make(chan part)
	c.directories, c.links, c.first = nil, nil, map[inode]string{}
	c.copied.Store(0)
	if err := remove(ctx, c.to); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopWatching := c.watch(limit, cancel)
	var workers sync.WaitGroup
	for range c.u.workers {
		workers.Go(func() { c.work(ctx, cancel) })
	}
	err := c.walk(ctx)
	if err != nil {
		cancel(err)
	}
	close(c.parts)
	workers.Wait()
	stopWatching()
	if cause := context.Cause(ctx); cause != nil { // the first one
		return cause
	}
	return c.makeLinks()
}

// watch reports the progress, and ends the copy when it would take longer than limit. What it returns waits for the end
// of the last report.
func (c *copier) watch(limit time.Duration, cancel context.CancelCauseFunc) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	look := func() time.Duration {
		done, elapsed := min(c.copied.Load(), c.total), time.Since(c.since)
		c.report(sequencer.UndoProgress{Method: c.method, Done: done, Total: c.total, Since: c.since})
		if done <= 0 {
			return elapsed
		}
		return time.Duration(float64(elapsed) * float64(c.total) / float64(done))
	}
	look()
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-stopping:
				look()
				return
			case <-ticker.C:
			}
			all, elapsed := look(), time.Since(c.since)
			// At first the rate is that of the memory. Twenty measurements of a minute are every three seconds.
			if limit > 0 && all > limit && elapsed >= limit/20 {
				rate := float64(c.copied.Load()) / elapsed.Seconds()
				cancel(c.u.none("the file system has no reflinks, and to copy the state, %s, at the present %s/s would take %s, more than %s",
					plain.Bytes(c.total), plain.Bytes(int64(rate)), all.Round(time.Second), limit))
				c.u.done(stepGivenUp)
				<-stopping
				return
			}
		}
	}()
	return func() { close(stopping); <-stopped }
}

// walk makes the directories, and hands the files to the workers.
func (c *copier) walk(ctx context.Context) error {
	var root unix.Stat_t
	if err := unix.Stat(c.from, &root); err != nil {
		return fmt.Errorf("cannot read the state: %s: %w", c.from, err)
	}
	if err := c.directory("", root); err != nil {
		return err
	}
	return walk(ctx, c.from, c.u.stays, func(path string, stat *unix.Stat_t) error {
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return c.directory(path, *stat)
		case unix.S_IFSOCK: // without the process that has made it, it is nothing
			return nil
		case unix.S_IFREG:
			return c.regular(ctx, path, *stat)
		}
		return c.special(path, *stat)
	})
}

func (c *copier) directory(path string, stat unix.Stat_t) error {
	if err := os.Mkdir(filepath.Join(c.to, path), 0o700); err != nil {
		return fmt.Errorf("cannot copy the state: %w", err)
	}
	c.directories = append(c.directories, entry{path, stat})
	return nil
}

// special copies a symbolic link, a FIFO or a device.
func (c *copier) special(path string, stat unix.Stat_t) error {
	from, to := filepath.Join(c.from, path), filepath.Join(c.to, path)
	var err error
	if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	} else {
		err = unix.Mknod(to, stat.Mode&unix.S_IFMT|0o600, int(stat.Rdev))
	}
	if err == nil {
		err = giveAttributes(from, to, &stat)
	}
	if err != nil {
		return fmt.Errorf("cannot copy %s: %w", from, err)
	}
	return nil
}

// regular hands a file to the workers, in parts if it is large.
func (c *copier) regular(ctx context.Context, path string, stat unix.Stat_t) error {
	if stat.Nlink > 1 {
		file := inode{stat.Dev, stat.Ino}
		if first, known := c.first[file]; known {
			c.links = append(c.links, link{first, path})
			return nil
		}
		c.first[file] = path
	}
	f := &file{from: filepath.Join(c.from, path), to: filepath.Join(c.to, path), stat: stat}
	size := max(c.u.part, stat.Size/partsMost)
	if c.method == checkpoint.UndoReflink {
		size = max(stat.Size, 1)
	}
	count := max(1, (stat.Size+size-1)/size)
	f.left.Store(count)
	for i := range count {
		select {
		case c.parts <- part{f, i * size, min((i+1)*size, stat.Size)}:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), f.finish(count-i, false))
		}
	}
	return nil
}

// makeLinks gives the files of the copy their further names.
func (c *copier) makeLinks() error {
	for _, l := range c.links {
		if err := os.Link(filepath.Join(c.to, l.first), filepath.Join(c.to, l.path)); err != nil {
			return fmt.Errorf("cannot copy the state: %w", err)
		}
	}
	return nil
}

// finishDirectories gives the directories what making files in them would have changed, or prevented.
func (c *copier) finishDirectories() error {
	for i := len(c.directories) - 1; i >= 0; i-- {
		d := &c.directories[i]
		from, to := filepath.Join(c.from, d.path), filepath.Join(c.to, d.path)
		if err := giveAttributes(from, to, &d.stat); err != nil {
			return fmt.Errorf("cannot copy %s: %w", from, err)
		}
	}
	return nil
}

// work copies parts of files until there are no more.
func (c *copier) work(ctx context.Context, cancel context.CancelCauseFunc) {
	var buffer []byte
	for p := range c.parts {
		c.u.done(stepPart)
		err := context.Cause(ctx)
		switch {
		case err != nil:
		case c.method == checkpoint.UndoReflink:
			err = p.file.clone(c.u.noReflink)
			c.copied.Add(p.file.stat.Blocks * 512)
		default:
			if buffer == nil {
				buffer = make([]byte, bufferBytes)
			}
			err = p.copy(ctx, buffer, &c.copied)
		}
		err = errors.Join(err, p.file.finish(1, err == nil))
		if err != nil {
			cancel(err)
		}
	}
}
