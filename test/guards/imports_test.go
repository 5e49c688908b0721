package guards

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "rollup-entrypoint/"

// rule is what a package imports in its own files; its tests may import more. Names of the project's packages are
// without the module.
type rule struct {
	// may are the project's packages that it imports: each of them, so that a row that has become too wide is noticed.
	may []string
	// never are other packages that it may not import.
	never []string
}

// rules has a row for each package. Imports point one way: cmd/entrypoint → internal/status → sequencer → plan,
// checkpoint and sovereign; cmd/entrypoint → internal/preflight → images and the sequencer's packages; cmd/entrypoint →
// reaper. At the bottom are packages that import nothing of the project.
var rules = map[string]rule{
	"cmd/entrypoint": {may: []string{
		"images", "internal/hold", "internal/layout", "internal/limits", "internal/logwriter", "internal/lookpath", "internal/plain",
		"internal/preflight", "internal/regularfile", "internal/signalname", "internal/status", "internal/strictjson", "internal/systemd", "internal/undo", "reaper", "sequencer",
		"sequencer/checkpoint", "sequencer/plan", "sequencer/sovereign",
	}},
	"internal/status": {may: []string{
		"internal/plain", "internal/signalname", "sequencer", "sequencer/checkpoint", "sequencer/sovereign",
	}},
	"internal/systemd": {may: []string{"sequencer"}},
	// It has the findings of sequencer, and looks at the locks that checkpoint takes.
	"internal/preflight": {may: []string{
		"images", "internal/layout", "internal/limits", "internal/lookpath", "internal/regularfile", "internal/undo", "sequencer",
		"sequencer/checkpoint", "sequencer/plan", "sequencer/sovereign",
	}},
	// The undo point is a copy of files with a description.
	"internal/undo": {may: []string{"internal/durable", "internal/plain", "sequencer", "sequencer/checkpoint"}},
	// The sequence knows no process table, no file system and no HTTP: it names what it needs in interfaces of its own.
	// What it may take from syscall is checked below.
	"sequencer": {
		may: []string{
			"internal/signalname", "internal/strictjson", "sequencer/checkpoint", "sequencer/plan", "sequencer/sovereign",
		},
		never: []string{"golang.org/x/sys/unix", "io/fs", "net", "net/http", "os", "os/exec", "os/signal", "path/filepath"},
	},
	// The plan knows no processes and no state on disk.
	"sequencer/plan": {
		may:   []string{"internal/layout", "internal/regularfile", "internal/strictjson"},
		never: []string{"golang.org/x/sys/unix", "net", "net/http", "os/exec", "os/signal", "syscall"},
	},
	// The record on disk knows no plan and no node.
	"sequencer/checkpoint": {
		may:   []string{"internal/durable", "internal/plain", "internal/procfs", "internal/regularfile", "internal/strictjson"},
		never: []string{"net", "net/http", "os/exec", "os/signal"},
	},
	// What we know of a node is flags, TOML, routes and sentences, not processes.
	"sequencer/sovereign": {
		may:   []string{"internal/plain", "internal/regularfile"},
		never: []string{"golang.org/x/sys/unix", "os/exec", "os/signal", "syscall"},
	},
	"images": {may: []string{
		"internal/durable", "internal/layout", "internal/lookpath", "internal/plain", "internal/regularfile", "internal/strictjson",
	}},
	// The init knows nothing of rollups.
	"reaper": {may: []string{"internal/procfs", "internal/signalname"}, never: []string{"net", "net/http"}},

	"internal/durable":     {},
	"internal/hold":        {may: []string{"internal/durable", "internal/regularfile", "internal/strictjson"}},
	"internal/layout":      {},
	"internal/limits":      {},
	"internal/logwriter":   {},
	"internal/lookpath":    {},
	"internal/plain":       {},
	"internal/procfs":      {},
	"internal/regularfile": {},
	"internal/signalname":  {},
	"internal/strictjson":  {},

	"cmd/mock-rollup":     {may: []string{"internal/mockrollup"}},
	"internal/mockrollup": {},

	"examples/hooks": {}, // it has tests alone

	"charts": {}, // it has tests alone

	// A network is looked at from outside, as an operator does it, so that it may be one of real nodes.
	"compose":          {}, // it has tests alone
	"compose/network":  {},
	"compose/testnet":  {may: []string{"compose/network"}},
	"compose/rehearse": {},

	"test/composetest":       {},
	"test/dockertest":        {},
	"test/guards":            {},
	"test/kubernetes":        {},
	"test/kubernetes/pause":  {},
	"test/logevents":         {},
	"test/mutants":           {},
	"test/ports":             {},
	"test/companion":         {},
	"test/program":           {},
	"test/ptrace":            {},
	"test/rehearsaltest":     {},
	"test/simulation":        {may: []string{"sequencer", "sequencer/checkpoint"}},
	"test/charttest":         {},
	"test/charttest/schemas": {},
}

