package simulation

import "rollup-entrypoint/sequencer"

// known are shortcomings of the sequence that this simulation has found and that are not mended. Where one is true the
// simulation looks away, narrowly, so that what lies behind it is found too.
var known = struct {
	// overrunUnseen: version i was handed over to without proof of the durable height, so that version i-1 had to run on.
	// Its node then ran past the stop height, and the entrypoint ended before it could say so. At the next start nothing
	// tells these blocks from those of a node of version i that was killed before it told a height. It takes a node that
	// overruns, and two more faults at the right moments.
	overrunUnseen bool
}{
	overrunUnseen: true,
}

// overrunUnseen reports whether the state has blocks of a version that ran past its stop height, and whose end the
// checkpoint does not have as proven.
func (w *world) overrunUnseen() bool {
	c := w.disk.read()
	if !known.overrunUnseen || !w.volume.overran || c == nil {
		return false
	}
	for _, m := range w.state.made {
		if stop := w.plan.Versions[m.By].Stop; stop > 0 && m.To > stop {
			for _, done := range c.History {
				if done.VersionIndex == m.By && done.Proof == sequencer.ProofDurable {
					return false
				}
			}
			return true
		}
	}
	return false
}
