package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// owner is the user and group of a folder in a container.
type owner struct{ uid, gid int }

func (e *engine) ownerOf(ctx context.Context, id, folder string) (o owner, err error) {
	err = e.export(ctx, id, folder, func(archive *tar.Reader) error {
		header, err := archive.Next()
		if err != nil {
			return fmt.Errorf("cannot read the owner: %w", err)
		}
		o = owner{header.Uid, header.Gid}
		return nil
	})
	return o, err
}

// fill copies the content of the folder dir to the folder target of a container. All of it gets the owner of target,
// because the node's user must be able to write to it.
func (e *engine) fill(ctx context.Context, id, dir, target string) error {
	o, err := e.ownerOf(ctx, id, target)
	if err != nil {
		return err
	}
	reader, writer := io.Pipe()
	go func() { _ = writer.CloseWithError(archiveFolder(dir, o, writer)) }()
	defer func() { _ = reader.Close() }()
	if err := e.unpack(ctx, id, target, reader); err != nil {
		return fmt.Errorf("cannot copy %s to %s: %w", dir, target, err)
	}
	return nil
}

// save writes the folder of a container to a file, and load puts it back, with its owners.
func (e *engine) save(ctx context.Context, id, folder, file string) error {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("cannot make the snapshot: %w", err)
	}
	defer out.Close()
	// "/." means the content: a read-only container accepts a copy into a volume, but not into the folder above it.
	cmd := command(ctx, "docker", "cp", id+":"+folder+"/.", "-")
	var complaint strings.Builder
	cmd.Stdout, cmd.Stderr = out, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot make a snapshot of %s: %w: %s", folder, err, complaint.String())
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("cannot make the snapshot: %w", err)
	}
	return nil
}

func (e *engine) load(ctx context.Context, id, folder, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("cannot read the snapshot: %w", err)
	}
	defer in.Close()
	return e.unpack(ctx, id, folder, in)
}

// unpack is 'docker cp' of an archive. Without --archive it keeps the owners in the archive.
func (e *engine) unpack(ctx context.Context, id, folder string, archive io.Reader) error {
	cmd := command(ctx, "docker", "cp", "-", id+":"+folder)
	var complaint strings.Builder
	cmd.Stdin, cmd.Stderr = archive, &complaint
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot copy into the container: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	return nil
}

// archiveFolder writes the content of dir as a tar archive, owned by o.
func archiveFolder(dir string, o owner, to io.Writer) error {
	archive := tar.NewWriter(to)
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		return archiveOne(archive, dir, name, entry, o)
	})
	return errors.Join(err, archive.Close())
}

func archiveOne(archive *tar.Writer, dir, name string, entry fs.DirEntry, o owner) error {
	info, err := entry.Info()
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return nil // a socket or device of the stopped node
	}
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return fmt.Errorf("cannot archive %s: %w", name, err)
	}
	relative, err := filepath.Rel(dir, name)
	if err != nil {
		return fmt.Errorf("cannot archive %s: %w", name, err)
	}
	header.Name, header.Uid, header.Gid, header.Uname, header.Gname = filepath.ToSlash(relative), o.uid, o.gid, "", ""
	if info.IsDir() {
		header.Name += "/"
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("cannot archive %s: %w", name, err)
	}
	if info.IsDir() {
		return nil
	}
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("cannot read %s: %w", name, err)
	}
	defer file.Close()
	if _, err := io.Copy(archive, file); err != nil {
		return fmt.Errorf("cannot archive %s: %w", name, err)
	}
	return nil
}
