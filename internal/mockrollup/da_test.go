package mockrollup

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/ports"
)

func TestSlotsFollowTheClock(t *testing.T) {
	t.Parallel()
	genesis := time.UnixMilli(1_000_000)
	params := DAParams{GenesisUnixMS: genesis.UnixMilli(), BlockMS: 100, FinalityBlocks: 2}
	for _, row := range []struct {
		after            time.Duration
		current, isFinal uint64
	}{
		{-time.Hour, 0, 0},
		{0, 0, 0},
		{99 * time.Millisecond, 0, 0},
		{100 * time.Millisecond, 1, 0},
		{250 * time.Millisecond, 2, 0},
		{time.Second, 10, 8},
	} {
		status := params.At(genesis.Add(row.after))
		require.Equal(t, [2]uint64{row.current, row.isFinal}, [2]uint64{status.CurrentSlot, status.FinalizedSlot}, row.after)
	}
}

func TestSlotOfAHeightIsTheFirstThatBringsIt(t *testing.T) {
	t.Parallel()
	for every := range uint64(6) {
		params := DAParams{BlockMS: 1, EmptyEvery: every}
		for range 200 {
			slot := rand.Uint64N(1000) + 1
			height := params.HeightAt(slot)
			if every == 1 {
				require.Zero(t, height)
				continue
			}
			first := params.SlotOf(height)
			require.LessOrEqual(t, first, slot)
			require.Equal(t, height, params.HeightAt(first), "every %d, slot %d", every, slot)
			require.Less(t, params.HeightAt(first-1), height, "every %d, slot %d", every, slot)
		}
	}
}

func TestNodesThatCreateTheDAFileTogetherAgree(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "da.json")
	var all [16]DAParams
	var group sync.WaitGroup
	for i := range all {
		group.Go(func() {
			params, err := OpenDAFile(path, DAParams{GenesisUnixMS: int64(i + 1), BlockMS: 1})
			if err == nil {
				all[i] = params
			}
		})
	}
	group.Wait()
	for _, params := range all {
		require.Positive(t, params.GenesisUnixMS)
		require.Equal(t, all[0], params)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)
}

func TestBrokenDAFileIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{}", `{"genesis_unix_ms":1,"block_ms":0}`} {
		path := filepath.Join(t.TempDir(), "da.json")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := OpenDAFile(path, DAParams{GenesisUnixMS: 1, BlockMS: 1})
		require.ErrorContains(t, err, "da.json", text)
	}
}

func TestNodeMakesNoProgressWhileTheDALayerIsAway(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	daPort := ports.Hold(t)
	address := fmt.Sprintf("127.0.0.1:%d", daPort)
	config := c.config("v0", func(cfg *Config) {
		cfg.Mock.DA.File, cfg.Mock.DA.Address = "", "http://"+address
	})
	node := c.start(config)
	node.prints("the DA layer cannot be reached")
	require.Zero(t, softHeight(c.port))

	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(DAHandler(DAParams{GenesisUnixMS: time.Now().UnixMilli(), BlockMS: 20, FinalityBlocks: 2}))
	server.Listener = listener
	server.Start()
	defer server.Close()
	node.until("makes blocks", func() bool { return softHeight(c.port) > 3 })
	server.CloseClientConnections()
	server.Close()
	node.until("misses it again", func() bool {
		return strings.Count(node.stdout.String(), "the DA layer cannot be reached") == 2
	})
	node.signal(syscall.SIGTERM)
	node.exits(0)
}

func TestDAServerServesItsChain(t *testing.T) {
	t.Parallel()
	port := ports.Hold(t)
	file := filepath.Join(t.TempDir(), "da.json")
	p := run(t, "da", "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--block-time", "10ms", "--finality", "3", "--file", file)
	p.prints("DA server listens")
	status, err := queryDA(t.Context(), http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/", port))
	require.NoError(t, err)
	params, err := readDAFile(file)
	require.NoError(t, err)
	require.Equal(t, params, status.DAParams)
	require.Equal(t, uint64(3), status.FinalityBlocks)
	p.signal(syscall.SIGTERM)
	p.exits(0)
}
