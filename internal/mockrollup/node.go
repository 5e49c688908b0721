package mockrollup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

var errUsageShown = errors.New("the usage was shown")

// ending is how a node ends. An abrupt one leaves everything as it is, like a crash. The others first close the server
// and wait for its clients.
type ending struct {
	code   int
	reason string
	abrupt bool
	signal unix.Signal
}

// refusal is an error of the checks at the start, which the journal distinguishes from other failures.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(format string, values ...any) error { return refusal{fmt.Errorf(format, values...)} }

// node is one run of a rollup. Only the goroutine of run touches state, soft and budget; the server reads view.
type node struct {
	cfg     Config
	args    nodeArgs
	stdio   Stdio
	log     *logger
	journal *journal
	store   *store
	roots   *roots
	state   State
	da      daSource
	server  *server
	view    atomic.Pointer[view]
	role    string
	// election is nil if the role is configured.
	election *election

	soft   uint64
	budget float64
	ticked time.Time
	// unsettled: a kill now leaves a damaged state.
	unsettled bool
}

func nodeMain(argv []string, stdio Stdio) int {
	giveBack := quitKills()
	defer giveBack()
	args, cfg, code, err := parseNodeArgs(argv, stdio)
	switch {
	case errors.Is(err, errUsageShown):
		return code
	case err != nil:
		fmt.Fprint(stdio.Err, panicText(err.Error(), colourWanted()))
		return code
	}
	if cfg.Mock.Wrapper != "" && os.Getenv(wrappedVariable) == "" {
		return wrap(argv, cfg.Mock.Wrapper, stdio)
	}
	n := &node{cfg: cfg, args: args, stdio: stdio, journal: &journal{}, role: cfg.Mock.Role}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer n.release()
	return n.run(ctx, giveBack)
}

func (n *node) release() {
	n.settle()
	if n.server != nil {
		n.server.abandon()
	}
	if n.roots != nil {
		n.roots.close()
	}
	if n.store != nil {
		n.store.close()
	}
	n.journal.close()
}

func (n *node) run(ctx context.Context, giveBack func()) int {
	end, err := n.start(ctx)
	switch {
	case err != nil:
		return n.fail(err)
	case end != nil:
		return n.finish(*end)
	}
	if err := errors.Join(n.leaveBehind(), n.changeStdio(), n.changeUser()); err != nil {
		return n.fail(err)
	}
	startThreads(n.cfg.Mock.Threads)
	signals := stopSignals(giveBack)
	n.journal.add(Entry{Event: EventReady, Height: n.state.Height, Soft: n.soft})
	n.log.info("Rollup started", "height", n.state.Height, "state_version", n.state.StateVersion)
	last, err := n.loop(ctx, signals)
	if err != nil {
		return n.fail(err)
	}
	return n.finish(last)
}

// start does everything up to the signal handler: until then a stop signal kills, as with a real node. The order is
// that of a real node, too: a start that the height checks reject harms what was opened before them.
func (n *node) start(ctx context.Context) (*ending, error) {
	if err := n.prepare(); err != nil {
		return nil, err
	}
	var err error
	if n.da, err = openDA(ctx, n.cfg.Mock.DA, n.log); err != nil {
		return nil, err
	}
	if err := n.openState(); err != nil {
		return nil, err
	}
	n.quote()
	if end, err := n.wonAtStart(); end != nil || err != nil {
		return end, err
	}
	if err := n.checkHeights(); err != nil {
		return nil, err
	}
	return nil, n.serve(ctx)
}

// serve creates the sequencer and opens the port.
func (n *node) serve(ctx context.Context) error {
	n.takeRole(ctx)
	n.soft, n.ticked = n.state.Height, time.Now()
	n.server = newServer(n)
	if n.cfg.Mock.StartupHTTP == "hang" && n.httpAtStart() {
		if err := n.server.listen(); err != nil {
			return err
		}
	}
	time.Sleep(n.cfg.Mock.Startup)
	n.look(time.Now())
	if n.httpAtStart() {
		if err := n.server.listen(); err != nil {
			return err
		}
	}
	n.server.open()
	return nil
}

func (n *node) httpAtStart() bool { return n.cfg.Mock.HTTP != "off" && n.cfg.Mock.HTTPLate == 0 }

// prepare does what comes before the state is opened.
func (n *node) prepare() error {
	log, logErr := newLogger(n.stdio.Out)
	n.log = log
	base := Entry{Kind: KindNode, Label: n.cfg.Mock.Label}
	journal, err := openJournal(n.cfg.journalDir(), n.cfg.Mock.Journal, base)
	if err != nil {
		return err
	}
	n.journal = journal
	n.journal.add(Entry{Event: EventStart, Args: n.args.all})
	if logErr != nil {
		return panicked{logErr}
	}
	if n.cfg.Mock.PanicOnStart != "" {
		return errors.New(n.cfg.Mock.PanicOnStart)
	}
	return errors.Join(n.checkGenesis(), n.checkIOUring(), n.writePinnedCache())
}

func (n *node) checkGenesis() error {
	if n.args.genesis == "" {
		return nil
	}
	text, err := os.ReadFile(n.args.genesis)
	if err != nil {
		return fmt.Errorf("cannot read the genesis: %w", err)
	}
	var genesis any
	if err := json.Unmarshal(text, &genesis); err != nil {
		return fmt.Errorf("cannot parse the genesis %s: %w", n.args.genesis, err)
	}
	return nil
}

// checkIOUring opens a ring: the seccomp profile of a container may deny it, and a real node needs it.
func (n *node) checkIOUring() error {
	if !n.cfg.Mock.IOUring {
		return nil
	}
	ring, err := ioUringSetup()
	if err != nil {
		return fmt.Errorf("failed to create an io_uring: %w", err)
	}
	return unix.Close(ring)
}

