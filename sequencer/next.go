package sequencer

import "rollup-entrypoint/sequencer/checkpoint"

// Durable is what is known of the height of the state.
type Durable struct {
	Knowledge Knowledge
	// Height is the durable height in blocks, which the node of the stamped version gave as its answer; valid with Asked.
	Height uint64
}

// Knowledge says how much is known of the height of the state.
type Knowledge int

const (
	// NotAsked: nothing is known yet.
	NotAsked Knowledge = iota
	// NoState: there is no state, so there is nobody to ask: a node commits its genesis before it looks at any height.
	NoState
	// CannotBeAsked: the node gives no answer that we could read, or the plan says that it is not to be asked.
	CannotBeAsked
	// Asked: the node has given its height.
	Asked
)

// Action is what a Step does.
type Action string

const (
	// AskVersion asks the node of the version for the height of the state.
	AskVersion Action = "ask"
	// RunVersion runs the node of the version.
	RunVersion Action = "run"
	// EnterVersion hands the state over to the version, which includes its migration.
	EnterVersion Action = "enter"
	// MigrateAgain runs the migration of the version, which was begun before and not recorded as completed.
	MigrateAgain Action = "migrate again"
	// Finish: the last version is complete.
	Finish Action = "finish"
	// Refuse: nothing can be started safely. Cause says why.
	Refuse Action = "refuse"
)

// Step is what follows from a plan, a stamp and a height.
type Step struct {
	Action Action
	// Version is the index in the plan of the version that the step is about; -1 where the plan does not have it.
	Version int
	// Start is the start height, in blocks, that the node is to assert; 0 for none. It is set with RunVersion.
	Start uint64
	// Cause is set with Refuse.
	Cause Cause
}

// Next decides what follows. It is a pure function, and the only place where that is decided: docs/guarantees.md has it as
// a table, row by row.
func Next(plan *Plan, stamp checkpoint.Stamp, c Durable) Step {
	j := find(plan, stamp)
	if j < 0 {
		return Step{Action: Refuse, Version: j, Cause: VersionUnknown}
	}
	v := plan.Versions[j]
	refuse := func(cause Cause) Step { return Step{Action: Refuse, Version: j, Cause: cause} }
	begun := stamp.Migration == checkpoint.MigrationBegun
	switch {
	case begun && v.Migration == "":
		return refuse(MigrationVanished)
	case begun && v.OnInterrupted == Halt:
		return refuse(MigrationInterrupted)
	case begun:
		return Step{Action: MigrateAgain, Version: j}
	case v.Migration != "" && stamp.Migration != checkpoint.MigrationCompleted:
		return refuse(MigrationSkipped)
	case c.Knowledge == NoState && j == 0:
		return Step{Action: RunVersion}
	case c.Knowledge == NoState:
		return refuse(StateGone)
	case c.Knowledge == NotAsked:
		return Step{Action: AskVersion, Version: j}
	case c.Knowledge == CannotBeAsked && stamp.Complete && stamp.StopHeight == v.Stop && v.Stop > 0:
		return after(plan, j)
	case c.Knowledge == CannotBeAsked:
		return Step{Action: RunVersion, Version: j}
	case v.Stop > 0 && c.Height > v.Stop && (stamp.StopHeight == 0 || stamp.StopHeight > v.Stop):
		return refuse(TooLate)
	case v.Stop > 0 && c.Height > v.Stop:
		return refuse(Overrun)
	case v.Stop > 0 && c.Height == v.Stop:
		return after(plan, j)
	case j > 0 && c.Height < v.Start-1:
		return refuse(StateBelow)
	case j > 0 && c.Height == v.Start-1:
		return Step{Action: RunVersion, Version: j, Start: v.Start}
	}
	return Step{Action: RunVersion, Version: j}
}

// after is the step that follows the completion of version j.
func after(p *Plan, j int) Step {
	if j == p.Last() {
		return Step{Action: Finish, Version: j}
	}
	return Step{Action: EnterVersion, Version: j + 1}
}
