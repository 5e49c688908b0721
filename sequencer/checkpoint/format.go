package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"

	"rollup-entrypoint/internal/strictjson"
)

// limit is how many bytes a file may have, both to be read and to be written: what was written can be read back.
const limit = 1 << 20

// errTooLong says that a text is too long to be read back.
var errTooLong = fmt.Errorf("the text is longer than %d bytes", limit)

func encode(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot write it as JSON: %w", err)
	case len(text) >= limit: // with the line end
		return nil, errTooLong
	}
	return append(text, '\n'), nil
}

// parse reads text, which has the given shape, into the value that into points to, and checks that.
func parse(text []byte, shape strictjson.Shape, into interface{ check() error }) error {
	if len(text) > limit {
		return errTooLong
	}
	r := strictjson.NewReader(text)
	whole, ok := r.Document()
	if !ok {
		return r.Problems
	}
	shape.Check(r, whole)
	if len(r.Problems) > 0 {
		return fmt.Errorf("the file is not a %s: %w", shape.Name, r.Problems)
	}
	err := json.Unmarshal(whole.Raw, into)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return fmt.Errorf("the file is not a %s: %s has the wrong type: %s", shape.Name, wrong.Field, wrong.Value)
	case err != nil: // its text would quote the file
		return fmt.Errorf("the file is not a %s: a time in it is invalid", shape.Name)
	}
	return into.check()
}
