package sequencer

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const someDigest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

// fullCheckpoint has every key.
func fullCheckpoint() Checkpoint {
	return Checkpoint{
		VersionIndex: 2, BinaryPath: "/v2/rollup", MigrationCompleted: true, Phase: PhaseRunning, Started: true,
		BinarySHA256: someDigest,
		History: []Completed{
			{
				VersionIndex: 0, Name: "v0", BinaryPath: "/v0/rollup", BinarySHA256: someDigest, StopHeight: 100,
				Proof: ProofHeight, CompletedAt: time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC),
			},
			{VersionIndex: 1, Name: "osaka", BinaryPath: "/v1/rollup", StopHeight: 200, Proof: ProofDurable},
		},
		UpdatedAt: time.Date(2026, 5, 6, 7, 8, 9, 123e6, time.UTC),
	}
}

const fullText = `{
  "version_index": 2,
  "binary_path": "/v2/rollup",
  "migration_completed": true,
  "phase": "running",
  "started": true,
  "binary_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
  "history": [
    {
      "version_index": 0,
      "name": "v0",
      "binary_path": "/v0/rollup",
      "binary_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
      "stop_height": 100,
      "proof": "last height read",
      "completed_at": "2026-03-04T05:06:07.089Z"
    },
    {
      "version_index": 1,
      "name": "osaka",
      "binary_path": "/v1/rollup",
      "stop_height": 200,
      "proof": "durable height"
    }
  ],
  "updated_at": "2026-05-06T07:08:09.123Z"
}
`

func TestCheckpointTextIsMadeToBeReadAndEdited(t *testing.T) {
	for _, test := range []struct {
		name string
		c    Checkpoint
		want string
	}{
		{"every key", fullCheckpoint(), fullText},
		{
			"a first start",
			Checkpoint{BinaryPath: "/v0/rollup", Phase: PhaseRunning},
			`{
  "version_index": 0,
  "binary_path": "/v0/rollup",
  "migration_completed": false,
  "phase": "running",
  "started": false
}
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, err := EncodeCheckpoint(test.c)
			require.NoError(t, err)
			assert.Equal(t, test.want, string(text))
			back, err := ParseCheckpoint(text)
			require.NoError(t, err)
			assert.Equal(t, test.c, back)
		})
	}
}

func TestCheckpointSurvivesARoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Checkpoint){
		"unchanged":             func(*Checkpoint) {},
		"migration begun":       func(c *Checkpoint) { c.Phase, c.MigrationCompleted = PhaseMigrating, false },
		"migration due":         func(c *Checkpoint) { c.Phase, c.MigrationCompleted, c.Started = PhaseMigrating, false, false },
		"finished":              func(c *Checkpoint) { c.Phase = PhaseFinished },
		"of the reference":      func(c *Checkpoint) { *c = Checkpoint{VersionIndex: 7, BinaryPath: "b"} },
		"odd path":              func(c *Checkpoint) { c.BinaryPath = "/日本/<a&b>/\"q\"\n\\\u2028" },
		"slack":                 func(c *Checkpoint) { c.History[1].Proof = ProofSlack },
		"largest height":        func(c *Checkpoint) { c.History[1].StopHeight = 1<<64 - 1 },
		"a version twice":       func(c *Checkpoint) { c.History = append(c.History, c.History[0]) },
		"finished last version": func(c *Checkpoint) { c.History = append(c.History, Completed{VersionIndex: 2}) },
	} {
		t.Run(name, func(t *testing.T) {
			c := fullCheckpoint()
			change(&c)
			text, err := EncodeCheckpoint(c)
			require.NoError(t, err)
			back, err := ParseCheckpoint(text)
			require.NoError(t, err)
			assert.Equal(t, c, back)
		})
	}
}

// referenceCheckpoint reads text as sov-rollup-manager's serde does: two keys, both required, others ignored.
func referenceCheckpoint(t *testing.T, text []byte) (uint64, string) {
	t.Helper()
	var file map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &file))
	var index *uint64
	var path *string
	require.NoError(t, json.Unmarshal(file["version_index"], &index))
	require.NoError(t, json.Unmarshal(file["binary_path"], &path))
	require.NotNil(t, index)
	require.NotNil(t, path)
	return *index, *path
}

func TestReferenceReadsOurCheckpoint(t *testing.T) {
	for name, c := range map[string]Checkpoint{
		"every key":   fullCheckpoint(),
		"first start": {BinaryPath: "/v0/rollup", Phase: PhaseRunning},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := EncodeCheckpoint(c)
			require.NoError(t, err)
			index, path := referenceCheckpoint(t, text)
			assert.EqualValues(t, c.VersionIndex, index)
			assert.Equal(t, c.BinaryPath, path)
		})
	}
}

func TestCheckpointOfTheReferenceIsAccepted(t *testing.T) {
	want := Checkpoint{VersionIndex: 1, BinaryPath: "/v1/rollup"}
	for name, text := range map[string]string{
		"as serde writes it":   `{"version_index":1,"binary_path":"/v1/rollup"}`,
		"pretty":               "{\n  \"version_index\": 1,\n  \"binary_path\": \"/v1/rollup\"\n}",
		"other order, CR LF":   "\r\n{\"binary_path\":\"/v1/rollup\",\r\n\"version_index\":1}\r\n",
		"null counts as unset": `{"version_index":1,"binary_path":"/v1/rollup","phase":null,"history":null,"updated_at":null,"started":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseCheckpoint([]byte(text))
			require.NoError(t, err)
			assert.Equal(t, want, c)
		})
	}
	t.Run("with its later key", func(t *testing.T) {
		c, err := ParseCheckpoint([]byte(`{"version_index":1,"binary_path":"/v1/rollup","migration_completed":true}`))
		require.NoError(t, err)
		want.MigrationCompleted = true
		assert.Equal(t, want, c)
	})
}

