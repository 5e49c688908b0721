package mockrollup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What a node does to the descriptors that it was started with.
const (
	stdioCloseStderr    = "close-stderr"
	stdioClose          = "close"
	stdioCloseAll       = "close-all"
	stdioRedirectStderr = "redirect-stderr"
	stdioNonblock       = "nonblock"

	redirectedFile = "stderr.log"
)

// changeStdio announces it on stderr, and then closes or redirects descriptors of the whole process.
func (n *node) changeStdio() error {
	change := n.cfg.Mock.Stdio
	if change == "" {
		return nil
	}
	fmt.Fprintf(n.stdio.Err, "stdio: %s\n", change)
	switch change {
	case stdioRedirectStderr:
		return n.redirectStderr()
	case stdioNonblock:
		return os.NewSyscallError("fcntl", errors.Join(unix.SetNonblock(unix.Stdout, true), unix.SetNonblock(unix.Stderr, true)))
	}
	files := []*os.File{os.Stderr}
	if change != stdioCloseStderr {
		files = append(files, os.Stdin, os.Stdout)
	}
	if change == stdioCloseAll {
		files = append(files, inheritedLocks()...)
	}
	for _, file := range files {
		if err := file.Close(); err != nil {
			return fmt.Errorf("cannot close %s: %w", file.Name(), err)
		}
	}
	return nil
}

func (n *node) redirectStderr() error {
	file, err := os.Create(filepath.Join(n.store.dir, redirectedFile))
	if err != nil {
		return fmt.Errorf("cannot redirect stderr: %w", err)
	}
	defer file.Close()
	return os.NewSyscallError("dup3", unix.Dup3(int(file.Fd()), int(os.Stderr.Fd()), 0))
}

// inheritedLocks gives the descriptors, apart from the first three, that the node was started with. They are recognised
// by their files, since the Go runtime uses some of the same numbers.
func inheritedLocks() []*os.File {
	var locks []*os.File
	for fd := 3; fd < 10; fd++ {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err == nil && strings.HasSuffix(name, ".lock") {
			locks = append(locks, os.NewFile(uintptr(fd), name))
		}
	}
	return locks
}
