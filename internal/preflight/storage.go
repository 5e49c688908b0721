package preflight

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/plan"
)

// storageOf is where one version of a plan keeps its state; dir is empty if its config does not say so.
type storageOf struct {
	version    int
	named, dir string
}

// storages reads the configs. One that cannot be read is left out, and is among the problems. A retired version has none.
func (n *Inspection) storages() (all []storageOf, unreadable sequencer.Problems) {
	for i := range n.Plan.Versions {
		cfg, err := n.config(i)
		if errors.Is(err, errRetired) {
			continue
		}
		if err != nil {
			unreadable = append(unreadable, fmt.Sprintf("%s: %s: %s", n.Plan.Label(i), plan.KeyConfig, err))
			continue
		}
		all = append(all, storageOf{i, cfg.Storage, cfg.StorageDir()})
	}
	return all, unreadable
}

// StateDir is the directory, absolute, in which the versions of the plan keep their state; empty if no config says so.
// The error is a *sequencer.Failure (78): no config can be read, or the versions name different directories, so that a
// later version would not find the state.
func (n *Inspection) StateDir() (string, error) {
	all, unreadable := n.storages()
	f := &sequencer.Failure{Code: sequencer.CodeMismatch, Cause: sequencer.FilesInvalid}
	if len(all) == 0 {
		f.What, f.Err, f.Safe, f.Next = "files that the plan names cannot be used", unreadable, "nothing was started", "fix these files, or rebuild the image with them, and start again"
		return "", f
	}
	for _, wrong := range n.storageErrors(all) {
		f.Safe, f.Next = "nothing was started and the state was not touched", wrong.Next
		wrong.Next = ""
		f.What = wrong.Text(n.Plan)
		return "", f
	}
	return all[0].dir, nil
}

// storage finds what is wrong with where the versions keep their state: all must use the same directory.
func (n *Inspection) storage() []sequencer.Finding {
	all, _ := n.storages() // Version finds the others
	found := n.storageErrors(all)
	warn := func(i int, next, format string, args ...any) {
		found = append(found, sequencer.Finding{Version: i, Severity: sequencer.SeverityWarning, What: fmt.Sprintf(format, args...), Next: next})
	}
	var before string
	for _, s := range all {
		config := n.Plan.Versions[s.version].Config
		switch {
		case s.dir == "":
			warn(s.version, "set storage.path to a directory on the volume",
				"%s has no storage.path: whether a state is there cannot be seen, so the stamp is kept in the checkpoint, and a state that is restored or lost without it is not noticed", config)
		case s.dir != before && !filepath.IsAbs(s.named):
			warn(s.version, "make it absolute, or make sure that the container has the same working directory at every start",
				"%s has the relative storage.path %q: in this working directory that is %s", config, s.named, s.dir)
		}
		before = s.dir
	}
	return found
}

// storageErrors finds versions that do not use the directory of the version before.
func (n *Inspection) storageErrors(all []storageOf) []sequencer.Finding {
	var found []sequencer.Finding
	for k := 1; k < len(all); k++ {
		s, before := all[k], all[k-1]
		if s.dir == before.dir || s.dir != "" && before.dir != "" && sameDirectory(s.dir, before.dir) {
			continue
		}
		found = append(found, sequencer.Finding{
			Version: s.version, Severity: sequencer.SeverityError,
			What: fmt.Sprintf("its storage.path is %s, but that of %s is %s: it would not find the state",
				cmp.Or(s.dir, "not set"), n.Plan.Label(before.version), cmp.Or(before.dir, "not set")),
			Next: "give all versions the same storage.path",
		})
	}
	return found
}

// sameDirectory reports whether two names lead to one directory. Neither need exist.
func sameDirectory(a, b string) bool {
	return checkpoint.ResolveLinks(a) == checkpoint.ResolveLinks(b) || checkpoint.SameFile(a, b)
}
