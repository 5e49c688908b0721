package sequencer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"rollup-entrypoint/internal/signalname"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

// The commands of threeVersions and twoVersions. {N} is the start height of a question, which is another one each time.
const (
	v0      = "/v0 --rollup-config-path c0 --stop-at-rollup-height 20"
	v1First = "/v1 --rollup-config-path c1 --start-at-rollup-height 21 --stop-at-rollup-height 40"
	v1Later = "/v1 --rollup-config-path c1 --stop-at-rollup-height 40"
	v2First = "/v2 --rollup-config-path c2 --start-at-rollup-height 41"
	v2Later = "/v2 --rollup-config-path c2"
	m1      = "/m1 --rollup-config-path c1"
	askV0   = "/v0 --rollup-config-path c0 --start-at-rollup-height {N} --stop-at-rollup-height 20"
	askV1   = "/v1 --rollup-config-path c1 --start-at-rollup-height {N} --stop-at-rollup-height 40"
	askV2   = "/v2 --rollup-config-path c2 --start-at-rollup-height {N}"
)

// firstNonce is the first start height that a node is asked with in these tests; each next one is higher by 1.
const firstNonce = 1<<48 + 1

// world is what a sequence runs against in these tests: strict fakes, in which every start must be the next one that
// the test has written down, and on a state whose stamp names the version that is started. It lives in a synctest
// bubble, so its seconds cost nothing.
type world struct {
	t     *testing.T
	plan  *Plan
	acts  []act
	store *memoryStore
	// options may be changed before run.
	options Options

	mu      sync.Mutex
	started []string // the commands that were started
	nonce   uint64   // the last one that was given out
	alive   int
	height  *uint64 // what the node answers, nil for nothing
	log     bytes.Buffer
	files   fakeFiles
	signals chan syscall.Signal
	// late are signals that come together with an exit: whatever waits for both learns of the exit, and only TryTake
	// finds the signal.
	late chan syscall.Signal
	// stranger answers on the node's port before it is started. listens: the node that runs now accepts connections.
	stranger, listens bool
	sweeps            []bool // whether what was left was asked to end
	// startError, if set, is what the next start gives.
	startError error
	// refuses, if set, is what each start gives.
	refuses    func() error
	sweepError error
	leftovers  int
	// leaves, if set, is what a process leaves behind, and does until it has ended, by the number of the sweep from 1.
	leaves func(n int) func(s *fakeSweep)
	// outlive is how many processes live on after the run.
	outlive int
}

// act is one process that the test expects: the command line that starts it, and what it then does.
type act struct {
	command string
	does    func(p *fakeProcess)
}

// newWorld is a world without a state.
func newWorld(t *testing.T, acts ...act) *world {
	t.Helper()
	w := &world{t: t, acts: acts, nonce: firstNonce - 1, signals: make(chan syscall.Signal, 16), late: make(chan syscall.Signal, 1)}
	w.store = &memoryStore{storage: "/data/state", state: checkpoint.StateNone}
	w.plan = threeVersions()
	w.options.Restarts = 5
	return w
}

// worldAt is a world whose state is that of a version, with stamp and checkpoint.
func worldAt(t *testing.T, stamp *checkpoint.Stamp, acts ...act) *world {
	t.Helper()
	w := newWorld(t, acts...)
	w.store.state, w.store.stamp, w.store.checkpoint = checkpoint.StatePresent, stamp, following(stamp)
	return w
}

// oneVersion is a world in which v0 runs to 20 alone, without a state.
func oneVersion(t *testing.T, acts ...act) *world {
	t.Helper()
	w := newWorld(t, acts...)
	w.plan.Versions = w.plan.Versions[:1]
	return w
}

