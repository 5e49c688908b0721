package mockrollup

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The scripts around a node.
const (
	wrapperShell  = "shell"
	wrapperCloses = "close-descriptors"

	// wrappedVariable is set for a node that has its wrapper.
	wrappedVariable = "MOCK_ROLLUP_WRAPPED"
	// mostInherited is the first descriptor that is never inherited.
	mostInherited = 64
)

// wrap runs the node as the child of a process that does not handle signals, and ends as the node does.
func wrap(argv []string, wrapper string, stdio Stdio) int {
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintf(stdio.Err, "wrapper: %s\n", err)
		return exitError
	}
	if wrapper == wrapperCloses {
		for fd := 3; fd < mostInherited; fd++ {
			unix.CloseOnExec(fd)
		}
	}
	node := exec.Command(self, argv...)
	node.Env = append(os.Environ(), wrappedVariable+"=1")
	node.Stdin, node.Stdout, node.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := node.Start(); err != nil {
		fmt.Fprintf(stdio.Err, "wrapper: %s\n", err)
		return exitError
	}
	_ = node.Wait()
	if status, ok := node.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return node.ProcessState.ExitCode()
}

// startThreads starts that many threads of the kernel.
func startThreads(count int) {
	started := make(chan struct{})
	for range count {
		go func() {
			runtime.LockOSThread()
			started <- struct{}{}
			select {}
		}()
	}
	for range count {
		<-started
	}
}

// changeUser makes the node, and its state, belong to another user.
func (n *node) changeUser() error {
	user := n.cfg.Mock.User
	if user == 0 {
		return nil
	}
	names, err := os.ReadDir(n.store.dir)
	if err != nil {
		return fmt.Errorf("cannot change the user: %w", err)
	}
	paths := []string{n.store.dir}
	for _, name := range names {
		paths = append(paths, n.store.dir+"/"+name.Name())
	}
	for _, path := range paths {
		if err := os.Lchown(path, user, -1); err != nil {
			return fmt.Errorf("cannot change the user: %w", err)
		}
	}
	return os.NewSyscallError("setresuid", unix.Setresuid(user, user, user))
}
