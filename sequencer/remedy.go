package sequencer

import (
	"fmt"
	"strings"
)

// Remedy is an `entrypoint checkpoint set` for an operator to run, and the condition under which it is right.
type Remedy struct {
	// When must be true, in words.
	When    string
	Version int
	// Migrated, Complete and Force are the flags of that name.
	Migrated, Complete, Force bool
	// StopHeight is the --stop-height at which the version is complete; 0 for the stop height of the plan.
	StopHeight uint64
	// Config and Checkpoint are the files; Checkpoint is empty for a run without one.
	Config, Checkpoint string
}

// Command is the remedy as a shell takes it.
func (r Remedy) Command() string {
	file := " --no-checkpoint-file"
	if r.Checkpoint != "" {
		file = " -f " + Quoted(r.Checkpoint)
	}
	text := fmt.Sprintf("entrypoint checkpoint set -c %s%s --version %d", Quoted(r.Config), file, r.Version)
	if r.Migrated {
		text += " --migrated"
	}
	if r.Complete {
		text += " --complete"
	}
	if r.StopHeight > 0 {
		text += fmt.Sprintf(" --stop-height %d", r.StopHeight)
	}
	if r.Force {
		text += " --force"
	}
	return text
}

// plainName are the characters that have no meaning to any shell.
const plainName = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=@%+,"

// Quoted is name as a shell takes it.
func Quoted(name string) string {
	if name == "" || strings.Trim(name, plainName) != "" {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

// withFiles names the files in the commands of the remedies, and the emergency stop where it is meant.
func (f *Failure) withFiles(plan *Plan, checkpoint string) *Failure {
	for i := range f.Remedies {
		r := &f.Remedies[i]
		if r.Config, r.Checkpoint = plan.File, checkpoint; r.Complete {
			r.StopHeight = plan.Brake
		}
	}
	return f
}

// bothWays are the two commands for a state on which version i may or may not have begun to work: each says what must
// be true for it.
func bothWays(p *Plan, i int, force bool) []Remedy {
	begun := Remedy{Version: i, Migrated: p.Versions[i].Migration != "", Force: force}
	begun.When = fmt.Sprintf("the node of %s has already run on this state", p.Label(i))
	if begun.Migrated {
		begun.When = fmt.Sprintf("the migration of %s has completed on this state", p.Label(i))
	}
	if i == 0 || p.Versions[i-1].Retired {
		return []Remedy{begun}
	}
	before := Remedy{Version: i - 1, Migrated: p.Versions[i-1].Migration != "", Force: force}
	before.When = fmt.Sprintf("the node of %s was the last to run on this state, and nothing of %s was ever started on it", p.Label(i-1), p.Label(i))
	return []Remedy{begun, before}
}

// eachVersion are the commands for a state that may belong to any version; when begins their conditions.
func eachVersion(plan *Plan, when string, force bool) []Remedy {
	var all []Remedy
	for i, v := range plan.Versions {
		if v.Retired { // it cannot be run here, so neither can it be named
			continue
		}
		r := Remedy{When: when + plan.Label(i), Version: i, Migrated: v.Migration != "", Force: force}
		if r.Migrated {
			r.When += " and its migration has completed"
		}
		all = append(all, r)
	}
	return all
}
