package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/internal/regularfile"
)

// RecordOptions say what a manifest has besides the files, and what it leaves out. The zero value is ready.
type RecordOptions struct {
	// Labels are what the build says about itself.
	Labels map[string]string
	// Skip, if not nil, reports whether files of that name are left out, because the program itself writes them.
	Skip func(name string) bool
}

// RecordManifest reads what is below root: each folder in "versions", and manager.json if there is one. What a manifest
// cannot vouch for is an error: anything that is neither a file, a folder nor a link, a link that leads out of its
// folder, a broken program. It reads one file at a time and ends when ctx does.
func RecordManifest(ctx context.Context, root string, o RecordOptions) (*Manifest, error) {
	m := &Manifest{Schema: manifestSchema, Labels: map[string]string{}, Files: []RecordedFile{}}
	for key, value := range o.Labels {
		if !utf8.ValidString(key) || !utf8.ValidString(value) || strings.ContainsRune(key+value, 0) || key == "" {
			return nil, fmt.Errorf("the label %q=%q cannot be recorded: it is not text", key, value)
		}
		m.Labels[key] = value
	}
	plan, err := os.Stat(filepath.Join(root, layout.ManagerFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot read the plan: %w", err)
	default:
		f, err := recordFile(ctx, root, layout.ManagerFile, plan.Mode())
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, f)
	}
	folders, err := versionFolders(root)
	if err != nil {
		return nil, err
	}
	for _, name := range folders {
		v, err := recordVersion(ctx, root, name, o.Skip)
		if err != nil {
			return nil, err
		}
		m.Versions = append(m.Versions, v)
	}
	return m, nil
}

// versionFolders gives the names of the folders of versions, sorted.
func versionFolders(root string) ([]string, error) {
	dir := filepath.Join(root, layout.VersionsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the versions: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if !entry.IsDir() {
			return nil, fmt.Errorf("%s is not a folder, and only the folders of versions belong there: remove it", filepath.Join(dir, entry.Name()))
		}
		names = append(names, entry.Name())
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s has no folders: put each version into its own", dir)
	}
	return names, nil
}

func recordVersion(ctx context.Context, root, name string, skip func(string) bool) (RecordedVersion, error) {
	folder := filepath.Join(root, layout.VersionsDir, name)
	v := RecordedVersion{Name: name}
	if !utf8.ValidString(name) {
		return v, fmt.Errorf("the folder %q has no name in UTF-8: rename it", folder)
	}
	paths, is, err := walkFolder(folder, skip)
	if err != nil {
		return v, err
	}
	if len(paths) == 0 {
		return v, fmt.Errorf("%s has no files: remove the folder, or put the version there", folder)
	}
	for _, at := range paths {
		f, err := recordFile(ctx, folder, at, is[at].Mode())
		if err != nil {
			return v, err
		}
		v.Files = append(v.Files, f)
	}
	return v, nil
}

// walkFolder gives everything in the folder and below it, without the folders themselves: what each file is, and the
// paths, relative to the folder, with slashes, sorted. Links are not followed, and the folder must not be one.
func walkFolder(folder string, skip func(string) bool) (paths []string, is map[string]fs.FileInfo, err error) {
	is = map[string]fs.FileInfo{}
	err = filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == folder && !entry.IsDir():
			return fmt.Errorf("%s is a %s, want a folder", folder, kindOf(entry.Type()))
		case entry.IsDir() || skip != nil && skip(entry.Name()):
			return nil
		}
		info, err := entry.Info()
		at := strings.TrimPrefix(name, folder+"/")
		paths, is[at] = append(paths, at), info
		return err //nolint:wrapcheck // below
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the version: %w", err)
	}
	slices.Sort(paths) // a walk has a/b before a-b
	return paths, is, nil
}

func kindOf(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "regular file"
	case fs.ModeSymlink:
		return "symbolic link"
	case fs.ModeDir:
		return "folder"
	default:
		return "pipe, socket or device"
	}
}

// recordFile makes the entry of a file in the folder.
func recordFile(ctx context.Context, folder, at string, mode fs.FileMode) (RecordedFile, error) {
	name := filepath.Join(folder, at)
	f := RecordedFile{Path: at}
	if !utf8.ValidString(at) {
		return f, fmt.Errorf("the file %q has no name in UTF-8: rename it", name)
	}
	switch mode.Type() {
	case 0:
	case fs.ModeSymlink:
		target, err := linkInside(folder, at)
		f.Link = target
		return f, err
	default:
		return f, fmt.Errorf("%s is a %s, want a regular file: remove it", name, kindOf(mode))
	}
	file, err := regularfile.Open(name)
	if err != nil {
		return f, fmt.Errorf("%s cannot be read: %w", name, err)
	}
	defer file.Close()
	sum, err := hashOpen(ctx, file)
	if err != nil {
		return f, fmt.Errorf("%s cannot be read: %w", name, err)
	}
	f.Size, f.SHA256, f.Executable = sum.identity.size, sum.hex, mode.Perm()&0o111 != 0
	if !f.Executable {
		return f, nil
	}
	if _, err := readELF(file, sum.identity.size); err != nil && !errors.Is(err, errNotELF) {
		return f, fmt.Errorf("%s is broken: %w; copy it again from where it was built", name, err)
	}
	return f, nil
}

// linkInside reads a symbolic link, which must lead to something in its own folder: the manifest does not cover what is
// elsewhere, and a folder must stay whole when it is copied into another image.
func linkInside(folder, name string) (target string, err error) {
	full := filepath.Join(folder, name)
	target, err = os.Readlink(full)
	if err != nil {
		return "", fmt.Errorf("cannot read the link: %w", err)
	}
	const next = "put the file itself there"
	if filepath.IsAbs(target) || !filepath.IsLocal(path.Join(path.Dir(name), target)) || !utf8.ValidString(target) {
		return target, fmt.Errorf("%s is a link to %s, which is not in its folder: %s", full, target, next)
	}
	end, err := filepath.EvalSymlinks(full)
	if err != nil {
		return target, fmt.Errorf("%s is a link to %s, which leads nowhere (%w): %s", full, target, err, next)
	}
	inside, err := filepath.EvalSymlinks(folder)
	if err != nil || !below(inside, end) {
		return target, fmt.Errorf("%s is a link to %s, which leads to %s, out of its folder: %s", full, target, end, next)
	}
	return target, nil
}

// below reports whether a file is in a folder; both are names without links.
func below(folder, file string) bool {
	relative, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(relative)
}
