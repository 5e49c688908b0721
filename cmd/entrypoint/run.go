package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"os"
	"time"

	"rollup-entrypoint/internal/hold"
	"rollup-entrypoint/internal/limits"
	"rollup-entrypoint/internal/logwriter"
	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/internal/systemd"
	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
	"rollup-entrypoint/sequencer/checkpoint"
	"rollup-entrypoint/sequencer/sovereign"
)

const runUsage = "entrypoint [run] -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]"

func runCommand(flags *flagSet) func(p program) int {
	var f runFlags
	f.register(flags)
	return func(p program) int {
		limitRuntime()
		socket := systemd.Take()
		out := logwriter.New(p.stderr)
		defer out.Flush(time.Second)
		log := f.newLog(out.Lines())
		for _, stray := range strayEnvironment(flags) {
			log.Warn("environment variable ignored", slog.String("detail", stray))
		}
		last := newLastRun(log, f.checkpoint)
		err := reserveThreads()
		if err == nil {
			err = f.sequence(p, flags, out, last, socket)
		}
		if err == nil {
			return 0
		}
		last.end(err)
		_ = socket.Send("STATUS=" + oneLine(err)) // the notifier has logged why it does not work
		return report(log, terminationOf(flags), err)
	}
}

// sequence builds everything that a run needs, and runs it.
func (f *runFlags) sequence(p program, flags *flagSet, out *logwriter.Writer, last *lastRun, socket systemd.Socket) error {
	log := last.log
	plan, err := f.load()
	if err != nil {
		return err
	}
	logPlan(log, plan)
	inspection := preflight.New(plan)
	inspection.NodeArgs = flags.Args()
	if err := inspection.UseManifest(f.manifest, flags.given("manifest")); err != nil {
		return err //nolint:wrapcheck // a Failure in its own words
	}
	if _, err := limits.RaiseFiles(f.nofile); err != nil { // before the init, which waits for all children
		log.Warn("limit of open files not raised", slog.String("error", err.Error()))
	}
	init, err := newInit(p, log)
	if err != nil {
		return err
	}
	watcher := f.watcher(plan, init)
	if err := f.serve(watcher, flags.given("listen"), log); err != nil {
		return err
	}
	go preflight.WatchPlan(f.load, plan, watcher.FollowPlan)
	notifier := systemd.Start(systemd.Options{Socket: socket, Pulse: p.inbox.Pulse(), Line: watcher.Line, NotAlive: watcher.NotAlive, Log: log})
	defer notifier.Stop()
	options := f.options(flags)
	options.Plan, options.Signals, options.Log, options.Stderr = plan, p.inbox, log, out
	options.Observe = func(state sequencer.State) {
		watcher.Observe(state)
		notifier.Observe(state)
	}
	if err := f.undo.use(inspection, &options, log); err != nil {
		return err
	}
	inspection.LogManifest(log)
	return runLocked(p, out, watcher, inspection, init, last, options)
}

func (f *runFlags) options(flags *flagSet) sequencer.Options {
	options := sequencer.Options{
		Checkpoint: f.checkpoint, NodeArgs: flags.Args(), Heights: nodeHeights, WaitWhenFinished: f.whenFinished == "wait",
		StopTimeout: f.stopTimeout, LeftoverTimeout: f.leftoverTimeout, PreflightBefore: f.preflightBefore, Restarts: int(min(f.restarts, math.MaxInt32)),
	}
	if file := holdFile(f.checkpoint, f.hold); file != "" {
		options.Hold = hold.New(file)
	}
	if flags.given("height-slack") {
		options.Slack = &f.slack
	}
	return options
}

// runLocked takes the locks of checkpoint and state, and runs the sequence.
func runLocked(p program, out *logwriter.Writer, watcher *status.Status, inspection *preflight.Inspection, init *reaper.Reaper, last *lastRun, options sequencer.Options) error {
	log := options.Log
	store, err := openStore(p, log, inspection, options.Checkpoint, out, options.Observe)
	if errors.Is(err, checkpoint.ErrStopped) {
		log.Info("stopped", slog.String("reason", err.Error()))
		return nil
	}
	if err != nil {
		return err
	}
	defer store.Close()
	watcher.Identify(store.ID())
	if dir := store.CannotLock(); dir != "" {
		log.Warn("directory cannot be locked", slog.String("directory", dir))
	}
	options.Inspection, options.Store, options.Processes = inspection, store, &processes{init: init, store: store, log: log}
	watcher.Follow(last.begin(store))
	err = sequencer.Run(options)
	last.end(err)
	return err //nolint:wrapcheck // a Failure in its own words
}

func logPlan(log *slog.Logger, plan *sequencer.Plan) {
	for i, v := range plan.Versions {
		log.Info("version configured", slog.Int("version", i), slog.String("name", v.Name), slog.String("binary", v.Binary),
			slog.Uint64("start_height", v.Start), slog.Uint64("stop_height", v.Stop))
	}
	if plan.Brake > 0 {
		log.Warn("emergency stop is set", slog.Int("version", plan.End()), slog.Uint64("stop_height", plan.Brake))
	}
}

// nodeHeights returns the HTTP client for the node of a version.
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
		return sovereign.Readiness{Why: "the node config cannot be read"}
	}
	return sovereign.NewClient(cfg, v.APIPath).Readiness(ctx)
}

// watcher keeps what the outside sees of a run.
func (f *runFlags) watcher(plan *sequencer.Plan, init *reaper.Reaper) *status.Status {
	return status.New(status.Options{
		Plan: plan, Version: version, Checkpoint: f.checkpoint, StallTimeout: f.stallTimeout,
		Readiness: nodeReadiness, OpenFiles: limits.FilesOf, Orphans: init.Orphans,
	})
}

// serve answers requests for the status. If the default address is taken, that is no reason to stop a chain; if an
// address that was asked for is taken, it is.
func (f *runFlags) serve(s *status.Status, asked bool, log *slog.Logger) error {
	if f.listen == "" {
		return nil
	}
	listener, err := net.Listen("tcp", f.listen)
	switch {
	case err == nil:
		s.Serve(listener)
		address := listener.Addr()
		log.Info("status served", slog.String("address", address.String()))
		// A kubelet whose liveness probe gets no answer ends the run again and again, with exit code 0 and no message.
		if tcp, is := address.(*net.TCPAddr); is && tcp.IP.IsLoopback() && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
			log.Warn("status served on the loopback address in Kubernetes", slog.String("address", address.String()))
		}
	case asked:
		return &sequencer.Failure{
			Code: sequencer.CodeMismatch, What: "the status cannot be served", Err: err,
			Safe: "nothing was started", Next: "name a free address with --listen, or an empty one for none",
		}
	default:
		log.Warn("status not served", slog.String("error", err.Error()))
	}
	return nil
}
