package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// requestTimeout bounds one request as a whole: what the node is asked takes a second of it.
	requestTimeout = 5 * time.Second
	// headerLimit bounds the headers of a request, in bytes; net/http adds some.
	headerLimit = 4 << 10
	// connectionLimit is how many connections may be open at once: this is process 1, and a flood shall not fill its
	// memory.
	connectionLimit = 32
)

// Serve answers requests on listener, in goroutines of its own, until the process ends.
func (s *Status) Serve(listener net.Listener) {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: requestTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		MaxHeaderBytes: headerLimit,
		ErrorLog:       log.New(io.Discard, "", 0), // whatever a client does wrong is the client's business
	}
	// A kept connection would hold a goroutine and its buffers between two scrapes.
	server.SetKeepAlivesEnabled(false)
	go func() { _ = server.Serve(&limited{listener, make(chan struct{}, connectionLimit)}) }()
}

// limited is a listener that has a limit for open connections: what is above it waits in the kernel's queue.
type limited struct {
	net.Listener
	open chan struct{}
}

// Accept waits until there is room, and then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	l.open <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &counted{Conn: conn, done: sync.OnceFunc(func() { <-l.open })}, nil
}

// counted is a connection that makes room when it is closed.
type counted struct {
	net.Conn
	done func()
}

// Close closes the connection. net/http may call it more than once.
func (c *counted) Close() error {
	c.done()
	return c.Conn.Close()
}

// Handler answers the routes.
func (s *Status) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
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

func (s *Status) route(w http.ResponseWriter, r *http.Request) {
	state := s.state.Load()
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "":
		servePage(w, r)
	case "/healthz":
		ok, why := s.alive(state, time.Now())
		verdict(w, ok, "alive", why)
	case "/readyz":
		role := r.URL.Query().Get("role")
		if role != roleAny && role != roleLeader {
			http.Error(w, fmt.Sprintf("role is %q, want leader, or none for any", role), http.StatusBadRequest)
			return
		}
		ok, why := s.ready(r.Context(), state, role)
		verdict(w, ok, "ready", why)
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

// verdict answers a probe: 200, or 503 and why, in one line.
func verdict(w http.ResponseWriter, ok bool, yes, why string) {
	if ok {
		answer(w, "text/plain; charset=utf-8", []byte(yes+"\n"))
		return
	}
	http.Error(w, why, http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // a client that has gone does not read it
}
