package mockrollup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/pflag"
)

// daServer is the DA layer of a network: it orders blobs into the slots of the chain of params, and plays the
// sequencer's database, which elects the leader. A client that has seen a slot gets all its blobs: blobs and slots are
// read and written under one lock, and a blob goes into a slot that nobody has seen yet.
type daServer struct {
	params DAParams

	mu     sync.Mutex
	shown  uint64
	blobs  *blobFile
	leader *leadership
}

// DAHandler serves the chain of params, with blobs and a leader that live only as long as the handler. The routes are
// those of `mock-rollup da`:
//
//	GET  /                the chain now, see DAStatus; at every other path too
//	GET  /blobs?after=N   the blobs in their order without the first N, at most 32
//	POST /blobs           the body becomes a blob of a slot to come; the answer names the slot
//	GET  /leader          who leads, see Leadership
//	PUT  /leader?id=ID    ID wants to lead, or to continue; the answer says who leads
//	DELETE /leader?id=ID  ID no longer leads
func DAHandler(params DAParams) http.Handler {
	return &daServer{params: params, blobs: &blobFile{}, leader: newLeadership("", defaultLease)}
}

// openDAServer opens the file named in cfg, and those beside it. Without a name, everything is in memory.
func openDAServer(cfg DAConfig, lease time.Duration) (*daServer, error) {
	s := &daServer{params: cfg.params(time.Now()), blobs: &blobFile{}}
	if cfg.File == "" {
		s.leader = newLeadership("", lease)
		return s, nil
	}
	var err error
	if s.params, err = OpenDAFile(cfg.File, s.params); err != nil {
		return nil, err
	}
	if s.blobs, err = openBlobs(cfg.File + ".blobs"); err != nil {
		return nil, err
	}
	s.shown = s.blobs.lastSlot()
	s.leader, err = openLeadership(cfg.File+".leader", lease)
	return s, err
}

// ServeHTTP answers the routes that DAHandler lists.
func (s *daServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Before the lock, so that a slow client keeps nobody waiting.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBlob))
	if err != nil {
		answer(w, http.StatusRequestEntityTooLarge, map[string]any{"error": err.Error()})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.Method + " " + r.URL.Path {
	case "GET /blobs":
		after, err := strconv.Atoi(r.FormValue("after"))
		if err != nil || after < 0 {
			answer(w, http.StatusBadRequest, map[string]any{"error": "after must be a count"})
			return
		}
		answer(w, http.StatusOK, s.blobs.page(after))
	case "POST /blobs":
		s.post(w, body)
	case "GET /leader":
		answer(w, http.StatusOK, s.leader.at(time.Now()))
	case "PUT /leader", "DELETE /leader":
		s.elect(w, r)
	default:
		answer(w, http.StatusOK, s.status())
	}
}

func (s *daServer) status() DAStatus {
	status := s.params.At(time.Now())
	// If the clock is set back, the slots stay.
	s.shown = max(s.shown, status.CurrentSlot)
	status.Blobs = len(s.blobs.all)
	return status
}

func (s *daServer) post(w http.ResponseWriter, data []byte) {
	s.status()
	blob := Blob{Slot: s.shown + 1, Data: data}
	if err := s.blobs.add(blob); err != nil {
		answer(w, http.StatusInternalServerError, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{"slot": blob.Slot})
}

func (s *daServer) elect(w http.ResponseWriter, r *http.Request) {
	id, change := r.FormValue("id"), s.leader.claim
	if r.Method == http.MethodDelete {
		change = s.leader.resign
	}
	if id == "" {
		answer(w, http.StatusBadRequest, map[string]any{"error": "id is missing"})
		return
	}
	now := time.Now()
	if err := change(id, now); err != nil {
		answer(w, http.StatusInternalServerError, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, s.leader.at(now))
}

// daMain serves the mock DA layer to nodes that share no volume.
func daMain(args []string, stdio Stdio) int {
	flags := pflag.NewFlagSet("mock-rollup da", pflag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:26658", "`ADDRESS` to listen on")
	var cfg DAConfig
	flags.DurationVar(&cfg.BlockTime, "block-time", 250*time.Millisecond, "`TIME` between two blocks")
	flags.Uint64Var(&cfg.Finality, "finality", 2, "`BLOCKS` until one is final")
	flags.Uint64Var(&cfg.EmptyEvery, "empty-every", 0, "every `N`th slot is empty (0: none)")
	flags.StringVar(&cfg.File, "file", "", "keep the chain in `FILE`, and blobs and leader beside it, so that they survive a restart")
	lease := flags.Duration("lease", defaultLease, "`TIME` that a leader leads without being heard of")
	if code, ok := parseArgs(flags, args, stdio); !ok {
		return code
	}
	if err := serveDA(*listen, cfg, *lease, stdio); err != nil {
		fmt.Fprintf(stdio.Err, "error: %s\n", err)
		return exitMigration
	}
	return exitOK
}

func serveDA(address string, cfg DAConfig, lease time.Duration, stdio Stdio) error {
	if cfg.BlockTime < time.Millisecond {
		return fmt.Errorf("--block-time %s must be at least 1ms", cfg.BlockTime)
	}
	if lease < time.Millisecond {
		return fmt.Errorf("--lease %s must be at least 1ms", lease)
	}
	da, err := openDAServer(cfg, lease)
	if err != nil {
		return err
	}
	defer da.blobs.close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	server := &http.Server{Handler: da}
	stopped := stopSignals(func() {})
	go func() {
		<-stopped
		_ = server.Close()
	}()
	fmt.Fprintf(stdio.Out, "DA server listens on %s: a block every %dms, finality %d\n",
		listener.Addr(), da.params.BlockMS, da.params.FinalityBlocks)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// decodeJSON reads one answer of at most limit bytes.
func decodeJSON(from io.Reader, limit int64, into any) error {
	if err := json.NewDecoder(io.LimitReader(from, limit)).Decode(into); err != nil {
		return fmt.Errorf("the DA server's answer is not JSON: %w", err)
	}
	return nil
}
