package sequencer

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer/checkpoint"
)

// deck is a directory with files for a plan.
func deck(t *testing.T) (dir string, write func(name, text string, mode fs.FileMode) string) {
	t.Helper()
	dir = t.TempDir()
	return dir, func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
}

// digestsOfFiles gives the digest of a version's binary in these tests: its text.
func digestsOfFiles(plan *Plan) func(i int) (string, error) {
	return func(i int) (string, error) { return digestOfFile(plan.Versions[i].Binary) }
}

func digestOfFile(binary string) (string, error) {
	text, err := os.ReadFile(binary)
	return string(text), err
}

// names lists a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// row shows a finding as a table does; findings of a test are compared with rows of it.
func row(f Finding) string {
	return strconv.Itoa(f.Version) + " " + string(f.Severity) + ": " + f.What + " → " + f.Next
}

func rows(found []Finding) []string {
	var all []string
	for _, f := range found {
		all = append(all, row(f))
	}
	return all
}

// realPlan is a plan of three versions with good files, whose state is in dir/state; v1 has a migration.
func realPlan(t *testing.T) (plan *Plan, dir string) {
	t.Helper()
	dir, write := deck(t)
	write("config.toml", "storage.path = '"+dir+"/state'\nrunner.http_config.bind_port = 1\n", 0o644)
	require.NoError(t, os.Mkdir(dir+"/state", 0o755))
	plan = &Plan{File: "chain.json", Versions: []Version{
		{Name: "v0", Stop: 100, OnInterrupted: Rerun},
		{Name: "osaka", Migration: "/migrate1", Start: 101, Stop: 200, OnInterrupted: Rerun},
		{Name: "v2", Start: 201, Stop: 300, OnInterrupted: Rerun},
	}}
	for i := range plan.Versions {
		v := &plan.Versions[i]
		v.Binary, v.Config = write("node-"+strconv.Itoa(i), "#!/bin/sh\n# "+v.Name+"\n", 0o755), dir+"/config.toml"
		if v.Migration != "" {
			v.Migration = write("migration", "#!/bin/sh\n", 0o755)
		}
	}
	return plan, dir
}

// onDisk writes the record of a test, and gives the checkpoint's file.
func onDisk(t *testing.T, dir string, c *checkpoint.Checkpoint, stamp *checkpoint.Stamp) (path string) {
	t.Helper()
	path = dir + "/c.json"
	store, err := checkpoint.Open(path, dir+"/state")
	require.NoError(t, err)
	defer store.Close()
	if c != nil {
		require.NoError(t, store.SaveCheckpoint(*c))
	}
	if stamp != nil {
		require.NoError(t, store.SaveStamp(*stamp))
	}
	return path
}

