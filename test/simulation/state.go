package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// state is the storage directory: the rollup's durable state, and the stamp beside it, which is copied, restored and wiped
// with it. A power cut keeps what a node has committed: that is the node's business, not ours. What a migration wrote is
// durable only once it was synced.
type state struct {
	exists bool
	// height is the durable rollup height, in blocks.
	height uint64
	// format is the release whose format the state has, -1 without a state. Any other release destroys it by opening it.
	format int
	// damaged: no node can open it any more.
	damaged bool
	// half is the release whose migration has rewritten a part of it, -1 for none.
	half int
	// migrated counts the completed runs of each release's migration, begun all of them.
	migrated, begun []int
	// made says who made which blocks, lowest first. Those up to trusted are not looked at: the plan was another one then,
	// and the network has followed it.
	made    []made
	trusted uint64
	// excused: the operator's height slack has let a version end below its stop height.
	excused bool
	// hooked: the hook before the next version is recorded as done, and no node has run since.
	hooked bool
	// upFor is for how long at most a node has served since the last undo point was made.
	upFor time.Duration
	// madeAsked: a node that was only asked has come up since then.
	madeAsked bool
	// described: the description of an undo point is in it, which is being put back.
	described bool
	// stamp is the file rollup-version.json.
	stamp stampFile
	// unsynced is the state before a migration whose writes were not synced yet; nil for none.
	unsynced *state
}

// made: blocks up to height To, from where the one before ends, were made by the release By.
type made struct {
	To uint64
	By int
}

// mostReleases is how many there may be in a life: their number is one digit of a path.
const mostReleases = 9

func emptyState() state {
	return state{half: -1, format: -1, migrated: make([]int, mostReleases), begun: make([]int, mostReleases)}
}

func (s state) clone() state {
	s.migrated, s.begun, s.made = slices.Clone(s.migrated), slices.Clone(s.begun), slices.Clone(s.made)
	s.unsynced = nil
	return s
}

// advance makes the state durable up to height, by a release.
func (s *state) advance(height uint64, by int) {
	if height <= s.height {
		return
	}
	s.height = height
	if n := len(s.made); n > 0 && s.made[n-1].By == by {
		s.made[n-1].To = height
		return
	}
	s.made = append(s.made, made{height, by})
}

// powerCut loses what a migration has written and nobody has synced: all of it, a part of it, or nothing.
func (s *state) powerCut(draw int) (lost bool) {
	before := s.unsynced
	s.unsynced = nil
	if before == nil || draw == 0 {
		return false
	}
	release := s.half
	if release < 0 {
		release = s.format
	}
	if draw == 1 {
		s.half, s.format, s.migrated = release, before.format, before.migrated
		return true
	}
	stamp, begun, trusted := s.stamp, s.begun, s.trusted // they have a life of their own
	*s = *before
	s.stamp, s.begun, s.trusted = stamp, begun, trusted
	return true
}

// wrongBlocks finds a block that was not made by the version to which the plan gives it.
func (w *world) wrongBlocks(s *state) string {
	if s.excused {
		return ""
	}
	from := uint64(1)
	for _, m := range s.made {
		if i := w.index(m.By); i >= 0 && m.To > s.trusted {
			v := w.plan.Versions[i]
			if max(from, s.trusted+1) < v.Start || (v.Stop > 0 && m.To > v.Stop) {
				return fmt.Sprintf("version %d made blocks %d to %d, its own are %d to %d", i, from, m.To, v.Start, v.Stop)
			}
		}
		from = m.To + 1
	}
	return ""
}

func (s *state) String() string {
	if !s.exists {
		return "empty"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "height %d, format of release %d", s.height, s.format)
	if s.half >= 0 {
		fmt.Fprintf(&b, ", half migrated to %d", s.half)
	}
	if s.damaged {
		b.WriteString(", damaged")
	}
	if s.excused {
		b.WriteString(", excused")
	}
	return b.String()
}
