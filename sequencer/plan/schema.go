package plan

import (
	"compress/flate"
	"io"
	"strings"
)

// Schemas gives the JSON Schemas (draft 2020-12) of a plan in one file and of the version.json of a folder. They are for
// editors: the reader of this package decides, and it sees more, such as heights that do not follow each other. The
// program has them packed, because they are one fifth of the size then.
func Schemas() (manager, version string) {
	text, _ := io.ReadAll(flate.NewReader(strings.NewReader(packedSchemas))) // a test reads it, too
	manager, version, _ = strings.Cut(string(text), "\x00")
	return manager, version
}
