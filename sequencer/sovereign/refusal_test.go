package sovereign

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

const (
	stopRefusal  = "The requested stop_height 200 must be greater than the current_height 250"
	startRefusal = "The requested start_at_rollup_height: 101, is different than expected height 150"
)

func TestRefusalTellsTheDurableHeight(t *testing.T) {
	stop := Refusal{Kind: StopRefused, Requested: 200, Current: 250}
	start := Refusal{Kind: StartRefused, Requested: 101, Current: 149}
	const (
		largest = "18446744073709551615"
		beyond  = "18446744073709551616"
	)
	for _, test := range []struct {
		name, text string
		want       Refusal // zero for none
	}{
		{"stop", stopRefusal, stop},
		{"start", startRefusal, start},
		{"in a panic", "thread 'main' panicked at src/main.rs:1:1:\ncalled `Result::unwrap()` on an `Err` value: " + stopRefusal + "\nnote: run with `RUST_BACKTRACE=1`\n", stop},
		{"in an error with causes", "Error: cannot start\n\nCaused by:\n    0: " + startRefusal + "\n    1: x\n", start},
		{"without a space after a dot", "x." + stopRefusal + ".", stop},
		{"in colours", "\x1b[31mERROR\x1b[0m " + stopRefusal + "\x1b[0m\n", stop},
		{"with a colour between any two words", strings.ReplaceAll(stopRefusal, " ", "\x1b[0m \x1b[1;38;5;208m"), stop},
		{"with colours around the numbers", "The requested start_at_rollup_height: \x1b[33m101\x1b[0m, is different than expected height \x1b[33m150\x1b[0m", start},
		{"wrapped", "The requested\n    start_at_rollup_height: 101, is different\r\n\tthan expected height\n 150", start},
		{"wrapped and coloured", "The requested stop_height\x1b[0m\n\x1b[2m  200 must be greater than the current_height\n\x1b[K250", stop},
		{"with colours whose parameters have colons", strings.ReplaceAll(stopRefusal, " ", "\x1b[38:2::255:0:0m "), stop},
		{"with the cursor switched off and on", strings.ReplaceAll(stopRefusal, " 200", "\x1b[?25l 200\x1b[?25h"), stop},
		{"with what only begins like a colour", strings.ReplaceAll(stopRefusal, " 200", "\x1b[ 200"), Refusal{}},
		{"without a space after the colon", "The requested start_at_rollup_height:101, is different than expected height 150", start},

		{"both, stop last", startRefusal + "\n" + stopRefusal, stop},
		{"both, start last", stopRefusal + "\n" + startRefusal, start},
		{"the last of several", "The requested stop_height 7 must be greater than the current_height 8\n" + stopRefusal, stop},
		{"the last of several starts", "The requested start_at_rollup_height: 7, is different than expected height 8\n" + startRefusal, start},

		{"stop at genesis", "The requested stop_height 0 must be greater than the current_height 0", Refusal{Kind: StopRefused}},
		{"start at genesis", "The requested start_at_rollup_height: 101, is different than expected height 1", Refusal{StartRefused, 101, 0}},
		{"expected height 0 is no height", "The requested start_at_rollup_height: 101, is different than expected height 0", Refusal{}},
		{"the largest numbers", "The requested stop_height " + largest + " must be greater than the current_height " + largest, Refusal{StopRefused, math.MaxUint64, math.MaxUint64}},
		{"the largest expected height", "The requested start_at_rollup_height: 1, is different than expected height " + largest, Refusal{StartRefused, 1, math.MaxUint64 - 1}},
		{"a current height that is too large", "The requested stop_height 200 must be greater than the current_height " + beyond, Refusal{}},
		{"a requested height that is too large", "The requested stop_height " + beyond + " must be greater than the current_height 7", Refusal{}},
		{"an expected height that is too large", "The requested start_at_rollup_height: 1, is different than expected height " + beyond, Refusal{}},
		{"a last one that is too large hides an earlier one", stopRefusal + "\nThe requested stop_height 200 must be greater than the current_height " + beyond, Refusal{}},

		{"a stop that is too large does not hide a start", startRefusal + "\nThe requested stop_height 200 must be greater than the current_height " + beyond, start},
		{"a start that is too large does not hide a stop", stopRefusal + "\nThe requested start_at_rollup_height: 1, is different than expected height " + beyond, stop},

		{"nothing", "", Refusal{}},
		{"another error", "Error: the state_version on disk is 3, expected 4", Refusal{}},
		{"no number", "The requested stop_height x must be greater than the current_height y", Refusal{}},
		{"a negative number", "The requested stop_height -1 must be greater than the current_height 7", Refusal{}},
		{"torn", stopRefusal[:len(stopRefusal)-3], Refusal{}},
		{"other words", "The requested stop_height 200 must be at least the current_height 250", Refusal{}},
		{"other letters", strings.ToLower(stopRefusal), Refusal{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := ParseRefusal([]byte(test.text))
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.want.Kind != 0, ok)
		})
	}
}

