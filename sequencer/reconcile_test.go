package sequencer

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// stamped is the stamp of version i of the three versions of these tests, with its migration completed if it has one.
func stamped(i int, migration ...checkpoint.Migration) *checkpoint.Stamp {
	s := stampOf(threeVersions(), i, "sha of /v"+fmt.Sprint(i))
	if threeVersions().Versions[i].Migration != "" {
		s.Migration = checkpoint.MigrationCompleted
	}
	for _, m := range migration {
		s.Migration = m
	}
	s.UpdatedAt = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	return &s
}

// following is the checkpoint that has followed such a stamp.
func following(s *checkpoint.Stamp) *checkpoint.Checkpoint {
	c := record{stamp: *s}.followed(threeVersions()).checkpoint
	c.Stamped = true
	return &c
}

// older is a checkpoint of an earlier version of this program, after version i-1 was proven.
func older(i int, phase checkpoint.Phase, started bool) *checkpoint.Checkpoint {
	c := &checkpoint.Checkpoint{VersionIndex: i, BinaryPath: threeVersions().Versions[i].Binary, Phase: phase, Started: &started, BinarySHA256: "sha of /v" + fmt.Sprint(i)}
	for n := range i {
		c.History = append(c.History, checkpoint.Entry{VersionIndex: n, StopHeight: threeVersions().Versions[n].Stop, Proof: checkpoint.ProofDurable})
	}
	return c
}

// reference is a checkpoint of sov-rollup-manager.
func reference(i int) *checkpoint.Checkpoint {
	return &checkpoint.Checkpoint{VersionIndex: i, BinaryPath: threeVersions().Versions[i].Binary}
}

func changed[T any](value *T, change func(*T)) *T {
	change(value)
	return value
}

// situation is what is found on disk.
type situation struct {
	c     *checkpoint.Checkpoint
	stamp *checkpoint.Stamp
	state bool
	// of is the version that c means, with its migration: of some old files the one before VersionIndex.
	of        int
	migration checkpoint.Migration
	// proven: c says whose the state is, if nothing else does.
	proven bool
	name   string
}

func (s situation) found() checkpoint.Found {
	found := checkpoint.Found{Checkpoint: s.c, Stamp: s.stamp, Storage: "/data/state", State: checkpoint.StateNone}
	if s.state {
		found.State = checkpoint.StatePresent
	}
	return found
}

// stampIs reports whether there is a stamp that the plan has, at version i.
func (s situation) stampIs(plan *Plan, i int) bool {
	return s.stamp != nil && i < len(plan.Versions) && s.stamp.Name == plan.Versions[i].Name && s.stamp.StartHeight == plan.Versions[i].Start
}

func (s situation) stampKnown(plan *Plan) bool {
	return s.stampIs(plan, 0) || s.stampIs(plan, 1) || s.stampIs(plan, 2)
}

// beginning: no checkpoint, or one of version 0 that has no height.
func (s situation) beginning() bool {
	return s.c == nil || s.c.VersionIndex == 0 && s.c.Height == nil
}

// onlyStampBegun: the stamp says that the migration was begun, and the checkpoint does not.
func (s situation) onlyStampBegun() bool {
	return s.stamp.Migration == checkpoint.MigrationBegun && s.migration != checkpoint.MigrationBegun
}

