// Entrypoint is process 1 of a container that runs a Sovereign SDK rollup through its hard forks: it runs the version
// of the node that the stamp in the state names, confirms that this version has reached its stop height, runs the
// migration, starts the next version, forwards signals and reaps zombies.
//
//	entrypoint [run] -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]
//	entrypoint exec [FLAGS] -- COMMAND [ARGUMENTS]
//	entrypoint check -c CONFIG [-f CHECKPOINT] [--running URL] [FLAGS]
//	entrypoint status [-f CHECKPOINT] [--json] [--watch] [--listen ADDRESS]
//	entrypoint healthcheck [-f CHECKPOINT] [--ready] [--listen ADDRESS]
//	entrypoint height -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]
//	entrypoint migrate --dry-run -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS]
//	entrypoint plan -c CONFIG [-f CHECKPOINT | --no-checkpoint-file] [--ask] [FLAGS] [-- NODE ARGUMENTS]
//	entrypoint plan schema [manager|version]
//	entrypoint checkpoint show|set -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS]
//	entrypoint hold -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--before NAME | --all] [--hold-file FILE]
//	entrypoint resume (-f CHECKPOINT | --hold-file FILE) [-c CONFIG]
//	entrypoint reset -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--delete] [--yes]
//	entrypoint undo -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [--undo-dir DIRECTORY] [--drop] [--yes]
//	entrypoint manifest write|verify [FLAGS]
//	entrypoint version
//
// 'entrypoint --help' lists the exit codes, 'entrypoint COMMAND --help' the flags and their defaults.
//
// Every flag is an environment variable too: ENTRYPOINT_ and the flag's name in capitals, with underscores for hyphens,
// so ENTRYPOINT_CHECKPOINT_FILE for --checkpoint-file. The flag wins. Exceptions are the flags that ask for one act,
// such as --yes of reset; the help of a command names them. A variable that nearly is one of ours is logged.
//
// In an image with the layout of package layout, CONFIG and CHECKPOINT default to /opt/rollup and
// /data/checkpoint.json. Elsewhere CONFIG must be given, and either --checkpoint-file or --no-checkpoint-file, not
// both; a flag beats the variable of the other one. --termination-log must not name the checkpoint, nor the checkpoint
// the stamp, and --hold-file, by default "hold" beside the checkpoint, none of the three.
//
// Of other variables, PATH is searched for programs whose names have no slash, and GOMAXPROCS and GOGC win over our own
// limits of the Go runtime. Nodes and migrations inherit the environment; what their entry in CONFIG sets wins.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/strictjson"
	"rollup-entrypoint/reaper"
	"rollup-entrypoint/sequencer"
)

