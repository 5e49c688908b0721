// Package strictjson reads JSON that people write and that decisions depend on. It refuses what encoding/json accepts:
// an unknown or repeated key, text after the value, bytes that are not UTF-8. It reports every problem that it finds,
// each with the line and column that an editor shows. It knows nothing of what the keys mean.
//
// What is in a file by mistake may be a secret, and problems end up in logs and in the status of a pod. So a problem
// never quotes the file: for a value it says its kind and what is wanted, and it names a key only if that is known, or
// nearly so. The line and column lead to the rest.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problems is everything that is wrong with a text, an entry for each problem, ready to print.
type Problems []string

// Error joins the problems, one a line if there are several.
func (p Problems) Error() string {
	if len(p) == 1 {
		return p[0]
	}
	return fmt.Sprintf("%d problems:\n  %s", len(p), strings.Join(p, "\n  "))
}

// Reader reads a JSON text and knows the position of every value.
type Reader struct {
	text []byte
	// Problems are those found so far.
	Problems Problems
}

// NewReader reads text, a whole file.
func NewReader(text []byte) *Reader { return &Reader{text: text} }

// Value is a JSON value and where it starts in the text, in bytes. The zero Value is that of an absent key.
type Value struct {
	Raw json.RawMessage
	At  int
}

// Problem adds a problem at a byte of the text, with line and column as an editor counts them.
func (r *Reader) Problem(at int, format string, args ...any) {
	line := 1 + bytes.Count(r.text[:at], []byte("\n"))
	column := 1 + utf8.RuneCount(r.text[bytes.LastIndexByte(r.text[:at], '\n')+1:at])
	r.Problems = append(r.Problems, fmt.Sprintf("line %d, column %d: %s", line, column, fmt.Sprintf(format, args...)))
}

// Document reads the one JSON value that the text must be. It returns false, and adds a problem, if there is none.
func (r *Reader) Document() (Value, bool) {
	if at := invalidUTF8(r.text); at >= 0 {
		r.Problem(at, "not valid JSON: the byte 0x%02x is not UTF-8", r.text[at])
		return Value{}, false
	}
	if bytes.IndexByte(r.text, 0) >= 0 {
		return r.damaged("the file is torn: it has NUL bytes, as after a power cut")
	}
	var whole json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(r.text))
	var syntax *json.SyntaxError
	switch err := dec.Decode(&whole); {
	case errors.Is(err, io.EOF):
		return r.damaged("the file is empty")
	case errors.As(err, &syntax):
		// Offset counts the bytes read, the offending one included.
		r.Problem(max(0, min(int(syntax.Offset)-1, len(r.text))), "not valid JSON: %s", syntax)
		return Value{}, false
	case err != nil:
		return r.damaged("the file is torn: it ends in the middle of the JSON text")
	}
	if rest := bytes.Trim(r.text[dec.InputOffset():], " \t\r\n"); len(rest) > 0 { // what JSON takes for white space
		r.Problem(bytes.LastIndex(r.text, rest), "the file continues after its end")
		return Value{}, false
	}
	return Value{whole, int(dec.InputOffset()) - len(whole)}, true
}

// damaged adds a problem of the whole file, which has no position.
func (r *Reader) damaged(problem string) (Value, bool) {
	r.Problems = append(r.Problems, problem)
	return Value{}, false
}

// prefix begins a problem with the name of its object, if that has one.
func prefix(what string) string {
	if what == "" {
		return ""
	}
	return what + ": "
}

// Object splits an object into its fields. Repeated keys are problems and, if known is not nil, unknown keys too. what
// names the object in a problem, and may be empty.
func (r *Reader) Object(v Value, what string, known []string) map[string]Value {
	fields := map[string]Value{}
	dec := json.NewDecoder(bytes.NewReader(v.Raw))
	_, _ = dec.Token() // the brace: v was decoded as an object before
	for dec.More() {
		at := int(dec.InputOffset())
		at += v.At + bytes.IndexByte(v.Raw[at:], '"') // after a comma and white space
		token, _ := dec.Token()
		key, _ := token.(string)
		field := next(dec, v.At)
		isKnown := slices.Contains(known, key)
		switch _, twice := fields[key]; {
		case twice && isKnown:
			r.Problem(at, "%skey %q is repeated", prefix(what), key)
		case twice:
			r.Problem(at, "%sa key is repeated", prefix(what))
		}
		if known != nil && !isKnown {
			r.Problem(at, "%sunknown key%s", prefix(what), Misspelt(key, known))
		}
		fields[key] = field
	}
	return fields
}

// Elements splits a list into its elements.
func (r *Reader) Elements(list Value) []Value {
	var all []Value
	dec := json.NewDecoder(bytes.NewReader(list.Raw))
	_, _ = dec.Token() // the bracket
	for dec.More() {
		all = append(all, next(dec, list.At))
	}
	return all
}

// next takes one value from dec, whose text starts at base in the file. It cannot fail: the text was decoded before.
func next(dec *json.Decoder, base int) Value {
	var raw json.RawMessage
	_ = dec.Decode(&raw)
	return Value{raw, base + int(dec.InputOffset()) - len(raw)}
}

// invalidUTF8 is the position of the first byte that is not UTF-8, -1 for none. The JSON decoder would replace it, and
// a path would name another file.
func invalidUTF8(text []byte) int {
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// Kind names the type of the value in words: object, list, string, null, boolean, number, or nothing for the zero
// Value.
func (v Value) Kind() string {
	switch {
	case len(v.Raw) == 0:
		return "nothing"
	case v.Raw[0] == '{':
		return "object"
	case v.Raw[0] == '[':
		return "list"
	case v.Raw[0] == '"':
		return "string"
	case v.Raw[0] == 'n':
		return "null"
	case v.Raw[0] == 't' || v.Raw[0] == 'f':
		return "boolean"
	}
	return "number"
}

// AKind is Kind with its article.
func (v Value) AKind() string {
	if v.Kind() == "object" {
		return "an object"
	}
	return "a " + v.Kind()
}
