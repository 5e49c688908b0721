package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rollup-entrypoint/internal/plain"
	"rollup-entrypoint/internal/status"
	"rollup-entrypoint/sequencer/checkpoint"
)

const (
	statusUsage = "entrypoint status [-f CHECKPOINT | --no-checkpoint-file] [--json] [--watch] [--listen ADDRESS]"
	// defaultListen is where a run listens by default: only processes in the same container or pod can reach it.
	defaultListen = "127.0.0.1:9848"
	// watchEvery is the pause between two views of `status --watch`.
	watchEvery = time.Second
)

// clientFlags say which running entrypoint to ask. They have the names of run's flags, so that the variables of a
// container apply to both.
type clientFlags struct {
	recordFlags
	listen string
}

func (f *clientFlags) register(flags *flagSet) {
	f.registerCheckpoint(flags)
	flags.StringVar(&f.listen, "listen", defaultListen, "`ADDRESS` on which the running entrypoint listens")
}

// client asks the wanted entrypoint: if a checkpoint is known, the one that holds its lock. In a network that several
// entrypoints share, another one may answer, and its answer says nothing about our node.
func (f *clientFlags) client(flags *flagSet) status.Client {
	f.settle(flags)
	c := status.Client{Listen: f.listen}
	if f.checkpoint == "" || f.noCheckpoint {
		return c
	}
	lock := checkpoint.LockPath(f.checkpoint)
	if _, err := os.Lstat(lock); err != nil && !flags.given("checkpoint-file") {
		return c // the default of an image is a guess: the run may have got another one as an argument
	}
	c.Checkpoint, c.Instance = checkpoint.ResolveLinks(f.checkpoint), checkpoint.HolderID(lock)
	return c
}

func statusCommand(flags *flagSet) func(p program) int {
	var f clientFlags
	var asJSON, watch bool
	f.register(flags)
	flags.BoolVar(&asJSON, "json", false, "print the answer of /status unchanged")
	flags.BoolVarP(&watch, "watch", "w", false, "refresh the table every second, until Ctrl-C")
	flags.acts = []string{"json", "watch"}
	return func(p program) int {
		client := f.client(flags)
		if watch {
			return watchStatus(p, client, asJSON)
		}
		text, err := statusText(client, asJSON)
		if err != nil {
			return noAnswer(p, err)
		}
		fmt.Fprint(p.stdout, text)
		return 0
	}
}

// noAnswer prints why the running entrypoint could not be asked.
func noAnswer(p program, err error) int {
	next := "check that it is running, in this container or pod, and that --listen is the same"
	if errors.Is(err, status.ErrOther) {
		next = "give each entrypoint in a network its own address with --listen, and ask it there"
	}
	fmt.Fprintf(p.stderr, "entrypoint: %s; %s\n", plain.Line(err.Error()), next)
	return 1
}

// statusText asks once.
func statusText(client status.Client, asJSON bool) (string, error) {
	r, err := client.Report(context.Background())
	if err != nil {
		return "", err //nolint:wrapcheck // it says who was asked
	}
	if !asJSON {
		width, _ := terminalSize(os.Stdout)
		return r.View(width), nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("cannot print the status as JSON: %w", err)
	}
	return string(text) + "\n", nil
}

// watchStatus shows the status again and again: in place on a terminal, elsewhere one below the other.
func watchStatus(p program, client status.Client, asJSON bool) int {
	inPlace, out := isTerminal(os.Stdout) && !asJSON, p.stdout
	if inPlace {
		out = os.Stdout // only we move the cursor; the text cannot
	}
	for first := true; ; first = false {
		text, err := statusText(client, asJSON)
		switch {
		case err != nil && first:
			return noAnswer(p, err)
		case err != nil:
			text = fmt.Sprintf("%s UTC: %s\n", time.Now().UTC().Format(time.TimeOnly), plain.Line(err.Error()))
		}
		if inPlace {
			_, height := terminalSize(os.Stdout)
			// Home, each line cleared before it is written, then all below: no flicker. After the last column of a line,
			// clearing would erase that column.
			text = "\x1b[H\x1b[K" + strings.ReplaceAll(firstLines(text, height), "\n", "\n\x1b[K") + "\x1b[J"
		}
		if _, err := fmt.Fprint(out, text); err != nil {
			return 1
		}
		time.Sleep(watchEvery)
	}
}

// terminalSize gives the columns and rows of a terminal; zeros mean that they are not known, or that f is not a
// terminal.
func terminalSize(f *os.File) (width, height int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}

// firstLines cuts text to a terminal of this height, 0 for any: a longer text would scroll, and be shown twice. The
// cursor needs a line, too.
func firstLines(text string, height int) string {
	lines := strings.SplitAfter(text, "\n")
	if height < 3 || len(lines) <= height {
		return text
	}
	return strings.Join(lines[:height-2], "") + "…\n"
}
