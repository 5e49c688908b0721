package status

import (
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// door is a TCP listener that limits the open connections: this is process 1, and a flood must not fill its memory. A
// connection that waits for its client makes room for a new one, the oldest first. So slow clients keep nobody out.
type door struct {
	net.Listener
	limit int

	mu    sync.Mutex
	moved sync.Cond // a connection is gone, or waits for its client
	open  []*conn   // oldest first

	// closing is held while a connection is closed. That is the only system call on a connection for which the Go
	// runtime might need another thread; see conn.transfer.
	closing sync.Mutex
}

func newDoor(listener net.Listener, limit int) *door {
	d := &door{Listener: listener, limit: limit}
	d.moved.L = &d.mu
	return d
}

// Accept returns a connection, after it has made room for it.
func (d *door) Accept() (net.Conn, error) {
	tcp, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: tcp, door: d}
	if c.raw, err = tcp.(*net.TCPConn).SyscallConn(); err != nil {
		_ = tcp.Close()
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.open) >= d.limit {
		d.evict()
	}
	d.open = append(d.open, c)
	return c, nil
}

// evict closes the oldest connection that waits for its client. If there is none, it waits for a change: the answers
// being written do not take long. The mutex is held, but released in between.
func (d *door) evict() {
	for _, c := range d.open {
		if c.waits() {
			d.mu.Unlock()
			defer d.mu.Lock()
			_ = c.Close()
			return
		}
	}
	d.moved.Wait()
}

// noteState notes that net/http has read the headers of a request, since that makes its connection active.
func noteState(nc net.Conn, state http.ConnState) {
	if c, ours := nc.(*conn); ours && state == http.StateActive {
		c.note(&c.hasHeaders, true)
	}
}

// conn is an open connection of a door.
type conn struct {
	net.Conn
	raw  syscall.RawConn
	door *door
	done sync.Once

	// The mutex of the door guards these.
	hasHeaders, reading, writing, hasBody bool
}

// waits reports whether the connection waits for its client, which does not send its headers or does not take the
// answer. A client that sends a body does not deserve a place either.
func (c *conn) waits() bool { return c.reading && !c.hasHeaders || c.writing || c.hasBody }

// note sets one of the facts that decide whether the connection waits for its client.
func (c *conn) note(fact *bool, holds bool) {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	if *fact = holds; c.waits() {
		c.door.moved.Signal()
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.transfer(c.raw.Read, &c.reading, unix.SYS_RECVFROM, p, unix.MSG_DONTWAIT)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (written int, err error) {
	for written < len(p) && err == nil {
		var n int
		n, err = c.transfer(c.raw.Write, &c.writing, unix.SYS_SENDTO, p[written:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		written += n
	}
	return written, err
}

// transfer makes the system call once the connection is ready for it. The call is a raw one: the Go runtime takes any
// other for one that may block, and needs one more thread for each connection in such a call while the machine is busy.
// This one never blocks.
func (c *conn) transfer(whenReady func(func(fd uintptr) bool) error, waiting *bool, call uintptr, p []byte, flags uintptr) (n int, err error) {
	var errno syscall.Errno
	err = whenReady(func(fd uintptr) bool {
		var r uintptr
		for errno = unix.EINTR; errno == unix.EINTR; {
			r, _, errno = unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
		}
		n = int(r)
		if errno == unix.EAGAIN {
			c.note(waiting, true)
			return false
		}
		return true
	})
	c.note(waiting, false)
	if err == nil && errno != 0 {
		err = &net.OpError{Op: "transfer", Net: "tcp", Err: os.NewSyscallError("socket", errno)}
	}
	if err != nil {
		n = 0
	}
	return n, err
}

// Close makes room. net/http may call it more than once.
func (c *conn) Close() (err error) {
	c.done.Do(func() {
		c.door.closing.Lock()
		err = c.Conn.Close()
		c.door.closing.Unlock()
		c.door.mu.Lock()
		defer c.door.mu.Unlock()
		c.door.open = slices.DeleteFunc(c.door.open, func(have *conn) bool { return have == c })
		c.door.moved.Signal()
	})
	return err
}
