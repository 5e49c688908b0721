package program

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/mockrollup"
	"rollup-entrypoint/test/ports"
)

// version is one version of a chain that a test lays out.
type version struct {
	// stop is its stop height, 0 for none. It starts where the one before stops.
	stop uint64
	// migrates: it has a migration, and a state version of its own.
	migrates bool
	// faults changes the config of its node.
	faults func(*mockrollup.Mock)
	// keys are further keys of its entry in the config, or replace those it has; a nil value removes one.
	keys map[string]any
}

// chain is a rollup in a directory of its own: versions, config, checkpoint, state, and the DA layer that it follows.
type chain struct {
	t        testing.TB
	dir      string
	manager  string
	versions []laidOut
	// below is the directory in dir that has the folders of the versions; empty for dir itself.
	below string
	// checkpoint is the file on the volume, state the directory.
	checkpoint, state string
	port              uint16
	da                *daLayer
	// stage has the program start in namespaces of its own, as process 1 where asFirst is set.
	stage   *stage
	asFirst bool
	// user is who the program runs as, nil for who the test runs as.
	user *syscall.Credential
	// env is added to the program's environment.
	env []string
	// statusAddress is where it serves its status, empty for nowhere; defaultListen leaves that to the program.
	statusAddress string
	defaultListen bool
	// defaultTermination leaves the termination message where the program writes it by itself.
	defaultTermination bool
	// undo is the mode of the undo point, empty for off: most tests want to see what a failed upgrade leaves behind.
	undo string
	// deaf, where set, has nobody read the program's log until it is closed.
	deaf chan struct{}
	// listen, where set, reads the program's stderr in place of the log book, to its end.
	listen func(io.Reader)

	program  *program   // nil before its start and after its end
	programs []*program // all that were started
	args     []string   // with which it was started last
	lastLog  string     // of the last program that has ended
	phase    string
	traced   int // lines of the trace that earlier phases have seen
}

// laidOut is a version with its place in the chain.
type laidOut struct {
	version
	start uint64
	node  mockrollup.Config
}

// newChain lays out a chain. Nothing is started. Its blocks come when the test says so: see heights.
func newChain(t testing.TB, versions ...version) *chain {
	t.Helper()
	readSources()
	dir := t.TempDir()
	c := &chain{
		t: t, dir: dir, manager: filepath.Join(dir, "manager.json"), state: filepath.Join(dir, "volume", "state"),
		checkpoint: filepath.Join(dir, "volume", "checkpoint.json"), port: ports.Hold(t), da: newDALayer(t),
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "volume"), 0o755))
	var stateVersion, next uint64
	for i, v := range versions {
		if v.migrates {
			stateVersion++
		}
		node := mockrollup.NewConfig(c.state, "", c.port)
		node.Mock.Label, node.Mock.StateVersion = fmt.Sprintf("v%d", i), stateVersion
		// A migration changes the format, and a node of another one destroys the state when it opens it.
		node.Mock.Format, node.Mock.JournalDir = fmt.Sprintf("format %d", stateVersion), c.journalDir()
		node.Mock.Fsync, node.Mock.Startup = false, time.Millisecond
		// All blocks that are there are made at once, so that the first height read is the one that a test has set.
		node.Mock.ResyncRate = 1 << 20
		node.Mock.DA = mockrollup.DAConfig{Address: c.da.server.URL, BlockTime: 20 * time.Millisecond, Finality: 2}
		if v.faults != nil {
			v.faults(&node.Mock)
		}
		c.versions = append(c.versions, laidOut{version: v, start: next, node: node})
		next = v.stop + 1
		require.NoError(t, os.Mkdir(c.folder(i), 0o755))
		c.install(programs.nodes[i%len(programs.nodes)], c.binary(i))
		if v.migrates {
			c.install(c.binary(i), c.migration(i))
		}
		c.writeConfig(i)
	}
	c.writeManager()
	t.Cleanup(c.cleanUp)
	return c
}

// journalDir is not the state, so that nothing but the node makes one there, and the journal outlives it.
func (c *chain) journalDir() string { return filepath.Join(c.dir, "journal") }

func (c *chain) folder(i int) string    { return filepath.Join(c.dir, c.below, fmt.Sprintf("v%d", i)) }
func (c *chain) binary(i int) string    { return filepath.Join(c.folder(i), "rollup") }
func (c *chain) config(i int) string    { return filepath.Join(c.folder(i), "config.toml") }
func (c *chain) migration(i int) string { return filepath.Join(c.folder(i), "migration") }

