package sovereign

import (
	"regexp"
	"strconv"
)

// RefusalKind says which of its two height flags a node refused.
type RefusalKind int

const (
	// StopRefused: the durable height is not below --stop-at-rollup-height.
	StopRefused RefusalKind = iota + 1
	// StartRefused: the durable height is not --start-at-rollup-height minus one.
	StartRefused
)

// Refusal is what a node said when it refused a height flag, before it exited 101.
type Refusal struct {
	Kind RefusalKind
	// Requested is the height of the flag, in blocks.
	Requested uint64
	// Current is the durable height of the state, in blocks: the one thing a node says that proves it.
	Current uint64
}

// ansi matches colour sequences, which a node's log library may put between any two words.
var ansi = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// The texts are those of the SDK's start-up checks. White space is loose because log libraries wrap lines.
var (
	stopText  = regexp.MustCompile(`The\s+requested\s+stop_height\s+(\d+)\s+must\s+be\s+greater\s+than\s+the\s+current_height\s+(\d+)`)
	startText = regexp.MustCompile(`The\s+requested\s+start_at_rollup_height:\s*(\d+),\s+is\s+different\s+than\s+expected\s+height\s+(\d+)`)
)

// ParseRefusal looks for a refusal in what a node wrote on stderr. The last one counts. ok is false where there is
// none, or where its numbers are no heights.
func ParseRefusal(stderr []byte) (refusal Refusal, ok bool) {
	text := ansi.ReplaceAll(stderr, nil)
	stop, stopAt := lastMatch(stopText, text)
	start, startAt := lastMatch(startText, text)
	switch {
	case stop == nil && start == nil:
		return Refusal{}, false
	case startAt > stopAt:
		// The node names the height that it would process next; the durable one is one below.
		if start[1] == 0 {
			return Refusal{}, false
		}
		return Refusal{Kind: StartRefused, Requested: start[0], Current: start[1] - 1}, true
	default:
		return Refusal{Kind: StopRefused, Requested: stop[0], Current: stop[1]}, true
	}
}

// lastMatch returns the two numbers of the last match of re and where it starts, or nil and -1.
func lastMatch(re *regexp.Regexp, text []byte) (numbers []uint64, at int) {
	all := re.FindAllSubmatchIndex(text, -1)
	if len(all) == 0 {
		return nil, -1
	}
	m := all[len(all)-1]
	for i := 2; i < len(m); i += 2 {
		n, err := strconv.ParseUint(string(text[m[i]:m[i+1]]), 10, 64)
		if err != nil {
			return nil, -1
		}
		numbers = append(numbers, n)
	}
	return numbers, m[0]
}
