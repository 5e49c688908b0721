package sovereign

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testNonce is a start height that no node expects.
const testNonce = 4871236540198233

const (
	sdkText  = "The requested start_at_rollup_height: {N}, is different than expected height {E}"
	mockText = "start_at_height ({N}) != current_height + 1 ({E})"
)

// filled puts numbers into a text.
func filled(text string, nonce, expected uint64) string {
	return strings.NewReplacer("{N}", strconv.FormatUint(nonce, 10), "{E}", strconv.FormatUint(expected, 10)).Replace(text)
}

// answerTo reads a text on one stream, in one piece.
func answerTo(t *testing.T, nonce uint64, text string) Answer {
	t.Helper()
	q := NewQuestion(nonce)
	write(t, q.Stderr(), text)
	return q.Answer()
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	n, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.Len(t, text, n)
}

func TestAnswerIsTheHeightBelowTheExpectedOne(t *testing.T) {
	sdk, mock := filled(sdkText, testNonce, 150), filled(mockText, testNonce, 150)
	between := func(with string) string { return strings.ReplaceAll(sdk, " ", with) }
	quoted := func(text string) string { return strings.Trim(strconv.Quote(text), `"`) }
	for name, text := range map[string]string{
		"the SDK's":                       sdk + "\n",
		"the mock's":                      mock,
		"in a panic":                      "thread 'main' panicked at src/main.rs:1:1:\ncalled `Result::unwrap()` on an `Err` value: " + sdk + "\nnote: run with `RUST_BACKTRACE=1`\n",
		"in an error with causes":         "Error: cannot start\n\nCaused by:\n    0: " + sdk + "\n    1: x\n",
		"with a backtrace on its line":    "ERROR error=Failed to initialize Caused by: " + sdk + " backtrace=   0: std::rt\n",
		"directly after other words":      "x." + sdk + ".",
		"followed by a quotation mark":    `"` + sdk + `"` + "\n",
		"with its numbers quoted":         "The requested start_at_rollup_height: `4871236540198233`, is different than expected height “150”\n",
		"in curly quotation marks":        "‘" + sdk + "’.",
		"in colours":                      "\x1b[31mERROR\x1b[0m " + sdk + "\x1b[0m\n",
		"with colours around its words":   between("\x1b[0m \x1b[1;38;5;208m") + "\n",
		"with colours around its numbers": "The requested start_at_rollup_height: \x1b[33m4871236540198233\x1b[0m, is different than expected height \x1b[33m150\x1b[0m\n",
		"with colons in its colours":      between("\x1b[38:2::255:0:0m ") + "\n",
		"with the cursor switched off":    strings.ReplaceAll(sdk, " is", "\x1b[?25l is\x1b[?25h") + "\n",
		"with a character set chosen":     strings.ReplaceAll(sdk, " is", "\x1b(B\x1b[m is") + "\n",
		"in a link ended by BEL":          "\x1b]8;;file:///main.rs\a" + sdk + "\x1b]8;;\a\n",
		"in a link ended by ESC \\":       "\x1b]8;;file:///main.rs\x1b\\" + sdk + "\x1b]8;;\x1b\\\n",
		"with a link in it":               strings.ReplaceAll(sdk, "different", "\x1b]8;id=1;http://x\x1b\\different\x1b]8;;\x1b\\") + "\n",
		"after a link that never ends":    "\x1b]8;;http://x\n" + sdk + "\n",
		"wrapped":                         "The requested\n    start_at_rollup_height: 4871236540198233, is different\r\n\tthan expected height\n 150\n",
		"wrapped and coloured":            between("\x1b[0m\n\x1b[2m  ") + "\n",
		"wrapped with other blanks":       between("\u2003\u00a0\u0085") + "\n",
		"in JSON":                         `{"level":"ERROR","fields":{"message":"` + sdk + `"}}`,
		"in JSON, coloured":               `{"message":"\u001b[31m` + between(`\u001b[0m \u001b[1m`) + `\u001b[0m\n"}`,
		"in JSON, wrapped":                `{"message":"` + between(`\n    `) + `\nnote: x"}`,
		"in JSON, with a link":            `{"message":"\u001b]8;;http://x\u001b\\` + sdk + `\u001b]8;;\u001b\\"}`,
		"in JSON, quoted":                 `{"message":"cannot start: \"` + sdk + `\"."}`,
		"in JSON in JSON":                 `{"log":"{\"message\":\"\\u001b[31m` + between(`\\n`) + `\\n\"}"}`,
		"as Rust prints a string":         `Error("\u{1b}[31m` + between(`\n\u{1b}[1m`) + `\u{1b}[0m")`,
		"in hexadecimal escapes":          `Error("\x1b[31m` + between(`\x20`) + `\x1b[0m")`,
		"as Go prints a string":           quoted("\x1b[31m"+sdk+"\x1b[0m\n") + "\n",
		"said twice":                      sdk + "\n" + sdk + "\n",
		"after one without an end":        sdk[:60] + "\n" + sdk + "\n",
		"directly after another":          sdk + sdk + mock + "\n",
		"with a quote between blanks":     strings.ReplaceAll(sdk, " is", " ' is") + "\n",
		"not in UTF-8":                    "\xff\xfe" + sdk + "\xff",
		"with leading zeros":              filled(sdkText, testNonce, 0) + "00150\n",
		"in front of another number":      sdk + " 7\n",
		"in front of a letter":            sdk + "x",
	} {
		t.Run(name, func(t *testing.T) {
			got := answerTo(t, testNonce, text)
			got.Echoed = false // where it is cut off, say
			assert.Equal(t, Answer{Height: 149, Known: true}, got)
		})
	}
}

