package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// requestTimeout is for a whole request. A question to the node takes a second of it.
	requestTimeout = 5 * time.Second
	// headerLimit is for the headers of a request, in bytes; net/http allows some more.
	headerLimit = 4 << 10
	// headerTimeout is for reading the headers of a request, which a client sends at once.
	headerTimeout = 2 * time.Second
	// connectionLimit is how many connections may be open at once. busyLimit is how many requests other than probes are
	// answered at once, so there is always room for a probe.
	connectionLimit, busyLimit = 64, 32
)

// Every answer says which entrypoint gave it: if several share a network, a client could take one for another.
const (
	// checkpointHeader has the absolute path of the checkpoint, percent-encoded; empty for none.
	checkpointHeader = "Entrypoint-Checkpoint"
	// instanceHeader has the id of the lock that the run holds; empty until it does.
	instanceHeader = "Entrypoint-Instance"
)

// Serve answers requests on listener, in goroutines of its own, until the process ends.
func (s *Status) Serve(listener net.Listener) {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		MaxHeaderBytes: headerLimit, DisableGeneralOptionsHandler: true, // otherwise "OPTIONS *" gets 200
		ErrorLog: log.New(io.Discard, "", 0), // a client's mistakes are not ours to log
	}
	// A connection kept open would hold a goroutine and its buffers between two scrapes.
	server.SetKeepAlivesEnabled(false)
	door := newDoor(listener, connectionLimit)
	server.ConnState = noteState
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	go func() { _ = server.Serve(door) }()
}

// Handler answers the routes.
func (s *Status) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set(checkpointHeader, url.PathEscape(s.checkpointPath()))
		w.Header().Set(instanceHeader, s.instance())
		if r.ContentLength != 0 {
			refuseBody(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are answered", http.StatusMethodNotAllowed)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		s.route(w, r.WithContext(ctx))
	})
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// refuseBody answers a request that has a body. net/http would read the body before it sends the answer, and a client
// that holds it back would keep a connection from a probe.
func refuseBody(w http.ResponseWriter, r *http.Request) {
	if c, ours := r.Context().Value(connKey{}).(*conn); ours {
		c.note(&c.hasBody, true)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	w.Header().Set("Connection", "close")
	http.Error(w, "a request must not have a body", http.StatusRequestEntityTooLarge)
}

func (s *Status) route(w http.ResponseWriter, r *http.Request) {
	state := s.state.Load()
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/healthz":
		verdict(w, "alive", s.notAlive(state, time.Now()))
	case "/readyz":
		role := r.URL.Query().Get("role")
		if role != roleAny && role != roleLeader {
			http.Error(w, fmt.Sprintf("role is %q, want leader, or no role for any node", role), http.StatusBadRequest)
			return
		}
		_, why := s.ready(r.Context(), state, role)
		verdict(w, "ready", why)
	default:
		select {
		case s.busy <- struct{}{}:
			defer func() { <-s.busy }()
			s.routeOther(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	}
}

func (s *Status) routeOther(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "":
		servePage(w, s.Report(r.Context()))
	case "/status":
		text, err := json.MarshalIndent(s.Report(r.Context()), "", "  ")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, "application/json", append(text, '\n'))
	case "/metrics":
		answer(w, "text/plain; version=0.0.4; charset=utf-8", s.metrics(r.Context()))
	default:
		http.Error(w, "not found: want /, /status, /metrics, /healthz or /readyz", http.StatusNotFound)
	}
}

// verdict answers a probe: 200, or 503 and why not, in one line.
func verdict(w http.ResponseWriter, yes, whyNot string) {
	if whyNot != "" {
		http.Error(w, whyNot, http.StatusServiceUnavailable)
		return
	}
	answer(w, "text/plain; charset=utf-8", []byte(yes+"\n"))
}

func answer(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // a client that is gone does not read it
}
