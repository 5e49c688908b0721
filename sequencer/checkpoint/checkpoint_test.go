package checkpoint

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const someDigest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

// at is a time as the files have it.
func at(day int) time.Time { return time.Date(2026, 3, day, 5, 6, 7, 89e6, time.UTC) }

// fullCheckpoint has every key that is written.
func fullCheckpoint() Checkpoint {
	height := uint64(1<<64 - 1)
	stamp := fullStamp()
	return Checkpoint{
		VersionIndex: 2, BinaryPath: "/v2/rollup", MigrationCompleted: true, Phase: PhaseRunning, Height: &height, Stamped: true,
		BinarySHA256: someDigest, Answers: []string{someDigest},
		History: []Entry{
			{
				VersionIndex: 0, Name: "v0", BinaryPath: "/v0/rollup", BinarySHA256: someDigest, StopHeight: 100,
				Proof: ProofDurable, CompletedAt: at(1),
			},
			{
				VersionIndex: 1, Name: "osaka", BinaryPath: "/v1/rollup", StopHeight: 200, Proof: ProofWord,
				Migration: &MigrationRecord{BegunAt: at(2), CompletedAt: at(3), Runs: 2},
			},
			{VersionIndex: 2, BinaryPath: "/v2/rollup", Migration: &MigrationRecord{}},
		},
		Stamp:     &stamp,
		UpdatedAt: at(4),
	}
}

const fullText = `{
  "version_index": 2,
  "binary_path": "/v2/rollup",
  "migration_completed": true,
  "phase": "running",
  "height": 18446744073709551615,
  "stamped": true,
  "binary_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
  "answers": [
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
  ],
  "history": [
    {
      "version_index": 0,
      "name": "v0",
      "binary_path": "/v0/rollup",
      "binary_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
      "stop_height": 100,
      "proof": "durable height",
      "completed_at": "2026-03-01T05:06:07.089Z"
    },
    {
      "version_index": 1,
      "name": "osaka",
      "binary_path": "/v1/rollup",
      "stop_height": 200,
      "proof": "a person's word",
      "migration": {
        "begun_at": "2026-03-02T05:06:07.089Z",
        "completed_at": "2026-03-03T05:06:07.089Z",
        "runs": 2
      }
    },
    {
      "version_index": 2,
      "binary_path": "/v2/rollup",
      "migration": {
        "runs": 0
      }
    }
  ],
  "stamp": {
    "version_index": 1,
    "name": "osaka",
    "start_height": 101,
    "stop_height": 200,
    "binary_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    "migration": "completed",
    "hook": true,
    "complete": true,
    "updated_at": "2026-03-05T05:06:07.089Z"
  },
  "updated_at": "2026-03-04T05:06:07.089Z"
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
  "phase": "running"
}
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, err := Encode(test.c)
			require.NoError(t, err)
			assert.Equal(t, test.want, string(text))
			back, err := Parse(text)
			require.NoError(t, err)
			assert.Equal(t, test.c, back)
		})
	}
}

func TestCheckpointSurvivesARoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Checkpoint){
		"unchanged":             func(*Checkpoint) {},
		"migration begun":       func(c *Checkpoint) { c.Phase, c.MigrationCompleted = PhaseMigrating, false },
		"finished":              func(c *Checkpoint) { c.Phase = PhaseFinished },
		"finishing previous":    func(c *Checkpoint) { c.Phase, c.MigrationCompleted = PhaseFinishingPrevious, false },
		"of the reference":      func(c *Checkpoint) { *c = Checkpoint{VersionIndex: 7, BinaryPath: "b"} },
		"odd path":              func(c *Checkpoint) { c.BinaryPath = "/日本/<a&b>/\"q\"\n\\\x00\u2028" },
		"slack":                 func(c *Checkpoint) { c.History[1].Proof = ProofSlack },
		"a proof of before":     func(c *Checkpoint) { c.History[1].Proof = ProofHeight },
		"largest height":        func(c *Checkpoint) { c.History[1].StopHeight = 1<<64 - 1 },
		"height 0":              func(c *Checkpoint) { c.Height = new(uint64) },
		"height not known":      func(c *Checkpoint) { c.Height = nil },
		"stamp beside a state":  func(c *Checkpoint) { c.Stamp = nil },
		"stamp of a first node": func(c *Checkpoint) { c.Stamp = &Stamp{Name: "v0"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := fullCheckpoint()
			change(&c)
			text, err := Encode(c)
			require.NoError(t, err)
			back, err := Parse(text)
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
			text, err := Encode(c)
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
		"as serde writes it": `{"version_index":1,"binary_path":"/v1/rollup"}`,
		"pretty":             "{\n  \"version_index\": 1,\n  \"binary_path\": \"/v1/rollup\"\n}",
		"other order, CR LF": "\r\n{\"binary_path\":\"/v1/rollup\",\r\n\"version_index\":1}\r\n",
		"null counts as unset": `{"version_index":1,"binary_path":"/v1/rollup","phase":null,"history":null,"updated_at":null,"started":null,
			"height":null,"stamp":null,"answers":null}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse([]byte(text))
			require.NoError(t, err)
			assert.Equal(t, want, c)
		})
	}
	t.Run("with its later key", func(t *testing.T) {
		c, err := Parse([]byte(`{"version_index":1,"binary_path":"/v1/rollup","migration_completed":true}`))
		require.NoError(t, err)
		want.MigrationCompleted = true
		assert.Equal(t, want, c)
	})
}

