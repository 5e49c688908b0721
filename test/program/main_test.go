// Package program tests the whole program: it builds what is shipped, once, and drives it over stand-in nodes in phases.
// A phase does something, and then expects everything that follows from it. Anything unexpected fails the test: a process,
// a warning, an end.
package program

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadline bounds every wait for something that must happen. It is only met by what is broken, so it may be long.
const deadline = 90 * time.Second

var update = flag.Bool("update", false, "write testdata and pages of docs anew")

// programs are the real binaries, built once.
var programs struct {
	dir, entrypoint string
	// nodes are the stand-in, in copies of different digest, as the versions of a rollup are.
	nodes []string
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(stageVariable); spec != "" {
		fmt.Fprintln(os.Stderr, stageMain(spec))
		os.Exit(1)
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	flag.Parse()
	if !isSet("test.parallel") {
		_ = flag.Set("test.parallel", "8") // the tests mostly wait
	}
	dir, err := os.MkdirTemp("", "entrypoint-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run the programs as another user
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := buildPrograms(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// buildPrograms builds what is shipped: static, with the same tags. The stand-in is race-tested by its own tests.
func buildPrograms(dir string) error {
	programs.dir, programs.entrypoint = dir, filepath.Join(dir, "entrypoint")
	if err := build(programs.entrypoint, "rollup-entrypoint/cmd/entrypoint", raceEnabled); err != nil {
		return err
	}
	node := filepath.Join(dir, "mock-rollup")
	if err := build(node, "rollup-entrypoint/cmd/mock-rollup", false); err != nil {
		return err
	}
	for i := range 4 {
		copied := filepath.Join(dir, fmt.Sprintf("node-%d", i))
		if err := copyProgram(node, copied, fmt.Sprintf("node %d\n", i)); err != nil {
			return err
		}
		programs.nodes = append(programs.nodes, copied)
	}
	return nil
}

// readSources reads what the programs are built from, once. Without it 'go test' would repeat an old result after a change
// of the program: it looks at the files that a running test has opened, not at those that the go command opens, nor at
// those that were opened before the first test.
var readSources = sync.OnceFunc(func() {
	for _, dir := range []string{"cmd", "images", "internal", "reaper", "sequencer"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") {
				_, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			panic(err)
		}
	}
})

func build(to, what string, race bool) error {
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "nethttpomithttp2", "-o", to, what)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if race {
		cmd.Args = slices.Insert(cmd.Args, 2, "-race")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", what, err, out)
	}
	return nil
}

// buildStatic builds a program for an empty image. programs.entrypoint may be built for the race detector, and then needs a
// loader.
func buildStatic(t *testing.T, to, what string) {
	t.Helper()
	readSources()
	if err := build(to, "rollup-entrypoint/cmd/"+what, false); err != nil {
		t.Fatal(err)
	}
}

// copyProgram copies a program and appends tag: the loader ignores it, the digest does not.
func copyProgram(from, to, tag string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	text, err := io.ReadAll(source)
	if err != nil {
		return err
	}
	return writeExecutable(to, append(text, tag...))
}

// writeExecutable writes a program. While a file is open for writing nobody can execute it, and a fork in another test
// would carry the open file along for a moment.
func writeExecutable(path string, text []byte) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, text, 0o755)
}

// stageVariable has the test binary set the scene in new namespaces, and become the program that is tested.
const stageVariable = "ENTRYPOINT_TEST_STAGE"

// stage is what is done before the program is executed in its namespaces.
type stage struct {
	// Proc mounts a /proc that shows the new process namespace.
	Proc bool `json:"proc"`
	// Tmpfs is a directory on which a file system of 64 kB is mounted, ReadOnly one that is made read-only.
	Tmpfs, ReadOnly string
	// Full fills the tmpfs.
	Full bool
	// TerminationLog is a file that is mounted at /dev/termination-log, as in a pod, in a /dev that has nothing else.
	TerminationLog string
	// Group is the directory of a control group that is entered.
	Group string
	Argv  []string
}

// stageMain only returns if something cannot be done.
func stageMain(spec string) error {
	var s stage
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	if err := s.mount(); err != nil {
		return fmt.Errorf("cannot set the scene: %w", err)
	}
	if s.Group != "" {
		if err := os.WriteFile(filepath.Join(s.Group, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("cannot enter the control group: %w", err)
		}
	}
	if err := os.Unsetenv(stageVariable); err != nil {
		return err
	}
	return unix.Exec(s.Argv[0], s.Argv, os.Environ())
}

func (s stage) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make the mounts private: %w", err)
	}
	if s.Proc {
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return fmt.Errorf("cannot mount /proc: %w", err)
		}
	}
	if s.Tmpfs != "" {
		if err := unix.Mount("tmpfs", s.Tmpfs, "tmpfs", 0, "size=64k"); err != nil {
			return fmt.Errorf("cannot mount a tmpfs: %w", err)
		}
		if s.Full {
			// It fails where the space ends, which is what is wanted.
			_ = os.WriteFile(filepath.Join(s.Tmpfs, "ballast"), make([]byte, 128<<10), 0o644)
		}
	}
	if err := s.mountTerminationLog(); err != nil {
		return err
	}
	if s.ReadOnly == "" {
		return nil
	}
	if err := unix.Mount(s.ReadOnly, s.ReadOnly, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot bind %s: %w", s.ReadOnly, err)
	}
	return unix.Mount("", s.ReadOnly, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func (s stage) mountTerminationLog() error {
	if s.TerminationLog == "" {
		return nil
	}
	const file = "/dev/termination-log"
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("cannot mount a /dev: %w", err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(s.TerminationLog, file, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot bind %s: %w", file, err)
	}
	return nil
}

// needNamespaces skips a test that needs namespaces of its own where they cannot be had. In CI they must be.
func needNamespaces(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), stageVariable+"="+encodeStage(t, stage{Proc: true, Argv: []string{programs.entrypoint, "version"}}))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("this test needs root and namespaces, and CI must have them: %s\n%s", err, out)
	default:
		t.Skipf("needs root and namespaces: %s %s", err, out)
	}
}

func encodeStage(t testing.TB, s stage) string {
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
