package main

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// openStore takes the locks of the checkpoint at path, or, if that is empty, of the state alone, and waits for what a
// dead entrypoint left running. stderr, if not nil, gets what those processes write to theirs, observe what they are.
func openStore(p program, log *slog.Logger, inspection *preflight.Inspection, path string, stderr io.Writer, observe func(sequencer.State)) (*checkpoint.Store, error) {
	storage, err := storageFor(inspection, path)
	if err != nil {
		return nil, err
	}
	since := time.Now()
	wait := checkpoint.Wait{Log: log, Stderr: stderr}
	wait.Left = func(processes []checkpoint.Process) {
		state := sequencer.State{Phase: sequencer.PhasePreparing, Since: since}
		for _, left := range processes {
			state.Left = append(state.Left, sequencer.Leftover{Pid: left.Pid, Command: left.Command, Since: since})
		}
		observe(state)
	}
	wait.Pause = func(limit time.Duration) bool {
		select {
		case <-time.After(limit):
			return true
		case sig := <-p.inbox.Signals():
			if sig != 0 && !sequencer.IsStop(sig) {
				log.Info("signal dropped while no node runs", slog.String("signal", signalname.Of(sig)))
			}
			return !sequencer.IsStop(sig)
		}
	}
	store, err := wait.Open(path, storage)
	if err != nil && !errors.Is(err, checkpoint.ErrStopped) {
		return nil, notOpened(err, path)
	}
	return store, err //nolint:wrapcheck // the caller says what was stopped
}

// notOpened is the end of a run that could not take the locks.
func notOpened(err error, path string) error {
	f := &sequencer.Failure{
		Code: sequencer.CodeCheckpointNotWritable, What: "the checkpoint cannot be used", Err: err, Safe: "nothing was started",
		Next: "name a file in a directory on the volume that this user can write",
	}
	if errors.Is(err, checkpoint.ErrForeignLock) {
		f.Next = "move that file away if it is not needed, or name another checkpoint file, and start again"
	}
	var held *checkpoint.LockHeldError
	if errors.As(err, &held) {
		f.Next = sequencer.StopOther
	}
	if held != nil && held.Path != checkpoint.LockPath(path) || path == "" {
		f.What = "the state cannot be used"
	}
	return f
}

// storageFor is the directory of the state, empty if no config names it. Then the stamp is kept in the checkpoint, and
// without a checkpoint nothing would say which of several versions the state belongs to.
func storageFor(inspection *preflight.Inspection, path string) (string, error) {
	storage, err := inspection.StateDir()
	if err != nil {
		return "", err //nolint:wrapcheck // a Failure in its own words
	}
	if storage == "" && path == "" && inspection.Plan.Last() > 0 {
		return "", &sequencer.Failure{
			Code: sequencer.CodeMismatch, Cause: sequencer.StorageUnknown,
			What: "without a checkpoint file the stamp in the state is the only record, and no node config of " + inspection.Plan.File + " says where the state is",
			Safe: "nothing was started", Next: "set storage.path in the node configs, or use --checkpoint-file",
		}
	}
	return storage, nil
}
