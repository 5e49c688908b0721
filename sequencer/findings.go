package sequencer

import (
	"errors"
	"fmt"
	"log/slog"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Severity says what a Finding means for a run.
type Severity string

const (
	// SeverityError: a run, or the upgrade to the version, would fail.
	SeverityError Severity = "error"
	// SeverityWarning: it may fail, or something is not what it seems.
	SeverityWarning Severity = "warning"
)

// WholePlan is the Version of a Finding that belongs to no single version.
const WholePlan = -1

// Finding is something that is wrong, or may be, before a run or an upgrade.
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

// FindingsOf gives the findings for an error with which a run would end: one for each problem of a config.
func FindingsOf(version int, err error) []Finding {
	var f *Failure
	if !errors.As(err, &f) {
		return []Finding{{version, SeverityError, err.Error(), ""}}
	}
	problems, ofConfig := f.Err.(Problems) //nolint:errorlint // a record that cannot be read is one problem, whatever is in it
	if !ofConfig {
		problems = Problems{f.What}
		if f.Err != nil {
			problems[0] += ": " + f.Err.Error()
		}
	}
	var found []Finding
	for _, what := range problems { // those of a config name their file
		found = append(found, Finding{version, SeverityError, what, f.ToDo()})
	}
	return found
}

// CheckRecord finds what keeps a run from continuing with the record: the stamp in the directory storage (empty if it is
// not known) and the checkpoint at path (empty for none), as far as that is known without asking the node. first is the
// first version whose files are still needed, 0 if that is not known. digest gives the SHA-256 of a version's binary.
// Nothing is locked, written or started.
func CheckRecord(plan *Plan, path, storage string, digest func(i int) (string, error)) (first int, found []Finding) {
	onDisk, err := checkpoint.Read(path, storage)
	if err != nil {
		return 0, FindingsOf(WholePlan, Unreadable(plan, path, err, onDisk))
	}
	at, err := reconcile(plan, onDisk, digest)
	var f *Failure
	switch {
	case errors.As(err, &f) && f.Cause == OwnerUnknown && path == "":
		return 0, []Finding{{WholePlan, SeverityWarning, "no checkpoint was named, and " + f.What, "name the checkpoint, if there is one"}}
	case f != nil:
		return 0, FindingsOf(WholePlan, f.withFiles(plan, path))
	}
	for _, n := range at.notes {
		if n.level >= slog.LevelWarn {
			found = append(found, Finding{WholePlan, SeverityWarning, "the next start corrects the checkpoint: " + n.detail, ""})
		}
	}
	first = at.record.stamp.VersionIndex
	found = append(found, replaced(at.record.stamp, digest)...)
	s := &sequence{Options: Options{Plan: plan}, record: at.record, storage: onDisk.Storage, durable: lastKnown(onDisk.State, at.record)}
	switch step := Next(plan, at.record.stamp, s.durable, at.record.stamp.UndoPoint != ""); {
	case step.Action == Refuse && step.Cause == TooLate && !braked(plan, first):
		found = append(found, Finding{
			first, SeverityError,
			fmt.Sprintf("too late: its state was at height %d when its node was asked last, and %s stops it at %d", s.durable.Height, plan.File, plan.Versions[first].Stop),
			"do not deploy this: no later version may build on the blocks above the stop height; run 'entrypoint height' for the present height",
		})
	case step.Action == Refuse:
		found = append(found, FindingsOf(first, s.refusal(step).withFiles(plan, path))...)
	}
	return first, found
}

// lastKnown is what the checkpoint says of the height: by now the state may be higher, but not lower.
func lastKnown(state checkpoint.Presence, r record) Durable {
	switch height := r.checkpoint.Height; {
	case state == checkpoint.StateNone:
		return Durable{Knowledge: NoState}
	case height != nil:
		return Durable{Knowledge: Asked, Height: *height}
	}
	return Durable{}
}

// CheckTooLate finds that the plan comes too late for a running rollup: the version that runs has passed its stop height.
// Or too early: it is retired already.
// name and start are those of that version, height is what its node reported last, in blocks.
func CheckTooLate(plan *Plan, name string, start, height uint64) []Finding {
	i := find(plan, checkpoint.Stamp{Name: name, StartHeight: start})
	if i < 0 {
		return []Finding{{WholePlan, SeverityError, fmt.Sprintf("the running version, %q from height %d, is not in %s", name, start, plan.File), "put it back into the plan as it was"}}
	}
	switch v := plan.Versions[i]; {
	case v.Retired:
		return []Finding{{
			i, SeverityError, fmt.Sprintf("the running version, %q, is retired in %s: this image has no files of it", v.Name, plan.File),
			"run an image that still has it until the running rollup has entered the next version",
		}}
	case braked(plan, i) && max(height, v.Start) > plan.Brake:
		return []Finding{{i, SeverityError, fmt.Sprintf("the running rollup is at height %d, above --stop-height %d", max(height, v.Start), plan.Brake), "remove --stop-height, or raise it"}}
	case v.Stop > 0 && height > v.Stop:
		return []Finding{{
			i, SeverityError, fmt.Sprintf("too late: the running rollup is at height %d, above its stop height %d in %s", height, v.Stop, plan.File),
			"do not deploy this: no later version may build on the blocks above the stop height. If the whole network can upgrade later, set a later stop_height, and until the new image is there run the present one with that as its --stop-height",
		}}
	}
	return nil
}

// replaced finds that the binary of the stamped version is not the one that ran last. A run continues with the new one.
func replaced(stamp checkpoint.Stamp, digest func(i int) (string, error)) []Finding {
	sum, err := digest(stamp.VersionIndex)
	if err != nil || stamp.BinarySHA256 == "" || stamp.BinarySHA256 == sum {
		return nil
	}
	return []Finding{{
		stamp.VersionIndex, SeverityWarning, fmt.Sprintf("%s: its content is not what ran last: sha256 %s, was %s", keyBinary, sum, stamp.BinarySHA256),
		"make sure that you want the new one: a run continues with it",
	}}
}
