package strictjson

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDocumentIsOneJSONValueInUTF8(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"an object", "\r\n\t {\"a\": 1}\n", ""},
		{"a number", "17", ""},
		{"empty", "", "the file is empty"},
		{"white space", " \n\t\r\n", "the file is empty"},
		{"NUL bytes", "\x00\x00", "the file is torn: it has NUL bytes, as after a power cut"},
		{"NUL bytes at the end", "{}\x00", "the file is torn: it has NUL bytes, as after a power cut"},
		{"torn in an object", `{"a":`, "the file is torn: it ends in the middle of the JSON text"},
		{"torn in a string", `["a`, "the file is torn: it ends in the middle of the JSON text"},
		{"a byte order mark", "\uFEFF{}", "line 1, column 1: not valid JSON: invalid character 'ï' looking for beginning of value"},
		{"not UTF-8", "{\"ü\": 1,\n\"ü\xfc\": 2}", "line 2, column 3: not valid JSON: the byte 0xfc is not UTF-8"},
		{"a comment", "[\n 日 // \n]", "line 2, column 2: not valid JSON: invalid character 'æ' looking for beginning of value"},
		{"two values", "{}\n {}", `line 2, column 2: the file continues after its end`},
		{"white space that is none in JSON", "{}\v", `line 1, column 3: the file continues after its end`},
		{"text after the end", "{} and more than twenty bytes", `line 1, column 4: the file continues after its end`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := NewReader([]byte(test.text))
			v, ok := r.Document()
			if test.want == "" {
				require.True(t, ok)
				assert.Empty(t, r.Problems)
				assert.Equal(t, strings.TrimSpace(test.text), string(v.Raw))
				assert.True(t, strings.HasPrefix(test.text[v.At:], string(v.Raw)))
				return
			}
			assert.False(t, ok)
			assert.Zero(t, v)
			assert.EqualError(t, r.Problems, test.want)
		})
	}
}

// object reads text, which is an object.
func object(t *testing.T, text string, known []string) (*Reader, map[string]Value) {
	t.Helper()
	r := NewReader([]byte(text))
	v, ok := r.Document()
	require.True(t, ok)
	return r, r.Object(v, "it", known)
}

func TestObjectReportsKeysThatAreUnknownOrThereTwice(t *testing.T) {
	text := "{\n  \"name\": 1, \"nane\": 2,\n  \"n\\u0061me\" : [3], \"Name\": 4\n}"
	r, fields := object(t, text, []string{"name", "other"})
	assert.EqualError(t, r.Problems, `3 problems:
  line 2, column 14: it: unknown key "nane" (did you mean "name"?)
  line 3, column 3: it: key "name" is repeated
  line 3, column 22: it: unknown key "Name" (did you mean "name"?)`)
	assert.Len(t, fields, 3)
	assert.Equal(t, "[3]", string(fields["name"].Raw))

	r, fields = object(t, text, nil)
	assert.EqualError(t, r.Problems, `line 3, column 3: it: a key is repeated`, "any key is known, so none is")
	assert.Equal(t, "nothing", fields["absent"].Kind())
}

// A secret that took the place of a key is near to none of ours.
func TestKeyIsNamedOnlyIfItIsNearToAKnownOne(t *testing.T) {
	r, _ := object(t, `{"nane": 1, "TOKEN=s3cret": 2, "hunter2hunter2": 3, "hunter2hunter2": 4, "": 5}`, []string{"name", "other"})
	assert.Equal(t, Problems{
		`line 1, column 2: it: unknown key "nane" (did you mean "name"?)`,
		`line 1, column 13: it: unknown key`,
		`line 1, column 32: it: unknown key`,
		`line 1, column 53: it: a key is repeated`,
		`line 1, column 53: it: unknown key`,
		`line 1, column 74: it: unknown key`,
	}, r.Problems)
}

func TestValuesKnowTheirPlaceAndKind(t *testing.T) {
	text := `{"all": [ {"a":1} , [2],"three",4.5, true,false , null]}`
	r, fields := object(t, text, nil)
	var kinds []string
	for _, v := range r.Elements(fields["all"]) {
		assert.Equal(t, string(v.Raw), text[v.At:v.At+len(v.Raw)])
		kinds = append(kinds, v.AKind())
	}
	assert.Equal(t, []string{"an object", "a list", "a string", "a number", "a boolean", "a boolean", "a null"}, kinds)
	assert.Empty(t, r.Problems)
	assert.Empty(t, r.Elements(Value{Raw: json.RawMessage("[]")}))
}

// What Object and Elements give is the text again, each value at its place.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":1,"a":{"b":[1,2]}}`, "[\r\n{\"\\u0061\": \"\xff\"}]", `{"a" :[ ]} x`, "\uFEFF[]", "{\x00}", `{"\ud800":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := NewReader(text)
		v, ok := r.Document()
		if ok != (len(r.Problems) == 0) || ok && !json.Valid(text) {
			t.Fatalf("%t with the problems %v", ok, r.Problems)
		}
		if ok {
			walk(t, r, text, v)
		}
		for _, problem := range r.Problems {
			var line, column int
			if n, _ := fmt.Sscanf(problem, "line %d, column %d:", &line, &column); n != 2 {
				continue // it concerns the whole file
			}
			lines := strings.Split(string(text), "\n")
			if line < 1 || line > len(lines) || column < 1 || column > len(lines[line-1])+1 {
				t.Fatalf("%s: there is no such place in %q", problem, text)
			}
		}
	})
}

func walk(t *testing.T, r *Reader, text []byte, v Value) {
	t.Helper()
	if string(text[v.At:v.At+len(v.Raw)]) != string(v.Raw) {
		t.Fatalf("%s is not at %d in %s", v.Raw, v.At, text)
	}
	var inner []Value
	switch v.Kind() {
	case "object":
		var want map[string]json.RawMessage
		fields := r.Object(v, "it", nil)
		if err := json.Unmarshal(v.Raw, &want); err != nil || len(want) != len(fields) {
			t.Fatalf("%d fields in %s: %v", len(fields), v.Raw, err)
		}
		for _, field := range fields {
			inner = append(inner, field)
		}
	case "list":
		inner = r.Elements(v)
		var want []json.RawMessage
		if err := json.Unmarshal(v.Raw, &want); err != nil || len(want) != len(inner) {
			t.Fatalf("%d elements in %s: %v", len(inner), v.Raw, err)
		}
	case "nothing":
		t.Fatal("nothing was read as a value")
	}
	for _, v := range inner {
		walk(t, r, text, v)
	}
}
