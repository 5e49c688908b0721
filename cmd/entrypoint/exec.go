package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
)

const execUsage = "entrypoint exec [FLAGS] -- COMMAND [ARGUMENTS]"

// execFlags are the settings of exec. Letters are those of tini.
type execFlags struct {
	group, subreaper bool
	verbose          int
	parentDeath      string
	remapExit        []int
	signalMap        []string
}

func (f *execFlags) register(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.group, "group", "g", false, "forward signals to the command's process group, not to the command alone")
	flags.StringSliceVar(&f.signalMap, "signal-map", nil, "forward signal FROM as TO, as `FROM:TO` (15:3, TERM:QUIT); TO 0 drops it")
	flags.StringVarP(&f.parentDeath, "parent-death-signal", "p", "", "`SIGNAL` that we get when our own parent dies")
	flags.IntSliceVarP(&f.remapExit, "remap-exit", "e", nil, "exit 0 if the command exits with `CODE`")
	flags.BoolVarP(&f.subreaper, "subreaper", "s", false, "accepted for tini's sake: we always are one when we are not process 1")
	flags.CountVarP(&f.verbose, "verbose", "v", "log what is done; may be repeated")
}

// execCommand runs one command under the init.
func execCommand(p program, args []string) int {
	var f execFlags
	flags := newFlags("exec")
	flags.SetInterspersed(false) // what follows the command is the command's
	f.register(flags.FlagSet)
	if code, done := parseOrHelp(p, flags, execUsage, args); done {
		return code
	}
	if flags.NArg() == 0 {
		return usageError(p, "exec", errors.New("the command is missing: want "+execUsage))
	}
	options, death, err := f.options()
	if err != nil {
		return usageError(p, "exec", err)
	}
	limitRuntime()
	level := slog.LevelWarn - slog.Level(4*min(f.verbose, 2))
	log := newLog(p.stderr, isTerminal(os.Stderr), level)
	code, err := execute(p, log, flags.Args(), options, death)
	if err != nil {
		log.Error("cannot run the command", slog.String("error", err.Error()))
		return code
	}
	for _, remapped := range f.remapExit {
		if code == remapped {
			return 0
		}
	}
	return code
}

func execute(p program, log *slog.Logger, argv []string, options reaper.ExecOptions, death syscall.Signal) (int, error) {
	init, err := reaper.New(reaper.Options{Inbox: p.inbox, Log: log, ParentDeathSignal: death})
	if err != nil {
		return sequencer.CodeMismatch, err //nolint:wrapcheck // it says what could not be done
	}
	path, err := findCommand(argv[0])
	if err != nil {
		return reaper.ExitCodeForStartError(err), err
	}
	exit, err := init.Exec(reaper.Command{Path: path, Args: argv, Foreground: true}, options)
	if err != nil {
		return reaper.ExitCodeForStartError(err), err
	}
	log.Info("command ended", slog.String("exit", exit.String()), slog.Int("exit_code", exit.Status()))
	return exit.Status(), nil
}

// options turns the flags into what the init takes. All problems are found.
func (f *execFlags) options() (options reaper.ExecOptions, death syscall.Signal, err error) {
	var problems []error
	options = reaper.ExecOptions{Group: f.group, SignalMap: map[syscall.Signal]syscall.Signal{}}
	for _, pair := range f.signalMap {
		from, to, err := parseMapping(pair)
		if err != nil {
			problems = append(problems, fmt.Errorf("--signal-map %s: %w", pair, err))
			continue
		}
		options.SignalMap[from] = to
	}
	if f.parentDeath != "" {
		if death, err = parseSignal(f.parentDeath); err != nil {
			problems = append(problems, fmt.Errorf("--parent-death-signal: %w", err))
		}
	}
	for _, code := range f.remapExit {
		if code < 0 || code > 255 {
			problems = append(problems, fmt.Errorf("--remap-exit %d: want 0 to 255", code))
		}
	}
	return options, death, errors.Join(problems...)
}

func parseMapping(pair string) (from, to syscall.Signal, err error) {
	left, right, ok := strings.Cut(pair, ":")
	if !ok {
		return 0, 0, errors.New("want FROM:TO")
	}
	if from, err = parseSignal(left); err != nil {
		return 0, 0, err
	}
	if can, why := reaper.Forwardable(from); !can {
		return 0, 0, fmt.Errorf("signal %s is not forwarded: %s", left, why)
	}
	if right == "0" {
		return from, 0, nil
	}
	to, err = parseSignal(right)
	return from, to, err
}

// parseSignal reads a signal as kill(1) does: 15, TERM or SIGTERM.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("there is no signal %d, want 1 to 64", n)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("there is no signal %q", text)
}
