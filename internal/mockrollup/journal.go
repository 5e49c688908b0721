package mockrollup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const journalFile = "journal.jsonl"

// Kinds of processes, and events in their lives, as the journal has them.
const (
	KindNode      = "node"
	KindMigration = "migration"
	KindWorker    = "worker"

	EventStart   = "start"
	EventReady   = "ready"
	EventHeight  = "height"
	EventRefused = "refused"
	// EventDamaged is a node that damaged the state, or was the first to find it damaged by a kill.
	EventDamaged = "damaged"
	EventSignal  = "signal"
	EventExit    = "exit"
)

// Entry is one line of the journal in the state folder. A process that was killed has a start and no exit.
type Entry struct {
	Time   time.Time `json:"time"`
	PID    int       `json:"pid"`
	Kind   string    `json:"kind"`
	Label  string    `json:"label"`
	Event  string    `json:"event"`
	Args   []string  `json:"args,omitempty"`
	Height uint64    `json:"height"`
	Soft   uint64    `json:"soft_height,omitempty"`
	// Code is only in exits; after a signal that the node sent itself (crash_signal), it is 128 plus the number.
	Code   *int   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// ReadJournal returns the entries of the state folder dir, oldest first; none if there is no journal.
func ReadJournal(dir string) ([]Entry, error) {
	path := filepath.Join(dir, journalFile)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	if len(bytes.TrimSpace(text)) == 0 { // there is none, or its first writer was killed before it wrote
		return nil, nil
	}
	var entries []Entry
	for number, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		var entry Entry
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("cannot read the journal %s, line %d: %w", path, number+1, err)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// Run is one process, from its start to its exit.
type Run struct {
	Start   Entry
	Refused *Entry
	// Damaged is set for the process that made the state a damaged one, or was the first to find it so.
	Damaged *Entry
	// Exit is nil for a process that still runs, or was killed.
	Exit *Entry
}

// Runs groups the entries by process, in the order of their starts.
func Runs(entries []Entry) []Run {
	var runs []Run
	latest := map[int]int{}
	for _, entry := range entries {
		if entry.Event == EventStart {
			latest[entry.PID] = len(runs)
			runs = append(runs, Run{Start: entry})
			continue
		}
		index, known := latest[entry.PID]
		if !known {
			continue
		}
		switch entry.Event {
		case EventRefused:
			runs[index].Refused = &entry
		case EventDamaged:
			runs[index].Damaged = &entry
		case EventExit:
			runs[index].Exit = &entry
		}
	}
	return runs
}

// Overlap returns the first run that began while another was alive, or nil. A killed process has no exit in the
// journal, so that what counts is the lock: a run that found it taken says so.
func Overlap(entries []Entry) *Run {
	for _, run := range Runs(entries) {
		if run.Refused != nil && run.Refused.Reason == errLocked.Error() {
			return &run
		}
	}
	return nil
}

// journal appends to journal.jsonl. Each entry is one write to a file opened with O_APPEND, so that lines of several
// processes never mix. The zero value writes nothing.
type journal struct {
	file  *os.File
	base  Entry
	every bool
}

func openJournal(dir, mode string, base Entry) (*journal, error) {
	if mode == "off" {
		return &journal{}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot create the folder of the journal: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal: %w", err)
	}
	base.PID = os.Getpid()
	return &journal{file: file, base: base, every: mode == "heights"}, nil
}

// add writes entry, completed with what is the same in each. A journal that cannot be written is no reason for a node
// to stop: a full disk must show in the state, where it does in a real one.
func (j *journal) add(entry Entry) {
	if j.file == nil || (entry.Event == EventHeight && !j.every) {
		return
	}
	entry.Time, entry.PID, entry.Kind, entry.Label = time.Now().UTC(), j.base.PID, j.base.Kind, j.base.Label
	text, err := json.Marshal(entry)
	if err != nil {
		return
	}
	_, _ = j.file.Write(append(text, '\n'))
}

func (j *journal) exit(code int, height, soft uint64, reason string) {
	j.add(Entry{Event: EventExit, Code: &code, Height: height, Soft: soft, Reason: reason})
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
	}
}
