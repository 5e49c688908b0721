// Rehearse tries an upgrade before it is made. It runs the network of a Compose file under the entrypoint, with the
// image and the plan that will be deployed, through every upgrade, and reports whether all nodes end with the same
// state, also after faults.
//
//	go run ./compose/rehearse [FLAGS]
//
// Phase 1 lets all nodes upgrade live, under a small load that pauses before each stop height. Phase 2 wipes the nodes'
// volumes and lets them sync again, from nothing or from a snapshot. Phase 3 starts a new chain and injects faults,
// each into a different node. It runs in its own Compose project, which it removes at the end, also after Ctrl-C. It
// needs docker, and docker-compose 1.29 or Compose v2. docs/rehearsal.md describes the rehearsal, the flags and the
// report.
//
// Exit codes: 0 every step passed, 1 a step failed, 64 the command line is wrong, 69 the rehearsal cannot run (no
// Docker, a missing image, a Compose file that does not fit), 130 interrupted.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

const (
	exitPassed      = 0
	exitFailed      = 1
	exitUsage       = 64
	exitUnavailable = 69
	exitInterrupted = 130

	// removeTimeout is for the cleanup, which also follows a Ctrl-C.
	removeTimeout = 5 * time.Minute
)

// errTimeout ends a rehearsal that takes longer than --timeout, which counts as failed.
var errTimeout = errors.New("--timeout was exceeded")

// settings are the flags and what is derived from them.
type settings struct {
	image, file, plan, state, load, reportFile, data, compose string
	nodePlans                                                 map[string]string
	nodes, newChain, wipeToo, keepVolumes                     []string
	// first is the version that the nodes start with: that of the snapshot.
	first               int
	moreBlocks          uint64
	timeout, stall      time.Duration
	statusPort, apiPort int
	keep, noDryRun      bool
}

func main() {
	os.Exit(rehearse(os.Args[1:], os.Stdout, os.Stderr))
}

// rehearse is the program. It writes the report to stdout and its progress to stderr.
func rehearse(args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stdout)
	if errors.Is(err, pflag.ErrHelp) {
		return exitPassed
	}
	if err != nil {
		fmt.Fprintf(stderr, "rehearse: %s\nTry: rehearse --help\n", err)
		return exitUsage
	}
	interrupted, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	r, err := carryOut(interrupted, s, stderr)
	switch {
	case interrupted.Err() != nil:
		fmt.Fprintln(stderr, "rehearse: interrupted")
		return exitInterrupted
	case err != nil:
		fmt.Fprintf(stderr, "rehearse: %s\n", err)
		return exitUnavailable
	}
	fmt.Fprint(stdout, r.text())
	if s.reportFile != "" {
		if err := r.write(s.reportFile); err != nil {
			fmt.Fprintf(stderr, "rehearse: %s\n", err)
			return exitUnavailable
		}
	}
	if !r.Passed {
		return exitFailed
	}
	return exitPassed
}

