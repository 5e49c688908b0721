package reaper

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/procfs"
)

// terminal is our controlling terminal while a child may use it. A terminal has one foreground process group at a time,
// which may read it and gets its Ctrl-C and Ctrl-Z (tcsetpgrp(3)).
type terminal struct {
	file  *os.File
	own   int  // our process group
	child int  // the child's
	given bool // the child's has it from us
}

// openTerminal returns the terminal behind file for the group of a child, or nil if file is not our controlling one.
func openTerminal(file *os.File, child int) *terminal {
	t := &terminal{file: file, own: unix.Getpgrp(), child: child}
	if t.foreground() <= 0 {
		return nil
	}
	return t
}

// foreground returns the group that has the terminal, or -1 if the terminal is gone.
func (t *terminal) foreground() int {
	pgid := -1
	control(t.file, func(fd int) {
		if got, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil {
			pgid = got
		}
	})
	return pgid
}

// give gives the terminal to the child, if it is ours: in the background it belongs to another group.
func (t *terminal) give() {
	if t.foreground() == t.own {
		t.given = t.set(t.child) == nil
	}
}

// takeBack takes the terminal back from the child, or from a group that the child gave it to.
func (t *terminal) takeBack() {
	if t.given {
		_ = t.set(t.own) // fails only if the terminal is gone
		t.given = false
	}
}

// set makes pgid the foreground group. The kernel stops a background process that tries (SIGTTOU), unless the signal is
// blocked or ignored. Children would inherit an ignored signal, so this thread blocks it for the moment.
func (t *terminal) set(pgid int) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, old unix.Sigset_t
	block.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		return err
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	control(t.file, func(fd int) { err = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, pgid) })
	return err
}

// control calls f with the descriptor of file, without changing the file's mode as Fd may.
func control(file *os.File, f func(fd int)) {
	if raw, err := file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// jobControlAbove reports whether a shell can continue us after a stop: whether the first ancestor outside of our
// process group is in our session. Otherwise our group is orphaned (setpgid(2)), and nobody would continue it.
func jobControlAbove() bool {
	self, err := procfs.Read(procfs.Root, os.Getpid())
	for p := self; err == nil; p, err = procfs.Read(procfs.Root, p.Parent) {
		if p.Group != self.Group {
			return p.Session == self.Session
		}
	}
	return false
}
