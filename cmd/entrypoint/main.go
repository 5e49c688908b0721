// Entrypoint is the ENTRYPOINT, and so process 1, of a container that runs a Sovereign SDK rollup through its hard
// forks: it runs the version of the node that the stamp of the state names, notices when that has completed its stop height, runs
// the migration, starts the next version, forwards signals and reaps zombies.
//
//	entrypoint [run] -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]
//	entrypoint exec [FLAGS] -- COMMAND [ARGUMENTS]
//	entrypoint check -c CONFIG [-f CHECKPOINT] [--running URL] [FLAGS]
//	entrypoint status [--json] [--watch] [--listen ADDRESS]
//	entrypoint healthcheck [--ready] [--listen ADDRESS]
//	entrypoint height -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]
//	entrypoint checkpoint show|set -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS]
//	entrypoint manifest write|verify [FLAGS]
//	entrypoint version
//
// Every flag can be given as an environment variable too: ENTRYPOINT_ and the flag's name in capitals, with underscores
// for hyphens, so ENTRYPOINT_CHECKPOINT_FILE for --checkpoint-file. The flag wins. See 'entrypoint --help' for the exit
// codes and 'entrypoint COMMAND --help' for the flags, and for the few that are not taken from the environment.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

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

// command is one row of the table of commands.
type command struct {
	name, summary string
	// init: the command is an init, which handles signals itself. All others are ended by them, as any program is.
	init bool
	run  func(p program, args []string) int
}

// commands is a function because the help of a command refers to the table.
func commands() []command {
	return []command{
		{"run", "run the rollup through its versions (the default)", true, runCommand},
		{"exec", "run any command under an init, as tini and dumb-init do", true, execCommand},
		{"check", "look for all that would keep a run or an upgrade from succeeding", false, checkCommand},
		{"status", "show what a running entrypoint does", false, statusCommand},
		{"healthcheck", "exit 0 if a running entrypoint is alive, or its node ready, else 1", false, healthcheckCommand},
		{"height", "ask the stopped node for the height of its state, and say what the next start does", true, heightCommand},
		{"checkpoint", "show or set where the sequence is", false, checkpointCommand},
		{"manifest", "record what is in an image, or compare the two", false, manifestCommand},
		{"version", "print the version of this program", false, versionCommand},
	}
}

// dispatch finds the command. Without one it is run, so that the command line of sov-rollup-manager works as it is.
func dispatch(p program, args []string) int {
	if len(args) > 0 && slices.Contains([]string{"-h", "--help", "help"}, args[0]) {
		fmt.Fprint(p.stdout, overview())
		return 0
	}
	if len(args) > 0 && args[0] == "--version" {
		args = append([]string{"version"}, args[1:]...)
	}
	name, rest := "run", args
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, rest = args[0], args[1:]
	}
	for _, c := range commands() {
		if c.name != name {
			continue
		}
		if !c.init && p.inbox != nil {
			_ = p.inbox.Close() // it only gives the signals back
		}
		return c.run(p, rest)
	}
	if os.Getpid() == 1 {
		// A pod whose command is mistaken never starts. Anybody else is a person with a terminal.
		terminateUsage(p, newFlags("run"), fmt.Errorf("unknown command%s", sequencer.Suggest(name, commandNames())))
	}
	return usageError(p, "", fmt.Errorf("unknown command %q%s\nTo run a program under the init: entrypoint exec -- %s",
		name, sequencer.Suggest(name, commandNames()), strings.Join(args, " ")))
}

func commandNames() []string {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	return names
}

// usageError prints what is wrong with the command line and where to look.
func usageError(p program, command string, err error) int {
	fmt.Fprintf(p.stderr, "entrypoint: %s\nTry: entrypoint %s\n", err, strings.TrimSpace(command+" --help"))
	return sequencer.CodeUsage
}

func overview() string {
	var b strings.Builder
	b.WriteString("entrypoint runs a Sovereign SDK rollup through its hard forks, as process 1 of its container.\n\nUsage:\n" +
		"  entrypoint [run] -c CONFIG (-f CHECKPOINT | --no-checkpoint-file) [FLAGS] [-- NODE ARGUMENTS]\n" +
		"  entrypoint COMMAND [FLAGS]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-12s %s\n", c.name, c.summary)
	}
	b.WriteString("\nEvery flag also works as an environment variable: ENTRYPOINT_CHECKPOINT_FILE for --checkpoint-file; the flag wins.\n" +
		"The flags of a command: entrypoint COMMAND --help\n\n" + exitCodes)
	return b.String()
}

// exitCodes is part of the help of run.
const exitCodes = `Exit codes:
  0        finished, or stopped as asked
  1..255   the node's or the migration's own code; the last log line says whose
  64       the command line or the environment is wrong
  65       the checkpoint, or the stamp in the state, cannot be read
  74       one of them cannot be written, or another process holds the lock
  75       a node exited 0 below its stop height again and again, or another passing condition; starting again is safe
  78       config, files, record and state are inconsistent
  126 127  a program cannot be executed, or is not found
  128+n    killed by signal n
`
