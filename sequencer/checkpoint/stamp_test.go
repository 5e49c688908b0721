package checkpoint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fullStamp has every key.
func fullStamp() Stamp {
	return Stamp{
		VersionIndex: 1, Name: "osaka", StartHeight: 101, StopHeight: 200, BinarySHA256: someDigest, Migration: MigrationCompleted,
		Hook: true, Complete: true, UpdatedAt: at(5),
	}
}

// stampText is a stamp with some of the keys.
const stampText = `{
  "version_index": 1,
  "name": "osaka",
  "start_height": 101,
  "stop_height": 0,
  "hook": true
}
`

func TestStampSurvivesARoundTrip(t *testing.T) {
	for name, test := range map[string]struct {
		stamp Stamp
		text  string
	}{
		"every key": {fullStamp(), `{
  "version_index": 1,
  "name": "osaka",
  "start_height": 101,
  "stop_height": 200,
  "binary_sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
  "migration": "completed",
  "hook": true,
  "complete": true,
  "updated_at": "2026-03-05T05:06:07.089Z"
}
`},
		"some keys": {Stamp{VersionIndex: 1, Name: "osaka", StartHeight: 101, Hook: true}, stampText},
		"a first version": {Stamp{Name: "v0", Migration: MigrationBegun}, `{
  "version_index": 0,
  "name": "v0",
  "start_height": 0,
  "stop_height": 0,
  "migration": "begun"
}
`},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := EncodeStamp(test.stamp)
			require.NoError(t, err)
			assert.Equal(t, test.text, string(text))
			back, err := ParseStamp(text)
			require.NoError(t, err)
			assert.Equal(t, test.stamp, back)
		})
	}
}

func TestStampTornAtAnyByteIsNeverRead(t *testing.T) { tornText(t, stampText, ParseStamp) }

func TestStampIsReadStrictly(t *testing.T) {
	good := func(more string) string {
		return `{"version_index": 1, "name": "v1", "start_height": 5, "stop_height": 9` + more + `}`
	}
	const no = "the file is not a stamp: "
	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"NUL bytes", "\x00\x00\x00\x00", "the file is torn: it has NUL bytes, as after a power cut"},
		{"no JSON", "14", no + "line 1, column 1: stamp is a number, want an object"},
		{"a checkpoint", `{"version_index": 1, "binary_path": "/b"}`, no + `4 problems:
  line 1, column 22: stamp: unknown key "binary_path" (did you mean "binary_sha256"?)
  line 1, column 1: stamp: "name" is missing
  line 1, column 1: stamp: "start_height" is missing
  line 1, column 1: stamp: "stop_height" is missing`},
		{"no index", `{"name": "v1", "start_height": 5, "stop_height": 9}`, no + `line 1, column 1: stamp: "version_index" is missing`},
		{"null as a name", `{"version_index": 1, "name": null, "start_height": 5, "stop_height": 9}`, no + `line 1, column 1: stamp: "name" is missing`},
		{"negative index", `{"version_index": -1, "name": "v1", "start_height": 5, "stop_height": 9}`, "the stamp's version_index is -1, want 0 or more"},
		{"height as text", `{"version_index": 1, "name": "v1", "start_height": "5", "stop_height": 9}`, no + "start_height has the wrong type: string"},
		{"unknown key", good(`, "finished": true`), no + `line 1, column 73: stamp: unknown key`},
		{"key in capitals", good(`, "Hook": true`), no + `line 1, column 73: stamp: unknown key "Hook" (did you mean "hook"?)`},
		{"key twice", good(`, "name": "v2"`), no + `line 1, column 73: stamp: key "name" is repeated`},
		{"wrong migration", good(`, "migration": "due"`), `the stamp's migration is "due", want "begun" or "completed"`},
		{"two stamps", good("") + good(""), `line 1, column 72: the file continues after its end`},
		{"too long", good(strings.Repeat(" ", limit)), "the text is longer than 1048576 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			stamp, err := ParseStamp([]byte(test.text))
			require.EqualError(t, err, test.want)
			assert.Zero(t, stamp)
		})
	}
}

func TestStampThatCouldNotBeReadBackIsNotWritten(t *testing.T) {
	for name, test := range map[string]struct {
		stamp Stamp
		want  string
	}{
		"negative index":  {Stamp{VersionIndex: -1}, "the stamp's version_index is -1, want 0 or more"},
		"wrong migration": {Stamp{Migration: "due"}, `the stamp's migration is "due", want "begun" or "completed"`},
		"too long":        {Stamp{Name: strings.Repeat("n", limit)}, "the text is longer than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := EncodeStamp(test.stamp)
			require.EqualError(t, err, "cannot write the stamp: "+test.want)
			assert.Nil(t, text)
		})
	}
}
