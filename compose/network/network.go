// Package network observes the nodes of a network from outside: what each entrypoint reports, and whether the nodes
// have the same state root at the highest slot that all of them have finalized. It changes nothing. It knows only the
// routes of a node, so it can read real nodes, too.
package network

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	queryTimeout = 2 * time.Second
	answerLimit  = 1 << 20
)

// Node has the addresses of a node: its entrypoint's status page and its own API, both without a path, such as
// http://127.0.0.1:9848.
type Node struct {
	Name   string
	Status string
	API    string
}

// Reading is what one node reported. What it did not report is nil or empty, and Problem says why.
type Reading struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	Phase   string `json:"phase"`
	// Ready is the answer of /readyz, Leads that of /readyz?role=leader.
	Ready bool `json:"ready"`
	Leads bool `json:"leads"`
	// Height is the soft-confirmed height. StopHeight and ETASeconds belong to the next upgrade.
	Height     *uint64  `json:"height"`
	StopHeight *uint64  `json:"stop_height"`
	ETASeconds *float64 `json:"eta_seconds"`
	// Slot is the newest slot that the node has finalized, Root the state root at the slot of the Report.
	Slot    *uint64 `json:"slot"`
	Root    string  `json:"state_root"`
	Problem string  `json:"problem,omitempty"`
}

// Report describes a network at one moment.
type Report struct {
	Nodes []Reading `json:"nodes"`
	// Slot is the highest slot that all nodes have finalized. It is valid only if each of them reported one.
	Slot uint64 `json:"slot"`
	// Complete says that every node reported its root at that slot, and Equal that these are the same.
	Complete bool `json:"complete"`
	Equal    bool `json:"equal"`
}

// Read asks all nodes at once. A node that does not answer within two seconds has a Problem.
func Read(ctx context.Context, nodes []Node) Report {
	report := Report{Nodes: make([]Reading, len(nodes))}
	each := func(ask func(int)) {
		var group sync.WaitGroup
		for i := range nodes {
			group.Go(func() { ask(i) })
		}
		group.Wait()
	}
	each(func(i int) { report.Nodes[i] = nodes[i].read(ctx) })
	if !report.commonSlot() {
		return report
	}
	each(func(i int) { report.Nodes[i].readRoot(ctx, nodes[i].API, report.Slot) })
	report.compare()
	return report
}

// commonSlot reports whether there is a slot that all nodes have.
func (r *Report) commonSlot() bool {
	for i, node := range r.Nodes {
		if node.Slot == nil {
			return false
		}
		if i == 0 || *node.Slot < r.Slot {
			r.Slot = *node.Slot
		}
	}
	return len(r.Nodes) > 0
}

func (r *Report) compare() {
	r.Complete, r.Equal = true, true
	for _, node := range r.Nodes {
		r.Complete = r.Complete && node.Root != ""
		r.Equal = r.Equal && node.Root == r.Nodes[0].Root
	}
	r.Equal = r.Equal && r.Complete
}

func (n Node) read(ctx context.Context) Reading {
	reading := Reading{Node: n.Name}
	var status struct {
		Version string
		Phase   string
		Ready   bool
		Height  *struct{ Blocks uint64 }
		Next    *struct {
			StopHeight *uint64  `json:"stop_height"`
			ETA        *float64 `json:"eta_seconds"`
		} `json:"next_upgrade"`
	}
	if err := get(ctx, n.Status+"/status", &status); err != nil {
		reading.Problem = err.Error()
		return reading
	}
	reading.Version, reading.Phase, reading.Ready = status.Version, status.Phase, status.Ready
	if status.Height != nil {
		reading.Height = &status.Height.Blocks
	}
	if status.Next != nil {
		reading.StopHeight, reading.ETASeconds = status.Next.StopHeight, status.Next.ETA
	}
	reading.Leads = get(ctx, n.Status+"/readyz?role=leader", nil) == nil
	var slot struct{ Number *uint64 }
	if err := get(ctx, n.API+"/ledger/slots/finalized", &slot); err != nil {
		reading.Problem = err.Error()
		return reading
	}
	reading.Slot = slot.Number
	return reading
}

func (r *Reading) readRoot(ctx context.Context, api string, slot uint64) {
	var answer struct {
		StateRoot string `json:"state_root"`
	}
	if err := get(ctx, api+"/ledger/slots/"+strconv.FormatUint(slot, 10), &answer); err != nil {
		r.Problem = err.Error()
		return
	}
	r.Root = answer.StateRoot
}

// get decodes the answer of url into into, unless that is nil. It closes the connection: one kept open can delay the
// end of a node.
func get(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("cannot ask %s: %w", url, err)
	}
	request.Close = true
	response, err := (&http.Client{Transport: &http.Transport{Proxy: nil}}).Do(request)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, answerLimit)).Decode(into); err != nil {
		return fmt.Errorf("%s did not answer with JSON: %w", url, err)
	}
	return nil
}