func TestTheLargestAndTheSmallestHeights(t *testing.T) {
	const tooLarge = "18446744073709551616"
	for expected, want := range map[string]Answer{
		"1":                    {Known: true},
		"2":                    {Known: true, Height: 1},
		"18446744073709551615": {Known: true, Height: math.MaxUint64 - 1},
		tooLarge:               {},
		tooLarge + "0":         {},
		"18446744073709551617": {},
		"18446744073709551620": {},
		"99999999999999999999": {},
		"0":                    {},
		"000":                  {},
		// A number that is too large is no height, whatever is left of it in 64 bits.
		"36893488147419103382":      {},
		strings.Repeat("1", 100000): {},
	} {
		for _, text := range []string{sdkText, mockText} {
			text = strings.ReplaceAll(filled(strings.ReplaceAll(text, "{E}", "E!"), testNonce, 0), "E!", expected)
			assert.Equal(t, want, answerTo(t, testNonce, text+"\n"), "expected height %.30s", expected)
		}
	}
}

func TestTextWithoutTheNonceIsNoAnswer(t *testing.T) {
	sdk := filled(sdkText, testNonce, 150)
	for name, text := range map[string]string{
		"nothing":                         "",
		"another nonce":                   filled(sdkText, testNonce+1, 150),
		"the heights of a run":            filled(sdkText, 101, 150),
		"another nonce, the mock's words": filled(mockText, 101, 150),
		"a digit before the nonce":        strings.ReplaceAll(sdk, "4871", "14871"),
		"a zero before the nonce":         strings.ReplaceAll(sdk, "4871", "04871"),
		"a digit behind the nonce":        strings.ReplaceAll(sdk, "8233,", "82330,"),
		"a digit less":                    strings.ReplaceAll(sdk, "8233,", "823,"),
		"a refused stop height":           "The requested stop_height 200 must be greater than the current_height 250",
		"an old answer as a memo":         strings.Repeat(filled(sdkText, testNonce-1, 150)+" ", 1000),
		"the placeholder":                 sdkText,
		"a blank in the nonce":            strings.ReplaceAll(sdk, "4871", "4871 "),
		"an escape that is no digit":      strings.ReplaceAll(sdk, "4871", `\4871`),
	} {
		t.Run(name, func(t *testing.T) {
			got := answerTo(t, testNonce, text+"\n")
			assert.Equal(t, name == "an escape that is no digit", got.Echoed)
			got.Echoed = false
			assert.Equal(t, Answer{}, got)
		})
	}
}

