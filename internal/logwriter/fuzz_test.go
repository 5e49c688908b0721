package logwriter

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What is read is what was written, in order, and each of our lines begins a line.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("INFO one\n|node says|node goes on\n|\n|"), uint8(0b0101))
	f.Add([]byte("no end|our line\n|more||\n"), uint8(0b0010))
	f.Add(bytes.Repeat([]byte("a line of a node\n|"), 300), uint8(0xaa))
	f.Fuzz(func(t *testing.T, text []byte, ours uint8) {
		synctest.Test(t, func(t *testing.T) {
			r := &reader{}
			w := New(r)
			defer close(w.wake)
			var want []byte
			for i, p := range bytes.Split(text, []byte("|")) {
				own := ours&(1<<(i%8)) != 0
				to := w.Write
				if own {
					to = w.Lines().Write
					if len(p) > 0 && len(want) > 0 && !bytes.HasSuffix(want, []byte("\n")) {
						want = append(want, '\n')
					}
				}
				if n, err := to(slices.Clone(p)); n != len(p) || err != nil {
					t.Fatalf("wrote %d of %d bytes: %v", n, len(p), err)
				}
				want = append(want, p...)
			}
			w.Flush(time.Minute)
			if got := r.text(); got != string(want) {
				t.Fatalf("read %q, want %q", got, want)
			}
		})
	})
}
