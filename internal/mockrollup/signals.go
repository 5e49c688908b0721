package mockrollup

import (
	"fmt"
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct, opaque, with its size on amd64 and arm64. Zero is the default action.
type sigaction [4]uint64

// sigsetSize is the size of the kernel's signal mask, in bytes.
const sigsetSize = 8

// setAction replaces what the process does on sig. os/signal cannot do that: for SIGQUIT without a receiver the Go
// runtime prints all stacks and exits 2, where a Rust program is simply killed.
func setAction(sig unix.Signal, action *sigaction) (old sigaction, err error) {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(action)),
		uintptr(unsafe.Pointer(&old)), sigsetSize, 0, 0)
	if errno != 0 {
		return old, fmt.Errorf("cannot set the action of %s: %w", unix.SignalName(sig), errno)
	}
	return old, nil
}

// quitKills lets SIGQUIT kill until the returned function gives the signal back to the Go runtime.
func quitKills() (restore func()) {
	old, err := setAction(unix.SIGQUIT, &sigaction{})
	if err != nil {
		return func() {}
	}
	return func() { _, _ = setAction(unix.SIGQUIT, &old) }
}

// stopSignals starts to receive the signals that stop a node. giveBack, which undoes quitKills, comes after Notify: in
// between, a SIGQUIT still kills, and never prints stacks. There is no way back: a second signal is ignored up to the
// last instruction, so that a late one does not turn an exit 0 into a death by signal.
func stopSignals(giveBack func()) <-chan os.Signal {
	received := make(chan os.Signal, 8)
	signal.Notify(received, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	giveBack()
	return received
}

// dieBy ends the process by sig, without a core file.
func dieBy(sig unix.Signal) error {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	// SIGKILL and SIGSTOP have no action to set, and need none.
	_, _ = setAction(sig, &sigaction{})
	if err := unix.Kill(os.Getpid(), sig); err != nil {
		return fmt.Errorf("cannot send %s to ourselves: %w", unix.SignalName(sig), err)
	}
	select {}
}
