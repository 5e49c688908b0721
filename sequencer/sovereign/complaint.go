package sovereign

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Complaint is what a node says about its state when it will not run on it. Anybody may have put such words into what
// it wrote, so they make a failure easier to read and decide nothing.
type Complaint int

const (
	// Damaged: the databases of the state contradict each other, as they may after SIGKILL, and the node cannot repair
	// them.
	Damaged Complaint = iota + 1
	// NotMigrated: the state has the format of an older version, or of none, because its migration did not end.
	NotMigrated
)

// complaints has the words of each complaint, which follow each other in one line.
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

// sentenceLimit bounds, in bytes, what is quoted of a line.
const sentenceLimit = 300

// FindComplaint looks for a complaint about the state in what a node wrote. The last one counts; 0 is none. sentence is
// the line that has it, without control characters, from the complaint on if the line is longer than 300 bytes.
func FindComplaint(text string) (c Complaint, sentence string) {
	var plain strings.Builder
	newPlainText(func(r rune) { plain.WriteRune(r) })([]byte(text))
	for line := range strings.FieldsFuncSeq(plain.String(), isLineEnd) {
		for _, known := range complaints {
			if at := indexInOrder(line, known.words); at >= 0 {
				c, sentence = known.complaint, quote(line, at)
				break
			}
		}
	}
	return c, sentence
}

func isLineEnd(r rune) bool { return r == '\n' || r == '\r' }

// indexInOrder returns where the first of the words begins, if all are in the line, in their order; -1 if not.
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

// quote returns the line for a message, or the part of it that begins at the given place if it is too long.
func quote(line string, at int) string {
	readable := printable(line)
	if len(readable) > sentenceLimit {
		readable = printable(line[at:])
	}
	for end := sentenceLimit; end < len(readable); end-- {
		if utf8.RuneStart(readable[end]) {
			return readable[:end]
		}
	}
	return readable
}

// printable returns the line with blanks for other white space, and without what cannot be seen.
func printable(line string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, line))
}