// install puts a program in a place without opening it for writing.
func (c *chain) install(program, path string) {
	c.t.Helper()
	err := os.Link(program, path)
	if errors.Is(err, unix.EXDEV) {
		err = os.Symlink(program, path)
	}
	require.NoError(c.t, err)
}

func (c *chain) writeConfig(i int) {
	c.t.Helper()
	require.NoError(c.t, mockrollup.WriteConfig(c.config(i), c.versions[i].node))
}

// entries are the versions as they stand in manager.json.
func (c *chain) entries() []map[string]any {
	var entries []map[string]any
	for i, v := range c.versions {
		entry := map[string]any{"rollup_binary": c.binary(i), "config_path": c.config(i)}
		if v.start > 0 {
			entry["start_height"] = v.start
		}
		if v.stop > 0 {
			entry["stop_height"] = v.stop
		}
		if v.migrates {
			entry["migration_path"] = c.migration(i)
		}
		maps.Copy(entry, v.keys)
		maps.DeleteFunc(entry, func(_ string, value any) bool { return value == nil })
		entries = append(entries, entry)
	}
	return entries
}

func (c *chain) managerText() []byte {
	c.t.Helper()
	text, err := json.MarshalIndent(c.entries(), "", "  ")
	require.NoError(c.t, err)
	return text
}

func (c *chain) writeManager() {
	c.t.Helper()
	require.NoError(c.t, os.WriteFile(c.manager, c.managerText(), 0o644))
}

// daLayer is a DA layer whose blocks the test makes.
type daLayer struct {
	server         *httptest.Server
	soft, finalize atomic.Uint64
}

func newDALayer(t testing.TB) *daLayer {
	d := &daLayer{}
	d.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(mockrollup.DAStatus{
			DAParams:    mockrollup.DAParams{GenesisUnixMS: 1, BlockMS: 20, FinalityBlocks: 2},
			CurrentSlot: d.soft.Load(), FinalizedSlot: d.finalize.Load(),
		})
	}))
	t.Cleanup(d.server.Close)
	return d
}

// set makes the chain soft blocks long, of which durable are final.
func (d *daLayer) set(soft, durable uint64) {
	d.soft.Store(soft)
	d.finalize.Store(durable)
}

// chainVariable is inherited by every process of a chain, which is how they are found.
const chainVariable = "ENTRYPOINT_TEST_CHAIN"

// environment is what the programs of this chain get: none of our own settings.
func (c *chain) environment() []string {
	var env []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "ENTRYPOINT_") && name != "RUST_LOG" && name != "GORACE" && name != "KUBERNETES_SERVICE_HOST" {
			env = append(env, pair)
		}
	}
	env = append(env, chainVariable+"="+c.dir, "NO_COLOR=1", "GORACE=atexit_sleep_ms=0")
	env = append(env, "ENTRYPOINT_UNDO="+cmp.Or(c.undo, "off"))
	if !c.defaultListen {
		// Many chains run side by side: each has an address of its own, or none.
		env = append(env, "ENTRYPOINT_LISTEN="+c.statusAddress)
	}
	if !c.defaultTermination {
		env = append(env, "ENTRYPOINT_TERMINATION_LOG=") // these tests may run in a pod
	}
	return append(env, c.env...)
}

// start starts the program on the chain. More arguments follow the usual ones.
func (c *chain) start(args ...string) {
	c.t.Helper()
	c.startWith(append([]string{"-c", c.manager, "-f", c.checkpoint}, args...)...)
}