func main() {
	// First of all: from here on no signal is lost and none kills us.
	inbox := reaper.CatchSignals()
	os.Exit(dispatch(program{inbox: inbox, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}

// program is what the commands need of the process.
type program struct {
	inbox          *reaper.Inbox
	stdout, stderr io.Writer
}

// command is one row of the table of commands. To add one, add a row and a file with its function.
type command struct {
	// name has one word or two.
	name, usage, summary string
	// init: the command is an init and handles signals itself. Signals end all others, as they end any program.
	init bool
	// raw: the output of a node, or of any other child, is passed on unchanged. All other commands print nothing that
	// could control a terminal.
	raw bool
	// setUp registers the flags, and returns what the command does with them.
	setUp func(flags *flagSet) (run func(p program) int)
}

func commands() []command {
	return []command{
		{"run", runUsage, "run the rollup through its versions (the default)", true, true, runCommand},
		{"exec", execUsage, "run any command under an init, as tini and dumb-init do", true, true, execCommand},
		{"check", checkUsage, "find what would make a run or an upgrade fail", false, false, checkCommand},
		{"status", statusUsage, "show what a running entrypoint is doing", false, false, statusCommand},
		{"healthcheck", healthUsage, "exit 0 if a running entrypoint is alive or, with --ready, its node is ready, else 1", false, false, healthcheckCommand},
		{"height", heightUsage, "with the rollup stopped, ask its node for the durable height, and show what the next start does", true, false, heightCommand},
		{"migrate", migrateUsage, "with the rollup stopped, try the coming migration on the state with --dry-run, and put the state back", true, false, migrateCommand},
		{"plan schema", planSchemaUsage, "print the JSON Schema of manager.json or version.json, for editors", false, false, planSchema},
		{"plan", planUsage, "show what will happen: versions, commands, digests and, with a checkpoint, what the next start does", true, false, planCommand},
		{"checkpoint show", showUsage, "show which version the state belongs to, and what the next start does", false, false, checkpointShow},
		{"checkpoint set", setUsage, "set by hand which version the state belongs to", false, false, checkpointSet},
		{"hold", holdUsage, "hold the sequence before its next version, until resume", false, false, holdCommand},
		{"resume", resumeUsage, "end a hold", false, false, resumeCommand},
		{"reset", resetUsage, "move state and checkpoint aside, or delete them, so that the next start begins at genesis", false, false, resetCommand},
		{"undo", undoUsage, "undo the last upgrade: put back the copy of the state from before it, or delete that copy", false, false, undoCommand},
		{"manifest write", manifestWriteUsage, "write the manifest of an image, as a step of its build", false, false, manifestWrite},
		{"manifest verify", manifestVerifyUsage, "compare an image with its manifest", false, false, manifestVerify},
		{"version", "entrypoint version", "print the version of this program", false, false, versionCommand},
	}
}

// dispatch finds the command. The default is run, so that the command line of sov-rollup-manager works unchanged.
func dispatch(p program, args []string) int {
	switch {
	case len(args) > 0 && (isHelp(args[0]) || args[0] == "help"):
		fmt.Fprint(p.stdout, overview())
		return 0
	case len(args) > 0 && args[0] == "--version":
		args = append([]string{"version"}, args[1:]...)
	case len(args) == 0 || strings.HasPrefix(args[0], "-"):
		args = append([]string{"run"}, args...)
	}
	var known []string
	usages := ""
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c.start(p, args[len(words):])
		}
		known = append(known, words[0])
		if words[0] == args[0] { // the second word is missing or wrong
			usages += "\n  " + c.usage
		}
	}
	if usages != "" && len(args) > 1 && isHelp(args[1]) {
		fmt.Fprintf(p.stdout, "Usage:%s\n", usages)
		return 0
	}
	if usages != "" {
		return usageError(p, args[0], errors.New("want one of:"+usages))
	}
	err := errors.New("unknown command" + strictjson.Misspelt(args[0], known))
	if os.Getpid() == 1 {
		// A pod with a wrong command never starts. In any other case a person at a terminal reads this.
		flags := newFlags("run", runUsage)
		(&runFlags{}).register(flags)
		flags.parseRest(args)
		terminateUsage(p, flags, err)
	}
	return usageError(p, "", fmt.Errorf("%w\nTo run a program under the init: entrypoint exec -- COMMAND [ARGUMENTS]", err))
}

func isHelp(arg string) bool { return arg == "-h" || arg == "--help" }

// start reads the command line of a command, and runs it.
func (c command) start(p program, args []string) int {
	if !c.init && p.inbox != nil {
		_ = p.inbox.Close() // it only gives the signals back
	}
	if !c.raw {
		p.stdout, p.stderr = plain.Writer{To: p.stdout}, plain.Writer{To: p.stderr}
	}
	flags := newFlags(c.name, c.usage)
	run := c.setUp(flags)
	err := flags.parse(args)
	switch {
	case err == nil:
		return run(p)
	case errors.Is(err, pflag.ErrHelp):
		flags.printHelp(p.stdout)
		return 0
	case c.name == "run", c.name == "check":
		terminateUsage(p, flags, err)
	}
	return usageError(p, c.name, err)
}

// usageError prints what is wrong with the command line and where to look.
func usageError(p program, command string, err error) int {
	fmt.Fprintf(p.stderr, "entrypoint: %s\nTry: entrypoint %s\n", plain.Lines(err.Error()), strings.TrimSpace(command+" --help"))
	return sequencer.CodeUsage
}

func overview() string {
	var b strings.Builder
	b.WriteString("entrypoint runs a Sovereign SDK rollup through its hard forks, as process 1 of its container.\n\nUsage:\n" +
		"  " + runUsage + "\n  entrypoint COMMAND [FLAGS]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-16s %s\n", c.name, c.summary)
	}
	b.WriteString("\nEvery flag is also an environment variable: ENTRYPOINT_CHECKPOINT_FILE for --checkpoint-file. The flag wins.\n" +
		"To list the flags of a command: entrypoint COMMAND --help\n\n" + exitCodes)
	return b.String()
}

// exitCodes is also part of the help of run.
const exitCodes = `Exit codes:
  0        finished, or stopped as asked
  1..255   the exit code of the node or the migration; the last log line says whose
  64       the command line or the environment is wrong
  65       the checkpoint, or the stamp in the state, cannot be read
  74       one of them cannot be written, or a lock is held by another process, or was lost
  75       a node exited 0 below its stop height again and again, or another temporary condition; starting again is safe
  78       plan, files, stamp, checkpoint and state are inconsistent, or a person has to decide
  126 127  a program cannot be executed, or is not found
  128+n    killed by signal n
`