func parse(args []string, stdout io.Writer) (settings, error) {
	var s settings
	flags := pflag.NewFlagSet("rehearse", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.image, "image", "", "`IMAGE` of the nodes, instead of the one in the Compose file")
	flags.StringVar(&s.file, "file", "compose/compose.yaml", "the Compose `FILE`")
	flags.StringVar(&s.plan, "plan", "", "the plan (manager.json) for all nodes; default: the plan in the image")
	flags.StringToStringVar(&s.nodePlans, "node-plan", nil, "`SERVICE=FILE`: a different plan for one node; may be repeated")
	flags.StringVar(&s.state, "state", "", "`DIR` with a snapshot; every new volume of a node starts with a copy")
	flags.StringVar(&s.load, "load", "", "shell `COMMAND` that sends transactions until it gets SIGTERM, instead of the built-in load for the stand-in")
	flags.Uint64Var(&s.moreBlocks, "more-blocks", 10, "`BLOCKS` to run after the last upgrade")
	flags.DurationVar(&s.timeout, "timeout", time.Hour, "`TIME` after which the rehearsal fails")
	flags.DurationVar(&s.stall, "stall", 2*time.Minute, "`TIME` without a new height after which a node fails")
	flags.StringVar(&s.reportFile, "report", "", "also write the report as JSON to `FILE`")
	flags.BoolVar(&s.noDryRun, "no-dry-run", false, "do not try a migration with --dry-run: for migrations that do not know that flag")
	flags.BoolVar(&s.keep, "keep", false, "keep the containers and volumes")
	flags.StringSliceVar(&s.nodes, "nodes", []string{"sequencer", "replica-0", "replica-1"}, "`SERVICES` of the Compose file that run an entrypoint")
	flags.StringSliceVar(&s.newChain, "new-chain", []string{"da"}, "`SERVICES` to wipe for a new chain; empty: no new chain can be started")
	flags.StringSliceVar(&s.wipeToo, "wipe-too", nil, "`SERVICES` to wipe together with the nodes, such as a sequencer's database")
	flags.StringSliceVar(&s.keepVolumes, "keep-volume", nil, "`VOLUMES` of the nodes to never wipe")
	flags.StringVar(&s.data, "data", "/data", "`DIR` in a node's container for state and checkpoint; must be a volume")
	flags.StringVar(&s.compose, "compose", "", "Compose `COMMAND`; default: 'docker compose', or 'docker-compose' if that is missing")
	flags.IntVar(&s.statusPort, "status-port", 9848, "`PORT` of the entrypoint's status page in the container")
	flags.IntVar(&s.apiPort, "api-port", 12346, "`PORT` of the node's API in the container")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprintf(stdout, "Usage: rehearse [FLAGS]\n\nFlags:\n%s\nExit codes: 0 passed, 1 failed, 64 usage, 69 cannot run, 130 interrupted.\n", flags.FlagUsages())
		}
		return s, fmt.Errorf("%w", err)
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return s, s.check()
}

func (s *settings) check() error {
	if len(s.nodes) < 2 {
		return errors.New("--nodes needs at least two services that run an entrypoint, to compare them")
	}
	for i, name := range s.nodes {
		if slices.Contains(s.nodes[:i], name) {
			return fmt.Errorf("--nodes names %q twice", name)
		}
	}
	for flag, port := range map[string]int{"--status-port": s.statusPort, "--api-port": s.apiPort} {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%s %d is not a port, want 1 to 65535", flag, port)
		}
	}
	s.data = path.Clean(s.data)
	if s.timeout <= 0 || s.stall <= 0 {
		return errors.New("--timeout and --stall must be above 0")
	}
	if strings.TrimSpace(s.compose) == "" && s.compose != "" {
		return errors.New("--compose is blank: give a command, or omit the flag")
	}
	for service, file := range s.nodePlans {
		if file == "" {
			return fmt.Errorf("--node-plan has no file for %s", service)
		}
		if !slices.Contains(s.nodes, service) {
			return fmt.Errorf("--node-plan names %q, which is not in --nodes: %s", service, strings.Join(s.nodes, ", "))
		}
	}
	for _, name := range append(slices.Clone(s.newChain), s.wipeToo...) {
		if slices.Contains(s.nodes, name) {
			return fmt.Errorf("%q is a node, which is always wiped: remove it from --new-chain and --wipe-too", name)
		}
	}
	for _, file := range append([]string{s.file, s.plan}, values(s.nodePlans)...) {
		if info, err := os.Stat(file); file != "" && err != nil {
			return fmt.Errorf("cannot read a file named on the command line: %w", err)
		} else if file != "" && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", file)
		}
	}
	if err := s.checkState(); err != nil || s.reportFile == "" {
		return err
	}
	// Now, so that nobody takes an old report for that of a rehearsal that could not run.
	if err := os.WriteFile(s.reportFile, nil, 0o644); err != nil {
		return fmt.Errorf("cannot write --report: %w", err)
	}
	return nil
}

