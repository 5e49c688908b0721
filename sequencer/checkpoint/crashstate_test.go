package checkpoint

import (
	"bufio"
	"cmp"
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

	"rollup-entrypoint/internal/durable"
)

// The system calls of a real save are recorded and replayed into a small model of a POSIX file system, in which content
// is durable only after fsync of the file and a name only after fsync of its directory. Whatever is not durable may have
// reached the disk or not. Each state that a power cut can leave, after each call, is then read as the file of the record.

// savedVariable has the test binary save a file of the record under strace: its value is the file, the way, and the
// directory.
const savedVariable = "CHECKPOINT_TEST_TRACED_SAVE"

const (
	oldIndex = 1
	newIndex = 2
)

func TestTracedSave(t *testing.T) {
	name, rest, _ := strings.Cut(os.Getenv(savedVariable), ":")
	way, dir, _ := strings.Cut(rest, ":")
	if name == "" {
		return // this is what strace runs, for the tests below
	}
	f := fileNamed(name)
	store, err := f.open(dir)
	require.NoError(t, err)
	_ = os.Remove("/save begins") // a mark in the trace
	if way == "in place" {
		file, err := os.Create(filepath.Join(dir, f.file))
		require.NoError(t, err)
		_, err = file.WriteString(f.text)
		require.NoError(t, err)
		require.NoError(t, file.Sync())
		require.NoError(t, file.Close())
		require.NoError(t, durable.SyncDir(dir))
	} else {
		require.NoError(t, f.save(store, newIndex))
	}
	_ = os.Remove("/save returned")
}

func fileNamed(name string) recordFile {
	return recordFiles[slices.IndexFunc(recordFiles, func(f recordFile) bool { return f.name == name })]
}

// recorded is a save that was traced: the calls that change something below root, and what was in the file before.
type recorded struct {
	recordFile
	calls      []systemCall
	root, path string
	before     string
}

// recordSave records a save that replaces an old file in dir below a new directory; if there is no such dir it makes
// one.
func recordSave(t *testing.T, f recordFile, way, dir string) recorded {
	t.Helper()
	r := recorded{recordFile: f, root: realTempDir(t)}
	r.path = filepath.Join(r.root, dir, f.file)
	if dir == "" {
		store, err := f.open(r.root)
		require.NoError(t, err)
		require.NoError(t, f.save(store, oldIndex))
		require.NoError(t, store.Close())
		text, err := os.ReadFile(r.path)
		require.NoError(t, err)
		r.before = string(text)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command("strace", "-f", "-y", "-xx", "-s", "65536", "-o", trace, "-e", "trace=%file,%desc", self, "-test.run=^TestTracedSave$")
	cmd.Env = append(os.Environ(), savedVariable+"="+f.name+":"+way+":"+filepath.Dir(r.path))
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" || strings.Contains(string(out), "FAIL") {
			t.Fatalf("cannot trace a save, which CI must be able to: install strace: %v\n%s", err, out)
		}
		t.Skipf("cannot trace a save (needs strace): %v\n%s", err, out)
	}
	file, err := os.Open(trace)
	require.NoError(t, err)
	defer file.Close()
	r.calls = parseTrace(t, file, r.root)
	require.NotEmpty(t, r.calls)
	return r
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
var readOnly = []string{"fstat", "newfstatat", "statx", "fcntl", "epoll_ctl", "read", "pread64", "getdents64", "readlinkat", "readlink", "close", "flock", "lseek", "access", "faccessat2", "fchmod", "fchown", "mmap"}

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
	directory bool
	durable   string
	since     []string // the whole content after each change
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

// change is one of a directory: a name that is made, moved within it, or removed.
type change struct {
	remove, set string
	inode       *inode
}

func (c change) make(names map[string]*inode) {
	delete(names, c.remove)
	if c.set != "" {
		names[c.set] = c.inode
	}
}

func (c change) directory() string { return filepath.Dir(cmp.Or(c.set, c.remove)) }

// posix is the model: the names that are durable, and the changes since the fsync of their directories. The directory
// root itself is durable.
type posix struct {
	t       *testing.T
	root    string
	durable map[string]*inode
	since   []change
}

