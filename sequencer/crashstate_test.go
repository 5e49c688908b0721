package sequencer

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The system calls of a real Save are recorded and replayed into a small model of a POSIX file system, in which content
// is durable only after fsync of the file and a name only after fsync of its directory. Whatever is not durable may have
// reached the disk or not. Each state that a power cut can leave, after each call, is then read as a checkpoint.

// savedVariable has the test binary save a checkpoint under strace: its value is the way, and then the path.
const savedVariable = "SEQUENCER_TEST_TRACED_SAVE"

func TestTracedSave(t *testing.T) {
	way, path, _ := strings.Cut(os.Getenv(savedVariable), ":")
	if way == "" {
		return // this is what strace runs, for the tests below
	}
	store, err := OpenFileStore(path)
	require.NoError(t, err)
	_ = os.Remove("/save begins") // a mark in the trace
	if way == "in place" {
		text, err := EncodeCheckpoint(newCheckpoint)
		require.NoError(t, err)
		file, err := os.Create(path)
		require.NoError(t, err)
		_, err = file.Write(text)
		require.NoError(t, err)
		require.NoError(t, file.Sync())
		require.NoError(t, file.Close())
		require.NoError(t, syncDir(filepath.Dir(path)))
	} else {
		require.NoError(t, store.Save(newCheckpoint))
	}
	_ = os.Remove("/save returned")
}

var (
	oldCheckpoint = Checkpoint{VersionIndex: 1, BinaryPath: "/old/rollup", Phase: PhaseRunning, Started: true}
	newCheckpoint = Checkpoint{VersionIndex: 2, BinaryPath: "/new/rollup", Phase: PhaseMigrating}
)

// recordSave gives the calls of a save that change something in the directory of the checkpoint.
func recordSave(t *testing.T, way string) (calls []systemCall, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "checkpoint.json")
	text, err := EncodeCheckpoint(oldCheckpoint)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	trace := filepath.Join(t.TempDir(), "trace")
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command("strace", "-f", "-y", "-xx", "-s", "65536", "-o", trace, "-e", "trace=%file,%desc", self, "-test.run=^TestTracedSave$")
	cmd.Env = append(os.Environ(), savedVariable+"="+way+":"+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" || strings.Contains(string(out), "FAIL") {
			t.Fatalf("cannot trace a save, which CI must be able to: install strace: %v\n%s", err, out)
		}
		t.Skipf("cannot trace a save (needs strace): %v\n%s", err, out)
	}
	file, err := os.Open(trace)
	require.NoError(t, err)
	defer file.Close()
	calls = parseTrace(t, file, dir)
	require.NotEmpty(t, calls)
	return calls, path
}

// systemCall is one that has succeeded: its name, its arguments, and what it returned.
type systemCall struct {
	name   string
	args   []string
	result string
}

var (
	callLine   = regexp.MustCompile(`^\d+ +(\w+)\((.*)\) += (.*)$`)
	unfinished = regexp.MustCompile(`^(\d+) +(\w+\(.*) <unfinished \.\.\.>$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	hexText    = regexp.MustCompile(`(?:\\x[0-9a-f]{2})+`)
)

// readOnly are calls that change nothing of what is durable.
var readOnly = []string{"fstat", "newfstatat", "statx", "fcntl", "epoll_ctl", "read", "pread64", "getdents64", "readlinkat", "readlink", "close", "flock", "lseek", "access", "faccessat2", "fchmod", "mmap"}

// parseTrace keeps what happens in dir between the marks. A call that the model does not know fails the test.
func parseTrace(t *testing.T, trace *os.File, dir string) []systemCall {
	t.Helper()
	var calls []systemCall
	begun, complete := false, false
	pending := map[string]string{}
	lines := bufio.NewScanner(trace)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := unfinished.FindStringSubmatch(line); m != nil {
			pending[m[1]] = m[2]
			continue
		}
		if m := resumed.FindStringSubmatch(line); m != nil {
			line = m[1] + " " + pending[m[1]] + m[2]
		}
		line = hexText.ReplaceAllStringFunc(line, func(text string) string {
			plain, err := strconv.Unquote(`"` + text + `"`)
			require.NoError(t, err)
			return strings.Trim(strconv.Quote(plain), `"`)
		})
		begun = begun || strings.Contains(line, `"/save begins"`)
		complete = complete || strings.Contains(line, `"/save returned"`)
		if m := callLine.FindStringSubmatch(line); begun && !complete && m != nil && strings.Contains(line, dir) {
			if !strings.HasPrefix(m[3], "-1 ") && !slices.Contains(readOnly, m[1]) {
				calls = append(calls, systemCall{m[1], arguments(m[2]), m[3]})
			}
		}
	}
	require.True(t, complete, "the trace has no end")
	return calls
}

