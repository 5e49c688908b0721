package sequencer

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"rollup-entrypoint/sequencer/checkpoint"
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
		text = plan.Label(f.Version) + ": " + text
	}
	if f.Next != "" {
		text += "; " + f.Next
	}
	return text
}

// storageOf is where one version of a plan keeps its state; dir is empty where its config does not say so.
type storageOf struct {
	version    int
	named, dir string
}

// storages reads the configs. One that cannot be read is left out, and is among the problems.
func storages(plan *Plan) (all []storageOf, unreadable Problems) {
	for i, v := range plan.Versions {
		cfg, err := sovereign.ReadConfig(v.Config)
		if err != nil {
			unreadable = append(unreadable, fmt.Sprintf("%s: %s: %s", plan.Label(i), keyConfig, err))
			continue
		}
		all = append(all, storageOf{i, cfg.Storage, cfg.StorageDir()})
	}
	return all, unreadable
}

// StorageOf is the directory, absolute, in which the versions of the plan keep their state; empty where no config says so.
// The error is a *Failure (78): no config can be read, or the versions name different directories, so that a later version
// would not find the state.
func StorageOf(plan *Plan) (string, error) {
	all, unreadable := storages(plan)
	if len(all) == 0 {
		return "", unusable(unreadable)
	}
	for _, f := range storageErrors(plan, all) {
		return "", mismatch(FilesInvalid, "%s", Finding{f.Version, f.Severity, f.What, ""}.Text(plan)).safe(untouched).next("%s", f.Next)
	}
	for _, s := range all {
		if s.dir != "" {
			return s.dir, nil
		}
	}
	return "", nil
}

// CheckStorage finds what is wrong with where the versions keep their state: all must use the same directory.
func CheckStorage(plan *Plan) []Finding {
	all, _ := storages(plan) // CheckFiles reports the others
	found := storageErrors(plan, all)
	var before string
	for _, s := range all {
		v := plan.Versions[s.version]
		switch {
		case s.dir == "":
			found = append(found, Finding{
				s.version, SeverityWarning,
				v.Config + " has no storage.path: whether a state is there cannot be seen, so the stamp is kept in the checkpoint, and a state that is restored or lost without it is not noticed",
				"set storage.path to a directory on the volume",
			})
		case s.dir != before && !filepath.IsAbs(s.named):
			found = append(found, relativeStorage(s.version, v, s.named, s.dir))
		}
		before = s.dir
	}
	return found
}

// storageErrors finds versions that do not use the directory of the version before.
func storageErrors(plan *Plan, all []storageOf) []Finding {
	var found []Finding
	for n := 1; n < len(all); n++ {
		s, before := all[n], all[n-1]
		if s.dir == before.dir || s.dir != "" && before.dir != "" && sameDirectory(s.dir, before.dir) {
			continue
		}
		found = append(found, Finding{
			s.version, SeverityError,
			fmt.Sprintf("its storage.path is %s, but that of %s is %s: it would not find the state", orNone(s.dir), plan.Label(before.version), orNone(before.dir)),
			"give all versions the same storage.path",
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

func relativeStorage(i int, v Version, storage, dir string) Finding {
	return Finding{
		i, SeverityWarning, fmt.Sprintf("%s has the relative storage.path %q: in this working directory that is %s", v.Config, storage, dir),
		"make it absolute, or make sure that the container has the same working directory at every start",
	}
}

// sameDirectory reports whether two names lead to one directory, of which none need exist.
func sameDirectory(a, b string) bool {
	if checkpoint.ResolveLinks(a) == checkpoint.ResolveLinks(b) {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// CheckRecord finds what keeps a run from continuing where the stamp and the checkpoint at path (empty for none) say, as far
// as that is known without asking the node. first is the first version whose files are still needed, 0 where that is not
// known. digest gives the
// SHA-256 of a binary. Nothing is locked, written or started.
func CheckRecord(plan *Plan, path string, digest func(binary string) (string, error)) (first int, found []Finding) {
	refused := func(version int, err error) []Finding {
		var f *Failure
		if !errors.As(err, &f) {
			return []Finding{{version, SeverityError, err.Error(), ""}}
		}
		text := f.What
		if f.Err != nil {
			text += ": " + f.Err.Error()
		}
		return []Finding{{version, SeverityError, text, f.withFiles(plan.File, path).ToDo()}}
	}
	dir, err := StorageOf(plan)
	if err != nil {
		return 0, nil // CheckStorage reports it
	}
	onDisk, err := checkpoint.Read(path, dir)
	if err != nil {
		beside, _ := checkpoint.Read("", dir)
		return 0, refused(WholePlan, unreadable(plan, err, beside))
	}
	at, err := reconcile(plan, onDisk, func(i int) (string, error) { return digest(plan.Versions[i].Binary) })
	if err != nil {
		return 0, refused(WholePlan, err)
	}
	for _, n := range at.notes {
		if n.level >= slog.LevelWarn {
			found = append(found, Finding{WholePlan, SeverityWarning, n.message + ": " + n.detail, ""})
		}
	}
	first = at.record.stamp.VersionIndex
	found = append(found, replaced(plan, at.record.stamp, digest)...)
	s := &sequence{Options: Options{Plan: plan}, record: at.record, storage: onDisk.Storage, durable: lastKnown(onDisk.State, at.record)}
	if step := Next(plan, at.record.stamp, s.durable); step.Action == Refuse {
		found = append(found, refused(first, s.refusal(step))...)
	}
	return first, found
}

// lastKnown is what the checkpoint knows of the height: the state may be further by now, but not less far.
func lastKnown(state checkpoint.Presence, r record) Durable {
	switch height := r.checkpoint.Height; {
	case state == checkpoint.StateNone:
		return Durable{Knowledge: NoState}
	case height != nil:
		return Durable{Knowledge: Asked, Height: *height}
	}
	return Durable{}
}

// CheckTooLate finds that the plan comes too late for a rollup that runs: a version of it has passed its stop height.
// name and start are those of the version that runs, height is what its node reported last, in blocks.
func CheckTooLate(plan *Plan, name string, start, height uint64) []Finding {
	i := find(plan, checkpoint.Stamp{Name: name, StartHeight: start})
	if i < 0 {
		return []Finding{{WholePlan, SeverityError, fmt.Sprintf("the version that runs, %q from height %d, is not in %s", name, start, plan.File), "put it back into the config as it was"}}
	}
	if v := plan.Versions[i]; v.Stop > 0 && height > v.Stop {
		return []Finding{{
			i, SeverityError, fmt.Sprintf("too late: the rollup that runs is at height %d, above its stop height %d in %s", height, v.Stop, plan.File),
			"do not deploy this: no later version may build on the blocks above the stop height",
		}}
	}
	return nil
}

// replaced finds that the binary of the stamped version is not the one that ran last. A run continues with it.
func replaced(plan *Plan, stamp checkpoint.Stamp, digest func(binary string) (string, error)) []Finding {
	sum, err := digest(plan.Versions[stamp.VersionIndex].Binary)
	if err != nil || stamp.BinarySHA256 == "" || stamp.BinarySHA256 == sum {
		return nil
	}
	return []Finding{{
		stamp.VersionIndex, SeverityWarning, fmt.Sprintf("%s: its content is not what ran last: sha256 %s, was %s", keyBinary, sum, stamp.BinarySHA256),
		"make sure that the new one is meant: a run continues with it",
	}}
}
