package ptrace

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// namesOfMachine are the older calls, which newer machines do without.
var namesOfMachine = map[int]string{
	unix.SYS_OPEN: "open", unix.SYS_CREAT: "creat", unix.SYS_RENAME: "rename", unix.SYS_UNLINK: "unlink", unix.SYS_LINK: "link",
	unix.SYS_CHMOD: "chmod", unix.SYS_STAT: "stat", unix.SYS_LSTAT: "lstat", unix.SYS_NEWFSTATAT: "newfstatat",
	unix.SYS_READLINK: "readlink", unix.SYS_PIPE: "pipe", unix.SYS_FORK: "fork", unix.SYS_VFORK: "vfork",
}

// skip has the kernel make no call where it would make one: there is none with that number.
func skip(tid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	regs.Orig_rax = ^uint64(0)
	return unix.PtraceSetRegs(tid, &regs)
}

// giveErrno replaces what a call returns.
func giveErrno(tid int, errno syscall.Errno) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	regs.Rax = -uint64(errno)
	return unix.PtraceSetRegs(tid, &regs)
}
