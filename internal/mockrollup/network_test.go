package mockrollup

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rollup-entrypoint/test/ports"
)

// network is a DA server and nodes that follow it.
type network struct {
	t    *testing.T
	dir  string
	port uint16
	args []string
	da   *process
}

// newNetwork starts a DA server with further arguments.
func newNetwork(t *testing.T, args ...string) *network {
	t.Helper()
	port := ports.Hold(t)
	dir := t.TempDir()
	w := &network{t: t, dir: dir, port: port}
	w.args = append([]string{
		"da", "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--block-time", "50ms", "--file", filepath.Join(dir, "da.json"),
	}, args...)
	w.startDA()
	return w
}

func (w *network) startDA() {
	w.t.Helper()
	w.da = run(w.t, w.args...)
	w.da.prints("DA server listens")
}

func (w *network) address(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/%s", w.port, path)
}

// do sends a request to the DA server and returns the answer.
func (w *network) do(method, path, body string) string {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.address(path), strings.NewReader(body))
	require.NoError(w.t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(w.t, err)
	defer response.Body.Close()
	var text json.RawMessage
	require.NoError(w.t, json.NewDecoder(response.Body).Decode(&text))
	return string(text)
}

func (w *network) leader() string {
	w.t.Helper()
	var seen Leadership
	require.NoError(w.t, json.Unmarshal([]byte(w.do(http.MethodGet, "leader", "")), &seen))
	return seen.Holder
}

// member is a node of the network, with a state of its own.
type member struct {
	*chain
	w    *network
	name string
}

func (w *network) member(name string) *member {
	c := newChain(w.t)
	return &member{chain: c, w: w, name: name}
}

func (m *member) version(label string, version uint64) string {
	return m.config(label, func(cfg *Config) {
		cfg.Mock.StateVersion, cfg.Mock.Salt = version, label
		cfg.Mock.Role, cfg.Mock.NodeID = roleAuto, m.name
		cfg.Mock.DA.File, cfg.Mock.DA.Address = "", m.w.address("")
	})
}

func (m *member) readyStatus() int {
	status, _, _ := get(m.port, "/sequencer/ready")
	return status
}

func (m *member) leads(p *process) {
	m.t.Helper()
	p.until("leads", func() bool { return m.readyStatus() == http.StatusOK })
}

// slotRoot returns the state root of a slot that is final, or nothing.
func slotRoot(port uint16, slot uint64) string {
	status, body, err := get(port, fmt.Sprintf("/ledger/slots/%d", slot))
	if err != nil || status != http.StatusOK {
		return ""
	}
	var answer struct {
		Number    uint64 `json:"number"`
		StateRoot string `json:"state_root"`
	}
	if json.Unmarshal([]byte(body), &answer) != nil || answer.Number != slot {
		return ""
	}
	return answer.StateRoot
}

// knows waits until the node reports the roots up to slot, and returns them.
func (m *member) knows(p *process, slot uint64) (all []string) {
	m.t.Helper()
	p.until(fmt.Sprintf("has slot %d", slot), func() bool { return slotRoot(m.port, slot) != "" })
	for s := range slot + 1 {
		all = append(all, slotRoot(m.port, s))
	}
	return all
}

func TestNodesThatUpgradeAlikeHaveTheSameRootInEachSlot(t *testing.T) {
	t.Parallel()
	w := newNetwork(t)
	var all [][]string
	for _, name := range []string{"a", "b"} {
		m := w.member(name)
		m.start(m.version("v0", 0), "--stop-at-rollup-height", "4").exits(0)
		v1 := m.version("v1", 1)
		run(t, "migrate", "--rollup-config-path", v1).exits(0)
		all = append(all, m.knows(m.start(v1, "--start-at-rollup-height", "5"), 8))
	}
	require.Equal(t, all[0], all[1])
	require.NotContains(t, all[0], "")
}

// rootsOf runs the steps of one node's life on the DA file and returns its roots up to height 8.
func rootsOf(t *testing.T, da string, steps func(c *chain, version func(label string, version uint64) string)) []string {
	t.Helper()
	c := newChain(t)
	steps(c, func(label string, version uint64) string {
		return c.config(label, func(cfg *Config) {
			cfg.Mock.DA.File, cfg.Mock.StateVersion, cfg.Mock.Salt = da, version, label
		})
	})
	state := c.read()
	require.Equal(t, uint64(8), state.Height)
	kept, err := openRoots(c.state(), false)
	require.NoError(t, err)
	defer kept.close()
	var all []string
	for height := range state.Height + 1 {
		root, known := kept.get(height)
		require.True(t, known, height)
		all = append(all, root)
	}
	return all
}