// withPlan has the world run another plan.
func (w *world) withPlan(plan *Plan) *world {
	w.plan = plan
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

// prepared completes the options.
func (w *world) prepared() Options {
	o := w.options
	o.Plan, o.Processes, o.Signals, o.Inspection, o.Store = w.plan, w, w, &w.files, w.store
	w.files.plan = w.plan
	if w.files.storage == nil {
		w.files.storage = func(string) (string, error) { return w.store.storage, nil }
	}
	o.Log = slog.New(slog.NewTextHandler(&w.log, nil))
	if o.Heights == nil {
		o.Heights = func(Version) (HeightReader, error) { return w, nil }
	}
	o.Nonce = func() uint64 {
		w.nonce++
		return w.nonce
	}
	return o
}

// run takes the sequence to its end. It must be called in a bubble.
func (w *world) run() error {
	w.t.Helper()
	err := Run(w.prepared())
	w.over()
	return err
}

// over checks what holds after each run.
func (w *world) over() {
	w.t.Helper()
	assert.Equal(w.t, w.outlive, w.alive, "nobody outlives the run, but for those of which that is said")
	assert.Empty(w.t, w.acts, "all expected processes were started; log:\n%s", &w.log)
	stamp, c := w.store.stamp, w.store.checkpoint
	if wrote := len(w.store.story) > 0; wrote && stamp != nil && w.store.failCheckpoint == nil && !w.store.noCheckpoint {
		require.NotNil(w.t, c)
		assert.Equal(w.t, record{stamp: *stamp}.followed(w.plan).checkpoint.VersionIndex, c.VersionIndex, "the checkpoint has followed the stamp")
		assert.True(w.t, c.Stamped)
	}
}

// again is a new start on what this world has left behind.
func (w *world) again(acts ...act) *world {
	next := newWorld(w.t, acts...)
	next.plan, next.store = w.plan, w.store
	next.store.story, next.store.stamps, next.store.failStamp, next.store.failCheckpoint, next.store.failSync = nil, 0, nil, nil, nil
	return next
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

func (w *world) Answered() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stranger || w.listens || w.height != nil
}

// Start: Processes.
func (w *world) Start(c Command) (Process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	command := strings.Join(append([]string{c.Path}, c.Args...), " ")
	if err := w.startError; err != nil {
		w.startError = nil
		return nil, err
	}
	if w.refuses != nil {
		if err := w.refuses(); err != nil {
			return nil, err
		}
	}
	require.Zero(w.t, w.alive, "%s is started while another process lives", command)
	require.NotEmpty(w.t, w.acts, "%s is started, but the test expects no more processes; log:\n%s", command, &w.log)
	next := w.acts[0]
	w.acts = w.acts[1:]
	nonce := strconv.FormatUint(w.nonce, 10)
	require.Equal(w.t, strings.ReplaceAll(next.command, "{N}", nonce), command)
	w.checkStart(c, strings.Contains(next.command, "{N}"))
	w.started = append(w.started, command)
	w.alive++
	w.height, w.listens = nil, false
	p := &fakeProcess{w: w, pid: 100 + len(w.started), command: c, nonce: nonce, signals: make(chan syscall.Signal, 16), done: make(chan struct{})}
	go next.does(p)
	return p, nil
}

// checkStart checks that the stamp on disk names what is started, and that a question is kept apart from a run.
func (w *world) checkStart(c Command, asked bool) {
	env := sovereign.QuestionEnv()
	if asked {
		assert.Equal(w.t, env, c.Env[max(0, len(c.Env)-len(env)):], "they come last")
		assert.NotNil(w.t, c.Stdout, "what a question writes is kept apart")
		assert.False(w.t, w.store.storage != "" && w.store.state == checkpoint.StateNone, "an empty state is not asked")
	} else {
		assert.NotContains(w.t, c.Env, env[0])
		assert.Equal(w.t, slices.Contains(c.Args, sovereign.DryRun), c.Stdout != nil, "the output of a run is its own, and that of a dry run is its report")
	}
	assert.NotNil(w.t, c.Stderr)
	stamp := w.store.onDisk()
	require.NotNil(w.t, stamp, "%s is started on a state without a stamp", c.Path)
	v := w.plan.Versions[find(w.plan, *stamp)]
	switch {
	case c.Path == v.Migration:
		assert.Equal(w.t, begun, stamp.Migration)
		assert.Equal(w.t, slices.Contains(c.Args, sovereign.DryRun), stamp.DryRun)
	case c.Path == "/hook":
		assert.False(w.t, stamp.Hook, "a hook that is done does not run again")
	case c.Path != v.Binary:
		assert.Fail(w.t, "started on a state of another version", "%s on %+v", c.Path, stamp)
	default:
		assert.NotEqual(w.t, begun, stamp.Migration, "no node is started on a state whose migration was begun")
		if !asked {
			assert.Equal(w.t, v.Stop, stamp.StopHeight, "the stop height is stamped before the start")
			assert.False(w.t, stamp.Complete || stamp.Hook, "and what was said of the state before holds no more")
		}
	}
}

// Sweep: Processes.
func (w *world) Sweep(ask bool) Sweep {
	w.sweeps = append(w.sweeps, ask)
	s := &fakeSweep{w: w, signals: make(chan syscall.Signal, 16), done: make(chan struct{})}
	if w.leaves != nil {
		if does := w.leaves(len(w.sweeps)); does != nil {
			s.left = []Leftover{{Pid: 7, Command: "worker", Since: time.Now()}}
			w.alive++
			go func() {
				does(s)
				w.mu.Lock()
				w.alive--
				w.mu.Unlock()
				close(s.done)
			}()
			return s
		}
	}
	close(s.done)
	return s
}

// fakeSweep is what one process left behind.
type fakeSweep struct {
	w       *world
	signals chan syscall.Signal
	done    chan struct{}
	left    []Leftover
}

func (s *fakeSweep) Done() <-chan struct{} { return s.done }
func (s *fakeSweep) Left() []Leftover      { return s.left }

func (s *fakeSweep) Signal(sig syscall.Signal) error {
	s.signals <- sig
	return nil
}

func (s *fakeSweep) Ended() (int, error) { return s.w.leftovers + len(s.left), s.w.sweepError }

// gets waits for a signal.
func (s *fakeSweep) gets(want syscall.Signal) { assert.Equal(s.w.t, want, <-s.signals) }

// count is how often the log has a message.
func (w *world) count(message string) int {
	return strings.Count(w.log.String(), `msg="`+message+`"`) + strings.Count(w.log.String(), "msg="+message+" ")
}

// fakeProcess is a process of the world.
type fakeProcess struct {
	w       *world
	pid     int
	command Command
	nonce   string
	signals chan syscall.Signal
	done    chan struct{}
	exit    Exit
	// refuses, if set, is what the kernel says to a signal.
	refuses error
	// noGenesis: it ends before it has made a state.
	noGenesis bool
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
	if p.refuses != nil {
		return p.refuses
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

// listens accepts connections from now on, long enough for that to be seen.
func (p *fakeProcess) listens() {
	p.w.mu.Lock()
	p.w.listens = true
	p.w.mu.Unlock()
	time.Sleep(2 * portPoll)
}

func (p *fakeProcess) says(text string) {
	_, err := fmt.Fprintln(p.command.Stderr, text)
	assert.NoError(p.w.t, err)
}

func (p *fakeProcess) exits(code int) { p.ends(Exit{Code: code}) }

func (p *fakeProcess) ends(e Exit) {
	p.w.mu.Lock()
	p.w.alive--
	p.w.height, p.w.listens = nil, false
	if !p.noGenesis {
		p.w.store.genesis()
	}
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
		assert.Fail(p.w.t, "no signal came", "want %s", signalname.Of(want))
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

// reachesAndExits rises to the height and exits with the code.
func reachesAndExits(code int, heights ...uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		for _, h := range heights {
			p.at(h)
		}
		p.exits(code)
	}
}

func exits(code int) func(*fakeProcess) { return func(p *fakeProcess) { p.exits(code) } }

// answers refuses the start height as a node does whose durable height is given.
func answers(height uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.says(p.refusal(height))
		p.exits(101)
	}
}

func (p *fakeProcess) refusal(height uint64) string {
	return fmt.Sprintf("The requested start_at_rollup_height: %s, is different than expected height %d", p.nonce, height+1)
}

// stoppedAt has the entrypoint asked to stop at the height.
func stoppedAt(height uint64) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.at(height)
		p.w.signals <- syscall.SIGTERM
		p.gets(syscall.SIGTERM)
		p.exits(0)
	}
}

