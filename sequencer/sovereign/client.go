package sovereign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// queryTimeout bounds a whole query, from connect to the last byte: a node that is starting up may accept the
	// connection and never answer.
	queryTimeout = time.Second
	// answerLimit bounds how much of an answer is read, in bytes. A real one has about 50.
	answerLimit = 64 << 10
	// bufferSize is the size of a connection's buffers, in bytes.
	bufferSize = 1 << 10

	heightsRoute = "/modules/chain-state/state/current-heights/"
)

// errNoHeight: the node answered, but has no height yet (a null value, during start-up).
var errNoHeight = errors.New("the node has no height yet")

// Client asks one node for its height. It is safe for use by one goroutine at a time.
type Client struct {
	url       string // with the prefix of the API
	addresses []string
	latest    atomic.Int32 // index of the address that accepted a connection last; a dial may outlive its query
	http      http.Client
}

// NewClient returns a client for the node that runs with cfg, which was read from a file and so has at least one host.
// The node serves its API below apiPath, such as "/v1"; empty means at the root.
//
// Every query opens a connection of its own and closes it. One that stayed open would hold up the node's exit, because
// its server waits for open connections without a limit. A proxy from the environment is never used.
func NewClient(cfg Config, apiPath string) *Client {
	c := &Client{addresses: cfg.addresses()}
	c.url = "http://" + c.addresses[0]
	if prefix := strings.Trim(apiPath, "/"); prefix != "" {
		c.url += "/" + prefix
	}
	c.http = http.Client{
		Timeout: queryTimeout,
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            c.dial,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: answerLimit,
			// An answer is tiny, and there is one after the other for days: buffers of 4 kB, the default, would be most
			// of our garbage.
			ReadBufferSize:  bufferSize,
			WriteBufferSize: bufferSize,
		},
		// A server that redirects is not the node.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// dial connects to the address that accepted last or, if it no longer accepts, to another one. A silent address only
// gets its share of the query's time, so that some is left for the next one.
func (c *Client) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	return c.dialFor(ctx, network, queryTimeout/time.Duration(len(c.addresses)))
}

// dialFor is dial with a timeout for each address. The error is that of the last one tried.
func (c *Client) dialFor(ctx context.Context, network string, timeout time.Duration) (conn net.Conn, err error) {
	dialer := &net.Dialer{Timeout: timeout}
	latest := int(c.latest.Load())
	for i := range c.addresses {
		at := (latest + i) % len(c.addresses)
		if conn, err = dialer.DialContext(ctx, network, c.addresses[at]); err == nil {
			c.latest.Store(int32(at))
			return conn, nil
		}
	}
	return nil, err //nolint:wrapcheck // it names the operation and the address
}

// Height asks for the soft-confirmed rollup height, in blocks, which modules/chain-state reports; it runs ahead of the
// durable height. An error means that the node has no height yet, is silent or answers nonsense, not that it is broken.
func (c *Client) Height(ctx context.Context) (uint64, error) {
	status, body, err := c.get(ctx, heightsRoute)
	if err != nil {
		return 0, err
	}
	if status != http.StatusOK {
		return 0, fmt.Errorf("%s%s answered %d %s", c.url, heightsRoute, status, http.StatusText(status))
	}
	height, err := parseHeights(body)
	if err != nil {
		return 0, fmt.Errorf("%s%s: %w", c.url, heightsRoute, err)
	}
	return height, nil
}

// get asks for a route and, if the status is 200, reads the whole answer.
func (c *Client) get(ctx context.Context, route string) (status int, body []byte, err error) {
	url := c.url + route
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot ask %s: %w", url, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot ask the node: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, nil, nil // the body of a 101 is a connection with neither an end nor a timeout
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return 0, nil, fmt.Errorf("cannot read the answer of %s: %w", url, err)
	}
	return resp.StatusCode, body, nil
}

// Answered reports whether anything listens on the node's port, on any of its addresses. Before the node starts that is
// a stranger, whose heights must not be believed.
func (c *Client) Answered() bool {
	conn, err := c.dialFor(context.Background(), "tcp", 100*time.Millisecond)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was sent, so nothing can be lost
	return true
}

// parseHeights reads the rollup height, in blocks, from an answer of current-heights: {"value":[height, slot]} or, from
// older nodes, {"data":{"value":[height, slot]},"meta":{}}. A null value is errNoHeight.
func parseHeights(body []byte) (uint64, error) {
	type value struct {
		Value *json.RawMessage `json:"value"`
	}
	var answer struct {
		value
		Data *value `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("the answer is not JSON, or has an unknown shape: %w", err)
	}
	raw := answer.Value
	if raw == nil && answer.Data != nil {
		raw = answer.Data.Value
	}
	if raw == nil {
		return 0, errNoHeight
	}
	var pair []*uint64 // pointers, because a null element would otherwise read as height 0
	if err := json.Unmarshal(*raw, &pair); err != nil {
		return 0, fmt.Errorf("the heights %.40q are not numbers: %w", *raw, err)
	}
	if len(pair) != 2 || pair[0] == nil {
		return 0, fmt.Errorf("the heights are %.40q, want two numbers", *raw)
	}
	return *pair[0], nil
}
