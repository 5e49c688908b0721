package mockrollup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	daQueryTimeout = 2 * time.Second
	daAnswerLimit  = 64 << 10
	// awayPause is how long a start waits between two questions.
	awayPause = 20 * time.Millisecond
)

var errNoBlobs = errors.New("a DA chain in a file takes no transactions, only a DA server does (mock.da.address)")

// What a start does while the DA server is away.
const (
	awayWait = "wait"
	awayFail = "fail"
)

// daSource is where a node learns of new blocks. Its status is false as long as nothing is known. After a status has
// shown a slot, all blobs of the slot are available.
type daSource interface {
	status(now time.Time) (DAStatus, bool)
	blobs(after, upTo uint64) []Blob
	submit(ctx context.Context, data []byte) error
}

// fileDA reads the chain off the clock. It has no blobs.
type fileDA struct{ params DAParams }

func (f fileDA) status(now time.Time) (DAStatus, bool)    { return f.params.At(now), true }
func (f fileDA) blobs(uint64, uint64) []Blob              { return nil }
func (f fileDA) submit(_ context.Context, _ []byte) error { return errNoBlobs }

// remoteDA keeps the last answer of a DA server. While the server is away, the head does not move, and neither does the
// node.
type remoteDA struct {
	address string
	client  *http.Client

	mu   sync.Mutex
	last *DAStatus
	all  []Blob
}

func newRemoteDA(address string) *remoteDA {
	return &remoteDA{address: address, client: &http.Client{Timeout: daQueryTimeout, Transport: &http.Transport{Proxy: nil}}}
}

func (r *remoteDA) status(time.Time) (DAStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return DAStatus{}, false
	}
	return *r.last, true
}

func (r *remoteDA) blobs(after, upTo uint64) []Blob {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(blobsBetween(r.all, after, upTo))
}

// openDA returns the chain that cfg names. A server is followed until ctx ends.
func openDA(ctx context.Context, cfg DAConfig, log *logger) (daSource, error) {
	if cfg.File != "" {
		params, err := OpenDAFile(cfg.File, cfg.params(time.Now()))
		return fileDA{params}, err
	}
	remote := newRemoteDA(cfg.Address)
	if err := remote.await(ctx, cfg.WhenAway, log); err != nil {
		return nil, fmt.Errorf("failed to create the DA service: %w", err)
	}
	go remote.follow(ctx, clamp(cfg.BlockTime/4, 20*time.Millisecond, time.Second), log)
	return remote, nil
}

// await is the part of a start that needs the server. A stop signal kills the node in the meantime.
func (r *remoteDA) await(ctx context.Context, whenAway string, log *logger) error {
	if whenAway == "" {
		return nil
	}
	err := r.refresh(ctx)
	if err == nil || whenAway == awayFail {
		return err
	}
	log.warn("the DA layer cannot be reached, waiting", "error", err)
	for err != nil {
		time.Sleep(awayPause)
		err = r.refresh(ctx)
	}
	return nil
}

func (r *remoteDA) follow(ctx context.Context, every time.Duration, log *logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for reachable := true; ; {
		err := r.refresh(ctx)
		switch {
		case err == nil:
			reachable = true
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

// refresh asks for the head and then for the blobs that came with it. Only then is the head known: no block may be made
// without its blobs.
func (r *remoteDA) refresh(ctx context.Context) error {
	status, err := queryDA(ctx, r.client, r.address)
	if err != nil {
		return err
	}
	all := r.all // only this goroutine changes it
	if r.last != nil && r.last.GenesisUnixMS != status.GenesisUnixMS || status.Blobs < len(all) {
		all = nil // another chain
	}
	for len(all) < status.Blobs {
		page, err := r.page(ctx, len(all))
		if err != nil {
			return err
		}
		all = append(all, page...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.all = &status, all
	return nil
}

func (r *remoteDA) page(ctx context.Context, after int) ([]Blob, error) {
	var page []Blob
	err := r.call(ctx, http.MethodGet, "blobs", url.Values{"after": {fmt.Sprint(after)}}, nil, blobAnswerLimit, &page)
	if err == nil && len(page) == 0 {
		err = fmt.Errorf("the DA server has no blob after the first %d, although it reported one", after)
	}
	return page, err
}

func (r *remoteDA) submit(ctx context.Context, data []byte) error {
	var taken struct{ Slot uint64 }
	return r.call(ctx, http.MethodPost, "blobs", nil, data, daAnswerLimit, &taken)
}

// call sends one request to a route of the DA server and decodes the answer.
func (r *remoteDA) call(ctx context.Context, method, route string, query url.Values, body []byte, limit int64, into any) error {
	address, err := url.JoinPath(r.address, route)
	if err != nil {
		return fmt.Errorf("mock.da.address: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, method, address+"?"+query.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	return answered(r.client, request, limit, into)
}

func answered(client *http.Client, request *http.Request, limit int64, into any) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		return fmt.Errorf("the DA server answered %s: %s", response.Status, why)
	}
	return decodeJSON(response.Body, limit, into)
}

func queryDA(ctx context.Context, client *http.Client, address string) (DAStatus, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return DAStatus{}, err
	}
	var status DAStatus
	if err := answered(client, request, daAnswerLimit, &status); err != nil {
		return DAStatus{}, err
	}
	return status, status.check()
}

func clamp(d, low, high time.Duration) time.Duration { return max(low, min(d, high)) }
