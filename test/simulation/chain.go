package simulation

import "time"

// chain is the DA layer: slot n exists from genesis + n*block on. Nothing else is kept, so that any height at any time
// is a matter of arithmetic and costs no event.
type chain struct {
	genesis time.Time
	block   time.Duration
	// emptyEvery-th slots carry nothing for the rollup; 0 for none.
	emptyEvery uint64
	// finality is how many slots the finalized one is behind the head.
	finality uint64
}

func (c chain) slotAt(t time.Time) uint64 {
	if t.Before(c.genesis) {
		return 0
	}
	return uint64(t.Sub(c.genesis) / c.block)
}

func (c chain) heightOf(slot uint64) uint64 {
	if c.emptyEvery < 2 {
		return slot
	}
	return slot - slot/c.emptyEvery
}

func (c chain) slotOf(height uint64) uint64 {
	if c.emptyEvery < 2 || height == 0 {
		return height
	}
	return height + (height-1)/(c.emptyEvery-1)
}

// head is the newest rollup height at t, final the newest that can be durable.
func (c chain) head(t time.Time) uint64 { return c.heightOf(c.slotAt(t)) }

func (c chain) final(t time.Time) uint64 {
	slot := c.slotAt(t)
	return c.heightOf(slot - min(slot, c.finality))
}

// headAt is when height becomes the head, finalAt when it becomes final.
func (c chain) headAt(height uint64) time.Time {
	return c.genesis.Add(time.Duration(c.slotOf(height)) * c.block)
}

func (c chain) finalAt(height uint64) time.Time {
	return c.headAt(height).Add(time.Duration(c.finality) * c.block)
}
