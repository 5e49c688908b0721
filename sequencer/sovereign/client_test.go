package sovereign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/test/ports"
)

func TestHeightsAreReadInBothShapes(t *testing.T) {
	const none = "" // for errNoHeight
	for _, test := range []struct {
		name, body string
		want       uint64
		problem    string // an error that contains it; errNoHeight if it is empty and noHeight is set
		noHeight   bool
	}{
		{name: "newer", body: `{"value":[123,456]}`, want: 123},
		{name: "older", body: `{"data":{"value":[123,456]},"meta":{}}`, want: 123},
		{name: "genesis", body: `{"value":[0,0]}`, want: 0},
		{name: "with more keys", body: `{"type":"x","value":[7,8],"proof":null}`, want: 7},
		{name: "with white space", body: " {\r\n\"value\" : [ 7 ,\n8 ] }\n", want: 7},
		{name: "the newer one outranks", body: `{"data":{"value":[1,1]},"value":[2,2]}`, want: 2},
		{name: "the largest height", body: `{"value":[18446744073709551615,0]}`, want: 1<<64 - 1},

		{name: "null", body: `{"value":null}`, noHeight: true},
		{name: "null, older", body: `{"data":{"value":null},"meta":{}}`, noHeight: true},
		{name: "null data", body: `{"data":null}`, noHeight: true},
		{name: "an empty object", body: `{}`, noHeight: true},
		{name: "an empty object, older", body: `{"data":{}}`, noHeight: true},

		{name: "a null height", body: `{"value":[null,8]}`, problem: `the heights are "[null,8]", want two numbers`},
		{name: "only nulls", body: `{"value":[null,null]}`, problem: "want two numbers"},
		{name: "one number", body: `{"value":[7]}`, problem: `the heights are "[7]", want two numbers`},
		{name: "three numbers", body: `{"value":[7,8,9]}`, problem: "want two numbers"},
		{name: "no number", body: `{"value":[]}`, problem: "want two numbers"},
		{name: "a negative height", body: `{"value":[-1,8]}`, problem: `the heights "[-1,8]" are not numbers`},
		{name: "a height with a fraction", body: `{"value":[7.5,8]}`, problem: "are not numbers"},
		{name: "a height as float", body: `{"value":[7.0,8]}`, problem: "are not numbers"},
		{name: "a height with an exponent", body: `{"value":[1e3,8]}`, problem: "are not numbers"},
		{name: "a height beyond the largest", body: `{"value":[18446744073709551616,8]}`, problem: "are not numbers"},
		{name: "a height as text", body: `{"value":["7",8]}`, problem: "are not numbers"},
		{name: "a bare number", body: `{"value":7}`, problem: "are not numbers"},
		{name: "an object of heights", body: `{"value":{"height":7}}`, problem: "are not numbers"},
		{name: "a long one is cut", body: `{"value":"` + strings.Repeat("x", 1000) + `"}`, problem: `the heights "\"` + strings.Repeat("x", 39) + `" are not numbers`},

		{name: "nothing", body: "", problem: "the answer is not JSON, or has an unknown shape"},
		{name: "HTML", body: "<html>", problem: "the answer is not JSON, or has an unknown shape"},
		{name: "torn", body: `{"value":[12`, problem: "the answer is not JSON, or has an unknown shape"},
		{name: "more than JSON", body: `{"value":[7,8]} {}`, problem: "the answer is not JSON, or has an unknown shape"},
		{name: "a list", body: `[7,8]`, problem: "the answer is not JSON, or has an unknown shape"},
		{name: "data as list", body: `{"data":[7,8]}`, problem: "the answer is not JSON, or has an unknown shape"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseHeights([]byte(test.body))
			assert.Equal(t, test.want, got)
			switch {
			case test.noHeight:
				require.ErrorIs(t, err, errNoHeight)
			case test.problem != none:
				require.ErrorContains(t, err, test.problem)
				require.NotErrorIs(t, err, errNoHeight)
			default:
				require.NoError(t, err)
			}
		})
	}
}