// startWith starts the program with these arguments.
func (c *chain) startWith(args ...string) {
	c.t.Helper()
	if c.program != nil {
		c.fatalf("the program runs already")
	}
	c.args = args
	argv := append([]string{programs.entrypoint}, args...)
	env := c.environment()
	attr := &syscall.SysProcAttr{Credential: c.user}
	if c.stage != nil {
		spec := *c.stage
		spec.Argv = argv
		argv = []string{"/proc/self/exe"}
		env = append(env, stageVariable+"="+encodeStage(c.t, spec))
		attr.Cloneflags = unix.CLONE_NEWNS
	}
	if c.asFirst {
		attr.Cloneflags |= unix.CLONE_NEWPID
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.dir, env, attr
	c.program = startProgram(c.t, cmd, c.deaf, c.listen)
	c.programs = append(c.programs, c.program)
}

// wasKilled reports whether a program that had the locks of this chain was killed.
func (c *chain) wasKilled() bool {
	return slices.ContainsFunc(c.programs, func(p *program) bool { return p.ended() && p.killed() })
}

// command runs the program to its end, beside the one that may run.
func (c *chain) command(args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	cmd := exec.Command(programs.entrypoint, args...)
	cmd.Dir, cmd.Env = c.dir, c.environment()
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.fatalf("cannot run the program: %s", err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// program is the entrypoint while it runs.
type program struct {
	cmd    *exec.Cmd
	log    *logBook
	stderr *os.File
	done   chan struct{}
	// ended by a tracer, its status is that one's; see startTraced.
	tracedStatus *syscall.WaitStatus
	tracedErr    error // of the tracer itself
	// cursor is the line of log from which on the next event is looked for.
	cursor int
}

func startProgram(t testing.TB, cmd *exec.Cmd, deaf <-chan struct{}, listen func(io.Reader)) *program {
	t.Helper()
	read, write, err := os.Pipe()
	require.NoError(t, err)
	p := &program{cmd: cmd, log: &logBook{}, stderr: read, done: make(chan struct{})}
	if listen == nil {
		listen = p.log.read
	}
	cmd.Stderr = write
	require.NoError(t, cmd.Start())
	require.NoError(t, write.Close())
	complete := make(chan struct{})
	go func() {
		defer close(complete)
		if deaf != nil {
			<-deaf
		}
		listen(read)
	}()
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
		<-complete
	}()
	return p
}

// ended reports whether the program has ended and its log is complete.
func (p *program) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *program) status() syscall.WaitStatus {
	if p.tracedStatus != nil {
		return *p.tracedStatus
	}
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status
}

func (p *program) signalled() bool { return p.status().Signaled() }

func (p *program) killed() bool { return p.signalled() && p.status().Signal() == syscall.SIGKILL }

// code is the exit code of the ended program as a shell gives it.
func (p *program) code() int {
	if status := p.status(); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return p.status().ExitStatus()
}

// logBook is what was written to our stderr.
type logBook struct {
	mu    sync.Mutex
	lines []*logLine
	other []string
}

// logLine is one line of our own log.
type logLine struct {
	raw      string
	fields   map[string]any
	expected bool // a phase has waited for it
}

func (b *logBook) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		b.add(lines.Text())
	}
}

func (b *logBook) add(text string) {
	line := &logLine{raw: text}
	ours := strings.HasPrefix(text, `{"time":`) && json.Unmarshal([]byte(text), &line.fields) == nil
	b.mu.Lock()
	defer b.mu.Unlock()
	if ours {
		b.lines = append(b.lines, line)
	} else {
		b.other = append(b.other, text)
	}
}

// all are the lines of our own so far.
func (b *logBook) all() []*logLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[:len(b.lines):len(b.lines)]
}

// nodes is what the nodes wrote on stderr.
func (b *logBook) nodes() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.other, "\n")
}

func (l *logLine) text(key string) string {
	switch value := l.fields[key].(type) {
	case nil:
		return ""
	case string:
		return value
	case float64:
		return strconv.FormatFloat(value, 'f', -1, 64)
	default:
		return fmt.Sprint(value)
	}
}

func (l *logLine) matches(e event) bool {
	if l.text("msg") != e[0] {
		return false
	}
	for _, attr := range e[1:] {
		at := strings.IndexAny(attr, "=~")
		have, want := l.text(attr[:at]), attr[at+1:]
		if attr[at] == '=' && have != want || attr[at] == '~' && !strings.Contains(have, want) {
			return false
		}
	}
	return true
}

// await waits until f is true. It looks often: whatever is waited for takes milliseconds.
func (c *chain) await(what string, f func() bool) {
	c.t.Helper()
	c.awaitOr(what, f, func() string { return "" })
}

func (c *chain) awaitOr(what string, f func() bool, have func() string) {
	c.t.Helper()
	for end := time.Now().Add(deadline); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.fatalf("waited in vain for %s\n%s", what, have())
		}
	}
}

func (c *chain) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s: %s", c.phase, fmt.Sprintf(format, args...))
}

// processes finds the living processes of this chain besides the program itself: number and command line.
func (c *chain) processes() map[int]string {
	self := 0
	if c.program != nil {
		self = c.program.cmd.Process.Pid
	}
	found := map[int]string{}
	for _, dir := range processFolders() {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || pid == self || !strings.Contains("\x00"+string(env), "\x00"+chainVariable+"="+c.dir+"\x00") {
			continue
		}
		found[pid] = commandLine(pid)
	}
	return found
}