func TestCheckpointTornAtAnyByteIsNeverRead(t *testing.T) {
	for name, text := range map[string]string{"ours": fullText, "the reference's": `{"version_index":12,"binary_path":"/v1/rollup"}`} {
		t.Run(name, func(t *testing.T) {
			whole, err := ParseCheckpoint([]byte(text))
			require.NoError(t, err)
			end := len(strings.TrimSpace(text))
			for n := range len(text) {
				c, err := ParseCheckpoint([]byte(text[:n]))
				switch {
				case n >= end: // only the line end is lost
					require.NoError(t, err)
					require.Equal(t, whole, c)
				case n == 0:
					require.EqualError(t, err, "the file is empty")
				default:
					require.EqualError(t, err, "the file is torn: it ends in the middle of the JSON text", "after %d bytes", n)
					require.Zero(t, c)
				}
				// A power cut can also leave the length, with NUL bytes for what was not written.
				c, err = ParseCheckpoint([]byte(text[:n] + strings.Repeat("\x00", len(text)-n)))
				require.ErrorContains(t, err, "NUL bytes", "after %d bytes", n)
				require.Zero(t, c)
			}
		})
	}
}

func TestCheckpointIsReadStrictly(t *testing.T) {
	good := func(more string) string { return `{"version_index": 1, "binary_path": "/b"` + more + `}` }
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"white space", " \n\t\r\n", "the file is empty"},
		{"NUL bytes", "\x00\x00\x00\x00", "the file is torn: it has NUL bytes, as after a power cut"},
		{"no JSON", "version: 1", "the file is no checkpoint: invalid character 'v' looking for beginning of value"},
		{"a byte order mark", "\uFEFF" + good(""), "the file is no checkpoint: invalid character 'ï' looking for beginning of value"},
		{"a list", "[]", "the file is no checkpoint: it is a list, want an object"},
		{"a number", "17", "the file is no checkpoint: it is a number, want an object"},
		{"null", "null", "the file is no checkpoint: it is a null, want an object"},
		{"an empty object", "{}", `the file is no checkpoint: "version_index" is missing`},
		{"the plan", `{"versions": []}`, `the file is no checkpoint: line 1, column 2: the checkpoint: unknown key "versions"`},
		{"no index", `{"binary_path": "/b"}`, `the file is no checkpoint: "version_index" is missing`},
		{"no path", `{"version_index": 1}`, `the file is no checkpoint: "binary_path" is missing`},
		{"null index", `{"version_index": null, "binary_path": "/b"}`, `the file is no checkpoint: "version_index" is missing`},
		{"empty path", `{"version_index": 1, "binary_path": ""}`, "binary_path is empty"},
		{"negative index", `{"version_index": -1, "binary_path": "/b"}`, "version_index is -1, want 0 or more"},
		{"index as text", `{"version_index": "1", "binary_path": "/b"}`, "the file is no checkpoint: version_index has the wrong type: string"},
		{"index with a fraction", `{"version_index": 1.0, "binary_path": "/b"}`, "the file is no checkpoint: version_index has the wrong type: number 1.0"},
		{"huge index", `{"version_index": 9223372036854775808, "binary_path": "/b"}`, "the file is no checkpoint: version_index has the wrong type: number 9223372036854775808"},
		{"path as list", `{"version_index": 1, "binary_path": ["/b"]}`, "the file is no checkpoint: binary_path has the wrong type: array"},
		{"unknown key", good(`, "stage": "running"`), `the file is no checkpoint: line 1, column 43: the checkpoint: unknown key "stage"`},
		{"misspelt key", good(`,` + "\n" + `"migration_complete": true`), `the file is no checkpoint: line 2, column 1: the checkpoint: unknown key "migration_complete" (did you mean "migration_completed"?)`},
		{"key in capitals", good(`, "Started": true`), `the file is no checkpoint: line 1, column 43: the checkpoint: unknown key "Started" (did you mean "started"?)`},
		{"index twice", good(`, "version_index": 2`), `the file is no checkpoint: line 1, column 43: the checkpoint: key "version_index" stands twice`},
		{"wrong phase", good(`, "phase": "stopped"`), `phase is "stopped", want "migrating", "finishing_previous", "running" or "finished"`},
		{"phase in capitals", good(`, "phase": "Running"`), `phase is "Running", want "migrating", "finishing_previous", "running" or "finished"`},
		{"phase as number", good(`, "phase": 1`), "the file is no checkpoint: phase has the wrong type: number"},
		{"started as text", good(`, "started": "yes"`), "the file is no checkpoint: started has the wrong type: string"},
		{"a time that is none", good(`, "updated_at": "yesterday"`), `the file is no checkpoint: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"nobody before the first", `{"version_index": 0, "binary_path": "/v0", "phase": "finishing_previous"}`, `phase is "finishing_previous", but there is no version before version 0`},
		{"previous not complete, but started", `{"version_index": 1, "binary_path": "/v1", "phase": "finishing_previous", "started": true}`, `phase is "finishing_previous", but started or migration_completed is true: neither can be`},
		{"migrating and migrated", good(`, "phase": "migrating", "migration_completed": true`), `phase is "migrating" but migration_completed is true: only one of them can be`},
		{"history as object", good(`, "history": {}`), "the file is no checkpoint: history has the wrong type: object"},
		{"history of a later version", good(`, "history": [{"version_index": 2}]`), "history has version_index 2, want 0 to 1"},
		{"history of a negative version", good(`, "history": [{"version_index": -1}]`), "history has version_index -1, want 0 to 1"},
		{"history with a negative height", good(`, "history": [{"stop_height": -1}]`), "the file is no checkpoint: history.stop_height has the wrong type: number -1"},
		{"history with an unknown key", good(`, "history": [{"stop": 1}]`), `the file is no checkpoint: line 1, column 56: history: unknown key "stop"`},
		{"history with a key twice", good(`, "history": [{"stop_height": 1, "stop_height": 2}]`), `the file is no checkpoint: line 1, column 74: history: key "stop_height" stands twice`},
		{"trailing text", good("") + " x", `the file goes on after the checkpoint: "x"`},
		{"two checkpoints", good("") + "\n" + good(""), `the file goes on after the checkpoint: "{\"version_index\": 1,"`},
		{"a longer one that was overwritten in place", good("") + `h": "/v1/rollup"}`, `the file goes on after the checkpoint: "h\": \"/v1/rollup\"}"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseCheckpoint([]byte(test.text))
			require.EqualError(t, err, test.want)
			assert.Zero(t, c)
		})
	}
}