func FuzzParseHeights(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `{"value":[123,456]}`, `{"data":{"value":[123,456]},"meta":{}}`, `{"value":null}`, `{"value":[null,1]}`,
		`{"VALUE":[1,2],"value":[3,4]}`, `{"value":[18446744073709551616,-1.5e9]}`, `[[[[`,
	} {
		f.Add([]byte(seed), uint64(123), uint64(456))
	}
	f.Fuzz(func(t *testing.T, body []byte, height, slot uint64) {
		got, err := parseHeights(body)
		switch {
		case err != nil && got != 0:
			t.Fatalf("height %d with error %v", got, err)
		case err == nil && !slices.Contains(heightsIn(body), fmt.Sprint(got)):
			t.Fatalf("%d is in no place of a height in %s", got, body)
		}
		for _, shape := range []string{`{"value":[%d,%d]}`, `{"data":{"value":[%d,%d]},"meta":{}}`} {
			text := fmt.Sprintf(shape, height, slot)
			if got, err := parseHeights([]byte(text)); err != nil || got != height {
				t.Fatalf("%d, %v was read of %s", got, err, text)
			}
			cut := int(slot % uint64(len(text)))
			if got, err := parseHeights([]byte(text[:cut])); err == nil {
				t.Fatalf("height %d was read of the torn %s", got, text[:cut])
			}
		}
	})
}

// heightsIn gives what is in the place of a height, as text: first of two in a list that is "value", or "value" in
// "data". The JSON decoder does not mind the case of keys.
func heightsIn(body []byte) (heights []string) {
	var top any
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if decoder.Decode(&top) != nil || !json.Valid(body) {
		return nil
	}
	fields, _ := top.(map[string]any)
	for key, v := range fields {
		if inner, ok := v.(map[string]any); ok && strings.EqualFold(key, "data") {
			for key, v := range inner {
				heights = append(heights, heightIn(key, v)...)
			}
		}
		heights = append(heights, heightIn(key, v)...)
	}
	return heights
}

func heightIn(key string, v any) []string {
	pair, _ := v.([]any)
	if !strings.EqualFold(key, "value") || len(pair) != 2 {
		return nil
	}
	height, ok := pair[0].(json.Number)
	if !ok {
		return nil
	}
	return []string{height.String()}
}

// serve runs a node's server on the loopback address.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return clientFor(t, server.Listener.Addr())
}

func clientFor(t *testing.T, addr net.Addr) *Client {
	t.Helper()
	at, err := netip.ParseAddrPort(addr.String())
	require.NoError(t, err)
	return NewClient(Config{Hosts: []string{at.Addr().String()}, Port: int(at.Port())}, "")
}

func TestClientAsksForTheHeightAndClosesTheConnection(t *testing.T) {
	var mu sync.Mutex
	var asked []*http.Request
	connections := map[string]bool{}
	closed := make(chan struct{}, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r)
		connections[r.RemoteAddr] = true
		fmt.Fprintf(w, `{"value":[%d,1]}`, 40+len(asked))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	client := clientFor(t, server.Listener.Addr())
	for i := range uint64(3) {
		height, err := client.Height(t.Context())
		require.NoError(t, err)
		assert.Equal(t, 41+i, height)
		<-closed // a connection that stays open holds up the node's exit; here it would hang the test
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Len(t, connections, 3, "every query has a connection of its own")
	for _, r := range asked {
		assert.Equal(t, http.MethodGet, r.Method)
		assert.Equal(t, "/modules/chain-state/state/current-heights/", r.RequestURI)
		assert.True(t, r.Close)
		assert.Empty(t, r.Header.Values("Accept-Encoding"))
	}
}

func TestClientSendsConnectionClose(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener on the loopback address
	require.NoError(t, err)
	defer listener.Close()
	request := make(chan string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		text := make([]byte, 4096) // raw, because net/http's server takes the header away
		n, _ := conn.Read(text)
		request <- string(text[:n])
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"value\":[7,8]}")
	}()
	client := clientFor(t, listener.Addr())
	height, err := client.Height(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 7, height)
	assert.Equal(t, "GET /modules/chain-state/state/current-heights/ HTTP/1.1\r\nHost: "+listener.Addr().String()+
		"\r\nUser-Agent: Go-http-client/1.1\r\nConnection: close\r\n\r\n", <-request)
}

func TestClientWorksOverIPv6(t *testing.T) {
	listener, err := net.Listen("tcp", "[::1]:0") //nolint:noctx // a listener on the loopback address
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("in CI this test must run, with an IPv6 loopback address: %v", err)
	}
	if err != nil {
		t.Skipf("this machine has no IPv6: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"value":[7,8]}`)
	}))
	require.NoError(t, server.Listener.Close())
	server.Listener = listener
	server.Start()
	defer server.Close()
	client := clientFor(t, listener.Addr())
	assert.True(t, client.Answered())
	height, err := client.Height(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 7, height)
}

