package main

import (
	"context"
	"fmt"

	"rollup-entrypoint/internal/plain"
)

const healthUsage = "entrypoint healthcheck [-f CHECKPOINT | --no-checkpoint-file] [--ready] [--listen ADDRESS]"

// healthcheckCommand asks the running entrypoint whether it is alive or ready. It is for images without a shell.
func healthcheckCommand(flags *flagSet) func(p program) int {
	var f clientFlags
	var ready bool
	f.register(flags)
	flags.BoolVar(&ready, "ready", false, "ask whether the node is ready, instead of whether the entrypoint is alive")
	return func(p program) int {
		route := "/healthz"
		if ready {
			route = "/readyz"
		}
		ok, text, err := f.client(flags).Probe(context.Background(), route)
		if err != nil {
			return noAnswer(p, err)
		}
		fmt.Fprintln(p.stdout, plain.Line(text))
		if !ok {
			return 1
		}
		return 0
	}
}
