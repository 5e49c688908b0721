package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Difference is something that is not as the manifest says.
type Difference struct {
	// Version is the name of the folder; empty for what lies beside the folders.
	Version string
	// Path is the file.
	Path string
	// What is wrong, which names the file, and what to do next.
	What, Next string
	// Extra: it is only a file more than there was, which may well have been written by the program itself.
	Extra bool
}

// Verifier compares what lies below a root directory with its manifest. It remembers the digests of files for as long as
// these are the same by device, inode, size and times. It may be used by several goroutines.
type Verifier struct {
	// Root is the directory with the folder "versions".
	Root     string
	Manifest *Manifest
	// Skip, where not nil, reports whether files of that name are not missed and not told, because the program itself
	// writes them.
	Skip func(name string) bool

	hashes hashes
}

const (
	asItWasBuilt = "take the image as it was built, or copy the version into it again"
	writeAgain   = "if that is meant, write the manifest again with 'entrypoint manifest write' when the image is built"
)

// Location is where a file lies below the root.
type Location struct {
	// Version is the name of the folder; empty for what lies beside the folders.
	Version string
	// Path is relative to the folder of the version, or to the root, with slashes.
	Path string
}

// Locate says where the file lies below the root, if it does: by its name, and by where the links in its name lead, which
// may be two places.
func (v *Verifier) Locate(file string) []Location {
	root, err := filepath.Abs(v.Root)
	if err != nil {
		return nil
	}
	roots, files := []string{root}, []string{file}
	if real, err := filepath.EvalSymlinks(root); err == nil {
		roots = append(roots, real)
	}
	if absolute, err := filepath.Abs(file); err == nil {
		files[0] = absolute
		// The folder alone, too: where the file was replaced by a link its name is still that of the one in the manifest.
		if dir, err := filepath.EvalSymlinks(filepath.Dir(absolute)); err == nil {
			files = append(files, filepath.Join(dir, filepath.Base(absolute)))
		}
		if real, err := filepath.EvalSymlinks(absolute); err == nil {
			files = append(files, real)
		}
	}
	var all []Location
	for _, root := range roots {
		for _, file := range files {
			relative, err := filepath.Rel(root, file)
			if err != nil || !filepath.IsLocal(relative) {
				continue
			}
			at := Location{Path: filepath.ToSlash(relative)}
			if rest, inVersion := strings.CutPrefix(at.Path, VersionsDir+"/"); inVersion {
				at.Version, at.Path, _ = strings.Cut(rest, "/")
			}
			if !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
	}
	return all
}

// Covers reports whether a manifest speaks of what lies there: of the folders of the versions, and of manager.json.
func (v *Verifier) Covers(at Location) bool { return at.Version != "" || at.Path == ManagerFile }

// Has reports whether the manifest has the file.
func (v *Verifier) Has(at Location) bool {
	files := v.Manifest.Files
	if at.Version != "" {
		version, _ := v.Manifest.Version(at.Version)
		files = version.Files
	}
	return slices.ContainsFunc(files, func(f RecordedFile) bool { return f.Path == at.Path })
}

// NotRecorded is the difference for a file that lies below the root, and is to be used, but is not in the manifest.
func (v *Verifier) NotRecorded(at Location) Difference {
	name := at.Path
	if at.Version != "" {
		name = filepath.Join(VersionsDir, at.Version, at.Path)
	}
	return Difference{
		Version: at.Version, Path: at.Path, What: filepath.Join(v.Root, name) + " is not in the manifest",
		Next: "write the manifest again with 'entrypoint manifest write' when the image is built, after the last version was copied into it",
	}
}

// Version finds all differences in the folder of a version. fresh reads each file, also those whose digest is known. The
// error is that of ctx, which ended it.
func (v *Verifier) Version(ctx context.Context, name string, fresh bool) ([]Difference, error) {
	folder := filepath.Join(v.Root, VersionsDir, name)
	recorded, there := v.Manifest.Version(name)
	if !there {
		d := v.NotRecorded(Location{Version: name})
		return []Difference{d}, nil
	}
	now, is, err := walkFolder(folder, v.Skip)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Difference{{Version: name, What: folder + " is missing", Next: asItWasBuilt}}, nil
	case err != nil:
		return []Difference{{Version: name, What: err.Error(), Next: asItWasBuilt}}, nil
	}
	c := comparison{v: v, version: name, folder: folder, fresh: fresh}
	for _, f := range recorded.Files {
		if v.Skip != nil && v.Skip(filepath.Base(f.Path)) {
			continue
		}
		if err := c.file(ctx, f, is[f.Path]); err != nil {
			return nil, err
		}
		delete(is, f.Path)
	}
	for _, name := range now {
		if _, extra := is[name]; extra {
			c.extra(name)
		}
	}
	return c.found, nil
}