// arguments splits at the commas outside of texts.
func arguments(text string) []string {
	var args []string
	quoted, from := false, 0
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case text[i] == ',' && !quoted:
			args = append(args, strings.TrimSpace(text[from:i]))
			from = i + 1
		}
	}
	return append(args, strings.TrimSpace(text[from:]))
}

// inode is the content of a file: what is durable, and what has been done to it since then.
type inode struct {
	durable string
	since   []string // the whole content after each change
}

func (n *inode) now() string {
	if len(n.since) == 0 {
		return n.durable
	}
	return n.since[len(n.since)-1]
}

// contents are all that a power cut may leave: each state since the fsync, and each of them torn at any byte, ended
// there, or filled up with NUL bytes or with what was there before.
func (n *inode) contents() []string {
	all := map[string]bool{n.durable: true}
	before := n.durable
	for _, after := range n.since {
		for i := range len(after) + 1 {
			all[after[:i]] = true
			all[after[:i]+strings.Repeat("\x00", len(after)-i)] = true
			all[after[:i]+before[min(i, len(before)):]] = true
			all[strings.Repeat("\x00", i)+after[i:]] = true
		}
		before = after
	}
	return slices.Collect(maps.Keys(all))
}

// change is one of a directory: a name that is made, moved or removed.
type change struct {
	remove, set string
	inode       *inode
}

// posix is the model: the names that are durable, and the changes since the fsync of the directory.
type posix struct {
	t       *testing.T
	dir     string
	durable map[string]*inode
	since   []change
}

// names are the names after the changes of which the bit is set.
func (p *posix) names(subset int) map[string]*inode {
	names := maps.Clone(p.durable)
	for i, change := range p.since {
		if subset&(1<<i) == 0 {
			continue
		}
		delete(names, change.remove)
		if change.set != "" {
			names[change.set] = change.inode
		}
	}
	return names
}

func (p *posix) now() map[string]*inode { return p.names(1<<len(p.since) - 1) }

// apply does what a call does.
func (p *posix) apply(call systemCall) {
	p.t.Helper()
	switch call.name {
	case "openat":
		p.open(text(call.args[1]), call.args[2])
	case "write", "pwrite64":
		p.write(call)
	case "ftruncate":
		require.Equal(p.t, "0", call.args[1])
		p.change(described(call.args[0]), "")
	case "fsync", "fdatasync":
		p.sync(described(call.args[0]))
	case "rename":
		p.rename(text(call.args[0]), text(call.args[1]))
	case "renameat", "renameat2":
		p.rename(text(call.args[1]), text(call.args[3]))
	case "unlink":
		p.since = append(p.since, change{remove: text(call.args[0])})
	case "unlinkat":
		p.since = append(p.since, change{remove: text(call.args[1])})
	default:
		p.t.Fatalf("the model does not know %+v", call)
	}
}

func (p *posix) open(path, flags string) {
	_, there := p.now()[path]
	switch {
	case !there && strings.Contains(flags, "O_CREAT"):
		p.since = append(p.since, change{set: path, inode: &inode{}})
	case there && strings.Contains(flags, "O_TRUNC"):
		p.change(path, "")
	}
}

func (p *posix) write(call systemCall) {
	p.t.Helper()
	content := text(call.args[1])
	require.Equal(p.t, strconv.Itoa(len(content)), call.result, "a short write")
	path := described(call.args[0])
	p.change(path, p.now()[path].now()+content)
}

