package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// answerLimit bounds, in bytes, what is read of an answer.
const answerLimit = 4 << 20

// Client asks a running entrypoint. Each question has a few seconds.
type Client struct {
	// Listen is the address on which it was told to listen; where that is unspecified (0.0.0.0, ::, none), it is asked on
	// the loopback address.
	Listen string
}

// Report asks for the report.
func (c Client) Report(ctx context.Context) (Report, error) {
	code, body, err := c.get(ctx, "/status")
	if err != nil {
		return Report{}, err
	}
	var r Report
	if code != http.StatusOK {
		return Report{}, fmt.Errorf("%s answered with status %d: it is no entrypoint", c.Listen, code)
	}
	if err := json.Unmarshal(body, &r); err != nil || r.Phase == "" || r.VersionIndex >= len(r.Versions) || r.VersionIndex < 0 {
		return Report{}, fmt.Errorf("%s answered with something else than a status: it is no entrypoint", c.Listen)
	}
	return r, nil
}

// Probe asks /healthz or /readyz. ok is its verdict, text says why in one line.
func (c Client) Probe(ctx context.Context, route string) (ok bool, text string, err error) {
	code, body, err := c.get(ctx, route)
	if err != nil {
		return false, "", err
	}
	text, _, _ = strings.Cut(string(body), "\n")
	return code == http.StatusOK, text, nil
}

func (c Client) get(ctx context.Context, route string) (code int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	address, err := c.address()
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+route, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot ask %s: %w", address, err)
	}
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: requestTimeout}).DialContext,
			MaxResponseHeaderBytes: headerLimit,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("cannot ask the entrypoint: %w", err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit)); err != nil {
		return 0, nil, fmt.Errorf("cannot read the answer of %s: %w", address, err)
	}
	return resp.StatusCode, body, nil
}

// address is where to ask.
func (c Client) address() (string, error) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", fmt.Errorf("%q is no address, want HOST:PORT: %w", c.Listen, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), nil
}