func TestCheckpointOfAnEarlierVersionOfThisProgramIsAccepted(t *testing.T) {
	const text = `{
  "version_index": 2, "binary_path": "/v2", "migration_completed": false, "phase": "finishing_previous", "started": false,
  "history": [
    {"version_index": 0, "name": "v0", "binary_path": "/v0", "stop_height": 100, "proof": "durable height", "completed_at": "2026-03-01T05:06:07.089Z"},
    {"version_index": 1, "binary_path": "/v1", "stop_height": 200, "proof": "last height read"},
    {"version_index": 0, "binary_path": "/v0-again", "stop_height": 110, "proof": "height slack"},
    {"version_index": 1, "binary_path": "/v1-again", "stop_height": 210, "proof": "durable height"},
    {"version_index": 0, "binary_path": "/v0-at-last", "stop_height": 120, "proof": "durable height"}
  ],
  "updated_at": "2026-03-04T05:06:07.089Z"
}`
	c, err := Parse([]byte(text))
	require.NoError(t, err)
	assert.Equal(t, Checkpoint{
		VersionIndex: 2, BinaryPath: "/v2", Phase: PhaseFinishingPrevious, Started: new(bool),
		History: []Entry{
			{VersionIndex: 0, BinaryPath: "/v0-at-last", StopHeight: 120, Proof: ProofDurable},
			{VersionIndex: 1, BinaryPath: "/v1-again", StopHeight: 210, Proof: ProofDurable},
		},
		UpdatedAt: at(4),
	}, c, "the newest entry of a version counts")
	written, err := Encode(c)
	require.NoError(t, err)
	assert.NotContains(t, string(written), "started", "it is only read")
}

// tornText holds parse against every beginning of text, as a file that was not written atomically may be left.
func tornText[T any](t *testing.T, text string, parse func([]byte) (T, error)) {
	t.Helper()
	whole, err := parse([]byte(text))
	require.NoError(t, err)
	end := len(strings.TrimSpace(text))
	for n := range len(text) {
		got, err := parse([]byte(text[:n]))
		switch {
		case n >= end: // only the line end is lost
			require.NoError(t, err)
			require.Equal(t, whole, got)
		case n == 0:
			require.EqualError(t, err, "the file is empty")
		default:
			require.EqualError(t, err, "the file is torn: it ends in the middle of the JSON text", "after %d bytes", n)
			require.Zero(t, got)
		}
		// A power cut can also leave the length, with NUL bytes for what was not written.
		got, err = parse([]byte(text[:n] + strings.Repeat("\x00", len(text)-n)))
		require.EqualError(t, err, "the file is torn: it has NUL bytes, as after a power cut", "after %d bytes", n)
		require.Zero(t, got)
	}
}