// then sends the entrypoint a signal while a process does something.
func then(sig syscall.Signal, does func(*fakeProcess)) func(*fakeProcess) {
	return func(p *fakeProcess) {
		p.w.signals <- sig
		does(p)
	}
}

// memoryStore is a record in memory. The checkpoint is written from another goroutine than the stamp.
type memoryStore struct {
	mu         sync.Mutex
	storage    string // empty if no config names the directory
	state      checkpoint.Presence
	stamp      *checkpoint.Stamp
	checkpoint *checkpoint.Checkpoint
	// noCheckpoint: there is no checkpoint file.
	noCheckpoint bool
	// story has a line for each write that was durable, in order, but for checkpoints.
	story []string
	kept  []checkpoint.Checkpoint
	// stamps counts the tries to write a stamp, failed ones too.
	stamps, checkpoints int
	// failStamp and failCheckpoint, if set, decide about the n-th save, from 0; failSync about a sync of the state.
	failStamp, failCheckpoint func(n int) error
	failSync                  func() error
	loadError, keepError      error
	// held, if set, decides about the n-th look at the locks, from 0.
	held  func(n int) error
	looks int
	// slow is how long a write of the stamp takes.
	slow time.Duration
}

func (m *memoryStore) Held() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.looks
	m.looks++
	if m.held != nil {
		return m.held(n)
	}
	return nil
}

