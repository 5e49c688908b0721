package strictjson

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNearestKeyIsSuggested(t *testing.T) {
	known := []string{"rollup_binary", "config_path", "migration_path", "start_height", "stop_height", "name", "args", "env"}
	for _, test := range []struct{ word, want string }{
		{"migraton_path", "migration_path"},
		{"Stop_Height", "stop_height"},
		{"stop-height", "stop_height"},
		{"sart_height", "start_height"},
		{"rollup_binery", "rollup_binary"},
		{"environment", ""},
		{"nam", "name"},
		{"arg", "args"},
		{"ens", "env"},
		{"x", ""},
		{"", ""},
		{"$comment", ""},
		{"ключ", ""},
	} {
		t.Run(test.word, func(t *testing.T) {
			want := ""
			if test.want != "" {
				want = ` (did you mean "` + test.want + `"?)`
			}
			assert.Equal(t, want, Suggest(test.word, known))
		})
	}
	assert.Empty(t, Suggest("anything", nil))
}

func TestEditDistanceIsTheNumberOfEdits(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"same", "same", 0},
		{"kitten", "sitting", 3},
		{"flaw", "lawn", 2},
		{"ab", "ba", 2},
		{"abcdef", "azced", 3},
	} {
		t.Run(test.a+" and "+test.b, func(t *testing.T) {
			assert.Equal(t, test.want, editDistance(test.a, test.b))
			assert.Equal(t, test.want, editDistance(test.b, test.a), "it is the same in both directions")
		})
	}
}
