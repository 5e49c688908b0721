package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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

// stamp tells a file from any other, and from itself after a change: whoever writes to it, or puts another one in its
// place, changes one of these. The time of a change (ctime) cannot be set.
type stamp struct {
	device, inode     uint64
	size              int64
	modified, changed unix.Timespec
}

func stampOf(info fs.FileInfo) stamp {
	s, _ := info.Sys().(*syscall.Stat_t)
	return stamp{uint64(s.Dev), s.Ino, s.Size, unix.Timespec(s.Mtim), unix.Timespec(s.Ctim)} //nolint:unconvert // the types differ between machines
}

// tick is more than the time between two of the kernel's clock ticks, by which files are stamped: a file that changed
// within the last one may change again and keep its stamp.
const tick = 20 * time.Millisecond

// hashed is what was read of an open file.
type hashed struct {
	stamp stamp
	hex   string
	// settled: the file was the same before and after it was read, and has not changed just now.
	settled bool
}

// hashOpen reads the whole file, from its beginning to its end, and gives its SHA-256 in hex. It ends when ctx does.
func hashOpen(ctx context.Context, file *os.File) (hashed, error) {
	before, err := file.Stat()
	if err != nil {
		return hashed{}, fmt.Errorf("cannot be read: %w", err)
	}
	h := hashed{stamp: stampOf(before)}
	h.settled = time.Since(time.Unix(h.stamp.changed.Unix())) > tick
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
			return hashed{}, fmt.Errorf("cannot be read: %w", err)
		}
	}
	after, err := file.Stat()
	h.settled = h.settled && err == nil && stampOf(after) == h.stamp
	h.hex = hex.EncodeToString(hash.Sum(nil))
	return h, nil
}

// hashes remembers the digests of files for as long as they are the same, by whatever name. The zero value is ready, for
// several goroutines. While it reads a file it holds nobody up: two who ask for the same one at once both read it.
type hashes struct {
	mu    sync.Mutex
	known map[inode]hashed
}

// inode is the number of a file on its device.
type inode struct{ device, number uint64 }

// of gives the SHA-256 in hex of a regular file that was opened just now. fresh reads it even where it is known.
func (h *hashes) of(ctx context.Context, file *os.File, fresh bool) (string, error) {
	info, err := file.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot be read: %w", err)
	case !info.Mode().IsRegular():
		return "", errNotRegular
	}
	is := stampOf(info)
	key := inode{is.device, is.inode}
	h.mu.Lock()
	known, have := h.known[key]
	h.mu.Unlock()
	if have && !fresh && known.stamp == is {
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
