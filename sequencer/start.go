package sequencer

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"
)

const (
	// startPatience is how long a start is tried again while there are no processes or no memory left: what a node takes
	// down with it at its end is not gone in the same instant. startPause is between two tries.
	startPatience = 10 * time.Second
	startPause    = 250 * time.Millisecond
)

// start starts a process of version i, if the state is still ours alone; what says what it is.
func (s *sequence) start(i int, what string, c Command) (Process, error) {
	due, warned := time.Now().Add(startPatience), false
	for {
		if err := s.mayStart(i, what); err != nil {
			return nil, err
		}
		process, err := s.Processes.Start(c)
		if err == nil {
			return process, nil
		}
		var refused *StartError
		if !errors.As(err, &refused) || !refused.Passing || !time.Now().Before(due) {
			return nil, s.startFailed(i, what, err)
		}
		if !warned {
			warned = true
			s.Log.Warn("start is tried again", slog.Int("version", i), slog.String("error", err.Error()))
		}
		s.pause(startPause)
	}
}

// mayStart looks right before a start whether a stop was requested, and whether the state is ours alone. The stop comes
// first: a run that ends has no use for the locks.
func (s *sequence) mayStart(i int, what string) error {
	if s.stopRequested() {
		return errStopped
	}
	if err := s.onDisk(s.Store.Held); err != nil {
		safe := fmt.Sprintf("the %s of %s was not started; stamp and checkpoint are correct", what, s.Plan.Label(i))
		return s.notWritable(&StartError{Code: CodeCheckpointNotWritable, Err: err}, safe)
	}
	if s.stopRequested() { // it came while the locks were looked at
		return errStopped
	}
	return nil
}

// startFailed is the end for a program that the kernel does not execute.
func (s *sequence) startFailed(i int, what string, err error) error {
	code, next := CodeNotExecutable, "fix the file and start again"
	var start *StartError
	if errors.As(err, &start) {
		code = start.Code
		switch {
		case start.Passing:
			next = "start again, with a higher limit for processes or memory if this happens again"
		case errors.Is(err, syscall.ETXTBSY):
			next = "another process has this program open for writing: stop that, or put the program into the image; then start again"
		case code == CodeNotFound:
			next = "put the file back and start again"
		}
	}
	return failf(code, "the %s of %s cannot be started", what, s.Plan.Label(i)).because(err).
		safe(fmt.Sprintf("the %s of %s was not started; stamp and checkpoint are correct", what, s.Plan.Label(i))).next("%s", next)
}

// pause lets time pass, and takes signals meanwhile.
func (s *sequence) pause(d time.Duration) {
	over := time.After(d)
	for {
		select {
		case <-over:
			return
		case sig := <-s.Signals.Signals():
			s.note(sig)
		}
	}
}
