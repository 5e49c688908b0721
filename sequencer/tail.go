package sequencer

import (
	"bytes"
	"strings"
	"sync"
)

// tailSize is how much of a process's stderr is kept, in bytes: a refusal is among the last things that a node writes, but
// a backtrace may follow it.
const tailSize = 64 << 10

// tail is a writer that keeps the end of what was written. The zero value is ready. Leftover processes may still write
// while it is read.
type tail struct {
	mu   sync.Mutex
	ring []byte
	next int  // where the next byte goes, once full
	full bool // ring has tailSize bytes
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if over := len(p) - tailSize; over > 0 {
		p = p[over:]
	}
	if !t.full {
		room := min(len(p), tailSize-len(t.ring))
		t.ring = append(t.ring, p[:room]...)
		p = p[room:]
		t.full = len(t.ring) == tailSize
	}
	for len(p) > 0 {
		copied := copy(t.ring[t.next:], p)
		t.next = (t.next + copied) % tailSize
		p = p[copied:]
	}
	return n, nil
}

// bytes gives what was kept, oldest first.
func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(bytes.Clone(t.ring[t.next:]), t.ring[:t.next]...)
}

// lastLines gives at most n of the last lines that are not blank, for a message.
func (t *tail) lastLines(n int) string {
	var lines []string
	for line := range strings.Lines(string(t.bytes())) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