// commandLine is that of a process, with a space after each argument.
func commandLine(pid int) string {
	return strings.ReplaceAll(readText(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00", " ")
}

func processFolders() []string {
	folders, _ := filepath.Glob("/proc/[0-9]*")
	return folders
}

// awaitNoZombies waits until no child of the program is dead and not reaped: each is for a moment.
func (c *chain) awaitNoZombies() {
	c.t.Helper()
	c.await("every zombie to be reaped", func() bool { return len(zombiesBelow(c.program.cmd.Process.Pid)) == 0 })
}

// zombiesBelow gives the children of a process that are dead and not reaped.
func zombiesBelow(parent int) (pids []string) {
	for _, dir := range processFolders() {
		text, _ := os.ReadFile(filepath.Join(dir, "stat"))
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, filepath.Base(dir))
		}
	}
	return pids
}

// nodeProcess is the pid of the only process besides the program and its copies: one is there for a moment before each
// exec, and one before the first, by which package os finds out what clone(2) can.
func (c *chain) nodeProcess() int {
	c.t.Helper()
	pid := 0
	c.await("one process to run", func() bool {
		processes := c.processes()
		own := commandLine(c.program.cmd.Process.Pid)
		maps.DeleteFunc(processes, func(_ int, line string) bool { return line == own })
		for pid = range processes {
		}
		return len(processes) == 1
	})
	return pid
}

// leftoverFiles are the temporary files beside the checkpoint and the stamp.
func (c *chain) leftoverFiles() []string {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(c.checkpoint), ".*"))
	more, _ := filepath.Glob(filepath.Join(c.state, ".*"))
	return append(files, more...)
}

// cleanUp ends what still runs, and shows what happened if the test failed.
func (c *chain) cleanUp() {
	if c.program != nil {
		_ = c.program.cmd.Process.Kill()
		<-c.program.done
	}
	for end := time.Now().Add(deadline); len(c.processes()) > 0 && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		for pid := range c.processes() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	if c.t.Failed() {
		c.t.Logf("checkpoint: %s\nstamp: %s\nstate: %s\njournal:\n  %s", readText(c.checkpoint), c.stampInWords(), c.stateInWords(), strings.Join(c.trace(), "\n  "))
		if c.program != nil {
			c.t.Logf("log:\n%s", c.program.log.text())
		}
	}
}

// text is the whole log, for a failure.
func (b *logBook) text() string {
	var all []string
	for _, line := range b.all() {
		all = append(all, line.raw)
	}
	return strings.Join(all, "\n") + "\nnodes:\n" + b.nodes()
}

// awaitSoft waits until the node that runs has processed the blocks up to height.
func (c *chain) awaitSoft(height uint64) {
	c.t.Helper()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	c.await(fmt.Sprintf("soft height %d", height), func() bool {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/modules/chain-state/state/current-heights/", c.port))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var answer struct{ Value []uint64 }
		return json.NewDecoder(resp.Body).Decode(&answer) == nil && len(answer.Value) == 2 && answer.Value[0] >= height
	})
}

// sendAndSettle sends a signal to the program while it waits at a gate, and returns when it has taken note of it: when
// the kernel has delivered the signal and all threads sleep again.
//
// The signal goes to a thread that can be woken. The kernel prefers the first thread for a signal to the process, and
// leaves it pending there, unseen by the others, as long as that one waits at the gate.
func (c *chain) sendAndSettle(sig syscall.Signal) {
	c.t.Helper()
	c.await("a thread that takes the signal", func() bool { return c.sendToSleeper(sig) })
	asleep := 0
	c.await("the signal to be noted", func() bool {
		if asleep++; !c.asleep(sig) {
			asleep = 0
		}
		return asleep >= 5
	})
}

// sendToSleeper sends a signal to a thread of the program whose sleep a signal ends, if there is one now.
func (c *chain) sendToSleeper(sig syscall.Signal) bool {
	pid := c.program.cmd.Process.Pid
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		text := readText(thread)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		tid, err := strconv.Atoi(filepath.Base(filepath.Dir(thread)))
		if err == nil && len(fields) > 0 && fields[0] == "S" && unix.Tgkill(pid, tid, sig) == nil {
			return true
		}
	}
	return false
}

// asleep reports whether the signal is not pending any more and every thread of the program sleeps.
func (c *chain) asleep(sig syscall.Signal) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", c.program.cmd.Process.Pid))
	for _, thread := range threads {
		text, _ := os.ReadFile(thread)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch name {
			case "State":
				if value[0] != 'S' && value[0] != 'D' { // D: it waits at a gate
					return false
				}
			case "SigPnd", "ShdPnd":
				if mask, err := strconv.ParseUint(value, 16, 64); err != nil || mask&(1<<(sig-1)) != 0 {
					return false
				}
			}
		}
	}
	return true
}
