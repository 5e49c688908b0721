package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rollup-entrypoint/images"
	"rollup-entrypoint/internal/logwriter"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/sovereign"
)

const runUsage = "entrypoint [run] -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]"

// defaultRestarts is how often a node is restarted in place within ten minutes.
const defaultRestarts = 5

// configUsage describes --config.
const configUsage = "JSON `FILE` that lists the versions, or a directory, as images have it; default in an image: " + images.Root

// runFlags are the settings of run.
type runFlags struct {
	recordFlags
	slack           uint64
	restarts        uint
	stopTimeout     time.Duration
	whenFinished    string
	listen          string
	stallTimeout    time.Duration
	preflightBefore time.Duration
	manifest        string
	termination     string
	logLevel        string
	logFormat       string
}

func (f *runFlags) register(flags *pflag.FlagSet) {
	flags.StringVarP(&f.config, "config", "c", "", configUsage)
	flags.StringVarP(&f.checkpoint, "checkpoint-file", "f", "", "`FILE` on the volume that records where the sequence is; made if absent; default in an image: "+images.Checkpoint)
	flags.BoolVar(&f.noCheckpoint, "no-checkpoint-file", false, "keep no checkpoint: the stamp in the state alone is the record")
	flags.Uint64Var(&f.slack, "height-slack", 0, "of a node that cannot be asked, count exit 0 up to `BLOCKS` below the stop height as complete, as sov-rollup-manager does; off unless given")
	flags.UintVar(&f.restarts, "restarts", defaultRestarts, "start a node that exits 0 below its stop height again, at most `N` times within ten minutes")
	flags.DurationVar(&f.stopTimeout, "stop-timeout", 0, "after a stop signal was passed on, kill the process after `DURATION` (0: never)")
	flags.StringVar(&f.whenFinished, "when-finished", "exit", "what to do after the last version's stop height: `exit|wait`")
	flags.StringVar(&f.listen, "listen", defaultListen, "serve status, probes and metrics on `ADDRESS`; empty: off")
	flags.DurationVar(&f.stallTimeout, "stall-timeout", 0, "not alive (/healthz) after `DURATION` without a new height (0: never)")
	flags.DurationVar(&f.preflightBefore, "preflight-before", time.Hour, "look at the next version again `DURATION` before its upgrade (0: only at the start)")
	registerManifest(flags, &f.manifest)
	flags.StringVar(&f.termination, terminationFlag, kubernetesTermination, "`FILE` that gets the reason of a failing exit, at most 4096 bytes; made if absent, but for the default; empty: none")
	flags.StringVar(&f.logLevel, "log-level", "info", "log what is at least that serious: `debug|info|warn|error`")
	flags.StringVar(&f.logFormat, "log-format", "auto", "log as `auto|text|json`; auto: text on a terminal, JSON otherwise")
}

// check finds all that is wrong with the flags.
func (f *runFlags) check(flags *flagSet) error {
	var problems []error
	f.settle(flags)
	if f.config == "" {
		problems = append(problems, errors.New("--config is missing: name the file that lists the versions"))
	}
	switch {
	case f.checkpoint == "" && !f.noCheckpoint:
		problems = append(problems, errors.New("--checkpoint-file is missing: name a file on the volume, or use --no-checkpoint-file"))
	case f.checkpoint != "" && f.noCheckpoint:
		problems = append(problems, errors.New("--checkpoint-file and --no-checkpoint-file cannot both be given"))
	}
	if f.checkpoint != "" && f.termination != "" && sameName(f.termination, f.checkpoint) {
		problems = append(problems, errors.New("--termination-log and --checkpoint-file name the same file: give each one of its own"))
	}
	if err := checkName(f.checkpoint); err != nil {
		problems = append(problems, err)
	}
	problems = append(problems, f.checkChoices()...)
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"stop-timeout", f.stopTimeout}, {"stall-timeout", f.stallTimeout}, {"preflight-before", f.preflightBefore}} {
		if d.value < 0 {
			problems = append(problems, fmt.Errorf("--%s is %s, want 0 or more", d.flag, d.value))
		}
	}
	if f.listen != "" {
		if _, port, err := net.SplitHostPort(f.listen); err != nil || port == "" {
			problems = append(problems, fmt.Errorf("--listen is %q, want HOST:PORT, as %s, or nothing", f.listen, defaultListen))
		}
	}
	before := flags.Args()
	if dash := flags.ArgsLenAtDash(); dash >= 0 {
		before = before[:dash]
	}
	if len(before) > 0 {
		problems = append(problems, fmt.Errorf("unexpected argument %q: arguments for the node go after --", before[0]))
	}
	return errors.Join(problems...)
}

