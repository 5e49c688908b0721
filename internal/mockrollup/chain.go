package mockrollup

import (
	"fmt"
	"time"
)

// view is what the HTTP server shows. The soft height runs ahead of the durable one by the DA's finality.
type view struct {
	soft, durable      uint64
	root               string
	da                 DAStatus
	known              bool
	syncing, atStop    bool
	leader             bool
	softSlot, headSlot uint64
}

// syncingBehind is how many rollup heights behind the DA head a node counts as syncing.
const syncingBehind = 5

// step brings the chain to where it is at now: new soft heights one by one, since each may end the node, then one
// durable commit of everything that is finalized.
func (n *node) step(now time.Time) (*ending, error) {
	da, known := n.da.status(now)
	if !known {
		n.ticked = now
		return nil, nil
	}
	n.earn(now)
	for target := n.softLimit(da.HeightAt(da.CurrentSlot)); n.soft < target && n.budget >= 1; n.budget-- {
		n.soft++
		if end, err := n.block(n.soft); end != nil || err != nil {
			return end, err
		}
	}
	if end, err := n.commit(da.HeightAt(da.FinalizedSlot)); end != nil || err != nil {
		return end, err
	}
	n.look(now)
	if n.args.stop != nil && !n.cfg.Mock.Overrun && n.state.Height == *n.args.stop {
		n.log.info("Stop height committed", "height", n.state.Height)
		return &ending{reason: "stop height committed"}, nil
	}
	return n.campaign(now), nil
}

// earn adds the blocks that may be processed since the last step. A delayed node does not catch up all at once: it
// saves up at most a quarter of a second's blocks.
func (n *node) earn(now time.Time) {
	rate := float64(n.cfg.Mock.ResyncRate)
	n.budget = min(n.budget+rate*now.Sub(n.ticked).Seconds(), max(1, rate/4))
	n.ticked = now
}

func (n *node) softLimit(head uint64) uint64 {
	if stop := n.args.stop; stop != nil && !n.cfg.Mock.Overrun {
		return min(head, *stop)
	}
	return head
}

// block processes the soft height h.
func (n *node) block(h uint64) (*ending, error) {
	n.log.debug("Soft confirmation", "height", h)
	n.flood(h)
	if err := n.spawnOrphans(); err != nil {
		return nil, err
	}
	return n.faultAt(h)
}

// commit makes the state durable up to the finalized height, as far as it has been processed.
func (n *node) commit(finalized uint64) (*ending, error) {
	target := min(n.soft, finalized)
	if crash := n.durableCrash(target); crash != 0 {
		target = crash
	}
	if target <= n.state.Height {
		return nil, nil
	}
	before := n.state.Height
	roots := n.state.advance(target, &n.cfg.Mock, n.blobsOf)
	if err := n.persist(before+1, roots, n.cfg.Mock.DamageOnKill); err != nil {
		return nil, err
	}
	if err := n.unsettle(); err != nil {
		return nil, err
	}
	n.logCommit(before)
	n.journal.add(Entry{Event: EventHeight, Height: target, Soft: n.soft})
	if n.durableCrashAt(target) {
		return n.crashEnding(target)
	}
	return nil, nil
}

// blobsOf returns the blobs of height: those in its slot, and in empty slots before it.
func (n *node) blobsOf(height uint64) []Blob {
	da, known := n.da.status(n.ticked)
	if !known {
		return nil
	}
	return n.da.blobs(da.SlotOf(height-1), da.SlotOf(height))
}

func (n *node) logCommit(before uint64) {
	every, height := n.cfg.Mock.LogEvery, n.state.Height
	switch {
	case every == 0:
		n.log.info("Committed", "height", height, "soft_height", n.soft, "state_root", n.state.StateRoot)
	case height/every > before/every:
		n.log.info("Committed", "height", height, "soft_height", n.soft)
	}
}

// syncing reports whether the node is far behind the head.
func (n *node) syncing(da DAStatus) bool {
	return n.soft+syncingBehind < n.softLimit(da.HeightAt(da.CurrentSlot))
}

// look publishes what the HTTP server shows.
func (n *node) look(now time.Time) {
	da, known := n.da.status(now)
	seen := view{
		soft: n.soft, durable: n.state.Height, root: n.state.StateRoot, da: da, known: known,
		leader: n.leading(now), softSlot: n.soft, headSlot: da.CurrentSlot,
	}
	if known {
		seen.softSlot = da.SlotOf(n.soft)
		seen.syncing = n.syncing(da)
	}
	seen.atStop = n.args.stop != nil && n.soft >= *n.args.stop
	n.view.Store(&seen)
}

func (v *view) slotHash(slot uint64) string {
	return hashOf("slot", fmt.Sprint(v.da.GenesisUnixMS), slot)
}
