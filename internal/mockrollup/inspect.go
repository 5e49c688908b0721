package mockrollup

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"
)

// inspectMain prints a summary of the state as one line of JSON.
func inspectMain(args []string, stdio Stdio) int {
	flags := pflag.NewFlagSet("mock-rollup inspect", pflag.ContinueOnError)
	dir := flags.String("dir", "", "the state `FOLDER` (storage.path)")
	if code, ok := parseArgs(flags, args, stdio); !ok {
		return code
	}
	if code, ok := required(flags, stdio, "dir"); !ok {
		return code
	}
	state, err := ReadState(*dir)
	if err == nil {
		err = json.NewEncoder(stdio.Out).Encode(state)
	}
	if err != nil {
		fmt.Fprintf(stdio.Err, "error: %s\n", err)
		return exitMigration
	}
	return exitOK
}