func TestRefusalLeavesTheTextAlone(t *testing.T) {
	text := []byte("\x1b[31m" + stopRefusal + "\x1b[0m")
	before := string(text)
	_, ok := ParseRefusal(text)
	assert.True(t, ok)
	assert.Equal(t, before, string(text))
}

var (
	colours      = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]")
	blanks       = regexp.MustCompile(`[\s\pZ\v\x{85}]+`)
	stopPattern  = regexp.MustCompile(`The requested stop_height ?([0-9]+) must be greater than the current_height ([0-9]+)`)
	startPattern = regexp.MustCompile(`The requested start_at_rollup_height: ?([0-9]+), is different than expected height ([0-9]+)`)
)

// refusalByPattern reads a refusal with regular expressions and nothing else.
func refusalByPattern(stderr []byte) (refusal Refusal, ok bool) {
	text := blanks.ReplaceAllString(colours.ReplaceAllString(string(stderr), ""), " ")
	last := -1
	for kind, pattern := range map[RefusalKind]*regexp.Regexp{StopRefused: stopPattern, StartRefused: startPattern} {
		found := pattern.FindAllStringSubmatchIndex(text, -1)
		if len(found) == 0 {
			continue
		}
		m := found[len(found)-1]
		requested, requestedErr := strconv.ParseUint(text[m[2]:m[3]], 10, 64)
		current, currentErr := strconv.ParseUint(text[m[4]:m[5]], 10, 64)
		if requestedErr != nil || currentErr != nil || m[0] < last {
			continue
		}
		last = m[0]
		refusal, ok = Refusal{kind, requested, current}, true
	}
	switch {
	case refusal.Kind == StartRefused && refusal.Current == 0:
		return Refusal{}, false
	case refusal.Kind == StartRefused:
		refusal.Current-- // the node names the next height
	}
	return refusal, ok
}

func FuzzParseRefusal(f *testing.F) {
	for _, seed := range []string{
		"", stopRefusal, startRefusal, stopRefusal + startRefusal, "\x1b[31m" + strings.ReplaceAll(stopRefusal, " ", "\x1b[0m\n"),
		"The requested start_at_rollup_height: 1, is different than expected height 0", "\x1b[", "\x1b[;;",
		"The requested stop_height 99999999999999999999 must be greater than the current_height 1",
	} {
		f.Add([]byte(seed), uint64(200), uint64(250))
	}
	f.Fuzz(func(t *testing.T, text []byte, requested, current uint64) {
		got, ok := ParseRefusal(text)
		if want, wantOK := refusalByPattern(text); got != want || ok != wantOK {
			t.Fatalf("read %+v, %t, want %+v, %t", got, ok, want, wantOK)
		}
		// Whatever a node wrote before, its last refusal is found.
		for _, want := range []Refusal{{StopRefused, requested, current}, {StartRefused, requested, current}} {
			last := fmt.Sprintf("\nThe requested stop_height %d must be greater than the current_height %d\n", requested, current)
			if want.Kind == StartRefused {
				if current == math.MaxUint64 {
					continue
				}
				last = fmt.Sprintf("\nThe requested start_at_rollup_height: %d, is different than expected height %d\n", requested, current+1)
			}
			if got, ok := ParseRefusal(append(text[:len(text):len(text)], last...)); !ok || got != want {
				t.Fatalf("read %+v, %t, want %+v", got, ok, want)
			}
		}
	})
}
