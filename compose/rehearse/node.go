package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	pollEvery   = 100 * time.Millisecond
	askTimeout  = 2 * time.Second
	answerLimit = 1 << 20
)

// client uses a new connection each time: one kept open would delay the end of a node.
var client = &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}

// nodeStatus is the part of /status that the rehearsal uses.
type nodeStatus struct {
	Phase        string `json:"phase"`
	Ready        bool   `json:"ready"`
	NotReady     string `json:"not_ready_because"`
	VersionIndex int    `json:"version_index"`
	Height       *struct{ Blocks uint64 }
	NextUpgrade  *struct {
		StopHeight uint64 `json:"stop_height"`
	} `json:"next_upgrade"`
	Versions []struct{ Migration string }
}

// migrates reports whether an upgrade to version has a migration.
func (s *nodeStatus) migrates(version int) bool {
	return version < len(s.Versions) && s.Versions[version].Migration != "none"
}

// node is a service that runs an entrypoint. Its goroutines record what they see.
type node struct {
	service   string
	published ports
	heights   *heightMap

	mu        sync.Mutex
	seen      *timeline
	status    nodeStatus
	statusAt  time.Time
	highest   uint64
	version   int
	progress  time.Time
	container string
	// down is set while the container is not expected to run.
	down bool
}

func newNode(service string, published ports) *node {
	return &node{service: service, published: published, seen: newTimeline(service), heights: newHeightMap()}
}

// with calls f with n locked.
func (n *node) with(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// begin forgets what was seen, for a new step or a new state.
func (n *node) begin() {
	n.with(func() {
		n.seen, n.status, n.statusAt = newTimeline(n.service), nodeStatus{}, time.Time{}
		n.highest, n.version, n.progress = 0, -1, time.Now()
	})
}

func (n *node) did(what string) {
	n.with(func() {
		n.seen.add(event{Time: time.Now(), Name: what})
		n.progress = time.Now()
		n.down = what != didStart
	})
}

// poll asks the node until ctx ends.
func (n *node) poll(ctx context.Context) {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var status nodeStatus
		if ask(ctx, n.statusURL("/status"), &status) != nil {
			continue
		}
		n.take(status)
		n.learnSlot(ctx)
	}
}

func (n *node) take(status nodeStatus) {
	n.with(func() {
		n.status, n.statusAt = status, time.Now()
		if status.Height != nil {
			n.seen.height(status.VersionIndex, status.Height.Blocks)
			n.rise(status.VersionIndex, status.Height.Blocks)
		}
	})
}

// rise notes progress: a new version or height.
func (n *node) rise(version int, height uint64) {
	if version > n.version || height > n.highest {
		n.progress = time.Now()
	}
	n.version, n.highest = max(n.version, version), max(n.highest, height)
}

// learnSlot asks the node for the slot of its height.
func (n *node) learnSlot(ctx context.Context) {
	var heights struct {
		Value *[2]uint64
		Data  struct{ Value *[2]uint64 }
	}
	if ask(ctx, n.apiURL("/modules/chain-state/state/current-heights/"), &heights) != nil {
		return
	}
	if heights.Value == nil {
		heights.Value = heights.Data.Value
	}
	if heights.Value != nil {
		n.with(func() { n.heights.learn(heights.Value[0], heights.Value[1]) })
	}
}

// line takes a line of the log.
func (n *node) line(at time.Time, text string) {
	n.with(func() {
		e, isEvent := n.seen.line(at, text)
		if !isEvent {
			return
		}
		switch e.Name {
		case "version started", "height known", "height confirmed", "version completed":
			version, height := n.version, n.highest
			if e.Version != nil {
				version = *e.Version
			}
			if e.Height != nil {
				height = *e.Height
			}
			n.rise(version, height)
		case "migration started", "migration still runs", "migration finished":
			n.progress = time.Now()
		}
	})
}

// root returns the state root of a slot, or nothing if the node does not report it yet, or no longer.
func (n *node) root(ctx context.Context, slot uint64) string {
	var answer struct {
		Number    uint64
		StateRoot string `json:"state_root"`
	}
	if ask(ctx, n.apiURL(fmt.Sprintf("/ledger/slots/%d", slot)), &answer) != nil || answer.Number != slot {
		return ""
	}
	return answer.StateRoot
}

func (n *node) statusURL(path string) string { return onLoopback(n.published.status, path) }
func (n *node) apiURL(path string) string    { return onLoopback(n.published.api, path) }

func onLoopback(port int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
}

// where says how far the node has come, in words that follow "is".
func (n *node) where() (text string) {
	n.with(func() {
		switch {
		case n.statusAt.IsZero():
			text = "without an answer from its entrypoint"
		case n.status.Height == nil:
			text = fmt.Sprintf("in phase %s of version %d, without a height", n.status.Phase, n.status.VersionIndex)
		default:
			text = fmt.Sprintf("at height %d of version %d, in phase %s", n.status.Height.Blocks, n.status.VersionIndex, n.status.Phase)
		}
		if n.status.NotReady != "" {
			text += " (" + n.status.NotReady + ")"
		}
	})
	return text
}

func (n *node) id() (id string) {
	n.with(func() { id = n.container })
	return id
}

func (n *node) height() (height uint64) {
	n.with(func() { height = n.highest })
	return height
}

func (n *node) saw(name string, version int) (seen bool) {
	n.with(func() { seen = n.seen.saw(name, version) })
	return seen
}

// upgrading reports whether the upgrade to version has got as far as its migration or, if it has none, the start of the
// node. This is by the status, which may be known before the log.
func (n *node) upgrading(version int) (upgrading bool) {
	n.with(func() {
		upgrading = n.status.VersionIndex > version || n.status.VersionIndex == version &&
			(n.status.Phase == "migrating" || !n.status.migrates(version))
	})
	return upgrading
}

// ask decodes the JSON answer to a GET.
func ask(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", url, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", url, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, answerLimit)).Decode(into); err != nil {
		return fmt.Errorf("%s does not answer with JSON: %w", url, err)
	}
	return nil
}

// freePorts chooses free ports below those that the kernel gives to outgoing connections.
func freePorts(count, from int) ([]int, error) {
	const first, many = 20000, 12000
	var chosen []int
	for i := 0; i < many && len(chosen) < count; i++ {
		port := first + (from+i)%many
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if listener.Close() == nil {
			chosen = append(chosen, port)
		}
	}
	if len(chosen) < count {
		return nil, errors.New("cannot find free ports on 127.0.0.1")
	}
	return chosen, nil
}
