package mockrollup

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What makes a process that a node leaves behind hard to get rid of.
const (
	LeftoverIgnoresStops = "ignores-stops" // SIGTERM, SIGINT, SIGHUP and SIGQUIT have no effect
	LeftoverSetsid       = "setsid"        // it has a session of its own, and so is in no group of the node
	LeftoverDoubleFork   = "double-fork"   // its parent is gone before the node is
	LeftoverHoldsStderr  = "holds-stderr"  // it keeps writing to the node's stderr
	LeftoverForks        = "forks"         // it starts another of its kind and ends, without end
)

// leftoverTraits are all of them.
var leftoverTraits = []string{LeftoverIgnoresStops, LeftoverSetsid, LeftoverDoubleFork, LeftoverHoldsStderr, LeftoverForks}

const (
	leftoverCommand = "leftover"
	leftoverReady   = "ready\n"
	leftoverPause   = 10 * time.Millisecond
)

// leaveBehind starts the process that will outlive the node, and returns once it has all its traits.
func (n *node) leaveBehind() error {
	traits := n.cfg.Mock.Leftover
	if len(traits) == 0 {
		return nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot leave a process behind: %w", err)
	}
	defer read.Close()
	generation := "last"
	if slices.Contains(traits, LeftoverDoubleFork) {
		generation = "middle"
	}
	err = startLeftover(write, generation, n.cfg.Mock.LeftoverLife, n.cfg.Mock.LeftoverSays, traits)
	write.Close()
	if err != nil {
		return fmt.Errorf("cannot leave a process behind: %w", err)
	}
	answer := make([]byte, len(leftoverReady))
	if got, err := read.Read(answer); string(answer[:got]) != leftoverReady {
		return fmt.Errorf("the process to leave behind did not start: %q, %w", answer[:got], err)
	}
	return nil
}

// startLeftover starts one generation, which reports on stdout that it is ready; nil: nobody listens.
func startLeftover(stdout *os.File, generation string, life time.Duration, says string, traits []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, append([]string{leftoverCommand, generation, life.String(), says}, traits...)...)
	child.SysProcAttr = &unix.SysProcAttr{Setsid: slices.Contains(traits, LeftoverSetsid)}
	if stdout != nil {
		child.Stdout = stdout
	}
	if slices.Contains(traits, LeftoverHoldsStderr) {
		child.Stderr = os.Stderr
	}
	return child.Start()
}

// leftoverMain is `mock-rollup leftover GENERATION LIFE SAYS TRAIT...`: the process in between, which ends immediately,
// or the one that stays.
func leftoverMain(args []string, stdio Stdio) int {
	if len(args) < 3 {
		return exitUsage
	}
	generation, says, traits := args[0], args[2], args[3:]
	life, err := time.ParseDuration(args[1])
	if err != nil {
		return exitUsage
	}
	if generation == "middle" {
		if startLeftover(os.Stdout, "last", life, says, traits) != nil {
			return exitMigration
		}
		return exitOK
	}
	if slices.Contains(traits, LeftoverIgnoresStops) {
		signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	}
	fmt.Fprint(stdio.Out, leftoverReady)
	for began := time.Now(); life == 0 || time.Since(began) < life; {
		time.Sleep(leftoverPause)
		if slices.Contains(traits, LeftoverHoldsStderr) {
			fmt.Fprintln(stdio.Err, says)
		}
		if slices.Contains(traits, LeftoverForks) && startLeftover(nil, "last", life, says, traits) == nil {
			return exitOK
		}
	}
	return exitOK
}