func TestNodeThatUpgradedWronglyDivergesInEachHeightFromThereOn(t *testing.T) {
	t.Parallel()
	da := filepath.Join(t.TempDir(), "da.json")
	right := rootsOf(t, da, func(c *chain, version func(string, uint64) string) {
		c.start(version("v0", 0), "--stop-at-rollup-height", "4").exits(0)
		c.migrate(version("v1", 1)).exits(0)
		c.start(version("v1", 1), "--start-at-rollup-height", "5", "--stop-at-rollup-height", "6").exits(0)
		c.start(version("v2", 1), "--start-at-rollup-height", "7", "--stop-at-rollup-height", "8").exits(0)
	})
	for _, row := range []struct {
		name string
		from int
		life func(c *chain, version func(string, uint64) string)
	}{
		{"no upgrade at all", 5, func(c *chain, version func(string, uint64) string) {
			c.start(version("v0", 0), "--stop-at-rollup-height", "8").exits(0)
		}},
		{"the migration is skipped by a binary that does not mind", 5, func(c *chain, version func(string, uint64) string) {
			c.start(version("v0", 0), "--stop-at-rollup-height", "4").exits(0)
			c.start(version("v1", 0), "--stop-at-rollup-height", "6").exits(0)
			c.start(version("v2", 0), "--stop-at-rollup-height", "8").exits(0)
		}},
		{"migrated too early", 4, func(c *chain, version func(string, uint64) string) {
			c.start(version("v0", 0), "--stop-at-rollup-height", "3").exits(0)
			c.migrate(version("v1", 1)).exits(0)
			c.start(version("v1", 1), "--stop-at-rollup-height", "6").exits(0)
			c.start(version("v2", 1), "--stop-at-rollup-height", "8").exits(0)
		}},
		{"migrated too early, and the old binary continues", 4, func(c *chain, version func(string, uint64) string) {
			c.start(version("v0", 0), "--stop-at-rollup-height", "3").exits(0)
			c.migrate(version("v1", 1)).exits(0)
			c.start(version("v0", 0), "--stop-at-rollup-height", "4").exits(0)
			c.start(version("v1", 1), "--stop-at-rollup-height", "6").exits(0)
			c.start(version("v2", 1), "--stop-at-rollup-height", "8").exits(0)
		}},
		{"migrated too late", 5, func(c *chain, version func(string, uint64) string) {
			c.start(version("v0", 0), "--stop-at-rollup-height", "5").exits(0)
			c.migrate(version("v1", 1)).exits(0)
			c.start(version("v1", 1), "--stop-at-rollup-height", "6").exits(0)
			c.start(version("v2", 1), "--stop-at-rollup-height", "8").exits(0)
		}},
		{"the version without a migration is left out", 7, func(c *chain, version func(string, uint64) string) {
			c.start(version("v0", 0), "--stop-at-rollup-height", "4").exits(0)
			c.migrate(version("v1", 1)).exits(0)
			c.start(version("v1", 1), "--stop-at-rollup-height", "8").exits(0)
		}},
		{"a late binary writes the genesis", 0, func(c *chain, version func(string, uint64) string) {
			c.start(version("v2", 1), "--stop-at-rollup-height", "8").exits(0)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			wrong := rootsOf(t, da, row.life)
			require.Equal(t, right[:row.from], wrong[:row.from])
			for height := row.from; height < len(right); height++ {
				require.NotEqual(t, right[height], wrong[height], "height %d", height)
			}
		})
	}
}

func TestRootsOfPastSlotsAreReportedAfterARestart(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	config := c.config("v0", func(cfg *Config) { cfg.Mock.DA.EmptyEvery = 3 })
	c.start(config, "--stop-at-rollup-height", "6").exits(0)
	p := c.start(config)
	p.until("reports slot 7", func() bool { return slotRoot(c.port, 7) != "" })
	require.NotEqual(t, slotRoot(c.port, 1), slotRoot(c.port, 2))
	require.Equal(t, slotRoot(c.port, 2), slotRoot(c.port, 3), "an empty slot changes nothing")
	require.Equal(t, GenesisState(0, "v0", "").StateRoot, slotRoot(c.port, 0))
	require.Empty(t, slotRoot(c.port, 1<<40), "a slot to come")
	for _, path := range []string{"/ledger/slots/", "/ledger/slots/-1", "/ledger/slots/x", "/ledger/slot/1"} {
		status, _, err := get(c.port, path)
		require.NoError(t, err)
		require.Equal(t, http.StatusNotFound, status, path)
	}
}