// wrote are the writes after the first one of a run, which writes the stamp as it is.
func (m *memoryStore) wrote() []string { return m.story[min(1, len(m.story)):] }

// put puts another state in place.
func (m *memoryStore) put(stamp *checkpoint.Stamp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stamp = stamp
}

// genesis: a node has made a state.
func (m *memoryStore) genesis() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.storage != "" {
		m.state = checkpoint.StatePresent
	}
}

// onDisk is the stamp that counts.
func (m *memoryStore) onDisk() *checkpoint.Stamp {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.storage != "":
		return m.stamp
	case m.checkpoint != nil:
		return m.checkpoint.Stamp
	case m.noCheckpoint: // nothing is on disk
		return &checkpoint.Stamp{Name: "v0", StopHeight: 20}
	}
	return nil
}

func (m *memoryStore) Load() (checkpoint.Found, error) {
	found, err := m.LoadState()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.checkpoint != nil {
		c := m.checkpoint.Clone()
		found.Checkpoint = &c
	}
	return found, err
}

func (m *memoryStore) LoadState() (checkpoint.Found, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loadError != nil {
		return checkpoint.Found{}, m.loadError
	}
	found := checkpoint.Found{Storage: m.storage}
	if m.storage != "" {
		found.State = m.state
	}
	if m.stamp != nil {
		found.Stamp = new(*m.stamp)
	}
	return found, nil
}

func (m *memoryStore) SaveStamp(s checkpoint.Stamp) error {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.stamps
	m.stamps++
	if m.failStamp != nil {
		if err := m.failStamp(n); err != nil {
			return err
		}
	}
	if _, err := checkpoint.EncodeStamp(s); err != nil {
		return err
	}
	line := fmt.Sprintf("v%d stop %d", s.VersionIndex, s.StopHeight)
	if s.Migration != "" {
		line += " " + string(s.Migration)
	}
	if s.Complete {
		line += " complete"
	}
	m.story, m.stamp = append(m.story, line), &s
	return nil
}

