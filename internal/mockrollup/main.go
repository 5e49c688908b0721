package mockrollup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// Exit codes. The first four are those of a real node.
const (
	exitOK      = 0
	exitUsage   = 2
	exitFailure = 101
	// exitError is the exit code of failed programs that do not panic.
	exitError = 1
	// exitMigration is the exit code of a failed migration, and of every failed tool that is not a node.
	exitMigration = 1
)

// Stdio is where a program writes.
type Stdio struct{ Out, Err io.Writer }

// OSStdio gives the streams of the process.
func OSStdio() Stdio { return Stdio{Out: os.Stdout, Err: os.Stderr} }

var commands = map[string]func([]string, Stdio) int{
	"migrate":       migrateMain,
	"da":            daMain,
	"demo":          demoMain,
	"inspect":       inspectMain,
	"get":           getMain,
	orphanCommand:   orphanMain,
	leftoverCommand: leftoverMain,
	workerCommand:   workerMain,
}

// Main runs the program that args describe, of which the first is its name, and returns its exit code. Under a name
// that begins with "migration" or "rollup-db-migration" it is the migration; otherwise, without a subcommand, it is the
// node. Signals belong to the whole process: a started node keeps its handler for good, so a test that stops it with a
// signal runs Main in its own process.
func Main(args []string, stdio Stdio) (code int) {
	defer func() {
		if reason := recover(); reason != nil {
			fmt.Fprint(stdio.Err, panicText(fmt.Sprint(reason), colourWanted()))
			code = exitFailure
		}
	}()
	if len(args) == 0 {
		return nodeMain(nil, stdio)
	}
	if calledAsMigration(args[0]) {
		return migrateMain(args[1:], stdio)
	}
	if len(args) > 1 {
		if command, found := commands[args[1]]; found {
			return command(args[2:], stdio)
		}
	}
	return nodeMain(args[1:], stdio)
}

func calledAsMigration(name string) bool {
	base := filepath.Base(name)
	return strings.HasPrefix(base, "migration") || strings.HasPrefix(base, "rollup-db-migration")
}

// parseArgs parses args, which may have only flags. If ok is false, the program exits with the code: 0 after --help, 2
// after a mistake.
func parseArgs(flags *pflag.FlagSet, args []string, stdio Stdio) (code int, ok bool) {
	flags.SetOutput(io.Discard)
	usage := fmt.Sprintf("Usage: %s [OPTIONS]\n\nOptions:\n%s", flags.Name(), flags.FlagUsages())
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument '%s' found", flags.Arg(0))
	}
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprint(stdio.Out, usage)
		return exitOK, false
	}
	if err != nil {
		fmt.Fprintf(stdio.Err, "error: %s\n\n%s", err, usage)
		return exitUsage, false
	}
	return exitOK, true
}

// required is parseArgs for flags without a useful default.
func required(flags *pflag.FlagSet, stdio Stdio, names ...string) (code int, ok bool) {
	for _, name := range names {
		if !flags.Changed(name) {
			fmt.Fprintf(stdio.Err, "error: the following required arguments were not provided:\n  --%s\n\nUsage: %s [OPTIONS]\n",
				name, flags.Name())
			return exitUsage, false
		}
	}
	return exitOK, true
}
