package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

// defaultManifest is that of an image with the usual layout.
const defaultManifest = images.Root + "/" + images.ManifestFile

// registerManifest registers the flag of the commands that compare versions with a manifest.
func registerManifest(flags *pflag.FlagSet, file *string) {
	flags.StringVar(file, "manifest", defaultManifest, "verify the versions with the manifest `FILE` of the image; by default only if it is there; empty: off")
}

// verifier compares the versions of a plan with the manifest of the image.
type verifier struct {
	images.Verifier
	plan *sequencer.Plan
	// file is the manifest.
	file string
}

// openVerifier reads the manifest. It gives nil where there is none to be used: no name, or no file by the name that
// nobody has asked for.
func openVerifier(file string, asked bool, plan *sequencer.Plan) (*verifier, error) {
	if file == "" {
		return nil, nil
	}
	m, err := images.ReadManifest(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !asked:
		return nil, nil
	case err != nil:
		return nil, &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: "the manifest cannot be used", Err: err, Safe: "nothing was started",
			Next: "take the image as it was built, or write the manifest again with 'entrypoint manifest write'; an empty --manifest runs without one",
		}
	}
	// A manifest lies beside what it speaks of. One that was mounted elsewhere speaks of the usual place.
	root := filepath.Dir(file)
	if info, err := os.Stat(filepath.Join(root, images.VersionsDir)); err != nil || !info.IsDir() {
		root = images.Root
	}
	return &verifier{images.Verifier{Root: root, Manifest: m, Skip: sovereign.WritesBesideConfig}, plan, file}, nil
}

// verify finds what of version i, or of the plan for WholePlan, is not as the manifest says. It is a
// sequencer.Options.Verify.
func (v *verifier) verify(ctx context.Context, i int, idly bool) (found []sequencer.Finding) {
	if idly {
		onIdleThread(func() { found = v.findings(ctx, i, true) })
		return found
	}
	return v.findings(ctx, i, false)
}

func (v *verifier) findings(ctx context.Context, i int, fresh bool) []sequencer.Finding {
	var all []images.Difference
	if i == sequencer.WholePlan {
		all = v.ofPlan(ctx)
	} else {
		all = v.ofVersion(ctx, i, fresh)
	}
	if ctx.Err() != nil {
		return nil
	}
	var found []sequencer.Finding
	for _, d := range all {
		found = append(found, sequencer.Finding{Version: i, Severity: severityOf(d), What: d.What, Next: d.Next})
	}
	return found
}

// ofPlan compares the config that lists the versions, where it is that of the image.
func (v *verifier) ofPlan(ctx context.Context) []images.Difference {
	if sameFile(v.plan.File, v.Root) {
		found, _ := v.Plan(ctx) // the caller looks at ctx
		return found
	}
	for _, at := range v.Locate(v.plan.File) {
		switch {
		case at.Version != "" || !v.Covers(at):
		case !v.Has(at):
			return []images.Difference{v.NotRecorded(at)}
		default:
			found, _ := v.Files(ctx) // the caller looks at ctx
			return found
		}
	}
	return nil
}

// sameFile reports whether two names are of one file or directory.
func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// ofVersion compares the folders in which the files of version i lie, each as a whole: a genesis that no key of the plan
// names is as much a part of it as its program.
func (v *verifier) ofVersion(ctx context.Context, i int, fresh bool) []images.Difference {
	var folders []string
	var all []images.Difference
	for _, file := range filesOf(v.plan.Versions[i]) {
		places := v.places(file)
		for _, at := range places {
			if !slices.Contains(folders, at.Version) {
				folders = append(folders, at.Version)
			}
		}
		// A folder that is not in the manifest at all is told once, below.
		inFolder := func(at images.Location) bool { _, there := v.Manifest.Version(at.Version); return there }
		if slices.ContainsFunc(places, inFolder) && !slices.ContainsFunc(places, v.Has) {
			all = append(all, v.NotRecorded(places[0]))
		}
	}
	for _, folder := range folders {
		found, err := v.Version(ctx, folder, fresh)
		if err != nil {
			return nil // the caller looks at ctx
		}
		for _, d := range found {
			// What the plan names is no extra file.
			if !slices.ContainsFunc(all, func(have images.Difference) bool { return have.Version == d.Version && have.Path == d.Path }) {
				all = append(all, d)
			}
		}
	}
	return all
}

// places are the places of a file in the folders of versions; none where the manifest does not cover it.
func (v *verifier) places(file string) []images.Location {
	return slices.DeleteFunc(v.Locate(file), func(at images.Location) bool { return at.Version == "" })
}

// filesOf gives the files that the plan names for a version.
func filesOf(version sequencer.Version) []string {
	files := []string{version.Config}
	for _, program := range []string{version.Binary, version.Migration} {
		if program == "" {
			continue
		}
		if path, err := lookpath.Find(program, os.Getenv("PATH")); err == nil {
			program = path
		}
		files = append(files, program)
	}
	return files
}

// tell logs that there is a manifest, and in one line what it does not cover.
func (v *verifier) tell(log *slog.Logger) {
	log.Info("manifest found", slog.String("manifest", v.file), slog.String("detail", extent(v.Manifest)))
	var outside []string
	for _, version := range v.plan.Versions {
		for _, file := range filesOf(version) {
			if len(v.places(file)) == 0 {
				outside = append(outside, file)
			}
		}
	}
	if len(outside) > 0 {
		log.Warn("files not verified", slog.String("manifest", v.file),
			slog.String("detail", fmt.Sprintf("the manifest covers %s, and not %s", filepath.Join(v.Root, images.VersionsDir), strings.Join(outside, ", "))))
	}
}

// files are the files of a run, and how they are verified: not at all without a manifest.
func (v *verifier) files() (sequencer.Files, func(ctx context.Context, i int, idly bool) []sequencer.Finding) {
	disk := &preflight.Disk{}
	if v == nil {
		return disk, nil
	}
	return verifiedFiles{disk, v}, v.verify
}

// verifiedFiles are the files of a run with a manifest: what was read to be compared is not read again for its digest.
type verifiedFiles struct {
	*preflight.Disk
	verifier *verifier
}

// Digest implements sequencer.Files.
func (f verifiedFiles) Digest(binary string) (string, error) {
	if path, err := lookpath.Find(binary, os.Getenv("PATH")); err == nil && len(f.verifier.places(path)) > 0 {
		if sum, err := f.verifier.Digest(context.Background(), path); err == nil {
			return sum, nil
		}
	}
	return f.Disk.Digest(binary) //nolint:wrapcheck // it names the file
}

const (
	// The numbers of ioprio_set(2), which package unix does not have: this thread; only when nobody else wants the disk.
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
	// idleNice is not 19: the collector of garbage now and then waits for each thread that runs Go, and beside a busy node
	// such a thread would hardly ever come to run.
	idleNice = 10
)

// onIdleThread runs f, which must not hand its work to other goroutines, on a thread that gets disk and processor when
// others leave them. A child inherits these from the thread that starts it, so the thread is never used for anything else:
// it ends with f.
func onIdleThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if unix.Gettid() == os.Getpid() {
			// The first thread of a process cannot be ended without it. While it waits here the next goroutine gets another one.
			defer runtime.UnlockOSThread()
			onIdleThread(f)
			return
		}
		// Without them it is only less polite.
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, idleNice)
		f()
	}()
	<-done
}
