package mockrollup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
)

const (
	// maxBlob is the size of the largest blob, in bytes.
	maxBlob = 4 << 10
	// blobPage is how many blobs the DA server gives in one answer.
	blobPage = 32
	// blobAnswerLimit has room for a page of the largest blobs in base64, and what is around them.
	blobAnswerLimit = blobPage * 2 * maxBlob
)

// Blob is what somebody put into a slot of the DA chain.
type Blob struct {
	Slot uint64 `json:"slot"`
	Data []byte `json:"data"`
}

// blobsBetween returns the blobs of the slots above after, up to upTo. all is in the order of slots.
func blobsBetween(all []Blob, after, upTo uint64) []Blob {
	first := sort.Search(len(all), func(i int) bool { return all[i].Slot > after })
	end := sort.Search(len(all), func(i int) bool { return all[i].Slot > upTo })
	return all[first:max(first, end)]
}

// blobFile keeps all blobs of a chain in memory and, if it has a file, as lines there. The zero value has none.
type blobFile struct {
	all  []Blob
	file *os.File
}

// openBlobs reads the blobs in the file at path. An unfinished last line was never acknowledged, so it is cut off.
func openBlobs(path string) (*blobFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the blobs: %w", err)
	}
	b := &blobFile{file: file}
	if err := b.load(); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("cannot read the blobs %s: %w", path, err)
	}
	return b, nil
}

func (b *blobFile) load() error {
	text, err := io.ReadAll(b.file)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	for line := range bytes.Lines(text[:whole]) {
		var blob Blob
		if err := json.Unmarshal(line, &blob); err != nil {
			return fmt.Errorf("line %d: %w", len(b.all)+1, err)
		}
		b.all = append(b.all, blob)
	}
	if err := b.file.Truncate(int64(whole)); err != nil {
		return err
	}
	_, err = b.file.Seek(int64(whole), io.SeekStart)
	return err
}

// add makes blob durable before anybody sees it. Half a line must not stay before the next one.
func (b *blobFile) add(blob Blob) error {
	if b.file != nil {
		text, err := json.Marshal(blob)
		if err != nil {
			return fmt.Errorf("cannot encode the blob: %w", err)
		}
		end, err := b.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Errorf("cannot write the blob: %w", err)
		}
		if err := b.write(append(text, '\n')); err != nil {
			_, back := b.file.Seek(end, io.SeekStart)
			return fmt.Errorf("cannot write the blob: %w", errors.Join(err, back, b.file.Truncate(end)))
		}
	}
	b.all = append(b.all, blob)
	return nil
}

func (b *blobFile) write(line []byte) error {
	if _, err := b.file.Write(line); err != nil {
		return err
	}
	return b.file.Sync()
}

func (b *blobFile) page(after int) []Blob {
	rest := b.all[min(after, len(b.all)):]
	return append([]Blob{}, rest[:min(len(rest), blobPage)]...)
}

func (b *blobFile) lastSlot() uint64 {
	if len(b.all) == 0 {
		return 0
	}
	return b.all[len(b.all)-1].Slot
}

func (b *blobFile) close() {
	if b.file != nil {
		_ = b.file.Close()
	}
}