func TestRoutesAreAskedBelowThePathOfTheAPI(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI)
		if !strings.HasSuffix(r.RequestURI, heightsRoute) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, `{"value":[7,8]}`)
	}))
	defer server.Close()
	at, err := netip.ParseAddrPort(server.Listener.Addr().String())
	require.NoError(t, err)
	for apiPath, prefix := range map[string]string{"": "", "/": "", "/v1": "/v1", "/v1/": "/v1", "v1": "/v1", "/api/v1": "/api/v1"} {
		asked = nil
		client := NewClient(Config{Hosts: []string{at.Addr().String()}, Port: int(at.Port())}, apiPath)
		height, err := client.Height(t.Context())
		require.NoError(t, err, apiPath)
		assert.EqualValues(t, 7, height)
		client.Readiness(t.Context())
		want := []string{
			prefix + "/modules/chain-state/state/current-heights/", prefix + "/sequencer/ready", prefix + "/rollup/sync-status",
		}
		assert.Equal(t, want, asked, apiPath)
	}
}

func TestNextAddressIsAskedIfTheFirstDoesNotAccept(t *testing.T) {
	port := ports.Hold(t)
	server := serveOn(t, "127.0.0.1", port, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"value":[7,8]}`)
	})
	// Nothing listens on 127.0.0.2.
	client := NewClient(Config{Hosts: []string{"127.0.0.2", "127.0.0.1"}, Port: int(port)}, "")
	assert.True(t, client.Answered(), "one of them is enough")
	for range 3 {
		height, err := client.Height(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 7, height)
		assert.EqualValues(t, 1, client.latest.Load(), "the one that accepted is the first to be asked")
	}
	server.Close()
	assert.False(t, client.Answered())
	_, err := client.Height(t.Context())
	require.ErrorContains(t, err, "connection refused")

	listenOn(t, "127.0.0.2", port)
	assert.True(t, client.Answered(), "it has moved")
	assert.Zero(t, client.latest.Load())
}

func TestAddressThatAcceptsIsTheOnlyOneAsked(t *testing.T) {
	var asked []string
	handler := func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
		w.WriteHeader(http.StatusNotFound)
	}
	port := ports.Hold(t)
	first := serveOn(t, "127.0.0.1", port, handler)
	serveOn(t, "127.0.0.2", port, handler)
	client := NewClient(Config{Hosts: []string{"127.0.0.1", "127.0.0.2"}, Port: int(port)}, "")
	for range 3 {
		_, err := client.Height(t.Context())
		require.ErrorContains(t, err, "answered 404 Not Found")
	}
	at := first.Listener.Addr().String()
	assert.Equal(t, []string{at, at, at}, asked)
}

// listenOn listens on a port that is held until the test ends, or until it is closed.
func listenOn(t *testing.T, host string, port uint16) net.Listener {
	t.Helper()
	address := netip.AddrPortFrom(netip.MustParseAddr(host), port).String()
	listener, err := net.Listen("tcp", address) //nolint:noctx // a listener on the loopback address
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// serveOn is httptest.NewServer on a port that is held.
func serveOn(t *testing.T, host string, port uint16, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	require.NoError(t, server.Listener.Close())
	server.Listener = listenOn(t, host, port)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

func TestSilentAddressLeavesTimeForTheNext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"value":[7,8]}`)
	}))
	defer server.Close()
	at, err := netip.ParseAddrPort(server.Listener.Addr().String())
	require.NoError(t, err)
	full := fullListener(t, at.Port())
	var height uint64
	for range 5 { // on a busy machine what is left of one query may be too little
		client := NewClient(Config{Hosts: []string{full, "127.0.0.1"}, Port: int(at.Port())}, "")
		if height, err = client.Height(t.Context()); err == nil {
			break
		}
	}
	require.NoError(t, err)
	assert.EqualValues(t, 7, height)
}

// fullListener returns an address that leaves a dial waiting: nothing accepts, and its queue is full.
func fullListener(t *testing.T, port uint16) (host string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 3}, Port: int(port)}))
	require.NoError(t, unix.Listen(fd, 0))
	address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), port).String()
	for {
		conn, err := net.DialTimeout("tcp", address, 50*time.Millisecond) //nolint:noctx // it has a timeout
		if err != nil {
			return "127.0.0.3"
		}
		t.Cleanup(func() { conn.Close() })
	}
}