func (m *memoryStore) SaveCheckpoint(c checkpoint.Checkpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noCheckpoint {
		return nil
	}
	n := m.checkpoints
	m.checkpoints++
	if m.failCheckpoint != nil {
		if err := m.failCheckpoint(n); err != nil {
			return err
		}
	}
	if _, err := checkpoint.Encode(c); err != nil {
		return err
	}
	m.checkpoint = &c
	return nil
}

func (m *memoryStore) KeepCheckpoint() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keepError != nil {
		return "", m.keepError
	}
	if m.checkpoint == nil {
		return "", nil
	}
	m.kept = append(m.kept, m.checkpoint.Clone())
	return "/data/checkpoint.json.before", nil
}

func (m *memoryStore) SyncState() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failSync != nil {
		if err := m.failSync(); err != nil {
			return err
		}
	}
	m.story = append(m.story, "sync")
	return nil
}

// fakeFiles is an Inspection that finds every file right, but for the problems.
type fakeFiles struct {
	plan     *Plan
	problems map[int]Problems
	// preflight and verify, if not nil, find what Programs and Manifest add.
	preflight func(i int) []Finding
	verify    func(ctx context.Context, i int, idly bool) []Finding
	digest    func(binary string) (string, error)
	// storage says where the state is by a config; by default it is that of the store.
	storage func(config string) (string, error)
	mu      sync.Mutex
	read    []string
}

func (f *fakeFiles) Version(ctx context.Context, i int, depth Depth) (found []Finding) {
	for _, problem := range f.problems[i] {
		found = append(found, Finding{i, SeverityError, problem, ""})
	}
	return append(found, f.closely(ctx, i, depth)...)
}

func (f *fakeFiles) Shared(ctx context.Context, depth Depth) []Finding {
	return f.closely(ctx, WholePlan, depth)
}

func (f *fakeFiles) closely(ctx context.Context, i int, depth Depth) (found []Finding) {
	if depth&Programs != 0 && f.preflight != nil {
		found = append(found, f.preflight(i)...)
	}
	if depth&Manifest != 0 && f.verify != nil {
		found = append(found, f.verify(ctx, i, depth&Idly != 0)...)
	}
	return found
}

func (f *fakeFiles) Digest(i int) (string, error) {
	binary := f.plan.Versions[i].Binary
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read = append(f.read, binary)
	if f.digest != nil {
		return f.digest(binary)
	}
	return "sha of " + binary, nil
}

func (f *fakeFiles) Storage(i int, dir string) (now string, same bool, err error) {
	now, err = f.storage(f.plan.Versions[i].Config)
	return now, now == dir, err
}

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
	assert.NotEmpty(w.t, f.ToDo(), f.What)
	return f
}

// failsBecause is fails with code 78, and wants the cause and the remedies.
func (w *world) failsBecause(cause Cause, remedies ...Remedy) *Failure {
	w.t.Helper()
	f := w.fails(CodeMismatch)
	assert.Equal(w.t, cause, f.Cause, f.Error())
	var got []Remedy
	for _, r := range f.Remedies {
		assert.NotEmpty(w.t, r.When)
		assert.Equal(w.t, w.plan.File, r.Config)
		got = append(got, Remedy{Version: r.Version, Migrated: r.Migrated, Complete: r.Complete, Force: r.Force})
	}
	assert.Equal(w.t, remedies, got)
	return f
}

// sameButTime reports whether two stamps say the same of a state.
func sameButTime(a, b checkpoint.Stamp) bool {
	a.UpdatedAt, b.UpdatedAt = time.Time{}, time.Time{}
	return a == b
}

// nopLog logs nothing.
func nopLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

var errFull = errors.New("no space left on device")

// failing fails the n-th call, or those between two.
func failing(n int, until ...int) func(int) error {
	end := n
	for _, last := range until {
		end = last
	}
	return func(at int) error {
		if n <= at && at <= end {
			return errFull
		}
		return nil
	}
}

var _ io.Writer = (*tail)(nil)
