package sovereign

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a node writes is meant for a terminal, and its logger often wraps it into JSON. The functions here recover the
// words, one character at a time: each takes the characters of the one before it and holds back no more than a few.

// escapeLevels is how often text may have been quoted: in a JSON record, which may itself be quoted in JSON.
const escapeLevels = 2

// newPlainText returns a function that takes text in pieces of any size and passes its characters to next, without
// control sequences and with backslash escapes replaced. Bytes that are not UTF-8 become U+FFFD.
func newPlainText(next func(rune)) func(text []byte) {
	next = dropControlSequences(next)
	for range escapeLevels {
		next = dropControlSequences(replaceEscapes(next))
	}
	var torn []byte // the beginning of a character that the last piece did not complete
	return func(text []byte) {
		for len(torn) > 0 && len(text) > 0 {
			torn, text = append(torn, text[0]), text[1:]
			if utf8.FullRune(torn) {
				text = append(torn, text...)
				torn = nil
			}
		}
		for len(text) > 0 && utf8.FullRune(text) {
			r, size := utf8.DecodeRune(text)
			next(r)
			text = text[size:]
		}
		torn = append(torn, text...)
	}
}

// dropQuotes passes everything except quotation marks to next.
func dropQuotes(next func(rune)) func(rune) {
	return func(r rune) {
		switch r {
		case '"', '\'', '`', '‘', '’', '‚', '‛', '“', '”', '„', '‟', '‹', '›', '«', '»':
		default:
			next(r)
		}
	}
}

// foldBlanks passes one blank to next for any run of white space, including line ends.
func foldBlanks(next func(rune)) func(rune) {
	blank := false
	return func(r rune) {
		space := unicode.IsSpace(r) || r >= utf8.RuneSelf && unicode.Is(unicode.Z, r)
		switch {
		case !space:
			next(r)
		case !blank:
			next(' ')
		}
		blank = space
	}
}

const escape = '\x1b'

// dropControlSequences passes everything except control sequences, as ECMA-48 defines them, to next. A sequence that
// does not continue as it should has ended, and what follows is text again.
func dropControlSequences(next func(rune)) func(rune) {
	inside := outside
	return func(r rune) {
		var text bool
		if inside, text = inside.follow(r); text {
			next(r)
		}
	}
}

// sequence is the part of a control sequence that was read last.
type sequence int

const (
	outside       sequence = iota
	escaped                // ESC
	intermediates          // ESC and intermediate bytes such as blanks
	parameters             // ESC [ and parameters, such as those of a colour
	inner                  // ESC [, parameters and intermediate bytes
	command                // ESC ] and other commands with text, such as the target of a link
	commandEnds            // in a command, ESC: a backslash ends it
)

// follow takes the next character. It is text if it belongs to no sequence.
func (s sequence) follow(r rune) (now sequence, text bool) {
	switch {
	case s == outside && r != escape:
		return outside, true
	case s == command || s == commandEnds:
		return s.followCommand(r)
	case s == escaped && r == '[':
		return parameters, false
	case s == escaped && strings.ContainsRune("]PX^_", r):
		return command, false
	case s == parameters && '0' <= r && r <= '?':
		return parameters, false
	case (s == parameters || s == inner) && ' ' <= r && r <= '/':
		return inner, false
	case (s == parameters || s == inner) && '@' <= r && r <= '~':
		return outside, false
	case (s == escaped || s == intermediates) && ' ' <= r && r <= '/':
		return intermediates, false
	case (s == escaped || s == intermediates) && '0' <= r && r <= '~':
		return outside, false
	case r == escape:
		return escaped, false
	}
	return outside, true
}

// followCommand takes the next character of a command. BEL, ESC \ and ST end it. So does a line end, because otherwise
// a command without an end would hide everything after it.
func (s sequence) followCommand(r rune) (now sequence, text bool) {
	const bell, stringTerminator = '\a', '\u009c'
	switch {
	case s == commandEnds && r == '\\':
		return outside, false
	case s == commandEnds:
		return escaped.follow(r)
	case r == escape:
		return commandEnds, false
	case r == bell || r == stringTerminator:
		return outside, false
	case r < ' ':
		return outside, true
	}
	return command, false
}

// escapes has the meanings of the characters after a backslash that need no number.
var escapes = map[rune]rune{
	'n': '\n', 'r': '\r', 't': '\t', 'f': '\f', 'v': '\v', '"': '"', '\'': '\'', '`': '`', '\\': '\\', '/': '/',
}

// replaceEscapes passes to next what backslash escapes mean, in the forms of JSON and Rust. Anything else after a
// backslash is left as it is, above all digits: a number must not turn into another one.
func replaceEscapes(next func(rune)) func(rune) {
	var held []rune // the beginning of an escape
	begin := func(r rune) {
		if held = held[:0]; r == '\\' {
			held = append(held, r)
		} else {
			next(r)
		}
	}
	return func(r rune) {
		if len(held) == 0 {
			begin(r)
			return
		}
		meaning, complete := meaningOf(held, r)
		switch {
		case complete:
			held = held[:0]
			next(meaning)
		case continuesEscape(held, r):
			held = append(held, r)
		default:
			for _, h := range held {
				next(h)
			}
			begin(r)
		}
	}
}

// continuesEscape reports whether an escape may begin with the held characters and r.
func continuesEscape(held []rune, r rune) bool {
	switch n := len(held); {
	case n == 1:
		return r == 'u' || r == 'x'
	case n == 2 && held[1] == 'u' && r == '{':
		return true
	case n > 2 && held[2] == '{':
		return n < len(`\u{10ffff`) && isHex(r)
	}
	return isHex(r) // \u or \x, with fewer digits than it needs
}

// meaningOf returns the character that an escape stands for, if r completes it.
func meaningOf(held []rune, r rune) (meaning rune, complete bool) {
	n := len(held)
	switch {
	case n == 1:
		meaning, complete = escapes[r]
		return meaning, complete
	case n > 2 && held[2] == '{':
		if n == 3 || r != '}' {
			return 0, false
		}
		return character(held[3:]), true
	case held[1] == 'u' && n < len(`\uffff`)-1, held[1] == 'x' && n < len(`\xff`)-1, !isHex(r):
		return 0, false
	}
	return character(append(held[2:n:n], r)), true
}

func character(digits []rune) rune {
	n, err := strconv.ParseUint(string(digits), 16, 32)
	if err != nil || !utf8.ValidRune(rune(n)) {
		return utf8.RuneError
	}
	return rune(n)
}

func isHex(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F'
}
