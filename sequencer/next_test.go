package sequencer

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// nextRow is a row of the table of what follows from a stamp and a height. The first row that matches counts.
type nextRow struct {
	name    string
	matches func(c nextCase) bool
	step    func(c nextCase) Step
}

// nextCase is one question that the table answers. j is the place of the stamp's version in the plan, -1 for none.
type nextCase struct {
	plan  *Plan
	stamp checkpoint.Stamp
	c     Durable
	j     int
	undo  bool
}

func (c nextCase) version() Version { return c.plan.Versions[c.j] }

// first is the first height of the stamped version.
func (c nextCase) first() uint64 { return max(c.version().Start, 1) }

// known reports whether the height is known and satisfies the condition.
func (c nextCase) known(condition func(height uint64) bool) bool {
	return c.c.Knowledge == Asked && condition(c.c.Height)
}

func (c nextCase) hasStop() bool { return c.version().Stop != 0 }

func (c nextCase) refused(cause Cause) Step { return Step{Action: Refuse, Version: c.j, Cause: cause} }

// braked: the emergency stop ends the stamped version.
func (c nextCase) braked() bool { return c.plan.Brake > 0 && c.version().Stop == c.plan.Brake }

// complete is what follows when the stamped version is complete.
func (c nextCase) complete() Step {
	if c.j+1 < len(c.plan.Versions) && !c.braked() {
		return Step{Action: EnterVersion, Version: c.j + 1}
	}
	return Step{Action: Finish, Version: c.j}
}

// nextTable is the table "Deciding" of docs/how-an-upgrade-is-decided.md, in its order.
var nextTable = []nextRow{
	{
		"the plan does not have the version",
		func(c nextCase) bool { return c.j < 0 },
		func(nextCase) Step { return Step{Action: Refuse, Version: -1, Cause: VersionUnknown} },
	},
	{
		"the version starts above the emergency stop",
		func(c nextCase) bool { return c.plan.Brake > 0 && c.version().Start > c.plan.Brake },
		func(c nextCase) Step { return c.refused(TooLate) },
	},
	{
		"the version is retired",
		func(c nextCase) bool { return c.version().Retired },
		func(c nextCase) Step { return c.refused(Retired) },
	},
	{
		"migration begun, the plan has one, and the undo point is there",
		func(c nextCase) bool {
			return c.stamp.Migration == checkpoint.MigrationBegun && c.version().Migration != "" && c.undo
		},
		func(c nextCase) Step { return Step{Action: PutBack, Version: c.j} },
	},
	{
		"migration begun, the plan has one and says to run it again",
		func(c nextCase) bool {
			return c.stamp.Migration == checkpoint.MigrationBegun && c.version().Migration != "" && c.version().OnInterrupted == Rerun && !c.stamp.DryRun && c.stamp.UndoPoint == ""
		},
		func(c nextCase) Step { return Step{Action: MigrateAgain, Version: c.j} },
	},
	{
		"migration begun, the plan has one, and says to halt or it was a dry run",
		func(c nextCase) bool {
			return c.stamp.Migration == checkpoint.MigrationBegun && c.version().Migration != ""
		},
		func(c nextCase) Step { return c.refused(MigrationInterrupted) },
	},
	{
		"migration begun, the plan has none",
		func(c nextCase) bool { return c.stamp.Migration == checkpoint.MigrationBegun },
		func(c nextCase) Step { return c.refused(MigrationVanished) },
	},
	{
		"entered without the migration that the plan now has",
		func(c nextCase) bool { return c.version().Migration != "" && c.stamp.Migration == "" },
		func(c nextCase) Step { return c.refused(MigrationSkipped) },
	},
	{
		"the first version without a state",
		func(c nextCase) bool { return c.j == 0 && c.c.Knowledge == NoState },
		func(nextCase) Step { return Step{Action: RunVersion, Version: 0} },
	},
	{
		"a later version without a state",
		func(c nextCase) bool { return c.c.Knowledge == NoState },
		func(c nextCase) Step { return c.refused(StateGone) },
	},
	{
		"the height is not known yet",
		func(c nextCase) bool { return c.c.Knowledge == NotAsked },
		func(c nextCase) Step { return Step{Action: AskVersion, Version: c.j} },
	},
	{
		"cannot be asked, complete by a person's word for this stop height",
		func(c nextCase) bool {
			return c.c.Knowledge == CannotBeAsked && c.stamp.Complete && c.hasStop() && c.stamp.StopHeight == c.version().Stop
		},
		nextCase.complete,
	},
	{
		"cannot be asked",
		func(c nextCase) bool { return c.c.Knowledge == CannotBeAsked },
		func(c nextCase) Step { return Step{Action: RunVersion, Version: c.j} },
	},
	{
		"above the stop height, last started with none or a higher one",
		func(c nextCase) bool {
			higher := c.stamp.StopHeight == 0 || c.stamp.StopHeight > c.version().Stop
			return c.hasStop() && higher && c.known(func(h uint64) bool { return h > c.version().Stop })
		},
		func(c nextCase) Step { return c.refused(TooLate) },
	},
	{
		"above the stop height that it was given",
		func(c nextCase) bool {
			return c.hasStop() && c.known(func(h uint64) bool { return h > c.version().Stop })
		},
		func(c nextCase) Step { return c.refused(Overrun) },
	},
	{
		"at the stop height",
		func(c nextCase) bool {
			return c.hasStop() && c.known(func(h uint64) bool { return h == c.version().Stop })
		},
		nextCase.complete,
	},
	{
		"just below the first height of a later version",
		func(c nextCase) bool {
			return c.j > 0 && c.known(func(h uint64) bool { return h+1 == c.first() })
		},
		func(c nextCase) Step { return Step{Action: RunVersion, Version: c.j, Start: c.first()} },
	},
	{
		"between its first height and its stop height",
		func(c nextCase) bool { return c.known(func(h uint64) bool { return h+1 >= c.first() }) },
		func(c nextCase) Step { return Step{Action: RunVersion, Version: c.j} },
	},
	{
		"below the version that made it",
		func(c nextCase) bool { return c.known(func(h uint64) bool { return h+1 < c.first() }) },
		func(c nextCase) Step { return c.refused(StateBelow) },
	},
}

