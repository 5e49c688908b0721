// Package plain makes text from a file or from the network safe to show on a terminal: nothing in it can move the
// cursor, change colours, reorder what is read, or fill the screen. It knows nothing of what the text says.
package plain

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// lineLimit is how many bytes of one line are shown: more than any sentence of ours has.
const lineLimit = 16 << 10

// omitted is what Cut puts in place of what it leaves out.
const omitted = " […] "

// Line gives text as one line of at most lineLimit bytes, escaped.
func Line(text string) string {
	return Escape(Cut(strings.ReplaceAll(text, "\n", " "), lineLimit))
}

// Lines is Line for each of the lines of text.
func Lines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = Line(line)
	}
	return strings.Join(lines, "\n")
}

// Escape writes what a terminal would obey, or would not show, as JSON does: \u001b. That is every character that is
// not graphic, such as controls and those that change the direction of text. Line ends stay, a tab becomes a space, and
// a byte that is not UTF-8 becomes U+FFFD. JSON has such characters only within strings, so escaped JSON means the
// same.
func Escape(text string) string {
	if !strings.ContainsFunc(text, needsEscape) {
		return text
	}
	var b strings.Builder
	for _, r := range text { // each byte that is not UTF-8 is one U+FFFD
		switch {
		case r == '\t':
			b.WriteByte(' ')
		case !needsEscape(r) || r == utf8.RuneError:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// Uncoloured gives text without the sequences that set colours and weights of characters (SGR in ECMA-48): a log has
// them for a terminal, and escaped they would be in the way of the words.
func Uncoloured(text string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		text = strings.TrimLeft(rest, "0123456789;:")
		if !strings.HasPrefix(text, "m") {
			b.WriteString("\x1b[")
			text = rest
			continue
		}
		text = text[1:]
	}
}

func needsEscape(r rune) bool { return r != '\n' && (r == utf8.RuneError || !unicode.IsGraphic(r)) }

// Strip gives text without what Escape would escape, and with a space for each white space: words to be quoted within a
// sentence, where an escape would be taken for theirs.
func Strip(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text))
}

// Cut gives text in at most limit bytes: if it is longer its middle is left out. It cuts between characters.
func Cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	keep := limit - len(omitted)
	if keep < 0 {
		return ""
	}
	front, back := (keep+1)/2, len(text)-keep/2
	for front > 0 && !utf8.RuneStart(text[front]) {
		front--
	}
	for back < len(text) && !utf8.RuneStart(text[back]) {
		back++
	}
	return text[:front] + omitted + text[back:]
}

// Count gives a number with its noun, which takes an s: "1 error", "2 errors".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Bytes gives a number of bytes for a person: "3.3 GB".
func Bytes(bytes int64) string {
	n, unit := float64(max(bytes, 0)), "kB"
	for _, larger := range []string{"MB", "GB", "TB"} {
		if n < 1e6 {
			break
		}
		n, unit = n/1000, larger
	}
	return fmt.Sprintf("%.1f %s", n/1000, unit)
}

// Writer escapes what is written through it. No character may be split between two calls of Write.
type Writer struct{ To io.Writer }

// Write writes text escaped. It returns the number of bytes of text, as its caller expects.
func (w Writer) Write(text []byte) (int, error) {
	if _, err := io.WriteString(w.To, Escape(string(text))); err != nil {
		return 0, fmt.Errorf("cannot write: %w", err)
	}
	return len(text), nil
}
