package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/lookpath"
	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
)

const execUsage = "entrypoint exec [FLAGS] -- COMMAND [ARGUMENTS]"

// execFlags are the settings of exec. The letters are those of tini.
type execFlags struct {
	group       bool
	verbose     int
	parentDeath string
	remapExit   []int
	signalMap   []string
	// options and death are what the init takes, made of the others.
	options reaper.ExecOptions
	death   syscall.Signal
}

func (f *execFlags) register(flags *flagSet) {
	flags.SetInterspersed(false) // what follows the command belongs to it
	flags.check = func() error { return f.check(flags) }
	flags.BoolVarP(&f.group, "group", "g", false, "forward signals to the command's process group, not only to the command")
	flags.Var((*wordList)(&f.signalMap), "signal-map", "forward signal FROM as TO, given as `FROM:TO` (15:3, TERM:QUIT); TO 0 drops it")
	flags.StringVarP(&f.parentDeath, "parent-death-signal", "p", "", "get `SIGNAL` when the parent process dies")
	flags.IntSliceVarP(&f.remapExit, "remap-exit", "e", nil, "exit 0 if the command exits with `CODE`")
	flags.BoolP("subreaper", "s", false, "accepted for compatibility with tini: entrypoint is always a subreaper unless it is process 1")
	flags.CountVarP(&f.verbose, "verbose", "v", "log more; twice: debug")
}

func execCommand(flags *flagSet) func(p program) int {
	var f execFlags
	f.register(flags)
	return func(p program) int {
		limitRuntime()
		log := newLog(p.stderr, isTerminal(os.Stderr), slog.LevelWarn-slog.Level(4*min(f.verbose, 2)))
		code, err := execute(p, log, flags.Args(), f.options, f.death)
		if err != nil {
			log.Error("cannot run the command", slog.String("error", err.Error()))
			return code
		}
		if slices.Contains(f.remapExit, code) {
			return 0
		}
		return code
	}
}

func execute(p program, log *slog.Logger, argv []string, options reaper.ExecOptions, death syscall.Signal) (int, error) {
	init, err := reaper.New(reaper.Options{Inbox: p.inbox, Log: log, ParentDeathSignal: death})
	if err != nil {
		return sequencer.CodeMismatch, err //nolint:wrapcheck // it says what could not be done
	}
	path, err := lookpath.Find(argv[0], os.Getenv("PATH"))
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

// check turns the flags into what the init takes, and finds all problems.
func (f *execFlags) check(flags *flagSet) (err error) {
	var problems []error
	refuse := func(flag string, err error) { problems = append(problems, fmt.Errorf("--%s: %w", flag, err)) }
	if flags.NArg() == 0 {
		return errors.New("the command is missing: want " + flags.usage)
	}
	f.options = reaper.ExecOptions{Group: f.group, SignalMap: map[syscall.Signal]syscall.Signal{}}
	for _, pair := range f.signalMap {
		if from, to, err := parseMapping(pair); err != nil {
			refuse("signal-map", err)
		} else {
			f.options.SignalMap[from] = to
		}
	}
	if f.parentDeath != "" {
		if f.death, err = parseSignal(f.parentDeath); err != nil {
			refuse("parent-death-signal", err)
		}
	}
	for _, code := range f.remapExit {
		if code < 0 || code > 255 {
			problems = append(problems, fmt.Errorf("--remap-exit %d: want 0 to 255", code))
		}
	}
	return errors.Join(problems...)
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
	return 0, errors.New("there is no signal of that name")
}
