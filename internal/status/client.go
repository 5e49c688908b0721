package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// answerLimit is how much of an answer is read, in bytes.
const answerLimit = 4 << 20

// Client asks a running entrypoint. Each question has a few seconds.
type Client struct {
	// Listen is the address that the entrypoint listens on. If it has no host, or an unspecified one (0.0.0.0, ::), the
	// client asks this machine.
	Listen string
	// Checkpoint is the canonical name of the checkpoint of the wanted entrypoint, and Instance is the id of its run.
	// Empty means any. An answer from another entrypoint is an ErrOther.
	Checkpoint, Instance string
}

// ErrOther is what an error matches if another entrypoint answered than the wanted one.
var ErrOther = errors.New("another entrypoint answered")

// check notices that another entrypoint answered. One that still waits for the lock has no instance yet.
func (c Client) check(answer http.Header) error {
	if c.Checkpoint == "" {
		return nil
	}
	have, err := url.PathUnescape(answer.Get(checkpointHeader))
	instance := answer.Get(instanceHeader)
	if err != nil || have != c.Checkpoint || c.Instance != "" && instance != "" && instance != c.Instance {
		if have == c.Checkpoint {
			return fmt.Errorf("%w at %s: its checkpoint is also called %s, but it does not hold the lock of that one", ErrOther, c.Listen, have)
		}
		return fmt.Errorf("%w at %s: its checkpoint is %q, want %s", ErrOther, c.Listen, have, c.Checkpoint)
	}
	return nil
}

// Report asks for the report.
func (c Client) Report(ctx context.Context) (Report, error) {
	code, _, body, err := c.get(ctx, "/status")
	if err != nil {
		return Report{}, err
	}
	if code != http.StatusOK {
		return Report{}, fmt.Errorf("%s answered with status %d: it is not an entrypoint", c.Listen, code)
	}
	var r Report
	if err := json.Unmarshal(body, &r); err != nil || r.Phase == "" || r.VersionIndex >= len(r.Versions) || r.VersionIndex < 0 {
		return Report{}, fmt.Errorf("%s answered with something other than a status: it is not an entrypoint", c.Listen)
	}
	return r, nil
}

// Probe asks /healthz or /readyz. ok is the verdict, and text gives the reason in one line.
func (c Client) Probe(ctx context.Context, route string) (ok bool, text string, err error) {
	code, answer, body, err := c.get(ctx, route)
	if err != nil {
		return false, "", err
	}
	if _, ours := answer[checkpointHeader]; !ours {
		return false, "", fmt.Errorf("%s did not say which entrypoint it is: it is not an entrypoint of this release", c.Listen)
	}
	text, _, _ = strings.Cut(string(body), "\n")
	return code == http.StatusOK, text, nil
}

func (c Client) get(ctx context.Context, route string) (code int, answer http.Header, body []byte, err error) {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return 0, nil, nil, fmt.Errorf("%q is not an address, want HOST:PORT: %w", c.Listen, err)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://entrypoint"+route, nil)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("cannot ask %s: %w", c.Listen, err)
	}
	transport := http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: headerLimit,
		// The system takes an unspecified address to be this machine.
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, c.Listen)
		},
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("cannot ask the entrypoint at %s: %w", c.Listen, err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit)); err != nil {
		return 0, nil, nil, fmt.Errorf("cannot read the answer of %s: %w", c.Listen, err)
	}
	return resp.StatusCode, resp.Header, body, c.check(resp.Header)
}
