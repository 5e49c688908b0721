package mockrollup

import (
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

	redirectedFile = "stderr.log"
)

// changeStdio says on stderr that it will, and closes or redirects descriptors. They are those of the whole process.
func (n *node) changeStdio() error {
	change := n.cfg.Mock.Stdio
	if change == "" {
		return nil
	}
	fmt.Fprintf(n.stdio.Err, "stdio: %s\n", change)
	if change == stdioRedirectStderr {
		return n.redirectStderr()
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

// inheritedLocks are the descriptors that whoever started the node gave it besides the first three. The Go runtime has
// taken the next numbers, so that they are known by what they stand for.
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
