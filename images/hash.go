package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hashChunk is how much of a file is in memory at once.
const hashChunk = 128 << 10

// Identity tells a file from any other, and from itself after a change: writing to it, or putting another file in its
// place, changes one of these. The time of the last change (ctime) cannot be set.
type Identity struct {
	device, inode     uint64
	size              int64
	modified, changed unix.Timespec
}

// IdentityOf gives the identity of the file that was looked at.
func IdentityOf(info fs.FileInfo) Identity {
	s, _ := info.Sys().(*syscall.Stat_t)
	return Identity{uint64(s.Dev), s.Ino, s.Size, unix.Timespec(s.Mtim), unix.Timespec(s.Ctim)} //nolint:unconvert // the types differ between machines
}

const (
	// tick is more than the time between two ticks of the kernel's clock for files.
	tick = 20 * time.Millisecond
	// coarseTick is that of a file system that keeps whole seconds, such as ext4 with small inodes, or every other one.
	coarseTick = 2 * time.Second
)

// Settled reports whether the next change of the file changes its identity: a file that changed within the last tick may
// change again and keep it.
func (id Identity) Settled() bool {
	limit := tick
	if id.changed.Nsec == 0 {
		limit += coarseTick
	}
	return time.Since(time.Unix(id.changed.Unix())) > limit
}

// hashed is what was read of an open file.
type hashed struct {
	identity Identity
	hex      string
	// settled: the file was the same before and after it was read, and has not changed just now.
	settled bool
}

// hashOpen reads the whole file, from its beginning to its end, and gives its SHA-256 in hex. It ends when ctx does.
func hashOpen(ctx context.Context, file *os.File) (hashed, error) {
	before, err := file.Stat()
	if err != nil {
		return hashed{}, err //nolint:wrapcheck // it names the operation and the file
	}
	h := hashed{identity: IdentityOf(before)}
	h.settled = h.identity.Settled()
	hash, chunk := sha256.New(), make([]byte, hashChunk)
	for {
		if err := ctx.Err(); err != nil {
			return hashed{}, err //nolint:wrapcheck // the caller knows why it ended it
		}
		n, err := file.Read(chunk)
		hash.Write(chunk[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return hashed{}, err //nolint:wrapcheck // it names the operation and the file
		}
	}
	after, err := file.Stat()
	h.settled = h.settled && err == nil && IdentityOf(after) == h.identity
	h.hex = hex.EncodeToString(hash.Sum(nil))
	return h, nil
}

// hashes remembers the digests of files for as long as they are the same, by whatever name. The zero value is ready,
// for several goroutines. While it reads a file it blocks nobody: if two goroutines ask for the same file at once, both
// read it.
type hashes struct {
	mu    sync.Mutex
	known map[inode]hashed
}

// inode is the number of a file on its device.
type inode struct{ device, number uint64 }

// of gives the SHA-256 in hex of a regular file. If fresh is set it is read even if it is known.
func (h *hashes) of(ctx context.Context, file *os.File, fresh bool) (string, error) {
	info, err := file.Stat()
	if err != nil {
		return "", err //nolint:wrapcheck // it names the operation and the file
	}
	is := IdentityOf(info)
	key := inode{is.device, is.inode}
	h.mu.Lock()
	known, have := h.known[key]
	h.mu.Unlock()
	if have && !fresh && known.identity == is {
		return known.hex, nil
	}
	now, err := hashOpen(ctx, file)
	if err != nil {
		return "", err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known == nil {
		h.known = map[inode]hashed{}
	}
	if now.settled {
		h.known[key] = now
	} else {
		delete(h.known, key)
	}
	return now.hex, nil
}
