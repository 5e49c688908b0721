package sovereign

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNodeArgumentsHaveTheOrderOfTheReference(t *testing.T) {
	for _, test := range []struct {
		name        string
		start, stop uint64
		extra       []string
		want        []string
	}{
		{"no heights", 0, 0, nil, []string{"--rollup-config-path", "c.toml"}},
		{"stop", 0, 100, nil, []string{"--rollup-config-path", "c.toml", "--stop-at-rollup-height", "100"}},
		{"start", 101, 0, nil, []string{"--rollup-config-path", "c.toml", "--start-at-rollup-height", "101"}},
		{
			"all", 101, 200,
			[]string{"--genesis-path", "g", "", "--start-at-rollup-height=7"},
			[]string{"--rollup-config-path", "c.toml", "--start-at-rollup-height", "101", "--stop-at-rollup-height", "200", "--genesis-path", "g", "", "--start-at-rollup-height=7"},
		},
		{
			"the largest heights", math.MaxUint64, math.MaxUint64, nil,
			[]string{"--rollup-config-path", "c.toml", "--start-at-rollup-height", "18446744073709551615", "--stop-at-rollup-height", "18446744073709551615"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, test.want, NodeArgs("c.toml", test.start, test.stop, test.extra...))
		})
	}
}

func TestMigrationGetsTheConfigOfTheNewVersion(t *testing.T) {
	assert.Equal(t, []string{"--rollup-config-path", "new.toml"}, MigrationArgs("new.toml"))
	assert.Equal(t, []string{"--rollup-config-path", "new.toml", "--fast", ""}, MigrationArgs("new.toml", "--fast", ""))
}
