package mockrollup

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	daQueryTimeout = 2 * time.Second
	daAnswerLimit  = 64 << 10
)

// daSource is where a node learns of new blocks. It reports false as long as nothing is known.
type daSource interface {
	status(now time.Time) (DAStatus, bool)
}

// fileDA reads the chain off the clock.
type fileDA struct{ params DAParams }

func (f fileDA) status(now time.Time) (DAStatus, bool) { return f.params.At(now), true }

// remoteDA keeps the last answer of a DA server. While the server is away the head stands still, and with it the node.
type remoteDA struct{ last atomic.Pointer[DAStatus] }

func (r *remoteDA) status(time.Time) (DAStatus, bool) {
	if last := r.last.Load(); last != nil {
		return *last, true
	}
	return DAStatus{}, false
}

// openDA returns the chain that cfg names. A server is followed until ctx ends.
func openDA(ctx context.Context, cfg DAConfig, log *logger) (daSource, error) {
	if cfg.File != "" {
		params, err := OpenDAFile(cfg.File, cfg.params(time.Now()))
		return fileDA{params}, err
	}
	remote := &remoteDA{}
	go remote.follow(ctx, cfg.Address, clamp(cfg.BlockTime/4, 20*time.Millisecond, time.Second), log)
	return remote, nil
}

func (r *remoteDA) follow(ctx context.Context, address string, every time.Duration, log *logger) {
	client := &http.Client{Timeout: daQueryTimeout, Transport: &http.Transport{Proxy: nil}}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for reachable := true; ; {
		status, err := queryDA(ctx, client, address)
		switch {
		case err == nil:
			reachable = true
			r.last.Store(&status)
		case reachable && ctx.Err() == nil:
			reachable = false
			log.warn("the DA layer cannot be reached, retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func queryDA(ctx context.Context, client *http.Client, address string) (DAStatus, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return DAStatus{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return DAStatus{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return DAStatus{}, fmt.Errorf("the DA server answered %s", response.Status)
	}
	var status DAStatus
	if err := json.NewDecoder(io.LimitReader(response.Body, daAnswerLimit)).Decode(&status); err != nil {
		return DAStatus{}, fmt.Errorf("the DA server's answer is no JSON: %w", err)
	}
	return status, status.check()
}

func clamp(d, low, high time.Duration) time.Duration { return max(low, min(d, high)) }
