package sovereign

import (
	"strconv"
	"strings"
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

// The texts are those of the SDK's start-up checks, around their two numbers.
var (
	stopText  = [2]string{"The requested stop_height", " must be greater than the current_height "}
	startText = [2]string{"The requested start_at_rollup_height:", ", is different than expected height "}
)

// ParseRefusal looks for a refusal in what a node wrote on stderr. The last one counts. ok is false where there is
// none, or where its numbers are no heights.
func ParseRefusal(stderr []byte) (refusal Refusal, ok bool) {
	text := plain(stderr)
	stop, stopAt := lastMatch(text, stopText)
	start, startAt := lastMatch(text, startText)
	switch {
	case stopAt < 0 && startAt < 0:
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

// plain gives the words of a text with one blank between them: log libraries colour them and wrap lines.
func plain(text []byte) string {
	words := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if n := controlSequence(text[i:]); n > 0 {
			i += n - 1
			continue
		}
		words = append(words, text[i])
	}
	return strings.Join(strings.Fields(string(words)), " ")
}

// controlSequence is the length of the control sequence with which text begins, 0 for none. By ECMA-48, section 5.4, it is
// ESC [, then bytes of parameters, intermediate bytes, and one final byte.
func controlSequence(text []byte) int {
	if len(text) < 3 || text[0] != 0x1b || text[1] != '[' {
		return 0
	}
	at := 2
	for at < len(text) && text[at] >= '0' && text[at] <= '?' {
		at++
	}
	for at < len(text) && text[at] >= ' ' && text[at] <= '/' {
		at++
	}
	if at == len(text) || text[at] < '@' || text[at] > '~' {
		return 0
	}
	return at + 1
}

// lastMatch returns the two numbers of the last place where the text stands, and where that is, or -1.
func lastMatch(text string, around [2]string) (numbers [2]uint64, at int) {
	for at = strings.LastIndex(text, around[0]); at >= 0; at = strings.LastIndex(text[:at], around[0]) {
		rest := text[at+len(around[0]):]
		first, rest := leadingDigits(strings.TrimPrefix(rest, " "))
		rest, follows := strings.CutPrefix(rest, around[1])
		second, _ := leadingDigits(rest)
		if !follows || first == "" || second == "" {
			continue
		}
		for i, digits := range []string{first, second} {
			n, err := strconv.ParseUint(digits, 10, 64)
			if err != nil {
				return numbers, -1
			}
			numbers[i] = n
		}
		return numbers, at
	}
	return numbers, -1
}

// leadingDigits splits text behind the digits with which it begins.
func leadingDigits(text string) (digits, rest string) {
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	return text[:end], text[end:]
}
