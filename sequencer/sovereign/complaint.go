package sovereign

import (
	"strings"
	"unicode/utf8"

	"rollup-entrypoint/internal/plain"
)

// Complaint is what a node says about a state on which it will not run. Anybody may have put such words into its
// output, so they make a failure easier to read and decide nothing.
type Complaint int

const (
	// Damaged: the databases of the state contradict each other, as they may after SIGKILL, beyond the node's repair.
	Damaged Complaint = iota + 1
	// NotMigrated: the state has the format of an older version, or no valid one, because its migration did not end.
	NotMigrated
)

// complaints has the words of each complaint, which appear in one line, in this order.
var complaints = []struct {
	complaint Complaint
	words     []string
}{
	{Damaged, []string{"historical state root hashes are not equal to NOMT state root hashes"}}, // after "Fix didn't help, "
	{Damaged, []string{"stale storage on next_version="}},
	{Damaged, []string{"Runtime initialization must succeed", "token ID", "already exists"}}, // a genesis on half a genesis
	{NotMigrated, []string{"the state was not migrated"}},
	{NotMigrated, []string{"the state_version on disk is"}},
	{NotMigrated, []string{"the state is in the middle of a migration from state_version"}},
}

// sentenceLimit bounds how much of a line is quoted, in bytes.
const sentenceLimit = 300

// FindComplaint finds the last complaint about the state in what a node wrote; 0 means that there is none. sentence is
// its line without control characters, from the complaint on if the line is longer than 300 bytes.
func FindComplaint(text string) (c Complaint, sentence string) {
	var plain strings.Builder
	newPlainText(func(r rune) { plain.WriteRune(r) })([]byte(text))
	for line := range strings.SplitSeq(strings.ReplaceAll(plain.String(), "\r", "\n"), "\n") {
		for _, known := range complaints {
			if at := indexInOrder(line, known.words); at >= 0 {
				c, sentence = known.complaint, quote(line, at)
				break
			}
		}
	}
	return c, sentence
}

// indexInOrder returns where the first of the words begins if the line has all of them in this order, otherwise -1.
func indexInOrder(line string, words []string) int {
	first, at := -1, 0
	for _, w := range words {
		i := strings.Index(line[at:], w)
		if i < 0 {
			return -1
		}
		if first < 0 {
			first = i
		}
		at += i + len(w)
	}
	return first
}

// quote returns the line for a message, or, if it is too long, the part that begins at the given place.
func quote(line string, at int) string {
	readable := plain.Strip(line)
	if len(readable) > sentenceLimit {
		readable = plain.Strip(line[at:])
	}
	for end := sentenceLimit; end < len(readable); end-- {
		if utf8.RuneStart(readable[end]) {
			return readable[:end]
		}
	}
	return readable
}
