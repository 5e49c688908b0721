package simulation

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"

	"rollup-entrypoint/sequencer/checkpoint"
)

// Load implements sequencer.Store.
func (e *entrypoint) Load() (checkpoint.Found, error) { return e.load(true) }

// LoadState implements sequencer.Store.
func (e *entrypoint) LoadState() (checkpoint.Found, error) { return e.load(false) }

func (e *entrypoint) load(withCheckpoint bool) (checkpoint.Found, error) {
	e.onDisk("load")
	defer e.leave()
	w := e.w
	if w.fault(loadFails, .02) {
		e.loadFailed = true
		return checkpoint.Found{}, &checkpoint.UnreadableError{Path: storageName, Stamp: true, Err: errors.New("input/output error")}
	}
	found, err := w.found(!w.options.nameless && !e.forgotten, withCheckpoint)
	e.loadFailed = e.loadFailed || err != nil
	return found, err
}

// SaveStamp implements sequencer.Store.
func (e *entrypoint) SaveStamp(s checkpoint.Stamp) error {
	text, err := checkpoint.EncodeStamp(s)
	if err != nil {
		return err //nolint:wrapcheck // as the real one does
	}
	e.onDisk("stamp: before the temporary file")
	defer e.leave()
	e.writing = true
	defer func() { e.writing = false }()
	if err := replace(e, &e.w.state.stamp, written[checkpoint.Stamp]{text, s, checkpoint.ParseStamp, e.w.checkStamp}); err != nil {
		return err
	}
	e.waits(0) // signals arrive meanwhile, and the follower has taken what it was given before there is more for it
	return nil
}

// SaveCheckpoint implements sequencer.Store.
func (e *entrypoint) SaveCheckpoint(c checkpoint.Checkpoint) error {
	text, err := checkpoint.Encode(c)
	if err != nil {
		return err //nolint:wrapcheck // as the real one does
	}
	if e.follows {
		time.Sleep(ownInstant(e.own, 20*time.Millisecond))
	}
	e.onDisk("checkpoint: before the temporary file")
	defer e.leave()
	e.follows = !e.w.options.nameless
	if e.w.options.withoutCheckpoint {
		return nil
	}
	return replace(e, &e.w.disk, written[checkpoint.Checkpoint]{text, c, checkpoint.Parse, e.w.checkCheckpoint})
}

// ownInstant draws a pause after which nothing else happens at the same instant.
func ownInstant(rng *rand.Rand, limit time.Duration) time.Duration {
	return logEven(rng, 20*time.Microsecond, limit) + time.Duration(1+rng.Int64N(999_983))
}

// written is what will be written, and how it is read and checked.
type written[T any] struct {
	text  []byte
	value T
	parse func([]byte) (T, error)
	check func(*T)
}

// replace is a write in the steps of the real one.
func replace[T any](e *entrypoint, f *file[T], n written[T]) error {
	w := e.w
	if err := e.held(); err != nil {
		return err
	}
	pause := w.rng.IntN(8)
	if w.fault(diskFull, .005) {
		w.full = time.Now().Add(w.between(100*time.Millisecond, 30*time.Second))
		w.logf("the disk is full for %s", time.Until(w.full).Round(time.Millisecond))
	}
	if time.Now().Before(w.full) {
		return e.saveFails("no space left on device")
	}
	renamed := func() {
		n.check(&n.value)
		f.visible = n.text
		f.parsed, f.of, f.err = &n.value, n.text, nil
		if w.steps%32 == 0 { // parsing takes long
			w.checkReadable(n.text, func() (any, error) { return n.parse(n.text) })
		}
	}
	for i, step := range []struct {
		fails fault
		done  string
		do    func()
	}{
		{diskTempFails, "temporary file written", func() {}},
		{diskSyncFails, "temporary file synced", func() {}},
		{diskRenameFails, "renamed", renamed},
		{diskDirSyncFails, "directory synced", func() { f.durable = f.visible }},
	} {
		if w.fault(step.fails, .004) {
			return e.saveFails("input/output error")
		}
		step.do()
		if pause == i {
			e.saveTakes()
		}
		e.step(step.done)
	}
	return nil
}

func (e *entrypoint) saveFails(why string) error {
	e.saveFailed = true
	e.w.logf("a write fails: %s", why)
	return errors.New(why)
}

// saveTakes lets the disk take its time, sometimes a lot of it.
func (e *entrypoint) saveTakes() {
	limit := 10 * time.Millisecond
	if e.w.trait(diskSlow, .05) {
		limit = time.Minute
	}
	e.waits(e.w.between(50*time.Microsecond, limit))
}

// Held implements sequencer.Store.
func (e *entrypoint) Held() error {
	e.onDisk("look at the locks")
	defer e.leave()
	return e.held()
}

func (e *entrypoint) held() error {
	if !e.lockLost {
		return nil
	}
	e.saveFailed = true
	return &checkpoint.LockLostError{Path: checkpointName + ".lock", Err: fs.ErrNotExist}
}

// KeepCheckpoint implements sequencer.Store.
func (e *entrypoint) KeepCheckpoint() (string, error) {
	e.onDisk("keep the checkpoint")
	defer e.leave()
	if e.w.fault(keepFails, .3) {
		return "", e.saveFails("input/output error")
	}
	if e.w.disk.visible == nil {
		return "", nil
	}
	return checkpointName + ".before-now", nil
}

// SyncState implements sequencer.Store.
func (e *entrypoint) SyncState() error {
	e.onDisk("before the sync of the state")
	defer e.leave()
	w := e.w
	if w.fault(stateSyncFails, .03) {
		return e.saveFails("input/output error")
	}
	if w.rng.IntN(3) == 0 {
		e.waits(w.between(time.Millisecond, 20*time.Second))
	}
	w.state.unsynced = nil
	e.step("state synced")
	return nil
}
