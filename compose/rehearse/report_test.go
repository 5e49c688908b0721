package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden reports anew")

func number[T any](n T) *T { return &n }

// reports are two results as they could be: one of each kind.
func reports() map[string]*report {
	newReport := func() *report {
		r := &report{
			Schema: schema, StartedAt: epoch, Seconds: 123.4, Project: "rehearsal-00112233", File: "compose/compose.yaml",
			Image: "rollup-testnet", Docker: "20.10.24", Compose: "docker-compose 1.29.2",
			Nodes: []string{"sequencer", "replica-0", "replica-1"}, Versions: threeVersions(),
		}
		newRehearsal(&network{}, settings{}, r, nil)
		return r
	}
	green := newReport()
	equal := func(height uint64, root string) rootReport {
		return rootReport{Height: height, Slot: height, Equal: true, Roots: map[string]string{"sequencer": root, "replica-0": root, "replica-1": root}}
	}
	for i, s := range green.Steps {
		s.Result, s.Seconds, s.Chain = passed, float64(10+i), 1
	}
	live := green.Steps[1]
	live.Notes = []string{"load: 84 transactions, paused 2 times before a stop height"}
	live.Nodes = []nodeReport{{
		Node:     "sequencer",
		Versions: []spanReport{{0, 2, 40}, {1, 41, 80}, {2, 82, 96}},
		Upgrades: []upgradeReport{
			{From: 0, To: 1, At: epoch, HandOverSeconds: 2.337, DowntimeSeconds: number(2.743)},
			{From: 1, To: 2, At: epoch, HandOverSeconds: 0.113},
		},
		Restarts: []restartReport{{At: epoch, Cause: "the node became leader", Expected: true}},
	}, {Node: "replica-0", Versions: []spanReport{{0, 1, 40}}, Upgrades: []upgradeReport{}, Restarts: []restartReport{}}}
	live.Roots = []rootReport{equal(40, "0x1cb71b88bdcfff62aaaaaaaa"), equal(92, "0xf12f133218836a88aaaaaaaa")}

	red := newReport()
	for _, s := range red.Steps[:2] {
		s.Result, s.Seconds, s.Chain = passed, 10, 1
	}
	resync := red.Steps[2]
	resync.Result, resync.Seconds, resync.Chain = failed, 20, 1
	resync.Roots = []rootReport{{
		Height: 41, Slot: 41, Roots: map[string]string{"sequencer": "0xaa", "replica-0": "0xaa", "replica-1": "0xbb"},
	}}
	resync.Divergence = &divergence{Height: 41, Slot: 41, Version: 1, Nodes: []string{"replica-1"}, Roots: resync.Roots[0].Roots}
	resync.Damaged = []damageReport{{Node: "replica-0", Version: number(1), Killed: true}, {Node: "replica-1", Version: number(1)}}
	resync.Failures = []failureReport{
		{Node: "replica-1", Version: number(1), Height: number[uint64](41), Sentence: resync.Divergence.sentence(red.Versions)},
		{
			Node: "replica-0", Version: number(1), ExitCode: number(101), Error: "version 1: the node exited 101; safe; next",
			Stderr: "Error: no state", Sentence: "replica-0: exited 101: version 1: the node exited 101: no state", Log: []string{"one", "two"},
		},
	}
	resync.Nodes = []nodeReport{{Node: "replica-0", Restarts: []restartReport{{At: epoch, Cause: "exited 101: x"}}}}
	red.Plan = "manager.json"
	return map[string]*report{"passed": green, "failed": red}
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text, "go test ./compose/rehearse -run %s -update writes it anew", t.Name())
}

func TestReportsReadAsTheyDid(t *testing.T) {
	for name, r := range reports() {
		r.conclude()
		golden(t, name+".txt", r.text())
		path := filepath.Join(t.TempDir(), "report.json")
		require.NoError(t, r.write(path))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		golden(t, name+".json", string(text))
		var back report
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, name == "passed", back.Passed)
	}
}

func TestVerdictNamesEachFailureAndWhatWasNotReached(t *testing.T) {
	r := reports()["passed"]
	r.conclude()
	require.Equal(t, "every step passed", r.Verdict)
	r.Steps[4].Result = failed
	r.Steps[5].Result = notReached
	r.conclude()
	require.False(t, r.Passed)
	require.Equal(t, "SIGTERM at the stop height failed: for an unknown reason", r.Verdict)
	r.Steps[4].Result = passed
	r.conclude()
	require.False(t, r.Passed)
	require.Equal(t, "not reached: late node", r.Verdict)
}

func TestDamagedStatesAreCountedApartAndExplained(t *testing.T) {
	r := reports()["passed"]
	r.conclude()
	require.Zero(t, r.DamagedStates)
	require.NotContains(t, r.text(), "amaged")

	const kill, version = "A kill can damage a real node's state", "a node of another version opened the state"
	r.Steps[3].Damaged = []damageReport{{Node: "replica-0", Killed: true}}
	r.conclude()
	require.Equal(t, 1, r.DamagedStates)
	require.Contains(t, r.text(), `replica-0, in the step "kill -9 at the upgrade", after it was killed`)
	require.Contains(t, r.text(), kill)
	require.Contains(t, r.text(), "300 s to stop")
	require.NotContains(t, r.text(), version)

	r.Steps[1].Damaged = []damageReport{{Node: "replica-0"}, {Node: "replica-1"}}
	r.conclude()
	require.Equal(t, 3, r.DamagedStates)
	require.Contains(t, r.text(), `replica-1, in the step "live upgrade", without having been killed`)
	require.Contains(t, r.text(), version)
}

func TestSameFailureOnSeveralNodesIsOneSentence(t *testing.T) {
	require.Equal(t, "a: exited 78: no (the same on b, c); d: other", merge(failures{
		{Node: "a", Sentence: "a: exited 78: no"},
		{Node: "b", Sentence: "b: exited 78: no"},
		{Node: "d", Sentence: "d: other"},
		{Node: "c", Sentence: "c: exited 78: no"},
	}).Error())
}

func TestFaultsAreSpreadOverTheNodes(t *testing.T) {
	a, b, c := newNode("a", ports{}), newNode("b", ports{}), newNode("c", ports{})
	require.Equal(t, []faultGroup{{stop: a, kill: b, late: c}}, groupFaults([]*node{a, b, c}))
	require.Equal(t, []faultGroup{{stop: a, kill: b}, {late: b}}, groupFaults([]*node{a, b}))
}