// smallPlans are all plans of up to three versions with heights 2, 4 and 6, or no end, with each emergency stop.
func smallPlans() (plans []*Plan) {
	for _, plan := range unbrakedPlans() {
		plans = append(plans, plan)
		for height := uint64(1); height < 8; height++ {
			if stopped := plan.StoppedAt(height); stopped.Brake > 0 {
				plans = append(plans, stopped)
			}
		}
	}
	return plans
}

func unbrakedPlans() (plans []*Plan) {
	some := []Version{{OnInterrupted: Rerun}, {Migration: "/m", OnInterrupted: Rerun}, {Migration: "/m", OnInterrupted: Halt}}
	for _, count := range []int{1, 2, 3} {
		for _, second := range some {
			for _, third := range some {
				for _, endless := range []bool{false, true} {
					if count < 2 && second.Migration != "" || count < 3 && third.Migration != "" {
						continue
					}
					plan := &Plan{File: "manager.json", Versions: []Version{
						{Name: "v0", Binary: "/v0", Stop: 2, OnInterrupted: Rerun},
						{Name: "v1", Binary: "/v1", Migration: second.Migration, OnInterrupted: second.OnInterrupted, Start: 3, Stop: 4},
						{Name: "v2", Binary: "/v2", Migration: third.Migration, OnInterrupted: third.OnInterrupted, Start: 5, Stop: 6},
					}[:count]}
					if endless {
						plan.Versions[count-1].Stop = 0
					}
					plans = append(plans, plan)
					if count > 1 {
						retired := &Plan{File: plan.File, Versions: slices.Clone(plan.Versions)}
						retired.Versions[0].Retired = true
						plans = append(plans, retired)
					}
				}
			}
		}
	}
	return plans
}

