package plan

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestEmergencyStopEndsTheVersionThatMakesTheHeight(t *testing.T) {
	versions := func() []Version {
		return []Version{{Name: "v0", Stop: 100}, {Name: "v1", Start: 101, Stop: 200}, {Name: "v2", Start: 201}}
	}
	for _, test := range []struct {
		height uint64
		// version is the one that is stopped, -1 if the plan stays as it is.
		version int
	}{
		{0, -1},
		{1, 0},
		{99, 0},
		{100, -1},
		{101, 1},
		{199, 1},
		{200, -1},
		{201, 2},
		{1 << 60, 2},
	} {
		p := &Plan{File: "chain.json", Versions: versions()}
		stopped := p.StoppedAt(test.height)
		assert.Equal(t, &Plan{File: "chain.json", Versions: versions()}, p, "%d: the plan itself is not changed", test.height)
		if test.version < 0 {
			assert.Same(t, p, stopped, "%d", test.height)
			assert.Equal(t, 2, stopped.End(), "%d", test.height)
			continue
		}
		want := &Plan{File: "chain.json", Versions: versions(), Brake: test.height}
		want.Versions[test.version].Stop = test.height
		assert.Equal(t, want, stopped, "%d", test.height)
		assert.Equal(t, test.version, stopped.End(), "%d", test.height)
		assert.Equal(t, 2, stopped.Last(), "%d", test.height)
	}
	ends := &Plan{Versions: versions()[:2]}
	assert.Same(t, ends, ends.StoppedAt(201), "no version gets there")
}