// checkState checks that the snapshot can be copied, and finds out its version.
func (s *settings) checkState() (err error) {
	if s.state == "" {
		return nil
	}
	if info, err := os.Stat(s.state); err != nil || !info.IsDir() {
		return fmt.Errorf("--state %s is not a folder", s.state)
	}
	if s.state, err = filepath.EvalSymlinks(s.state); err != nil {
		return fmt.Errorf("cannot read --state: %w", err)
	}
	files, stamps := 0, []string(nil)
	if err := filepath.WalkDir(s.state, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Type()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%s is a symbolic link, and its target would not be copied: make the snapshot with cp -RL", name)
		}
		switch {
		case entry.IsDir() && isOfUndo(name):
			return fs.SkipDir
		case !entry.Type().IsRegular() || name == filepath.Join(s.state, checkpointFile):
		case entry.Name() == stampFile:
			stamps = append(stamps, name)
		default:
			files++
		}
		return nil
	}); err != nil {
		return fmt.Errorf("cannot use --state: %w", err)
	}
	if files == 0 {
		return fmt.Errorf("--state %s has no state: it must be a copy of a node's --data folder", s.state)
	}
	s.first, err = versionOfSnapshot(s.state, stamps)
	return err
}

// The files of the entrypoint in a snapshot.
const (
	checkpointFile = "checkpoint.json"
	stampFile      = "rollup-version.json"
)

// isOfUndo reports whether a directory is an undo point, or a state that one has replaced: neither is the state that the
// nodes use.
func isOfUndo(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, "rollup-undo.json")); err == nil {
		return true
	}
	state, _, failed := strings.Cut(dir, ".failed-")
	_, err := os.Lstat(state)
	return failed && err == nil
}

// versionOfSnapshot is the version that made the snapshot. The stamp says which one, or the checkpoint if there is no
// stamp.
func versionOfSnapshot(dir string, stamps []string) (int, error) {
	switch checkpoint := filepath.Join(dir, checkpointFile); {
	case len(stamps) > 1:
		return 0, fmt.Errorf("--state %s has more than one state: %s: keep only the one that the nodes use", dir, strings.Join(stamps, ", "))
	case len(stamps) == 1:
		return recordedVersion("stamp", stamps[0])
	case exists(checkpoint):
		return recordedVersion("checkpoint", checkpoint)
	}
	return 0, fmt.Errorf("--state %s has neither a %s in the state nor a %s beside it: the version that made it is unknown, and no node would start on it",
		dir, stampFile, checkpointFile)
}

// recordedVersion reads the version from a stamp or checkpoint. If the migration to it is not finished, it is the one
// before.
func recordedVersion(kind, file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("cannot read the %s of --state: %w", kind, err)
	}
	var record struct {
		Version   *int   `json:"version_index"`
		Migration string `json:"migration"` // of a stamp
		Phase     string `json:"phase"`     // of a checkpoint
	}
	if err := json.Unmarshal(text, &record); err != nil {
		return 0, fmt.Errorf("cannot read the %s of --state: %s: %w", kind, file, err)
	}
	if record.Version == nil || *record.Version < 0 {
		return 0, fmt.Errorf("cannot read the %s of --state: %s: version_index is missing or negative", kind, file)
	}
	pending := record.Migration == "begun" || record.Phase == "migrating" || record.Phase == "finishing_previous"
	if pending && *record.Version > 0 {
		return *record.Version - 1, nil
	}
	return *record.Version, nil
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

func values(m map[string]string) (all []string) {
	for _, value := range m {
		all = append(all, value)
	}
	return all
}

