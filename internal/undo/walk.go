package undo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// inode is a file, whatever its names are.
type inode struct{ dev, ino uint64 }

// walk calls visit for everything below dir, directories before what is in them. path is relative to dir. What skip
// names, directly in dir, is left out. Directories are read in parts: one of a real node may have a million names.
func walk(ctx context.Context, dir string, skip func(name string) bool, visit func(path string, stat *unix.Stat_t) error) error {
	return walkBelow(ctx, dir, "", skip, visit)
}

func walkBelow(ctx context.Context, root, below string, skip func(string) bool, visit func(string, *unix.Stat_t) error) error {
	dir, err := os.OpenFile(filepath.Join(root, below), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("cannot read the state: %w", err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the state: %w", err)
		}
		for _, name := range names {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if below == "" && skip(name) {
				continue
			}
			path := filepath.Join(below, name)
			var stat unix.Stat_t
			if err := unix.Lstat(filepath.Join(root, path), &stat); err != nil {
				return fmt.Errorf("cannot read the state: %s: %w", filepath.Join(root, path), err)
			}
			if err := visit(path, &stat); err != nil {
				return err
			}
			if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
				continue
			}
			if err := walkBelow(ctx, root, path, skip, visit); err != nil {
				return err
			}
		}
	}
}

// measure gives the bytes that a copy of dir would need: those that are allocated, as a file of a state may be a large
// hole with little in it. If ctx ends it gives what it has counted so far.
func (u *Undo) measure(ctx context.Context, dir string) (bytes int64, err error) {
	seen := map[inode]bool{}
	err = walk(ctx, dir, u.stays, func(_ string, stat *unix.Stat_t) error {
		if stat.Nlink > 1 && stat.Mode&unix.S_IFMT == unix.S_IFREG {
			file := inode{stat.Dev, stat.Ino}
			if seen[file] {
				return nil
			}
			seen[file] = true
		}
		bytes += stat.Blocks * 512
		return nil
	})
	return bytes, err
}