func TestCheckpointTornAtAnyByteIsNeverRead(t *testing.T) {
	for name, text := range map[string]string{"ours": fullText, "the reference's": `{"version_index":12,"binary_path":"/v1/rollup"}`} {
		t.Run(name, func(t *testing.T) { tornText(t, text, Parse) })
	}
}

func TestCheckpointIsReadStrictly(t *testing.T) {
	good := func(more string) string { return `{"version_index": 1, "binary_path": "/b"` + more + `}` }
	const no = "the file is not a checkpoint: "
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"white space", " \n\t\r\n", "the file is empty"},
		{"NUL bytes", "\x00\x00\x00\x00", "the file is torn: it has NUL bytes, as after a power cut"},
		{"no JSON", "version: 1", "line 1, column 1: not valid JSON: invalid character 'v' looking for beginning of value"},
		{"a byte order mark", "\uFEFF" + good(""), "line 1, column 1: not valid JSON: invalid character 'ï' looking for beginning of value"},
		{"not UTF-8", good(`, "phase": "` + "\xfc" + `"`), "line 1, column 53: not valid JSON: the byte 0xfc is not UTF-8"},
		{"a list", "[]", no + "line 1, column 1: checkpoint is a list, want an object"},
		{"a number", "17", no + "line 1, column 1: checkpoint is a number, want an object"},
		{"null", "null", no + "line 1, column 1: checkpoint is a null, want an object"},
		{"the plan", `{"versions": []}`, no + `3 problems:
  line 1, column 2: checkpoint: unknown key
  line 1, column 1: checkpoint: "version_index" is missing
  line 1, column 1: checkpoint: "binary_path" is missing`},
		{"the stamp", stampText, no + `5 problems:
  line 3, column 3: checkpoint: unknown key
  line 4, column 3: checkpoint: unknown key "start_height" (did you mean "height"?)
  line 5, column 3: checkpoint: unknown key "stop_height" (did you mean "height"?)
  line 6, column 3: checkpoint: unknown key
  line 1, column 1: checkpoint: "binary_path" is missing`},
		{"no index", `{"binary_path": "/b"}`, no + `line 1, column 1: checkpoint: "version_index" is missing`},
		{"no path", "\n" + `{"version_index": 1}`, no + `line 2, column 1: checkpoint: "binary_path" is missing`},
		{"null index", `{"version_index": null, "binary_path": "/b"}`, no + `line 1, column 1: checkpoint: "version_index" is missing`},
		{"empty path", `{"version_index": 1, "binary_path": ""}`, "binary_path is empty"},
		{"negative index", `{"version_index": -1, "binary_path": "/b"}`, "version_index is -1, want 0 or more"},
		{"index as text", `{"version_index": "1", "binary_path": "/b"}`, no + "version_index has the wrong type: string"},
		{"index with a fraction", `{"version_index": 1.0, "binary_path": "/b"}`, no + "version_index has the wrong type: number 1.0"},
		{"huge index", `{"version_index": 9223372036854775808, "binary_path": "/b"}`, no + "version_index has the wrong type: number 9223372036854775808"},
		{"path as list", `{"version_index": 1, "binary_path": ["/b"]}`, no + "binary_path has the wrong type: array"},
		{"unknown key", good(`, "stage": "running"`), no + `line 1, column 43: checkpoint: unknown key "stage" (did you mean "stamp"?)`},
		{"misspelt key", good(`,` + "\n" + `"migration_complete": true`), no + `line 2, column 1: checkpoint: unknown key "migration_complete" (did you mean "migration_completed"?)`},
		{"key in capitals", good(`, "Started": true`), no + `line 1, column 43: checkpoint: unknown key "Started" (did you mean "started"?)`},
		{"index twice", good(`, "version_index": 2`), no + `line 1, column 43: checkpoint: key "version_index" is repeated`},
		{"index twice by an escape", good(`, "version\u005findex": 2`), no + `line 1, column 43: checkpoint: key "version_index" is repeated`},
		{"wrong phase", good(`, "phase": "stopped"`), `phase is "stopped", want "migrating", "running" or "finished"`},
		{"phase in capitals", good(`, "phase": "Running"`), `phase is "Running", want "migrating", "running" or "finished"`},
		{"phase as number", good(`, "phase": 1`), no + "phase has the wrong type: number"},
		{"negative height", good(`, "height": -1`), no + "height has the wrong type: number -1"},
		{"started as text", good(`, "started": "yes"`), no + "started has the wrong type: string"},
		{"answers as text", good(`, "answers": "abc"`), no + "answers has the wrong type: string"},
		{"a time that is none", good(`, "updated_at": "yesterday"`), no + `a time in it is invalid`},
		{"nobody before the first", `{"version_index": 0, "binary_path": "/v0", "phase": "finishing_previous"}`, `phase is "finishing_previous", which is not possible for version 0, nor once the version was started or migrated`},
		{"previous not complete, but started", good(`, "phase": "finishing_previous", "started": true`), `phase is "finishing_previous", which is not possible for version 0, nor once the version was started or migrated`},
		{"migrating and migrated", good(`, "phase": "migrating", "migration_completed": true`), `phase is "migrating" but migration_completed is true: they exclude each other`},
		{"history as object", good(`, "history": {}`), no + "history has the wrong type: object"},
		{"history of numbers", good(`, "history": [1]`), no + "line 1, column 55: history is a number, want an object"},
		{"history with null", good(`, "history": [null]`), no + "line 1, column 55: history is a null, want an object"},
		{"history of no version", good(`, "history": [{"name": "v0"}]`), no + `line 1, column 55: history: "version_index" is missing`},
		{"history of a later version", good(`, "history": [{"version_index": 2}]`), "history has version_index 2, want 0 to 1"},
		{"history of a negative version", good(`, "history": [{"version_index": -1}]`), "history has version_index -1, want 0 to 1"},
		{"history with a negative height", good(`, "history": [{"version_index": 0, "stop_height": -1}]`), no + "history.stop_height has the wrong type: number -1"},
		{"history with an unknown key", good(`, "history": [{"version_index": 0, "stop": 1}]`), no + `line 1, column 76: history: unknown key`},
		{"history with a key twice", good(`, "history": [{"version_index": 0, "version_index": 1}]`), no + `line 1, column 76: history: key "version_index" is repeated`},
		{"migration as text", good(`, "history": [{"version_index": 0, "migration": "begun"}]`), no + `line 1, column 89: migration is a string, want an object`},
		{"migration with an unknown key", good(`, "history": [{"version_index": 0, "migration": {"runs": 1, "run": 2}}]`), no + `line 1, column 101: migration: unknown key "run" (did you mean "runs"?)`},
		{"migration without runs", good(`, "history": [{"version_index": 0, "migration": {}}]`), no + `line 1, column 89: migration: "runs" is missing`},
		{"migration with negative runs", good(`, "history": [{"version_index": 0, "migration": {"runs": -1}}]`), "history has a migration of version 0 with -1 runs, want 0 or more"},
		{"stamp as text", good(`, "stamp": "v1"`), no + "line 1, column 52: stamp is a string, want an object"},
		{"stamp without a key", good(`, "stamp": {"version_index": 1, "name": "v1", "stop_height": 0}`), no + `line 1, column 52: stamp: "start_height" is missing`},
		{"stamp with a wrong value", good(`, "stamp": {"version_index": -1, "name": "v1", "start_height": 0, "stop_height": 0}`), "the stamp's version_index is -1, want 0 or more"},
		{"trailing text", good("") + " x", `line 1, column 43: the file continues after its end`},
		{"two checkpoints", good("") + "\n" + good(""), `line 2, column 1: the file continues after its end`},
		{"a longer one that was overwritten in place", good("") + `h": "/v1/rollup"}`, `line 1, column 42: the file continues after its end`},
		{"too long", good(strings.Repeat(" ", limit)), "the text is longer than 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := Parse([]byte(test.text))
			require.EqualError(t, err, test.want)
			assert.Zero(t, c)
		})
	}
}

