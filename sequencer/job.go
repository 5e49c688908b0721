package sequencer

import (
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"time"
)

// jobNote is how often a running job is logged: without that, a long one looks as if it hung.
const jobNote = 30 * time.Second

// job is one run of a program that works before version index starts, and that a stop signal does not interrupt: a
// migration or a hook.
type job struct {
	child
	// hook: it is a hook, not a migration.
	hook   bool
	stderr tail
	// alive: what it has started may still run.
	alive bool
}

// what it is, for messages.
func (j *job) what() string {
	if j.hook {
		return "hook"
	}
	return "migration"
}

// run starts the program and waits until it, and everything that it started, has ended. The error is errStopped or a
// *StartError if it was not executed.
func (j *job) run(c Command) error {
	s := j.s
	c.Stderr, c.Migration = io.MultiWriter(&j.stderr, s.Stderr), true
	process, err := s.start(j.index, j.what(), c)
	if err != nil {
		return err
	}
	j.process = process
	phase := PhaseMigrating
	if j.hook {
		phase = PhaseHook
	}
	s.began(ProcessState{Pid: process.Pid(), Version: j.index, Migration: !j.hook, Hook: j.hook}, phase)
	if j.hook {
		s.Log.Info("hook started", slog.Int("version", j.index), slog.String("hook", c.Path), slog.Int("pid", process.Pid()))
	} else {
		s.Log.Info("migration started", slog.Int("version", j.index), slog.String("migration", c.Path), slog.Int("pid", process.Pid()))
	}
	began := time.Now()
	j.wait()
	exit := process.Exit()
	s.exited(exit)
	j.logFinished(exit, time.Since(began))
	// It is not complete before everything that it started has ended: a worker may still write.
	return s.awaitWorkers(j)
}

func (j *job) logFinished(exit Exit, took time.Duration) {
	if j.hook {
		j.s.Log.Info("hook finished", slog.Int("version", j.index), slog.String("exit", exit.String()), slog.Int("exit_code", exit.Status()), slog.Float64("seconds", took.Seconds()))
		return
	}
	j.s.Log.Info("migration finished", slog.Int("version", j.index), slog.String("exit", exit.String()), slog.Int("exit_code", exit.Status()), slog.Float64("seconds", took.Seconds()))
}

// wait waits for the end of the program. The first stop signal does not interrupt it: a state that is half rewritten is
// worse than a late stop. A later one is passed on. Any other signal is dropped.
func (j *job) wait() {
	began, note := time.Now(), time.NewTicker(jobNote)
	defer note.Stop()
	for {
		select {
		case <-j.process.Done():
			return
		case <-note.C:
			j.logStillRuns(time.Since(began))
		case sig := <-j.s.Signals.Signals():
			if j.interrupts(sig) {
				j.stop(sig)
			}
		case <-j.kill.C:
			j.killOverdue()
		}
	}
}

func (j *job) logStillRuns(since time.Duration) {
	if j.hook {
		j.s.Log.Info("hook still runs", slog.Int("version", j.index), slog.Int("pid", j.process.Pid()), slog.Float64("seconds", since.Seconds()))
		return
	}
	j.s.Log.Info("migration still runs", slog.Int("version", j.index), slog.Int("pid", j.process.Pid()), slog.Float64("seconds", since.Seconds()))
}

// interrupts takes a signal while the job runs, and reports whether to pass it on.
func (j *job) interrupts(sig syscall.Signal) bool {
	if !IsStop(sig) {
		j.s.note(sig)
		return false
	}
	if j.s.stopsAgain(sig) {
		return true
	}
	detail := fmt.Sprintf("it runs to its end, and nothing is started after it; a stop signal that comes %s or more after the first is passed on to it", stopAgainAfter)
	if j.hook {
		j.s.Log.Warn("the hook is not interrupted", slog.Int("version", j.index), slog.String("detail", detail))
	} else {
		j.s.Log.Warn("the migration is not interrupted", slog.Int("version", j.index), slog.String("detail", detail))
	}
	return false
}
