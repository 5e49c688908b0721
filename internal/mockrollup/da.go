package mockrollup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// DAParams determine a whole chain of DA blocks: slot n exists from genesis + n*block_ms on. Nothing else is stored, so
// every node, even one that was wiped, derives the same chain from the clock.
type DAParams struct {
	GenesisUnixMS  int64  `json:"genesis_unix_ms"`
	BlockMS        int64  `json:"block_ms"`
	FinalityBlocks uint64 `json:"finality_blocks"`
	EmptyEvery     uint64 `json:"empty_every,omitempty"`
}

// DAStatus is the chain at one moment.
type DAStatus struct {
	DAParams
	CurrentSlot   uint64 `json:"current_slot"`
	FinalizedSlot uint64 `json:"finalized_slot"`
	// Blobs is how many blobs there are in all slots, up to the newest.
	Blobs int `json:"blobs,omitempty"`
}

// At returns the chain at t.
func (p DAParams) At(t time.Time) DAStatus {
	var head uint64
	if age := t.UnixMilli() - p.GenesisUnixMS; age > 0 {
		head = uint64(age / p.BlockMS)
	}
	return DAStatus{DAParams: p, CurrentSlot: head, FinalizedSlot: head - min(head, p.FinalityBlocks)}
}

// HeightAt returns the rollup height at slot: the number of slots since genesis that are not empty.
func (p DAParams) HeightAt(slot uint64) uint64 {
	if p.EmptyEvery == 0 {
		return slot
	}
	return slot - slot/p.EmptyEvery
}

// SlotOf returns the slot that brought rollup height h.
func (p DAParams) SlotOf(h uint64) uint64 {
	if p.EmptyEvery < 2 || h == 0 {
		return h
	}
	return h + (h-1)/(p.EmptyEvery-1)
}

func (p DAParams) check() error {
	if p.GenesisUnixMS <= 0 || p.BlockMS <= 0 {
		return errors.New("genesis_unix_ms and block_ms must be positive")
	}
	return nil
}

func (d DAConfig) params(genesis time.Time) DAParams {
	return DAParams{
		GenesisUnixMS: genesis.UnixMilli(), BlockMS: d.BlockTime.Milliseconds(),
		FinalityBlocks: d.Finality, EmptyEvery: d.EmptyEvery,
	}
}

// OpenDAFile returns the chain in the file at path. If there is none yet, it becomes fresh. Several processes may do
// this at once: the first link wins, and all of them read the winner's.
func OpenDAFile(path string, fresh DAParams) (DAParams, error) {
	params, err := readDAFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return params, err
	}
	if err := createDAFile(path, fresh); err != nil {
		return DAParams{}, fmt.Errorf("cannot create the DA file %s: %w", path, err)
	}
	return readDAFile(path)
}

func readDAFile(path string) (DAParams, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return DAParams{}, fmt.Errorf("cannot read the DA file: %w", err)
	}
	var params DAParams
	if err := json.Unmarshal(text, &params); err != nil {
		return DAParams{}, fmt.Errorf("cannot read the DA file %s: %w", path, err)
	}
	if err := params.check(); err != nil {
		return DAParams{}, fmt.Errorf("cannot use the DA file %s: %w", path, err)
	}
	return params, nil
}

// createDAFile links a complete temporary file to path. Unlike a rename, that never replaces a file that another
// process has made in the meantime, and nobody ever sees half a file.
func createDAFile(path string, params DAParams) error {
	if err := params.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // after the link it is only clutter
	encodeErr := json.NewEncoder(temp).Encode(params)
	if err := errors.Join(encodeErr, temp.Chmod(0o644), temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
