package mockrollup

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	stateFile = "state.json"
	lockFile  = "lock"
)

// State is the durable state of a rollup: one height, one root, and their history.
type State struct {
	Height       uint64 `json:"height"`
	StateVersion uint64 `json:"state_version"`
	StateRoot    string `json:"state_root"`
	WrittenBy    string `json:"written_by"`
	// Format is the format of the version that wrote the state.
	Format string `json:"format,omitempty"`
	// Damaged is why no node opens this state any more. Only another state helps.
	Damaged string `json:"damaged,omitempty"`
	// Transactions is how many there were in all blocks.
	Transactions uint64 `json:"transactions,omitempty"`
	// Migrating is set while a migration is half done. No node opens such a state.
	Migrating  *HalfMigration    `json:"migrating,omitempty"`
	Migrations []MigrationRecord `json:"migrations"`
	// History says who wrote which heights, genesis (height 0) first.
	History []Segment `json:"history"`
}

// HalfMigration marks a state that a migration has started to rewrite.
type HalfMigration struct {
	From uint64 `json:"from_state_version"`
	To   uint64 `json:"to_state_version"`
}

// MigrationRecord is a completed migration, and the durable height at which it ran.
type MigrationRecord struct {
	Height uint64 `json:"height"`
	From   uint64 `json:"from_state_version"`
	To     uint64 `json:"to_state_version"`
	By     string `json:"by"`
}

// Segment is a range of heights that one version wrote. DiskVersion differs from BinaryVersion if an old binary
// continued on a newer state.
type Segment struct {
	From          uint64 `json:"from_height"`
	To            uint64 `json:"to_height"`
	BinaryVersion uint64 `json:"binary_state_version"`
	DiskVersion   uint64 `json:"disk_state_version"`
	By            string `json:"by"`
}

// ReadState returns the state in dir. It needs no lock: commits replace the file as a whole. If there is no state, the
// error is fs.ErrNotExist.
func ReadState(dir string) (State, error) {
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return State{}, fmt.Errorf("cannot read the state: %w", err)
	}
	var state State
	if err := json.Unmarshal(text, &state); err != nil {
		return State{}, fmt.Errorf("cannot read the state %s: %w", path, err)
	}
	return state, nil
}

// GenesisState is the state at height 0, as the binary with that state version and label commits it.
func GenesisState(version uint64, label, salt string) State {
	return State{
		StateVersion: version, WrittenBy: label, StateRoot: hashOf("genesis", salt, version),
		Migrations: []MigrationRecord{},
		History:    []Segment{{BinaryVersion: version, DiskVersion: version, By: label}},
	}
}

// NextRoot returns the state root of height h, written by a binary of that state version on top of the root prev.
func NextRoot(prev string, h, version uint64, salt string) string {
	return hashOf("block", prev+salt, h, version)
}

// ExecutedRoot returns what a block with blobs, each a transaction, builds on after the root prev.
func ExecutedRoot(prev string, blobs []Blob) string {
	for _, blob := range blobs {
		prev = hashOf("transaction", prev+string(blob.Data), blob.Slot)
	}
	return prev
}

// MigratedRoot returns the state root after a migration.
func MigratedRoot(prev string, from, to uint64) string {
	return hashOf("migration", prev, from, to)
}

func hashOf(what, text string, numbers ...uint64) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00", what, text)
	for _, n := range numbers {
		_ = binary.Write(h, binary.BigEndian, n)
	}
	return "0x" + hex.EncodeToString(h.Sum(nil))
}

// advance extends the state to height, as the binary described by cfg computes it from the blobs of each height, and
// returns the roots of the new heights.
func (s *State) advance(height uint64, cfg *Mock, blobsOf func(height uint64) []Blob) (roots []string) {
	first := s.Height + 1
	for s.Height < height {
		s.Height++
		blobs := blobsOf(s.Height)
		s.Transactions += uint64(len(blobs))
		s.StateRoot = NextRoot(ExecutedRoot(s.StateRoot, blobs), s.Height, cfg.StateVersion, cfg.Salt)
		roots = append(roots, s.StateRoot)
	}
	s.WrittenBy = cfg.Label
	last := &s.History[len(s.History)-1]
	if last.By == cfg.Label && last.BinaryVersion == cfg.StateVersion && last.DiskVersion == s.StateVersion {
		last.To = height
		return roots
	}
	s.History = append(s.History, Segment{
		From: first, To: height, BinaryVersion: cfg.StateVersion, DiskVersion: s.StateVersion, By: cfg.Label,
	})
	return roots
}

var errLocked = errors.New("the state is locked by another process")

// store is the opened state folder. Its lock lives as long as the process, even if that is killed.
type store struct {
	dir   string
	fsync bool
	lock  *os.File
}

func openStore(dir string, fsync bool) (*store, error) {
	path := filepath.Join(dir, lockFile)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	s := &store{dir: dir, fsync: fsync, lock: lock}
	// The folder may be new: a power cut would remove it, with everything that is synced in it.
	if err := s.syncDir(filepath.Dir(dir)); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *store) close() { _ = s.lock.Close() }

// commit makes state durable: after a crash, either the old or the new file is there, complete. It also syncs the
// folder: otherwise a power cut would bring the old name back.
func (s *store) commit(state State) error {
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("cannot encode the state: %w", err)
	}
	path := filepath.Join(s.dir, stateFile)
	if err := s.writeSynced(path+".tmp", append(text, '\n')); err != nil {
		return fmt.Errorf("cannot commit height %d: %w", state.Height, err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("cannot commit height %d: %w", state.Height, err)
	}
	return s.syncDir(s.dir)
}

func (s *store) writeSynced(path string, text []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if s.fsync && err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func (s *store) syncDir(path string) error {
	if !s.fsync {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// fired reports whether the fault that happens once has happened, at that height, in the life of this state.
func (s *store) fired(fault string, height uint64) bool {
	_, err := os.Stat(s.markerPath(fault, height))
	return err == nil
}

func (s *store) setFired(fault string, height uint64) error {
	if err := s.writeSynced(s.markerPath(fault, height), nil); err != nil {
		return err
	}
	return s.syncDir(s.dir)
}

func (s *store) markerPath(fault string, height uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("fired-%s-%d", fault, height))
}
