package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// replace makes text the content of the file at path, with the permissions that the file has, or mode if it is new.
// When it returns nil that is durable; after an error the file is either the old or the new one, whole. Temporary file,
// fsync, rename, fsync of the directory: without the last one a power cut brings the old name back (see rename(2) and
// fsync(2), NOTES).
func replace(path string, text []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	// A temporary file in another directory could be on another file system.
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(mode), renameio.WithExistingPermissions())
	if err != nil {
		return fmt.Errorf("cannot write beside %s: %w", path, err)
	}
	defer file.Cleanup() //nolint:errcheck // after a rename there is nothing to clean up
	if _, err := file.Write(text); err != nil {
		return fmt.Errorf("cannot write beside %s: %w", path, err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot replace %s, which is mounted as a single file: mount its directory instead: %w", path, err)
		}
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return syncDir(dir)
}

// makeDir makes the directory dir, and those above it that are missing, durably.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the storage directory: %w", err)
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot open the directory to make a new name in it durable: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make the new name in %s durable: %w", dir, err)
	}
	return nil
}

// isTemporary reports whether name is that of a temporary file for base: a dot before it, digits after it.
func isTemporary(base, name string) bool {
	number, ours := strings.CutPrefix(name, "."+base)
	return ours && number != "" && strings.Trim(number, "0123456789") == ""
}

// removeLeftovers removes temporary files for path of writes that a kill interrupted.
func removeLeftovers(path string) {
	dir, base := filepath.Split(path)
	files, _ := os.ReadDir(cmp.Or(dir, "."))
	for _, file := range files {
		if isTemporary(base, file.Name()) && file.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, file.Name())) // a file that stays is only clutter
		}
	}
}

// ResolveLinks follows symbolic links, also if the file at their end does not exist yet. It goes through ".." as the
// kernel does, and not by the letters of the path.
func ResolveLinks(path string) string {
	for range 40 { // as many as the kernel follows
		dir, name := filepath.Split(path)
		above := strings.TrimRight(dir, string(filepath.Separator))
		dir, err := filepath.EvalSymlinks(cmp.Or(dir, "."))
		if errors.Is(err, fs.ErrNotExist) && above != "" {
			return filepath.Join(ResolveLinks(above), name) // it is made later, where the links above lead
		}
		if err != nil {
			return path
		}
		path = filepath.Join(dir, name)
		target, err := os.Readlink(path)
		if err != nil {
			return path
		}
		if !filepath.IsAbs(target) {
			target = dir + "/" + target
		}
		path = target
	}
	return path
}

// same reports whether both paths are one directory.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
