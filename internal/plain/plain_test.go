package plain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatATerminalWouldObeyIsEscaped(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"v1, größer · 世界 e\u0301":   "v1, größer · 世界 e\u0301",
		"\x1b[2J\x1b]0;title\x07":   `\u001b[2J\u001b]0;title\u0007`,
		"a\rb\x7fc\x00":             `a\u000db\u007fc\u0000`,
		"\u009b31mred":              `\u009b31mred`,
		"\u202egnp.exe\u2066\u200f": `\u202egnp.exe\u2066\u200f`,
		"zero\u200bwidth\ufeff":     `zero\u200bwidth\ufeff`,
		"\U000e0041 tag":            `\udb40\udc41 tag`,
		"no \xff\xc3 UTF-8":         "no \ufffd\ufffd UTF-8",
		"a\tb":                      "a b",
		"two\nlines":                "two\nlines",
	} {
		assert.Equal(t, want, Escape(text))
		assert.Equal(t, strings.ReplaceAll(want, "\n", " "), Line(text))
	}
}

func TestLongLineLosesItsMiddle(t *testing.T) {
	t.Parallel()
	long := "front" + strings.Repeat("ü", lineLimit) + "back"
	for _, line := range []string{Line(long), strings.Split(Lines("one\n"+long+"\nthree"), "\n")[1]} {
		assert.LessOrEqual(t, len(line), lineLimit)
		assert.Greater(t, len(line), lineLimit-16)
		assert.True(t, strings.HasPrefix(line, "frontü") && strings.HasSuffix(line, "üback") && utf8.ValidString(line))
	}
	assert.Equal(t, "ab […] yz", Cut("ab"+strings.Repeat(".", 30)+"yz", 11))
	assert.Empty(t, Cut("more than there is room for the mark", 3))
}

func TestEscapedJSONIsTheSameJSON(t *testing.T) {
	t.Parallel()
	want := map[string]string{"a\u202eb\U000e0041": "\u009b\x7f\x1b\tx\n\u2028"}
	text, err := json.MarshalIndent(want, "", "  ")
	require.NoError(t, err)
	escaped := Escape(string(text))
	assert.NotContains(t, escaped, "\u202e")
	var have map[string]string
	require.NoError(t, json.Unmarshal([]byte(escaped), &have))
	assert.Equal(t, want, have)
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestColoursAreRemovedAndNothingElse(t *testing.T) {
	for text, want := range map[string]string{
		"":      "",
		"plain": "plain",
		"\x1b[2m12:00\x1b[0m \x1b[1;38:5:9mERROR\x1b[m it\x1b[0m": "12:00 ERROR it",
		"\x1b[2J\x1b[1;1H\x1b[31mred":                             "\x1b[2J\x1b[1;1Hred",
		"\x1b[":                                                   "\x1b[",
		"\x1b[1":                                                  "\x1b[1",
		"\x1b[\x1b[0mm":                                           "\x1b[m",
		"\x1b]0;title\a":                                          "\x1b]0;title\a",
	} {
		assert.Equal(t, want, Uncoloured(text), "%q", text)
	}
}

func TestWriterCountsWhatItsCallerWrote(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	n, err := fmt.Fprint(Writer{&b}, "a\x1bb")
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	assert.Equal(t, `a\u001bb`, b.String())
	_, err = Writer{full{}}.Write([]byte("x"))
	require.Error(t, err)
}

func FuzzEscape(f *testing.F) {
	f.Add("\x1b[2J\u202e\xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, shown := range []string{Escape(text), Line(text), Lines(text)} {
			if strings.ContainsFunc(shown, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }) || !utf8.ValidString(shown) {
				t.Fatalf("%q is shown as %q", text, shown)
			}
		}
		if Escape(Escape(text)) != Escape(text) {
			t.Fatalf("%q is escaped twice", text)
		}
	})
}

func TestCutNeverCutsACharacter(t *testing.T) {
	text := "aé€😀" + strings.Repeat("😀€éz", 20)
	for limit := range len(text) + 2 {
		cut := Cut(text, limit)
		assert.LessOrEqual(t, len(cut), limit)
		assert.True(t, utf8.ValidString(cut), "%d: %q", limit, cut)
		if limit < len(omitted) {
			assert.Empty(t, cut)
		}
		front, back, isCut := strings.Cut(cut, omitted)
		assert.True(t, !isCut || strings.HasPrefix(text, front) && strings.HasSuffix(text, back), cut)
	}
	assert.Equal(t, text, Cut(text, len(text)))
}

func TestSizesAreForPeople(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]string{
		-1: "0.0 kB", 0: "0.0 kB", 1500: "1.5 kB", 999_900: "999.9 kB", 1_000_000: "1.0 MB", 3_300_000_000: "3.3 GB", 5e12: "5.0 TB", 1<<63 - 1: "9223372.0 TB",
	} {
		assert.Equal(t, want, Bytes(bytes), bytes)
	}
}