func TestCheckpointThatCouldNotBeReadBackIsNotWritten(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Checkpoint)
		want   string
	}{
		"no path":         {func(c *Checkpoint) { c.BinaryPath = "" }, "binary_path is empty"},
		"wrong phase":     {func(c *Checkpoint) { c.Phase = "stopped" }, `phase is "stopped", want "migrating", "running" or "finished"`},
		"wrong stamp":     {func(c *Checkpoint) { c.Stamp.Migration = "due" }, `the stamp's migration is "due", want "begun" or "completed"`},
		"too long":        {func(c *Checkpoint) { c.BinaryPath = strings.Repeat("b", limit) }, "the text is longer than 1048576 bytes"},
		"no such a time":  {func(c *Checkpoint) { c.UpdatedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "cannot write it as JSON: "},
		"omitted":         {func(c *Checkpoint) { c.HistoryOmitted = -1 }, "history_omitted is -1, want 0 to 2147483647"},
		"a later history": {func(c *Checkpoint) { c.VersionIndex = 1 }, "history has version_index 2, want 0 to 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := fullCheckpoint()
			test.change(&c)
			text, err := Encode(c)
			require.ErrorContains(t, err, "cannot write the checkpoint: "+test.want)
			assert.Nil(t, text)
		})
	}
}

