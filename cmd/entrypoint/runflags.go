package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rollup-entrypoint/internal/preflight"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	// defaultRestarts is how often a node is restarted in place within ten minutes.
	defaultRestarts = 5
	// defaultLeftoverTimeout is long enough for a real node, left behind by a wrapper, to shut down.
	defaultLeftoverTimeout = 5 * time.Minute
)

// runFlags are the settings of run.
type runFlags struct {
	recordFlags
	hold            string
	undo            undoFlags
	slack           uint64
	restarts        uint
	stopTimeout     time.Duration
	leftoverTimeout time.Duration
	nofile          uint64
	whenFinished    string
	listen          string
	stallTimeout    time.Duration
	preflightBefore time.Duration
	manifest        string
	termination     string
	logLevel        string
	logFormat       string
}

func (f *runFlags) register(flags *flagSet) {
	flags.check = func() error { return f.check(flags) }
	f.recordFlags.register(flags)
	registerStopHeight(flags, &f.stopHeight)
	registerHoldFile(flags, &f.hold)
	flags.Var((*blocks)(&f.slack), "height-slack", "for a node that cannot be asked: count exit 0 at most `BLOCKS` below the stop height as complete, as sov-rollup-manager does (off unless given)")
	f.undo.register(flags)
	flags.UintVar(&f.restarts, "restarts", defaultRestarts, "restart a node that exits 0 below its stop height, at most `N` times in ten minutes")
	flags.DurationVar(&f.stopTimeout, "stop-timeout", 0, "kill a process, and what it left behind, `DURATION` after asking it to stop (0: never; SIGKILL can damage the state)")
	flags.DurationVar(&f.leftoverTimeout, "leftover-timeout", defaultLeftoverTimeout, "when a node has exited by itself, kill (SIGKILL) what it left behind after `DURATION` (0: never); after a migration, end the run instead")
	flags.Uint64Var(&f.nofile, "nofile", preflight.FilesDefault, "raise the soft limit of open files for nodes and migrations to `N`, but not above the hard limit (0: leave it)")
	flags.StringVar(&f.whenFinished, "when-finished", "exit", "what to do after the last version's stop height: `exit|wait`")
	flags.StringVar(&f.listen, "listen", defaultListen, "serve status, probes and metrics on `ADDRESS` (empty: off)")
	flags.DurationVar(&f.stallTimeout, "stall-timeout", 0, "report not alive (/healthz) after `DURATION` without a new height (0: never)")
	flags.DurationVar(&f.preflightBefore, "preflight-before", time.Hour, "from `DURATION` before an upgrade on, inspect the next version again at intervals of a twelfth of that (0: only at the start and after the node's first height)")
	registerManifest(flags.FlagSet, &f.manifest)
	registerTermination(flags, &f.termination, "run")
	flags.StringVar(&f.logLevel, "log-level", "info", "minimum log level: `debug|info|warn|error`")
	flags.StringVar(&f.logFormat, "log-format", "auto", "log format: `auto|text|json`; auto is text on a terminal, JSON otherwise")
}

func (f *runFlags) check(flags *flagSet) error {
	f.settle(flags)
	var problems []error
	refuse := func(wrong bool, format string, values ...any) {
		if wrong {
			problems = append(problems, fmt.Errorf(format, values...))
		}
	}
	refuse(f.config == "", "--config is missing: name the file that lists the versions")
	refuse(f.checkpoint == "" && !f.noCheckpoint, "--checkpoint-file is missing: name a file on the volume, or use --no-checkpoint-file")
	refuse(f.checkpoint != "" && f.noCheckpoint, "--checkpoint-file and --no-checkpoint-file cannot both be given")
	// It would be taken for the stamp, or overwrite it.
	refuse(filepath.Base(f.checkpoint) == checkpoint.StampFile,
		"--checkpoint-file is %q, which is the name of the stamp in the state: give the checkpoint another name", f.checkpoint)
	problems = append(problems, notForTermination(f.termination, f.checkpoint), notForHold(holdFile(f.checkpoint, f.hold), f.checkpoint, f.termination))
	for _, c := range [][]string{
		{"when-finished", f.whenFinished, "exit", "wait"},
		{"log-level", f.logLevel, "debug", "info", "warn", "error"},
		{"log-format", f.logFormat, "auto", "text", "json"},
	} {
		flag, value, want, last := c[0], c[1], c[2:], len(c)-1
		refuse(!slices.Contains(want, value), "--%s: want %s or %s", flag, strings.Join(c[2:last], ", "), c[last])
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"stop-timeout", f.stopTimeout}, {"leftover-timeout", f.leftoverTimeout}, {"stall-timeout", f.stallTimeout}, {"preflight-before", f.preflightBefore}} {
		refuse(d.value < 0, "--%s is %s, want 0 or more", d.flag, d.value)
	}
	problems = append(problems, f.undo.check())
	_, port, err := net.SplitHostPort(f.listen)
	refuse(f.listen != "" && (err != nil || port == ""), "--listen: want HOST:PORT, such as %s, or nothing", defaultListen)
	refuse(flags.unexpected(), "unexpected argument: arguments for the node go after --")
	return errors.Join(problems...)
}

func (f *runFlags) newLog(w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(f.logLevel)) // it was checked
	return newLog(w, f.logFormat == "text" || f.logFormat == "auto" && isTerminal(os.Stderr), level)
}