// checkChoices finds values that are none of those that there are.
func (f *runFlags) checkChoices() (problems []error) {
	for _, c := range []struct {
		flag, value string
		want        []string
	}{
		{"when-finished", f.whenFinished, []string{"exit", "wait"}},
		{"log-level", f.logLevel, []string{"debug", "info", "warn", "error"}},
		{"log-format", f.logFormat, []string{"auto", "text", "json"}},
	} {
		if !slices.Contains(c.want, c.value) {
			last := len(c.want) - 1
			problems = append(problems, fmt.Errorf("--%s is %q, want %s or %s", c.flag, c.value, strings.Join(c.want[:last], ", "), c.want[last]))
		}
	}
	return problems
}

// newLog returns the log that the flags ask for.
func (f *runFlags) newLog(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.logLevel)) // it was checked
	return newLog(w, f.logFormat == "text" || f.logFormat == "auto" && isTerminal(os.Stderr), level)
}

func runCommand(p program, args []string) int {
	var f runFlags
	flags := newFlags("run")
	f.register(flags.FlagSet)
	flags.onUsageError = func(err error) { terminateUsage(p, flags, err) }
	if code, done := parseOrHelp(p, flags, runUsage, args); done {
		return code
	}
	if err := f.check(flags); err != nil {
		return flags.usageError(p, err)
	}
	limitRuntime()
	out := logwriter.New(p.stderr)
	defer out.Flush(time.Second)
	log := f.newLog(out.Lines())
	for _, stray := range strayEnvironment(flags) {
		log.Warn("environment variable ignored", slog.String("detail", stray))
	}
	err := f.sequence(p, flags, out, log)
	if err == nil {
		return 0
	}
	return report(log, terminationOf(flags), err)
}

// sequence builds everything that a run needs, and runs it.
func (f *runFlags) sequence(p program, flags *flagSet, out *logwriter.Writer, log *slog.Logger) error {
	plan, err := sequencer.LoadPlan(f.config)
	if err != nil {
		return err //nolint:wrapcheck // a Failure in its own words
	}
	logPlan(log, plan)
	verifier, err := openVerifier(f.manifest, flags.given("manifest"), plan)
	if err != nil {
		return err
	}
	init, err := newInit(p, log)
	if err != nil {
		return err
	}
	watcher := f.watcher(plan, init)
	if err := f.serve(watcher, flags.given("listen"), log); err != nil {
		return err
	}
	options := sequencer.Options{
		Plan: plan, Checkpoint: f.checkpoint, Signals: p.inbox, Log: log, Stderr: out, NodeArgs: flags.Args(),
		StopTimeout: f.stopTimeout, WaitWhenFinished: f.whenFinished == "wait", Heights: nodeHeights, Restarts: int(min(f.restarts, math.MaxInt32)),
		Observe: watcher.Observe, Preflight: runPreflight(plan), PreflightBefore: f.preflightBefore,
	}
	options.Files, options.Verify = verifier.files()
	if verifier != nil {
		verifier.tell(log)
	}
	if flags.given("height-slack") {
		options.Slack = &f.slack
	}
	store, waiting, err := openStore(p, plan, f.checkpoint)
	if errors.Is(err, errStopped) {
		log.Info("stopped", slog.String("reason", err.Error()))
		return nil
	}
	if err != nil {
		return err
	}
	defer store.Close()
	options.Store, options.Held = store, waiting
	options.Processes = &processes{init: init, locks: store.LockFiles}
	return sequencer.Run(options) //nolint:wrapcheck // a Failure in its own words
}

