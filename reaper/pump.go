package reaper

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pump carries what is written to a pipe to a writer.
type pump struct {
	r       *os.File
	held    *os.File // the same end, for the child to inherit; closed once the child has been started
	w       io.Writer
	drained chan struct{} // closed when everything that was in the pipe when the child ended has been written to w
}

// pipeSize is how much fits into a pipe that nobody reads; more needs privileges (/proc/sys/fs/pipe-max-size).
const pipeSize = 1 << 20

// newPump returns a pump for the stream of that name, and the pipe's other end for the child. That end stays in
// blocking mode, which the child expects; ours does not, so that a read can be interrupted.
func newPump(name string, w io.Writer) (write *os.File, p *pump, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	// Made while the pipe is in blocking mode: otherwise package os would put it back into that mode to pass it on.
	held, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	p = &pump{held: os.NewFile(uintptr(held), name), w: w, drained: make(chan struct{})}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	p.r = os.NewFile(uintptr(fds[0]), name)
	return os.NewFile(uintptr(fds[1]), name), p, nil
}

// outlives prepares the pipe for the time after our death.
func (p *pump) outlives() {
	_, _ = unix.FcntlInt(p.held.Fd(), unix.F_SETPIPE_SZ, pipeSize) // if that is refused there is less room
}

// childEnded interrupts the read that waits for more: a process that the child left behind may hold the pipe open
// forever.
func (p *pump) childEnded() {
	_ = p.r.SetReadDeadline(time.Unix(1, 0)) // fails only if the pipe has ended already
}

// run copies until every writer has closed the pipe. After the child's end it continues for the processes that the
// child left behind: a closed pipe would kill them, and a full one would stop them.
func (p *pump) run() {
	defer p.r.Close()
	buf := make([]byte, 16<<10)
	ended := false
	for {
		err := p.carry(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = p.r.SetReadDeadline(time.Time{})
			p.carryAvailable(buf)
			ended = true
			close(p.drained)
		} else if err != nil {
			break
		}
	}
	if !ended {
		close(p.drained)
	}
}

// carry copies what one read gives. Errors of the writer are ignored: they must not block the child.
func (p *pump) carry(buf []byte) error {
	n, err := p.r.Read(buf)
	if n > 0 {
		_, _ = p.w.Write(buf[:n])
	}
	return err
}

// carryAvailable copies what is in the pipe now, which includes all that a dead child wrote. Copying until the pipe is
// empty might never end if another process keeps writing.
func (p *pump) carryAvailable(buf []byte) {
	left := 0
	raw, err := p.r.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	for left > 0 {
		n, err := p.r.Read(buf[:min(left, len(buf))]) // does not wait: nobody else reads this pipe
		if err != nil {
			return
		}
		_, _ = p.w.Write(buf[:n])
		left -= n
	}
}