// Files finds all differences of the files beside the folders, of those that the manifest has.
func (v *Verifier) Files(ctx context.Context) ([]Difference, error) {
	c := comparison{v: v, folder: v.Root}
	for _, f := range v.Manifest.Files {
		info, err := os.Stat(filepath.Join(v.Root, f.Path))
		if err != nil {
			info = nil
		}
		if err := c.file(ctx, f, info); err != nil {
			return nil, err
		}
	}
	return c.found, nil
}

// Plan finds all differences of a plan that the folders are: a version that is missing, or whose version.json differs. The
// version before it would run on, or end too early.
func (v *Verifier) Plan(ctx context.Context) ([]Difference, error) {
	var all []Difference
	for _, version := range v.Manifest.Versions {
		c := comparison{v: v, version: version.Name, folder: filepath.Join(v.Root, VersionsDir, version.Name)}
		for _, f := range version.Files {
			if f.Path != VersionFile {
				continue
			}
			info, err := os.Lstat(filepath.Join(c.folder, f.Path))
			if err != nil {
				info = nil
			}
			if err := c.file(ctx, f, info); err != nil {
				return nil, err
			}
		}
		all = append(all, c.found...)
	}
	return all, nil
}

// All finds every difference: of the files beside the folders, of each version, and folders that the manifest does not
// have.
func (v *Verifier) All(ctx context.Context) ([]Difference, error) {
	all, err := v.Files(ctx)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, version := range v.Manifest.Versions {
		names[version.Name] = true
		found, err := v.Version(ctx, version.Name, false)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	entries, _ := os.ReadDir(filepath.Join(v.Root, VersionsDir)) // where it cannot be read every version has been told
	for _, entry := range entries {
		if !names[entry.Name()] {
			all = append(all, v.NotRecorded(Location{Version: entry.Name()}))
		}
	}
	return all, nil
}

// Digest gives the SHA-256 in hex of a file, which may be remembered. It says nothing of the manifest.
func (v *Verifier) Digest(ctx context.Context, name string) (string, error) {
	return v.digest(ctx, name, 0, false)
}

// digest is Digest with further flags of open(2).
func (v *Verifier) digest(ctx context.Context, name string, flags int, fresh bool) (string, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|flags, 0)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	defer file.Close()
	return v.hashes.of(ctx, file, fresh)
}

// comparison collects the differences of one folder.
type comparison struct {
	v               *Verifier
	version, folder string
	fresh           bool
	found           []Difference
}

func (c *comparison) add(name, next, format string, args ...any) {
	c.found = append(c.found, Difference{
		Version: c.version, Path: name, What: filepath.Join(c.folder, name) + " " + fmt.Sprintf(format, args...), Next: next,
	})
}

func (c *comparison) extra(name string) {
	c.add(name, "see where it comes from; a file that the program itself has written is harmless", "is not in the manifest")
	c.found[len(c.found)-1].Extra = true
}

// file compares what is there, nil for nothing, with what was recorded. The error is that of ctx.
func (c *comparison) file(ctx context.Context, want RecordedFile, info fs.FileInfo) error {
	const changed = asItWasBuilt + "; " + writeAgain
	full := filepath.Join(c.folder, want.Path)
	switch {
	case info == nil:
		c.add(want.Path, asItWasBuilt, "is missing")
		return nil
	case want.Link != "":
		if target, err := os.Readlink(full); err != nil {
			c.add(want.Path, changed, "is a %s, and was a symbolic link to %s", kindOf(info.Mode()), want.Link)
		} else if target != want.Link {
			c.add(want.Path, changed, "is a link to %s, and was one to %s", target, want.Link)
		}
		return nil
	case !info.Mode().IsRegular():
		c.add(want.Path, changed, "is a %s, and was a regular file", kindOf(info.Mode()))
		return nil
	}
	if want.Executable && info.Mode().Perm()&0o111 == 0 {
		c.add(want.Path, "make it executable: chmod 755 "+full, "is not executable any more")
	}
	if info.Size() != want.Size {
		c.add(want.Path, changed, "has %d bytes, and had %d", info.Size(), want.Size)
		return nil
	}
	// A link that was put in its place since is not followed. Beside the folders manager.json may be one.
	flags := unix.O_NOFOLLOW
	if c.version == "" {
		flags = 0
	}
	sum, err := c.v.digest(ctx, full, flags, c.fresh)
	switch {
	case ctx.Err() != nil:
		return ctx.Err() //nolint:wrapcheck // the caller knows why it ended it
	case err != nil:
		c.add(want.Path, "make it readable for this user", "%s", err)
	case sum != want.SHA256:
		c.add(want.Path, changed, "has the sha256 %s, and had %s", sum, want.SHA256)
	}
	return nil
}
