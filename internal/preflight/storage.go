package preflight

import (
	"fmt"
	"os"
	"path/filepath"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/plan"
	"rollup-entrypoint/sequencer/sovereign"
)

// storageOf is where one version of a plan keeps its state; dir is empty where its config does not say so.
type storageOf struct {
	version    int
	named, dir string
}

// storages reads the configs. One that cannot be read is left out, and is among the problems.
func storages(p *sequencer.Plan) (all []storageOf, unreadable sequencer.Problems) {
	for i, v := range p.Versions {
		cfg, err := sovereign.ReadConfig(v.Config)
		if err != nil {
			unreadable = append(unreadable, fmt.Sprintf("%s: %s: %s", p.Label(i), plan.KeyConfig, err))
			continue
		}
		all = append(all, storageOf{i, cfg.Storage, cfg.StorageDir()})
	}
	return all, unreadable
}

// StorageOf is the directory, absolute, in which the versions of the plan keep their state; empty where no config says so.
// The error is a *sequencer.Failure (78): no config can be read, or the versions name different directories, so that a later version
// would not find the state.
func StorageOf(p *sequencer.Plan) (string, error) {
	all, unreadable := storages(p)
	if len(all) == 0 {
		return "", &sequencer.Failure{
			Code: sequencer.CodeMismatch, Cause: sequencer.FilesInvalid, What: "files of the plan cannot be used", Err: unreadable,
			Safe: "nothing was started", Next: "fix them and start again",
		}
	}
	for _, f := range storageErrors(p, all) {
		next := f.Next
		f.Next = ""
		return "", &sequencer.Failure{
			Code: sequencer.CodeMismatch, Cause: sequencer.FilesInvalid, What: f.Text(p),
			Safe: "nothing was started and the state was not touched", Next: next,
		}
	}
	for _, s := range all {
		if s.dir != "" {
			return s.dir, nil
		}
	}
	return "", nil
}

// CheckStorage finds what is wrong with where the versions keep their state: all must use the same directory.
func CheckStorage(p *sequencer.Plan) []sequencer.Finding {
	all, _ := storages(p) // CheckFiles reports the others
	found := storageErrors(p, all)
	var before string
	for _, s := range all {
		v := p.Versions[s.version]
		switch {
		case s.dir == "":
			found = append(found, sequencer.Finding{
				Version: s.version, Severity: sequencer.SeverityWarning,
				What: v.Config + " has no storage.path: whether a state is there cannot be seen, so the stamp is kept in the checkpoint, and a state that is restored or lost without it is not noticed",
				Next: "set storage.path to a directory on the volume",
			})
		case s.dir != before && !filepath.IsAbs(s.named):
			found = append(found, relativeStorage(s.version, v, s.named, s.dir))
		}
		before = s.dir
	}
	return found
}

// storageErrors finds versions that do not use the directory of the version before.
func storageErrors(p *sequencer.Plan, all []storageOf) []sequencer.Finding {
	var found []sequencer.Finding
	for n := 1; n < len(all); n++ {
		s, before := all[n], all[n-1]
		if s.dir == before.dir || s.dir != "" && before.dir != "" && sameDirectory(s.dir, before.dir) {
			continue
		}
		found = append(found, sequencer.Finding{
			Version: s.version, Severity: sequencer.SeverityError,
			What: fmt.Sprintf("its storage.path is %s, but that of %s is %s: it would not find the state", orNone(s.dir), p.Label(before.version), orNone(before.dir)),
			Next: "give all versions the same storage.path",
		})
	}
	return found
}

func orNone(dir string) string {
	if dir == "" {
		return "not set"
	}
	return dir
}

func relativeStorage(i int, v sequencer.Version, storage, dir string) sequencer.Finding {
	return sequencer.Finding{
		Version: i, Severity: sequencer.SeverityWarning, What: fmt.Sprintf("%s has the relative storage.path %q: in this working directory that is %s", v.Config, storage, dir),
		Next: "make it absolute, or make sure that the container has the same working directory at every start",
	}
}

// SameDirectory reports whether two names lead to one directory, of which none need exist; an empty name leads nowhere.
func (d *Disk) SameDirectory(a, b string) bool { return a != "" && b != "" && sameDirectory(a, b) }

// sameDirectory reports whether two names lead to one directory, of which none need exist.
func sameDirectory(a, b string) bool {
	if checkpoint.ResolveLinks(a) == checkpoint.ResolveLinks(b) {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