// smallStamps are all stamps of the versions of small plans, and two that no plan has.
func smallStamps() (stamps []checkpoint.Stamp) {
	names := []checkpoint.Stamp{{Name: "v0"}, {Name: "v1", StartHeight: 3}, {Name: "v2", StartHeight: 5}, {Name: "v1", StartHeight: 4}, {Name: "osaka", StartHeight: 3}}
	for _, name := range names {
		for _, place := range []int{0, 2} { // where it was in another plan: it must not matter
			for stop := range uint64(8) {
				for _, migration := range []checkpoint.Migration{"", checkpoint.MigrationBegun, checkpoint.MigrationCompleted} {
					for _, word := range []bool{false, true} {
						s := name
						s.VersionIndex, s.StopHeight, s.Migration, s.Complete, s.Hook = place, stop, migration, word, word
						s.DryRun = word && migration == checkpoint.MigrationBegun
						if stop%2 == 1 {
							s.UndoPoint = "an undo point"
						}
						stamps = append(stamps, s)
					}
				}
			}
		}
	}
	return stamps
}

func smallHeights() []Durable {
	all := []Durable{{}, {Knowledge: NoState}, {Knowledge: CannotBeAsked}}
	for h := range uint64(9) {
		all = append(all, Durable{Knowledge: Asked, Height: h})
	}
	return all
}

// everyCase goes through all of them.
func everyCase(f func(c nextCase)) {
	stamps, heights := smallStamps(), smallHeights()
	for _, plan := range smallPlans() {
		for _, stamp := range stamps {
			c := nextCase{plan: plan, stamp: stamp, j: -1}
			for i, v := range plan.Versions {
				if v.Name == stamp.Name && v.Start == stamp.StartHeight {
					c.j = i
				}
			}
			for _, c.c = range heights {
				for _, c.undo = range []bool{false, true} {
					f(c)
				}
			}
		}
	}
}

func (c nextCase) String() string {
	return fmt.Sprintf("plan %+v, emergency stop %d, stamp %+v, height %+v", c.plan.Versions, c.plan.Brake, c.stamp, c.c)
}

func TestNextIsTheTableForEverySmallPlanStampAndHeight(t *testing.T) {
	hits := map[string]int{}
	everyCase(func(c nextCase) {
		for _, row := range nextTable {
			if row.matches(c) {
				hits[row.name]++
				if want, got := row.step(c), Next(c.plan, c.stamp, c.c, c.undo); want != got {
					require.Equal(t, want, got, "row %q: %s", row.name, c)
				}
				return
			}
		}
		require.Fail(t, "no row of the table matches", "%s", c)
	})
	for _, row := range nextTable {
		assert.NotZero(t, hits[row.name], "the row %q is never the first one that matches", row.name)
	}
}

