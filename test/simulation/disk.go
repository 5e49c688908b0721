package simulation

import "rollup-entrypoint/sequencer/checkpoint"

// file is one of the two files of the record. What is visible was renamed; what is durable was made so by the fsync of
// the directory. In between a power cut leaves one of them, whole, because the content was synced before the rename.
type file[T any] struct {
	visible, durable []byte // nil if there is no file
	// parsed is what parses of which text, so that no text is parsed twice.
	parsed *T
	of     []byte
	err    error
}

type (
	checkpointFile = file[checkpoint.Checkpoint]
	stampFile      = file[checkpoint.Stamp]
)

// powerCut loses what was not synced, or does not.
func (f *file[T]) powerCut(keep bool) (lost bool) {
	if keep {
		f.durable = f.visible
		return false
	}
	lost = string(f.visible) != string(f.durable)
	f.visible = f.durable
	return lost
}

// put is a write by somebody else: the operator, or a vandal. It is durable at once.
func (f *file[T]) put(text []byte) { f.visible, f.durable = text, text }

// load parses what is visible; nil if there is nothing.
func (f *file[T]) load(parse func([]byte) (T, error)) (*T, error) {
	if f.visible == nil {
		return nil, nil
	}
	if f.of == nil || string(f.of) != string(f.visible) {
		v, err := parse(f.visible)
		f.parsed, f.of, f.err = &v, f.visible, err
	}
	if f.err != nil {
		return nil, f.err
	}
	return f.parsed, nil
}

// checkpoint is what is visible of the checkpoint; nil if there is none, or none that can be read.
func (w *world) checkpoint() *checkpoint.Checkpoint {
	c, _ := w.disk.load(checkpoint.Parse)
	return c
}

// stamp is what is visible of the stamp; nil if there is none, or none that can be read. It is in the checkpoint if no
// config says where the state is.
func (w *world) stamp() *checkpoint.Stamp {
	if !w.options.nameless {
		s, _ := w.state.stamp.load(checkpoint.ParseStamp)
		return s
	}
	if c := w.checkpoint(); c != nil {
		return c.Stamp
	}
	return nil
}

// found is what a Store finds on disk. The error is a *checkpoint.UnreadableError.
func (w *world) found(storage, withCheckpoint bool) (checkpoint.Found, error) {
	found := checkpoint.Found{}
	if withCheckpoint && !w.options.withoutCheckpoint {
		c, err := w.disk.load(checkpoint.Parse)
		if err != nil {
			return checkpoint.Found{}, &checkpoint.UnreadableError{Path: checkpointName, Err: err}
		}
		found.Checkpoint = c
	}
	if !storage {
		return found, nil
	}
	found.Storage, found.State = storageName, checkpoint.StateNone
	if w.state.exists {
		found.State = checkpoint.StatePresent
	}
	s, err := w.state.stamp.load(checkpoint.ParseStamp)
	if err != nil {
		return checkpoint.Found{}, &checkpoint.UnreadableError{Path: storageName + "/" + checkpoint.StampFile, Stamp: true, Err: err}
	}
	found.Stamp = s
	return found, nil
}

const (
	checkpointName = "/data/checkpoint.json"
	storageName    = "/data/state"
)
