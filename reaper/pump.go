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
	w       io.Writer
	drained chan struct{} // closed when all was carried that was in the pipe at the child's end
}

// newPump returns a pump for the stream of that name, and the pipe's other end for the child. That end stays in blocking mode, the child knows no
// other; ours does not, so that a read can be broken off.
func newPump(name string, w io.Writer) (write *os.File, p *pump, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	p = &pump{r: os.NewFile(uintptr(fds[0]), name), w: w, drained: make(chan struct{})}
	return os.NewFile(uintptr(fds[1]), name), p, nil
}

// childEnded breaks off the read that waits for more: a process that the child left behind may hold the pipe open for
// ever.
func (p *pump) childEnded() {
	_ = p.r.SetReadDeadline(time.Unix(1, 0)) // fails if the pipe has ended before, which is just as well
}

// runPump runs the pump, and forgets it when its pipe has ended.
func (r *Reaper) runPump(p *pump) {
	p.run()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pumps, p)
}

// run carries until every writer has closed the pipe. After the child's end it goes on for those it left behind: a
// closed pipe would kill them, and a full one would stop them.
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

// carry carries one read's worth. Errors of the writer are ignored: the child must not be held up by them.
func (p *pump) carry(buf []byte) error {
	n, err := p.r.Read(buf)
	if n > 0 {
		_, _ = p.w.Write(buf[:n])
	}
	return err
}

// carryAvailable carries what is in the pipe now. All that a dead child wrote is among it; to go on until the pipe is
// empty might never end, if somebody else keeps writing.
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
