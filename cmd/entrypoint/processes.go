package main

import (
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
)

// notFirst is what it means not to be process 1, as under docker run --init or --pid=host.
const notFirst = "another process is the init here; ours ends and reaps only what its own processes leave behind, and if it is killed the kernel kills the node or migration, but not what these have started"

// newInit makes this process the init of what it starts.
func newInit(p program, log *slog.Logger) (*reaper.Reaper, error) {
	init, err := reaper.New(reaper.Options{Inbox: p.inbox, Log: log})
	if err != nil {
		return nil, &sequencer.Failure{Code: sequencer.CodeMismatch, What: "this process cannot become an init", Err: err, Safe: "nothing was started"}
	}
	if pid := os.Getpid(); pid != 1 {
		log.Info("not process 1", slog.Int("pid", pid), slog.String("detail", notFirst))
	}
	return init, nil
}

// processes lets the sequence use the init.
type processes struct {
	init *reaper.Reaper
	// locks gives what everything that works on the state inherits.
	locks func() []*os.File
}

// Start implements sequencer.Processes.
func (ps *processes) Start(c sequencer.Command) (sequencer.Process, error) {
	path, err := findCommand(c.Path)
	if err != nil {
		return nil, &sequencer.StartError{Code: reaper.ExitCodeForStartError(err), Err: err}
	}
	cmd := reaper.Command{Path: path, Args: append([]string{c.Path}, c.Args...), Stdout: c.Stdout, Stderr: c.Stderr}
	if len(c.Env) > 0 {
		cmd.Env = withEnv(os.Environ(), c.Env)
	}
	cmd.ExtraFiles = ps.locks()
	if os.Getpid() != 1 {
		// As process 1 the kernel ends everything with us. Elsewhere this does: nobody outlives the entrypoint.
		cmd.ParentDeathSignal = syscall.SIGKILL
	}
	killed, known := memoryKills(cgroupRoot)
	child, err := ps.init.Start(cmd)
	if err != nil {
		return nil, &sequencer.StartError{Code: reaper.ExitCodeForStartError(err), Err: err}
	}
	return process{child, killed, known}, nil
}

// withEnv gives ours with the variables of own instead of those of the same name: getenv(3) finds the first of two.
func withEnv(ours, own []string) []string {
	replaced := map[string]bool{}
	for _, pair := range own {
		name, _, _ := strings.Cut(pair, "=")
		replaced[name] = true
	}
	var env []string
	for _, pair := range ours {
		if name, _, _ := strings.Cut(pair, "="); !replaced[name] {
			env = append(env, pair)
		}
	}
	return append(env, own...)
}

// Sweep implements sequencer.Processes.
func (ps *processes) Sweep(grace time.Duration) (int, error) {
	return ps.init.Sweep(grace) //nolint:wrapcheck // the sequence says what it was for
}

// process lets the sequence use a child.
type process struct {
	*reaper.Child
	// killed is what memoryKills gave before the start, where countKnown.
	killed     uint64
	countKnown bool
}

// Signal implements sequencer.Process. A process that was stopped (SIGSTOP) gets a stop signal only when it is continued,
// and nobody but us is there to do that: without it such a node would hold up the stop for ever.
func (p process) Signal(sig syscall.Signal) error {
	err := p.Child.Signal(sig)
	if err == nil && sequencer.IsStop(sig) {
		// If the node has ended meanwhile there is nothing to continue.
		_ = p.Child.Signal(syscall.SIGCONT)
	}
	return err //nolint:wrapcheck // the sequence only logs it
}

// Exit implements sequencer.Process.
func (p process) Exit() sequencer.Exit {
	e := p.Child.Exit()
	exit := sequencer.Exit{Code: e.Code, Signal: e.Signal}
	if e.Signal == syscall.SIGKILL && p.countKnown {
		now, known := memoryKills(cgroupRoot)
		exit.OutOfMemory = known && now > p.killed
	}
	return exit
}