func logPlan(log *slog.Logger, plan *sequencer.Plan) {
	for i, v := range plan.Versions {
		log.Info("version configured", slog.Int("version", i), slog.String("name", v.Name), slog.String("binary", v.Binary),
			slog.Uint64("start_height", v.Start), slog.Uint64("stop_height", v.Stop))
	}
}

// nodeHeights gives the HTTP client for the node of a version.
func nodeHeights(v sequencer.Version) (sequencer.HeightReader, error) {
	cfg, err := sovereign.ReadConfig(v.Config)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	return sovereign.NewClient(cfg, v.APIPath), nil
}

// nodeReadiness asks the node of a version whether it is ready.
func nodeReadiness(ctx context.Context, v sequencer.Version) sovereign.Readiness {
	cfg, err := sovereign.ReadConfig(v.Config)
	if err != nil {
		return sovereign.Readiness{Why: "the config of the node cannot be read"}
	}
	return sovereign.NewClient(cfg, v.APIPath).Readiness(ctx)
}

// watcher keeps what the outside sees of a run.
func (f *runFlags) watcher(plan *sequencer.Plan, init *reaper.Reaper) *status.Status {
	return status.New(status.Options{
		Plan: plan, Version: version, Checkpoint: f.checkpoint, StallTimeout: f.stallTimeout,
		Readiness: nodeReadiness, Orphans: func() uint64 { return init.Stats().OrphansReaped },
	})
}

// serve has the status answered. A default address that is taken is no reason to stop a chain, one that was asked for is.
func (f *runFlags) serve(s *status.Status, asked bool, log *slog.Logger) error {
	if f.listen == "" {
		return nil
	}
	listener, err := net.Listen("tcp", f.listen)
	switch {
	case err == nil:
		s.Serve(listener)
		log.Info("status served", slog.String("address", listener.Addr().String()))
		return nil
	case asked:
		return &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: "the status cannot be served", Err: err,
			Safe: "nothing was started", Next: "name a free address with --listen, or an empty one for none",
		}
	}
	log.Warn("status not served", slog.String("error", err.Error()))
	return nil
}

// report says why a run failed, in the termination message and, as its last line, in the log, and gives the exit code.
func report(log *slog.Logger, to terminationFile, err error) int {
	code := sequencer.CodeMismatch
	var f *sequencer.Failure
	if errors.As(err, &f) {
		code = f.Code
	} else {
		f = &sequencer.Failure{Code: code, What: err.Error()}
	}
	if err := to.write(terminationMessage(f)); err != nil {
		log.Warn("termination message not written", slog.String("error", err.Error()))
	}
	log.Error("run failed", failureAttrs(f, err)...)
	return code
}

// failureAttrs are the facts of a failure for the log; what is not known is left out.
func failureAttrs(f *sequencer.Failure, err error) []any {
	attrs := []any{slog.Int("exit_code", f.Code), slog.String("error", err.Error())}
	if f.Cause != "" {
		attrs = append(attrs, slog.String("cause", string(f.Cause)))
	}
	if f.Stderr != "" {
		attrs = append(attrs, slog.String("stderr", f.Stderr))
	}
	if f.Version != nil {
		attrs = append(attrs, slog.Int("version", *f.Version), slog.Uint64("start_height", f.Start), slog.Uint64("stop_height", f.Stop))
	}
	if f.Height != nil {
		attrs = append(attrs, slog.Uint64("height", *f.Height))
	}
	return attrs
}

// releaseEvery is how often memory that is free is given back to the system. It costs about half a millisecond.
const releaseEvery = time.Minute

// limitRuntime keeps our own memory small and flat: at the default a heap of one megabyte is only collected at four, and
// what the preparations once took would stay with us for as long as the node runs. It is done here and not by variables,
// which the node would inherit. The environment wins.
func limitRuntime() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(2, runtime.GOMAXPROCS(0)))
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(25)
	go func() {
		for range time.Tick(releaseEvery) {
			debug.FreeOSMemory()
		}
	}()
}
