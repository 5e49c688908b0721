package ptrace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Call is one stop: a thread of the program is about to make a system call, or comes back from one. It is valid only
// until the hook returns; that thread waits for so long, and the others run on.
type Call struct {
	// PID is the program, TID the thread that stopped.
	PID, TID int
	// Ordinal counts the stops of all threads of the program, from 1.
	Ordinal int
	// Exit distinguishes the exit of the call from its entry.
	Exit bool
	// Number is the system call, for the machine that the tests run on. Args are its arguments, also at its exit.
	Number int
	Args   [6]uint64
	// Result is what the call returns, at its exit: a negative one is an errno.
	Result int64

	// fail is what Fail asked for.
	fail syscall.Errno
}

// Name is the name of the system call as syscalls(2) has it, or "syscall N" for one that no test has needed so far.
func (c *Call) Name() string {
	for _, table := range []map[int]string{names, namesOfMachine} {
		if name, known := table[c.Number]; known {
			return name
		}
	}
	return fmt.Sprintf("syscall %d", c.Number)
}

// Errno is the error with which the call comes back; 0 for none.
func (c *Call) Errno() syscall.Errno {
	const highest = 4095
	if !c.Exit || c.Result >= 0 || c.Result < -highest {
		return 0
	}
	return syscall.Errno(-c.Result)
}

// Fail has the call return errno without being made. It works at the entry of a call, and panics at its exit: then what
// the call does is done.
func (c *Call) Fail(errno syscall.Errno) {
	if c.Exit {
		panic("ptrace: Fail at the exit of a system call")
	}
	c.fail = errno
}

// Signal sends sig to the program. After SIGKILL at its entry a call is not made any more.
func (c *Call) Signal(sig syscall.Signal) error {
	if err := unix.Kill(c.PID, sig); err != nil {
		return fmt.Errorf("cannot send %s to the traced program: %w", sig, err)
	}
	return nil
}

// Text is the string that argument i points to. An error means that the program passed no string there.
func (c *Call) Text(i int) (string, error) {
	var text []byte
	const page, limit = 4096, 1 << 16
	for at := uintptr(c.Args[i]); len(text) < limit; {
		// Up to the end of the page: the next one may not be there.
		chunk := make([]byte, page-at%page)
		local := []unix.Iovec{{Base: &chunk[0], Len: uint64(len(chunk))}}
		n, err := unix.ProcessVMReadv(c.TID, local, []unix.RemoteIovec{{Base: at, Len: len(chunk)}}, 0)
		if err != nil {
			return "", fmt.Errorf("cannot read argument %d of %s: %w", i, c.Name(), err)
		}
		if end := bytes.IndexByte(chunk[:n], 0); end >= 0 {
			return string(append(text, chunk[:end]...)), nil
		}
		text, at = append(text, chunk[:n]...), at+uintptr(n)
	}
	return "", fmt.Errorf("argument %d of %s does not end", i, c.Name())
}

// Path is the file that the path in argument i names; a relative one begins at the descriptor in argument dir, as
// openat(2) says, or at the working directory where dir is negative. Links are not followed.
func (c *Call) Path(dir, i int) (string, error) {
	path, err := c.Text(i)
	if err != nil || filepath.IsAbs(path) {
		return path, err
	}
	base, err := "", error(nil)
	if dir < 0 || int32(c.Args[dir]) == unix.AT_FDCWD {
		base, err = os.Readlink(fmt.Sprintf("/proc/%d/cwd", c.PID))
	} else {
		base, err = c.File(dir)
	}
	return filepath.Join(base, path), err
}

// File is what the descriptor in argument i is open on, as proc_pid_fd(5) has it: "/path", "/path (deleted)",
// "pipe:[123]". A descriptor that is not open is an error.
func (c *Call) File(i int) (string, error) {
	return os.Readlink("/proc/" + strconv.Itoa(c.PID) + "/fd/" + strconv.Itoa(int(int32(c.Args[i]))))
}
