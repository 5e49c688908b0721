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

	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/regularfile"
)

// Verifier compares the files below a root directory with their manifest. It remembers the digests of files for as long
// as these are the same by device, inode, size and times. It may be used by several goroutines.
type Verifier struct {
	// Root is the directory with the folder "versions".
	Root string
	// Manifest may be nil for Locate, Covers and Digest.
	Manifest *Manifest
	// Skip, if not nil, reports whether files of that name are left out, because the program itself writes them.
	Skip func(name string) bool

	hashes hashes
}

const (
	asItWasBuilt = "use the image as it was built, or copy the version into it again"
	writeAgain   = "if that is intended, write the manifest again with 'entrypoint manifest write' when the image is built"
)

// Location is where a file is below the root.
type Location struct {
	// Version is the name of the folder; empty for what is beside the folders.
	Version string
	// Path is relative to the folder of the version, or to the root, with slashes.
	Path string
}

// Locate says where the file is below the root, if it is there: by its name, and by where the links in its name lead.
// That may be two places.
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
		// The folder alone, too: if the file was replaced by a link its name is still that of the one in the manifest.
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
			if rest, inVersion := strings.CutPrefix(at.Path, layout.VersionsDir+"/"); inVersion {
				at.Version, at.Path, _ = strings.Cut(rest, "/")
			}
			if !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
	}
	return all
}

// Covers reports whether a manifest covers what is there: the folders of the versions, and manager.json.
func (v *Verifier) Covers(at Location) bool { return at.Version != "" || at.Path == layout.ManagerFile }

// Has reports whether the manifest has the file.
func (v *Verifier) Has(at Location) bool {
	files := v.Manifest.Files
	if at.Version != "" {
		version, _ := v.Manifest.Version(at.Version)
		files = version.Files
	}
	return slices.ContainsFunc(files, func(f RecordedFile) bool { return f.Path == at.Path })
}

// NotRecorded is the problem that a file below the root is used, but is not in the manifest.
func (v *Verifier) NotRecorded(at Location) Problem {
	name := at.Path
	if at.Version != "" {
		name = filepath.Join(layout.VersionsDir, at.Version, at.Path)
	}
	return Problem{
		Version: at.Version, Path: at.Path, Sure: true, What: filepath.Join(v.Root, name) + " is not in the manifest",
		Next: "write the manifest again with 'entrypoint manifest write' when the image is built, after the last version was copied into it",
	}
}

// Version finds all that differs in the folder of a version. If fresh is set each file is read, even if its digest is
// known. The error is that of ctx, which ended it.
func (v *Verifier) Version(ctx context.Context, name string, fresh bool) ([]Problem, error) {
	folder := filepath.Join(v.Root, layout.VersionsDir, name)
	recorded, there := v.Manifest.Version(name)
	if !there {
		return []Problem{v.NotRecorded(Location{Version: name})}, nil
	}
	now, is, err := walkFolder(folder, v.Skip)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Problem{{Version: name, Sure: true, What: folder + " is missing", Next: asItWasBuilt}}, nil
	case err != nil:
		return []Problem{{Version: name, Sure: true, What: err.Error(), Next: asItWasBuilt}}, nil
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

// Files finds all that differs of the files beside the folders that the manifest has.
func (v *Verifier) Files(ctx context.Context) ([]Problem, error) {
	c := comparison{v: v, folder: v.Root}
	err := c.files(ctx, v.Manifest.Files, os.Stat)
	return c.found, err
}

// Plan finds all that differs in a plan that the folders are: a version that is missing, or whose version.json differs.
// The version before it would run too long, or end too early.
func (v *Verifier) Plan(ctx context.Context) ([]Problem, error) {
	var all []Problem
	for _, version := range v.Manifest.Versions {
		c := comparison{v: v, version: version.Name, folder: filepath.Join(v.Root, layout.VersionsDir, version.Name)}
		described := slices.DeleteFunc(slices.Clone(version.Files), func(f RecordedFile) bool { return f.Path != layout.VersionFile })
		if err := c.files(ctx, described, os.Lstat); err != nil {
			return nil, err
		}
		all = append(all, c.found...)
	}
	return all, nil
}

// All finds everything that differs: the files beside the folders, each version, and folders that the manifest does not
// have.
func (v *Verifier) All(ctx context.Context) ([]Problem, error) {
	all, err := v.Files(ctx)
	if err != nil {
		return nil, err
	}
	for _, version := range v.Manifest.Versions {
		found, err := v.Version(ctx, version.Name, false)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	entries, _ := os.ReadDir(filepath.Join(v.Root, layout.VersionsDir)) // if it cannot be read, that was found for every version
	for _, entry := range entries {
		if _, there := v.Manifest.Version(entry.Name()); !there {
			all = append(all, v.NotRecorded(Location{Version: entry.Name()}))
		}
	}
	return all, nil
}

// Digest gives the SHA-256 in hex of a regular file, which may be remembered. The manifest plays no part in it.
func (v *Verifier) Digest(ctx context.Context, name string) (string, error) {
	return v.digest(ctx, name, 0, false)
}

// digest is Digest with further flags of open(2).
func (v *Verifier) digest(ctx context.Context, name string, flags int, fresh bool) (string, error) {
	file, err := regularfile.OpenFile(name, os.O_RDONLY|flags)
	if err != nil {
		return "", err //nolint:wrapcheck // it names the operation and the file
	}
	defer file.Close()
	return v.hashes.of(ctx, file, fresh)
}

// comparison collects what differs in one folder.
type comparison struct {
	v               *Verifier
	version, folder string
	fresh           bool
	found           []Problem
}

func (c *comparison) add(name, next, format string, args ...any) {
	c.found = append(c.found, Problem{
		Version: c.version, Path: name, Sure: true, What: filepath.Join(c.folder, name) + " " + fmt.Sprintf(format, args...), Next: next,
	})
}

// extra adds a file that the manifest does not have: the program itself may well have written it.
func (c *comparison) extra(name string) {
	c.add(name, "find out where it comes from; a file that the program wrote itself is harmless", "is not in the manifest")
	c.found[len(c.found)-1].Sure = false
}

// files compares files by their names. The error is that of ctx.
func (c *comparison) files(ctx context.Context, recorded []RecordedFile, look func(name string) (fs.FileInfo, error)) error {
	for _, f := range recorded {
		info, err := look(filepath.Join(c.folder, f.Path))
		if err != nil {
			info = nil
		}
		if err := c.file(ctx, f, info); err != nil {
			return err
		}
	}
	return nil
}

// file compares the file that is there now, nil for none, with the recorded one. The error is that of ctx.
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
		c.add(want.Path, "make it executable: chmod 755 "+full, "is no longer executable")
	}
	if info.Size() != want.Size {
		c.add(want.Path, changed, "has %d bytes, and had %d", info.Size(), want.Size)
		return nil
	}
	// A link that took its place meanwhile is not followed. Beside the folders manager.json may be one.
	flags := unix.O_NOFOLLOW
	if c.version == "" {
		flags = 0
	}
	sum, err := c.v.digest(ctx, full, flags, c.fresh)
	switch {
	case ctx.Err() != nil:
		return ctx.Err() //nolint:wrapcheck // the caller knows why it ended it
	case err != nil:
		c.add(want.Path, "make it readable for this user", "cannot be read: %s", err)
	case sum != want.SHA256:
		c.add(want.Path, changed, "has the sha256 %s, and had %s", sum, want.SHA256)
	}
	return nil
}