// reconcileTable is the table "Whose state is it?" of docs/how-an-upgrade-is-decided.md, in its order, without the
// first row: a file that cannot be read never gets here. The first row that matches counts. What follows is a version
// with its migration, or a cause.
var reconcileTable = []struct {
	name    string
	matches func(plan *Plan, s situation) bool
	follows func(plan *Plan, s situation) string
}{
	{
		"nothing yet: version 0 is stamped",
		func(_ *Plan, s situation) bool {
			unused := s.c == nil || !s.c.Stamped && s.c.Phase != checkpoint.PhaseFinished
			return s.beginning() && unused && s.stamp == nil && !s.state
		},
		func(*Plan, situation) string { return "version 0" },
	},
	{
		"a node that failed before its genesis",
		func(plan *Plan, s situation) bool { return s.beginning() && s.stampIs(plan, 0) && !s.state },
		func(*Plan, situation) string { return "version 0" },
	},
	{
		"the state is gone",
		func(_ *Plan, s situation) bool { return !s.state },
		func(*Plan, situation) string { return string(StateGone) },
	},
	{
		"another program continued, to a version later than the stamp's",
		func(_ *Plan, s situation) bool {
			return s.c != nil && !s.c.Stamped && s.stamp != nil && s.of > s.stamp.VersionIndex
		},
		func(*Plan, situation) string { return string(OtherProgram) },
	},
	{
		"another program continued from a migration that only the stamp says was begun",
		func(_ *Plan, s situation) bool {
			return s.c != nil && !s.c.Stamped && s.stamp != nil && s.of == s.stamp.VersionIndex && s.onlyStampBegun()
		},
		func(*Plan, situation) string { return string(OtherProgram) },
	},
	{
		"the stamp counts",
		func(plan *Plan, s situation) bool { return s.stampKnown(plan) },
		func(plan *Plan, s situation) string {
			for i := range plan.Versions {
				if s.stampIs(plan, i) {
					return "version " + fmt.Sprint(i) + inWords(s.stamp.Migration)
				}
			}
			return ""
		},
	},
	{
		"the plan does not have the stamp's version",
		func(_ *Plan, s situation) bool { return s.stamp != nil },
		func(*Plan, situation) string { return string(VersionUnknown) },
	},
	{
		"this is another state",
		func(_ *Plan, s situation) bool { return s.c != nil && s.c.Stamped },
		func(*Plan, situation) string { return string(OtherState) },
	},
	{
		"the checkpoint is beyond the plan",
		func(plan *Plan, s situation) bool { return s.c != nil && s.c.VersionIndex >= len(plan.Versions) },
		func(*Plan, situation) string { return string(VersionUnknown) },
	},
	{
		"the checkpoint does not prove whose the state is",
		func(_ *Plan, s situation) bool { return s.c != nil && !s.proven },
		func(*Plan, situation) string { return string(OwnerUnknown) },
	},
	{
		"the checkpoint says whose the state is",
		func(_ *Plan, s situation) bool { return s.c != nil },
		func(_ *Plan, s situation) string { return "version " + fmt.Sprint(s.of) + inWords(s.migration) },
	},
	{
		"a state of the only version",
		func(plan *Plan, _ situation) bool { return len(plan.Versions) == 1 },
		func(*Plan, situation) string { return "version 0" },
	},
	{
		"nothing says whose the state is",
		func(*Plan, situation) bool { return true },
		func(*Plan, situation) string { return string(OwnerUnknown) },
	},
}

const completed, begun = checkpoint.MigrationCompleted, checkpoint.MigrationBegun