// carryOut prepares the project, runs the rehearsal and removes the project.
func carryOut(interrupted context.Context, s settings, progress io.Writer) (*report, error) {
	ctx, cancel := context.WithTimeoutCause(interrupted, s.timeout, errTimeout)
	defer cancel()
	begun := time.Now()
	e, err := findEngine(ctx, s.compose)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rehearsal-")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // only clutter is left
	project, random := projectName()
	w := &network{
		engine: e, project: project, dir: dir, data: s.data, kept: s.keepVolumes, snapshot: s.state, stall: s.stall,
	}
	r := &report{
		Schema: schema, StartedAt: begun.UTC(), Project: project, File: s.file, Plan: s.plan, Nodes: s.nodes,
		Docker: e.dockerVersion, Compose: e.composeVersion, Versions: []versionReport{}, Steps: []*stepReport{},
	}
	if r.Image, err = w.prepare(ctx, s, random); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	rehearsal := newRehearsal(w, s, r, progress)
	rehearsal.say("project %s; if this program is killed, remove it with: %s", project, removal(project))
	watching, stopWatching := context.WithCancel(ctx)
	w.watch(watching)
	err = rehearsal.run(watching)
	stopWatching()
	w.watchers.Wait()
	if !s.keep {
		if err := w.tidy(); err != nil {
			rehearsal.say("%s", err)
		}
	}
	r.Seconds = time.Since(begun).Seconds()
	r.conclude()
	return r, err
}

// tidy removes the project, whatever happened before.
func (w *network) tidy() error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	if err := w.remove(ctx); err != nil {
		return fmt.Errorf("cannot remove the project %s: %w", w.project, err)
	}
	return nil
}

// projectName gives a name that no other project has.
func projectName() (name string, random int) {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return "rehearsal-" + hex.EncodeToString(b[:]), int(b[0])<<8 | int(b[1])
}

// prepare writes the project's Compose file, and returns the image of the nodes.
func (w *network) prepare(ctx context.Context, s settings, random int) (image string, err error) {
	resolved, err := run(ctx, append(slices.Clone(w.engine.compose), "-p", w.project, "-f", s.file, "config")...)
	if err != nil {
		return "", err
	}
	f, err := readComposeFile(resolved, ports{s.statusPort, s.apiPort})
	if err != nil {
		return "", err
	}
	f.isolate()
	if problems := f.foreign(w.project); len(problems) > 0 {
		return "", fmt.Errorf("%s cannot be rehearsed, since a rehearsal writes only to what it owns: %s", s.file, strings.Join(problems, "; "))
	}
	for _, volume := range s.keepVolumes {
		if !f.hasVolume(volume) {
			return "", fmt.Errorf("the Compose file has no volume %s: see --keep-volume", volume)
		}
	}
	free, err := freePorts(2*len(s.nodes), random)
	if err != nil {
		return "", err
	}
	for i, service := range s.nodes {
		change := nodeChange{image: s.image, published: ports{free[2*i], free[2*i+1]}}
		plan := s.plan
		if own := s.nodePlans[service]; own != "" {
			plan = own
		}
		if change.plan, err = w.copyPlan(plan, service); err != nil {
			return "", err
		}
		if err := f.change(service, change); err != nil {
			return "", err
		}
		w.nodes = append(w.nodes, newNode(service, change.published))
	}
	w.others = f.others(s.nodes)
	for _, name := range append(slices.Clone(s.newChain), s.wipeToo...) {
		if !slices.Contains(w.others, name) {
			return "", fmt.Errorf("the Compose file has no service %s: see --new-chain and --wipe-too", name)
		}
	}
	for service := range f.services {
		name, _ := f.service(service)["image"].(string)
		if _, err := w.docker(ctx, "image", "inspect", "--format", "{{.Id}}", name); err != nil {
			return "", fmt.Errorf("image %q of service %s was not found: build it ('make testnet-image' builds the stand-in) or pull it", name, service)
		}
	}
	image, _ = f.service(s.nodes[0])["image"].(string)
	return image, w.writeFile(f)
}

// copyPlan makes a copy that every user can read, since the container runs as another user.
func (w *network) copyPlan(plan, service string) (string, error) {
	if plan == "" {
		return "", nil
	}
	text, err := os.ReadFile(plan)
	if err != nil {
		return "", fmt.Errorf("cannot read the plan: %w", err)
	}
	file := filepath.Join(w.dir, "plan-"+service+".json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return "", fmt.Errorf("cannot copy the plan: %w", err)
	}
	if err := os.Chmod(file, 0o644); err != nil { // whatever the umask is
		return "", fmt.Errorf("cannot copy the plan: %w", err)
	}
	return file, nil
}
