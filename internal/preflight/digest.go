package preflight

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// digests computes the SHA-256 of binaries and remembers it for as long as the file is the same. A node binary has
// hundreds of megabytes: read ahead, it costs the hand-over nothing.
type digests struct {
	mu    sync.Mutex
	known map[string]digest
}

type digest struct {
	of  identity
	hex string
}

// identity is what tells a file from another one by the same name: a rename over it changes the inode, a write into it the
// change time, which nobody can set (stat(2)).
type identity struct {
	device, inode uint64
	size          int64
	changed       unix.Timespec
}

func identityOf(file *os.File) (identity, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &s); err != nil {
		return identity{}, fmt.Errorf("cannot look at %s: %w", file.Name(), err)
	}
	return identity{s.Dev, s.Ino, s.Size, s.Ctim}, nil
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
	id, err := identityOf(file)
	if err != nil {
		return "", err
	}
	if have, ok := d.known[path]; ok && have.of == id {
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
	d.known[path] = digest{id, sum}
	return sum, nil
}
