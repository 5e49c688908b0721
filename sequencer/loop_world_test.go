package sequencer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// world is what a sequence runs against in these tests: strict fakes, in which every start must be the next one that the
// test has written down. It lives in a synctest bubble, so its seconds cost nothing.
type world struct {
	t     *testing.T
	plan  *Plan
	acts  []act
	store *memoryStore
	// options may be changed before run.
	options Options

	mu      sync.Mutex
	started []string // the commands that were started
	alive   int
	height  *uint64 // what the node answers, nil for nothing
	log     bytes.Buffer
	files   fakeFiles
	signals chan syscall.Signal
	// late are signals that come together with an exit: whoever waits for both learns of the exit, and only TryTake
	// finds the signal.
	late chan syscall.Signal
	// stranger answers on the node's port before it is started.
	stranger bool
	sweeps   []time.Duration
	// startError, where set, is what the next start gives.
	startError error
	sweepError error
	leftovers  int
}

// act is one process that the test expects: the command line that starts it, and what it then does.
type act struct {
	command string
	does    func(p *fakeProcess)
}

func newWorld(t *testing.T, acts ...act) *world {
	w := &world{t: t, acts: acts, store: &memoryStore{}, signals: make(chan syscall.Signal, 16), late: make(chan syscall.Signal, 1)}
	w.plan = threeVersions()
	return w
}

// threeVersions is v0 to 20, a migration, v1 to 40, v2 without end.
func threeVersions() *Plan {
	return &Plan{File: "manager.json", Versions: []Version{
		{Name: "v0", Binary: "/v0", Config: "c0", Stop: 20, OnInterrupted: Rerun},
		{Name: "v1", Binary: "/v1", Config: "c1", Migration: "/m1", Start: 21, Stop: 40, OnInterrupted: Rerun},
		{Name: "v2", Binary: "/v2", Config: "c2", Start: 41, OnInterrupted: Rerun},
	}}
}

// twoVersions is v0 to 20 and v1 from 21 to 40, with no migration.
func twoVersions() *Plan {
	plan := threeVersions()
	plan.Versions = plan.Versions[:2]
	plan.Versions[1].Migration = ""
	return plan
}

// run takes the sequence to its end. It must be called in a bubble.
func (w *world) run() error {
	o := w.options
	o.Plan, o.Processes, o.Signals, o.Files = w.plan, w, w, &w.files
	o.Log = slog.New(slog.NewTextHandler(&w.log, nil))
	o.Heights = func(Version) (HeightReader, error) { return w, nil }
	if w.store != nil && o.Store == nil {
		o.Store = w.store
	}
	err := Run(o)
	assert.Zero(w.t, w.alive, "nobody outlives the run")
	assert.Empty(w.t, w.acts, "all expected processes were started")
	return err
}

// Signals, TryTake: SignalSource.
func (w *world) Signals() <-chan syscall.Signal { return w.signals }

func (w *world) TryTake() (syscall.Signal, bool) {
	select {
	case sig := <-w.signals:
		return sig, true
	case sig := <-w.late:
		return sig, true
	default:
		return 0, false
	}
}

// Height, Answered: HeightReader.
func (w *world) Height(context.Context) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.height == nil {
		return 0, errors.New("connection refused")
	}
	return *w.height, nil
}

func (w *world) Answered() bool { return w.stranger }

// Start: Processes.
func (w *world) Start(c Command) (Process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	command := strings.Join(append([]string{c.Path}, c.Args...), " ")
	if err := w.startError; err != nil {
		w.startError = nil
		return nil, err
	}
	require.Zero(w.t, w.alive, "%s is started while another process lives", command)
	require.NotEmpty(w.t, w.acts, "%s is started, but the test expects no more processes; log:\n%s", command, &w.log)
	next := w.acts[0]
	w.acts = w.acts[1:]
	require.Equal(w.t, next.command, command)
	w.started = append(w.started, command)
	w.alive++
	w.height = nil
	p := &fakeProcess{w: w, pid: 100 + len(w.started), command: c, signals: make(chan syscall.Signal, 16), done: make(chan struct{})}
	go next.does(p)
	return p, nil
}

// Sweep: Processes.
func (w *world) Sweep(grace time.Duration) (int, error) {
	w.sweeps = append(w.sweeps, grace)
	return w.leftovers, w.sweepError
}

// events are the messages of the log.
func (w *world) events() string { return w.log.String() }

// fakeProcess is a process of the world.
type fakeProcess struct {
	w       *world
	pid     int
	command Command
	signals chan syscall.Signal
	done    chan struct{}
	exit    Exit
}

func (p *fakeProcess) Pid() int              { return p.pid }
func (p *fakeProcess) Done() <-chan struct{} { return p.done }
func (p *fakeProcess) Exit() Exit            { return p.exit }

