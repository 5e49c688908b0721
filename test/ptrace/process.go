package ptrace

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process is a program that runs under the tracer.
type Process struct {
	// PID is its number, and that of its process group.
	PID int

	hook    func(*Call)
	threads map[int]*thread
	stops   int
	// continued: the SIGCONT that began it has been seen, and taken away. See seize.
	continued bool
	// info is written by the kernel, and so not on a stack, which may move.
	info syscallInfo

	done   chan struct{}
	status syscall.WaitStatus
	err    error
}

// thread is what is remembered from the entry of a call to its exit.
type thread struct {
	number int
	args   [6]uint64
	fail   syscall.Errno
}

// Start starts cmd in a process group of its own, and has hook called at each entry and exit of a system call that one
// of its threads makes from then on, in one order and never two at once. Call says what the hook can do to it.
// Signals reach the program as they would without a tracer, and stop signals stop it. If the tracer dies, it is killed.
//
// The files of cmd must be files, or nil: Wait of package exec, which would copy, is never called.
func Start(cmd *exec.Cmd, hook func(*Call)) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Ptrace, cmd.SysProcAttr.Setpgid = true, true
	p := &Process{hook: hook, threads: map[int]*thread{}, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// A tracee belongs to the thread that started it, and obeys no other.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.begin(cmd)
		started <- err
		if err == nil {
			defer close(p.done)
			p.trace()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot trace %s: %w", cmd.Path, err)
	}
	return p, nil
}

// Done is closed when the program has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns how the program ended. An error means that the tracer has failed, and the program was killed.
func (p *Process) Wait() (syscall.WaitStatus, error) {
	<-p.done
	return p.status, p.err
}

// begin starts the program. It returns with the program stopped before its first instruction, and seized.
func (p *Process) begin(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	p.PID = cmd.Process.Pid
	err := p.seize()
	if err != nil {
		_ = unix.Kill(p.PID, unix.SIGKILL)
		_, _ = unix.Wait4(p.PID, nil, unix.WALL, nil)
	}
	return err
}

// seize changes the way of tracing from PTRACE_TRACEME, which is all that package exec can do, to PTRACE_SEIZE: only
// there stop signals can be distinguished from the stops of the tracer. The program is let go stopped, and taken again.
func (p *Process) seize() error {
	if err := p.awaitStop("its execution", unix.WALL); err != nil {
		return err
	}
	if err := request(unix.PTRACE_DETACH, p.PID, 0, uintptr(unix.SIGSTOP)); err != nil {
		return fmt.Errorf("cannot let it go: %w", err)
	}
	if err := p.awaitStop("SIGSTOP", unix.WUNTRACED); err != nil {
		return err
	}
	// The program's forks are not followed: package syscall makes them with CLONE_VFORK, which is another event.
	const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := request(unix.PTRACE_SEIZE, p.PID, 0, options); err != nil {
		return fmt.Errorf("cannot seize it: %w", err)
	}
	if err := p.awaitStop("the tracer", unix.WALL); err != nil {
		return err
	}
	if err := unix.Kill(p.PID, unix.SIGCONT); err != nil {
		return fmt.Errorf("cannot let it run: %w", err)
	}
	return p.resume(p.PID, 0)
}

func (p *Process) awaitStop(what string, options int) error {
	var status unix.WaitStatus
	pid, err := wait(p.PID, &status, options)
	if err != nil {
		return fmt.Errorf("cannot wait for %s: %w", what, err)
	}
	if pid != p.PID || !status.Stopped() {
		return fmt.Errorf("waited for %s to stop it, and it ended: %#x", what, uint32(status))
	}
	return nil
}

// trace serves the stops of all threads until the program has ended.
func (p *Process) trace() {
	for {
		var status unix.WaitStatus
		// Its threads have its process group, and it leads one. What it starts is not our child.
		tid, err := wait(-p.PID, &status, unix.WALL)
		if err != nil {
			p.fail(fmt.Errorf("ptrace: the end of the program was not seen: %w", err))
			return
		}
		if !status.Stopped() {
			delete(p.threads, tid)
			if tid == p.PID { // reported last, when all other threads have been
				p.status = syscall.WaitStatus(status)
				return
			}
			continue
		}
		if err := p.stopped(tid, status); err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: killed meanwhile
			p.fail(err)
		}
	}
}