func TestImportsPointOneWay(t *testing.T) {
	found := map[string]bool{}
	for _, line := range golist(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		names := strings.Fields(line)
		name, imports := strings.TrimPrefix(names[0], module), names[1:]
		found[name] = true
		rule, known := rules[name]
		if !known {
			t.Errorf("%s has no rule: add a row to rules in test/guards/imports_test.go", name)
		}
		for _, imported := range imports {
			own, isOwn := strings.CutPrefix(imported, module)
			if isOwn && !slices.Contains(rule.may, own) || slices.Contains(rule.never, imported) {
				t.Errorf("%s may not import %s", name, imported)
			}
		}
		for _, own := range rule.may {
			if !slices.Contains(imports, module+own) {
				t.Errorf("%s no longer imports %s: take that out of its row in test/guards/imports_test.go", name, own)
			}
		}
	}
	for name := range rules {
		if !found[name] {
			t.Errorf("there is no package %s: take its row out of test/guards/imports_test.go", name)
		}
	}
}

// Signals and error numbers are the sequence's words for how a node ended. It makes no system call.
func TestSequencerTakesOnlySignalsAndErrorsFromSyscall(t *testing.T) {
	allowed := regexp.MustCompile(`^syscall\.(?:Signal|SIG[A-Z0-9]+|Errno|E[A-Z0-9]+)$`)
	selector := regexp.MustCompile(`\bsyscall\.\w+`)
	files, err := filepath.Glob(filepath.Join(root, "sequencer", "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, used := range selector.FindAllString(string(text), -1) {
			if !allowed.MatchString(used) {
				t.Errorf("%s uses %s", strings.TrimPrefix(file, root+"/"), used)
			}
		}
	}
}

// A package with such a name says nothing about itself, and so collects everything.
func TestPackagesAreNamedAfterWhatTheyDo(t *testing.T) {
	for _, line := range golist(t, "-f", "{{.ImportPath}} {{.Name}}", "./...") {
		importPath, name, _ := strings.Cut(line, " ")
		for _, word := range []string{name, path.Base(importPath)} {
			require.NotContains(t, []string{"base", "common", "helper", "helpers", "misc", "shared", "types", "util", "utils"}, word, importPath)
		}
	}
}

// The Wait of os/exec would race the one goroutine that owns wait4(2).
func TestProgramDoesNotLinkOsExec(t *testing.T) {
	linked := golist(t, "-deps", program)
	require.Contains(t, linked, module+"reaper")
	require.NotContains(t, linked, "os/exec")
}

// Only tests use what is in test, and the stand-in and the networks are programs of their own.
func TestProgramLinksNoTestToolAndNoStandIn(t *testing.T) {
	for _, name := range golist(t, "-deps", program) {
		own, isOwn := strings.CutPrefix(name, module)
		first, _, _ := strings.Cut(own, "/")
		if isOwn && (first == "test" || first == "compose" || own == "internal/mockrollup") {
			t.Errorf("the program links %s", own)
		}
	}
}