// situations are all combinations of checkpoints, stamps and states.
func situations() (all []situation) {
	checkpoints := []situation{
		{name: "no checkpoint"},
		{name: "at version 0", c: following(stamped(0)), of: 0},
		{name: "at version 0 with a height", c: changed(following(stamped(0)), func(c *checkpoint.Checkpoint) { c.Height = new(uint64(7)) }), of: 0},
		{name: "with version 1's migration begun", c: following(stamped(1, begun)), of: 1, migration: begun},
		{name: "at version 1", c: following(stamped(1)), of: 1, migration: completed},
		{name: "at version 1, entered without its migration", c: following(stamped(1, "")), of: 1},
		{name: "at version 2", c: following(stamped(2)), of: 2},

		{name: "sov-rollup-manager's at version 0", c: reference(0), of: 0, proven: true},
		{name: "sov-rollup-manager's at version 1, which has a migration", c: reference(1), of: 1},
		{name: "sov-rollup-manager's at version 1, migrated", c: changed(reference(1), func(c *checkpoint.Checkpoint) { c.MigrationCompleted = true }), of: 1, migration: completed, proven: true},
		{name: "sov-rollup-manager's at version 2", c: reference(2), of: 2, proven: true},

		{name: "older, at version 0", c: older(0, checkpoint.PhaseRunning, false), of: 0, proven: true},
		{name: "older, at version 0, seen up", c: older(0, checkpoint.PhaseRunning, true), of: 0, proven: true},
		{name: "older, version 0 finished", c: older(0, checkpoint.PhaseFinished, true), of: 0, proven: true},
		{name: "older, version 1's migration due", c: older(1, checkpoint.PhaseMigrating, false), of: 0, proven: true},
		{name: "older, version 1's migration begun", c: older(1, checkpoint.PhaseMigrating, true), of: 1, migration: begun, proven: true},
		{name: "older, at version 1", c: changed(older(1, checkpoint.PhaseRunning, false), func(c *checkpoint.Checkpoint) { c.MigrationCompleted = true }), of: 1, migration: completed, proven: true},
		{name: "older, version 1 before 2 runs on", c: older(2, checkpoint.PhaseFinishingPrevious, false), of: 1, migration: completed, proven: true},
		{name: "older, at version 2", c: older(2, checkpoint.PhaseRunning, true), of: 2, proven: true},
		{name: "older, version 2 after a soft height, never seen up", of: 2, c: changed(older(2, checkpoint.PhaseRunning, false), func(c *checkpoint.Checkpoint) { c.History[1].Proof = checkpoint.ProofHeight })},
		{name: "older, version 2 after the height slack, never seen up", of: 2, c: changed(older(2, checkpoint.PhaseRunning, false), func(c *checkpoint.Checkpoint) { c.History[1].Proof = checkpoint.ProofSlack })},
		{name: "older, version 2 after a soft height, seen up", of: 2, proven: true, c: changed(older(2, checkpoint.PhaseRunning, true), func(c *checkpoint.Checkpoint) { c.History[1].Proof = checkpoint.ProofHeight })},
		{name: "older, version 2 with another binary", of: 2, c: changed(older(2, checkpoint.PhaseRunning, true), func(c *checkpoint.Checkpoint) { c.BinaryPath, c.BinarySHA256 = "/elsewhere", "another" })},
		{name: "older, version 2 with a binary of unknown digest", of: 2, c: changed(older(2, checkpoint.PhaseRunning, true), func(c *checkpoint.Checkpoint) { c.BinaryPath, c.BinarySHA256 = "/elsewhere", "" })},
		{name: "older, version 2 with a binary that was moved", of: 2, proven: true, c: changed(older(2, checkpoint.PhaseRunning, true), func(c *checkpoint.Checkpoint) { c.BinaryPath = "/elsewhere" })},
		{name: "at a version that the plan does not have", of: 3, c: &checkpoint.Checkpoint{VersionIndex: 3, BinaryPath: "/v3"}},
	}
	stamps := map[string]*checkpoint.Stamp{
		"no stamp": nil, "stamp of version 0": stamped(0), "stamp of version 1": stamped(1), "stamp of version 1, begun": stamped(1, begun),
		"stamp of version 1, not migrated": stamped(1, ""), "stamp of version 2": stamped(2),
		"stamp of a version with another start height": changed(stamped(1), func(s *checkpoint.Stamp) { s.StartHeight = 22 }),
		"stamp of a version with another name":         changed(stamped(0), func(s *checkpoint.Stamp) { s.Name = "genesis" }),
	}
	for _, s := range checkpoints {
		for name, stamp := range stamps {
			for _, state := range []bool{false, true} {
				one := s
				one.stamp, one.state = stamp, state
				one.name = fmt.Sprintf("%s, %s, state %t", s.name, name, state)
				all = append(all, one)
			}
		}
	}
	return all
}

// digestsOf gives the digest of a version's binary.
func digestsOf(plan *Plan) func(i int) (string, error) {
	return func(i int) (string, error) { return "sha of " + plan.Versions[i].Binary, nil }
}

func TestWhoseTheStateIsFollowsTheTable(t *testing.T) {
	one := threeVersions()
	one.Versions = one.Versions[:1]
	hits := map[string]int{}
	for _, plan := range []*Plan{threeVersions(), one} {
		for _, s := range situations() {
			for _, row := range reconcileTable {
				if !row.matches(plan, s) {
					continue
				}
				hits[row.name]++
				t.Run(fmt.Sprintf("%d versions, %s", len(plan.Versions), s.name), func(t *testing.T) {
					got, err := reconcile(plan, s.found(), digestsOf(plan))
					assert.Equal(t, row.follows(plan, s), outcome(got, err), "row %q", row.name)
					checkSettled(t, plan, s, got, err)
				})
				break
			}
		}
	}
	for _, row := range reconcileTable {
		assert.NotZero(t, hits[row.name], "the row %q is never the first one that matches", row.name)
	}
}

// outcome is the cause, or the version with its migration.
func outcome(s settled, err error) string {
	var f *Failure
	if errors.As(err, &f) {
		return string(f.Cause)
	}
	return "version " + fmt.Sprint(s.record.stamp.VersionIndex) + inWords(s.record.stamp.Migration)
}