// fail ends the program, since what the test asked for cannot be done.
func (p *Process) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	_ = unix.Kill(p.PID, unix.SIGKILL)
}

// stopped serves one stop of a thread and lets it continue.
func (p *Process) stopped(tid int, status unix.WaitStatus) error {
	const syscallStop = unix.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD
	sig, event := status.StopSignal(), int(status)>>16
	switch {
	case event == unix.PTRACE_EVENT_STOP && isStop(sig):
		return request(unix.PTRACE_LISTEN, tid, 0, 0) // stopped as the signal wants it, until SIGCONT
	case event != 0: // a new thread begins, or its parent continues, or a stop has ended
		return p.resume(tid, 0)
	case sig == syscallStop:
		if err := p.call(tid); err != nil {
			return err
		}
		return p.resume(tid, 0)
	case sig == unix.SIGCONT && !p.continued:
		p.continued = true
		return p.resume(tid, 0)
	}
	return p.resume(tid, sig) // it is delivered only now
}

func isStop(sig syscall.Signal) bool {
	return sig == unix.SIGSTOP || sig == unix.SIGTSTP || sig == unix.SIGTTIN || sig == unix.SIGTTOU
}

// resume lets a thread run to its next stop, with a signal or without.
func (p *Process) resume(tid int, sig syscall.Signal) error {
	if err := unix.PtraceSyscall(tid, int(sig)); err != nil {
		return fmt.Errorf("ptrace: cannot resume thread %d: %w", tid, err)
	}
	return nil
}

// call reports a stop at a system call to the hook, and does what it wants.
func (p *Process) call(tid int) error {
	c, err := p.look(tid)
	if err != nil {
		return err
	}
	t := p.threads[tid]
	if c.Exit && t.fail != 0 {
		if err := giveErrno(tid, t.fail); err != nil {
			return fmt.Errorf("ptrace: cannot make %s fail: %w", c.Name(), err)
		}
		c.Result, t.fail = -int64(t.fail), 0
	}
	p.stops++
	c.Ordinal = p.stops
	p.hook(c)
	if c.fail == 0 {
		return nil
	}
	t.fail = c.fail
	if err := skip(tid); err != nil {
		return fmt.Errorf("ptrace: cannot make %s fail: %w", c.Name(), err)
	}
	return nil
}

// syscallInfo is struct ptrace_syscall_info of <linux/ptrace.h>. An exit has its result in the place of the number.
type syscallInfo struct {
	op                        uint8
	_                         [3]uint8
	arch                      uint32
	instructionPointer, stack uint64
	number                    uint64
	args                      [6]uint64
	_                         [2]uint64
}

// look finds out about a stop at a system call (PTRACE_GET_SYSCALL_INFO, Linux 5.3).
func (p *Process) look(tid int) (*Call, error) {
	info := &p.info
	if err := request(unix.PTRACE_GET_SYSCALL_INFO, tid, unsafe.Sizeof(*info), uintptr(unsafe.Pointer(info))); err != nil {
		return nil, fmt.Errorf("ptrace: cannot look at a system call of thread %d: %w", tid, err)
	}
	c := &Call{PID: p.PID, TID: tid}
	t := p.threads[tid]
	if t == nil {
		t = &thread{number: -1} // it began within a call
		p.threads[tid] = t
	}
	switch info.op {
	case unix.PTRACE_SYSCALL_INFO_ENTRY:
		t.number, t.args, t.fail = int(info.number), info.args, 0
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		c.Exit, c.Result = true, int64(info.number)
	default:
		return nil, fmt.Errorf("ptrace: thread %d stopped at no system call, but at %d", tid, info.op)
	}
	c.Number, c.Args = t.number, t.args
	return c, nil
}

// wait is wait4(2) for tracees and children of this thread alone.
func wait(pid int, status *unix.WaitStatus, options int) (int, error) {
	for {
		got, err := unix.Wait4(pid, status, options|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return got, err
		}
	}
}

func request(what, tid int, address, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(what), uintptr(tid), address, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
