package sequencer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// digests computes the SHA-256 of binaries and remembers it for as long as the file is the same. A node binary has
// hundreds of megabytes: read ahead, it costs the hand-over nothing.
type digests struct {
	mu    sync.Mutex
	known map[string]digest
}

type digest struct {
	size     int64
	modified time.Time
	hex      string
}

// of gives the digest in hex of the file at path. It blocks where another goroutine computes one.
func (d *digests) of(path string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the binary: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("cannot read the binary: %w", err)
	}
	if have, ok := d.known[path]; ok && have.size == info.Size() && have.modified.Equal(info.ModTime()) {
		return have.hex, nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", fmt.Errorf("cannot read the binary %s: %w", path, err)
	}
	sum := hex.EncodeToString(hash.Sum(nil))
	if d.known == nil {
		d.known = map[string]digest{}
	}
	d.known[path] = digest{info.Size(), info.ModTime(), sum}
	return sum, nil
}