// names are the names after the changes of which the bit is set, without those whose directory is not there.
func (p *posix) names(subset int) map[string]*inode {
	names := maps.Clone(p.durable)
	for i, change := range p.since {
		if subset&(1<<i) != 0 {
			change.make(names)
		}
	}
	maps.DeleteFunc(names, func(path string, _ *inode) bool {
		for dir := filepath.Dir(path); dir != p.root; dir = filepath.Dir(dir) {
			if names[dir] == nil {
				return true
			}
		}
		return false
	})
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
	case "mkdir":
		p.since = append(p.since, change{set: text(call.args[0]), inode: &inode{directory: true}})
	case "mkdirat":
		p.since = append(p.since, change{set: text(call.args[1]), inode: &inode{directory: true}})
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

// sync of a file does not make its name durable, and that of a directory no content and no name of its own.
func (p *posix) sync(path string) {
	n := p.now()[path]
	if path == p.root || n != nil && n.directory {
		p.since = slices.DeleteFunc(p.since, func(c change) bool {
			if c.directory() != path {
				return false
			}
			c.make(p.durable)
			return true
		})
		return
	}
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

// crashStates counts, over all power cuts at all moments, what the file is read as. No file at all is the old one if
// there was none.
type crashStates struct {
	old, new, broken int
	// lost are states after the return of the save in which the new file is not there.
	lost int
}

// without leaves out the calls that are unwanted.
func (r recorded) without(unwanted func(systemCall) bool) recorded {
	r.calls = slices.DeleteFunc(slices.Clone(r.calls), unwanted)
	return r
}

func (r recorded) enumerate(t *testing.T) crashStates {
	t.Helper()
	p := &posix{t: t, root: r.root, durable: map[string]*inode{}}
	if r.before != "" {
		p.durable[r.path] = &inode{durable: r.before}
	}
	var found crashStates
	r.look(t, p, &found, len(r.calls) == 0)
	for i, call := range r.calls {
		p.apply(call)
		r.look(t, p, &found, i == len(r.calls)-1)
	}
	return found
}

// look adds all states in which a power cut at this moment can leave the file.
func (r recorded) look(t *testing.T, p *posix, found *crashStates, returned bool) {
	t.Helper()
	for subset := range 1 << len(p.since) {
		contents := []string{""}
		n := p.names(subset)[r.path]
		if n != nil {
			contents = n.contents()
		}
		for _, content := range contents {
			switch {
			case n == nil && r.before == "", n != nil && content == r.before:
				found.old++
			case n != nil && r.reads(content, newIndex):
				found.new++
				continue
			default:
				found.broken++
			}
			if returned {
				found.lost++
			}
		}
	}
}

// reads reports whether content is a whole file with the index.
func (r recorded) reads(content string, index int) bool {
	if r.name == "stamp" {
		stamp, err := ParseStamp([]byte(content))
		return err == nil && r.index(Found{Stamp: &stamp}) == index
	}
	c, err := Parse([]byte(content))
	return err == nil && r.index(Found{Checkpoint: &c}) == index
}

func TestNoPowerCutInASaveLeavesAnythingButTheOldOrTheNewFile(t *testing.T) {
	for _, f := range recordFiles {
		t.Run(f.name, func(t *testing.T) {
			save := recordSave(t, f, "save", "")
			syncs := func(ofDir bool) func(systemCall) bool {
				return func(c systemCall) bool {
					return (c.name == "fsync" || c.name == "fdatasync") && (described(c.args[0]) == save.root) == ofDir
				}
			}
			states := save.enumerate(t)
			t.Logf("%d calls, %+v", len(save.calls), states)
			assert.Zero(t, states.broken)
			assert.Zero(t, states.lost, "once it has returned")
			assert.NotZero(t, states.old)
			assert.NotZero(t, states.new)

			t.Run("without fsync of the file it would", func(t *testing.T) {
				assert.NotZero(t, save.without(syncs(false)).enumerate(t).broken)
			})
			t.Run("without fsync of the directory it could be lost", func(t *testing.T) {
				states := save.without(syncs(true)).enumerate(t)
				assert.Zero(t, states.broken)
				assert.NotZero(t, states.lost)
			})
			t.Run("in place it would", func(t *testing.T) {
				states := recordSave(t, f, "in place", "").enumerate(t)
				assert.NotZero(t, states.broken)
			})
		})
	}
}

func TestNoPowerCutTakesAStampWithItsNewDirectory(t *testing.T) {
	save := recordSave(t, fileNamed("stamp"), "save", "deep/state")
	states := save.enumerate(t)
	t.Logf("%d calls, %+v", len(save.calls), states)
	assert.Zero(t, states.broken)
	assert.Zero(t, states.lost, "once it has returned")
	assert.NotZero(t, states.old)
	assert.NotZero(t, states.new)
	for _, dir := range []string{"", "deep", "deep/state"} {
		t.Run("without fsync of "+filepath.Join("root", dir)+" it could be lost", func(t *testing.T) {
			states := save.without(func(c systemCall) bool {
				return c.name == "fsync" && described(c.args[0]) == filepath.Join(save.root, dir)
			}).enumerate(t)
			assert.NotZero(t, states.lost)
		})
	}
}