func TestRecordIsComparedWithThePlanAndTheState(t *testing.T) {
	type scene struct {
		plan *Plan
		// c and stamp are what is on disk, nil for nothing. state: there is a state, too.
		c     *checkpoint.Checkpoint
		stamp *checkpoint.Stamp
		state bool
	}
	// at puts the scene into the middle of version i.
	at := func(s *scene, i int) {
		stamp := stampOf(s.plan, i, "")
		if s.plan.Versions[i].Migration != "" {
			stamp.Migration = completed
		}
		c := record{stamp: stamp}.followed(s.plan).checkpoint
		c.Stamped = true
		s.c, s.stamp, s.state = &c, &stamp, true
	}
	height := func(s *scene, height uint64) { s.c.Height = &height }
	for _, test := range []struct {
		name   string
		change func(s *scene)
		first  int
		want   []string // how the findings begin
	}{
		{"nothing yet", func(*scene) {}, 0, nil},
		{"in the middle", func(s *scene) { at(s, 2) }, 2, nil},
		{"at its stop height", func(s *scene) { at(s, 1); height(s, 200) }, 1, nil},
		{"the stamp alone", func(s *scene) { at(s, 1); s.c = nil }, 1, nil},
		{"a state without a record", func(s *scene) { s.state = true }, 0, []string{"-1 error: there is a state in DIR/state, but neither a checkpoint nor a stamp says which version made it"}},
		{"the state is gone", func(s *scene) { at(s, 2); s.stamp, s.state = nil, false }, 0, []string{"-1 error: the checkpoint is at version 2, but there is no state in DIR/state"}},
		{"another state", func(s *scene) { at(s, 2); s.stamp = nil }, 0, []string{"-1 error: the checkpoint, at version 2, belongs to a state with a stamp"}},
		{"a restored state", func(s *scene) {
			at(s, 0)
			c := *s.c
			at(s, 2)
			s.c = &c
			height(s, 50)
			s.stamp.BinarySHA256 = ""
		}, 2, []string{"-1 warning: the next start corrects the checkpoint: "}},
		{"one step behind", func(s *scene) { at(s, 1); c := *s.c; at(s, 2); s.c = &c }, 2, nil},
		{"a binary that was replaced", func(s *scene) { at(s, 2); s.stamp.BinarySHA256 = "older" }, 2, []string{"2 warning: rollup_binary: its content is not what ran last: sha256 "}},
		{"a plan that comes too late", func(s *scene) { at(s, 1); height(s, 205); s.stamp.StopHeight = 0 }, 1, []string{"1 error: too late: its state was at height 205 when its node was asked last"}},
		{"an overrun", func(s *scene) { at(s, 1); height(s, 205) }, 1, []string{"1 error: version \"osaka\" (index 1) was started with the stop height 200 and ran past it"}},
		{"a migration that vanished", func(s *scene) { at(s, 1); s.stamp.Migration = begun; s.plan.Versions[1].Migration = "" }, 1, []string{"-1 warning: the next start corrects the checkpoint", "1 error: the migration of version \"osaka\" (index 1) was interrupted"}},
		{"a version that is not in the plan", func(s *scene) { at(s, 1); s.stamp.Name = "berlin" }, 0, []string{"-1 error: the state belongs to version \"berlin\" (index 1)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan, dir := realPlan(t)
			s := &scene{plan: plan}
			test.change(s)
			path := onDisk(t, dir, s.c, s.stamp)
			if s.state {
				touch(t, dir+"/state/CURRENT")
			}
			before := names(t, dir)
			first, found := CheckRecord(plan, path, dir+"/state", digestsOfFiles(plan))
			assert.Equal(t, test.first, first)
			require.Len(t, found, len(test.want), "%v", rows(found))
			for n, f := range found {
				got := strings.ReplaceAll(row(f), dir, "DIR")
				assert.Equal(t, test.want[n], got[:min(len(got), len(test.want[n]))])
				if f.Severity == SeverityError {
					assert.NotEmpty(t, f.Next)
				}
			}
			assert.Equal(t, before, names(t, dir), "nothing is written")
		})
	}
}

func TestRecordThatCannotBeReadIsFound(t *testing.T) {
	plan, dir := realPlan(t)
	touch(t, dir+"/c.json")
	first, found := CheckRecord(plan, dir+"/c.json", dir+"/state", digestsOfFiles(plan))
	assert.Zero(t, first)
	require.Len(t, found, 1)
	assert.Equal(t, WholePlan, found[0].Version)
	assert.Equal(t, SeverityError, found[0].Severity)
	assert.Contains(t, found[0].What, dir+"/c.json: ")
	assert.Contains(t, found[0].Next, "'entrypoint checkpoint set -c chain.json -f "+dir+"/c.json --version 1 --migrated'")
	_, found = CheckRecord(plan, dir, dir+"/state", digestsOfFiles(plan))
	assert.Equal(t, "mount the directory that holds the checkpoint, and name a file in it", found[0].Next)
	touch(t, dir+"/state/"+checkpoint.StampFile)
	_, found = CheckRecord(plan, dir+"/none.json", dir+"/state", digestsOfFiles(plan))
	assert.Contains(t, found[0].What, checkpoint.StampFile)
}

func TestPlanThatComesTooLateForARunningRollupIsFound(t *testing.T) {
	plan := threeVersions()
	for _, test := range []struct {
		name   string
		start  uint64
		height uint64
		want   int // the version of the finding, -2 for none
	}{
		{"v0", 0, 0, -2},
		{"v0", 0, 20, -2},
		{"v0", 0, 21, 0},
		{"v1", 21, 40, -2},
		{"v1", 21, 41, 1},
		{"v2", 41, 1 << 60, -2},
		{"v1", 22, 30, WholePlan},
		{"v9", 21, 30, WholePlan},
	} {
		found := CheckTooLate(plan, test.name, test.start, test.height)
		if test.want == -2 {
			assert.Empty(t, found, "%+v", test)
			continue
		}
		require.Len(t, found, 1, "%+v", test)
		assert.Equal(t, test.want, found[0].Version)
		assert.Equal(t, SeverityError, found[0].Severity)
		assert.NotEmpty(t, found[0].Next)
	}
	plan.Versions[0].Retired = true
	found := CheckTooLate(plan, "v0", 0, 0)
	require.Len(t, found, 1, "this image cannot run it")
	assert.Contains(t, found[0].What, `the running version, "v0", is retired`)
	assert.Empty(t, CheckTooLate(plan, "v1", 21, 30))
}

func touch(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o644))
}
