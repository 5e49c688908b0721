package mockrollup

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// server is the node's API. It ends in the order of a real node: drain closes the port first, then waits for every open
// connection, including idle ones, without a limit.
type server struct {
	node     *node
	http     *http.Server
	listener net.Listener
	// serving is closed when no connection can be accepted any more.
	serving  chan struct{}
	conns    sync.WaitGroup
	opened   chan struct{}
	draining atomic.Bool
}

func newServer(n *node) *server {
	s := &server{node: n, opened: make(chan struct{})}
	s.http = &http.Server{
		Handler:   http.HandlerFunc(s.handle),
		ConnState: s.count,
		ErrorLog:  log.New(n.stdio.Err, "http: ", 0),
	}
	return s
}

// listen opens the port, unless it is open already.
func (s *server) listen() error {
	if s.listener != nil {
		return nil
	}
	cfg := s.node.cfg.Runner.HTTP
	host, err := netip.ParseAddr(cfg.BindHost)
	if err != nil {
		return fmt.Errorf("runner.http_config.bind_host: %w", err)
	}
	address := netip.AddrPortFrom(host, cfg.BindPort).String()
	if s.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("failed to bind the HTTP server to %s: %w", address, err)
	}
	s.serving = make(chan struct{})
	go func() {
		defer close(s.serving)
		_ = s.http.Serve(s.listener)
	}()
	s.node.log.info("HTTP server listens", "address", s.listener.Addr())
	return nil
}

// open starts answering requests. Those that came during the start-up have been hanging until now.
func (s *server) open() { close(s.opened) }

// count tracks the number of open connections. Serve itself reports new ones, so the number only falls after it has
// returned.
func (s *server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	}
}

// drain is not http.Server.Shutdown, which closes idle connections: one kept open must delay the exit.
func (s *server) drain() {
	if s.listener == nil {
		return
	}
	s.draining.Store(true)
	_ = s.listener.Close()
	<-s.serving
	s.conns.Wait()
}

// abandon closes everything at once.
func (s *server) abandon() { _ = s.http.Close() }

func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	if !wait(r.Context(), s.opened) {
		return
	}
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	path, found := strings.CutPrefix(r.URL.Path, s.node.cfg.Mock.APIPath)
	if !found {
		status, body := notFound()
		answer(w, status, body)
		return
	}
	switch s.node.cfg.Mock.HTTP {
	case "hang":
		s.node.log.warn("Request hangs", "path", r.URL.Path)
		<-r.Context().Done()
	case "garbage":
		_, _ = w.Write([]byte("<html>\x00\xff}{ not a height"))
	case "500":
		http.Error(w, `{"error":"mock fault"}`, http.StatusInternalServerError)
	default:
		s.route(w, r, strings.TrimSuffix(path, "/"))
	}
}

func wait(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *server) route(w http.ResponseWriter, r *http.Request, path string) {
	seen := s.node.view.Load()
	switch path {
	case "/healthcheck":
		_, _ = w.Write([]byte("ok"))
	case "/modules/chain-state/state/current-heights":
		answer(w, http.StatusOK, s.heights(seen))
	case "/sequencer/ready":
		status, body := readiness(seen)
		answer(w, status, body)
	case "/rollup/sync-status":
		answer(w, http.StatusOK, syncStatus(seen))
	case "/rollup/schema":
		mock := &s.node.cfg.Mock
		chain := hashOf("schema", mock.Label+"\x00"+mock.Salt, mock.StateVersion)
		answer(w, http.StatusOK, map[string]any{"chain_hash": chain, "schema": map[string]any{}})
	case "/ledger/slots/latest":
		answer(w, http.StatusOK, seen.slot(seen.soft, "pending"))
	case "/ledger/slots/finalized":
		answer(w, http.StatusOK, seen.slot(seen.durable, "finalized"))
	case "/sequencer/txs":
		status, body := s.sequence(w, r, seen)
		answer(w, status, body)
	default:
		status, body := s.pastSlot(seen, path)
		answer(w, status, body)
	}
}

// pastSlot answers /ledger/slots/{number} for a slot that is final here, as long as its root is kept.
func (s *server) pastSlot(seen *view, path string) (int, any) {
	text, isSlot := strings.CutPrefix(path, "/ledger/slots/")
	number, err := strconv.ParseUint(text, 10, 64)
	if !isSlot || err != nil || !seen.known {
		return notFound()
	}
	height := seen.da.HeightAt(number)
	if number > seen.da.FinalizedSlot || height > seen.durable {
		return notFound()
	}
	root, kept := s.node.roots.get(height)
	if !kept {
		return notFound()
	}
	return http.StatusOK, map[string]any{
		"type": "slot", "number": number, "hash": seen.slotHash(number), "state_root": root,
		"finality_status": "finalized",
	}
}

func notFound() (int, any) { return http.StatusNotFound, map[string]any{"error": "not found"} }

// sequence takes a transaction, {"body": base64}, and lets the DA order it. Only a ready leader does.
func (s *server) sequence(w http.ResponseWriter, r *http.Request, seen *view) (int, any) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, map[string]any{"error": "only POST"}
	}
	if status, why := readiness(seen); status != http.StatusOK {
		return status, why
	}
	var tx struct{ Body []byte }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*maxBlob)).Decode(&tx); err != nil {
		return http.StatusBadRequest, map[string]any{"error": "no transaction: " + err.Error()}
	}
	if err := s.node.da.submit(r.Context(), tx.Body); err != nil {
		return http.StatusServiceUnavailable, map[string]any{"error": "cannot submit to the DA: " + err.Error()}
	}
	return http.StatusOK, map[string]any{"id": hashOf("transaction", string(tx.Body)), "status": "submitted"}
}

// heights answers null until a block was made, in the shape of the version.
func (s *server) heights(seen *view) map[string]any {
	var value any
	if seen.soft > 0 && s.node.cfg.Mock.HTTP != "null" {
		value = [2]uint64{seen.soft, seen.softSlot}
	}
	answer := map[string]any{"value": value}
	if s.node.cfg.Mock.HeightsShape == "data" {
		return map[string]any{"data": answer, "meta": map[string]any{}}
	}
	return answer
}

func readiness(seen *view) (int, any) {
	switch {
	case !seen.leader:
		return unready("the sequencer is a replica")
	case seen.atStop:
		return unready("the stop height is reached")
	case !seen.known, seen.syncing:
		return unready("the node is syncing")
	}
	return http.StatusOK, map[string]any{"status": "ready"}
}

func unready(why string) (int, any) {
	return http.StatusServiceUnavailable, map[string]any{"error": why}
}

func syncStatus(seen *view) map[string]any {
	if !seen.known || seen.syncing {
		return map[string]any{"syncing": map[string]uint64{
			"synced_da_height": seen.softSlot, "target_da_height": seen.headSlot,
		}}
	}
	return map[string]any{"synced": map[string]uint64{"synced_da_height": seen.headSlot}}
}

func (v *view) slot(height uint64, finality string) map[string]any {
	number := height
	if v.known {
		number = v.da.SlotOf(height)
	}
	return map[string]any{
		"type": "slot", "number": number, "hash": v.slotHash(number), "state_root": v.root,
		"finality_status": finality,
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
