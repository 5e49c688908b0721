package preflight

import (
	"reflect"
	"time"

	"rollup-entrypoint/sequencer"
)

// planEvery is the pause between two looks at the plan on disk.
const planEvery = 30 * time.Second

// WatchPlan reads the plan at path again and again, as long as the process lives, and reports whether it differs from
// plan, which was read from there, or cannot be read any more. A run keeps to the plan that it has read: until it is
// started again, a new one has no effect.
func WatchPlan(path string, plan *sequencer.Plan, report func(outdated bool)) {
	for range time.Tick(planEvery) {
		onIdleThread(func() { report(planOutdated(path, plan)) })
	}
}

// planOutdated compares what the plans mean: another layout of the text is no other plan.
func planOutdated(path string, plan *sequencer.Plan) bool {
	now, err := sequencer.LoadPlan(path)
	return err != nil || !reflect.DeepEqual(now.Versions, plan.Versions)
}
