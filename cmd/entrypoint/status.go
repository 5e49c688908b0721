package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rollup-entrypoint/internal/status"
)

const (
	statusUsage = "entrypoint status [--json] [--watch] [--listen ADDRESS]"
	healthUsage = "entrypoint healthcheck [--ready] [--listen ADDRESS]"
	// defaultListen is where a run listens unless it is told otherwise: for what is in the same container or pod alone.
	defaultListen = "127.0.0.1:9848"
	// watchEvery is the pause between two views of `status --watch`.
	watchEvery = time.Second
)

// registerListen adds the flag that says where a running entrypoint is asked. It is the name of the flag of run, so that
// ENTRYPOINT_LISTEN in a container holds for both.
func registerListen(flags *pflag.FlagSet, listen *string) {
	flags.StringVar(listen, "listen", defaultListen, "`ADDRESS` on which the running entrypoint listens")
}

// statusCommand asks the running entrypoint and prints what it says.
func statusCommand(p program, args []string) int {
	var listen string
	var asJSON, watch bool
	flags := newFlags("status")
	flags.BoolVar(&asJSON, "json", false, "print the answer of /status as it is")
	flags.BoolVarP(&watch, "watch", "w", false, "show it again each second, until Ctrl-C")
	registerListen(flags.FlagSet, &listen)
	flags.acts = []string{"json", "watch"}
	if code, done := parseOrHelp(p, flags, statusUsage, args); done {
		return code
	}
	if flags.NArg() > 0 {
		return usageError(p, "status", errors.New("want: "+statusUsage))
	}
	client := status.Client{Listen: listen}
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

// noAnswer prints why the running entrypoint could not be asked.
func noAnswer(p program, err error) int {
	fmt.Fprintf(p.stderr, "entrypoint: %s; see that it runs, in this container or pod, and that --listen is the same\n", err)
	return 1
}

// statusText asks once.
func statusText(client status.Client, asJSON bool) (string, error) {
	r, err := client.Report(context.Background())
	if err != nil {
		return "", err //nolint:wrapcheck // it says who was asked
	}
	if !asJSON {
		return r.View(), nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("cannot print the status as JSON: %w", err)
	}
	return string(text) + "\n", nil
}

// watchStatus shows the status again and again: on a terminal in place, elsewhere one below the other.
func watchStatus(p program, client status.Client, asJSON bool) int {
	inPlace := isTerminal(os.Stdout) && !asJSON
	for first := true; ; first = false {
		text, err := statusText(client, asJSON)
		switch {
		case err != nil && first:
			return noAnswer(p, err)
		case err != nil:
			text = fmt.Sprintf("%s: %s\n", time.Now().Format(time.TimeOnly), err)
		}
		if inPlace {
			// Home, each line cleared to its end, then all below: no flicker.
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		}
		if _, err := fmt.Fprint(p.stdout, text); err != nil {
			return 1
		}
		time.Sleep(watchEvery)
	}
}

// healthcheckCommand asks the running entrypoint whether it is alive or ready: for images without a shell.
func healthcheckCommand(p program, args []string) int {
	var listen string
	var ready bool
	flags := newFlags("healthcheck")
	flags.BoolVar(&ready, "ready", false, "ask whether the node is ready, not whether the entrypoint is alive")
	registerListen(flags.FlagSet, &listen)
	if code, done := parseOrHelp(p, flags, healthUsage, args); done {
		return code
	}
	if flags.NArg() > 0 {
		return usageError(p, "healthcheck", errors.New("want: "+healthUsage))
	}
	route := map[bool]string{false: "/healthz", true: "/readyz"}[ready]
	ok, text, err := status.Client{Listen: listen}.Probe(context.Background(), route)
	if err != nil {
		return noAnswer(p, err)
	}
	fmt.Fprintln(p.stdout, text)
	if !ok {
		return 1
	}
	return 0
}
