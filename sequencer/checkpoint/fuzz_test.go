package checkpoint

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"rollup-entrypoint/internal/strictjson"
)

// A checkpoint that is read is written and read as the same, sov-rollup-manager reads it, and nothing that is torn or
// has something behind it is read.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", fullText, fullText[:len(fullText)/2], `{"version_index":1,"binary_path":"/v1/rollup"}`,
		`{"version_index":1,"version_index":2,"binary_path":"\ud800"}`, "{}\x00", `{"version_index":0,"binary_path":"b","updated_at":"0001-01-01T00:00:00+23:59"}`,
		`{"version_index":1,"binary_path":"b","history":[{"version_index":1},{"version_index":0},{"version_index":1,"name":"newer"}]}`,
		`{"version_index":0,"binary_path":"b","history":[{}]}`, `{"version_index":0,"binary_path":"b","stamp":` + stampText + `}`,
	} {
		f.Add([]byte(seed), uint(40))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint) {
		c, err := Parse(text)
		if err != nil {
			if !reflect.DeepEqual(c, Checkpoint{}) {
				t.Fatalf("%+v with error %v", c, err)
			}
			return
		}
		if c.VersionIndex < 0 || c.BinaryPath == "" || c.Phase == PhaseMigrating && c.MigrationCompleted {
			t.Fatalf("accepted %+v", c)
		}
		for i := range c.History {
			if i > 0 && c.History[i-1].VersionIndex >= c.History[i].VersionIndex {
				t.Fatalf("the history is not in order: %+v", c.History)
			}
		}
		checkKnownKeys(t, text, checkpointShape)
		written, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(written)
		want := c.Clone()
		want.Started = nil
		if len(text) > limit/100 { // indented it may be too long
			want.History = want.History[max(0, len(want.History)-len(back.History)):]
			want.HistoryOmitted = back.HistoryOmitted
		}
		if err != nil || !reflect.DeepEqual(atUTC(back), atUTC(want)) {
			t.Fatalf("%+v was written as %s and read as %+v: %v", c, written, back, err)
		}
		if index, path := referenceCheckpoint(t, written); index != uint64(c.VersionIndex) || path != c.BinaryPath {
			t.Fatalf("the reference reads %d, %q from %s", index, path, written)
		}
		checkStrict(t, text, cut, Parse)
		checkStrict(t, written, cut, Parse)
	})
}

// A stamp that is read is written and read as the same, and nothing that is torn or has something behind it is read.
func FuzzParseStamp(f *testing.F) {
	for _, seed := range []string{
		"", stampText, stampText[:len(stampText)/2], fullText, "{}\x00", `{"version_index":0,"name":"","start_height":0,"stop_height":0,"migration":"begun"}`,
		`{"version_index":0,"name":"\ud800","start_height":18446744073709551615,"stop_height":0,"updated_at":"0001-01-01T00:00:00+23:59"}`,
	} {
		f.Add([]byte(seed), uint(40))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint) {
		stamp, err := ParseStamp(text)
		if err != nil {
			if stamp != (Stamp{}) {
				t.Fatalf("%+v with error %v", stamp, err)
			}
			return
		}
		if stamp.VersionIndex < 0 {
			t.Fatalf("accepted %+v", stamp)
		}
		checkKnownKeys(t, text, stampShape)
		written, err := EncodeStamp(stamp)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseStamp(written)
		back.UpdatedAt, stamp.UpdatedAt = back.UpdatedAt.UTC(), stamp.UpdatedAt.UTC()
		if err != nil || back != stamp {
			t.Fatalf("%+v was written as %s and read as %+v: %v", stamp, written, back, err)
		}
		checkStrict(t, text, cut, ParseStamp)
		checkStrict(t, written, cut, ParseStamp)
	})
}

// checkStrict wants that parse refuses the good text once it is torn, twice there, or padded.
func checkStrict[T any](t *testing.T, text []byte, cut uint, parse func([]byte) (T, error)) {
	t.Helper()
	whole := bytes.TrimSpace(text)
	for _, bad := range [][]byte{
		whole[:cut%uint(len(whole))],
		slices.Concat(whole, whole),
		slices.Concat(whole, make([]byte, cut%4096+1)),
	} {
		if _, err := parse(bad); err == nil {
			t.Fatalf("%q was accepted", bad)
		}
	}
}

// checkKnownKeys reads an accepted text without any type: its keys are those of the shape, to the letter.
func checkKnownKeys(t *testing.T, text []byte, s strictjson.Shape) {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatalf("accepted what is no JSON object: %v", err)
	}
	for key := range fields {
		if !slices.Contains(s.Required, key) && !slices.Contains(s.Optional, key) {
			t.Fatalf("accepted the key %q in the %s", key, s.Name)
		}
	}
	for _, inner := range s.Within {
		if field, there := fields[inner.Name]; there {
			checkKnownKeys(t, field, inner)
		}
	}
	for _, inner := range s.Lists {
		var elements []json.RawMessage
		if field, there := fields[inner.Name]; there {
			if err := json.Unmarshal(field, &elements); err != nil {
				t.Fatalf("accepted a %s that is no list: %v", inner.Name, err)
			}
		}
		for _, element := range elements {
			checkKnownKeys(t, element, inner)
		}
	}
}

// atUTC makes two checkpoints comparable that say the same: times in one zone, what is empty as nil.
func atUTC(c Checkpoint) Checkpoint {
	c = c.Clone()
	c.UpdatedAt = c.UpdatedAt.UTC()
	for i := range c.History {
		e := &c.History[i]
		e.CompletedAt = e.CompletedAt.UTC()
		if e.Migration != nil {
			e.Migration.BegunAt, e.Migration.CompletedAt = e.Migration.BegunAt.UTC(), e.Migration.CompletedAt.UTC()
		}
	}
	if c.Stamp != nil {
		c.Stamp.UpdatedAt = c.Stamp.UpdatedAt.UTC()
	}
	if len(c.History) == 0 {
		c.History = nil
	}
	if len(c.Answers) == 0 {
		c.Answers = nil
	}
	return c
}