func TestRootsAreKeptInARing(t *testing.T) {
	t.Parallel()
	r, err := openRoots(t.TempDir(), true)
	require.NoError(t, err)
	defer r.close()
	_, known := r.get(0)
	require.False(t, known, "nothing was written")
	root := func(height uint64) string { return hashOf("test", "", height) }
	const first = rootsKept - 2
	var list []string
	for height := uint64(first); height < first+5; height++ {
		list = append(list, root(height))
	}
	require.NoError(t, r.put(first, list))
	for height := uint64(first); height < first+5; height++ {
		got, known := r.get(height)
		require.True(t, known, height)
		require.Equal(t, root(height), got, height)
	}
	for _, height := range []uint64{0, 1, 5, first - 1, first + 5, first + rootsKept} {
		_, known := r.get(height)
		require.False(t, known, height)
	}
	require.ErrorContains(t, r.put(7, []string{"0x00"}), "height 7")
}

func (m *member) submit(body string) int {
	m.t.Helper()
	text := fmt.Sprintf(`{"body":"%s"}`, base64.StdEncoding.EncodeToString([]byte(body)))
	response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/sequencer/txs", m.port), "application/json", strings.NewReader(text))
	require.NoError(m.t, err)
	require.NoError(m.t, response.Body.Close())
	return response.StatusCode
}

func TestTransactionsChangeTheRootOfAllNodesAlike(t *testing.T) {
	t.Parallel()
	w := newNetwork(t, "--empty-every", "3")
	a, b := w.member("a"), w.member("b")
	leader := a.start(a.version("v0", 0))
	a.leads(leader)
	replica := b.start(b.version("v0", 0))
	b.ready(replica)
	require.Equal(t, http.StatusServiceUnavailable, b.submit("to a replica"))
	for i := range 40 { // more than a page
		leader.until("takes a transaction", func() bool { return a.submit(fmt.Sprint("transfer ", i)) == http.StatusOK })
	}
	var status DAStatus
	require.NoError(t, json.Unmarshal([]byte(w.do(http.MethodGet, "", "")), &status))
	require.Equal(t, 40, status.Blobs)
	last := status.CurrentSlot + 2
	roots := a.knows(leader, last)
	require.Equal(t, roots, b.knows(replica, last))
	require.Equal(t, uint64(40), a.read().Transactions)

	without := GenesisState(0, "v0", "v0")
	without.advance(status.HeightAt(last), &Mock{Salt: "v0"}, func(uint64) []Blob { return nil })
	require.NotEqual(t, without.StateRoot, roots[last])

	// The blobs outlive the server, and who starts anew has them replayed.
	w.da.signal(syscall.SIGKILL)
	w.da.diesBy(syscall.SIGKILL)
	blobs := filepath.Join(w.dir, "da.json.blobs")
	text, err := os.ReadFile(blobs)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(blobs, append(text, `{"slot":`...), 0o644), "a torn line")
	w.startDA()
	c := w.member("c")
	require.Equal(t, roots, c.knows(c.start(c.version("v0", 0)), last))
	leader.until("takes another transaction", func() bool { return a.submit("after the restart") == http.StatusOK })
}

func TestTransactionThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	w := newNetwork(t)
	a := w.member("a")
	p := a.start(a.version("v0", 0))
	a.leads(p)
	for body, want := range map[string]int{
		"":             http.StatusBadRequest,
		`{"body":"!"}`: http.StatusBadRequest,
		`{"body":"` + strings.Repeat("AAAA", maxBlob/3+1) + `"}`: http.StatusServiceUnavailable,
	} {
		p.until("refuses", func() bool {
			response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/sequencer/txs", a.port), "application/json", strings.NewReader(body))
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			return response.StatusCode == want
		})
	}
	status, _, err := get(a.port, "/sequencer/txs")
	require.NoError(t, err)
	require.Equal(t, http.StatusMethodNotAllowed, status)
}

func TestDAInAFileTakesNoTransactions(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	p := c.start(c.config("v0", func(cfg *Config) { cfg.Mock.DA.BlockTime = time.Second }))
	m := &member{chain: c}
	m.leads(p)
	require.Equal(t, http.StatusServiceUnavailable, m.submit("x"))
}

func TestGetPrintsTheAnswer(t *testing.T) {
	t.Parallel()
	w := newNetwork(t)
	p := run(t, "get", "--url", w.address("leader")).exits(0)
	require.JSONEq(t, `{"holder":"","lease_ms":5000}`, p.stdout.String())
	p = run(t, "get", "--url", w.address("blobs")).exits(1)
	require.Contains(t, p.stderr.String(), "400 Bad Request")
}