func TestOtherWordsAroundTheNonceAreAnEcho(t *testing.T) {
	sdk := filled(sdkText, testNonce, 150)
	for name, text := range map[string]string{
		"a setting":                 "starting at start_at_rollup_height=4871236540198233 ",
		"alone":                     "4871236540198233\n",
		"other words between":       strings.ReplaceAll(sdk, "different than", "not the"),
		"other words before":        strings.ReplaceAll(sdk, "requested", "wanted"),
		"other letters":             strings.ToLower(sdk),
		"no number":                 filled("The requested start_at_rollup_height: {N}, is different than expected height x", testNonce, 0),
		"a negative number":         filled("The requested start_at_rollup_height: {N}, is different than expected height -5", testNonce, 0),
		"no bracket":                filled("start_at_height ({N}) != current_height + 1 ({E}.", testNonce, 150),
		"what only looks coloured":  strings.ReplaceAll(sdk, " is", "\x1b[ is"),
		"a bracket behind a blank":  filled("start_at_height ({N}) != current_height + 1 ({E} )", testNonce, 150),
		"digits of another script":  strings.ReplaceAll(sdk, "150", "١٥٠"),
		"a sentence in a command":   "4871236540198233 \x1b]8;;" + sdk + "\a",
		"a sentence with a control": strings.ReplaceAll(sdk, "different", "dif\x00ferent"),
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, Answer{Echoed: true}, answerTo(t, testNonce, text+"\n"))
		})
	}
	t.Run("beside an answer", func(t *testing.T) {
		text := "4871236540198233\n" + sdk + "\n"
		assert.Equal(t, Answer{Height: 149, Known: true, Echoed: true}, answerTo(t, testNonce, text))
	})
	t.Run("not in a sentence whose number is too large", func(t *testing.T) {
		assert.Equal(t, Answer{}, answerTo(t, testNonce, sdk+strings.Repeat("0", 20)+"\n"))
	})
	t.Run("not the expected height", func(t *testing.T) {
		text := filled(sdkText, testNonce, testNonce)
		assert.Equal(t, Answer{Height: testNonce - 1, Known: true}, answerTo(t, testNonce, text+"\n"))
	})
}

// A node that logs its arguments and then fails has not said that it does not understand them.
func TestCommandLineOfTheNodeIsNoEcho(t *testing.T) {
	for _, text := range []string{
		"rollup --start-at-rollup-height 4871236540198233 --stop-at-rollup-height 20\n",
		"rollup --start-at-rollup-height=4871236540198233\n",
		`args: ["--start-at-rollup-height", "4871236540198233"]` + "\n",
		"Args { start_at_rollup_height: Some(4871236540198233), stop_at_rollup_height: None }\n",
		"\x1b[1m--start-at-rollup-height\x1b[0m\n  4871236540198233\n",
	} {
		assert.Equal(t, Answer{}, answerTo(t, testNonce, text), text)
		assert.Equal(t, Answer{Echoed: true}, answerTo(t, testNonce, text+"4871236540198233?\n"), text)
	}
}

// What ends too early says nothing yet, neither a height nor an echo.
func TestTornSentenceIsNoAnswerYet(t *testing.T) {
	for _, text := range []string{sdkText + "\n", mockText} {
		text = filled(text, testNonce, 150)
		q := NewQuestion(testNonce)
		for i := range len(text) {
			assert.Equal(t, Answer{}, q.Answer(), "after %q", text[:i])
			write(t, q.Stdout(), text[i:i+1])
		}
		assert.Equal(t, Answer{Height: 149, Known: true}, q.Answer())
	}
}

func TestTwoHeightsContradictEachOther(t *testing.T) {
	first, second := filled(sdkText, testNonce, 150)+"\n", filled(mockText, testNonce, 151)+"\n"
	assert.Equal(t, Answer{Contradicts: true}, answerTo(t, testNonce, first+second))
	assert.Equal(t, Answer{Contradicts: true}, answerTo(t, testNonce, first+second+first), "nothing brings the answer back")

	q := NewQuestion(testNonce)
	write(t, q.Stdout(), first)
	assert.Equal(t, Answer{Height: 149, Known: true}, q.Answer())
	write(t, q.Stderr(), second+strconv.Itoa(testNonce)+"\n")
	assert.Equal(t, Answer{Contradicts: true, Echoed: true}, q.Answer())
	echo := strconv.Itoa(testNonce) + "\n"
	assert.Equal(t, Answer{Contradicts: true, Echoed: true}, answerTo(t, testNonce, echo+first+second))
}

