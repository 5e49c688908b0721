// Package hold keeps the file with which an operator holds the sequence: while it exists, nothing follows the end of a
// version. It reads, writes and removes that file. It knows nothing of versions and plans, and never decides what a hold
// means for them. A file that cannot be read is a hold, the one for everything: a mistake in it must not start anything.
package hold

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rollup-entrypoint/internal/durable"
	"rollup-entrypoint/internal/regularfile"
	"rollup-entrypoint/internal/strictjson"
)

// limit is how many bytes the file may have.
const limit = 64 << 10

// content is the text of the file. A file without any text is the same as one with an empty Before.
type content struct {
	// Before is the name of the version before which it holds; empty: it holds everything.
	Before    string    `json:"before"`
	CreatedAt time.Time `json:"created_at,omitzero"`
}

var shape = strictjson.Shape{Name: "hold", Required: []string{"before"}, Optional: []string{"created_at"}}

// Hold looks for the file at one path. It satisfies the sequence's interface of that name.
type Hold struct{ path string }

// New returns the Hold of the file at path, which need not exist.
func New(path string) *Hold { return &Hold{path} }

// File is the path of the file.
func (h *Hold) File() string { return h.path }

// Held reports whether the file is there, and before which version it holds; empty if before any. With an error, which
// names the file, it is there and holds before any version. It is cheap enough to be called several times a second.
func (h *Hold) Held() (held bool, before string, err error) {
	if !there(h.path) {
		return false, "", nil
	}
	text, err := regularfile.Read(h.path, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !there(h.path):
		return false, "", nil // it was removed between the two
	case err != nil:
		return true, "", fmt.Errorf("the hold file cannot be read: %w", err)
	}
	if before, err = parse(text); err != nil {
		return true, "", fmt.Errorf("the hold file %s: %w", h.path, err)
	}
	return true, before, nil
}

// there reports whether there is anything at path, even a symbolic link that leads nowhere. What cannot be found out
// counts as there.
func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func parse(text []byte) (before string, err error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return "", nil // as 'touch' makes it
	}
	r := strictjson.NewReader(text)
	whole, ok := r.Document()
	if ok {
		shape.Check(r, whole)
	}
	if len(r.Problems) > 0 {
		return "", r.Problems
	}
	var c content
	if json.Unmarshal(whole.Raw, &c) != nil { // its text would quote the file
		return "", errors.New(`the type of a value is wrong: want {"before": "NAME"}`)
	}
	return c.Before, nil
}

// Write makes the file one that holds before the version with this name, or everything if before is empty, in place of
// what is there. When it returns nil the file is durable.
func Write(path, before string) error {
	text, err := json.MarshalIndent(content{before, time.Now().UTC().Truncate(time.Second)}, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write the hold file: %w", err)
	}
	// The entrypoint's user must be able to read it, also if root writes it with a strict umask: what it cannot read
	// would hold everything.
	return durable.Replace(path, append(text, '\n'), func(file *os.File) error { return file.Chmod(0o644) })
}

// Remove removes the file, and the temporary files of killed calls of Write. removed is false if there was no file. When
// err is nil this is durable.
func Remove(path string) (removed bool, err error) {
	durable.RemoveTemporary(path)
	err = os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot remove the hold file: %w", err)
	}
	return true, durable.SyncDir(filepath.Dir(path))
}
