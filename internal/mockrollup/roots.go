package mockrollup

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	rootsFile = "roots"
	// rootsKept is how many heights keep their root.
	rootsKept = 1 << 16
	// rootSize is a height and its root.
	rootSize = 8 + 32
)

// roots remembers the state root of each height, so that nodes can be compared at one that all of them have reached. It
// is a ring of records that include the height. It is written before the state: a root above the durable height is not
// valid yet. The root of a height is that of its block; a migration after it counts for the next height.
type roots struct {
	file  *os.File
	fsync bool
}

func openRoots(dir string, fsync bool) (*roots, error) {
	file, err := os.OpenFile(filepath.Join(dir, rootsFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the state roots: %w", err)
	}
	return &roots{file: file, fsync: fsync}, nil
}

// put records list, the roots of the heights starting with first.
func (r *roots) put(first uint64, list []string) error {
	for len(list) > 0 {
		at := first % rootsKept
		count := min(uint64(len(list)), rootsKept-at)
		if err := r.write(at, first, list[:count]); err != nil {
			return fmt.Errorf("cannot record the state root of height %d: %w", first, err)
		}
		first, list = first+count, list[count:]
	}
	if !r.fsync {
		return nil
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("cannot record the state roots: %w", err)
	}
	return nil
}

func (r *roots) write(at, first uint64, list []string) error {
	records := make([]byte, 0, len(list)*rootSize)
	for i, root := range list {
		digest, err := hex.DecodeString(strings.TrimPrefix(root, "0x"))
		if err != nil {
			return err
		}
		if len(digest) != rootSize-8 {
			return fmt.Errorf("%s is not a state root", root)
		}
		records = append(binary.BigEndian.AppendUint64(records, first+uint64(i)), digest...)
	}
	_, err := r.file.WriteAt(records, int64(at*rootSize))
	return err
}

// get returns the root of height, which the caller knows to be durable. It is false if the height is too old, or was
// written before roots were kept.
func (r *roots) get(height uint64) (string, bool) {
	var record [rootSize]byte
	if _, err := r.file.ReadAt(record[:], int64(height%rootsKept*rootSize)); err != nil {
		return "", false
	}
	// A hole looks like height 0: its root is not all zero.
	if binary.BigEndian.Uint64(record[:8]) != height || record == [rootSize]byte{} {
		return "", false
	}
	return "0x" + hex.EncodeToString(record[8:]), true
}

func (r *roots) close() { _ = r.file.Close() }
