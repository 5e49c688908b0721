package simulation

import (
	"fmt"
	"slices"
	"strings"

	"rollup-entrypoint/sequencer"
)

// state is the rollup's durable state. A power cut keeps it: that is the node's business, not ours.
type state struct {
	exists bool
	// height is the durable rollup height, in blocks.
	height uint64
	// schema is the index of the version whose migration last completed, 0 for the genesis.
	schema int
	// half is the version whose migration has rewritten a part of it, -1 for none.
	half int
	// migrated counts the completed runs of each version's migration.
	migrated []int
	// made says who made which blocks, lowest first.
	made []made
	// wrongGenesis: another version than the first committed the genesis.
	wrongGenesis bool
}

// made: blocks up to height To, from where the one before ends, were made by version By.
type made struct {
	To uint64
	By int
}

func emptyState(versions int) state { return state{half: -1, migrated: make([]int, versions)} }

func (s state) clone() state {
	s.migrated = slices.Clone(s.migrated)
	s.made = slices.Clone(s.made)
	return s
}

// advance makes the state durable up to height, by version by.
func (s *state) advance(height uint64, by int) {
	if height <= s.height {
		return
	}
	s.height = height
	if n := len(s.made); n > 0 && s.made[n-1].By == by {
		s.made[n-1].To = height
		return
	}
	s.made = append(s.made, made{height, by})
}

// wrongBlocks finds a block that was not made by the version to which the plan gives it.
func (s *state) wrongBlocks(plan *sequencer.Plan) string {
	from := uint64(1)
	for _, m := range s.made {
		v := plan.Versions[m.By]
		if from < v.Start || (v.Stop > 0 && m.To > v.Stop) {
			return fmt.Sprintf("version %d made blocks %d to %d, its own are %d to %d", m.By, from, m.To, v.Start, v.Stop)
		}
		from = m.To + 1
	}
	return ""
}

func (s *state) String() string {
	if !s.exists {
		return "empty"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "height %d schema %d", s.height, s.schema)
	if s.half >= 0 {
		fmt.Fprintf(&b, " half migrated to %d", s.half)
	}
	return b.String()
}

// schemaOf is the state version that version i works on: that of its own migration or the nearest before.
func schemaOf(plan *sequencer.Plan, i int) int {
	for ; i > 0; i-- {
		if plan.Versions[i].Migration != "" {
			return i
		}
	}
	return 0
}
