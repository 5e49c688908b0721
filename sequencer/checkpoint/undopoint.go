package checkpoint

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"rollup-entrypoint/internal/strictjson"
)

// UndoFile is the name of the description of an undo point, in its directory. A directory without it is none: the copy
// is not complete, or it is a state that was set aside when an undo point was put back.
const UndoFile = "rollup-undo.json"

// UndoMethod is how an undo point was made.
type UndoMethod string

const (
	// UndoReflink: the file system shares the blocks of the files with those of the state until one of the two changes
	// (FICLONE, ioctl_ficlone(2)).
	UndoReflink UndoMethod = "reflink"
	// UndoCopy: the files were copied.
	UndoCopy UndoMethod = "copy"
)

// UndoPoint describes a copy of the state from before a version, or another binary of the same version, touched it.
type UndoPoint struct {
	// ID is a random text, new for each undo point. The stamp of the version that followed names it.
	ID string `json:"id"`
	// Stamp is that of the copied state.
	Stamp Stamp `json:"stamp"`
	// To is the version that was about to touch the state.
	To UndoTarget `json:"to"`
	// Height is the durable height of the copied state, in blocks; nil if it was not known.
	Height *uint64 `json:"height,omitempty"`
	// Checkpoint is the text of the checkpoint at that time; empty if there was none.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Method is how the copy was made, and Bytes the size of its files.
	Method    UndoMethod `json:"method"`
	Bytes     int64      `json:"bytes"`
	CreatedAt time.Time  `json:"created_at"`

	// Path is the directory. It is not in the file: the directory may be renamed.
	Path string `json:"-"`
}

// UndoTarget names a version as a stamp does.
type UndoTarget struct {
	VersionIndex int    `json:"version_index"`
	Name         string `json:"name"`
	StartHeight  uint64 `json:"start_height"`
	BinarySHA256 string `json:"binary_sha256,omitempty"`
}

// EncodeUndoPoint gives the text of the description: indented JSON, for people to read. If it would be too long to be
// read back, the checkpoint's text is left out.
func EncodeUndoPoint(p UndoPoint) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("cannot describe the undo point: %w", err)
	}
	text, err := encode(p)
	if errors.Is(err, errTooLong) {
		p.Checkpoint = "" // the stamp counts, and a checkpoint that is ahead of it is corrected
		text, err = encode(p)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot describe the undo point: %w", err)
	}
	return text, nil
}

var undoShape = strictjson.Shape{
	Name:     "undo point",
	Required: []string{"id", "stamp", "to", "method", "bytes", "created_at"},
	Optional: []string{"height", "checkpoint"},
}

// ParseUndoPoint reads the text of a description, as strictly as Parse reads a checkpoint.
func ParseUndoPoint(text []byte) (UndoPoint, error) {
	var p UndoPoint
	if err := parse(text, undoShape, &p); err != nil {
		return UndoPoint{}, err
	}
	return p, nil
}

// ReadUndoPoint reads the description in the directory dir, which may be a storage directory; nil if there is none. One
// that is torn or foreign is an *UnreadableError.
func ReadUndoPoint(dir string) (*UndoPoint, error) {
	path := filepath.Join(dir, UndoFile)
	p, err := readAs(path, ParseUndoPoint)
	if err != nil {
		return nil, &UnreadableError{Path: path, Stamp: true, Err: err}
	}
	if p != nil {
		p.Path = dir
	}
	return p, nil
}

// halfPutBackName is the name in the stamp of a state that an undo point is replacing file by file, because its
// directory is a mount point and cannot be renamed.
const halfPutBackName = "half put back: start the entrypoint again to finish"

// HalfPutBack is the stamp of such a state. It names a version that no plan has, so nothing starts on a part of a state.
func HalfPutBack() Stamp {
	return Stamp{Name: halfPutBackName, StartHeight: math.MaxUint64, UpdatedAt: time.Now().UTC()}
}

// IsHalfPutBack reports whether the stamp is one of HalfPutBack.
func (s Stamp) IsHalfPutBack() bool {
	return s.Name == halfPutBackName && s.StartHeight == math.MaxUint64
}

// check finds values that no entrypoint writes.
func (p *UndoPoint) check() error {
	switch {
	case p.ID == "":
		return fmt.Errorf("the undo point has no id")
	case p.Method != UndoReflink && p.Method != UndoCopy:
		return fmt.Errorf("the undo point's method is %q, want %q or %q", p.Method, UndoReflink, UndoCopy)
	case p.Bytes < 0:
		return fmt.Errorf("the undo point has %d bytes", p.Bytes)
	}
	return p.Stamp.check()
}
