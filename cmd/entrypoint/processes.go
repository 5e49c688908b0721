package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"rollup-entrypoint/internal/limits"
	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// notFirst is what it means not to be process 1, as with docker run --init or --pid=host.
const notFirst = "another process is the init here; this one ends and reaps only what its own processes leave behind; if it is killed, the node gets SIGTERM and a migration runs to its end, and the next start waits for them"

// newInit makes this process the init of what it starts.
func newInit(p program, log *slog.Logger) (*reaper.Reaper, error) {
	init, err := reaper.New(reaper.Options{Inbox: p.inbox, Log: log})
	if err != nil {
		return nil, &sequencer.Failure{Code: sequencer.CodeMismatch, What: "this process cannot become an init", Err: err, Safe: "nothing was started", Next: "run it as process 1, or on Linux 5.3 or later with prctl(2) permitted"}
	}
	if pid := os.Getpid(); pid != 1 {
		log.Info("not process 1", slog.Int("pid", pid), slog.String("detail", notFirst))
	}
	return init, nil
}

// processes is the init as the sequence sees it.
type processes struct {
	init *reaper.Reaper
	// store has the locks, which everything that works on the state inherits.
	store *checkpoint.Store
	log   *slog.Logger
}

// Start implements sequencer.Processes.
func (ps *processes) Start(c sequencer.Command) (sequencer.Process, error) {
	path, err := lookpath.Find(c.Path, os.Getenv("PATH"))
	if err != nil {
		return nil, startError(err)
	}
	cmd := reaper.Command{Path: path, Args: append([]string{c.Path}, c.Args...), Stdout: c.Stdout, Stderr: c.Stderr}
	env, first := c.Env, os.Getpid() == 1 // with process 1 the kernel ends everything else
	if !first {
		env = append([]string{ps.store.Marker()}, env...)
		cmd.HoldPipes = true
	}
	if len(env) > 0 {
		cmd.Env = withEnv(os.Environ(), env)
	}
	cmd.ExtraFiles = ps.store.LockFiles()
	if !first && !c.Migration {
		cmd.ParentDeathSignal = syscall.SIGTERM // SIGKILL can damage the state, and a migration must finish
	}
	killed, known := memoryKills(cgroupRoot)
	child, err := ps.init.Start(cmd)
	if err != nil {
		return nil, startError(err)
	}
	if !first {
		go ps.note(child.Pid()) // the disk may hang
	}
	return process{child, killed, known}, nil
}

func (ps *processes) note(pid int) {
	if err := ps.store.NoteChild(pid); err != nil {
		ps.log.Warn("process not recorded in the lock file", slog.Int("pid", pid), slog.String("error", err.Error()))
	}
}

// startError is why a program was not started. If there is no room for another process it names the limit.
func startError(err error) *sequencer.StartError {
	code, passing := reaper.ExitCodeForStartError(err), reaper.IsPassing(err)
	if errors.Is(err, syscall.EAGAIN) {
		if limit := limits.Processes(); limit != "" {
			err = fmt.Errorf("%w (%s)", err, limit)
		}
	}
	return &sequencer.StartError{Code: code, Passing: passing, Err: err}
}

// withEnv gives ours with the variables of own in place of those of the same name: getenv(3) finds the first of two.
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
func (ps *processes) Sweep(ask bool) sequencer.Sweep { return sweep{ps.init.Sweep(ask)} }

// sweep is a sweep as the sequence sees it.
type sweep struct{ *reaper.Sweep }

// Left implements sequencer.Sweep.
func (s sweep) Left() []sequencer.Leftover {
	var left []sequencer.Leftover
	for _, p := range s.Sweep.Left() {
		left = append(left, sequencer.Leftover(p))
	}
	return left
}

// process is a child as the sequence sees it.
type process struct {
	*reaper.Child
	// killed is what memoryKills gave before the start, if countKnown.
	killed     uint64
	countKnown bool
}

// Signal implements sequencer.Process. A stopped process (SIGSTOP) gets a stop signal only when it is continued, and
// nobody else does that: without it such a node would delay the stop forever.
func (p process) Signal(sig syscall.Signal) error {
	err := p.Child.Signal(sig)
	if err == nil && sequencer.IsStop(sig) {
		// If the node has ended by now there is nothing to continue.
		_ = p.Child.Signal(syscall.SIGCONT)
	}
	return err //nolint:wrapcheck // the sequence only logs it
}

// Exit implements sequencer.Process.
func (p process) Exit() sequencer.Exit {
	e := p.Child.Exit()
	return sequencer.Exit{Code: e.Code, Signal: e.Signal, OutOfMemory: p.countKnown && outOfMemory(cgroupRoot, e.Signal, p.killed)}
}
