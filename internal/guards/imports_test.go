package guards

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "rollup-entrypoint/"

// rule says what a package may import in its own files, not in those of its tests. All names of packages of the
// project are without the module.
type rule struct {
	// may are the project's packages that it may import.
	may []string
	// never are packages of the standard library that it may not.
	never []string
}

// rules has a row for each package, also for some that are still to come. Imports point one way:
// cmd/entrypoint → internal/status → sequencer → sequencer/sovereign, and cmd/entrypoint → reaper and images.
var rules = map[string]rule{
	"cmd/entrypoint": {may: []string{"images", "internal/logwriter", "internal/lookpath", "internal/preflight", "internal/status", "reaper", "sequencer", "sequencer/checkpoint", "sequencer/sovereign"}},
	// They have tests alone.
	"compose":             {},
	"compose/composetest": {},
	// It reads what any node of a network tells, also a real one's.
	"compose/network": {},
	"compose/testnet": {may: []string{"compose/network"}},
	// It looks at the entrypoint from outside, as an operator does.
	"compose/rehearse":      {},
	"compose/rehearsaltest": {},
	"cmd/mock-rollup":       {may: []string{"internal/mockrollup"}},
	"images":                {may: []string{"internal/lookpath"}},
	// Only tests use it.
	"images/dockertest":   {},
	"internal/guards":     {},
	"internal/logevents":  {},
	"internal/logwriter":  {},
	"internal/lookpath":   {},
	"internal/mockrollup": {},
	"internal/mutants":    {},
	"internal/preflight":  {may: []string{"internal/lookpath", "sequencer", "sequencer/checkpoint", "sequencer/plan", "sequencer/sovereign"}},
	// Only tests link it.
	"internal/ptrace":     {},
	"internal/strictjson": {},
	"internal/status":     {may: []string{"internal/lookpath", "sequencer", "sequencer/checkpoint", "sequencer/sovereign"}},
	// The init knows nothing of rollups.
	"reaper": {},
	// The sequence knows nothing of processes and HTTP: it names what it needs in interfaces of its own.
	"sequencer": {may: []string{"internal/lookpath", "internal/strictjson", "sequencer/checkpoint", "sequencer/plan", "sequencer/sovereign"}, never: []string{"net/http", "os/exec", "os/signal"}},
	// The record on disk knows nothing of plans and nodes.
	"sequencer/checkpoint": {may: []string{"internal/strictjson"}},
	"sequencer/plan":       {may: []string{"internal/strictjson"}},
	// It plays the whole sequence against invented processes and disks; only its own tests use it.
	"sequencer/simulation": {may: []string{"sequencer", "sequencer/checkpoint", "sequencer/sovereign"}},
	"sequencer/sovereign":  {},
}

func TestImportsPointOneWay(t *testing.T) {
	for _, line := range golist(t, "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "./...") {
		names := strings.Fields(line)
		name, imports := strings.TrimPrefix(names[0], module), names[1:]
		rule, known := rules[name]
		if !known {
			t.Errorf("%s has no rule: add a row to rules in internal/guards/imports_test.go", name)
		}
		for _, imported := range imports {
			own, isOwn := strings.CutPrefix(imported, module)
			if isOwn && !slices.Contains(rule.may, own) || slices.Contains(rule.never, imported) {
				t.Errorf("%s may not import %s", name, imported)
			}
		}
	}
}

// Such names say nothing, and so such packages collect everything.
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
