// Package durable replaces files so that a kill or a power cut leaves the old content or the new one, whole. It knows
// nothing of what is in them.
package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Replace makes text the content of the file at path. prepare gets the new file before the content, which may be
// private, and sets who may read it. When it returns nil the new content is durable; after an error the file has either
// the old content or the new one. Temporary file, fsync, rename, fsync of the directory: without the last one a power
// cut brings the old file back (see rename(2) and fsync(2), NOTES).
func Replace(path string, text []byte, prepare func(*os.File) error) error {
	if err := replace(path, text, prepare, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// ReplaceSoon is Replace without its waits for the disk. A kill leaves the old content or the new one, but a power cut
// may leave neither.
func ReplaceSoon(path string, text []byte, prepare func(*os.File) error) error {
	return replace(path, text, prepare, func(*os.File) error { return nil })
}

func replace(path string, text []byte, prepare, sync func(*os.File) error) error {
	name, err := writeTemporary(path, text, prepare, sync)
	if err != nil {
		return fmt.Errorf("cannot write beside %s: %w", path, err)
	}
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name)
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot replace %s, which is mounted as a single file: mount its directory instead: %w", path, err)
		}
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return nil
}

// writeTemporary makes a file with the text beside the one at path, and gives its name. sync makes it durable.
func writeTemporary(path string, text []byte, prepare, sync func(*os.File) error) (name string, err error) {
	file, err := makeTemporary(path)
	if err != nil {
		return "", err
	}
	err = prepare(file)
	if err == nil {
		_, err = file.Write(text)
	}
	if err == nil {
		err = sync(file)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(file.Name())
		return "", err
	}
	return file.Name(), nil
}

// temporarySuffix ends the name of our temporary files. Nobody gives such a name, ".checkpoint.json.4711.tmp", to a
// copy.
const temporarySuffix = ".tmp"

// makeTemporary makes a new file beside the one at path: in another directory it could be on another file system.
func makeTemporary(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	for {
		name := fmt.Sprintf("%s.%s.%d%s", dir, base, rand.Uint32(), temporarySuffix)
		// With O_EXCL a symbolic link is not followed.
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

// IsTemporary reports whether name is that of a temporary file for base. Those of earlier releases,
// ".checkpoint.json4711", are not known: they cannot be distinguished from a copy that somebody has made, and a kill
// leaves few of them.
func IsTemporary(base, name string) bool {
	rest, before := strings.CutPrefix(name, "."+base+".")
	number, behind := strings.CutSuffix(rest, temporarySuffix)
	return before && behind && number != "" && strings.Trim(number, "0123456789") == ""
}

// RemoveTemporary removes the temporary files that killed calls of Replace left beside path. Nobody else may call
// Replace for path meanwhile.
func RemoveTemporary(path string) {
	dir, base := filepath.Split(path)
	files, _ := os.ReadDir(cmp.Or(dir, "."))
	for _, file := range files {
		if IsTemporary(base, file.Name()) && file.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, file.Name())) // a file that stays is only clutter
		}
	}
}

// SyncDir makes a new or removed name in the directory durable.
func SyncDir(dir string) error {
	// With O_DIRECTORY, or the open of a named pipe would wait for its other end.
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("cannot open the directory to make a name in it durable: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("cannot make a name in %s durable: %w", dir, err)
	}
	return nil
}
