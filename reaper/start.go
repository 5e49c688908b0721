package reaper

import (
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// Command says what to start. Only Path is required.
type Command struct {
	Path       string     // the file to execute; there is no search in PATH
	Args       []string   // the arguments including argv[0]; empty: Path alone
	Env        []string   // "KEY=value"; nil: our environment
	Dir        string     // the working directory; empty: ours
	Stdin      *os.File   // nil: ours
	Stdout     io.Writer  // nil: ours; an *os.File is handed over as it is; anything else is fed through a pipe
	Stderr     io.Writer  // like Stdout, through a pipe of its own
	ExtraFiles []*os.File // descriptors 3, 4, … of the process; it gets no others of ours

	// ParentDeathSignal is sent to the process when this one dies (PR_SET_PDEATHSIG, prctl(2)). 0: none. As process 1
	// it is pointless: the kernel then kills everything in the namespace anyway.
	ParentDeathSignal syscall.Signal

	// Foreground asks Exec to hand the terminal to the process, if Stdin is our controlling terminal, and to let
	// Ctrl-Z stop us with it. Start does not look at it.
	Foreground bool
}

// Start starts a process in a process group of its own, in our session (setpgid(2); in a session of its own it would be
// an orphaned group, which ignores SIGTSTP). It returns once the program has been executed, or with an error in words
// for an operator, which wraps the system's error; see [ExitCodeForStartError].
//
// The process has default signal dispositions and our original signal mask. Writes to Command.Stdout come from one
// goroutine, one at a time, also after Done if the process left others behind that hold its stdout; those to
// Command.Stderr come from another goroutine, also if both are the same writer. Errors of Write are ignored; a Write
// that blocks blocks the process and delays Done.
func (r *Reaper) Start(cmd Command) (c *Child, err error) {
	onStarter(func() { c, err = r.start(cmd) })
	return c, err
}

// starter returns the queue of the goroutine on which all processes are started. It is locked to its thread for life,
// and never ends: the kernel sends a parent-death signal when the *thread* ends that started the process.
var starter = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// onStarter runs f on the starter's thread and waits for it.
func onStarter(f func()) {
	done := make(chan struct{})
	starter() <- func() { f(); close(done) }
	<-done
}

// start starts the process and the pumps of what it writes.
func (r *Reaper) start(cmd Command) (*Child, error) {
	c := &Child{r: r, stopped: make(chan syscall.Signal, 1), done: make(chan struct{})}
	stdout, closeStdout, err := c.output("stdout", cmd.Stdout, os.Stdout)
	if err != nil {
		return nil, explainStart(cmd, err)
	}
	defer closeStdout()
	stderr, closeStderr, err := c.output("stderr", cmd.Stderr, os.Stderr)
	if err == nil {
		defer closeStderr()
		err = r.register(c, cmd, stdout, stderr)
	}
	if err != nil {
		for _, p := range c.pumps {
			p.r.Close()
		}
		return nil, explainStart(cmd, err)
	}
	for _, p := range c.pumps {
		go r.runPump(p)
	}
	return c, nil
}

// output returns the file that the child is to have for w, and adds the pump if there must be one. Once the child has
// been started, ours must be closed, or the pipe never ends.
func (c *Child) output(name string, w io.Writer, ours *os.File) (file *os.File, closeOurs func(), err error) {
	file, isFile := w.(*os.File)
	if w == nil || isFile {
		return orElse(file, ours), func() {}, nil
	}
	write, p, err := newPump(name, w)
	if err != nil {
		return nil, nil, err
	}
	c.pumps = append(c.pumps, p)
	return write, func() { write.Close() }, nil
}

// register starts the process and records it, under one hold of the mutex.
func (r *Reaper) register(c *Child, cmd Command, stdout, stderr *os.File) error {
	args := cmd.Args
	if len(args) == 0 {
		args = []string{cmd.Path}
	}
	files := []*os.File{orElse(cmd.Stdin, os.Stdin), stdout, stderr}
	attr := &os.ProcAttr{
		Dir:   cmd.Dir,
		Env:   cmd.Env,
		Files: append(files, cmd.ExtraFiles...),
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: cmd.ParentDeathSignal},
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	p, err := os.StartProcess(cmd.Path, args, attr)
	if err != nil {
		return err
	}
	c.pid = p.Pid
	r.children[c.pid] = c
	delete(r.groups, c.pid) // an older group of that number is gone, or the kernel would not have given it out
	for _, p := range c.pumps {
		r.pumps[p] = struct{}{}
	}
	r.started.Add(1)
	_ = p.Release() // we wait for it ourselves
	return nil
}

// orElse returns f, or ours if f is nil.
func orElse(f, ours *os.File) *os.File {
	if f != nil {
		return f
	}
	return ours
}