func TestClientDoesNotBelieveOtherAnswers(t *testing.T) {
	good := `{"value":[7,8]}`
	for _, test := range []struct {
		name   string
		handle http.HandlerFunc
		want   string
	}{
		{"500 with a height", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, good)
		}, "answered 500 Internal Server Error"},
		{"404", http.NotFound, "answered 404 Not Found"},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "answered 204 No Content"},
		{"a redirect, with a height", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != heightsRoute {
				_, _ = io.WriteString(w, good) // where it leads
				return
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusFound)
			_, _ = io.WriteString(w, good)
		}, "answered 302 Found"},
		{"an oversized body", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"padding":"`+strings.Repeat("x", answerLimit)+`","value":[7,8]}`)
		}, "the answer is not JSON, or has an unknown shape"},
		{"an oversized header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Padding", strings.Repeat("x", 2*answerLimit))
			_, _ = io.WriteString(w, good)
		}, "cannot ask the node"},
		{"a body that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, good)
		}, "unexpected EOF"},
		{"compression that nobody asked for", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f\x8b\x08")
		}, "the answer is not JSON, or has an unknown shape"},
	} {
		t.Run(test.name, func(t *testing.T) {
			height, err := serve(t, test.handle).Height(t.Context())
			require.ErrorContains(t, err, test.want)
			assert.Zero(t, height)
		})
	}
	t.Run("no height yet", func(t *testing.T) {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"value":null}`) })
		_, err := client.Height(t.Context())
		require.ErrorIs(t, err, errNoHeight)
		require.ErrorContains(t, err, client.url)
	})
	t.Run("as large as can be", func(t *testing.T) {
		body := `{"padding":"","value":[7,8]}`
		body = strings.Replace(body, `""`, `"`+strings.Repeat("x", answerLimit-len(body))+`"`, 1)
		height, err := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }).Height(t.Context())
		require.NoError(t, err)
		assert.EqualValues(t, 7, height)
	})
}

func TestQueryEndsByItselfWhereTheNodeHangs(t *testing.T) {
	// Every one of these would hang for ever without a timeout over the whole query.
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	waits := func(r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}
	for name, handle := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { waits(r) },
		"after the header": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			waits(r)
		},
		"with a body that never ends": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				if http.NewResponseController(w).Flush() != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			height, err := serve(t, handle).Height(context.Background())
			require.Error(t, err)
			assert.Zero(t, height)
		})
	}
	t.Run("before it accepts", func(t *testing.T) {
		t.Parallel()
		listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener on the loopback address
		require.NoError(t, err)
		defer listener.Close() // the kernel takes the connection, nobody ever reads from it
		_, err = clientFor(t, listener.Addr()).Height(context.Background())
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		assert.True(t, timeout.Timeout())
	})
}

func TestQueryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel() // only now, with the query under way
		<-r.Context().Done()
	})
	_, err := client.Height(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	// net/http looks for a proxy once in the life of a process, and another test may have had it look: so in one of its
	// own.
	const proxy = "http://192.0.2.2:3128"
	if os.Getenv("HTTP_PROXY") != proxy {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy, "http_proxy="+proxy, "NO_PROXY=", "no_proxy=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	// net/http never uses a proxy for the loopback address, so the address is one that would be proxied.
	client := NewClient(Config{Hosts: []string{"192.0.2.1"}, Port: 12346}, "")
	var dialed []string
	transport, ok := client.http.Transport.(*http.Transport)
	require.True(t, ok)
	transport.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
		dialed = append(dialed, addr)
		return nil, errors.New("not dialed in a test")
	}
	_, err := client.Height(t.Context())
	require.ErrorContains(t, err, "not dialed in a test")
	assert.Equal(t, []string{"192.0.2.1:12346"}, dialed)
}

func TestNodeThatIsNotThereIsAnError(t *testing.T) {
	listener := listenOn(t, "127.0.0.1", ports.Hold(t))
	client := clientFor(t, listener.Addr())
	assert.True(t, client.Answered(), "somebody listens")
	require.NoError(t, listener.Close())
	assert.False(t, client.Answered(), "nobody listens any more")
	_, err := client.Height(t.Context())
	require.ErrorContains(t, err, "cannot ask the node: ")
	require.ErrorContains(t, err, "connection refused")
}

func TestAnsweredSendsNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener on the loopback address
	require.NoError(t, err)
	defer listener.Close()
	require.True(t, clientFor(t, listener.Addr()).Answered())
	conn, err := listener.Accept()
	require.NoError(t, err)
	defer conn.Close()
	text, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Empty(t, text)
}
