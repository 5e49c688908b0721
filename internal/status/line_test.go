package status

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

func TestOneLineSaysWhatTheViewSays(t *testing.T) {
	in(t, func(t *testing.T) {
		s := newStatus(running(), sovereign.Readiness{})
		for _, test := range []struct {
			change func(state *sequencer.State)
			want   string
		}{
			{func(state *sequencer.State) { state.Left = nil }, "v1 (version 1): running, height 180, v2 after height 220: 40 blocks left, in about 1 min 20 s"},
			{func(state *sequencer.State) {
				state.Phase, state.Stopping, state.Height = sequencer.PhaseHandingOver, true, nil
			}, "v1 (version 1): handing over (stop requested): waiting for leftover processes to end: 2, the oldest is pid 77 (\"worker\"), v2 after height 220"},
			{func(state *sequencer.State) {
				state.Phase, state.Left, state.Record.VersionIndex = sequencer.PhaseAsking, nil, 2
			}, "v2 (version 2): asking the node for its durable height, height 180"},
		} {
			state := running()
			test.change(&state)
			s.Observe(state)
			assert.Equal(t, test.want, s.Line())
		}
		s.Plan.Versions[1].Name = strings.Repeat("\x1b", 10000) // whoever wrote the plan
		s.Observe(running())
		assert.Less(t, len(s.Line()), 2000)
		assert.NotContains(t, s.Line(), "\x1b")
	})
}
