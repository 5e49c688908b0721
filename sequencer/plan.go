package sequencer

import (
	"errors"

	"rollup-entrypoint/internal/strictjson"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/plan"
)

// The plan is that of package plan.
type (
	// Plan is the life of a chain: its versions, oldest first.
	Plan = plan.Plan
	// Version is one entry of the plan.
	Version = plan.Version
	// Problems is everything that is wrong with files, one entry each, ready to print.
	Problems = strictjson.Problems
)

// What happens to an interrupted migration.
const (
	Rerun = plan.Rerun
	Halt  = plan.Halt
)

// The keys of a version that name files.
const (
	keyBinary = plan.KeyBinary
	keyConfig = plan.KeyConfig
)

// label names a version that need not be in the plan.
func label(i int, name string) string { return plan.Label(i, name) }

// LoadPlan reads the config at path. The error is a *Failure (78) with all problems at once.
func LoadPlan(path string) (*Plan, error) {
	p, err := plan.Load(path)
	var wrong *plan.Error
	if errors.As(err, &wrong) {
		return nil, failf(CodeMismatch, "%s", wrong.What).because(wrong.Err).safe("nothing was started").next("%s", wrong.Next)
	}
	return p, err //nolint:wrapcheck // there is no other error
}

// find is the index of the version that the stamp names, by its start height and its name, whatever its place; -1 if the
// plan does not have it.
func find(p *Plan, stamp checkpoint.Stamp) int {
	for i, v := range p.Versions {
		if v.Start == stamp.StartHeight && v.Name == stamp.Name {
			return i
		}
	}
	return -1
}
