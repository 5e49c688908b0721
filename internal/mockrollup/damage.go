package mockrollup

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

const (
	// damageText is what a real node prints when its databases disagree and rolling one back did not help.
	damageText = "Fix didn't help, historical state root hashes are not equal to NOMT state root hashes. Manual intervention is required."
	// tornGenesisText is what a real node prints on a state whose genesis was interrupted.
	tornGenesisText = "Runtime initialization must succeed token ID token_1mock already exists"

	// committingFile is in the state folder while a commit is half done.
	committingFile = "committing"
)

// checkDamage opens an existing state. A node compares the databases in its own format and "repairs" what does not
// match, so a state of another format is lost from then on, even for the version that wrote it.
func (n *node) checkDamage() error {
	if n.state.Damaged == "" {
		n.state.Damaged = n.damage()
		if n.state.Damaged == "" {
			return nil
		}
		n.store.fsync = true // no power cut heals a state
		if err := n.store.commit(n.state); err != nil {
			return err
		}
		n.journal.add(Entry{Event: EventDamaged, Height: n.state.Height, Reason: n.state.Damaged})
	}
	return refuse("%s", damageText)
}

// damage returns what is wrong with the state from now on; it is empty if the state is sound.
func (n *node) damage() string {
	if height := n.store.committing(); height != "" {
		return "a node was killed while it committed height " + height
	}
	if mock := &n.cfg.Mock; n.state.Format != mock.Format {
		return fmt.Sprintf("opened by %s, whose format is %q; the state's was %q", mock.Label, mock.Format, n.state.Format)
	}
	return ""
}

// committing returns the height of an unfinished commit, or "".
func (s *store) committing() string {
	text, err := os.ReadFile(filepath.Join(s.dir, committingFile))
	height := strings.TrimSpace(string(text))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case height == "": // killed just after the marker was created
		return "unknown"
	}
	return height
}

func (s *store) beginCommit(height uint64) error {
	if err := s.writeSynced(filepath.Join(s.dir, committingFile), fmt.Appendln(nil, height)); err != nil {
		return fmt.Errorf("cannot begin the commit of height %d: %w", height, err)
	}
	return s.syncDir(s.dir)
}

func (s *store) endCommit() error {
	if err := os.Remove(filepath.Join(s.dir, committingFile)); err != nil {
		return fmt.Errorf("cannot end the commit: %w", err)
	}
	return s.syncDir(s.dir)
}

// unsettle decides after a commit whether a kill damages the state from now on, until the next one.
func (n *node) unsettle() error {
	rate := n.cfg.Mock.DamageRate
	if da, known := n.da.status(n.ticked); known && n.syncing(da) {
		rate = n.cfg.Mock.ResyncDamageRate
	}
	if rand.Float64() >= rate {
		n.settle()
		return nil
	}
	n.unsettled = true
	return n.store.beginCommit(n.state.Height)
}

// settle ends the time in which a kill damages the state.
func (n *node) settle() {
	if n.unsettled {
		n.unsettled = false
		_ = n.store.endCommit() // DamageOnKill may have ended it
	}
}