func (n *node) writePinnedCache() error {
	if !n.cfg.Mock.PinnedCache {
		return nil
	}
	path := filepath.Join(filepath.Dir(n.args.config), "evm_pinned_cache.json")
	if err := os.WriteFile(path, []byte("{}\n"), 0o644); err != nil {
		return fmt.Errorf("cannot write the pinned cache: %w", err)
	}
	return nil
}

// openState locks the state and reads it. On an empty volume it commits the genesis immediately, whatever heights the
// command line has: that is how a late version, started there by mistake, spoils the volume.
func (n *node) openState() error {
	if err := os.MkdirAll(n.cfg.Storage.Path, 0o755); err != nil {
		return fmt.Errorf("cannot create storage.path: %w", err)
	}
	store, err := openStore(n.cfg.Storage.Path, n.cfg.Mock.Fsync)
	if errors.Is(err, errLocked) {
		return refusal{err}
	}
	if err != nil {
		return err
	}
	n.store = store
	if n.roots, err = openRoots(store.dir, n.cfg.Mock.Fsync); err != nil {
		return err
	}
	n.state, err = ReadState(store.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return n.genesis()
	}
	if err != nil {
		return err
	}
	if err := n.checkDamage(); err != nil {
		return err
	}
	return n.checkVersion()
}

func (n *node) genesis() error {
	mock := &n.cfg.Mock
	if n.store.committing() != "" {
		return refuse("%s", tornGenesisText)
	}
	n.state = GenesisState(mock.StateVersion, mock.Label, mock.Salt)
	n.state.Format = mock.Format
	if err := n.persist(0, []string{n.state.StateRoot}, mock.TornGenesis); err != nil {
		return err
	}
	n.log.info("Genesis committed", "state_root", n.state.StateRoot)
	return nil
}

// persist makes new roots and the state durable. With torn commits, both are marked as unfinished in between.
func (n *node) persist(first uint64, roots []string, torn bool) error {
	if torn {
		if err := n.store.beginCommit(n.state.Height); err != nil {
			return err
		}
	}
	if err := n.roots.put(first, roots); err != nil {
		return err
	}
	if torn {
		time.Sleep(n.cfg.Mock.CommitWindow)
	}
	if err := n.store.commit(n.state); err != nil {
		return err
	}
	if torn {
		return n.store.endCommit()
	}
	return nil
}

// checkVersion rejects a state that is older than this binary. The reverse goes unnoticed, as in a real node: an old
// binary continues on a newer state, and only its roots show it.
func (n *node) checkVersion() error {
	if half := n.state.Migrating; half != nil {
		return refuse("the state is in the middle of a migration from state_version %d to %d", half.From, half.To)
	}
	if need := n.cfg.Mock.StateVersion; n.state.StateVersion < need {
		return refuse("the state_version on disk is %d, this binary requires %d: the state was not migrated",
			n.state.StateVersion, need)
	}
	return nil
}

// checkHeights compares the command line with the durable height.
func (n *node) checkHeights() error {
	current := n.state.Height
	if start := n.args.start; start != nil && *start != current+1 && n.cfg.Mock.Refusal != refusalIgnore {
		return refusal{wrongStart{requested: *start, expected: current + 1}}
	}
	if stop := n.args.stop; stop != nil && *stop <= current {
		return refuse("The requested stop_height %d must be greater than the current_height %d", *stop, current)
	}
	if at := n.cfg.Mock.LeaderRestartAt; at != 0 && n.store.fired(faultLeaderRestart, at) {
		n.role = roleLeader
	}
	return nil
}

// loop processes blocks until something ends the node.
func (n *node) loop(ctx context.Context, signals <-chan os.Signal) (ending, error) {
	var late <-chan time.Time
	if n.cfg.Mock.HTTP != "off" && n.cfg.Mock.HTTPLate > 0 {
		late = time.After(n.cfg.Mock.HTTPLate)
	}
	tick := time.NewTicker(clamp(n.cfg.Mock.DA.BlockTime/4, 2*time.Millisecond, 50*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ending{reason: "cancelled"}, nil
		case sig := <-signals:
			n.journal.add(Entry{Event: EventSignal, Height: n.state.Height, Soft: n.soft, Reason: sig.String()})
			if !n.cfg.Mock.IgnoreSigterm {
				return ending{reason: "signal: " + sig.String()}, nil
			}
			n.log.warn("Signal ignored", "signal", sig)
		case <-late:
			if err := n.server.listen(); err != nil {
				return ending{}, err
			}
		case now := <-tick.C:
			n.quote()
			if end, err := n.step(now); end != nil || err != nil {
				return deref(end), err
			}
		}
	}
}

func deref(end *ending) ending {
	if end == nil {
		return ending{}
	}
	return *end
}

// finish ends the node in the order of a real one: first the server stops listening, then the node waits for its
// clients (without limit), then the process exits. Signals in the meantime are ignored: nobody reads their channel.
func (n *node) finish(end ending) int {
	if end.abrupt {
		return n.crash(end)
	}
	n.log.info("Shutting down", "reason", end.reason, "height", n.state.Height)
	if n.server != nil {
		n.server.drain()
	}
	if n.election != nil {
		n.election.leave(n.role == roleLeader)
	}
	time.Sleep(n.cfg.Mock.SlowShutdown)
	n.log.info("Rollup exited", "height", n.state.Height)
	n.journal.exit(end.code, n.state.Height, n.soft, end.reason)
	return end.code
}