// checkSettled checks what holds for every outcome.
func checkSettled(t *testing.T, plan *Plan, s situation, got settled, err error) {
	t.Helper()
	if err != nil {
		checkFailure(t, plan, err)
		return
	}
	stamp, c := got.record.stamp, got.record.checkpoint
	v := plan.Versions[stamp.VersionIndex]
	assert.Equal(t, []any{v.Name, v.Start}, []any{stamp.Name, stamp.StartHeight})
	assert.Equal(t, stamp.VersionIndex, c.VersionIndex)
	assert.Equal(t, v.Binary, c.BinaryPath)
	assert.Equal(t, stamp.Migration == completed, c.MigrationCompleted)
	assert.Equal(t, stamp.Migration == begun, c.Phase == checkpoint.PhaseMigrating)
	_, err = checkpoint.Encode(c)
	require.NoError(t, err, "it can be written")
	if s.stamp != nil {
		want := *s.stamp
		assert.Equal(t, want, stamp, "a stamp that counts is not changed")
	}
	for _, entry := range c.History {
		assert.LessOrEqual(t, entry.VersionIndex, stamp.VersionIndex)
	}
}

// checkFailure wants all three parts of a failure, with remedies that 'checkpoint set' would take.
func checkFailure(t *testing.T, plan *Plan, err error) {
	t.Helper()
	var f *Failure
	require.ErrorAs(t, err, &f)
	assert.NotEmpty(t, f.What)
	assert.NotEmpty(t, f.Safe, f.What)
	assert.NotEmpty(t, f.ToDo(), f.What)
	for _, r := range f.Remedies {
		assert.NotEmpty(t, r.When, f.What)
		state := checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent}
		if f.Cause == StateGone {
			state.State = checkpoint.StateNone
		}
		_, err := Adopt(plan, state, Word{r.Version, r.Migrated, r.Complete, r.Force}, "")
		require.NoError(t, err, "the command that is offered can be followed: %+v", r)
	}
}

func TestInterruptedCheckpointIsNotedAndAContradictingOneIsCorrected(t *testing.T) {
	height := func(c *checkpoint.Checkpoint) *checkpoint.Checkpoint {
		c.Height = new(uint64(30))
		return c
	}
	history := func(c *checkpoint.Checkpoint, versions ...int) *checkpoint.Checkpoint {
		for _, i := range versions {
			c.History = append(c.History, checkpoint.Entry{VersionIndex: i, StopHeight: threeVersions().Versions[i].Stop, Proof: checkpoint.ProofDurable, CompletedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
		}
		return c
	}
	for _, test := range []struct {
		name    string
		c       *checkpoint.Checkpoint
		stamp   *checkpoint.Stamp
		message string
		level   slog.Level
		// history are the versions that it has afterwards.
		history []int
		height  bool
	}{
		{"in step", height(history(following(stamped(1)), 0)), stamped(1), "", 0, []int{0}, true},
		{"in step, in its migration", history(following(stamped(1, begun)), 0), stamped(1, begun), "", 0, []int{0}, false},
		{"the hand-over was not followed", height(following(stamped(1))), stamped(2), "checkpoint was interrupted", slog.LevelInfo, []int{1}, false},
		{"the hand-over was not followed, but its completion", history(following(stamped(0)), 0), stamped(1), "checkpoint was interrupted", slog.LevelInfo, []int{0}, false},
		{"the beginning of a migration was not followed", following(stamped(0)), stamped(1, begun), "checkpoint was interrupted", slog.LevelInfo, []int{0}, false},
		{"the end of a migration was not followed", history(following(stamped(1, begun)), 0), stamped(1), "checkpoint was interrupted", slog.LevelInfo, []int{0}, false},
		{"an older state under a newer checkpoint", height(history(following(stamped(2)), 0, 1)), stamped(0), "checkpoint corrected", slog.LevelWarn, nil, false},
		{"an older state of the version before", height(history(following(stamped(2)), 0, 1)), stamped(1), "checkpoint corrected", slog.LevelWarn, []int{0}, false},
		{"a newer state under an older checkpoint", height(following(stamped(0))), stamped(2), "checkpoint corrected", slog.LevelWarn, nil, false},
		{"a state from before its migration", history(following(stamped(1)), 0), stamped(1, begun), "checkpoint corrected", slog.LevelWarn, []int{0}, false},
		{"a state that was entered without its migration", history(following(stamped(1)), 0), stamped(1, ""), "checkpoint corrected", slog.LevelWarn, []int{0}, false},
		{"an older program's, one step behind", older(1, checkpoint.PhaseMigrating, false), stamped(1, begun), "checkpoint was interrupted", slog.LevelInfo, []int{0}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := test.c.Clone()
			found := checkpoint.Found{Checkpoint: test.c, Stamp: test.stamp, Storage: "/data/state", State: checkpoint.StatePresent}
			got, err := reconcile(threeVersions(), found, digestsOf(threeVersions()))
			require.NoError(t, err)
			assert.Equal(t, before, *test.c, "what was found is not changed")
			assert.Equal(t, *test.stamp, got.record.stamp)
			assert.Equal(t, test.level == slog.LevelWarn, got.keep, "the old file is kept exactly where it is corrected")
			if test.message == "" {
				assert.Empty(t, got.notes)
			} else {
				require.Len(t, got.notes, 1)
				assert.Equal(t, test.message, got.notes[0].message)
				assert.Equal(t, test.level, got.notes[0].level)
			}
			var versions []int
			for _, entry := range got.record.checkpoint.History {
				versions = append(versions, entry.VersionIndex)
			}
			assert.Equal(t, test.history, versions)
			assert.Equal(t, test.height, got.record.checkpoint.Height != nil, "a height of another version is dropped")
		})
	}
}

// The program may be killed after the stamp that adopts an older checkpoint, and before that checkpoint is replaced.
func TestAdoptionOfAnOlderCheckpointSurvivesAKillBetweenItsTwoWrites(t *testing.T) {
	plan := threeVersions()
	for _, s := range situations() {
		if !s.proven || s.stamp != nil || !s.state {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			first, err := reconcile(plan, s.found(), digestsOf(plan))
			require.NoError(t, err)
			s.stamp = &first.record.stamp
			second, err := reconcile(plan, s.found(), digestsOf(plan))
			require.NoError(t, err)
			assert.Equal(t, first.record.stamp, second.record.stamp)
		})
	}
}

