package preflight

import (
	"reflect"
	"time"

	"rollup-entrypoint/sequencer"
)

// planEvery is the pause between two looks at the plan on disk.
const planEvery = 30 * time.Second

// WatchPlan loads the plan again and again, as long as the process lives, and reports whether it differs from plan, which
// load gave at the start, or cannot be read any more. A run keeps to the plan that it has read: until it is
// started again, a new one has no effect.
func WatchPlan(load func() (*sequencer.Plan, error), plan *sequencer.Plan, report func(outdated bool)) {
	for range time.Tick(planEvery) {
		onIdleThread(func() { report(planOutdated(load, plan)) })
	}
}

// planOutdated compares what the plans mean: another layout of the text is no other plan.
func planOutdated(load func() (*sequencer.Plan, error), plan *sequencer.Plan) bool {
	now, err := load()
	return err != nil || !reflect.DeepEqual(now, plan)
}
