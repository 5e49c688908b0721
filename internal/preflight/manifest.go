package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/layout"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// UseManifest has the versions compared with the manifest in file. An empty name is none. If there is no such file that
// is an error only if somebody asked for it. The error is a *sequencer.Failure (78).
func (n *Inspection) UseManifest(file string, asked bool) error {
	if file == "" {
		return nil
	}
	m, err := images.ReadManifest(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !asked:
		return nil
	case err != nil:
		return &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: "the manifest cannot be used", Err: err, Safe: "nothing was started",
			Next: "use the image as it was built, or write the manifest again with 'entrypoint manifest write'; an empty --manifest runs without one",
		}
	}
	// A manifest is beside the files that it covers. One that was mounted elsewhere covers the usual place.
	root := filepath.Dir(file)
	if info, err := os.Stat(filepath.Join(root, layout.VersionsDir)); err != nil || !info.IsDir() {
		root = layout.Root
	}
	n.Manifest = file
	n.verifier.Root, n.verifier.Manifest, n.verifier.Skip = root, m, sovereign.WritesBesideConfig
	return nil
}

// LogManifest logs that there is a manifest, and in one line what it does not cover.
func (n *Inspection) LogManifest(log *slog.Logger) {
	if n.Manifest == "" {
		return
	}
	log.Info("manifest found", slog.String("manifest", n.Manifest), slog.String("detail", n.verifier.Manifest.Extent()))
	var outside []string
	for _, version := range n.Plan.Versions {
		for _, file := range filesOf(version) {
			if len(n.places(file)) == 0 {
				outside = append(outside, file)
			}
		}
	}
	if len(outside) > 0 {
		log.Warn("files not verified", slog.String("manifest", n.Manifest),
			slog.String("detail", fmt.Sprintf("the manifest covers %s, and not %s", filepath.Join(n.verifier.Root, layout.VersionsDir), strings.Join(outside, ", "))))
	}
}

// findings turns what differs from the manifest into findings of version i, unless ctx has ended.
func findings(ctx context.Context, i int, problems []images.Problem) (found []sequencer.Finding) {
	if ctx.Err() != nil {
		return nil
	}
	for _, p := range problems {
		found = append(found, findingOf(i, "", p))
	}
	return found
}

// comparePlan compares the config that lists the versions with the manifest, if it is that of the image.
func (n *Inspection) comparePlan(ctx context.Context) []sequencer.Finding {
	v := &n.verifier
	if v.Manifest == nil {
		return nil
	}
	var problems []images.Problem
	places := v.Locate(n.Plan.File)
	at := slices.IndexFunc(places, func(at images.Location) bool { return at.Version == "" && v.Covers(at) })
	switch {
	case checkpoint.SameFile(n.Plan.File, v.Root):
		problems, _ = v.Plan(ctx) // findings looks at ctx
	case at >= 0 && !v.Has(places[at]):
		problems = []images.Problem{v.NotRecorded(places[at])}
	case at >= 0:
		problems, _ = v.Files(ctx) // findings looks at ctx
	}
	return findings(ctx, sequencer.WholePlan, problems)
}

// shown is how many problems of one folder are reported. The others are counted.
const shown = 20

// compareVersion compares the folders with the files of version i, each as a whole: a genesis that no key of the plan
// names is as much a part of it as its program.
func (n *Inspection) compareVersion(ctx context.Context, i int, depth sequencer.Depth) []sequencer.Finding {
	v := &n.verifier
	if v.Manifest == nil {
		return nil
	}
	var folders []string
	var all []images.Problem
	for _, file := range filesOf(n.Plan.Versions[i]) {
		places := n.places(file)
		for _, at := range places {
			if !slices.Contains(folders, at.Version) {
				folders = append(folders, at.Version)
			}
		}
		// A folder that is not in the manifest at all is found once, below.
		inFolder := func(at images.Location) bool { _, there := v.Manifest.Version(at.Version); return there }
		if slices.ContainsFunc(places, inFolder) && !slices.ContainsFunc(places, v.Has) {
			all = append(all, v.NotRecorded(places[0]))
		}
	}
	named := all
	compare := func() {
		for _, folder := range folders {
			found, _ := v.Version(ctx, folder, depth&sequencer.Idly != 0) // findings looks at ctx
			// What the plan names is no extra file.
			found = slices.DeleteFunc(found, func(p images.Problem) bool {
				return slices.ContainsFunc(named, func(have images.Problem) bool { return have.Version == p.Version && have.Path == p.Path })
			})
			if more := len(found) - shown; more > 0 { // extra files, which are no errors, come last
				what := fmt.Sprintf("%s has %d more problems", filepath.Join(v.Root, layout.VersionsDir, folder), more)
				found = append(found[:shown], images.Problem{Sure: found[shown].Sure, What: what, Next: "'entrypoint manifest verify' lists them"})
			}
			all = append(all, found...)
		}
	}
	if depth&sequencer.Idly != 0 {
		onIdleThread(compare)
	} else {
		compare()
	}
	return findings(ctx, i, all)
}

// places are the places of a file in the folders of versions; none if the manifest does not cover it.
func (n *Inspection) places(file string) []images.Location {
	return slices.DeleteFunc(n.verifier.Locate(file), func(at images.Location) bool { return at.Version == "" })
}

// filesOf gives the files that the plan names for a version; none for a retired one.
func filesOf(version sequencer.Version) []string {
	if version.Retired {
		return nil
	}
	files := []string{version.Config}
	for _, program := range slices.Concat([]string{version.Binary, version.Migration}, version.Before[:min(1, len(version.Before))]) {
		if program == "" {
			continue
		}
		if path, err := find(program); err == nil {
			program = path
		}
		files = append(files, program)
	}
	return files
}
