package sovereign

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestComplaintsAboutTheStateAreFound(t *testing.T) {
	const (
		damaged     = "Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required."
		stale       = "stale storage on next_version=36"
		tornGenesis = "Runtime initialization must succeed token ID token_1abc already exists"
		old         = "the state_version on disk is 1, this binary requires 2: the state was not migrated"
		half        = "the state is in the middle of a migration from state_version 1 to 2"
	)
	for _, test := range []struct {
		name, text string
		want       Complaint
		sentence   string
	}{
		{"damaged", damaged, Damaged, damaged},
		{"damaged at the next block", "x\n" + stale + "\n", Damaged, stale},
		{"after a torn genesis", tornGenesis + "\r\n", Damaged, tornGenesis},
		{"after a torn genesis, with a colon", "Runtime initialization must succeed: token ID x already exists", Damaged, "Runtime initialization must succeed: token ID x already exists"},
		{"not migrated", "Error: " + old, NotMigrated, "Error: " + old},
		{"half migrated", half, NotMigrated, half},
		{"in a panic", "thread 'main' panicked at src/main.rs:1:1:\n" + damaged + "\nnote: run with `RUST_BACKTRACE=1`\n", Damaged, damaged},
		{"in colours", "\x1b[31mERROR\x1b[0m stale \x1b[1mstorage\x1b[0m on next_version=\x1b[33m36\x1b[0m\n", Damaged, "ERROR " + stale},
		{"in a link", "\x1b]8;;http://x\a" + old + "\x1b]8;;\a", NotMigrated, old},
		{"in JSON", `{"message":"cannot start:\n` + old + `\n"}`, NotMigrated, old},
		{"with a tab and a bell", "ERROR\t" + old + "\a", NotMigrated, "ERROR " + old},
		{"with marks that turn the text round", "\u202e" + old + "\u200b", NotMigrated, old},
		{"the last one counts", damaged + "\n" + old + "\n", NotMigrated, old},
		{"the last one of several", old + "\n" + damaged + "\n" + stale + "\nx\n", Damaged, stale},
		{"another one", "cannot open the DA", 0, ""},
		{"nothing", "", 0, ""},
		{"other words about the state", "the state_version is 2, the state was migrated", 0, ""},
		{"words of one in another order", "token ID x already exists: Runtime initialization must succeed", 0, ""},
		{"words of one on two lines", "Runtime initialization must succeed\ntoken ID x already exists", 0, ""},
		{"half of one", damaged[:60], 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, sentence := FindComplaint(test.text)
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.sentence, sentence)
		})
	}
}

func TestComplaintInALongLineIsCut(t *testing.T) {
	c, sentence := FindComplaint(strings.Repeat("x", 200) + " stale storage on next_version=36 " + strings.Repeat("é", 1000))
	assert.Equal(t, Damaged, c)
	assert.Equal(t, "stale storage on next_version=36 "+strings.Repeat("é", 133), sentence)

	line := "stale storage on next_version=" + strings.Repeat("1", 270)
	_, sentence = FindComplaint(line)
	assert.Equal(t, line, sentence, "300 bytes are not too long")
	_, sentence = FindComplaint(line + "1")
	assert.Equal(t, line, sentence)
}

// Any line that is found can be shown.
func FuzzFindComplaint(f *testing.F) {
	for _, known := range complaints {
		f.Add(strings.Join(known.words, " x "), "")
		f.Add("\x1b[31m"+strings.Join(known.words, " "), strings.Repeat("é", 400))
	}
	f.Fuzz(func(t *testing.T, text, more string) {
		c, sentence := FindComplaint(text + more)
		if (c == 0) != (sentence == "") {
			t.Fatalf("complaint %d with %q", c, sentence)
		}
		unfit := func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' }
		if len(sentence) > sentenceLimit || !utf8.ValidString(sentence) || strings.ContainsFunc(sentence, unfit) {
			t.Fatalf("%q cannot be shown", sentence)
		}
		for _, known := range complaints {
			last := strings.Join(known.words, " ")
			c, sentence := FindComplaint(text + "\n" + last + "\n")
			if c != known.complaint || sentence != last {
				t.Fatalf("read %d, %q, want %d, %q", c, sentence, known.complaint, last)
			}
		}
	})
}