func (p *fakeProcess) Signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return errors.New("process done")
	default:
	}
	p.signals <- sig
	return nil
}

// at answers with the height from now on, long enough for it to be read.
func (p *fakeProcess) at(height uint64) {
	p.w.mu.Lock()
	p.w.height = &height
	p.w.mu.Unlock()
	time.Sleep(2 * pollSlow)
}

func (p *fakeProcess) says(text string) { fmt.Fprintln(p.command.Stderr, text) }

func (p *fakeProcess) exits(code int) { p.ends(Exit{Code: code}) }

func (p *fakeProcess) ends(e Exit) {
	p.w.mu.Lock()
	p.w.alive--
	p.w.height = nil
	p.exit = e
	p.w.mu.Unlock()
	close(p.done)
}

// gets waits for the next signal. Heights are read for ever, so without an end of its patience the bubble would never
// come to rest.
func (p *fakeProcess) gets(want syscall.Signal) {
	select {
	case sig := <-p.signals:
		assert.Equal(p.w.t, want, sig)
	case <-time.After(time.Hour):
		assert.Fail(p.w.t, "no signal came", "want %s", signalName(want))
	}
}

// Things that nodes do.

// reaches rises to the height and exits 0.
func reaches(heights ...uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		for _, h := range heights {
			p.at(h)
		}
		p.exits(0)
	}
}

func exits(code int) func(*fakeProcess) { return func(p *fakeProcess) { p.exits(code) } }

// refusesStop exits as a node whose durable height is current.
func refusesStop(stop, current uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.says(fmt.Sprintf("The requested stop_height %d must be greater than the current_height %d", stop, current))
		p.exits(101)
	}
}

// refusesStart exits as a node that expects another start height.
func refusesStart(start, expected uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.says(fmt.Sprintf("The requested start_at_rollup_height: %d, is different than expected height %d", start, expected))
		p.exits(101)
	}
}

// runsUntilStopped stays at the height until SIGTERM, and exits 0.
func runsUntilStopped(height uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.at(height)
		p.gets(syscall.SIGTERM)
		p.exits(0)
	}
}

// then sends the entrypoint a signal while a process does something.
func then(w *world, sig syscall.Signal, does func(*fakeProcess)) func(*fakeProcess) {
	return func(p *fakeProcess) {
		w.signals <- sig
		does(p)
	}
}

// memoryStore is a checkpoint in memory.
type memoryStore struct {
	have  *Checkpoint
	saved []Checkpoint
	// fail, where set, decides about the n-th save, from 0.
	fail  func(n int) error
	tries int
	err   error
}

func (m *memoryStore) Load() (Checkpoint, bool, error) {
	if m.have == nil || m.err != nil {
		return Checkpoint{}, false, m.err
	}
	return *m.have, true, nil
}

func (m *memoryStore) Save(c Checkpoint) error {
	n := m.tries
	m.tries++
	if m.fail != nil {
		if err := m.fail(n); err != nil {
			return err
		}
	}
	m.saved = append(m.saved, c)
	m.have = &c
	return nil
}

// story gives one line a save: version, phase and marks.
func (m *memoryStore) story() []string {
	var lines []string
	for _, c := range m.saved {
		line := fmt.Sprintf("v%d %s", c.VersionIndex, c.Phase)
		if c.Started {
			line += " started"
		}
		if c.MigrationCompleted {
			line += " migrated"
		}
		lines = append(lines, line)
	}
	return lines
}

// fakeFiles has every file, but for the problems.
type fakeFiles struct {
	problems map[int]Problems
	empty    bool
	digest   func(binary string) (string, error)
	mu       sync.Mutex
	read     []string
}

func (f *fakeFiles) Check(_ *Plan, i int) Problems { return f.problems[i] }

func (f *fakeFiles) Digest(binary string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read = append(f.read, binary)
	if f.digest != nil {
		return f.digest(binary)
	}
	return "sha of " + binary, nil
}

func (f *fakeFiles) EmptyState(string) (string, bool) { return "/data/state", f.empty }

func (f *fakeFiles) wasRead(binary string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.read, binary)
}

// lives runs a test in a bubble.
func lives(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// fails runs the world and gives the Failure that it must end with.
func (w *world) fails(code int) *Failure {
	w.t.Helper()
	err := w.run()
	var f *Failure
	require.ErrorAs(w.t, err, &f, "log:\n%s", &w.log)
	assert.Equal(w.t, code, f.Code, f.Error())
	assert.NotEmpty(w.t, f.What)
	assert.NotEmpty(w.t, f.Safe, f.What)
	assert.NotEmpty(w.t, f.Next, f.What)
	return f
}

var _ io.Writer = (*tail)(nil)