func TestStampKeptInACheckpointCountsWhereNoConfigNamesTheDirectory(t *testing.T) {
	plan := threeVersions()
	kept := func(s *checkpoint.Stamp) *checkpoint.Checkpoint {
		c := following(s)
		c.Stamped, c.Stamp = false, s
		return c
	}
	settle := func(found checkpoint.Found) string {
		got, err := reconcile(plan, found, digestsOf(plan))
		if err == nil {
			checkSettled(t, plan, situation{}, got, nil)
		} else {
			checkFailure(t, plan, err)
		}
		return outcome(got, err)
	}
	assert.Equal(t, "version 0", settle(checkpoint.Found{}), "no checkpoint is a new chain, as for sov-rollup-manager")
	assert.Equal(t, "version 2", settle(checkpoint.Found{Checkpoint: kept(stamped(2))}))
	assert.Equal(t, "version 1, its migration begun", settle(checkpoint.Found{Checkpoint: kept(stamped(1, begun))}))
	assert.Equal(t, "version 2", settle(checkpoint.Found{Checkpoint: reference(2)}))
	assert.Equal(t, string(OwnerUnknown), settle(checkpoint.Found{Checkpoint: reference(1)}))
	assert.Equal(t, string(StorageUnknown), settle(checkpoint.Found{Checkpoint: following(stamped(1))}), "its stamp cannot be found any more")

	named := checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent}
	named.Checkpoint = kept(stamped(1, begun))
	assert.Equal(t, "version 1, its migration begun", settle(named), "once a config names the directory the kept stamp counts")
	named.Stamp = stamped(2)
	assert.Equal(t, "version 2", settle(named), "and one in the directory more than it")
	named.Checkpoint, named.Stamp = kept(stamped(2)), stamped(1)
	assert.Equal(t, string(OtherProgram), settle(named))
	named.Checkpoint, named.Stamp, named.State = kept(stamped(0)), nil, checkpoint.StateNone
	assert.Equal(t, "version 0", settle(named))
	named.Checkpoint = kept(stamped(2))
	assert.Equal(t, string(StateGone), settle(named))
}