func TestOldestHistoryIsLeftOutOfACheckpointThatIsTooLong(t *testing.T) {
	const versions = 300
	c := Checkpoint{VersionIndex: versions - 1, BinaryPath: "/b"}
	for i := range versions {
		c.History = append(c.History, Entry{VersionIndex: i, BinaryPath: fmt.Sprintf("/%s/%d", strings.Repeat("d", 10000), i)})
	}
	text, err := Encode(c)
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), limit)
	back, err := Parse(text)
	require.NoError(t, err)
	left := len(back.History)
	assert.Equal(t, c.History[versions-left:], back.History, "the newest stay")
	assert.Equal(t, versions-left, back.HistoryOmitted, "nobody takes it for the whole history")
	assert.Len(t, c.History, versions, "the caller's stay as they are")

	back.History = append(back.History, c.History[:100]...)
	text, err = Encode(back)
	require.NoError(t, err)
	again, err := Parse(text)
	require.NoError(t, err)
	assert.Equal(t, len(back.History)-len(again.History)+back.HistoryOmitted, again.HistoryOmitted, "what was left out before counts")
	back.HistoryOmitted = math.MaxInt32
	text, err = Encode(back)
	require.NoError(t, err)
	_, err = Parse(text)
	require.NoError(t, err)

	text, err = Encode(c)
	require.NoError(t, err)
	one, err := Encode(Checkpoint{VersionIndex: versions, BinaryPath: "/b", History: c.History[:1]})
	require.NoError(t, err)
	assert.Greater(t, len(text)+len(one), limit, "no more are left out than must be")
}

func TestHistoryIsFoundByVersion(t *testing.T) {
	c := fullCheckpoint()
	got, known := c.Entry(1)
	assert.True(t, known)
	assert.Equal(t, "osaka", got.Name)
	_, known = c.Entry(3)
	assert.False(t, known)
}

func TestCloneSharesNothing(t *testing.T) {
	c := fullCheckpoint()
	c.Started = new(bool)
	c.History = append(make([]Entry, 0, 8), c.History...) // with room to append in place
	c.Answers = append(make([]string, 0, 8), c.Answers...)
	one, two := c.Clone(), c.Clone()
	assert.Equal(t, c, one)
	one.History = append(one.History, Entry{VersionIndex: 3})
	one.Answers = append(one.Answers, "one")
	two.History = append(two.History, Entry{VersionIndex: 4})
	two.Answers = append(two.Answers, "two")
	two.Answers[0], two.History[0].StopHeight, two.History[1].Migration.Runs = "other", 7, 7
	*two.Height, *two.Started, two.Stamp.Name = 7, true, "other"
	assert.Equal(t, 3, one.History[3].VersionIndex)
	assert.Equal(t, "one", one.Answers[1])
	want := fullCheckpoint()
	want.Started = new(bool)
	assert.Equal(t, want, c)
	assert.Equal(t, Checkpoint{}, Checkpoint{}.Clone(), "what is nil stays nil")
}
