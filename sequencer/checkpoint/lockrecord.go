package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// recordSize is the size of a lock file. It never changes, so one write replaces the content: a reader never finds an
// empty file, or the end of a longer text.
const recordSize = 1024

// lockRecord is the content of a lock file: who took the lock. Earlier releases wrote pid and host only.
type lockRecord struct {
	life
	Host string `json:"host"`
	system
	// ID is that of the Store.
	ID string `json:"id,omitempty"`
	// Child is the process that it started last, if the holder is not process 1.
	Child *life `json:"child,omitempty"`
}

// fate is what has become of the process that wrote a record.
type fate int

const (
	// fateUnknown: it wrote in another pid namespace, or before a reboot, or nothing was written.
	fateUnknown fate = iota
	// fateElsewhere: it wrote on another host.
	fateElsewhere
	fateAlive
	fateGone
)

func newRecord(id string) lockRecord {
	r := lockRecord{life: life{Pid: os.Getpid()}, system: thisSystem(), ID: id}
	r.Host, _ = os.Hostname() // only for messages
	if self, err := lifeOf(r.Pid); self != nil && err == nil && r.system != (system{}) {
		r.life = *self
	}
	return r
}

// isOfThisSystem reports whether the pids in the record can be looked up here.
func (r lockRecord) isOfThisSystem() bool { return r.BootID != "" && r.system == thisSystem() }

// fate finds out whether the writer is alive.
func (r lockRecord) fate() fate {
	host, err := os.Hostname()
	alive := fateGone
	if r.Pid != 0 && r.isAlive() {
		alive = fateAlive
	}
	switch {
	case r.Pid == 0:
		return fateUnknown
	case r.isOfThisSystem():
		return alive
	case err != nil || r.Host != host:
		return fateElsewhere
	case r.BootID != "":
		return fateUnknown
	}
	return alive // an earlier release: only the host can be compared
}

// ErrForeignLock says that what has the name of a lock file was written by another program.
var ErrForeignLock = errors.New("this program did not write it, so it was left as it is")

// readRecord reads a lock file. While its holder writes, some file systems show a reader part of the old text and part of
// the new one, so what cannot be understood is read again.
func readRecord(lock *os.File) (r lockRecord, err error) {
	for range 5 {
		if r, err = readRecordOnce(lock); !errors.Is(err, ErrForeignLock) {
			break
		}
	}
	return r, err
}

// readRecordOnce reads a lock file. A new one is empty, and one that a power cut caught in its first write may be NUL bytes.
func readRecordOnce(lock *os.File) (lockRecord, error) {
	text, err := io.ReadAll(io.NewSectionReader(lock, 0, recordSize+1))
	if err != nil {
		return lockRecord{}, fmt.Errorf("cannot read the lock of the checkpoint: %w", err)
	}
	if len(text) <= recordSize && len(bytes.Trim(text, "\x00")) == 0 {
		return lockRecord{}, nil
	}
	var keys map[string]json.RawMessage
	var r lockRecord
	if len(text) > recordSize || json.Unmarshal(text, &keys) != nil || json.Unmarshal(text, &r) != nil {
		return lockRecord{}, ErrForeignLock
	}
	for _, life := range []*life{&r.life, r.Child} {
		// To kill(2) other numbers are groups, or it truncates them.
		if life != nil && (life.Pid < 1 || life.Pid > math.MaxInt32) {
			return lockRecord{}, ErrForeignLock
		}
	}
	if keys["pid"] == nil || keys["host"] == nil {
		return lockRecord{}, ErrForeignLock
	}
	return r, nil
}

// write replaces the content of a lock file in one write.
func (r lockRecord) write(lock *os.File) error {
	text, err := json.Marshal(r)
	if err == nil && len(text) >= recordSize {
		err = fmt.Errorf("the record has %d bytes, want at most %d", len(text), recordSize-1)
	}
	if err == nil {
		padding := bytes.Repeat([]byte(" "), recordSize-1-len(text))
		_, err = lock.WriteAt(append(append(text, padding...), '\n'), 0)
	}
	if err != nil {
		return fmt.Errorf("cannot write the lock of the checkpoint: %w", err)
	}
	return nil
}
