package sovereign

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The text that a reader sees, by regular expressions over the whole of it.
var (
	controls = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x00-\x1f\x{9c}]*(?:\x07|\x1b\\|\x{9c})?|[ -/]+[0-~]?|[0-~]|)`)
	escapeds = regexp.MustCompile(`\\(?:[nrtfv"'` + "`" + `\\/]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|u\{[0-9a-fA-F]{1,6}\})` +
		`|\\(?:u[0-9a-fA-F]{0,3}|u\{[0-9a-fA-F]{0,6}|x[0-9a-fA-F]?)?\z`)
	marks  = regexp.MustCompile("[\"'`‘’‚‛“”„‟‹›«»]")
	blanks = regexp.MustCompile(`[\s\pZ\v\x{85}]+`)
)

// plainByPattern returns the words of a text. What may become something else with the next byte is left out.
func plainByPattern(text []byte) string {
	for n := len(text) - 1; n >= 0 && n >= len(text)-utf8.UTFMax; n-- {
		if utf8.RuneStart(text[n]) {
			if !utf8.FullRune(text[n:]) {
				text = text[:n]
			}
			break
		}
	}
	plain := controls.ReplaceAllString(string([]rune(string(text))), "")
	for range escapeLevels {
		plain = escapeds.ReplaceAllStringFunc(plain, meaningByName)
		plain = controls.ReplaceAllString(plain, "")
	}
	return blanks.ReplaceAllString(marks.ReplaceAllString(plain, ""), " ")
}

