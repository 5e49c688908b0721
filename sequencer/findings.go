package sequencer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/sequencer/sovereign"
)

// Severity says what a Finding means for a run.
type Severity string

const (
	// SeverityError: a run, or the upgrade to the version, would fail.
	SeverityError Severity = "error"
	// SeverityWarning: it may fail, or is not what it seems.
	SeverityWarning Severity = "warning"
)

// WholePlan is the Version of a Finding that belongs to no single version.
const WholePlan = -1

// Finding is something that is not as it must be before a run or an upgrade.
type Finding struct {
	// Version is the index of the version, or WholePlan.
	Version  int
	Severity Severity
	// What is wrong, without the version, and what to do next; Next may be empty.
	What, Next string
}

// Text is the finding in one sentence, with the version.
func (f Finding) Text(plan *Plan) string {
	text := f.What
	if f.Version >= 0 && f.Version <= plan.Last() {
		text = plan.label(f.Version) + ": " + text
	}
	if f.Next != "" {
		text += "; " + f.Next
	}
	return text
}

// CheckFiles finds what is wrong with the files of version i: that they are there and may be executed or read. It reads
// the node's config, and of the programs nothing.
func CheckFiles(plan *Plan, i int) []Finding {
	var found []Finding
	for _, p := range fileProblems(plan.Versions[i]) {
		next := fmt.Sprintf("mend that file, or name another one as %s in %s", p.key, plan.File)
		if errors.Is(p.err, fs.ErrNotExist) {
			next = fmt.Sprintf("put it into the image, or name another one as %s in %s", p.key, plan.File)
		}
		found = append(found, Finding{i, SeverityError, fmt.Sprintf("%s: %s", p.key, p.err), next})
	}
	return found
}

// Programs gives the files that the kernel will be asked to execute for version i, the node and its migration, by the
// keys of the plan: those with which CheckFiles finds nothing wrong.
func Programs(plan *Plan, i int) map[string]string {
	v := plan.Versions[i]
	programs := map[string]string{}
	for key, name := range map[string]string{keyBinary: v.Binary, keyMigration: v.Migration} {
		if name == "" || checkExecutable(name) != nil {
			continue
		}
		if path, err := lookpath.Find(name, os.Getenv("PATH")); err == nil {
			programs[key] = path
		}
	}
	return programs
}

// CheckStorage finds what is wrong with where the versions keep their state: all must use the same directory.
func CheckStorage(plan *Plan) []Finding {
	var found []Finding
	before, dirBefore := -1, ""
	for i, v := range plan.Versions {
		cfg, err := sovereign.ReadConfig(v.Config)
		if err != nil {
			continue // CheckFiles tells it
		}
		dir := cfg.StorageDir()
		if dir == "" {
			found = append(found, Finding{
				i, SeverityWarning, v.Config + " has no storage.path: whether a state is there cannot be seen",
				"set storage.path to a directory on the volume",
			})
			continue
		}
		if dir == dirBefore {
			before = i
			continue
		}
		if !filepath.IsAbs(cfg.Storage) {
			found = append(found, relativeStorage(i, v, cfg.Storage, dir))
		}
		if before >= 0 && !sameDirectory(dir, dirBefore) {
			found = append(found, otherStorage(i, v, dir, plan.label(before), dirBefore))
		}
		before, dirBefore = i, dir
	}
	return found
}

func relativeStorage(i int, v Version, storage, dir string) Finding {
	return Finding{
		i, SeverityWarning, fmt.Sprintf("%s has the relative storage.path %q: in this working directory that is %s", v.Config, storage, dir),
		"make it absolute, or see that the container has the same working directory at every start",
	}
}

// otherStorage is the end of a chain at a fork: the new node finds no state. A migration may carry the state over.
func otherStorage(i int, v Version, dir, before, dirBefore string) Finding {
	f := Finding{
		i, SeverityError, fmt.Sprintf("its storage.path is %s, but that of %s is %s: it would not find the state", dir, before, dirBefore),
		"give all versions the same storage.path",
	}
	if v.Migration != "" {
		f.Severity, f.Next = SeverityWarning, "give all versions the same storage.path, unless the migration carries the state over"
	}
	return f
}

// sameDirectory reports whether two names lead to one directory, of which none need exist.
func sameDirectory(a, b string) bool {
	if resolveLinks(a) == resolveLinks(b) {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// CheckCheckpoint finds what keeps a run from going on where the checkpoint at path says. first is the first version
// whose files are still needed, 0 where that is not known. Nothing is locked or written.
func CheckCheckpoint(plan *Plan, path string) (first int, found []Finding) {
	refused := func(version int, err error) []Finding {
		var f *Failure
		if !errors.As(err, &f) {
			return []Finding{{version, SeverityError, err.Error(), ""}}
		}
		text := f.What
		if f.Err != nil {
			text += ": " + f.Err.Error()
		}
		return []Finding{{version, SeverityError, text, completeCommands(f.Next, plan.File, path)}}
	}
	c, exists, err := ReadCheckpoint(path)
	if err != nil {
		return 0, refused(WholePlan, unreadable(err))
	}
	disk := &Disk{Checkpoint: path}
	if !exists {
		return 0, disk.noCheckpoint(plan, path)
	}
	position, err := Resume(plan, &c)
	if err != nil {
		return min(c.VersionIndex, plan.Last()), refused(WholePlan, err)
	}
	at := position.Record.VersionIndex
	for _, warning := range position.Warnings {
		found = append(found, Finding{WholePlan, SeverityWarning, warning, ""})
	}
	if _, err := MatchBinary(plan, c, func(i int) (string, error) { return disk.Digest(plan.Versions[i].Binary) }); err != nil {
		found = append(found, refused(at, err)...)
	} else {
		found = append(found, disk.replaced(plan, c)...)
	}
	if dir, empty := disk.EmptyState(plan.Versions[at].Config); empty && (at > 0 || position.Next == NextFinished) {
		found = append(found, refused(at, emptyState(plan, at, position.Next, dir))...)
	}
	if position.Next == NextFinishPrevious || position.Next == NextMigrate && !provenBefore(plan, &position.Record, at) {
		return at - 1, found
	}
	return at, found
}

// noCheckpoint looks whether there is a state without a checkpoint. To begin with version 0 there is safe, because its
// node refuses what is beyond it, but rarely meant.
func (d *Disk) noCheckpoint(plan *Plan, path string) []Finding {
	dir, empty := d.EmptyState(plan.Versions[0].Config)
	if info, err := os.Stat(dir); dir == "" || empty || err != nil || !info.IsDir() {
		return nil
	}
	const next = "if the state belongs to a later version, say 'entrypoint checkpoint set --version N', with --migrated if that version's migration has completed"
	return []Finding{{
		WholePlan, SeverityWarning, fmt.Sprintf("there is a state in %s, but no checkpoint %s: a run would begin with %s", dir, path, plan.label(0)),
		completeCommands(next, plan.File, path),
	}}
}

// replaced finds that the binary of the checkpoint's version is not the one that ran last. A run goes on with it.
func (d *Disk) replaced(plan *Plan, c Checkpoint) []Finding {
	sum, err := d.Digest(plan.Versions[c.VersionIndex].Binary)
	if err != nil || c.BinarySHA256 == "" || c.BinarySHA256 == sum {
		return nil
	}
	return []Finding{{
		c.VersionIndex, SeverityWarning, fmt.Sprintf("%s: its content is not what ran last: sha256 %s, was %s", keyBinary, sum, c.BinarySHA256),
		"see that the new one is meant: a run goes on with it",
	}}
}
