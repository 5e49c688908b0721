package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"rollup-entrypoint/internal/strictjson"
)

// limit bounds, in bytes, what is read and what is written: what was written can be read back.
const limit = 1 << 20

// errTooLong says that a text is longer than what would be read back.
var errTooLong = fmt.Errorf("the text is longer than %d bytes", limit)

// shape is what an object of our files may have.
type shape struct {
	// name is the object's key, and its name in a problem.
	name               string
	required, optional []string
	// within are the objects among its values, lists the lists of objects.
	within, lists []shape
}

// encode gives indented JSON.
func encode(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	switch {
	case err != nil:
		return nil, fmt.Errorf("it cannot be JSON: %w", err)
	case len(text) >= limit: // with the line end
		return nil, errTooLong
	}
	return append(text, '\n'), nil
}

// parse reads text, which has the shape s, into the value that into points to.
func parse(text []byte, s shape, into any) error {
	if len(text) > limit {
		return errTooLong
	}
	r := strictjson.NewReader(text)
	whole, ok := r.Document()
	if !ok {
		return r.Problems
	}
	s.check(r, whole)
	if len(r.Problems) > 0 {
		return fmt.Errorf("the file is no %s: %w", s.name, r.Problems)
	}
	err := json.Unmarshal(whole.Raw, into)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("the file is no %s: %s has the wrong type: %s", s.name, wrong.Field, wrong.Value)
	case err != nil:
		return fmt.Errorf("the file is no %s: %w", s.name, err)
	}
	return nil
}

// check finds keys that are missing, unknown, or there twice, of which the JSON decoder would take the last one. The
// types of other values are left to the decoder.
func (s shape) check(r *strictjson.Reader, v strictjson.Value) {
	if v.Kind() != "object" {
		r.Problem(v.At, "%s is %s, want an object", s.name, v.AKind())
		return
	}
	fields := r.Object(v, s.name, slices.Concat(s.required, s.optional))
	for _, key := range s.required {
		if kind := fields[key].Kind(); kind == "nothing" || kind == "null" {
			r.Problem(v.At, "%s: %q is missing", s.name, key)
		}
	}
	for _, inner := range s.within {
		if field := fields[inner.name]; field.Kind() != "nothing" && field.Kind() != "null" {
			inner.check(r, field)
		}
	}
	for _, inner := range s.lists {
		if list := fields[inner.name]; list.Kind() == "list" {
			for _, element := range r.Elements(list) {
				inner.check(r, element)
			}
		}
	}
}