func TestStreamsAreReadSeparately(t *testing.T) {
	q := NewQuestion(testNonce)
	text := filled(sdkText, testNonce, 150) + "\n"
	write(t, q.Stdout(), text[:40])
	write(t, q.Stderr(), text[40:])
	assert.Equal(t, Answer{}, q.Answer(), "half a sentence on each")
	write(t, q.Stdout(), text[40:])
	assert.Equal(t, Answer{Height: 149, Known: true}, q.Answer())
	write(t, q.Stderr(), text)
	assert.Equal(t, Answer{Height: 149, Known: true}, q.Answer(), "the same on both")
}

func TestMegabytesAroundTheSentenceDoNoHarm(t *testing.T) {
	noise := strings.Repeat("   0: std::rt::lang_start_internal at /rustc/4871236540/library/std/src/rt.rs:159 \x1b]8;;x\n", 20000)
	q := NewQuestion(testNonce)
	for range 3 {
		write(t, q.Stdout(), noise)
	}
	write(t, q.Stdout(), filled(sdkText, testNonce, 150)+"\n")
	for range 3 {
		write(t, q.Stdout(), noise)
	}
	write(t, q.Stdout(), strings.Repeat("x", 1<<20)+strings.Repeat("\x1b]", 1<<20)+strings.Repeat(`\`, 1<<20)+strings.Repeat("\xf0", 1<<20))
	assert.Equal(t, Answer{Height: 149, Known: true}, q.Answer())
	assert.Less(t, cap(q.stdout.recent), 1000, "what is kept of a stream is bounded")
}

func TestBothStreamsAndTheAnswerMayBeUsedAtOnce(t *testing.T) {
	q := NewQuestion(testNonce)
	var writers sync.WaitGroup
	for _, w := range []io.Writer{q.Stdout(), q.Stderr()} {
		writers.Go(func() {
			for range 200 {
				if _, err := io.WriteString(w, filled(sdkText, testNonce, 150)+"\n"); err != nil {
					t.Error(err)
				}
				if a := q.Answer(); a != (Answer{Height: 149, Known: true}) {
					t.Errorf("read %+v", a)
				}
			}
		})
	}
	writers.Wait()
}

func TestEverySentenceNamesTheNonceBeforeTheExpectedHeight(t *testing.T) {
	for _, text := range sentences {
		before, rest, foundNonce := strings.Cut(text, "{N}")
		between, after, foundExpected := strings.Cut(rest, "{E}")
		require.True(t, foundNonce && foundExpected, text)
		assert.NotEmpty(t, before, text)
		assert.False(t, isDigit(before[len(before)-1]) || isDigit(between[0]) || isDigit(between[len(between)-1]), text)
		assert.False(t, after != "" && isDigit(after[0]), text)
		words := newWords()
		words.put([]byte(before + between + after))
		assert.Equal(t, before+between+after, words.String(), "what is removed from a text must not be in the table")
	}
}

// No entry of the table ends like this one, but the next one may.
func TestSentenceMayContinueBehindTheExpectedHeight(t *testing.T) {
	for text, want := range map[string]bool{
		" 150 is due": true, " 150 is du": false, " 150 is": false, " 150 was due": false, " 150 5is due": false, " 150 is 5due": false, " is due": false,
	} {
		s, complete := sentence{between: " ", after: " is due"}, false
		for i, continues := 0, true; i < len(text) && continues; i++ {
			continues, complete = s.next(text[i])
		}
		assert.Equal(t, want, complete, text)
		if complete {
			assert.EqualValues(t, 150, s.expected.value)
		}
	}
}

func TestAskedNodeIsQuietAndStillHeard(t *testing.T) {
	assert.Equal(t, []string{"NO_COLOR=1", "RUST_BACKTRACE=0", "RUST_LOG=error"}, QuestionEnv())
}

// words collects the plain text that a stream is searched for.
type words struct {
	strings.Builder
	put func([]byte)
}

func newWords() *words {
	w := &words{}
	w.put = newPlainText(dropQuotes(foldBlanks(func(r rune) { fmt.Fprintf(w, "%c", r) })))
	return w
}
