package undo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/sequencer/checkpoint"
)

// BenchmarkCopy copies a state by reading and writing, and by 'cp -a --sparse=always' with a sync of the file system
// after it, in turns. "x-cp" is the rate in relation to that of cp, without its sync "x-cp-unsynced". The state is in
// TMPDIR.
func BenchmarkCopy(b *testing.B) {
	dir := b.TempDir()
	state, other := filepath.Join(dir, "state"), filepath.Join(dir, "other")
	total := benchState(b, state)
	u := newUndo(b, Options{Storage: state, Mode: Copy})
	u.part, u.noReflink = partBytes, true
	var ours, cp, unsynced []time.Duration
	for b.Loop() {
		for range 5 {
			unix.Sync()
			began := time.Now()
			p, err := u.Make(b.Context(), pointToV1(), nil)
			ours = append(ours, time.Since(began))
			require.NoError(b, err)
			require.Equal(b, checkpoint.UndoCopy, p.Method)
			_, err = u.Drop()
			require.NoError(b, err)

			unix.Sync()
			began = time.Now()
			out, err := exec.Command("cp", "-a", "--sparse=always", "--reflink=never", state, other).CombinedOutput()
			unsynced = append(unsynced, time.Since(began))
			require.NoError(b, err, "%s", out)
			require.NoError(b, syncAll(b.Context(), other))
			cp = append(cp, time.Since(began))
			require.NoError(b, os.RemoveAll(other))
		}
	}
	b.ReportMetric(float64(total)/1e6/median(ours).Seconds(), "MB/s")
	b.ReportMetric(median(cp).Seconds()/median(ours).Seconds(), "x-cp")
	b.ReportMetric(median(unsynced).Seconds()/median(ours).Seconds(), "x-cp-unsynced")
	b.Logf("%s; copy %v, cp %v, of that without its sync %v", plain.Bytes(total), ours, cp, unsynced)
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// benchState has two large files, one with holes, and many small ones.
func benchState(b *testing.B, dir string) (bytes int64) {
	b.Helper()
	smallState(b, dir)
	random := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(random.Uint32())
	}
	for _, f := range []struct {
		name           string
		blocks, stride int64
	}{{"values", 400, 1}, {"history", 200, 1}, {"hash-table", 200, 7}} {
		file, err := os.Create(filepath.Join(dir, f.name))
		require.NoError(b, err)
		require.NoError(b, file.Truncate(f.blocks*f.stride<<20))
		for i := range f.blocks {
			_, err := file.WriteAt(block, i*f.stride<<20)
			require.NoError(b, err)
		}
		require.NoError(b, file.Close())
		bytes += f.blocks << 20
	}
	for i := range 5000 {
		size := 1 + random.IntN(32<<10)
		name := filepath.Join(dir, "small", fmt.Sprint(i%50), fmt.Sprint(i))
		require.NoError(b, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(b, os.WriteFile(name, block[:size], 0o600))
		bytes += int64(size)
	}
	unix.Sync()
	return bytes
}