// A version is found by its name and its start height, whatever its place; what the history has are places.
func TestPlanWhoseVersionsHaveMovedKeepsTheVersionOfTheStamp(t *testing.T) {
	plan := threeVersions()
	plan.Versions = plan.Versions[1:] // version 1 is the first one now, without a migration and a start height
	plan.Versions[0].Migration, plan.Versions[0].Start = "", 0
	c := following(stamped(2))
	c.History = []checkpoint.Entry{{VersionIndex: 0}, {VersionIndex: 1}, {VersionIndex: 2, Migration: &checkpoint.MigrationRecord{Runs: 1}}}
	found := checkpoint.Found{Checkpoint: c, Stamp: stamped(2), Storage: "/data/state", State: checkpoint.StatePresent}
	got, err := reconcile(plan, found, digestsOf(plan))
	require.NoError(t, err)
	assert.Equal(t, 1, got.record.stamp.VersionIndex)
	assert.Equal(t, "v2", got.record.stamp.Name)
	assert.Empty(t, got.record.checkpoint.History)
	_, err = checkpoint.Encode(got.record.checkpoint)
	require.NoError(t, err)

	found.Stamp, found.Checkpoint = stamped(1), following(stamped(1))
	_, err = reconcile(plan, found, digestsOf(plan))
	assert.Equal(t, string(VersionUnknown), outcome(settled{}, err), "a plan that lost its first entry runs nothing on version 1's state")
	checkFailure(t, plan, err)
}

func TestFailuresAboutTheOwnerOfAStateOfferTheCommandsThatSaySo(t *testing.T) {
	plan := threeVersions()
	remedies := func(found checkpoint.Found) []Remedy {
		_, err := reconcile(plan, found, digestsOf(plan))
		var f *Failure
		require.ErrorAs(t, err, &f)
		for i := range f.Remedies {
			f.Remedies[i].When = ""
		}
		return f.Remedies
	}
	state := checkpoint.Found{Storage: "/data/state", State: checkpoint.StatePresent}
	every := []Remedy{{Version: 0}, {Version: 1, Migrated: true}, {Version: 2}}
	with := func(c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) checkpoint.Found {
		found := state
		found.Checkpoint, found.Stamp = c, stamp
		return found
	}
	assert.Equal(t, every, remedies(state), "nothing says whose it is")
	assert.Equal(t, every, remedies(with(following(stamped(1)), nil)), "another state")
	assert.Equal(t, []Remedy{{Version: 1, Migrated: true}, {Version: 0}}, remedies(with(reference(1), nil)), "both ways out: it was migrated, it was not")
	assert.Equal(t, []Remedy{{Version: 2, Force: true}, {Version: 1, Migrated: true, Force: true}}, remedies(with(older(2, checkpoint.PhaseRunning, true), stamped(1))))
	assert.Equal(t, []Remedy{{Version: 0, Force: true}}, remedies(checkpoint.Found{Checkpoint: following(stamped(2)), Storage: "/data/state", State: checkpoint.StateNone}))
	moved := changed(stamped(1), func(s *checkpoint.Stamp) { s.StartHeight = 22 })
	assert.Empty(t, remedies(with(nil, moved)), "another version may have the name by now")
	renamed := changed(stamped(1), func(s *checkpoint.Stamp) { s.Name = "fork" })
	assert.Equal(t, []Remedy{{Version: 1, Migrated: true, Force: true}}, remedies(with(nil, renamed)))
	inserted := with(changed(reference(2), func(c *checkpoint.Checkpoint) { c.BinaryPath = "/v1" }), nil)
	_, err := reconcile(plan, inserted, digestsOf(plan))
	require.ErrorContains(t, err, "that binary now belongs to version 1")
	assert.False(t, strings.Contains(err.Error(), "checkpoint set"), "a plan whose versions have moved is put right first")
}

func TestBinaryThatCannotBeReadProvesNothing(t *testing.T) {
	plan := threeVersions()
	c := changed(older(2, checkpoint.PhaseRunning, true), func(c *checkpoint.Checkpoint) { c.BinaryPath = "/elsewhere" })
	_, err := reconcile(plan, checkpoint.Found{Checkpoint: c, Storage: "/data/state", State: checkpoint.StatePresent}, func(int) (string, error) { return "", errors.New("input/output error") })
	assert.Equal(t, string(OwnerUnknown), outcome(settled{}, err))
}

// What was learned before a state was wiped on purpose is not forgotten.
func TestNewChainKeepsWhichBinariesAnswer(t *testing.T) {
	c := changed(older(0, checkpoint.PhaseRunning, true), func(c *checkpoint.Checkpoint) { c.Answers = []string{"sha of /v0"} })
	got, err := reconcile(threeVersions(), checkpoint.Found{Checkpoint: c, Storage: "/data/state", State: checkpoint.StateNone}, digestsOf(threeVersions()))
	require.NoError(t, err)
	assert.Equal(t, []string{"sha of /v0"}, got.record.checkpoint.Answers)
	assert.Empty(t, got.record.checkpoint.History)
}
