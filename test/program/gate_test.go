package program

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Gates hold the program, a node or a migration at the moment at which it opens a file, until the test lets it continue.

// waiting is who waits at a gate.
type waiting struct {
	t     testing.TB
	letGo func() error
}

func (w *waiting) pass() {
	w.t.Helper()
	require.NoError(w.t, w.letGo())
}

// gate holds everybody but the test itself who opens a regular file, by a permission event of fanotify(7).
type gate struct {
	c      *chain
	path   string
	events *os.File

	mu     sync.Mutex
	queue  []*waiting
	isOpen bool
}

// newGate sets a gate before the file at path.
func newGate(c *chain, path string) *gate {
	c.t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err == nil {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, path)
	}
	if err != nil {
		missing(c.t, "this test needs root and fanotify(7) with permission events: %s", err)
	}
	g := &gate{c: c, path: path, events: os.NewFile(uintptr(fd), "fanotify")}
	go g.listen()
	c.t.Cleanup(func() { _ = g.events.Close() }) // which lets everybody through
	return g
}

// listen takes the events until the test ends.
func (g *gate) listen() {
	const size = int(unsafe.Sizeof(unix.FanotifyEventMetadata{}))
	all := make([]byte, 100*size)
	for {
		n, err := g.events.Read(all)
		if err != nil {
			return
		}
		for at := 0; at+size <= n; at += size {
			var event unix.FanotifyEventMetadata
			if _, err := binary.Decode(all[at:], binary.NativeEndian, &event); err != nil {
				return
			}
			g.take(event)
		}
	}
}

// take has who opens the file wait, unless that is the test.
func (g *gate) take(event unix.FanotifyEventMetadata) {
	reader := &waiting{g.c.t, func() error {
		defer unix.Close(int(event.Fd))
		response, err := binary.Append(nil, binary.NativeEndian, unix.FanotifyResponse{Fd: event.Fd, Response: unix.FAN_ALLOW})
		if err == nil {
			_, err = g.events.Write(response)
		}
		return err
	}}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isOpen || int(event.Pid) == os.Getpid() {
		_ = reader.letGo() // it may have been killed
		return
	}
	g.queue = append(g.queue, reader)
}

// await returns when somebody waits at the gate.
func (g *gate) await() (reader *waiting) {
	g.c.t.Helper()
	g.c.await("a reader of "+filepath.Base(g.path), func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.queue) == 0 {
			return false
		}
		reader, g.queue = g.queue[0], g.queue[1:]
		return true
	})
	return reader
}

// awaitAfter is await for the first reader after a moment. Those before it are let through.
func (g *gate) awaitAfter(moment func() bool) *waiting {
	g.c.t.Helper()
	for {
		reader := g.await()
		if moment() {
			return reader
		}
		reader.pass()
	}
}

// open lets everybody through from now on, but for those whom await has given.
func (g *gate) open() {
	g.c.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.isOpen = true
	for _, reader := range g.queue {
		_ = reader.letGo() // it may have been killed
	}
	g.queue = nil
}

// fifo is a FIFO that a script reads before it continues. A process that opens it waits there until the test writes a line.
type fifo struct {
	c    *chain
	path string
}

func newFIFO(c *chain, path string) *fifo {
	c.t.Helper()
	f := &fifo{c, path}
	f.make()
	return f
}

func (f *fifo) make() {
	f.c.t.Helper()
	require.NoError(f.c.t, unix.Mkfifo(f.path+".fifo", 0o644))
	require.NoError(f.c.t, os.Rename(f.path+".fifo", f.path))
}

// await returns when somebody waits there.
func (f *fifo) await() *waiting {
	f.c.t.Helper()
	var fd int
	f.c.await("a reader of "+filepath.Base(f.path), func() (open bool) {
		var err error
		fd, err = unix.Open(f.path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err == nil
	})
	f.make() // the next one comes to a FIFO of his own
	file := os.NewFile(uintptr(fd), f.path)
	f.c.t.Cleanup(func() { _ = file.Close() })
	return &waiting{f.c.t, func() error {
		_, err := file.WriteString("go\n")
		return errors.Join(err, file.Close())
	}}
}

// open has nobody wait from now on, but for those whom await has given.
func (f *fifo) open() {
	f.c.t.Helper()
	require.NoError(f.c.t, os.WriteFile(f.path+".file", []byte("go\n"), 0o644))
	require.NoError(f.c.t, os.Rename(f.path+".file", f.path))
}