func TestNewestEntryOfAVersionCounts(t *testing.T) {
	c := Checkpoint{History: []Completed{{VersionIndex: 0, StopHeight: 1}, {VersionIndex: 1, StopHeight: 2}, {VersionIndex: 0, StopHeight: 3}}}
	got, known := c.completed(0)
	assert.True(t, known)
	assert.EqualValues(t, 3, got.StopHeight)
	_, known = c.completed(2)
	assert.False(t, known)
}

func TestCloneDoesNotShareItsHistory(t *testing.T) {
	c := fullCheckpoint()
	c.History = append(make([]Completed, 0, 8), c.History...) // with room to append in place
	one, two := c.clone(), c.clone()
	one.History = append(one.History, Completed{VersionIndex: 3})
	two.History = append(two.History, Completed{VersionIndex: 4})
	two.History[0].StopHeight = 7
	assert.Equal(t, 3, one.History[2].VersionIndex)
	assert.Equal(t, fullCheckpoint(), c)
}

func FuzzParseCheckpoint(f *testing.F) {
	for _, seed := range []string{
		"", fullText, fullText[:len(fullText)/2], `{"version_index":1,"binary_path":"/v1/rollup"}`,
		`{"version_index":1,"version_index":2,"binary_path":"\ud800"}`, "{}\x00", `{"version_index":0,"binary_path":"b","updated_at":"0001-01-01T00:00:00+23:59"}`,
		`{"version_index":0,"binary_path":"b","history":[{}]}`,
	} {
		f.Add([]byte(seed), uint(40))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint) {
		c, err := ParseCheckpoint(text)
		if err != nil {
			if !reflect.DeepEqual(c, Checkpoint{}) {
				t.Fatalf("%+v with error %v", c, err)
			}
			return
		}
		if c.VersionIndex < 0 || c.BinaryPath == "" || c.Phase == PhaseMigrating && c.MigrationCompleted {
			t.Fatalf("accepted %+v", c)
		}
		checkKnownKeys(t, text)
		written, err := EncodeCheckpoint(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCheckpoint(written)
		if err != nil || !reflect.DeepEqual(atUTC(back), atUTC(c)) {
			t.Fatalf("%+v was written as %s and read as %+v: %v", c, written, back, err)
		}
		if index, path := referenceCheckpoint(t, written); index != uint64(c.VersionIndex) || path != c.BinaryPath {
			t.Fatalf("the reference reads %d, %q from %s", index, path, written)
		}
		for _, whole := range [][]byte{bytes.TrimSpace(text), bytes.TrimSpace(written)} {
			if torn := whole[:cut%uint(len(whole))]; !refusesCheckpoint(torn) {
				t.Fatalf("the torn %q was accepted", torn)
			}
			if twice := slices.Concat(whole, whole); !refusesCheckpoint(twice) {
				t.Fatalf("%q was accepted", twice)
			}
			if padded := append(whole[:len(whole):len(whole)], make([]byte, cut%4096+1)...); !refusesCheckpoint(padded) {
				t.Fatalf("%q was accepted, with NUL bytes at its end", padded)
			}
		}
	})
}

func refusesCheckpoint(text []byte) bool {
	_, err := ParseCheckpoint(text)
	return err != nil
}

// checkKnownKeys reads an accepted checkpoint without any type: its keys are ours, to the letter.
func checkKnownKeys(t *testing.T, text []byte) {
	t.Helper()
	var file map[string]any
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("accepted what is no JSON object: %v", err)
	}
	for key := range file {
		if !slices.Contains(checkpointKeys, key) {
			t.Fatalf("accepted the key %q", key)
		}
	}
	history, _ := file["history"].([]any)
	for _, entry := range history {
		fields, _ := entry.(map[string]any)
		for key := range fields {
			if !slices.Contains(completedKeys, key) {
				t.Fatalf("accepted the key %q in the history", key)
			}
		}
	}
}

// atUTC makes two checkpoints comparable that say the same: times in one zone, no history as nil.
func atUTC(c Checkpoint) Checkpoint {
	c = c.clone()
	c.UpdatedAt = c.UpdatedAt.UTC()
	for i := range c.History {
		c.History[i].CompletedAt = c.History[i].CompletedAt.UTC()
	}
	if len(c.History) == 0 {
		c.History = nil
	}
	return c
}
