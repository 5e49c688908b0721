package mockrollup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// defaultLease is how long a leader leads without being heard of. It has to outlast a restart under an orchestrator's
// first back-off, since who has won leadership restarts.
const defaultLease = 5 * time.Second

// Leadership is who leads the sequencers of a network. Real ones agree on it through the database that they share.
type Leadership struct {
	// Holder is the leader's id, empty where nobody leads.
	Holder string `json:"holder"`
	// LeaseMS is for how long a claim holds, in milliseconds.
	LeaseMS int64 `json:"lease_ms"`
}

// leadership is a lease: who claims it while it is free has it, and keeps it by claiming it again in time. Its holder
// is durable where it has a path, the time is not: after a restart of the server the holder has a whole lease to be
// heard of.
type leadership struct {
	path   string
	lease  time.Duration
	holder string
	until  time.Time
}

func newLeadership(path string, lease time.Duration) *leadership {
	return &leadership{path: path, lease: lease}
}

func openLeadership(path string, lease time.Duration) (*leadership, error) {
	l := newLeadership(path, lease)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the leader: %w", err)
	}
	l.holder, l.until = strings.TrimSpace(string(text)), time.Now().Add(lease)
	return l, nil
}

func (l *leadership) at(now time.Time) Leadership {
	seen := Leadership{LeaseMS: l.lease.Milliseconds()}
	if now.Before(l.until) {
		seen.Holder = l.holder
	}
	return seen
}

// claim gives id the lease, or a new one, unless another has it.
func (l *leadership) claim(id string, now time.Time) error {
	if holder := l.at(now).Holder; holder != "" && holder != id {
		return nil
	}
	if err := l.record(id); err != nil {
		return err
	}
	l.until = now.Add(l.lease)
	return nil
}

// resign ends the lease of id, if it has it.
func (l *leadership) resign(id string, _ time.Time) error {
	if l.holder != id {
		return nil
	}
	return l.record("")
}

func (l *leadership) record(holder string) error {
	if holder != l.holder && l.path != "" {
		if err := renameio.WriteFile(l.path, []byte(holder+"\n"), 0o644); err != nil {
			return fmt.Errorf("cannot record the leader: %w", err)
		}
	}
	l.holder = holder
	return nil
}