// What must hold whatever the table says.
func TestNextKeepsItsPromises(t *testing.T) {
	everyCase(func(c nextCase) {
		step := Next(c.plan, c.stamp, c.c, c.undo)
		broken := func(promise string) { require.Fail(t, promise, "%+v for %s", step, c) }
		atStop := c.j >= 0 && c.hasStop() && c.known(func(h uint64) bool { return h == c.version().Stop })
		byWord := c.j >= 0 && c.hasStop() && c.c.Knowledge == CannotBeAsked && c.stamp.Complete && c.stamp.StopHeight == c.version().Stop
		migrated := c.j >= 0 && (c.version().Migration == "" || c.stamp.Migration == checkpoint.MigrationCompleted) && c.stamp.Migration != checkpoint.MigrationBegun
		if c.j >= 0 && c.version().Retired && step.Action != Refuse {
			broken("a retired version is not started")
		}
		if step.Action != Refuse && c.plan.Brake > 0 && c.plan.Versions[step.Version].Start > c.plan.Brake {
			broken("no version is started above the emergency stop")
		}
		switch step.Action {
		case RunVersion:
			if step.Version != c.j || !migrated {
				broken("only the stamped version is run, and only on a state of its own format")
			}
			asserts := c.j > 0 && c.known(func(h uint64) bool { return h == c.version().Start-1 })
			if (step.Start != 0) != asserts || asserts && step.Start != c.version().Start {
				broken("the start height is asserted exactly when the state is just below it")
			}
			if c.hasStop() && c.known(func(h uint64) bool { return h >= c.version().Stop }) {
				broken("nothing is run at or above its stop height")
			}
		case EnterVersion, Finish:
			if !atStop && !byWord || !migrated {
				broken("a version is complete only at its stop height, or by a word given for it")
			}
			if enters := c.j < c.plan.Last() && !c.braked(); (step.Action == EnterVersion) != enters || enters && step.Version != c.j+1 {
				broken("the version after the stamped one is entered")
			}
		case MigrateAgain:
			if step.Version != c.j || c.stamp.Migration != checkpoint.MigrationBegun || c.version().Migration == "" || c.version().OnInterrupted != Rerun || c.undo || c.stamp.DryRun || c.stamp.UndoPoint != "" {
				broken("only a migration that was begun is run again, and never on a half-migrated state that can be put back")
			}
		case PutBack:
			if step.Version != c.j || c.stamp.Migration != checkpoint.MigrationBegun || !c.undo {
				broken("only an undo point that is there is put back, and only after an interrupted migration")
			}
		case AskVersion:
			if step.Version != c.j || c.c.Knowledge != NotAsked || !migrated {
				broken("only the stamped version is asked, and only once its migration is complete")
			}
		case Refuse:
			if step.Cause == "" {
				broken("a refusal has a cause")
			}
		default:
			broken("there is an action")
		}
		if step.Start != 0 && step.Action != RunVersion || step.Cause != "" && step.Action != Refuse {
			broken("nothing is set that the action does not have")
		}
	})
}

func TestHugestHeightsDoNotOverflow(t *testing.T) {
	const highest = 1<<64 - 1
	plan := &Plan{Versions: []Version{{Name: "v0", Stop: highest - 2}, {Name: "v1", Start: highest - 1}}}
	v1 := checkpoint.Stamp{Name: "v1", StartHeight: highest - 1}
	for _, test := range []struct {
		stamp  checkpoint.Stamp
		height uint64
		want   Step
	}{
		{checkpoint.Stamp{Name: "v0"}, highest, Step{Action: Refuse, Cause: TooLate}},
		{checkpoint.Stamp{Name: "v0"}, highest - 2, Step{Action: EnterVersion, Version: 1}},
		{v1, highest, Step{Action: RunVersion, Version: 1}},
		{v1, highest - 2, Step{Action: RunVersion, Version: 1, Start: highest - 1}},
		{v1, highest - 3, Step{Action: Refuse, Version: 1, Cause: StateBelow}},
	} {
		assert.Equal(t, test.want, Next(plan, test.stamp, Durable{Asked, test.height}, false))
	}
}

// A plan that lost its first entry has its second version in the first place, which is where a version may have no
// start height.
func TestVersionOfAStampIsFoundByNameAndStartHeightAlone(t *testing.T) {
	plan := threeVersions()
	plan.Versions = plan.Versions[1:]
	stamp := checkpoint.Stamp{VersionIndex: 0, Name: "v0", StopHeight: 20}
	assert.Equal(t, Step{Action: Refuse, Version: -1, Cause: VersionUnknown}, Next(plan, stamp, Durable{Asked, 20}, false))
	plan.Versions[0].Start = 0
	assert.Equal(t, Step{Action: Refuse, Version: -1, Cause: VersionUnknown}, Next(plan, stamp, Durable{Asked, 20}, false))
	assert.Equal(t, Step{Action: Finish, Version: 0}, Next(&Plan{Versions: threeVersions().Versions[:1]}, stamp, Durable{Asked, 20}, false))
}
