package reaper

import (
	"cmp"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// Command says what to start. Its working directory and stdin are ours.
type Command struct {
	Path       string     // the file to execute; there is no search in PATH
	Args       []string   // the arguments including argv[0]
	Env        []string   // "KEY=value"; nil: our environment
	Stdout     io.Writer  // nil: ours; an *os.File is handed over as it is; anything else is fed through a pipe
	Stderr     io.Writer  // like Stdout, through a pipe of its own
	ExtraFiles []*os.File // descriptors 3, 4, … of the process; it gets no others of ours

	// ParentDeathSignal is sent to the process when this one dies (PR_SET_PDEATHSIG, prctl(2)). 0: none. For process 1
	// it is pointless: when that dies the kernel kills everything in the namespace.
	ParentDeathSignal syscall.Signal

	// HoldPipes has the process inherit the reading ends of its own stdout and stderr too, if these are pipes to us, so
	// that it survives our death: without a reader its next write would end in SIGPIPE (pipe(7)). Until somebody reads
	// again there is room for a megabyte, if the system allows that.
	HoldPipes bool

	// Foreground asks Exec to give the terminal to the process, if our stdin is our controlling terminal, and to let
	// Ctrl-Z stop us with it. Start ignores it.
	Foreground bool
}

// Start starts a process in a process group of its own, in our session (setpgid(2); in a session of its own it would be
// an orphaned group, which ignores SIGTSTP). It returns once the program has been executed, or with an error for an
// operator, which wraps the system's error; see [ExitCodeForStartError].
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
		go p.run()
	}
	return c, nil
}

// output returns the file that the child gets for w, and adds a pump if one is needed. Once the child has been started,
// closeOurs must be called, or the pipe never ends.
func (c *Child) output(name string, w io.Writer, ours *os.File) (file *os.File, closeOurs func(), err error) {
	file, isFile := w.(*os.File)
	if w == nil || isFile {
		return cmp.Or(file, ours), func() {}, nil
	}
	write, p, err := newPump(name, w)
	if err != nil {
		return nil, nil, err
	}
	c.pumps = append(c.pumps, p)
	return write, func() { write.Close(); p.held.Close() }, nil
}

// register starts the process and records it, under one hold of the mutex.
func (r *Reaper) register(c *Child, cmd Command, stdout, stderr *os.File) error {
	files := append([]*os.File{os.Stdin, stdout, stderr}, cmd.ExtraFiles...)
	if cmd.HoldPipes {
		for _, p := range c.pumps {
			p.outlives()
			files = append(files, p.held)
		}
	}
	attr := &os.ProcAttr{
		Env:   cmd.Env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: cmd.ParentDeathSignal},
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := os.StartProcess(cmd.Path, cmd.Args, attr)
	if err != nil {
		return err
	}
	c.pid = p.Pid
	r.children[c.pid] = c
	delete(r.groups, c.pid) // an older group of that number is gone, or the kernel would not have used it again
	_ = p.Release()         // we wait for it ourselves
	return nil
}
