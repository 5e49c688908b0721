package simulation

import (
	"rollup-entrypoint/sequencer"
)

// disk is the file of the checkpoint. What is visible was renamed; what is durable was made so by the fsync of the
// directory. In between a power cut leaves one of them, whole, because the content was synced before the rename.
type disk struct {
	visible, durable []byte // nil where there is no file
	// parsed is what parses of which text, so that no text is parsed twice.
	parsed *sequencer.Checkpoint
	of     []byte
	err    error
}

// powerCut loses what was not synced, or does not.
func (d *disk) powerCut(keep bool) (lost bool) {
	if keep {
		d.durable = d.visible
		return false
	}
	lost = string(d.visible) != string(d.durable)
	d.visible = d.durable
	return lost
}

// put is a write by another hand: the operator's, or a vandal's. It is durable at once.
func (d *disk) put(text []byte) { d.visible, d.durable = text, text }

// load parses what is visible; nil where there is nothing.
func (d *disk) load() (*sequencer.Checkpoint, error) {
	if d.visible == nil {
		return nil, nil
	}
	if d.of == nil || string(d.of) != string(d.visible) {
		c, err := sequencer.ParseCheckpoint(d.visible)
		d.parsed, d.of, d.err = &c, d.visible, err
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.parsed, nil
}

// read is load for those who do not care why there is nothing.
func (d *disk) read() *sequencer.Checkpoint {
	c, _ := d.load()
	return c
}