func (p *posix) change(path, content string) {
	n := p.now()[path]
	require.NotNil(p.t, n, path)
	n.since = append(n.since, content)
}

func (p *posix) rename(from, to string) {
	p.since = append(p.since, change{remove: from, set: to, inode: p.now()[from]})
}

// sync of a file does not make its name durable, and that of the directory no content.
func (p *posix) sync(path string) {
	if path == p.dir {
		p.durable, p.since = p.now(), nil
		return
	}
	n := p.now()[path]
	require.NotNil(p.t, n, path)
	n.durable, n.since = n.now(), nil
}

// text is an argument in quotes, described the path that strace shows beside a file descriptor.
func text(arg string) string {
	plain, err := strconv.Unquote(arg)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", arg, err))
	}
	return plain
}

func described(arg string) string {
	_, path, _ := strings.Cut(arg, "<")
	return strings.TrimSuffix(path, ">")
}

// crashStates counts, over all power cuts at all moments, what the checkpoint is read as.
type crashStates struct {
	old, new, broken int
	// lost are states after the return of the save in which the new checkpoint is not there.
	lost int
}

func enumerate(t *testing.T, calls []systemCall, path string) crashStates {
	t.Helper()
	old, err := EncodeCheckpoint(oldCheckpoint)
	require.NoError(t, err)
	p := &posix{t: t, dir: filepath.Dir(path), durable: map[string]*inode{path: {durable: string(old)}}}
	var found crashStates
	found.look(p, path, len(calls) == 0)
	for i, call := range calls {
		p.apply(call)
		found.look(p, path, i == len(calls)-1)
	}
	return found
}

// look adds all states in which a power cut at this moment can leave the checkpoint.
func (f *crashStates) look(p *posix, path string, returned bool) {
	for subset := range 1 << len(p.since) {
		n := p.names(subset)[path]
		if n == nil {
			f.broken++
			continue
		}
		for _, content := range n.contents() {
			c, err := ParseCheckpoint([]byte(content))
			switch {
			case err == nil && c.VersionIndex == newCheckpoint.VersionIndex && c.BinaryPath == newCheckpoint.BinaryPath && c.Phase == newCheckpoint.Phase:
				f.new++
				continue
			case err == nil && assert.ObjectsAreEqual(oldCheckpoint, c):
				f.old++
			default:
				f.broken++
			}
			if returned {
				f.lost++
			}
		}
	}
}

func without(calls []systemCall, unwanted func(systemCall) bool) []systemCall {
	return slices.DeleteFunc(slices.Clone(calls), unwanted)
}

func TestNoPowerCutInASaveLeavesAnythingButTheOldOrTheNewCheckpoint(t *testing.T) {
	calls, path := recordSave(t, "save")
	dir := filepath.Dir(path)
	syncs := func(ofDir bool) func(systemCall) bool {
		return func(c systemCall) bool {
			return (c.name == "fsync" || c.name == "fdatasync") && (described(c.args[0]) == dir) == ofDir
		}
	}
	states := enumerate(t, calls, path)
	t.Logf("%d calls, %+v", len(calls), states)
	assert.Zero(t, states.broken)
	assert.Zero(t, states.lost, "once it has returned")
	assert.NotZero(t, states.old)
	assert.NotZero(t, states.new)

	t.Run("without fsync of the file it would", func(t *testing.T) {
		assert.NotZero(t, enumerate(t, without(calls, syncs(false)), path).broken)
	})
	t.Run("without fsync of the directory it could be lost", func(t *testing.T) {
		states := enumerate(t, without(calls, syncs(true)), path)
		assert.Zero(t, states.broken)
		assert.NotZero(t, states.lost)
	})
	t.Run("in place it would", func(t *testing.T) {
		calls, path := recordSave(t, "in place")
		states := enumerate(t, calls, path)
		assert.NotZero(t, states.broken)
		assert.Zero(t, states.lost, "once it is synced")
	})
}
