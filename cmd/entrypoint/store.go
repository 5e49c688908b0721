package main

import (
	"errors"
	"syscall"
	"time"

	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
)

// lockWait is how long to wait for a lock whose owner has ended, or is not known: its node dies with it, but not in the same
// instant.
const lockWait = 5 * time.Second

// errStopped: a stop signal came before there was anything to stop.
var errStopped = errors.New("a stop signal was received while the lock of an ended entrypoint was awaited")

// openStore takes the lock of the checkpoint at path, or, where it is empty, opens the stamp alone. waiting are the signals
// for a node that came meanwhile.
func openStore(p program, plan *sequencer.Plan, path string) (store *checkpoint.Store, waiting []syscall.Signal, err error) {
	storage, err := storageFor(plan, path)
	if err != nil {
		return nil, nil, err
	}
	deadline := time.Now().Add(lockWait)
	for {
		store, err := checkpoint.Open(path, storage)
		if err == nil {
			return store, waiting, nil
		}
		var held *checkpoint.LockHeldError
		isHeld := errors.As(err, &held)
		if isHeld && (held.HolderGone || held.Pid == 0) && time.Now().Before(deadline) {
			select {
			case <-time.After(50 * time.Millisecond):
			case sig := <-p.inbox.Signals():
				if sequencer.IsStop(sig) {
					return nil, nil, errStopped
				}
				waiting = append(waiting, sig)
			}
			continue
		}
		f := &sequencer.Failure{Code: sequencer.CodeCheckpointNotWritable, What: "the checkpoint cannot be used", Err: err, Safe: "nothing was started"}
		if isHeld && held.Path != checkpoint.LockPath(path) || path == "" {
			f.What = "the state cannot be used"
		}
		f.Next = "name a file in a directory on the volume that this user can write"
		if isHeld {
			f.Next = "stop the other one first: two nodes on one volume destroy the state"
		}
		return nil, nil, f
	}
}

// storageFor is the directory of the state, empty where no config says so. Then the stamp is kept in the checkpoint, and
// without one nothing would say which of several versions the state belongs to.
func storageFor(plan *sequencer.Plan, path string) (string, error) {
	storage, err := preflight.StorageOf(plan)
	if err != nil {
		return "", err //nolint:wrapcheck // a Failure in its own words
	}
	if storage == "" && path == "" && plan.Last() > 0 {
		return "", &sequencer.Failure{
			Code: sequencer.CodeMismatch, Cause: sequencer.StorageUnknown,
			What: "without a checkpoint file the stamp in the state is the only record, and no config in " + plan.File + " says where the state is",
			Safe: "nothing was started", Next: "set storage.path in the configs of the versions, or use --checkpoint-file",
		}
	}
	return storage, nil
}
