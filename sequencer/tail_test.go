package sequencer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pattern is n bytes of which any part shows where it belongs.
func pattern(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.Bytes()[:n]
}

func TestTailKeepsTheEndOfWhatWasWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		writes []int // sizes
	}{
		{"nothing", nil},
		{"nothing, written", []int{0}},
		{"a byte", []int{1}},
		{"a byte less than it holds", []int{tailSize - 1}},
		{"as much as it holds", []int{tailSize}},
		{"as much as it holds, and nothing", []int{tailSize, 0}},
		{"as much as it holds, and a byte", []int{tailSize, 1}},
		{"a byte more than it holds", []int{tailSize + 1}},
		{"filled up to the last byte", []int{tailSize - 1, 1}},
		{"filled over the end", []int{tailSize - 1, 2}},
		{"twice as much", []int{2 * tailSize}},
		{"as much, twice", []int{tailSize, tailSize}},
		{"a little, then as much", []int{7, tailSize}},
		{"a little, then more", []int{7, tailSize + 5}},
		{"more, then a little", []int{tailSize + 5, 7}},
		{"up to the end of the ring once more", []int{tailSize, 100, tailSize - 100, 1}},
		{"over the end of the ring once more", []int{tailSize, 100, tailSize - 99, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var total int
			for _, n := range test.writes {
				total += n
			}
			all, rest := pattern(total), pattern(total)
			var kept tail
			for _, n := range test.writes {
				written, err := kept.Write(rest[:n])
				require.NoError(t, err)
				require.Equal(t, n, written)
				rest = rest[n:]
			}
			require.Equal(t, string(all[max(0, total-tailSize):]), string(kept.bytes()))
		})
	}
}

func TestTailAgreesWithASimpleModel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test that can be run again
		var kept tail
		var model []byte
		for range 60 {
			size := random.IntN(tailSize / 8)
			if random.IntN(10) == 0 {
				size = tailSize - 2 + random.IntN(5) + random.IntN(2)*random.IntN(tailSize)
			}
			chunk := make([]byte, size)
			for i := range chunk {
				chunk[i] = byte(random.Uint32())
			}
			before := bytes.Clone(chunk)
			n, err := kept.Write(chunk)
			require.NoError(t, err)
			require.Equal(t, size, n)
			require.True(t, bytes.Equal(before, chunk), "a writer leaves its argument alone")
			clear(chunk) // and keeps no part of it
			model = append(model, before...)
			model = model[max(0, len(model)-tailSize):]
			require.True(t, bytes.Equal(model, kept.bytes()), "seed %d", seed)
		}
	}
}

func TestTailCanBeReadMoreThanOnce(t *testing.T) {
	var kept tail
	_, _ = kept.Write(pattern(tailSize + 10))
	first := kept.bytes()
	second := kept.bytes()
	require.True(t, bytes.Equal(first, second))
	clear(first)
	require.True(t, bytes.Equal(second, kept.bytes()), "what was given out is a copy")
}

func TestLastLinesAreQuotedWithoutBlankOnes(t *testing.T) {
	for _, test := range []struct {
		name, text string
		n          int
		want       string
	}{
		{"nothing", "", 3, ""},
		{"blank lines", "\n \r\n\t\n", 3, ""},
		{"fewer than wanted", "one\ntwo\n", 3, "one\ntwo"},
		{"as many", "one\ntwo\nthree\n", 3, "one\ntwo\nthree"},
		{"more", "one\ntwo\n\nthree\n\n\nfour\n", 3, "two\nthree\nfour"},
		{"without a line end", "one\ntwo", 1, "two"},
		{"CR LF and indentation", "  one\r\n\ttwo \r\n", 2, "one\ntwo"},
		{"none", "one\n", 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var kept tail
			_, _ = kept.Write([]byte(test.text))
			assert.Equal(t, test.want, kept.lastLines(test.n))
		})
	}
	t.Run("of a ring that went round", func(t *testing.T) {
		var kept tail
		_, _ = kept.Write([]byte(strings.Repeat("old line\n", tailSize)))
		_, _ = kept.Write([]byte("the last\n"))
		assert.Equal(t, "old line\nthe last", kept.lastLines(2))
	})
}

func TestTailIsReadWhileALeftoverProcessStillWrites(t *testing.T) {
	var kept tail
	_, _ = kept.Write(pattern(tailSize))
	var writers sync.WaitGroup
	writers.Go(func() {
		for range 100 {
			_, _ = kept.Write([]byte("one more line\n"))
		}
	})
	for range 20 {
		require.Len(t, kept.bytes(), tailSize) // under -race this also finds what is not locked
	}
	writers.Wait()
	require.Equal(t, "one more line", kept.lastLines(1))
}