// meaningByName is what an escape means, nothing for the beginning of one.
func meaningByName(escape string) string {
	const letters, meanings = "nrtfv", "\n\r\t\f\v"
	digits := strings.Trim(escape, `\ux{}`)
	switch {
	case escape == `\`:
		return ""
	case strings.Contains(letters, escape[1:2]):
		return meanings[strings.Index(letters, escape[1:2]):][:1]
	case escape[1] != 'u' && escape[1] != 'x':
		return escape[1:]
	case len(escape) == len(`\x1b`) && escape[1] == 'x', len(escape) == len(`\u001b`) && escape[2] != '{', strings.HasSuffix(escape, "}"):
		n, err := strconv.ParseUint(digits, 16, 32)
		if err != nil {
			panic(err)
		}
		return string(rune(n))
	}
	return ""
}

// patterns has one for each sentence: the nonce, the expected height, and what follows it, nothing at the end of a
// text.
var patterns = func() (patterns []*regexp.Regexp) {
	const number = `([0-9]+)`
	for _, s := range sentences {
		s = strings.Replace(regexp.QuoteMeta(s), `\{N\}`, number, 1)
		before, after, _ := strings.Cut(s, `\{E\}`)
		if after == "" {
			after = `[^0-9]`
		}
		patterns = append(patterns, regexp.MustCompile(before+number+`(`+after+`|\z)`))
	}
	return patterns
}()

// answerByPattern reads a whole stream with regular expressions and nothing else.
// ownArgument is what comes before the nonce on the node's own command line.
var ownArgument = regexp.MustCompile(`(--start-at-rollup-height(=|,? )|start_at_rollup_height: Some\()$`)

func answerByPattern(nonce uint64, text []byte) (heights map[uint64]bool, echoed bool) {
	heights = map[uint64]bool{}
	plain, digits := plainByPattern(text), strconv.FormatUint(nonce, 10)
	inside := map[int]bool{} // where the nonce is part of a sentence
	for i, s := range sentences {
		for from := 0; ; {
			m := patterns[i].FindStringSubmatchIndex(plain[from:])
			if m == nil {
				break
			}
			part := func(group int) string { return plain[from+m[2*group] : from+m[2*group+1]] }
			if part(1) == digits {
				inside[from+m[2]], inside[from+m[4]] = true, true
				expected, err := strconv.ParseUint(part(2), 10, 64)
				if err == nil && expected > 0 && part(3) != "" {
					heights[expected-1] = true
				}
			}
			from += m[0] + 1 // the next may begin with the byte behind this one's number
		}
		before, rest, _ := strings.Cut(s, "{N}")
		between, _, _ := strings.Cut(rest, "{E}")
		for cut := range between { // a sentence that ends too early
			if strings.HasSuffix(plain, before+digits+between[:cut]) {
				inside[len(plain)-cut-len(digits)] = true
			}
		}
		if strings.HasSuffix(plain, before+digits+between) {
			inside[len(plain)-len(between)-len(digits)] = true
		}
	}
	for at := range plain {
		if whole := strings.HasPrefix(plain[at:], digits) && (at == 0 || !isDigit(plain[at-1])); whole && !inside[at] {
			end := at + len(digits)
			if ownArgument.MatchString(plain[:at]) {
				continue
			}
			echoed = echoed || end < len(plain) && !isDigit(plain[end])
		}
	}
	return heights, echoed
}

func asAnswer(heights map[uint64]bool, echoed bool) Answer {
	a := Answer{Echoed: echoed, Contradicts: len(heights) > 1}
	for height := range heights {
		if len(heights) == 1 {
			a.Known, a.Height = true, height
		}
	}
	return a
}

// However the text is cut into pieces, the answer after each is the one of regular expressions over all of it so far;
// and whatever was written before, a sentence is found. {N} and {E} in a text are the nonce and the expected height.
func FuzzQuestion(f *testing.F) {
	for i, seed := range []string{
		"", sdkText + "\n", mockText, sdkText + mockText + "\n", "\x1b[31m" + strings.ReplaceAll(sdkText, " ", "\x1b[0m\n") + "\n",
		`{"message":"\u001b]8;;x\u001b\\` + sdkText + `\n"}`, `{"log":"{\"message\":\"\\u001b[31m` + sdkText + `\\n\"}"}`,
		"--start-at-rollup-height {N}\n", "\x1b[", "\x1b]8;;", `\u{1b`, "\xe2\x80", "\x1b\x1b(\x1b[1 ",
	} {
		f.Add([]byte(seed), uint64(i), uint64(150), uint8(i))
	}
	f.Fuzz(func(t *testing.T, template []byte, random, expected uint64, piece uint8) {
		nonce := (random | 1<<47) & math.MaxInt64
		text := []byte(filled(string(template), nonce, expected))
		q := NewQuestion(nonce)
		looked := 0
		for read := 0; read < len(text); {
			next := min(read+1+int(piece), len(text))
			if _, err := q.Stdout().Write(text[read:next]); err != nil {
				t.Fatal(err)
			}
			if read = next; read < len(text) && read-looked < len(text)/8 {
				continue // the regular expressions take their time
			}
			looked = read
			if got, want := q.Answer(), asAnswer(answerByPattern(nonce, text[:read])); got != want {
				t.Fatalf("read %+v of %q, want %+v", got, text[:read], want)
			}
		}
		heights, _ := answerByPattern(nonce, append(text[:len(text):len(text)], '\n'))
		if expected > 0 {
			heights[expected-1] = true
		}
		for _, last := range []string{sdkText, mockText} {
			if _, err := q.Stdout().Write([]byte("\n" + filled(last, nonce, expected) + "\n")); err != nil {
				t.Fatal(err)
			}
			got, want := q.Answer(), asAnswer(heights, q.Answer().Echoed)
			if got != want {
				t.Fatalf("read %+v of %q and a sentence, want %+v", got, text, want)
			}
		}
	})
}

// No text is an answer that was written by somebody who does not know the nonce, with any number in its place.
func FuzzQuestionWithoutNonce(f *testing.F) {
	for _, seed := range []string{sdkText, mockText, sdkText + mockText, "\x1b[31m{N}", `"{N}\u00{N}"`} {
		f.Add([]byte(seed+"\n"), uint64(101), uint64(150))
	}
	f.Fuzz(func(t *testing.T, template []byte, guess, expected uint64) {
		text := []byte(filled(string(template), guess, expected))
		sum := sha256.Sum256(text) // nobody finds a text that contains a number made from its own digest
		q := NewQuestion((binary.BigEndian.Uint64(sum[:]) | 1<<47) & math.MaxInt64)
		for range 2 {
			if _, err := q.Stderr().Write(text); err != nil {
				t.Fatal(err)
			}
		}
		if got := q.Answer(); got != (Answer{}) {
			t.Fatalf("read %+v of %q", got, text)
		}
	})
}
