package status

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

// slowly opens n connections that send no more than this and read nothing, and counts those that the server closes.
func slowly(t *testing.T, address string, n int, text string) (closed *atomic.Int64) {
	t.Helper()
	closed = &atomic.Int64{}
	for range n {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(1))
		_, err = io.WriteString(conn, text)
		require.NoError(t, err)
		if text == "" || text[len(text)-1] != '\n' { // a reader would take the answer
			go func() {
				_, _ = conn.Read(make([]byte, 1))
				closed.Add(1)
			}()
		}
	}
	return closed
}

// A liveness probe that gets no answer in time has the container killed, be it in the middle of a migration.
func TestProbesAreNeverBehindSlowClients(t *testing.T) {
	for name, text := range map[string]string{
		"no headers":       "",
		"half headers":     "GET /status HTTP/1.1\r\nHost: x",
		"reads nothing":    "GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
		"a body held back": "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n1",
		"waits for a 100":  "GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n",
	} {
		for _, n := range []int{100, 1000} {
			t.Run(fmt.Sprintf("%d, %s", n, name), func(t *testing.T) {
				address := serving(t, newStatus(running(), sovereign.Readiness{Leads: true}))
				closed := slowly(t, address, n, text)
				for _, route := range []string{"/healthz", "/readyz"} {
					ok, why, err := Client{Listen: address}.Probe(t.Context(), route)
					require.NoError(t, err)
					assert.True(t, ok, why)
				}
				if strings.HasSuffix(text, "\n") { // nobody has read that it was closed
					return
				}
				for end := time.Now().Add(deadline); closed.Load() < int64(n-connectionLimit); time.Sleep(10 * time.Millisecond) {
					require.True(t, time.Now().Before(end), "only %d are closed", closed.Load())
				}
			})
		}
	}
}

// A node that hangs answers nothing for a second: scrapes wait for that, and probes have places of their own.
func TestProbesAreNeverBehindScrapes(t *testing.T) {
	s := newStatus(running(), sovereign.Readiness{})
	asked, answer := make(chan struct{}), make(chan struct{})
	s.Readiness = func(context.Context, sequencer.Version) sovereign.Readiness {
		close(asked)
		<-answer
		return sovereign.Readiness{Leads: true}
	}
	address := serving(t, s)
	var scrapes sync.WaitGroup
	for range busyLimit {
		scrapes.Go(func() {
			resp, err := http.Get("http://" + address + "/metrics")
			if assert.NoError(t, err) {
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				_ = resp.Body.Close()
			}
		})
	}
	<-asked
	for end := time.Now().Add(deadline); len(s.busy) < busyLimit; time.Sleep(time.Millisecond) {
		require.True(t, time.Now().Before(end))
	}
	ok, _, err := Client{Listen: address}.Probe(t.Context(), "/healthz")
	require.NoError(t, err)
	assert.True(t, ok)
	resp, _ := ask(t, http.MethodGet, "http://"+address+"/metrics")
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode, "one too many")
	assert.Equal(t, "1", resp.Header.Get("Retry-After"))
	close(answer)
	scrapes.Wait()
	resp, _ = ask(t, http.MethodGet, "http://"+address+"/metrics")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

// While the node is asked again its last answer counts, if it is not too old.
func TestReadinessProbeIsNotBehindAnotherOne(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		s := newStatus(state, sovereign.Readiness{})
		answer := make(chan sovereign.Readiness)
		s.Readiness = func(context.Context, sequencer.Version) sovereign.Readiness { return <-answer }
		first := func() {
			go s.ready(t.Context(), &state, roleAny)
			synctest.Wait()
		}
		first()
		answer <- sovereign.Readiness{Leads: true}
		synctest.Wait()
		time.Sleep(freshFor + time.Millisecond)
		first()
		_, why := s.ready(t.Context(), &state, roleAny)
		assert.Empty(t, why, "the previous answer counts")
		time.Sleep(usableFor)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, why = s.ready(ctx, &state, roleAny)
		assert.Equal(t, "the node has not said yet whether it is ready", why, "the previous answer is too old")
		answer <- sovereign.Readiness{Why: "the node is syncing"}
		synctest.Wait()
		_, why = s.ready(t.Context(), &state, roleAny)
		assert.Equal(t, "the node is syncing", why)
	})
}

// An answer for a node that has ended in the meantime does not count for the next one.
func TestReadinessOfTheNodeBeforeDoesNotCount(t *testing.T) {
	in(t, func(t *testing.T) {
		state := running()
		s := newStatus(state, sovereign.Readiness{})
		answer := make(chan sovereign.Readiness)
		s.Readiness = func(context.Context, sequencer.Version) sovereign.Readiness { return <-answer }
		go s.ready(t.Context(), &state, roleAny)
		synctest.Wait()
		next := state
		next.Process.Pid++
		verdict := make(chan string)
		go func() {
			_, why := s.ready(t.Context(), &next, roleAny)
			verdict <- why
		}()
		synctest.Wait()
		answer <- sovereign.Readiness{Leads: true}
		answer <- sovereign.Readiness{Why: "the node is syncing"}
		assert.Equal(t, "the node is syncing", <-verdict)
	})
}

// In a network with another entrypoint, a client must not take the other one's node for ours.
func TestClientRefusesTheAnswerOfAnotherEntrypoint(t *testing.T) {
	s := newStatus(running(), sovereign.Readiness{Leads: true})
	listen := serving(t, s)
	for name, test := range map[string]struct {
		checkpoint, instance, wants string
	}{
		"any":                 {"", "", ""},
		"the one":             {"/data/checkpoint.json", "0123abcd", ""},
		"its id is not known": {"/data/checkpoint.json", "", ""},
		"another checkpoint":  {"/data/other.json", "0123abcd", `its checkpoint is "/data/checkpoint.json", want /data/other.json`},
		"another container":   {"/data/checkpoint.json", "4567", "but it does not hold the lock of that one"},
	} {
		c := Client{Listen: listen, Checkpoint: test.checkpoint, Instance: test.instance}
		_, _, err := c.Probe(t.Context(), "/readyz")
		_, reportErr := c.Report(t.Context())
		if test.wants == "" {
			assert.NoError(t, err, name)
			assert.NoError(t, reportErr, name)
			continue
		}
		assert.ErrorContains(t, err, test.wants, name)
		assert.ErrorContains(t, reportErr, test.wants, name)
	}
	waiting := New(Options{Plan: threeVersions(), Checkpoint: "/data/checkpoint.json"})
	_, _, err := Client{Listen: serving(t, waiting), Checkpoint: "/data/checkpoint.json", Instance: "4567"}.Probe(t.Context(), "/healthz")
	assert.NoError(t, err, "it still waits for the lock")
	without := New(Options{Plan: threeVersions()})
	_, _, err = Client{Listen: serving(t, without), Checkpoint: "/data/checkpoint.json"}.Probe(t.Context(), "/healthz")
	assert.ErrorContains(t, err, `its checkpoint is "", want /data/checkpoint.json`)
}
