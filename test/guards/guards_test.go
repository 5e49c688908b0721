// Package guards checks what no single package can see: what is linked into the program, how large it is, which way
// imports point, how long functions are, and which words the docs avoid. It makes a build of its own, with the flags of
// the Makefile.
package guards

import (
	"debug/buildinfo"
	"debug/elf"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root    = "../.."
	program = "./cmd/entrypoint"
	// sizeBudget is in bytes, on amd64.
	sizeBudget = 7_800_000
	goldenFile = "testdata/modules.txt"
	// The go command caches what a linker printed with the compiled main package, and prints it again whenever that
	// package is linked. This flag changes nothing in what is compiled, but gives it an entry in the cache that only we
	// use. It takes the place of the Makefile's flags for that package, so it repeats them.
	ownCompileID = "-gcflags=" + module + "cmd/entrypoint=-l -complete"
)

var update = flag.Bool("update", false, "rewrite "+goldenFile)

// built is the program, and the linker's list of what refers to what.
var built struct{ path, dependencies string }

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "guards")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	readSources()
	built.path = filepath.Join(dir, "entrypoint")
	args := slices.Concat(
		[]string{"build", "-o", built.path, "-tags", makeVariable("GO_TAGS"), "-ldflags", makeVariable("GO_LDFLAGS") + " -X main.version=v0.0.0-guards -dumpdep"},
		strings.Fields(makeVariable("GO_FLAGS")), []string{ownCompileID, program},
	)
	cmd := goCommand(args...)
	// Always for the same machine: sizes differ between machines.
	cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED=0")
	var dump strings.Builder
	cmd.Stderr = &dump
	if err := cmd.Run(); err != nil {
		panic("cannot build " + program + ": " + err.Error() + "\n" + dump.String())
	}
	built.dependencies = dump.String()
	return m.Run()
}

// readSources reads what the build will read: go test reuses an old result unless a file changed that the test itself
// has opened, and does not see what the go command opens.
func readSources() {
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "bin") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".go" || entry.Name() == "go.mod" {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		panic(err)
	}
}

// makeVariable returns the value of a variable of the Makefile.
func makeVariable(name string) string {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		panic(err)
	}
	match := regexp.MustCompile(`(?m)^` + name + ` := (.+)$`).FindSubmatch(text)
	if match == nil {
		panic("the Makefile does not set " + name)
	}
	return string(match[1])
}

func goCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	return cmd
}

// golist returns the lines that go list prints, with the tags of the program.
func golist(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := goCommand(append([]string{"list", "-tags", makeVariable("GO_TAGS")}, args...)...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	require.NoError(t, err, cmd.Args)
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestProgramFitsItsBudget(t *testing.T) {
	info, err := os.Stat(built.path)
	require.NoError(t, err)
	t.Logf("%d bytes, %d below the budget", info.Size(), sizeBudget-info.Size())
	require.LessOrEqual(t, info.Size(), int64(sizeBudget), "the program outgrew its budget: find out what is new in it with go tool nm -size -sort size")
}

func TestProgramIsStatic(t *testing.T) {
	file, err := elf.Open(built.path)
	require.NoError(t, err)
	defer file.Close()
	for _, segment := range file.Progs {
		require.NotContains(t, []elf.ProgType{elf.PT_INTERP, elf.PT_DYNAMIC}, segment.Type, "the program needs a loader: it cannot run FROM scratch")
	}
}

// The list has no versions, so that an update of a module does not change it.
func TestLinkedModulesAreTheGoldenList(t *testing.T) {
	info, err := buildinfo.ReadFile(built.path)
	require.NoError(t, err)
	var linked strings.Builder
	for _, module := range info.Deps {
		linked.WriteString(module.Path + "\n")
	}
	if *update {
		require.NoError(t, os.WriteFile(goldenFile, []byte(linked.String()), 0o644))
	}
	golden, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	require.Equal(t, string(golden), linked.String(),
		"the program links other modules than "+goldenFile+" lists. If that is intended, run: go test ./test/guards -update, and say in the commit what it costs")
}

// A call of reflect's Method or MethodByName with a name that the linker cannot know keeps every exported method of
// every reachable type in the program.
func TestDeadCodeEliminationWorks(t *testing.T) {
	require.Contains(t, built.dependencies, "main.main -> ", "the linker printed no dependencies")
	callers := map[string]bool{}
	for line := range strings.Lines(built.dependencies) {
		if before, _, found := strings.Cut(line, " <ReflectMethod>"); found {
			callers[before[strings.LastIndex(before, " ")+1:]] = true
		}
	}
	require.Empty(t, callers, "these functions look methods up by name")
}
