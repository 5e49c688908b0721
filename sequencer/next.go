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
	NotAsked      Knowledge = iota // nothing is known yet
	NoState                        // there is no state, so nobody to ask: a node commits its genesis before it looks at heights
	CannotBeAsked                  // the node gives no answer that we can read, or the plan says not to ask it
	Asked                          // the node has given its height
)

// Action is what a Step does.
type Action string

const (
	AskVersion   Action = "ask"           // ask the node of the version for the height of the state
	RunVersion   Action = "run"           // run the node of the version
	EnterVersion Action = "enter"         // hand the state over to the version, which includes its migration
	MigrateAgain Action = "migrate again" // run the migration of the version, which began and is not recorded as completed
	PutBack      Action = "put back"      // put the undo point back, because the migration of the version was interrupted
	Finish       Action = "finish"        // the last version is complete, or the one that an emergency stop ends
	Refuse       Action = "refuse"        // nothing can be started safely; Cause says why
)

// Step is what follows from a plan, a stamp and a height.
type Step struct {
	Action Action
	// Version is the index in the plan of the version that the step is about; -1 if the plan does not have it.
	Version int
	// Start, set with RunVersion, is what the node gets as --start-at-rollup-height, in blocks; 0 leaves the flag out. It
	// selects nothing: the node refuses to start unless its durable height is Start - 1, the answer that led here. So a
	// state that was replaced since then is noticed.
	Start uint64
	// Cause is set with Refuse.
	Cause Cause
}

// Next decides what follows, in a pure function and nowhere else, except for --height-slack (afterExitZero in
// version.go): the table of docs/how-an-upgrade-is-decided.md, row by row. undo says that the undo point is there that
// was made before the stamped version touched the state.
func Next(plan *Plan, stamp checkpoint.Stamp, c Durable, undo bool) Step {
	j := find(plan, stamp)
	if cause := excluded(plan, j); cause != "" {
		return Step{Action: Refuse, Version: j, Cause: cause}
	}
	v := plan.Versions[j]
	refuse := func(cause Cause) Step { return Step{Action: Refuse, Version: j, Cause: cause} }
	begun := stamp.Migration == checkpoint.MigrationBegun
	switch {
	case begun && v.Migration == "":
		return refuse(MigrationVanished)
	case begun && undo:
		return Step{Action: PutBack, Version: j}
	case begun && (stamp.DryRun || stamp.UndoPoint != "" || v.OnInterrupted == Halt):
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

// excluded is why nothing of version j may be started, not even to ask it; empty if it may. An emergency stop takes no
// block back, so it excludes the versions above it.
func excluded(plan *Plan, j int) Cause {
	switch {
	case j < 0:
		return VersionUnknown
	case j > plan.End():
		return TooLate
	case plan.Versions[j].Retired:
		return Retired
	}
	return ""
}

// braked reports whether the emergency stop ends the plan with version j, or before it.
func braked(p *Plan, j int) bool { return p.Brake > 0 && j >= p.End() }

// after is the step that follows the completion of version j.
func after(p *Plan, j int) Step {
	if j == p.End() {
		return Step{Action: Finish, Version: j}
	}
	return Step{Action: EnterVersion, Version: j + 1}
}
