package logevents

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/log-events.md anew")

func events() (all []Event) {
	for _, s := range Sections() {
		all = append(all, s.Events...)
	}
	return all
}

func find(name string) (Event, bool) {
	all := events()
	i := slices.IndexFunc(all, func(e Event) bool { return e.Name == name })
	if i < 0 {
		return Event{}, false
	}
	return all[i], true
}

func TestEachLineOfTheCodeIsInTheTable(t *testing.T) {
	for _, l := range allLines(t) {
		e, ok := find(l.name)
		if !ok {
			t.Errorf("%s: %q is not in the table of test/logevents: add a row", l.at, l.name)
			continue
		}
		assert.Equal(t, e.Level.String(), l.level, "%s: level of %q", l.at, l.name)
		for _, key := range e.Keys {
			assert.Contains(t, l.keys, key, "%s: %q", l.at, l.name)
		}
		for _, key := range slices.Concat(l.keys, l.optional) {
			assert.Contains(t, slices.Concat(e.Keys, e.Optional), key, "%s: %q", l.at, l.name)
		}
		unique := slices.Compact(slices.Sorted(slices.Values(l.keys)))
		assert.Len(t, l.keys, len(unique), "%s: %q has a key twice", l.at, l.name)
	}
}

func TestEachRowOfTheTableIsInTheCode(t *testing.T) {
	lines := allLines(t)
	names := map[string]bool{}
	for _, e := range events() {
		assert.False(t, names[e.Name], "%q is listed twice", e.Name)
		names[e.Name] = true
		assert.NotEmpty(t, e.Means, e.Name)
		var places int
		always, some := map[string]int{}, map[string]bool{}
		for _, l := range lines {
			if l.name != e.Name {
				continue
			}
			places++
			for _, key := range l.keys {
				always[key]++
			}
			for _, key := range slices.Concat(l.keys, l.optional) {
				some[key] = true
			}
		}
		assert.NotZero(t, places, "%q is logged nowhere: remove its row", e.Name)
		for _, key := range e.Optional {
			assert.True(t, some[key], "%q never has the key %s", e.Name, key)
			assert.Less(t, always[key], places, "%q always has the key %s: it is not optional", e.Name, key)
		}
	}
}

func TestEachKeyIsExplainedOnceAndInSnakeCase(t *testing.T) {
	var known []string
	for _, k := range Keys() {
		known = append(known, k.Name)
		assert.Empty(t, strings.Trim(k.Name, "abcdefghijklmnopqrstuvwxyz_"), k.Name)
		assert.NotEmpty(t, k.Type+k.Means, k.Name)
	}
	assert.Equal(t, slices.Compact(slices.Sorted(slices.Values(known))), known, "sorted, each once")
	used := map[string]bool{}
	for _, e := range events() {
		for _, key := range slices.Concat(e.Keys, e.Optional) {
			used[key] = true
			assert.Contains(t, known, key, e.Name)
		}
	}
	for _, key := range known {
		assert.True(t, used[key], "no event has the key %s", key)
	}
}

// page is docs/log-events.md.
func page() string {
	var b strings.Builder
	b.WriteString("# Log events\n\nEvery line that `entrypoint` writes to standard error, besides what nodes and migrations write there. Names and keys are\n" +
		"fixed: filter and alert by them, not by the texts in `detail`, `error`, `reason`, `problem` and `next`. Each line also\n" +
		"has `time`, `level` and `msg`, which is the name. `--log-format` chooses text or JSON, `--log-level` omits lines. What a failure\n" +
		"asks you to look up in the log has the level `info`.\n\n" +
		"A test writes this page from the table in `test/logevents`, and compares the table with the code.\n")
	for _, s := range Sections() {
		fmt.Fprintf(&b, "\n## %s\n\n| event | level | keys | what it means |\n|---|---|---|---|\n", s.Title)
		for _, e := range s.Events {
			keys := slices.Clone(e.Keys)
			for _, key := range e.Optional {
				keys = append(keys, key+"?")
			}
			list := "–"
			if len(keys) > 0 {
				list = "`" + strings.Join(keys, "` `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", e.Name, strings.ToLower(e.Level.String()), list, e.Means)
		}
	}
	b.WriteString("\n## Keys\n\nA key means the same in every event. One with a ? above is omitted if it is unknown.\n\n| key | type | meaning |\n|---|---|---|\n")
	for _, k := range Keys() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Name, k.Type, k.Means)
	}
	return b.String()
}

func TestPageIsWrittenFromTheTable(t *testing.T) {
	const file = "../../docs/log-events.md"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(page()), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, page(), string(have), "run: go test ./test/logevents -update")
}
