package sovereign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

const (
	readyRoute = "/sequencer/ready"
	syncRoute  = "/rollup/sync-status"
)

// Readiness is what a node says about itself. If it says nothing, neither Leads nor Synced is set.
type Readiness struct {
	// Leads: the node answered /sequencer/ready with 200, so it takes transactions.
	Leads bool
	// Synced: /rollup/sync-status says that it has followed the DA to its head. So does a leader at its stop height.
	Synced bool
	// Why says why neither is the case.
	Why string
}

// Readiness asks the node whether it is ready, within a second or until ctx ends: as a leader first, since a replica
// answers that with 503, then as a replica.
func (c *Client) Readiness(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	status, _, err := c.get(ctx, readyRoute)
	if err != nil {
		return Readiness{Why: "the node does not answer"}
	}
	if status == http.StatusOK {
		return Readiness{Leads: true}
	}
	status, body, err := c.get(ctx, syncRoute)
	switch {
	case err != nil:
		return Readiness{Why: "the node does not answer"}
	case status != http.StatusOK:
		return Readiness{Why: fmt.Sprintf("the node answers %s with status %d", syncRoute, status)}
	}
	synced, why, err := parseSyncStatus(body)
	if err != nil {
		why = "the node's answer to " + syncRoute + " is not understood"
	}
	return Readiness{Synced: synced, Why: why}
}

// parseSyncStatus reads an answer of /rollup/sync-status. why says, in DA blocks, how far a node is that is not synced.
func parseSyncStatus(body []byte) (synced bool, why string, err error) {
	type progress struct {
		Synced *uint64 `json:"synced_da_height"`
		Target *uint64 `json:"target_da_height"`
	}
	var answer struct {
		Synced  *progress `json:"synced"`
		Syncing *progress `json:"syncing"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, "", fmt.Errorf("the sync status is not JSON, or has an unknown shape: %w", err)
	}
	switch p := answer.Syncing; {
	case answer.Synced != nil && p == nil:
		return true, "", nil
	case p != nil && answer.Synced == nil && p.Synced != nil && p.Target != nil:
		return false, fmt.Sprintf("the node is syncing: DA height %d of %d", *p.Synced, *p.Target), nil
	case p != nil && answer.Synced == nil:
		return false, "the node is syncing", nil
	}
	return false, "", errors.New("the sync status is neither synced nor syncing")
}
